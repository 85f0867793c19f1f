#!/usr/bin/env bash
# The main job on a workspace of its own: ci.lua ends with a registered model, a second run builds nothing, and official
# clients see what it made. Ends with "N passed, N failed".
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. tools/setup.sh
MLHOST=${MLHOST:-$PWD/build/mlhost}
python=$MLHOST_VENVS/venv-mlflow/bin/python
work=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null; rm -rf "$work"' EXIT
passed=0 failed=0
check() {
  local name=$1
  shift
  if "$@" >"$work/check.log" 2>&1; then
    passed=$((passed + 1)); echo "ok   $name"
  else
    failed=$((failed + 1)); echo "FAIL $name"; tail -40 "$work/check.log"
  fi
}

mkdir "$work/project"
cp -r pipelines "$work/project/"
cd "$work/project" || exit 1
touch mlhost.yaml
unset MLFLOW_TRACKING_URI KF_PIPELINES_ENDPOINT TF_BUILD

runs() { "$MLHOST" run pipelines/ci.lua --output plain --summary "$1.md" --junit "$1.xml" >"$1.log" 2>&1 || { cat "$1.log"; return 1; }; }
check "the first run of ci.lua" runs "$work/first"
check "it built eight images" [ "$(grep -c 'built mlhost.local/' "$work/first.log")" = 8 ]
check "the second run of ci.lua" runs "$work/second"
check "the second run built none" [ "$(grep -c 'already there: mlhost.local/' "$work/second.log")" = 8 ]
check "the summary names the model" grep -q 'test accuracy 0.9' "$work/first.md"
check "JUnit is well-formed" "$python" -c "import sys, xml.dom.minidom; xml.dom.minidom.parse('$work/first.xml')"
check "the PR pipeline" "$MLHOST" run pipelines/pr.lua --output plain

"$MLHOST" serve --port 0 >"$work/serve.log" 2>&1 &
server=$!
for _ in $(seq 200); do
  url=$(grep -oE 'http://127.0.0.1:[0-9]+' "$work/serve.log" | head -1)
  [ -z "$url" ] || break
  kill -0 "$server" 2>/dev/null || break
  sleep 0.05
done
check "mlhost serve is up" [ -n "$url" ]
images() {
  local name
  for name in mlflow-project azdocallback preprocess register-artifacts register-mlflow register training databricks; do
    skopeo list-tags --tls-verify=false "docker://${url#http://}/$name" || return 1
  done
}
check "skopeo lists the eight images" images
cat >"$work/model.py" <<'PY'
import json
import sys
import urllib.request

import mlflow

url = sys.argv[1]
mlflow.set_tracking_uri(url)
client = mlflow.MlflowClient()
versions = client.search_model_versions("name='digits'")
runs = [run for run in (client.get_run(version.run_id) for version in versions) if run.data.params["epochs"] == "40"]
assert len(runs) == 2, versions
with urllib.request.urlopen(url + "/apis/v2beta1/runs?page_size=50") as reply:
    states = {run["run_id"]: run["state"] for run in json.load(reply)["runs"]}
for run in runs:
    assert run.data.metrics["test_accuracy"] > 0.94, run.data.metrics
    assert states[run.data.tags["external_run_id"]] == "SUCCEEDED", run.data.tags
    curve = client.get_metric_history(run.info.run_id, "validation_loss")
    assert len(curve) == 40 and curve[-1].value < curve[0].value, len(curve)
    names = {f.path for f in client.list_artifacts(run.info.run_id)}
    assert {"model", "evaluation", "lineage"} <= names, names
    path = mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path="model/model.json")
    assert open(path).read().startswith("{")
PY
cat >"$work/upload.py" <<'PY'
import sys
import kfp

url, package = sys.argv[1:]
client = kfp.Client(host=url)
pipeline = client.upload_pipeline(package, pipeline_name="by-the-sdk")
experiment = client.create_experiment("by-the-sdk")
version = client.list_pipeline_versions(pipeline.pipeline_id).pipeline_versions[0]
run = client.run_pipeline(experiment.experiment_id, "by-the-sdk", pipeline_id=pipeline.pipeline_id,
                          version_id=version.pipeline_version_id, params={"epochs": 3, "threshold": 0.5})
done = client.wait_for_run_completion(run.run_id, timeout=300)
assert done.state == "SUCCEEDED", done
PY
package=$(ls -t .mlhost/runs/*/stages/upload/out/training.yaml | head -1)
check "kfp's client uploads, runs and awaits the compiled pipeline" \
  "$MLHOST_VENVS/venv-kfp/bin/python" "$work/upload.py" "$url" "$package"
check "mlflow's client finds the models and their Kubeflow runs" "$python" "$work/model.py" "$url"
kill "$server"
wait "$server"
check "serve ends cleanly on SIGTERM" [ $? = 0 ]
server=

TF_BUILD=True "$MLHOST" run pipelines/ci.lua >"$work/azdo.log" 2>&1
check "under Azure DevOps it ends well" [ $? = 0 ]
check "it sets the run's id as an output variable" grep -qE '^##vso\[task.setvariable variable=KF_RUN_ID;.*isOutput=true' "$work/azdo.log"
check "it uploads the summary" grep -q '^##vso\[task.uploadsummary\]' "$work/azdo.log"
check "it completes the task" grep -q '^##vso\[task.complete result=Succeeded' "$work/azdo.log"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
