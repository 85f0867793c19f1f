#!/usr/bin/env bash
# What is said about images: SPDX documents (checked by spdx-tools), SLSA provenance, both beside the image in docker-registry and in the
# registry of `mlhost serve`. $MLHOST is the program. Prints "N passed, N failed" last.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
if ! command -v docker-registry >/dev/null; then echo "SKIPPED attest: no docker-registry"; echo "0 passed, 0 failed"; exit 0; fi
. tools/setup.sh
need_venv spdx tests/integration/requirements-spdx.txt || exit 1
oras=$(tests/peers oras) || oras=
exec "$MLHOST_VENVS/venv-spdx/bin/python" tests/integration/attest.py "$oras"
