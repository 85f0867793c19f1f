"""Compiles the official twin of the training pipeline with the kfp SDK many times: BENCH <seconds of one>. Each round runs the
script, loads the component files, traces the pipeline, and writes the YAML; only the SDK's import is left out."""
import runpy
import sys
import tempfile
import time

import kfp  # noqa: F401 (imported before the clock starts)
from kfp import compiler, kubernetes  # noqa: F401

out = tempfile.NamedTemporaryFile(suffix=".yaml").name
sys.argv = ["training.py", out]


def once():
    runpy.run_path("tests/golden/official/training.py", run_name="__main__")


once()
rounds = 5
start = time.perf_counter()
for _ in range(rounds):
    once()
print("BENCH %.9f" % ((time.perf_counter() - start) / rounds))
