#!/usr/bin/env bash
# The Kubernetes client against Kubernetes: a kube-apiserver, built once, on an etcd. Ends with "N passed, N failed".
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. tools/setup.sh
if ! need_kube_apiserver; then
  echo "SKIPPED, LOUDLY: kube-apiserver could not be built (Go and its module proxy are needed): the client is NOT tested against it"
  [ "${MLHOST_TEST_STRICT:-}" = 1 ] && echo "0 passed, 1 failed" || echo "0 passed, 0 failed"
  exit 0
fi
exec tests/integration/kubernetes/apiserver.py "$MLHOST_VENVS/kube-apiserver/kube-apiserver"
