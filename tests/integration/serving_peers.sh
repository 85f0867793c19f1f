#!/usr/bin/env bash
# Seldon's Python client and NVIDIA's Open Inference client against `mlhost model`, our client against seldon-core-microservice
# and MLServer: $MLHOST is the program. Prints "N passed, N failed" last.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. tools/setup.sh
need_venv seldon tests/integration/requirements-seldon.txt || exit 1
need_venv mlserver tests/integration/requirements-mlserver.txt || exit 1
exec "$MLHOST_VENVS/venv-seldon/bin/python" tests/integration/serving_peers.py "$MLHOST_VENVS/venv-mlserver/bin/python"
