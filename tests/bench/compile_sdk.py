"""Compiles the official twin of the training pipeline with the kfp SDK: BENCH <seconds of one compile>, imports aside."""
import sys
import tempfile
import time

sys.path.insert(0, "tests/golden/official")
import training  # noqa: E402
from kfp import compiler  # noqa: E402

out = tempfile.NamedTemporaryFile(suffix=".yaml").name
compiler.Compiler().compile(training.training_pipeline, out)
rounds = 5
start = time.perf_counter()
for _ in range(rounds):
    compiler.Compiler().compile(training.training_pipeline, out)
print("BENCH %.9f" % ((time.perf_counter() - start) / rounds))
