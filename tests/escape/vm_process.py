#!/usr/bin/env python3
"""A script's process from outside: what it holds, what becomes of it when the host or itself is killed, and that clean-up ends.
As the caller and, when that is root, as nobody."""
import concurrent.futures
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

MLHOST = os.path.abspath(os.environ["MLHOST"])
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
LOOP = "while true do pcall(function() while true do end end) end"
TESTS = []


def test(fn):
    TESTS.append(fn)
    return fn


def until(what, condition, limit=20):
    end = time.monotonic() + limit
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"{what}: not within {limit} s")


class Place:
    def __init__(self, root, user, prefix):
        self.user, self.prefix = user, prefix
        self.dir = os.path.join(root, user)
        os.makedirs(os.path.join(self.dir, "bin"))
        self.program = os.path.join(self.dir, "bin", "mlhost")
        shutil.copy(MLHOST, self.program)
        for name in os.listdir(os.path.dirname(MLHOST)):
            if re.fullmatch(r"mlhost-\w+\.so", name):
                shutil.copy(os.path.join(os.path.dirname(MLHOST), name), os.path.dirname(self.program))

    def start(self, text, *words):
        work = os.path.join(self.dir, "run")
        shutil.rmtree(work, ignore_errors=True)
        os.mkdir(work)
        os.chmod(work, 0o777)
        with open(os.path.join(work, "ci.lua"), "w", encoding="utf-8") as out:
            out.write(text)
        os.chmod(os.path.join(work, "ci.lua"), 0o644)
        self.log = open(os.path.join(work, "log"), "w+", encoding="utf-8", errors="replace")
        self.process = subprocess.Popen(self.prefix + [self.program, "run", "--output", "plain", *words, "ci.lua"], cwd=work,
                                        env=dict(os.environ, HOME=work), stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)

    def out(self):
        with open(self.log.name, encoding="utf-8", errors="replace") as log:
            return log.read()

    def said(self, text):
        until(f"the output holds '{text}'", lambda: text in self.out())

    def ended(self, status, limit=20):
        assert self.process.wait(limit) == status, f"exit status {self.process.returncode}, not {status}\n{self.out()}"
        self.gone()

    def pids(self):
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                if os.readlink(f"/proc/{pid}/exe") == self.program:
                    found.append(int(pid))
            except OSError:
                pass
        return found

    def gone(self):
        until("no process is left", lambda: not self.pids())

    def vm(self):
        """The one process with a system-call filter."""
        found = []
        for pid in self.pids():
            try:
                with open(f"/proc/{pid}/status", encoding="ascii") as status:
                    if re.search(r"(?m)^Seccomp:\s+2$", status.read()):
                        found.append(pid)
            except OSError:
                pass
        assert len(found) == 1, f"{len(found)} processes have a filter"
        return found[0]

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.gone()
        self.log.close()


def script(body, more=""):
    return f'pipeline "p" {{}} stage "s" {{ timeout = "60s", run = function() print "begun" {body} end {more} }}\n'


@test
def number_76_one_socket_and_the_three_standard_descriptors(place):
    place.start(script(LOOP))
    place.said("begun")
    folder = f"/proc/{place.vm()}/fd"
    held = sorted(os.readlink(f"{folder}/{fd}") for fd in os.listdir(folder))
    sockets = [name for name in held if name.startswith("socket:")]
    assert len(sockets) == 1, held
    assert all(name == "/dev/null" for name in held if name not in sockets), held
    assert len(held) <= 4, held


@test
def number_59_no_environment_and_no_arguments_of_the_host(place):
    place.start(script(LOOP))
    place.said("begun")
    with open(f"/proc/{place.vm()}/environ", "rb") as environ:
        assert not environ.read().strip(b"\0"), "the environment is there"


@test
def number_78_no_core_no_files_no_capabilities(place):
    place.start(script(LOOP))
    place.said("begun")
    with open(f"/proc/{place.vm()}/limits", encoding="ascii") as limits:
        text = limits.read()
    for name in ("Max core file size", "Max file size"):
        assert re.search(rf"{name}\s+0\s+0", text), text
    with open(f"/proc/{place.vm()}/status", encoding="ascii") as status:
        text = status.read()
    for line in (r"NoNewPrivs:\s+1", r"CapEff:\s+0+", r"CapPrm:\s+0+", r"CapInh:\s+0+", r"CapAmb:\s+0+"):
        assert re.search(rf"(?m)^{line}$", text), f"{line}: {text}"


@test
def number_75_a_host_that_is_killed_takes_its_script_with_it(place):
    place.start(script(LOOP))
    place.said("begun")
    host = place.process.pid
    os.kill(host, signal.SIGKILL)
    place.process.wait(20)
    start = time.monotonic()
    place.gone()
    if os.environ.get("SHOW"):
        print(f"gone after {time.monotonic() - start:.2f} s")


@test
def number_51_a_crash_is_reported_as_a_crash(place):
    for signo in (signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT):
        place.start(script(LOOP))
        place.said("begun")
        os.kill(place.vm(), signo)
        place.ended(1)
        assert f"ended by signal {int(signo)}" in place.out(), place.out()


@test
def a_script_that_is_stopped_is_killed_at_its_deadline(place):
    place.start(script(LOOP).replace("60s", "1s"))
    place.said("begun")
    os.kill(place.vm(), signal.SIGSTOP)
    place.ended(3)
    assert "timed out after" in place.out(), place.out()


@test
def a_deferred_function_that_loops_does_not_outlive_a_cancel(place):
    place.start(script(f"defer(function() print 'cleaning' {LOOP} end) sleep '50s'"))
    place.said("begun")
    place.process.send_signal(signal.SIGINT)
    place.said("cleaning")
    place.ended(130)


@test
def an_always_that_loops_does_not_outlive_a_cancel(place):
    place.start(script("sleep '50s'", f", always = function() print 'always' {LOOP} end"))
    place.said("begun")
    place.process.send_signal(signal.SIGINT)
    place.said("always")
    place.ended(130, limit=60)  # 30 s of its own


@test
def a_second_cancel_ends_an_always_that_loops(place):
    place.start(script("sleep '50s'", f", always = function() print 'always' {LOOP} end"))
    place.said("begun")
    place.process.send_signal(signal.SIGINT)
    place.said("always")
    place.process.send_signal(signal.SIGINT)
    place.ended(130, limit=15)


def all_of(place):
    passed = failed = 0
    wanted = [fn for fn in TESTS if not sys.argv[1:] or any(word in fn.__name__ for word in sys.argv[1:])]
    for fn in wanted:
        try:
            fn(place)
            passed += 1
            place.close()
        except (AssertionError, OSError, subprocess.SubprocessError) as error:
            failed += 1
            print(f"FAILED as {place.user}: {fn.__name__}: {error}", flush=True)
            place.process.kill()
            place.process.wait()
    return passed, failed


def main():
    with tempfile.TemporaryDirectory() as root:
        os.chmod(root, 0o755)
        places = [Place(root, "root" if os.getuid() == 0 else "user", [])]
        if os.getuid() == 0:
            places.append(Place(root, "nobody", NOBODY))
        with concurrent.futures.ThreadPoolExecutor(len(places)) as pool:
            results = list(pool.map(all_of, places))
    passed, failed = (sum(column) for column in zip(*results))
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed != 0)


if __name__ == "__main__":
    main()
