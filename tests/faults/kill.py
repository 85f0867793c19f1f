#!/usr/bin/env python3
"""kill -9 of the host before and after every write to the journal of a ten-stage run, of its brokers and VMs at every event, and of
each at random instants. Then --resume: what comes out is what an undisturbed run gives, and nothing outside was made twice.
FAULTS_INSTANTS is the number of random instants (200), FAULTS_SEED where they begin."""
import concurrent.futures
import os
import random
import signal
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "support"))
from faults import Score, Server, Work, build_preload, journal_order  # noqa: E402

INSTANTS = int(os.environ.get("FAULTS_INSTANTS", "200"))
SEED = int(os.environ.get("FAULTS_SEED", "1"))
score = Score()
slain = []  # events at which a kill below the host ended a stage; at the others none was running
server = Server()


def effects(run):
    return {key.split("/", 1)[1]: value for key, value in server.made.copy().items() if key.startswith(run + "/")}


def asked(run):
    return {key.split("/", 1)[1]: count for key, count in server.asked.copy().items() if key.startswith(run + "/")}


def known(events):
    """Effects that the journal holds, of cells that need not be done again for another reason (a failure that is tolerated)."""
    return {f"{event['stage']}/{event['key']}" for event in events if event["t"] == "effect" and event["stage"] != "tolerated"}


class Wanted:
    """What an undisturbed run gives."""

    def __init__(self, parent):
        work = Work(parent, server)
        started = time.monotonic()
        status, output = work.run("a.lua")
        self.seconds = time.monotonic() - started
        events = work.journal()
        self.events = len(events)
        self.ends = work.ends()
        self.effects = effects(work.runs()[-1])
        good = status == 0 and len({event["stage"] for event in events if "stage" in event}) == 14 and len(self.effects) == 9
        score.case(f"an undisturbed run: {self.events} events, {len(self.ends)} cells, {len(self.effects)} effects",
                   [] if good and not journal_order(events) else [status, self.ends, self.effects], output)
        work.drop()


def finish(work, wanted, kills):
    """Resumes what was killed; -> what is wrong with it."""
    before = work.journal() if work.runs() else []
    run = work.runs()[-1] if work.runs() else None
    held = known(before)
    counts = dict(asked(run)) if run else {}
    log = []
    status = None
    for _ in range(3):
        begun = bool(run) and os.path.exists(os.path.join(work.run_folder(), "plan.json"))
        status, output = work.run(*(["a.lua", "--resume", run] if begun else ["a.lua"]))
        log.append(output)
        if status == 0:
            break
    problems = []
    run = work.runs()[-1]
    if status != 0:
        problems.append(f"exit status {status}")
    if work.ends() != wanted.ends:
        problems.append(f"ends {work.ends()} instead of {wanted.ends}")
    if effects(run) != wanted.effects:
        problems.append(f"effects {effects(run)} instead of {wanted.effects}")
    again = asked(run)
    repeated = [key for key in held if again[key] > counts.get(key, 0)]
    if repeated:
        problems.append(f"the journal had them, and they were made again: {repeated}")
    # What was under way when the host died may be asked for again, with its key: one call of each of two jobs.
    extra = sum(count - 1 for key, count in again.items() if not key.startswith("tolerated/"))
    if extra > 2 * kills:
        problems.append(f"{extra} calls were made again: {again}")
    problems += journal_order(work.journal())
    if not os.path.exists(os.path.join(work.run_folder(), "report.md")):
        problems.append("no report")
    return problems, "\n".join(log)


def at_event(parent, wanted, name, **env):
    work = Work(parent, server)
    status, output = work.run("a.lua", **env)
    killed = status == -signal.SIGKILL
    if "FAULT_KILL" in env and not killed:
        return name, [f"the host was not killed: {status}"], output
    if "FAULT_SLAY" in env and status != 0:
        slain.append(name)
    problems, log = finish(work, wanted, 1)
    if not problems:
        work.drop()
    return name, problems, output + log


def processes_below(pid, name):
    """Direct and second children of that name."""
    found = []
    level = [pid]
    for _ in range(2):
        below = []
        for parent in level:
            try:
                with open(f"/proc/{parent}/task/{parent}/children", encoding="ascii") as file:
                    below += [int(child) for child in file.read().split()]
            except OSError:
                pass
        for child in below:
            try:
                with open(f"/proc/{child}/comm", encoding="utf-8") as file:
                    if file.read().strip() == name:
                        found.append(child)
            except OSError:
                pass
        level = below
    return found


def at_instant(parent, wanted, number):
    chance = random.Random(SEED * 1000003 + number)
    target = chance.choice(["host", "host", "mlhost-broker", "mlhost-vm"])
    work = Work(parent, server)
    hits = 0
    name = f"instant {number}: {target}"
    words = ["a.lua"]
    for _ in range(chance.randint(1, 3)):  # the resumed run may be hit as well
        process = work.start(*words)
        time.sleep(chance.uniform(0, wanted.seconds))
        victims = [process.pid] if target == "host" else processes_below(process.pid, target)
        for pid in victims:
            try:
                os.kill(pid, signal.SIGKILL)
                hits += 1
            except ProcessLookupError:
                pass
        output, _ = process.communicate(timeout=120)
        runs = work.runs()
        if process.returncode == 0:
            break
        if runs and os.path.exists(os.path.join(work.run_folder(), "plan.json")):
            words = ["a.lua", "--resume", runs[-1]]
    problems, log = finish(work, wanted, max(hits, 1))
    if not problems:
        work.drop()
    return name, problems, output + log


def main():
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as parent:
        library = build_preload(parent)
        wanted = Wanted(parent)
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            # Their number differs by a few from run to run: what is side by side is told in any order.
            jobs = []
            for n in range(1, wanted.events + 1):
                for when in ("before", "after"):
                    jobs.append(pool.submit(at_event, parent, wanted, f"host killed {when} event {n}", LD_PRELOAD=library,
                                            FAULT_KILL=f"{when}:{n}"))
                for what in ("mlhost-broker", "mlhost-vm"):
                    jobs.append(pool.submit(at_event, parent, wanted, f"{what} killed after event {n}", LD_PRELOAD=library,
                                            FAULT_SLAY=f"{what}:{n}"))
            for job in jobs:
                score.case(*job.result(), quiet=True)
            score.case(f"{len(slain)} of the kills below the host ended a stage", [] if len(slain) > wanted.events / 4 else slain)
            print(f"     {len(jobs)} kills at events in {time.monotonic() - started:.0f} s", flush=True)
            jobs = [pool.submit(at_instant, parent, wanted, number) for number in range(INSTANTS)]
            for job in jobs:
                score.case(*job.result(), quiet=True)
            print(f"     {len(jobs)} random instants, {time.monotonic() - started:.0f} s in all", flush=True)
    return score.close()


started = time.monotonic()
sys.exit(main())
