#!/usr/bin/env bash
# Our Kubeflow client against the embedded service: uploads that are not repeated, runs by key, what a failed run says.
set -uo pipefail
cd "$(dirname "$0")/../.."
MLHOST=${MLHOST:-$PWD/build/mlhost}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp tests/integration/kubeflow_client.lua "$work/"
(cd "$work" && env -u KF_PIPELINES_ENDPOINT "$MLHOST" run kubeflow_client.lua --output plain) >"$work/output" 2>&1
status=$?
good=$(grep -acE '\] ok [a-z]+$' "$work/output")
bad=$(grep -acE '\] not ok ' "$work/output")
if [ $status != 0 ] && [ "$bad" = 0 ]; then bad=1; fi
[ "$bad" = 0 ] || cat "$work/output"
echo "$good passed, $bad failed"
[ "$bad" = 0 ]
