#!/usr/bin/env bash
# kubectl and the official Python client against the Kubernetes API of `mlhost serve`: $MLHOST is the program. Prints
# "N passed, N failed" last. kubectl is Debian's (package kubernetes-client), unpacked outside the tree since it cannot be
# installed beside other packages of kubectl; one that is on the PATH runs the same tests.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. tools/setup.sh
need_venv kubernetes tests/integration/requirements-kubernetes.txt || exit 1
. tests/integration/kubernetes/kubectl.sh

kubectl=$(need_kubectl) || { echo "SKIPPED serve_kubernetes: no package kubernetes-client"; echo "0 passed, 0 failed"; exit 0; }
exec "$MLHOST_VENVS/venv-kubernetes/bin/python" tests/integration/serve_kubernetes.py "$kubectl" $(command -v kubectl)
