#!/usr/bin/env python3
"""Ten thousand stages in a chain, each of which adds one to what the one before gave, and ten thousand side by side, whose host is killed in
the middle and which are resumed: really run, with memory, descriptors and processes that stay as few as --jobs says.
FAULTS_STAGES is their number."""
import json
import os
import signal
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "support"))
from faults import Score, Work, journal_order  # noqa: E402

STAGES = int(os.environ.get("FAULTS_STAGES", "10000"))
JOBS = 2
score = Score()

CHAIN = """
local last
for i = 1, @N@ do
  local name, before = "s" .. i, last
  stage(name, { needs = { before }, run = function(cx) return { n = before and cx.needs[before].n + 1 or 1 } end })
  last = name
end
"""
WIDE = """
local function run(cx) return { stage = cx.stage } end
for i = 1, @N@ do stage("s" .. i, { run = run }) end
"""


def tree(pid):
    """Descendants, also those that have ended and that nobody has asked for."""
    found, level = [], [pid]
    while level:
        below = []
        for parent in level:
            try:
                with open(f"/proc/{parent}/task/{parent}/children", encoding="ascii") as file:
                    below += [int(child) for child in file.read().split()]
            except OSError:
                pass
        found += below
        level = below
    return found


def peak(pid):
    """Of the resident memory so far, MiB."""
    with open(f"/proc/{pid}/status", encoding="utf-8") as file:
        return max((int(line.split()[1]) / 1024 for line in file if line.startswith("VmHWM")), default=0)


def watched(work, *words, until=None):
    """Runs it; -> status, output, the most of what it held at a time. until(): then it is killed."""
    most = {"MiB": 0.0, "descriptors": 0, "processes": 0}
    out = os.path.join(work.folder, "out.txt")
    with open(out, "w", encoding="utf-8") as file:
        process = work.start(*words, "-q", jobs=JOBS, stdout=file)
    while process.poll() is None:
        try:
            most["MiB"] = max(most["MiB"], peak(process.pid))
            most["descriptors"] = max(most["descriptors"], len(os.listdir(f"/proc/{process.pid}/fd")))
            most["processes"] = max(most["processes"], len(tree(process.pid)))
        except OSError:
            pass
        if until and until():
            process.kill()
        time.sleep(0.05)
    with open(out, encoding="utf-8", errors="replace") as file:
        return process.returncode, file.read()[-2000:], most


def bounded(most):
    problems = []
    if most["MiB"] > 64:
        problems.append("more than 64 MiB")
    if most["descriptors"] > 64:
        problems.append("more than 64 descriptors")
    if most["processes"] > 4 * JOBS + 8:  # broker and VM of each, and those that are just ending
        problems.append("more processes than there are jobs")
    return [f"{problem}: {most}" for problem in problems]


def ends(events):
    return [event for event in events if event["t"] == "stage_end" and event["status"] == "ok"]


def chain(parent):
    work = Work(parent, None, CHAIN.replace("@N@", str(STAGES)))
    began = time.monotonic()
    status, output, most = watched(work, "a.lua")
    took = time.monotonic() - began
    events = work.journal()
    done = ends(events)
    problems = bounded(most) + journal_order(events)[:5]
    if status != 0 or [event["output"]["n"] for event in done] != list(range(1, STAGES + 1)):
        problems.append(f"exit status {status}, {len(done)} ends, the last {json.dumps(done[-1:])}")
    report = os.path.join(work.run_folder(), "report.md")
    if os.path.getsize(report) < 20 * STAGES:
        problems.append("the report is short")
    score.case(f"{STAGES} stages in a chain: {took:.0f} s, at most {most}", problems, output)
    work.drop()


def wide(parent):
    work = Work(parent, None, WIDE.replace("@N@", str(STAGES)))
    began = time.monotonic()

    def half():
        try:
            return os.path.getsize(os.path.join(work.run_folder(), "journal.jsonl")) > STAGES * 100
        except (OSError, IndexError):
            return False

    status, output, most = watched(work, "a.lua", until=half)
    before = len(ends(work.journal()))
    problems = bounded(most) + ([] if status == -signal.SIGKILL and 0 < before < STAGES else [f"not killed: {status}, {before} ends"])
    status, output, most = watched(work, "--resume", work.runs()[-1])
    took = time.monotonic() - began
    events = work.journal()
    problems += bounded(most) + journal_order(events)[:5]
    done = [event["stage"] for event in ends(events)]
    starts = sum(event["t"] == "stage_start" for event in events)
    right = all(event["output"] == {"stage": event["stage"]} for event in ends(events))
    if status != 0 or sorted(done) != sorted(f"s{i}" for i in range(1, STAGES + 1)) or not right or starts > STAGES + JOBS:
        problems.append(f"exit status {status}, {len(done)} ends of {len(set(done))}, {starts} starts, outputs right: {right}")
    score.case(f"{STAGES} side by side, resumed after {before}: {took:.0f} s, at most {most}", problems, output)
    work.drop()


def main():
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as parent:
        threads = [threading.Thread(target=one, args=(parent,)) for one in (chain, wide)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if score.passed + score.failed != len(threads):
            score.case("both have come to an end", ["one of them raised"])
    return score.close()


sys.exit(main())
