#!/usr/bin/env bash
# The conformance suite of the OCI distribution specification against the registry of `mlhost serve`: $MLHOST is the program.
# All four workflows (pull, push, content discovery, content management), with the released version of the specification and
# with the next one. Each check of the suite counts; ends with "N passed, N failed".
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. tools/setup.sh
if ! need_oci_conformance; then
  echo "SKIPPED, LOUDLY: the OCI conformance suite could not be built (Go's module proxy is needed): serve_registry.sh has our own checks"
  [ "${MLHOST_TEST_STRICT:-}" = 1 ] && echo "0 passed, 1 failed" || echo "0 passed, 0 failed"
  exit 0
fi
work=$(mktemp -d)
server=
finish() {
  [ -z "$server" ] || kill "$server" 2>/dev/null
  rm -rf "$work"
}
trap finish EXIT
mkdir "$work/ws"
"$MLHOST" serve --port 0 --workspace "$work/ws" >"$work/out" 2>"$work/err" &
server=$!
url=
for _ in $(seq 100); do
  url=$(sed -n 's/^mlhost: serving //p' "$work/out")
  [ -z "$url" ] && kill -0 "$server" 2>/dev/null || break
  read -rt 0.1 <> <(:) || true
done
[ -n "$url" ] || { cat "$work/err"; echo "0 passed, 1 failed"; exit 1; }

# What the suite itself turns off by default is turned on where the registry does it.
for version in 1.1 dev; do
  (cd "$work" && env OCI_VERSION=$version OCI_REGISTRY="${url#http://}" OCI_TLS=disabled \
    OCI_REPO1="conformance/$version" OCI_REPO2="conformance/other-$version" OCI_RESULTS_DIR="$work/$version" \
    OCI_API_BLOBS_UPLOAD_CANCEL=true OCI_API_BLOBS_DIGEST_HEADER=true OCI_API_MANIFESTS_DIGEST_HEADER=true \
    OCI_API_MANIFESTS_TAG_PARAM=true \
    timeout 300 "$MLHOST_VENVS/oci-conformance/conformance" >"$work/log" 2>&1) || tail -60 "$work/log"
done
python3 - "$work"/{1.1,dev}/junit.xml <<'EOF'
import sys, xml.etree.ElementTree as tree
passed = failed = 0
for file in sys.argv[1:]:
    try:
        cases = list(tree.parse(file).getroot().iter("testcase"))
    except (OSError, tree.ParseError) as e:
        print(f"FAIL {file}: {e}")
        failed += 1
        continue
    good = [c for c in cases if c.get("status") == "passed"]
    bad = [c for c in cases if c.get("status") not in ("passed", "skipped", "disabled")]
    for c in cases:
        if c.get("status") != "passed":
            print("the suite says:", c.get("status"), c.get("name"))
    passed += len(good)
    failed += len(bad)
    if len(good) < 500:  # the suite has about eight hundred: a run that ended early is none
        print(f"FAIL {file}: only {len(good)} checks passed")
        failed += 1
print(f"{passed} passed, {failed} failed")
EOF
