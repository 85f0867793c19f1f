#!/usr/bin/env python3
"""The pipelines in .azdo/: they are YAML, hold no secret, `exec` the program, and every call of it is one that the program takes:
each command line is run with --dry-run, which checks the flags, the script and its parameters. usage: azdo_pipelines.py [MLHOST]"""
import glob
import os
import re
import shlex
import subprocess
import sys
import tempfile

import yaml

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "../.."))
PROGRAM = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("MLHOST", "build/mlhost"))
VALUES = {"PROFILE": "local", "run_id": "run-1"}
passed = failed = 0


def check(name, good, why=""):
    global passed, failed
    passed, failed = passed + bool(good), failed + (not good)
    if not good:
        print("not ok %s: %s" % (name, why))


def steps(node):
    """Every map that has a script, wherever it is."""
    if isinstance(node, dict):
        if "bash" in node or "script" in node:
            yield node
        for value in node.values():
            yield from steps(value)
    elif isinstance(node, list):
        for value in node:
            yield from steps(value)


def words(line):
    return [re.sub(r"\$\{?(\w+)\}?", lambda m: VALUES[m.group(1)], w) for w in shlex.split(line.replace("$(MLHOST)", "mlhost"))]


with tempfile.TemporaryDirectory() as state:
    for path in sorted(glob.glob(ROOT + "/.azdo/*.yml")):
        name = os.path.basename(path)
        text = open(path).read()
        calls = 0
        for step in steps(yaml.safe_load(text)):
            for line in (step.get("bash") or step.get("script")).replace("\\\n", " ").splitlines():
                if "$(MLHOST)" not in line:
                    continue
                calls += 1
                check(name + " exec", line.strip().startswith("exec "), line)
                done = subprocess.run([PROGRAM, *words(line)[2:], "--dry-run"], cwd=ROOT, capture_output=True, text=True,
                                      env={**os.environ, "MLHOST_STATE": state}, stdin=subprocess.DEVNULL, timeout=120)
                check(name + ": " + line.strip(), done.returncode == 0, done.stdout + done.stderr)
            for variable, value in (step.get("env") or {}).items():
                secret = re.search("TOKEN|SECRET|PASSWORD", variable)
                check(name + " " + variable, not secret or re.fullmatch(r"\$\([\w.]+\)", value), "a secret is mapped as $(NAME)")
                check(name + " has no secrets", name != "pr.yml" or not secret, variable)
        check(name + " calls the program", calls > 0)
print("%d passed, %d failed" % (passed, failed))
sys.exit(failed > 0)
