"""What a sandbox costs: a stage and a command of one, from start to end, against a bare process, bubblewrap and runc."""
import json
import os
import re
import shutil
import statistics
import subprocess
import tempfile

MLHOST = os.environ["MLHOST"]
QUIET = dict(stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
TRUE = "/bin/true"
COUNT = 200
# The namespaces that a command of a stage has when no network is granted.
BWRAP = ["--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-net", "--ro-bind", "/", "/", "--proc", "/proc"]
STAGES = """local run = function() end
for i = 1, %d do stage('s' .. i) { needs = i > 1 and { 's' .. (i - 1) } or nil, run = run } end
"""
COMMANDS = """
local exec = require "exec"
pipeline "p" { permissions = { exec = { "/bin/true" } } }
stage "s" { timeout = "5m", run = function()
  local now = require("time").now -- whole milliseconds
  exec { "/bin/true" }
  local start = now()
  for _ = 1, %d do exec { "/bin/true" } end
  print(("BENCH %%.4f"):format((now() - start) * 1000 / %d))
end }
""" % (COUNT, COUNT)


def run_script(folder, text):
    # A state folder of its own: ext4 is slow where many files have just been removed.
    with open(folder + "/bench.lua", "w") as file:
        file.write(text)
    state = tempfile.mkdtemp(dir=folder)
    done = subprocess.run([MLHOST, "run", "bench.lua", "--json", "-j", "1"], cwd=folder, check=True,
                          env={**os.environ, "MLHOST_STATE": state}, **QUIET)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def stage_ms(folder):
    """Of stages that wait for each other, from end to end: one stage, journal and tape included."""
    ends = [event["time"] for event in run_script(folder, STAGES % (COUNT + 1)) if event["t"] == "stage_end"]
    return (ends[-1] - ends[0]) / (len(ends) - 1)


def command_ms(folder):
    for event in run_script(folder, COMMANDS):
        found = re.search(r"BENCH ([0-9.]+)", event.get("text", ""))
        if found:
            return float(found[1])
    raise SystemExit("the bench's script printed no figure")


def runc_bundle(folder):
    """A bundle that runs /bin/true on this root file system, read-only, without networks."""
    os.makedirs(folder + "/bundle", exist_ok=True)
    subprocess.run(["runc", "spec"], cwd=folder + "/bundle", check=True, **QUIET)
    with open(folder + "/bundle/config.json") as file:
        spec = json.load(file)
    spec["process"].update(args=[TRUE], terminal=False)
    spec["root"] = {"path": "/", "readonly": True}
    spec["mounts"] = [mount for mount in spec["mounts"] if mount["destination"] == "/proc"]
    with open(folder + "/bundle/config.json", "w") as file:
        json.dump(spec, file)
    return ["runc", "run", "-b", folder + "/bundle", "mlhost-bench"]


def rows():
    """(name, ours in ms, peer's name, peer's in ms), medians of three alternating rounds."""
    with tempfile.TemporaryDirectory(prefix="mlhost-bench-") as folder:
        spawn = folder + "/spawn"
        subprocess.run(["cc", "-O2", "-o", spawn, "tests/bench/spawn.c"], check=True)
        peers = {"fork+exec /bin/true": [TRUE]}
        if shutil.which("bwrap"):
            peers["bwrap, same namespaces"] = [shutil.which("bwrap"), *BWRAP, TRUE]
        if shutil.which("runc"):
            peers["runc run"] = [shutil.which("runc"), *runc_bundle(folder)[1:]]
        ours = {"empty stage": [], "command of a stage": []}
        theirs = {name: [] for name in peers}
        for _ in range(3):
            ours["empty stage"].append(stage_ms(folder))
            ours["command of a stage"].append(command_ms(folder))
            for name, words in peers.items():
                count = COUNT if name != "runc run" else 20
                done = subprocess.run([spawn, str(count), *words], check=True, **QUIET)
                theirs[name].append(float(done.stdout.split()[-1]))
        for name, values in ours.items():
            for peer, others in theirs.items():
                yield name, statistics.median(values), peer, statistics.median(others)
