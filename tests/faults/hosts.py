#!/usr/bin/env python3
"""Several hosts on one folder, a wall clock that jumps, and journals that something else has changed."""
import os
import random
import re
import signal
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "support"))
from faults import Score, Server, Work, build_preload, journal_order  # noqa: E402

score = Score()
server = Server()

SLOW = """
local http = require "http"
pipeline "slow" { permissions = { net = { "127.0.0.1:@PORT@" } } }
local function say(cx, what)
  local key = cx.run_id .. "/" .. cx.cell .. "/" .. what
  http.post("http://127.0.0.1:@PORT@/" .. key, { headers = { ["Idempotency-Key"] = key }, body = what })
end
stage "slow" { run = function(cx)
  if cx.resumed then say(cx, "second") return { ok = true } end
  defer(function() sleep "700ms"; say(cx, "cleaned") end)
  say(cx, "first")
  sleep "60s"
end }
"""

LOCAL = """
local mlflow = require "mlflow"
stage "log" { matrix = { n = { 1, 2, 3 } }, run = function(cx)
  local client = mlflow.connect()
  local experiment = client:experiment("shared")
  return { id = experiment.id or experiment.experiment_id }
end }
"""


def wait_for(what, seconds=30):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if what():
            return True
        time.sleep(0.02)
    return False


def asked(word):
    return sum(count for key, count in server.asked.copy().items() if key.endswith("/" + word))


def one_run_two_hosts(parent):
    work = Work(parent, server, SLOW)
    first = work.start("a.lua")
    begun = wait_for(lambda: asked("first") == 1)
    started = time.monotonic()
    status, output = work.run("--resume", work.runs()[-1])
    took = time.monotonic() - started
    wanted = [f"process {first.pid} on", "since 20", f"kill {first.pid}", "hint:"]
    problems = [word for word in wanted if word not in output] + ([] if begun and status == 1 else [f"exit status {status}"])
    score.case(f"a second host on one run is told who has it (in {took * 1000:.0f} ms)", problems, output)
    status, output = work.command("runs")
    score.case("a run that is going on is running", [] if " running " in output else [status], output)

    # The first is killed: its stage still cleans up, which the next host waits for.
    first.kill()
    status, output = work.run("--resume", work.runs()[-1])
    order = [key.rsplit("/", 1)[1] for key in server.order if "/slow/" in key]
    first.communicate()
    score.case("what a killed host left ends before the next one begins",
               [] if status == 0 and order == ["first", "cleaned", "second"] else [status, order], output)
    work.drop()


def killed(work):
    """Starts the pipeline and kills it in its middle."""
    process = work.start("a.lua")
    wait_for(lambda: work.runs() and len(work.journal()) > 12)
    process.kill()
    process.communicate()
    status, output = work.command("runs")
    return status, output


def many_hosts_one_run(parent):
    work = Work(parent, server)
    status, output = killed(work)
    score.case("a run whose host was killed is shown as that", [] if status == 0 and " killed " in output else [status], output)
    run = work.runs()[-1]
    results = []
    threads = [threading.Thread(target=lambda: results.append(work.run("--resume", run))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    good = [result for result in results if result[0] == 0]
    told = [result for result in results if result[0] == 1 and "another mlhost is working on this run" in result[1]]
    ok_ends = [event["stage"] for event in work.journal() if event["t"] == "stage_end" and event["status"] == "ok"]
    problems = journal_order(work.journal())
    if not good or len(good) + len(told) != 6:
        problems.append([result[0] for result in results])
    if len(ok_ends) != len(set(ok_ends)):
        problems.append(f"done twice: {sorted(ok_ends)}")
    score.case(f"six hosts resume one run: {len(good)} had it, one after the other", problems, "\n".join(r[1] for r in results))
    work.drop()


def many_runs_one_folder(parent):
    work = Work(parent, server, LOCAL)
    results = []
    threads = [threading.Thread(target=lambda: results.append(work.run("a.lua"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    status, listed = work.command("runs")
    score.case("four runs at a time in one folder, with its services",
               [] if [r[0] for r in results] == [0] * 4 and listed.count(" ok ") == 4 and len(work.runs()) == 4 else
               [status, [r[0] for r in results]], listed + "\n".join(r[1] for r in results))
    work.drop()


def jumping_clock(parent, library):
    work = Work(parent, server)
    clock = {"LD_PRELOAD": library, "FAULT_CLOCK": "1"}
    problems, outputs = [], []
    for n in range(6):
        status, output = work.run("a.lua", **clock)
        outputs.append(output)
        problems += journal_order(work.journal())
        if status != 0 or len(work.runs()) != n + 1:
            problems.append(f"run {n}: exit status {status}, runs {work.runs()}")
        newest = re.search(r"run: +(\S+)", output)
        if not newest or newest.group(1) != work.runs()[-1]:
            problems.append(f"run {n} is not the last of {work.runs()}")
        took = [event["duration_ms"] for event in work.journal() if "duration_ms" in event]
        if min(took) < 0 or max(took) > 60000:
            problems.append(f"durations {took}")
    jumps = [event["time"] for event in work.journal()]
    if jumps == sorted(jumps):
        problems.append("the clock did not jump at all")
    score.case("a wall clock that jumps: ids in order, no duration below nothing", problems, "\n".join(outputs))

    status, output = work.run("--resume", **clock)
    score.case("--resume finds the newest run all the same", [] if status == 0 and work.runs()[-1] in output else [status], output)
    work.drop()

    work = Work(parent, None, 'stage "quick" { timeout = "60s", run = function() sleep "200ms" end }\n'
                'stage "slow" { timeout = "400ms", run = function() sleep "60s" end }\n')
    started = time.monotonic()
    status, output = work.run("a.lua", "--keep-going", **clock)
    ends = {cell: end[0] for cell, end in work.ends().items()}
    score.case("deadlines do not look at it",
               [] if status == 3 and ends == {"quick": "ok", "slow": "timeout"} and time.monotonic() - started < 50 else [status, ends],
               output)
    status, output = work.command("runs")
    score.case("a duration is what it was", [] if status == 0 and re.search(r"timeout +1/2 +[0-9.]+ (ms|s) ", output) else [status], output)
    work.drop()


DAMAGES = {
    "garbage": lambda lines, n: lines[:n] + ["\0\0garbage"] + lines[n + 1:],
    "half a line": lambda lines, n: lines[:n] + [lines[n][:len(lines[n]) // 2]] + lines[n + 1:],
    "a line twice": lambda lines, n: lines[:n + 1] + lines[n:],
    "no line": lambda lines, n: lines[:n] + lines[n + 1:],
    "an empty line": lambda lines, n: lines[:n] + [""] + lines[n:],
}


def damaged(parent):
    work = Work(parent, server)
    killed(work)
    path = os.path.join(work.run_folder(), "journal.jsonl")
    with open(path, encoding="utf-8") as file:
        lines = file.read().split("\n")[:-1]

    def put(text):
        with open(path, "wb") as file:
            file.write(text)

    for name, change in DAMAGES.items():
        problems, output = [], ""
        for n in range(len(lines)):
            put("".join(line + "\n" for line in change(lines, n)).encode())
            at = n + 2 if name == "a line twice" else n + 1
            if name == "no line" and n == len(lines) - 1:
                continue  # nobody can know of it
            status, output = work.run("--resume")
            where = re.search(r"journal\.jsonl:(\d+): \w+", output)
            if status != 2 or not where or int(where.group(1)) != at or "hint:" not in output:
                problems.append(f"line {n + 1}: exit status {status}, {where and where.group(0)}")
            status, output = work.command("runs")
            if status != 0 or " damaged " not in output:
                problems.append(f"line {n + 1}: runs: {status}")
            status, output = work.command("logs")
            if status != 0 or not re.search(r"journal\.jsonl:(\d+)", output):
                problems.append(f"line {n + 1}: logs: {status}")
        score.case(f"a damaged journal: {name} in the place of each of {len(lines)}", problems, output)

    # Anything at all: the program ends by itself, with a status of its own.
    chance = random.Random(int(os.environ.get("FAULTS_SEED", "1")))
    whole = "".join(line + "\n" for line in lines).encode()
    problems, outcomes, output = [], set(), ""
    for n in range(int(os.environ.get("FAULTS_FLIPS", "60"))):
        text = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(text))
            if chance.random() < 0.3:
                del text[at:]
                text = text or bytearray(b"x")
            else:
                text[at] ^= 1 << chance.randrange(8)
        put(bytes(text))
        status, output = work.run("--resume")
        outcomes.add(status)
        if status not in (0, 1, 2):
            problems.append(f"{n}: exit status {status}\n{output[-500:]}")
    score.case(f"random damage: statuses {sorted(outcomes)}", problems, output)
    put(whole)
    work.drop()


def main():
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as parent:
        library = build_preload(parent)
        one_run_two_hosts(parent)
        many_hosts_one_run(parent)
        many_runs_one_folder(parent)
        jumping_clock(parent, library)
        damaged(parent)
        print(f"     {time.monotonic() - started:.0f} s", flush=True)
    return score.close()


signal.signal(signal.SIGINT, signal.default_int_handler)
started = time.monotonic()
sys.exit(main())
