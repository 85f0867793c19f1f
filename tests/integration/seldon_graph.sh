#!/usr/bin/env bash
# Models in Lua as transformer, router, combiner and leaves of a graph on the embedded Seldon, through the seldon library.
# Prints "N passed, N failed" last.
set -u
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
MLHOST=$(realpath "${MLHOST:-build/mlhost}")
work=$(mktemp -d)
for name in $(compgen -e); do
  case $name in MLFLOW_* | KF_* | MLHOST_* | KUBE* | SELDON_* | TF_BUILD) unset "$name" ;; esac
done
export MLHOST_SELDON_BACKOFF_MS=200
cp -r "$here/seldon/parts" "$here/seldon/graph.lua" "$work/"
cd "$work" || exit 1
touch mlhost.yaml
trap '"$MLHOST" serve --stop >/dev/null 2>&1; cd /; rm -rf "$work"' EXIT

"$MLHOST" run graph.lua --output plain --junit report.xml >log 2>&1 </dev/null
status=$?
passed=0 failed=0
for stage in graph load errors; do
  if grep -q "<testcase [^>]*name=\"$stage\"[^>]*/>" report.xml 2>/dev/null; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    echo "FAIL $stage"
  fi
done
if [ $status != 0 ] || [ $failed != 0 ]; then
  [ $failed != 0 ] || failed=1
  echo "status $status"
  tail -60 log
fi
echo "$passed passed, $failed failed"
[ $failed = 0 ]
