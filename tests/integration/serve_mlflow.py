#!/usr/bin/env python3
"""The official mlflow client against `mlhost serve`: $MLHOST is the program. Prints "N passed, N failed" last."""
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

venv = os.path.join(os.environ.get("MLHOST_VENVS", os.path.expanduser("~/.cache/mlhost")), "venv-mlflow")
python = os.path.join(venv, "bin", "python")
if not os.path.exists(python):
    print("SKIPPED serve_mlflow: no mlflow client in %s (./dev test makes it)" % venv)
    print("0 passed, 0 failed")
    sys.exit(0)
if os.path.realpath(sys.prefix) != os.path.realpath(venv):
    os.execv(python, [python] + sys.argv)

os.environ.update(MLFLOW_DISABLE_TELEMETRY="true", MLFLOW_HTTP_REQUEST_MAX_RETRIES="1", GIT_PYTHON_REFRESH="quiet",
                  MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR="false", MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT="true",
                  PYTHONWARNINGS="ignore")
for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID"):
    os.environ.pop(name, None)

import math
import sqlite3
import warnings

warnings.simplefilter("ignore")

import mlflow
import requests
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag, ViewType
from mlflow.exceptions import MlflowException

MIB = 1 << 20
tests = []


def test(function):
    tests.append(function)
    return function


def same(got, wanted, what="value"):
    if got != wanted:
        raise AssertionError("%s: %r, wanted %r" % (what, got, wanted))


def refused(code, text, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except MlflowException as e:
        same(e.error_code, code, "error code of %r" % str(e))
        if text not in str(e):
            raise AssertionError("%r does not say %r" % (str(e), text))
        return
    raise AssertionError("%s%r was not refused" % (call.__name__, args))


class Server:
    def __init__(self, workspace):
        self.workspace = workspace
        self.start()

    def start(self):
        self.process = subprocess.Popen([os.environ["MLHOST"], "serve", "--port", "0", "--workspace", self.workspace],
                                        stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        if not line.startswith("mlhost: serving http://127.0.0.1:"):
            raise SystemExit("the server did not start: %r" % line)
        self.url = line.split()[-1]

    def peak_kib(self):
        with open("/proc/%d/status" % self.process.pid) as status:
            return int(next(line for line in status if line.startswith("VmHWM")).split()[1])

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.stdout.close()
        return self.process.wait(20)


@test
def experiments(client, server):
    one = client.create_experiment("digits", tags={"team": "a"})
    got = client.get_experiment(one)
    same((got.name, got.tags, got.lifecycle_stage), ("digits", {"team": "a"}, "active"))
    same(got.artifact_location, "mlflow-artifacts:/" + one)
    same(client.get_experiment_by_name("digits").experiment_id, one)
    same(client.get_experiment_by_name("nobody"), None)
    same(client.get_experiment("0").name, "Default")
    refused("RESOURCE_ALREADY_EXISTS", "Experiment(name=digits) already exists", client.create_experiment, "digits")
    refused("RESOURCE_DOES_NOT_EXIST", "No Experiment with id=777 exists", client.get_experiment, "777")
    refused("INVALID_PARAMETER_VALUE", "Invalid experiment ID 'abc'", client.get_experiment, "abc")
    client.set_experiment_tag(one, "team", "b")
    client.rename_experiment(one, "digits-2")
    got = client.get_experiment(one)
    same((got.name, got.tags), ("digits-2", {"team": "b"}))
    for n in range(5):
        client.create_experiment("page-%d" % n, tags={"n": str(n)})
    names, token, pages = [], None, 0
    while True:
        page = client.search_experiments(filter_string="name LIKE 'page-%'", order_by=["name DESC"], max_results=2,
                                         page_token=token)
        names += [e.name for e in page]
        pages, token = pages + 1, page.token
        if not token:
            break
    same((names, pages), (["page-4", "page-3", "page-2", "page-1", "page-0"], 3))
    same([e.name for e in client.search_experiments(filter_string="tags.n = '3' AND name ILIKE 'PAGE%'")], ["page-3"])
    client.delete_experiment(one)
    same([e.name for e in client.search_experiments(view_type=ViewType.DELETED_ONLY)], ["digits-2"])
    refused("INVALID_PARAMETER_VALUE", "must be in the 'active' state", client.create_run, one)
    client.restore_experiment(one)
    same(client.get_experiment(one).lifecycle_stage, "active")


@test
def a_run(client, server):
    mlflow.set_experiment("training")
    with mlflow.start_run(run_name="first", tags={"kind": "cnn"}) as run:
        mlflow.log_params({"lr": 0.25, "note": "it's \"quoted\" \u00fc"})
        for step in range(20):
            mlflow.log_metric("loss", 1.0 / (step + 1), step=step)
        mlflow.log_metrics({"acc": 0.1 + 0.2, "weird/name a-b": 3}, step=7)
        mlflow.log_metric("nan", float("nan"))
        mlflow.log_metric("inf", float("inf"))
        mlflow.set_tag("stage", "done")
    got = client.get_run(run.info.run_id)
    same(got.info.status, "FINISHED")
    same(got.info.run_name, "first")
    same(got.data.params, {"lr": "0.25", "note": "it's \"quoted\" \u00fc"})
    same(got.data.metrics["loss"], 1.0 / 20)
    same(got.data.metrics["acc"], 0.1 + 0.2, "a double, exactly")
    same(math.isnan(got.data.metrics["nan"]), True)
    same(got.data.metrics["inf"], 1.7976931348623157e308)
    same((got.data.tags["kind"], got.data.tags["stage"], got.data.tags["mlflow.runName"]), ("cnn", "done", "first"))
    history = client.get_metric_history(run.info.run_id, "loss")
    same([(m.step, m.value) for m in history], [(n, 1.0 / (n + 1)) for n in range(20)])
    same(client.get_metric_history(run.info.run_id, "none"), [])
    refused("INVALID_PARAMETER_VALUE", "Changing param values is not allowed", client.log_param, run.info.run_id, "lr", "0.5")
    client.log_param(run.info.run_id, "lr", "0.25")
    client.delete_tag(run.info.run_id, "stage")
    refused("RESOURCE_DOES_NOT_EXIST", "No tag with name: stage", client.delete_tag, run.info.run_id, "stage")
    refused("RESOURCE_DOES_NOT_EXIST", "Run with id=%s not found" % ("0" * 32), client.get_run, "0" * 32)
    client.update_run(run.info.run_id, status="KILLED", name="renamed")
    got = client.get_run(run.info.run_id)
    same((got.info.status, got.info.run_name, got.data.tags["mlflow.runName"]), ("KILLED", "renamed", "renamed"))
    client.delete_run(run.info.run_id)
    same(client.get_run(run.info.run_id).info.lifecycle_stage, "deleted")
    refused("INVALID_PARAMETER_VALUE", "must be in the 'active' state", client.log_metric, run.info.run_id, "x", 1.0)
    client.restore_run(run.info.run_id)
    same(client.get_run(run.info.run_id).info.lifecycle_stage, "active")


@test
def metric_history_pages(client, server):
    run = client.create_run("0")
    client.log_batch(run.info.run_id, [Metric("m", float(n), 1000 + n, n) for n in range(1000)])
    client.log_batch(run.info.run_id, [Metric("m", float(n), 1000 + n, n) for n in range(1000, 1500)])
    same([m.step for m in client.get_metric_history(run.info.run_id, "m")], list(range(1500)))
    seen, token = [], None
    while True:
        query = {"run_id": run.info.run_id, "metric_key": "m", "max_results": 400}
        if token:
            query["page_token"] = token
        page = requests.get(server.url + "/api/2.0/mlflow/metrics/get-history", params=query, timeout=30).json()
        seen += [m["step"] for m in page["metrics"]]
        token = page.get("next_page_token")
        if not token:
            break
    same(seen, list(range(1500)))
    same(client.get_run(run.info.run_id).data.metrics["m"], 1499.0)


@test
def batches_and_limits(client, server):
    run = client.create_run("0")
    run_id = run.info.run_id
    now = int(time.time() * 1000)
    client.log_batch(run_id, [Metric("a", 1.5, now, 0), Metric("a", 2.5, now, 1)], [Param("p%d" % n, str(n)) for n in range(100)],
                     [RunTag("t", "v")])
    got = client.get_run(run_id)
    same((got.data.metrics["a"], len(got.data.params), got.data.tags["t"]), (2.5, 100, "v"))
    post = lambda call, body: requests.post(server.url + "/api/2.0/mlflow/" + call, json=body, timeout=30)
    many = post("runs/log-batch", {"run_id": run_id, "params": [{"key": "q%d" % n, "value": "x"} for n in range(101)]})
    same((many.status_code, many.json()["error_code"]), (400, "INVALID_PARAMETER_VALUE"))
    same("at most 100 params" in many.json()["message"], True, many.text)
    twice = post("runs/log-batch", {"run_id": run_id, "params": [{"key": "d", "value": "1"}, {"key": "d", "value": "1"}]})
    same("Duplicate parameter keys" in twice.json()["message"], True, twice.text)
    for bad in ("../up", "/root", "a//b", "a/./b", "a*b", ""):
        answer = post("runs/set-tag", {"run_id": run_id, "key": bad, "value": "x"})
        same((bad, answer.status_code, answer.json()["error_code"]), (bad, 400, "INVALID_PARAMETER_VALUE"))
    long = post("runs/log-parameter", {"run_id": run_id, "key": "long", "value": "\u00e4" * 7000})
    same((long.status_code, len(client.get_run(run_id).data.params["long"])), (200, 6000))
    for body in (b"{", b"[]", b"\xff"):
        same(requests.post(server.url + "/api/2.0/mlflow/runs/create", data=body, timeout=30).status_code, 400)
    same(post("runs/log-metric", {"run_id": run_id, "key": "m", "value": True, "timestamp": 1}).status_code, 400)
    same(post("runs/log-metric", {"run_id": run_id, "key": "m", "value": 1, "timestamp": -1}).status_code, 400)
    missing = post("runs/log-metric", {"key": "m", "value": 1, "timestamp": 1})
    same("Missing value for required parameter 'run_id'" in missing.json()["message"], True, missing.text)
    nothing = post("no/such/call", {})
    same((nothing.status_code, nothing.json()["error_code"]), (404, "ENDPOINT_NOT_FOUND"))


@test
def run_search(client, server):
    experiment = client.create_experiment("search")
    ids = []
    for n in range(25):
        run = client.create_run(experiment, start_time=1000 + n, run_name="r%02d" % n)
        ids.append(run.info.run_id)
        client.log_batch(run.info.run_id, [Metric("acc", n / 10, 1, 0)] + ([Metric("odd name", 1.0, 1, 0)] if n % 2 else []),
                         [Param("model", "cnn" if n % 5 else "MLP"), Param("n", str(n))], [RunTag("even", str(n % 2 == 0))])
        if n < 3:
            client.set_terminated(run.info.run_id, "FAILED")
    search = lambda text, **more: [r.info.run_name for r in client.search_runs([experiment], text, **more)]
    same(search(""), ["r%02d" % n for n in range(24, -1, -1)])
    same(search("metrics.acc > 2.2", order_by=["metrics.acc ASC"]), ["r23", "r24"])
    same(search("metrics.acc >= 0.5 and metrics.acc < 0.7 AND tags.even = 'True'"), ["r06"])
    same(search("params.model = 'MLP'"), ["r20", "r15", "r10", "r05", "r00"])
    same(search("params.model LIKE 'ML%'")[:1], ["r20"])
    same(search("params.model LIKE 'ml%'"), [])
    same(len(search("params.model ILIKE 'ml%'")), 5)
    same(search("attributes.status = 'FAILED'"), ["r02", "r01", "r00"])
    same(search("run_name = 'r01'"), ["r01"])
    same(search("attributes.run_id IN ('%s', '%s')" % (ids[3], ids[4])), ["r04", "r03"])
    same(search("start_time > 1022"), ["r24", "r23"])
    same(search('metrics."odd name" = 1')[:2], ["r23", "r21"])
    same(search("metrics.`odd name` = 1 and params.n != '23'")[:1], ["r21"])
    same(search("tags.none IS NULL and params.n = '7'"), ["r07"])
    same(search("tags.even IS NOT NULL and params.n = '7'"), ["r07"])
    same(search("", order_by=["params.model DESC", "metrics.acc DESC"])[0], "r24")
    # Runs that lack the metric come last, whichever way.
    same(search("", order_by=["metrics.`odd name` ASC", "attributes.start_time ASC"])[11:14], ["r23", "r00", "r02"])
    names, token, pages = [], None, 0
    while True:
        page = client.search_runs([experiment], "tags.even = 'True'", order_by=["start_time ASC"], max_results=5,
                                  page_token=token)
        names += [r.info.run_name for r in page]
        pages, token = pages + 1, page.token
        if not token:
            break
    same((names, pages), (["r%02d" % n for n in range(0, 25, 2)], 3))
    for bad in ("metrics.acc > 'x'", "params.model = 3", "metrics.acc", "nothing.x = 'y'", "attributes.nope = 'x'", "params.model = 'x",
                "metrics.acc > 1 OR metrics.acc < 0", "params.model = 'a'; DROP TABLE runs", "(metrics.acc > 1)", "metrics.acc LIKE 'a'"):
        refused("INVALID_PARAMETER_VALUE", "", client.search_runs, [experiment], bad)
    same(search("params.model = 'x'' OR ''1''=''1'"), [])
    refused("INVALID_PARAMETER_VALUE", "page token", client.search_runs, [experiment], "", page_token="???")
    same(len(mlflow.search_runs([experiment])), 25)


@test
def datasets(client, server):
    experiment = client.create_experiment("data")
    run = client.create_run(experiment)
    dataset = Dataset("digits", "abc123", "local", "{\"uri\": \"x\"}", "{}", None)
    client.log_inputs(run.info.run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])
    got = client.get_run(run.info.run_id).inputs.dataset_inputs
    same([(d.dataset.name, d.dataset.digest, d.tags[0].value) for d in got], [("digits", "abc123", "training")])
    same(len(client.search_runs([experiment], "datasets.name = 'digits' AND datasets.context = 'training'")), 1)
    same(len(client.search_runs([experiment], "datasets.name = 'other'")), 0)


@test
def large_artifact(client, server):
    block, digest = os.urandom(MIB), hashlib.sha256()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "weights.bin")
        with open(path, "wb") as out:
            for n in range(100):
                piece = block[n:] + block[:n]
                digest.update(piece)
                out.write(piece)
        run = client.create_run("0")
        client.log_artifact(run.info.run_id, path, "model/files")
        listed = client.list_artifacts(run.info.run_id, "model/files")
        same([(f.path, f.is_dir, f.file_size) for f in listed], [("model/files/weights.bin", False, 100 * MIB)])
        same([(f.path, f.is_dir) for f in client.list_artifacts(run.info.run_id)], [("model", True)])
        os.remove(path)
        back = client.download_artifacts(run.info.run_id, "model/files/weights.bin", folder)
        got = hashlib.sha256()
        with open(back, "rb") as file:
            for piece in iter(lambda: file.read(MIB), b""):
                got.update(piece)
        same(got.hexdigest(), digest.hexdigest(), "SHA-256 of what came back")
        direct = requests.get(server.url + "/get-artifact", {"run_uuid": run.info.run_id, "path": "model/files/weights.bin"},
                              timeout=60)
        same(hashlib.sha256(direct.content).hexdigest(), digest.hexdigest())
    if server.peak_kib() > 64 * 1024:
        raise AssertionError("the server took %d KiB" % server.peak_kib())
    print("  the server's peak memory is %d KiB" % server.peak_kib())


@test
def many_artifacts(client, server):
    with tempfile.TemporaryDirectory() as folder:
        for name in ("a.txt", "sub/b \u00fc.txt", "sub/deep/empty"):
            path = os.path.join(folder, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w") as file:
                file.write("" if name.endswith("empty") else name)
        run = client.create_run("0")
        client.log_artifacts(run.info.run_id, folder)
        with tempfile.TemporaryDirectory() as back:
            client.download_artifacts(run.info.run_id, "", back)
            same(subprocess.run(["diff", "-r", folder, back], capture_output=True, text=True).stdout, "")
        client.log_dict(run.info.run_id, {"x": 1}, "d.json")
        same(mlflow.artifacts.load_dict(run.info.artifact_uri + "/d.json"), {"x": 1})
        repo = mlflow.store.artifact.artifact_repository_registry.get_artifact_repository(run.info.artifact_uri)
        repo.delete_artifacts("sub")
        same(sorted(f.path for f in client.list_artifacts(run.info.run_id)), ["a.txt", "d.json"])


@test
def artifact_paths(client, server):
    base = server.url + "/api/2.0/mlflow-artifacts/artifacts"
    secret = os.path.join(server.workspace, "secret")
    with open(secret, "w") as file:
        file.write("secret")
    import http.client
    host = server.url.split("//")[1]
    for path in ("/../../../../secret", "/%2e%2e/%2e%2e/%2e%2e/%2e%2e/secret", "/..%2f..%2f..%2f..%2fsecret", "/a/../b", "//etc/passwd",
                 "/%2fetc/passwd", "/a%00b", "/a/./b", "/a%5c..%5cb"):
        for method in ("GET", "PUT", "DELETE"):
            connection = http.client.HTTPConnection(host)
            connection.request(method, "/api/2.0/mlflow-artifacts/artifacts" + path, body=b"x" if method == "PUT" else None)
            answer = connection.getresponse()
            if answer.status not in (400, 404):
                raise AssertionError("%s %s: %d" % (method, path, answer.status))
            connection.close()
    same(open(secret).read(), "secret")
    # A link inside the artifacts is not followed either.
    root = os.path.join(server.workspace, ".mlhost/local/mlflow/artifacts")
    os.symlink(server.workspace, os.path.join(root, "link"))
    same(requests.get(base + "/link/secret", timeout=30).status_code, 404)
    same(requests.put(base + "/link/new", data=b"x", timeout=30).status_code >= 400, True)
    same(os.path.exists(os.path.join(server.workspace, "new")), False)
    os.unlink(os.path.join(root, "link"))
    same(requests.get(base + "/none/such", timeout=30).json()["error_code"], "RESOURCE_DOES_NOT_EXIST")
    same(requests.post(server.url + "/api/2.0/mlflow-artifacts/mpu/create/x", json={"num_parts": 2}, timeout=30).status_code, 501)


@test
def foreign_pages(client, server):
    for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}):
        answer = requests.post(server.url + "/api/2.0/mlflow/runs/search", headers=headers, json={}, timeout=30)
        same((headers, answer.status_code), (headers, 403))


@test
def registry(client, server):
    model = client.create_registered_model("digits", tags={"a": "1"}, description="d")
    same((model.name, model.tags, model.description), ("digits", {"a": "1"}, "d"))
    refused("RESOURCE_ALREADY_EXISTS", "Registered Model (name=digits) already exists", client.create_registered_model, "digits")
    run = client.create_run("0")
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "MLmodel"), "w") as file:
            file.write("flavors: {}\n")
        client.log_artifacts(run.info.run_id, folder, "model")
    source = run.info.artifact_uri + "/model"
    one = client.create_model_version("digits", source, run.info.run_id, tags={"t": "v"}, description="first")
    two = client.create_model_version("digits", source, run.info.run_id)
    same((one.version, two.version, one.status, one.current_stage, one.run_id), ("1", "2", "READY", "None", run.info.run_id))
    same(client.get_model_version_download_uri("digits", "1"), source)
    same(client.get_model_version("digits", "1").tags, {"t": "v"})
    client.set_registered_model_alias("digits", "champion", "1")
    same(client.get_model_version_by_alias("digits", "champion").version, "1")
    client.set_registered_model_alias("digits", "champion", "2")
    same(client.get_model_version_by_alias("digits", "champion").version, "2")
    same(client.get_model_version("digits", "2").aliases, ["champion"])
    same(client.get_registered_model("digits").aliases, {"champion": "2"})
    folder = mlflow.artifacts.download_artifacts("models:/digits@champion")
    same(open(os.path.join(folder, "MLmodel")).read(), "flavors: {}\n")
    shutil.rmtree(folder)
    for bad in ("latest", "v3", "a b", ""):
        refused("INVALID_PARAMETER_VALUE", "", client.set_registered_model_alias, "digits", bad, "1")
    client.delete_registered_model_alias("digits", "champion")
    refused("INVALID_PARAMETER_VALUE", "alias champion not found", client.get_model_version_by_alias, "digits", "champion")
    client.transition_model_version_stage("digits", "1", "production")
    client.transition_model_version_stage("digits", "2", "Production", archive_existing_versions=True)
    same([client.get_model_version("digits", v).current_stage for v in "12"], ["Archived", "Production"])
    same([v.version for v in client.get_latest_versions("digits", ["Production"])], ["2"])
    refused("INVALID_PARAMETER_VALUE", "Invalid Model Version stage", client.transition_model_version_stage, "digits", "1", "Prod")
    client.set_model_version_tag("digits", "1", "k", "v")
    client.delete_model_version_tag("digits", "1", "t")
    same(client.get_model_version("digits", "1").tags, {"k": "v"})
    client.set_registered_model_tag("digits", "b", "2")
    client.delete_registered_model_tag("digits", "a")
    same(client.get_registered_model("digits").tags, {"b": "2"})
    client.update_model_version("digits", "1", "changed")
    same(client.get_model_version("digits", "1").description, "changed")
    same(sorted(v.version for v in client.search_model_versions("name = 'digits'")), ["1", "2"])
    same([v.version for v in client.search_model_versions("name='digits' and tags.k = 'v'")], ["1"])
    same([v.version for v in client.search_model_versions("run_id = '%s'" % run.info.run_id, order_by=["version_number ASC"],
                                                          max_results=1)], ["1"])
    client.set_registered_model_alias("digits", "old", "1")
    client.delete_model_version("digits", "1")
    refused("RESOURCE_DOES_NOT_EXIST", "Model Version (name=digits, version=1) not found", client.get_model_version, "digits", "1")
    same(client.get_registered_model("digits").aliases, {})
    same(client.create_model_version("digits", source, run.info.run_id).version, "3")
    client.set_registered_model_alias("digits", "keep", "3")
    client.rename_registered_model("digits", "digits-renamed")
    same(client.get_model_version_by_alias("digits-renamed", "keep").version, "3")
    refused("RESOURCE_DOES_NOT_EXIST", "Registered Model with name=digits not found", client.get_registered_model, "digits")
    for n in range(5):
        client.create_registered_model("page-%d" % n)
    names, token = [], None
    while True:
        page = client.search_registered_models("name LIKE 'page-%'", order_by=["name DESC"], max_results=2, page_token=token)
        names, token = names + [m.name for m in page], page.token
        if not token:
            break
    same(names, ["page-%d" % n for n in range(4, -1, -1)])
    client.delete_registered_model("digits-renamed")
    same([m.name for m in client.search_registered_models("name ILIKE 'DIGITS%'")], [])


@test
def sources(client, server):
    client.create_registered_model("sources")
    run = client.create_run("0")
    create = client.create_model_version
    refused("INVALID_PARAMETER_VALUE", "Invalid model version source", create, "sources", "/etc", run.info.run_id)
    refused("INVALID_PARAMETER_VALUE", "Invalid model version source", create, "sources", "file:///etc")
    refused("INVALID_PARAMETER_VALUE", "Invalid model version source", create, "sources", run.info.artifact_uri + "/../x", run.info.run_id)
    refused("INVALID_PARAMETER_VALUE", "Invalid model version source", create, "sources", "mlflow-artifacts:/0/other/artifacts",
            run.info.run_id)
    same(create("sources", "s3://bucket/model").version, "1")


@test
def a_model(client, server):
    """log_model of the 3.x client: a logged model, its artifacts, its registration, and back again."""

    class Double(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input, params=None):
            return [2 * x for x in model_input]

    mlflow.set_experiment("models")
    with mlflow.start_run() as run:
        info = mlflow.pyfunc.log_model(name="double", python_model=Double(), registered_model_name="double", pip_requirements=[],
                                       params={"p": "1"}, input_example=None)
    same(info.model_id.startswith("m-"), True)
    logged = client.get_logged_model(info.model_id)
    same((logged.name, logged.status.name, logged.source_run_id, logged.params["p"]), ("double", "READY", run.info.run_id, "1"))
    same([o.model_id for o in client.get_run(run.info.run_id).outputs.model_outputs], [info.model_id])
    version = client.get_model_version("double", "1")
    same(version.run_id, run.info.run_id)
    client.set_registered_model_alias("double", "champion", "1")
    same(mlflow.pyfunc.load_model("models:/double@champion").predict([1, 2]), [2, 4])
    same(mlflow.pyfunc.load_model("models:/" + info.model_id).predict([3]), [6])
    same(mlflow.pyfunc.load_model("runs:/%s/double" % run.info.run_id).predict([4]), [8])
    experiment = client.get_experiment_by_name("models").experiment_id
    client.log_metric(run.info.run_id, "score", 0.5, model_id=info.model_id)
    same([m.model_id for m in client.search_logged_models([experiment], "name = 'double' AND metrics.score > 0.4")], [info.model_id])
    same(client.search_logged_models([experiment], "metrics.score > 0.6"), [])
    client.set_logged_model_tags(info.model_id, {"a": "b"})
    same(client.get_logged_model(info.model_id).tags["a"], "b")
    client.delete_logged_model_tag(info.model_id, "a")
    same("a" in client.get_logged_model(info.model_id).tags, False)
    client.delete_logged_model(info.model_id)
    refused("RESOURCE_DOES_NOT_EXIST", "not found", client.get_logged_model, info.model_id)


@test
def side_by_side(client, server):
    """Eight clients at once lose nothing."""
    from concurrent.futures import ThreadPoolExecutor

    experiment = client.create_experiment("parallel")

    def work(n):
        own = MlflowClient(server.url)
        run = own.create_run(experiment, run_name=str(n))
        for step in range(10):
            own.log_batch(run.info.run_id, [Metric("m", step, step, step)], [Param("p%d" % step, "v")])
        own.set_terminated(run.info.run_id)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(16)))
    runs = client.search_runs([experiment])
    same(sorted(int(r.info.run_name) for r in runs), list(range(16)))
    same({(len(r.data.params), r.data.metrics["m"], r.info.status) for r in runs}, {(10, 9.0, "FINISHED")})


@test
def real_server_opens_the_file(client, server):
    """After a clean stop (exit 0) and a restart nothing is lost; MLflow's own store upgrades a copy and reads it."""
    before = sorted(e.name for e in client.search_experiments())
    same(server.stop(), 0, "exit status on SIGTERM")
    with tempfile.TemporaryDirectory() as folder:
        copy = os.path.join(folder, "mlflow.db")
        with sqlite3.connect(os.path.join(server.workspace, ".mlhost/local/mlflow/mlflow.db")) as source, sqlite3.connect(copy) as to:
            same(source.execute("SELECT version_num FROM alembic_version").fetchall(), [("6953534de441",)])
            source.backup(to)
        subprocess.run([os.path.join(venv, "bin", "mlflow"), "db", "upgrade", "sqlite:///" + copy], check=True, capture_output=True)
        real = MlflowClient("sqlite:///" + copy, "sqlite:///" + copy)
        same(sorted(e.name for e in real.search_experiments()), before)
        experiment = real.get_experiment_by_name("search").experiment_id
        same(len(real.search_runs([experiment], "metrics.acc > 2.2")), 2)
        same({k: str(v) for k, v in real.get_registered_model("double").aliases.items()}, {"champion": "1"})
        # What the upgraded file has more must not disturb us: the same file is served again.
        upgraded = os.path.join(folder, "workspace", ".mlhost/local/mlflow")
        os.makedirs(upgraded)
        with sqlite3.connect(copy) as source, sqlite3.connect(os.path.join(upgraded, "mlflow.db")) as to:
            source.backup(to)
        other = Server(os.path.join(folder, "workspace"))
        try:
            again = MlflowClient(other.url)
            run = again.create_run(experiment, run_name="after")
            again.log_batch(run.info.run_id, [Metric("m", 1.0, 1, 0)], [Param("p", "v")], [RunTag("t", "v")])
            same(len(again.search_runs([experiment])), 26)
            again.create_registered_model("after")
            again.create_model_version("after", "s3://bucket/x")
            again.set_registered_model_alias("after", "champion", "1")
            same(again.get_model_version_by_alias("after", "champion").version, "1")
            again.rename_registered_model("after", "later")
            same(again.get_registered_model("later").aliases, {"champion": "1"})
        finally:
            same(other.stop(), 0)
    server.start()
    same(sorted(e.name for e in MlflowClient(server.url).search_experiments()), before)


def main():
    workspace = tempfile.mkdtemp(prefix="mlhost-serve-mlflow-")
    server = Server(workspace)
    passed = failed = 0
    try:
        mlflow.set_tracking_uri(server.url)
        client = MlflowClient(server.url)
        for one in tests:
            start = time.monotonic()
            try:
                one(client, server)
                passed += 1
                print("ok   %-30s %5.1f s" % (one.__name__, time.monotonic() - start), flush=True)
            except Exception:
                import traceback
                failed += 1
                print("FAIL %s" % one.__name__)
                traceback.print_exc(file=sys.stdout)
    finally:
        status = server.stop()
        shutil.rmtree(workspace, ignore_errors=True)
    if status != 0:
        failed += 1
        print("FAIL the server ended with %d" % status)
    print("%d passed, %d failed" % (passed, failed))
    sys.exit(1 if failed else 0)


main()
