#!/usr/bin/env bash
# The golden tier: our compiler's output against the official one's, as data, and loaded with the official SDK.
# The training pipeline's golden is made here, by the SDK, from official/training.py.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. tools/setup.sh
need_venv kfp tests/golden/requirements.txt || exit 1
export KFP_PYTHON=$MLHOST_VENVS/venv-kfp/bin/python
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

passed=0 failed=0
# Adds up the closing line of a driver.
count() {
  local line p f
  line=$(grep -E '^[0-9]+ passed, [0-9]+ failed$' "$1" | tail -1)
  [ -n "$line" ] || line="0 passed, 1 failed"
  p=${line%% passed*} f=${line#*passed, } f=${f%% failed*}
  passed=$((passed + p)) failed=$((failed + f))
}

echo "== the checked-in golden of the training pipeline is what the SDK makes now"
if "$KFP_PYTHON" -W ignore tests/golden/official/training.py "$out/official.yaml" 2>"$out/stderr" &&
   "$KFP_PYTHON" - tests/golden/kfp/training.yaml "$out/official.yaml" <<'PY'
import sys, yaml
a, b = (list(yaml.safe_load_all(open(path, encoding="utf-8"))) for path in sys.argv[1:])
sys.exit(a != b)
PY
then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAIL  official/training.py differs from kfp/training.yaml"; cat "$out/stderr"; fi

echo "== ours against the official output, as data"
mkdir "$out/emitted"
lua5.4 tests/golden/run.lua --emit "$out/emitted" >"$out/compare" 2>&1
cat "$out/compare"
count "$out/compare"

echo "== what ours emits, loaded with the official SDK"
"$KFP_PYTHON" -W ignore tests/golden/load_with_sdk.py "$out"/emitted/*.yaml >"$out/load" 2>&1
cat "$out/load"
count "$out/load"

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
