"""What a stage costs the host itself - graph, journal, fork, report - from 10 to 10,000 of them, in a chain and side by side."""
import os
import subprocess
import sys

MLHOST = os.environ["MLHOST"]
SIZES = (10, 100, 1000, 10000)
SHAPES = {
    "chain": 'for i = 1, {n} do stage("s" .. i, {{ needs = {{ i > 1 and "s" .. i - 1 or nil }}, run = function() end }}) end\n',
    "side by side": 'for i = 1, {n} do stage("s" .. i, {{ run = function() end }}) end\n',
}


def host_seconds(script, state):
    """Time on a processor of the host's own process, without those of the stages."""
    env = dict(os.environ, MLHOST_STATE=state)
    with open(os.path.join(state, "out.txt"), "w+", encoding="utf-8") as out:
        process = subprocess.Popen([MLHOST, "run", script, "-q", "-o", "plain", "--jobs", "2"], env=env, stdin=subprocess.DEVNULL,
                                   stdout=out, stderr=subprocess.STDOUT)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # ended, and still there to be asked
        with open(f"/proc/{process.pid}/schedstat", encoding="ascii") as file:
            spent = int(file.read().split()[0]) / 1e9
        if process.wait() != 0:
            out.seek(0)
            sys.exit(out.read()[-2000:])
    return spent


def per_stage(shape, n, state):
    script = os.path.join(state, "scheduler.lua")
    with open(script, "w", encoding="utf-8") as file:
        file.write(SHAPES[shape].format(n=n))
    tries = 5 if n <= 100 else 1
    return min(host_seconds(script, state) for _ in range(tries)) / n


def scheduler(state, row, sizes=SIZES):
    for shape in SHAPES:
        costs = {n: per_stage(shape, n, state) for n in sizes}
        for n in sizes[1:]:
            row(f"scheduler: {n} stages {shape}", costs[n], f"per stage of {sizes[0]}", costs[sizes[0]], unit="us", scale=1e6)
