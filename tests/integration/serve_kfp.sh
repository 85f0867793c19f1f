#!/usr/bin/env bash
# The official kfp SDK client against `mlhost serve`: see kfp/serve_kfp.py. Needs $MLHOST and the venv-kfp environment.
set -u
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${MLHOST_VENVS:-$HOME/.cache/mlhost}/venv-kfp/bin/python
: "${MLHOST:?set MLHOST to the program to test}"
for need in "$python" "$(command -v skopeo)" "$(command -v busybox)"; do
  if [ ! -x "$need" ]; then
    echo "SKIPPED serve_kfp: venv-kfp, skopeo or busybox-static is missing (./dev test installs them)"
    echo "0 passed, 0 failed"
    exit 0
  fi
done
exec "$python" "$here/kfp/serve_kfp.py"
