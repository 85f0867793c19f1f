#!/usr/bin/env bash
# Our MLflow client against the real `mlflow server`, and by the same checks against the embedded one: tracking, artifacts
# through the proxy, registry, refusals. Needs the Python environment of requirements-mlflow.txt (./dev test makes it).
set -uo pipefail
cd "$(dirname "$0")/../.."
MLHOST=${MLHOST:-$PWD/build/mlhost}
VENV=${MLHOST_VENVS:-$HOME/.cache/mlhost}/venv-mlflow
SCRIPT=$PWD/tests/integration/mlflow_client.lua
passed=0 failed=0

if [ ! -x "$VENV/bin/mlflow" ]; then
  echo "SKIPPED integration.mlflow_server: no $VENV/bin/mlflow (./dev test integration makes it)"
  echo "0 passed, 0 failed"
  exit 0
fi

work=$(mktemp -d)
server=
stop() {
  [ -z "$server" ] || { kill -- "-$server" 2>/dev/null; wait "$server" 2>/dev/null; }
  server=
}
trap 'stop; rm -rf "$work"' EXIT

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# A server on $port with a store of its own; waits until it answers.
start() {
  local store=$work/store
  mkdir "$store"
  port=$(free_port)
  setsid "$VENV/bin/mlflow" server --backend-store-uri "sqlite:///$store/mlflow.db" \
    --artifacts-destination "$store/artifacts" --host 127.0.0.1 --port "$port" --workers 1 >"$store/log" 2>&1 &
  server=$!
  for _ in $(seq 240); do
    if curl -s -o /dev/null "http://127.0.0.1:$port/health"; then return 0; fi
    kill -0 "$server" 2>/dev/null || break
    sleep 0.5
  done
  tail -20 "$store/log"
  return 1
}

# Runs the checks in a workspace of their own and adds up their lines.
run() {
  local name=$1 space
  shift
  space=$(mktemp -d -p "$work")
  cp "$SCRIPT" "$space/"
  (cd "$space" && env "$@" "$MLHOST" run mlflow_client.lua --output plain) >"$space/output" 2>&1
  local status=$?
  local good bad
  good=$(grep -acE '\] ok [a-z]+$' "$space/output")
  bad=$(grep -acE '\] not ok ' "$space/output")
  if [ $status != 0 ] && [ "$bad" = 0 ]; then bad=1; fi
  if [ "$bad" != 0 ] || [ "$good" = 0 ]; then cat "$space/output"; fi
  if [ "$good" = 0 ] && [ "$bad" = 0 ]; then bad=1; fi
  echo "$name: $good passed, $bad failed"
  passed=$((passed + good)) failed=$((failed + bad))
}

run "embedded service" -u MLFLOW_TRACKING_URI
if start; then
  run "mlflow server" MLFLOW_TRACKING_URI="http://127.0.0.1:$port"
else
  failed=$((failed + 1))
fi
stop

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
