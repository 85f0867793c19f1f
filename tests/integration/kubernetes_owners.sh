#!/usr/bin/env bash
# The Kubernetes client and kubectl on the same objects of the embedded API: who owns which field. $MLHOST is the program.
# Prints "N passed, N failed" last.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. tools/setup.sh
. tests/integration/kubernetes/kubectl.sh

mkdir -p "$MLHOST_VENVS"
kubectl=$(need_kubectl) || { echo "SKIPPED kubernetes_owners: no package kubernetes-client"; echo "0 passed, 0 failed"; exit 0; }
MLHOST=$(realpath "${MLHOST:-build/mlhost}")
work=$(mktemp -d)
trap 'cd "$work" && "$MLHOST" serve --stop >/dev/null 2>&1; cd / && rm -rf "$work"' EXIT
cp tests/integration/kubernetes/owners.lua "$work"
cd "$work" || exit 1
passed=0 failed=0

# check NAME WANTED FOUND
check() {
  if [ "$2" = "$3" ]; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    echo "not ok - $1: wanted '$2', found '$3'"
  fi
}

"$MLHOST" serve --background >serve.txt 2>&1 || cat serve.txt
url=$(sed -n 's/.*"url": *"\([^"]*\)".*/\1/p' .mlhost/local/daemon/daemon.json)
ctl() { HOME=$work KUBECONFIG= "$kubectl" --server "$url" "$@"; }
ctl apply --server-side -f - >kubectl.txt 2>&1 <<'YAML'
apiVersion: v1
kind: ConfigMap
metadata: { name: shared }
data: { theirs: kubectl }
YAML
check "kubectl applies first" 0 $?
"$MLHOST" run owners.lua --output plain >out.txt 2>&1 || cat out.txt
while read -r name wanted; do
  check "$name" "$wanted" "$(sed -n "s/^.*\[ask\] $name //p" out.txt)"
done <<'EOF'
applied 1
conflict conflict
owner true
forced ours
documents 2
selected 2
exists exists
missing nil
patched 2
watched ADDED,ADDED,DELETED
deleted_twice false
wait timeout
invalid invalid
proxy 503
EOF
check "kubectl reads what was forced" ours "$(ctl get configmap shared -o 'jsonpath={.data.theirs}')"
ctl apply --server-side -f - >kubectl.txt 2>&1 <<'YAML'
apiVersion: v1
kind: ConfigMap
metadata: { name: shared }
data: { theirs: kubectl }
YAML
check "kubectl is told who owns the field now" 1 "$(grep -c 'conflict with "mlhost"' kubectl.txt)"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
