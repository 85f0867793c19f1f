#!/usr/bin/env python3
"""The CD pipeline on a workspace of its own: a good model reaches PROD, a bad one is stopped at QA, one that is slow in PROD
is rolled back at the canary, and PROD answers every request while all that happens. Ends with "N passed, N failed"."""
import contextlib
import glob
import http.client
import http.server
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "../.."))
PROGRAM = os.path.abspath(os.environ.get("MLHOST", os.path.join(ROOT, "build/mlhost")))
passed = failed = 0


def check(name, condition, detail=""):
    global passed, failed
    if condition:
        passed += 1
        print(f"ok   {name}")
    else:
        failed += 1
        print(f"FAIL {name}: {detail}")
    return condition


def mlhost(folder, *words, timeout=600):
    env = {k: v for k, v in os.environ.items()
           if not k.startswith(("MLFLOW_", "KF_", "MLHOST_", "KUBE", "SELDON_", "TF_BUILD", "BUILD_", "SYSTEM_"))}
    done = subprocess.run([PROGRAM, *words], cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=timeout, check=False)
    return done.returncode, done.stdout


def run(folder, script, *options):
    return mlhost(folder, "run", f"pipelines/{script}.lua", "--output", "plain", *options)


def newest_outputs(folder):
    """Stage -> (status, output) of the newest run."""
    with open(sorted(glob.glob(folder + "/.mlhost/runs/*/journal.jsonl"))[-1], encoding="utf-8") as lines:
        events = [json.loads(line) for line in lines]
    return {event["stage"]: (event["status"], event.get("output")) for event in events if event["t"] == "stage_end"}


def request(url, body=None, headers=None):
    data = None if body is None else json.dumps(body).encode()
    query = urllib.request.Request(url, data, {"Content-Type": "application/json", **(headers or {})})
    with urllib.request.urlopen(query, timeout=20) as reply:
        return json.load(reply)


class Cluster:
    """What the daemon of a workspace says."""

    def __init__(self, folder):
        self.folder = folder

    def url(self):
        status, out = mlhost(self.folder, "serve", "--status", "--json")
        assert status == 0, out
        return json.loads(out)["url"]

    def predict(self, namespace, rows, name="digits"):
        return request(f"{self.url()}/seldon/{namespace}/{name}/api/v1.0/predictions", {"data": {"ndarray": rows}})

    def deployment(self, namespace, name="digits"):
        path = f"/apis/machinelearning.seldon.io/v1/namespaces/{namespace}/seldondeployments"
        items = request(self.url() + path)["items"]
        found = [item for item in items if item["metadata"]["name"] == name]
        return found[0] if found else None

    def alias(self, alias, model="digits"):
        query = urllib.parse.urlencode({"name": model})
        found = request(f"{self.url()}/api/2.0/mlflow/registered-models/get?{query}")["registered_model"]
        return {item["alias"]: item["version"] for item in found.get("aliases", [])}.get(alias)


class Load:
    """Constant load on PROD by keep-alive connections; counts what each version answered and what failed."""

    def __init__(self, url, rows, workers=3):
        self.address = urllib.parse.urlsplit(url)
        self.rows, self.stopped = rows, threading.Event()
        self.versions, self.errors, self.lock = {}, [], threading.Lock()
        self.threads = [threading.Thread(target=self.work, args=(seed,)) for seed in range(workers)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        for thread in self.threads:
            thread.join()

    def work(self, seed):
        choice = random.Random(seed)
        connection = http.client.HTTPConnection(self.address.hostname, self.address.port, timeout=30)
        while not self.stopped.is_set():
            try:
                body = json.dumps({"data": {"ndarray": [choice.choice(self.rows)]}})
                connection.request("POST", "/seldon/prod/digits/api/v1.0/predictions", body, {"Content-Type": "application/json"})
                reply = connection.getresponse()
                text = reply.read()
                if reply.status != 200:
                    raise RuntimeError(f"HTTP {reply.status}: {text[:300]!r}")
                version = json.loads(text)["meta"]["tags"]["model_version"]
                with self.lock:
                    self.versions[version] = self.versions.get(version, 0) + 1
            except Exception as error:  # every kind of failure counts
                with self.lock:
                    self.errors.append(f"{type(error).__name__}: {error}")
                connection.close()
            time.sleep(0.005)
        connection.close()


@contextlib.contextmanager
def shuffled_labels(source):
    """The digits with labels that mean nothing, at a URL."""
    with open(source, encoding="utf-8") as file:
        lines = [line.strip().rsplit(",", 1) for line in file if line.strip()]
    labels = [label for _, label in lines]
    random.Random(1).shuffle(labels)
    text = "".join(f"{pixels},{label}\n" for (pixels, _), label in zip(lines, labels)).encode()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/digits.csv"
    finally:
        server.shutdown()


def slow_in_prod(project):
    """A serving folder whose model is as good as ever, and takes its time in PROD."""
    folder = os.path.join(project, "slow")
    shutil.copytree(os.path.join(project, "pipelines/serving"), folder)
    path = os.path.join(folder, "model.lua")
    with open(path, encoding="utf-8") as file:
        text = file.read()
    changed = text.replace("predict = function(self, rows)\n", "predict = function(self, rows)\n"
                           '    if self.tags.environment == "prod" then sleep "600ms" end\n')
    assert changed != text
    with open(path, "w", encoding="utf-8") as file:
        file.write(changed)
    return "slow"


def first_to_prod(project, cluster):
    status, out = run(project, "ci")
    check("CI registers version 1", status == 0, out)
    status, out = run(project, "cd")
    if not check("CD ends well", status == 0, out):
        return None
    with open(sorted(glob.glob(project + "/.mlhost/local/mlflow/artifacts/*/*/artifacts/evaluation/test.csv"))[0],
              encoding="utf-8") as file:
        rows = [[int(n) for n in line.split(",")] for line in file]
    reply = cluster.predict("prod", [row[:64] for row in rows])
    answers = [max(range(10), key=p.__getitem__) for p in reply["data"]["ndarray"]]
    accuracy = sum(a == row[64] for a, row in zip(answers, rows)) / len(rows)
    check("PROD answers predictions over HTTP, after the run has ended", accuracy > 0.94, accuracy)
    check("its replies name the version", reply["meta"]["tags"]["model_version"] == "1", reply["meta"])
    check("QA and PROD are Available", all(cluster.deployment(ns)["status"]["state"] == "Available" for ns in ("qa", "prod")))
    check("version 1 is staging and production", (cluster.alias("staging"), cluster.alias("production")) == ("1", "1"))
    return [row[:64] for row in rows]


def second_run_changes_nothing(project, cluster):
    before = {ns: cluster.deployment(ns)["metadata"] for ns in ("qa", "prod")}
    status, out = run(project, "cd")
    stages = newest_outputs(project)
    check("a second run ends well and says that nothing changes", status == 0 and "in production already" in out, out)
    check("it does nothing", {s for s, _ in stages.values()} == {"ok", "skipped"} and stages["find"][0] == "ok"
          and [s for s, _ in stages.values()].count("ok") == 1, stages)
    after = {ns: cluster.deployment(ns)["metadata"] for ns in ("qa", "prod")}
    check("the deployments are untouched", all(before[ns]["generation"] == after[ns]["generation"] and before[ns]["uid"]
                                               == after[ns]["uid"] for ns in before), (before, after))


def bad_model_is_stopped(project, cluster, rows):
    with shuffled_labels(project + "/pipelines/components/preprocess/data/digits.csv") as url:
        # One that nothing in production could be compared with ...
        status, out = run(project, "ci", "-P", f"dataset={url}", "-P", "threshold=0", "-P", "model_name=shuffled", "-P", "epochs=5")
        check("CI without a threshold registers a bad model", status == 0, out)
        status, out = run(project, "cd", "-P", "model_name=shuffled")
        stages = newest_outputs(project)
        check("QA's accuracy gate stops it", status == 1 and "accuracy gate" in out and stages["qa"][0] == "failed", out)
        check("it has left QA again, and was never in PROD",
              cluster.deployment("qa", "shuffled") is None and cluster.deployment("prod", "shuffled") is None)
        check("it is neither staging nor production",
              (cluster.alias("staging", "shuffled"), cluster.alias("production", "shuffled")) == (None, None))
        # ... and one that would replace a good one.
        status, out = run(project, "ci", "-P", f"dataset={url}", "-P", "threshold=0", "-P", "epochs=5")
        check("CI without a threshold registers it as version 2", status == 0, out)
    status, out = run(project, "cd")
    check("compared with production, it is not even deployed to QA",
          status == 1 and "is not deployed" in out and newest_outputs(project)["qa"][0] == "blocked", out)
    tags = cluster.predict("qa", rows[:1])["meta"]["tags"]
    check("QA still has version 1", tags["model_version"] == "1", tags)
    check("the aliases are as they were", (cluster.alias("staging"), cluster.alias("production")) == ("1", "1"))


def slow_one_is_rolled_back(project, cluster, rows):
    status, out = run(project, "ci", "-P", "epochs=30")
    check("CI registers version 3", status == 0, out)
    with Load(cluster.url(), rows) as load:
        time.sleep(1)
        status, out = run(project, "cd", "-P", f"serving={slow_in_prod(project)}", "-P", "requests=200")
        time.sleep(1)
    stages = newest_outputs(project)
    check("good in QA, slow in PROD: the canary's latency gate fails",
          status == 1 and "latency gate" in out and stages["qa"][0] == "ok" and stages["prod"][0] == "failed", out)
    check("zero failed requests through the rollback", not load.errors and sum(load.versions.values()) > 100,
          (load.errors[:5], load.versions))
    check("the old version answered throughout, the canary a part", load.versions.get("1", 0) > load.versions.get("3", 0) > 0,
          load.versions)
    predictors = cluster.deployment("prod")["spec"]["predictors"]
    check("PROD has one predictor again, version 1", len(predictors) == 1 and
          cluster.predict("prod", rows[:1])["meta"]["tags"]["model_version"] == "1", predictors)
    check("the aliases were put back", (cluster.alias("staging"), cluster.alias("production")) == ("1", "1"))


def good_one_replaces_it(project, cluster, rows):
    with Load(cluster.url(), rows) as load:
        time.sleep(1)
        status, out = run(project, "cd", "-P", "requests=200")
        time.sleep(1)
    check("the same version, served properly, goes through", status == 0 and "canary at 100 %" in out, out)
    check("zero failed requests through the rollout", not load.errors and sum(load.versions.values()) > 100,
          (load.errors[:5], load.versions))
    check("both versions answered meanwhile", set(load.versions) == {"1", "3"}, load.versions)
    check("PROD has one predictor, version 3", len(cluster.deployment("prod")["spec"]["predictors"]) == 1 and
          cluster.predict("prod", rows[:1])["meta"]["tags"]["model_version"] == "3")
    check("version 3 is staging and production", (cluster.alias("staging"), cluster.alias("production")) == ("3", "3"))


def approval_is_kept(project, cluster):
    status, out = run(project, "cd", "-P", "version=1", "-P", "approval=ask")
    check("without an approval nothing reaches PROD", status == 4 and "--approve prod" in out, out)
    check("PROD stays", cluster.alias("production") == "3")


def main():
    project = tempfile.mkdtemp(prefix="mlhost-cd-")
    shutil.copytree(os.path.join(ROOT, "pipelines"), project + "/pipelines")
    with open(project + "/mlhost.yaml", "w", encoding="utf-8"):
        pass
    cluster = Cluster(project)
    try:
        rows = first_to_prod(project, cluster)
        if rows:
            second_run_changes_nothing(project, cluster)
            bad_model_is_stopped(project, cluster, rows)
            slow_one_is_rolled_back(project, cluster, rows)
            good_one_replaces_it(project, cluster, rows)
            approval_is_kept(project, cluster)
    except Exception as error:  # counted, and the daemon is stopped all the same
        check("the test itself", False, f"{type(error).__name__}: {error}")
    finally:
        mlhost(project, "serve", "--stop")
        shutil.rmtree(project, ignore_errors=True)
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed != 0)


main()
