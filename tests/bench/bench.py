"""The bench: each row is one figure against a named peer, both measured here and now, the best of alternating tries."""
import os
import re
import subprocess
import sys
import tempfile
import time

import registry
import sandbox
import scheduler
import serve

MLHOST = os.environ["MLHOST"]
KFP_PYTHON = os.path.join(os.environ["MLHOST_VENVS"], "venv-kfp/bin/python")
SCRIPTS = "tests/bench/scripts/"
QUIET = dict(stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def run(argv, state):
    start = time.perf_counter()
    subprocess.run(argv, check=True, env=dict(os.environ, MLHOST_STATE=state), **QUIET)
    return time.perf_counter() - start


def printed(argv, state):
    out = subprocess.run(argv, check=True, env=dict(os.environ, MLHOST_STATE=state), stdin=subprocess.DEVNULL,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout
    return float(re.search(r"BENCH ([0-9.]+)", out).group(1))


def best(ours, peer, tries):
    """Alternates, so that a noisy neighbour meets both."""
    mine, theirs = [], []
    for _ in range(tries):
        mine.append(ours())
        theirs.append(peer())
    return min(mine), min(theirs)


def row(name, ours, peer_name, peer, unit="ms", scale=1e3, invert=False):
    ratio = peer / ours if invert else ours / peer
    kind = "x faster" if invert else "x of peer"
    print(f"{name:<34} {ours * scale:>10.3f} {unit:<4} {peer_name:<28} {peer * scale:>10.3f} {unit:<4} {ratio:>9.2f} {kind}",
          flush=True)


def start(state):
    empty = [MLHOST, "run", SCRIPTS + "empty.lua"]
    ours, lua = best(lambda: run(empty, state), lambda: run(["lua5.4", "-e", ""], state), 40)
    row("start: one-stage empty run", ours, "lua5.4 -e ''", lua)
    ours, kfp = best(lambda: run(empty, state), lambda: run([KFP_PYTHON, "-c", "import kfp"], state), 3)
    row("start: one-stage empty run", ours, "python3 -c 'import kfp'", kfp, invert=True)


def compile_pipeline(state):
    ours_argv = [MLHOST, "run", "--output", "plain", SCRIPTS + "compile.lua"]
    sdk_argv = [KFP_PYTHON, "tests/bench/compile_sdk.py"]
    ours, sdk = best(lambda: printed(ours_argv, state), lambda: printed(sdk_argv, state), 3)
    row("compile: from the files", ours, "kfp SDK, its import aside", sdk, invert=True)
    out = os.path.join(state, "training.yaml")
    ours, sdk = best(lambda: run([MLHOST, "run", SCRIPTS + "compile_once.lua"], state),
                     lambda: run([KFP_PYTHON, "tests/golden/official/training.py", out], state), 5)
    row("compile: as a command", ours, "python3 training.py", sdk, invert=True)


def seconds(argv, state):
    out = subprocess.run(argv, check=True, env=dict(os.environ, MLHOST_STATE=state), stdin=subprocess.DEVNULL,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout
    return {name: float(took) for name, took in re.findall(r"BENCH (\w+) ([0-9.]+)", out)}


def cpu(state):
    """Processor time inside the interpreter, program by program; the aim is 3 % at most over plain Lua."""
    mine, theirs = {}, {}
    for _ in range(7):
        for best_of, argv in ((mine, [MLHOST, "run", "--output", "plain", SCRIPTS + "cpu.lua"]),
                              (theirs, ["lua5.4", SCRIPTS + "cpu.lua"])):
            for name, took in seconds(argv, state).items():
                best_of[name] = min(took, best_of.get(name, took))
    for name in theirs:
        row(f"cpu: {name}, in a stage", mine[name], "lua5.4", theirs[name])
    row("cpu: all of these", sum(mine.values()), "lua5.4", sum(theirs.values()))


def memory(state):
    process = subprocess.Popen([MLHOST, "run", "pipelines/ci.lua"], env=dict(os.environ, MLHOST_STATE=state), **QUIET)
    peak = 0
    while process.poll() is None:
        try:
            with open(f"/proc/{process.pid}/status", encoding="ascii") as status:
                found = re.search(r"VmHWM:\s+(\d+) kB", status.read())
                peak = max(peak, int(found.group(1)) if found else 0)
        except OSError:
            pass
        time.sleep(0.02)
    if process.returncode != 0:
        sys.exit("the run of ci.lua failed")
    row("memory: host in a run of ci.lua", peak / 1024, "the aim, 32 MiB", 32, unit="MiB", scale=1)


def serving(_):
    def compared(name, ours, peer_name, peer, unit, scale, more_is_better):
        # `row` tells what took less; of rates it is the inverse that counts
        ratio = ours / peer if more_is_better else peer / ours
        print(f"{name:<34} {ours * scale:>10.2f} {unit:<4} {peer_name:<28} {peer * scale:>10.2f} {unit:<4} {ratio:>9.2f} "
              f"{'x of peer' if more_is_better else 'x faster'}", flush=True)

    serve.bench(compared)


def sandboxes(_):
    for name, ours, peer_name, peer in sandbox.rows():
        row("sandbox: " + name, ours, peer_name, peer, scale=1, invert=ours < peer)


GROUPS = {"start": start, "compile": compile_pipeline, "cpu": cpu, "memory": memory, "sandbox": sandboxes, "serve": serving,
          "registry": lambda _: registry.registry(row),
          "scheduler": lambda state: scheduler.scheduler(state, row)}


def main():
    names = sys.argv[1:] or list(GROUPS)
    for name in names:
        if name not in GROUPS:
            sys.exit(f"bench: unknown group '{name}'; the groups are: {', '.join(GROUPS)}")
    print(f"{'name':<34} {'ours':>15} {'peer':<28} {'peer took':>15} {'ratio':>9}")
    with tempfile.TemporaryDirectory() as state:
        for name in names:
            GROUPS[name](state)


if __name__ == "__main__":
    main()
