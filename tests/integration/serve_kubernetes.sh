#!/usr/bin/env bash
# kubectl and the official Python client against the Kubernetes API of `mlhost serve`: $MLHOST is the program. Prints
# "N passed, N failed" last. kubectl is Debian's (package kubernetes-client), unpacked outside the tree since it cannot be
# installed beside other packages of kubectl; one that is on the PATH runs the same tests.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. tools/setup.sh
need_venv kubernetes tests/integration/requirements-kubernetes.txt || exit 1

# need_kubectl: the path of Debian's kubectl.
need_kubectl() {
  local dir=$MLHOST_VENVS/kubernetes-client lock work
  exec {lock}>"$dir.lock" && flock "$lock" || return 1
  if [ ! -x "$dir/usr/bin/kubectl" ]; then
    work=$(mktemp -d "$dir.XXXXXX")
    if ! (cd "$work" && { apt-get download -q kubernetes-client || { as_root apt-get update -q && apt-get download -q kubernetes-client; }; } &&
          dpkg -x kubernetes-client_*.deb . && rm -f kubernetes-client_*.deb) >&2; then
      rm -rf "$work"
      exec {lock}>&-
      return 1
    fi
    rm -rf "$dir"
    mv "$work" "$dir"
  fi
  exec {lock}>&-
  echo "$dir/usr/bin/kubectl"
}
kubectl=$(need_kubectl) || { echo "SKIPPED serve_kubernetes: no package kubernetes-client"; echo "0 passed, 0 failed"; exit 0; }
exec "$MLHOST_VENVS/venv-kubernetes/bin/python" tests/integration/serve_kubernetes.py "$kubectl" $(command -v kubectl)
