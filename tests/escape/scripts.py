#!/usr/bin/env python3
"""Each attempt of attempts/*.txt is a run of its own, as the caller and, when that is root, as nobody too: it must end in the
class that it names, on time, with the words that are expected, and leave no process behind.

    @ NUMBER what it tries | class[/class] | pattern
    permissions = { ... }       optional; default: none
    timeout = "2s"              optional; default: 300 ms where the class may be timeout, else 10 s
    output = plain              optional: what a person or an agent sees; default: json
    the body of the stage

NUMBER is the entry of the catalogue of escapes, or - for one of our own. The class is what the run's own report says: timeout,
memory, denied, crashed (the process ended by a signal), error (any other failure) or ok. The pattern must match the output;
an attempt to outlive a deadline that names no pattern needs none. `scripts.py WORD...` runs what has one of the words in its title.
"""
import concurrent.futures
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
MLHOST = os.path.abspath(os.environ["MLHOST"])
CLASSES = {"timeout", "memory", "denied", "crashed", "error", "ok"}
OVERTIME = 10  # s beyond the stage's own time: start, clean-up (5 s), the load of the machine
UNSEEN = r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]"  # what steers a terminal, or hides text
SLEEPER = b"98761"  # what a command leaves running, in seconds
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]


def load(path):
    attempts = []
    for line in open(path, encoding="utf-8"):
        head = re.match(r"@ (\S+) (.+?) \| (\S+) \|(.*)$", line)
        if head:
            number, title, classes, pattern = head.groups()
            classes = set(classes.split("/"))
            if not (number == "-" or number.isdigit()) or classes - CLASSES:
                sys.exit(f"{path}: {line.strip()}: no such number or class")
            attempts.append({"number": number, "title": title, "classes": classes, "pattern": pattern.strip(), "body": [],
                             "permissions": "{}", "timeout": '"300ms"' if "timeout" in classes else '"10s"', "output": "json"})
        elif attempts:
            option = re.match(r"(permissions|timeout|output) = (.+)$", line)
            if option and not attempts[-1]["body"]:
                attempts[-1][option.group(1)] = option.group(2)
            else:
                attempts[-1]["body"].append(line)
    return attempts


def seconds(text):
    value, unit = re.fullmatch(r'"([0-9.]+)(ms|s)"', text).groups()
    return float(value) / (1000 if unit == "ms" else 1)


def class_of(events, status):
    ends = [e for e in events if e.get("t") == "stage_end"]
    if not ends:
        return f"no stage ended (exit status {status})"
    error = ends[-1].get("error")
    if error is None:
        return "ok" if status == 0 else f"exit status {status} without an error"
    code, message = error.get("code"), error.get("message")
    if not isinstance(code, str) or not isinstance(message, str):
        return f"an error without a code or message ({error})"
    if "ended by signal" in message:
        return "crashed"
    return code if code in ("timeout", "memory", "denied") else "error"


STATUS = {"timeout": 3, "denied": 4, "ok": 0}  # others: 1


class Place:
    """A user, with a copy of the program of its own: so its processes are told from those of other runs."""

    def __init__(self, root, user, prefix):
        self.user, self.prefix = user, prefix
        self.dir = os.path.join(root, user)
        os.makedirs(os.path.join(self.dir, "bin"))
        self.program = os.path.join(self.dir, "bin", "mlhost")
        shutil.copy(MLHOST, self.program)
        folder = os.path.dirname(MLHOST)
        for name in os.listdir(folder):
            if re.fullmatch(r"mlhost-\w+\.so", name):
                shutil.copy(os.path.join(folder, name), os.path.dirname(self.program))

    def left(self):
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                if os.readlink(f"/proc/{pid}/exe") == self.program:
                    found.append(pid)
                with open(f"/proc/{pid}/cmdline", "rb") as words:
                    if SLEEPER in words.read().split(b"\0"):
                        found.append(pid)
            except OSError:
                pass
        return found

    def run(self, attempt):
        """None, or what is wrong."""
        work = os.path.join(self.dir, "run")
        shutil.rmtree(work, ignore_errors=True)
        os.mkdir(work)
        os.chmod(work, 0o777)
        os.symlink("/etc/passwd", os.path.join(work, "outside.lua"))
        with open(os.path.join(work, "binary.lua"), "wb") as out:
            out.write(b"\x1bLua\x54\x00\x19\x93\r\n\x1a\n")
        with open(os.path.join(work, "attempt.lua"), "w", encoding="utf-8") as out:
            out.write(f'pipeline "escape" {{ permissions = {attempt["permissions"]} }} stage "attempt" {{ '
                      f'timeout = {attempt["timeout"]}, run = function(cx)\n{"".join(attempt["body"])}end }}\n')
        os.chmod(os.path.join(work, "attempt.lua"), 0o644)
        limit = seconds(attempt["timeout"]) + OVERTIME
        start = time.monotonic()
        with open(os.path.join(work, "log"), "w+b") as log:
            process = subprocess.Popen(self.prefix + [self.program, "run", "--output", attempt["output"], "attempt.lua"], cwd=work,
                                       env=dict(os.environ, HOME=work), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            try:
                status = process.wait(timeout=limit)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                return f"still running after {limit:.1f} s"
            took = time.monotonic() - start
            size = log.tell()
            log.seek(0)
            text = log.read(1 << 30).decode("utf-8", "replace")  # a flood is as long as the machine is quick
        return self.judge(attempt, status, text, size, took)

    @staticmethod
    def events(text):
        return [json.loads(line) for line in text.split("\n") if line.startswith("{")]

    def judge(self, attempt, status, text, size, took):
        if attempt["output"] != "json":
            got = {0: "ok", 3: "timeout", 4: "denied"}.get(status, "error")
        else:
            got = class_of(self.events(text), status)
        wrong = None
        if got not in attempt["classes"]:
            wrong = f"ended as {got}, expected {'/'.join(sorted(attempt['classes']))}"
        elif status != STATUS.get(got, 1):
            wrong = f"exit status {status} for {got}"
        elif attempt["pattern"] and not re.search(attempt["pattern"], text):
            wrong = f"the output does not hold '{attempt['pattern']}'"
        elif re.search(r"[\x00-\x08\x0b-\x1f\x7f]" if attempt["output"] == "json" else UNSEEN, text):
            wrong = "a control character got out"
        elif self.left():
            time.sleep(0.2)  # a process that was ended may stand in the table for a moment
            if self.left():
                wrong = f"left a process behind: {self.left()}"
        if os.environ.get("SHOW"):
            print(f"{self.user:<7} {got:<8} {took:6.2f} s {size:>10} bytes  {attempt['number']} {attempt['title']}", flush=True)
        return f"{wrong}\n    {text[-1500:]}" if wrong else None


def main():
    attempts = []
    for name in sorted(os.listdir(os.path.join(HERE, "attempts"))):
        if name.endswith(".txt"):
            attempts += load(os.path.join(HERE, "attempts", name))
    if sys.argv[1:]:
        attempts = [a for a in attempts if any(word in f"{a['number']} {a['title']}" for word in sys.argv[1:])]
    passed = failed = 0
    with tempfile.TemporaryDirectory() as root:
        os.chmod(root, 0o755)
        places = [Place(root, "root" if os.getuid() == 0 else "user", [])]
        if os.getuid() == 0:
            places.append(Place(root, "nobody", NOBODY))

        def all_of(place):
            return [(attempt, place.run(attempt)) for attempt in attempts]

        with concurrent.futures.ThreadPoolExecutor(len(places)) as pool:
            for place, results in zip(places, pool.map(all_of, places)):
                for attempt, wrong in results:
                    if wrong is None:
                        passed += 1
                    else:
                        failed += 1
                        print(f"FAILED as {place.user}: {attempt['number']} {attempt['title']}: {wrong}")
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed != 0)


if __name__ == "__main__":
    main()
