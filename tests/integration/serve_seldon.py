#!/usr/bin/env python3
"""The embedded Seldon of `mlhost serve`: SeldonDeployments through the Kubernetes API, real processes, the ingress.

$MLHOST is the program. Images are built by mlhost from tests/integration/seldon/node.c, a node of a graph that
says what it was asked. Prints "N passed, N failed" last.
"""
import base64
import collections
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
MLHOST = os.environ.get("MLHOST", "build/mlhost")
SDEPS = "/apis/machinelearning.seldon.io/v1/namespaces/default/seldondeployments"
PATIENCE = 60  # seconds until something that must happen has not

passed = failed = 0


def check(name, holds, detail=""):
    global passed, failed
    if holds:
        passed += 1
    else:
        failed += 1
        print(f"FAIL {name}: {detail}", flush=True)


def done():
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


# ---- the server ----


class Server:
    def __init__(self, workspace):
        self.workspace = workspace
        self.process = self.url = None

    def start(self, port=0):
        out = open(os.path.join(self.workspace, "serve.out"), "w+")
        err = open(os.path.join(self.workspace, "serve.err"), "a")
        env = dict(os.environ, MLHOST_SELDON_BACKOFF_MS="200")
        self.process = subprocess.Popen([MLHOST, "serve", "--port", str(port), "--workspace", self.workspace],
                                        stdout=out, stderr=err, env=env)
        self.url = wait("the server starts", lambda: self.look(out.name))
        if not self.url:
            sys.stdout.write(open(err.name).read())
            done()
        return self

    def look(self, path):
        found = re.search(r"http://127\.0\.0\.1:\d+", open(path).read())
        return found and found.group(0)

    def stop(self, signo=signal.SIGTERM):
        self.process.send_signal(signo)
        return self.process.wait(PATIENCE)


def wait(what, holds, patience=PATIENCE):
    """Until holds() is true; its value, or None when the time is over."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        value = holds()
        if value:
            return value
        time.sleep(0.02)
    print(f"  waited in vain: {what}", flush=True)
    return None


def call(method, path, body=None, headers=None, url=None):
    """(status, value or text, headers)"""
    data = json.dumps(body).encode() if isinstance(body, (dict, list)) else body
    request = urllib.request.Request((url or server.url) + path, data, method=method,
                                     headers={"Content-Type": "application/json", **(headers or {})})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as reply:
            status, text, got = reply.status, reply.read(), reply.headers
    except urllib.error.HTTPError as error:
        status, text, got = error.code, error.read(), error.headers
    try:
        return status, json.loads(text), got
    except ValueError:
        return status, text.decode(), got


# ---- SeldonDeployments ----


def container(name, image="mlhost.local/node:1", **env):
    return {"name": name, "image": image, "env": [{"name": k, "value": str(v)} for k, v in env.items()]}


def predictor(name="main", graph=None, containers=None, **more):
    graph = graph or {"name": "model", "type": "MODEL", "children": []}
    return {"name": name, "graph": graph, "replicas": 1, **more,
            "componentSpecs": [{"spec": {"containers": containers or [container("model")]}}]}


def sdep(name, *predictors, **spec):
    return {"apiVersion": "machinelearning.seldon.io/v1", "kind": "SeldonDeployment",
            "metadata": {"name": name, "namespace": "default"}, "spec": {"predictors": list(predictors), **spec}}


def apply(thing):
    group = "/api/v1" if thing["apiVersion"] == "v1" else "/apis/" + thing["apiVersion"]
    plural = thing["kind"].lower() + "s"
    path = f"{group}/namespaces/default/{plural}/{thing['metadata']['name']}?fieldManager=test&force=true"
    status, reply, _ = call("PATCH", path, thing, {"Content-Type": "application/apply-patch+yaml"})
    if status not in (200, 201):
        check(f"apply {thing['metadata']['name']}", False, f"{status} {reply}")
    return reply


def get(name):
    return call("GET", f"{SDEPS}/{name}")[1]


def pods(name):
    return call("GET", f"/api/v1/namespaces/default/pods?labelSelector=seldon-deployment-id%3D{name}")[1]["items"]


def settled(name):
    """The reliable wait: each Deployment is of the present generation, and complete; the state is Available."""
    listed = call("GET", "/apis/apps/v1/namespaces/default/deployments?labelSelector="
                  f"seldon-deployment-id%3D{name}")[1]["items"]
    for one in listed:
        status, wanted = one.get("status", {}), one["spec"]["replicas"]
        if status.get("observedGeneration") != one["metadata"]["generation"] or any(
                status.get(key) != wanted for key in ("replicas", "updatedReplicas", "availableReplicas")):
            return False
    found = get(name)
    # as many Deployments as the spec has componentSpecs: none that is to go is left
    components = sum(len(p["componentSpecs"]) for p in found["spec"]["predictors"])
    return len(listed) == components and found.get("status", {}).get("state") == "Available" and all(
        carries(found, one) for one in listed)


def carries(found, deployment):
    """Are the containers of a Deployment what the SeldonDeployment says now?"""
    have = {c["name"]: c for c in deployment["spec"]["template"]["spec"]["containers"]}
    for p in found["spec"]["predictors"]:
        for component in p["componentSpecs"] if deployment["metadata"]["labels"]["version"] == p["name"] else []:
            for c in component["spec"]["containers"]:
                if c["name"] not in have or c["image"] != have[c["name"]]["image"] or any(
                        e not in have[c["name"]]["env"] for e in c.get("env", [])):
                    return False
    return True


def deploy(thing):
    apply(thing)
    name = thing["metadata"]["name"]
    good = wait(f"{name} is available", lambda: settled(name))
    check(f"deploy {name}", good, json.dumps(get(name).get("status"))[:600])
    return good


def delete(name):
    call("DELETE", f"{SDEPS}/{name}")
    check(f"delete {name}", wait(f"{name} is gone", lambda: call("GET", f"{SDEPS}/{name}")[0] == 404))


def predict(name, x=1, **more):
    return call("POST", f"/seldon/default/{name}/api/v1.0/predictions", {"data": {"ndarray": [[x]]}}, **more)


def version(reply):
    return reply["meta"]["tags"]["version"]


def logs(pod, **query):
    more = "&".join(f"{k}={v}" for k, v in query.items())
    return call("GET", f"/api/v1/namespaces/default/pods/{pod['metadata']['name']}/log?{more}")[1]


# ---- constant load ----


class Load:
    """Keeps asking, on connections of its own that stay open; every answer must be a good one."""

    def __init__(self, name, threads=4):
        self.name, self.over = name, False
        self.versions, self.bad, self.lock = collections.Counter(), [], threading.Lock()
        self.threads = [threading.Thread(target=self.run) for _ in range(threads)]
        for thread in self.threads:
            thread.start()

    def run(self):
        address = server.url.split("//")[1]
        connection = http.client.HTTPConnection(address, timeout=30)
        body = json.dumps({"data": {"ndarray": [[1]]}})
        while not self.over:
            try:
                connection.request("POST", f"/seldon/default/{self.name}/api/v1.0/predictions", body,
                                   {"Content-Type": "application/json"})
                reply = connection.getresponse()
                text = reply.read()
                with self.lock:
                    if reply.status == 200:
                        self.versions[json.loads(text)["meta"]["tags"]["version"]] += 1
                    else:
                        self.bad.append((reply.status, text[:300]))
            except Exception as error:  # any failure is what this looks for
                with self.lock:
                    self.bad.append(("no answer", repr(error)))
                connection.close()

    def stop(self, name, least=100):
        wait("enough requests", lambda: sum(self.versions.values()) > least)
        self.over = True
        for thread in self.threads:
            thread.join()
        total = sum(self.versions.values())
        check(f"{name}: no request of {total} has failed", total > least and not self.bad,
              f"{len(self.bad)} failed: {self.bad[:3]}")
        return self.versions


# ---- processes ----


def children_of(pid):
    """All descendants, as {pid: command}."""
    parents, commands = {}, {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = open(f"/proc/{entry}/stat").read()
                commands[int(entry)] = open(f"/proc/{entry}/cmdline").read().split("\0")[0]
                parents[int(entry)] = int(stat.rsplit(")", 1)[1].split()[1])
            except (OSError, IndexError):
                continue
    found, todo = {}, [pid]
    while todo:
        one = todo.pop()
        for child, parent in parents.items():
            if parent == one:
                found[child] = commands[child]
                todo.append(child)
    return found


def nodes():
    return [pid for pid, command in children_of(server.process.pid).items() if command == "/node"]


def alive(pid):
    try:
        return open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


# ---- the tests ----


def build_images():
    folder = os.path.join(server.workspace, "node")
    os.mkdir(folder)
    subprocess.run(["cc", "-O1", "-static", "-pthread", "-o", os.path.join(folder, "node"),
                    os.path.join(HERE, "seldon", "node.c")], check=True)
    with open(os.path.join(folder, "Dockerfile"), "w") as file:
        file.write('FROM scratch\nCOPY node /node\nENTRYPOINT ["/node"]\n')
    with open(os.path.join(server.workspace, "images.lua"), "w") as file:
        file.write('''local registry = require "registry"
pipeline "images" { permissions = { read = { "node" } } }
stage "build" { run = function() registry.build { context = "node", name = "node", tag = "1" }:push() end }
''')
    subprocess.run([MLHOST, "run", "images.lua"], cwd=server.workspace, check=True, stdout=subprocess.DEVNULL)


def test_deploy():
    deploy(sdep("first", predictor(replicas=2, containers=[container("model", VERSION="1", MUL=3, ADD=1)])))
    status, reply, headers = predict("first", 5)
    check("predict", status == 200 and reply["data"]["ndarray"] == [[16]], (status, reply))
    check("puid is made", headers["Seldon-Puid"], headers)
    got = predict("first", headers={"Seldon-Puid": "mine"})[2]["Seldon-Puid"]
    check("puid is kept", got == "mine", got)
    now = get("first")["status"]
    check("replicas", now["replicas"] == 2, now)
    check("deployment status", list(now["deploymentStatus"].values())[0]["availableReplicas"] == 2, now)
    check("address", now["address"]["url"].endswith("/api/v1.0/predictions"), now)
    check("ready condition", {"Ready": "True"}.items() <= {c["type"]: c["status"] for c in now["conditions"]}.items(),
          now)
    one = pods("first")[0]
    check("pod is running", one["status"]["phase"] == "Running" and
          one["status"]["containerStatuses"][0]["state"].get("running"), one["status"])
    check("log", wait("a line", lambda: "ready" in logs(one)), logs(one))
    events = {e["reason"] for e in call("GET", "/api/v1/namespaces/default/events")[1]["items"]
              if e["involvedObject"]["name"] == one["metadata"]["name"]}
    check("events", {"Scheduled", "Pulled", "Created", "Started"} <= events, events)
    for path, wanted in (("/ready", 200), ("/live", 200), ("/api/v1.0/status/model", 200),
                         ("/api/v1.0/metadata/model", 200), ("/api/v1.0/nonsense", 404), ("/v2/models/x/infer", 404),
                         ("/api/v1.0/metadata/other", 404)):
        status, reply, _ = call("GET", f"/seldon/default/first{path}")
        check(f"GET {path}", status == wanted, (status, reply))
    status, reply, _ = call("GET", "/seldon/default/nobody/api/v1.0/predictions")
    check("an unknown deployment", status == 404 and "nobody" in str(reply), (status, reply))
    text = call("GET", "/seldon/default/first/prometheus")[1]
    check("series of the server", re.search(
        r'seldon_api_executor_server_requests_seconds_count\{code="200",deployment_name="first",[^}]*'
        r'service="predictions"[^}]*\} 2\n', text), text[:1500])
    check("series of the client", "seldon_api_executor_client_requests_seconds_bucket{" in text)
    for service, path in (("first-main:8000", "api/v1.0/predictions"), ("first-main-model:9000", "predict")):
        status, reply, _ = call("POST", f"/api/v1/namespaces/default/services/{service}/proxy/{path}",
                                {"data": {"ndarray": [[2]]}})
        check(f"service {service}", status == 200 and reply["data"]["ndarray"] == [[7]], (status, reply))
    with open(os.path.join(server.workspace, "proxied.lua"), "w") as file:
        file.write("""local k8s, seldon = require "k8s", require "seldon"
pipeline "proxied" {}
stage "predict" { run = function()
  local cluster = k8s.connect { namespace = "default" }
  local function of(name, port, style)
    return seldon.client { service = cluster:service(name, { port = port }), path_style = style }
  end
  for _, client in ipairs { of("first-main", 8000), of("first-main-model", 9000, "microservice") } do
    assert(client:predict({ { 2 } }).values[1][1] == 7)
  end
  local nobody = of("nobody", 8000)
  local ok, err = try(nobody.predict, nobody, { { 2 } })
  assert(not ok and err.code == "unavailable" and err.status == 503 and err.message:find "nobody", err)
  local got = seldon.load_test { client = of("first-main", 8000), data = { { { 2 } } }, count = 20 }
  assert(got.errors == 0 and got.status["200"] == 20)
end }
""")
    ran = subprocess.run([MLHOST, "run", "proxied.lua", "--output", "plain"], cwd=server.workspace, text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    check("our client through the service proxy", ran.returncode == 0, ran.stdout)


def scale(name, count):
    thing = sdep(name, predictor(replicas=count, containers=[container("model", VERSION="1", MUL=3, ADD=1)]))
    deploy(thing)
    wait("pods", lambda: len(pods(name)) == count)
    check(f"scaled to {count}", len(pods(name)) == count, len(pods(name)))
    check(f"processes are {count}", wait("processes", lambda: len(nodes()) == count), nodes())


def test_scale():
    scale("first", 3)
    scale("first", 1)
    delete("first")
    check("no process is left", wait("processes end", lambda: not nodes()), nodes())
    check("no pod is left", wait("pods go", lambda: not pods("first")), pods("first"))
    check("its path is gone", call("GET", "/seldon/default/first/ready")[0] == 404)


def test_environment():
    apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "default"},
           "data": {"token": base64.b64encode(b"hush").decode(), "key": base64.b64encode(b"k").decode()}})
    one = container("model")
    one["env"] += [{"name": "FROM_SECRET", "valueFrom": {"secretKeyRef": {"name": "s", "key": "token"}}},
                   {"name": "FROM_CONFIG", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "colour"}}}]
    one["envFrom"] = [{"prefix": "pre_", "secretRef": {"name": "s"}}]
    apply(sdep("env", predictor(containers=[one])))
    found = wait("the missing ConfigMap is told", lambda: [
        p for p in pods("env") if p["status"].get("containerStatuses") and
        p["status"]["containerStatuses"][0]["state"].get("waiting", {}).get("reason") == "CreateContainerConfigError"])
    check("a missing ConfigMap", found and '"c"' in found[0]["status"]["containerStatuses"][0]["state"]["waiting"]
          ["message"], found)
    apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "default"},
           "data": {"colour": "green"}})
    check("it runs once that is there", wait("env", lambda: settled("env")), get("env").get("status"))
    reply = call("GET", "/api/v1/namespaces/default/services/env-main-model:9000/proxy/env")[1]
    check("environment", reply == {"secret": "hush", "config": "green", "all": "k", "id": "model"}, reply)
    delete("env")


def waiting(name):
    return [(p["status"]["containerStatuses"][0], p["status"]["containerStatuses"][0]["state"].get("waiting", {}))
            for p in pods(name) if p["status"].get("containerStatuses")]


def test_bad_image():
    deploy(sdep("bad", predictor(containers=[container("model", VERSION="good")])))
    load = Load("bad", 2)
    apply(sdep("bad", predictor(containers=[container("model", "mlhost.local/node:missing", VERSION="never")])))
    found = wait("ImagePullBackOff", lambda: [w for _, w in waiting("bad") if w.get("reason") == "ImagePullBackOff"])
    check("ImagePullBackOff", found and "node:missing" in found[0]["message"], found)
    now = wait("the state says so", lambda: get("bad")["status"]["state"] == "Creating" and get("bad")["status"])
    check("Creating, and why", now and "ImagePullBackOff" in now.get("description", ""), now)
    check("the old one answers", version(predict("bad")[1]) == "good")
    deploy(sdep("bad", predictor(containers=[container("model", VERSION="good")])))
    load.stop("a rollout that cannot succeed, and back")
    delete("bad")


def test_crash_loop():
    apply(sdep("crash", predictor(containers=[container("model", CRASH=3)])))
    found = wait("CrashLoopBackOff", lambda: [s for s, w in waiting("crash") if
                                              w.get("reason") == "CrashLoopBackOff" and s["restartCount"] >= 3])
    check("CrashLoopBackOff", found, waiting("crash"))
    if found:
        last = found[0]["lastState"]["terminated"]
        check("exit code", last["exitCode"] == 3 and last["reason"] == "Error", last)
        check("its last words", "cannot load the model" in last.get("message", ""), last)
    one = pods("crash")[0]
    check("log of the previous one", "cannot load" in logs(one, previous="true"), logs(one, previous="true"))
    # Between two attempts it says that; during one, that it is being started.
    told = wait("503", lambda: [reply for status, reply, _ in [predict("crash")] if status == 503 and "CrashLoopBackOff" in str(reply)])
    check("503 says why", told, predict("crash"))
    deploy(sdep("crash", predictor(containers=[container("model", VERSION="ok")])))
    check("a good one takes its place", version(predict("crash")[1]) == "ok")
    delete("crash")


def test_unready():
    apply(sdep("slow", predictor(containers=[container("model", UNREADY=1)])))
    check("runs", wait("running", lambda: any("running" in s["state"] for s, _ in waiting("slow"))))
    check("is not ready", get("slow")["status"]["state"] == "Creating" and predict("slow")[0] == 503)
    delete("slow")


def test_rolling():
    deploy(sdep("roll", predictor(replicas=2, containers=[container("model", VERSION="0", DELAY_MS=2)])))
    load = Load("roll")
    for i in range(1, 21):
        deploy(sdep("roll", predictor(replicas=2, containers=[container("model", VERSION=str(i), DELAY_MS=2)])))
    seen = load.stop("20 rolling updates")
    check("each version has answered", set(seen) == {str(i) for i in range(21)}, dict(seen))
    check("the last one answers", version(predict("roll")[1]) == "20")
    delete("roll")


def pair(weight, main="main", canary="canary"):
    return sdep("pair", predictor("main", traffic=100 - weight, containers=[container("model", VERSION=main)]),
                predictor("canary", traffic=weight, containers=[container("model", VERSION=canary)]))


def test_split():
    deploy(pair(10))
    for weight in (10, 37, 50):
        deploy(pair(weight))
        wait("the weight holds", lambda: collections.Counter(
            version(predict("pair")[1]) for _ in range(100))["canary"] == weight)
        seen = collections.Counter(version(predict("pair")[1]) for _ in range(300))
        check(f"{weight} % of 300", seen["canary"] == 3 * weight, dict(seen))
    check("100 % to the canary", deploy(pair(100)) and wait("all go there", lambda: {
        version(predict("pair")[1]) for _ in range(20)} == {"canary"}))


def test_canary_under_load():
    single = sdep("pair", predictor("main", traffic=100, containers=[container("model", VERSION="main")]))
    deploy(single)
    load = Load("pair")
    for round_number in range(3):
        new = f"new{round_number}"
        for weight in (10, 50, 100):
            deploy(pair(weight, canary=new))
        # promoted: main takes over, the canary goes
        deploy(sdep("pair", predictor("main", traffic=100, containers=[container("model", VERSION=new)])))
        # and one that is given up
        deploy(pair(20, main=new, canary="given-up"))
        deploy(sdep("pair", predictor("main", traffic=100, containers=[container("model", VERSION=new)])))
    seen = load.stop("canaries: weights, promotions, deletions")
    check("all have answered", {"main", "new0", "new1", "new2", "given-up"} <= set(seen), dict(seen))
    delete("pair")


def test_shadow():
    def both(percent):
        return sdep("shade", predictor("main", traffic=100, containers=[container("model", VERSION="main")]),
                    predictor("dark", traffic=percent, shadow=True,
                              containers=[container("model", VERSION="dark", DELAY_MS=5)]))
    for percent in (50, 100):
        deploy(both(percent))
        dark = [p for p in pods("shade") if p["metadata"]["labels"]["version"] == "dark"][0]
        before = logs(dark).count("POST /predict")
        seen = {version(predict("shade", x)[1]) for x in range(40)}
        check("only main answers", seen == {"main"}, seen)
        wanted = 40 * percent // 100
        check(f"{percent} % are copied", wait("copies", lambda: logs(dark).count("POST /predict") - before == wanted),
              logs(dark).count("POST /predict") - before)
    delete("shade")


GRAPH = {"name": "scale", "type": "TRANSFORMER", "children": [
    {"name": "join", "type": "COMBINER", "children": [
        {"name": "pick", "type": "ROUTER", "children": [
            {"name": "a", "type": "MODEL", "children": []}, {"name": "b", "type": "MODEL", "children": []}]},
        {"name": "c", "type": "MODEL", "children": []}]}]}


def graph_of(branch):
    outer = {"name": "last", "type": "OUTPUT_TRANSFORMER", "children": [GRAPH]}
    return sdep("graph", predictor(graph=outer, containers=[
        container("last", ADD=0.5), container("scale", MUL=10), container("join"), container("pick", BRANCH=branch),
        container("a", ADD=1), container("b", ADD=2), container("c", ADD=100)]))


def asked(what):
    pod = pods("graph")[0]["metadata"]["name"]
    return {name: call("GET", f"/api/v1/namespaces/default/pods/{pod}/log?container={name}")[1].count(what)
            for name in ("a", "b", "c", "pick")}


def test_graph():
    deploy(graph_of(1))
    status, reply, _ = predict("graph", 3)
    # (3 * 10 + 2) + (3 * 10 + 100), then + 0.5
    check("the walk", status == 200 and reply["data"]["ndarray"] == [[162.5]], (status, reply))
    meta = reply["meta"]
    check("routing", meta["routing"]["pick"] == 1 and meta["routing"]["join"] == -1, meta)
    check("request path", set(meta["requestPath"]) == {"last", "scale", "join", "pick", "b", "c"}, meta)
    check("tags of all", {"scale", "b", "c", "join", "last"} <= set(meta["tags"]), meta)
    status, _, _ = call("POST", "/seldon/default/graph/api/v1.0/feedback", {
        "request": {"data": {"ndarray": [[3]]}}, "response": reply, "reward": 1})
    counts = {"a": 0, "b": 1, "c": 1, "pick": 1}
    good = wait("the logs say so", lambda: asked("POST /send-feedback") == counts)
    check("feedback takes the same way", status == 200 and good, (status, asked("POST /send-feedback")))
    status, reply, _ = call("GET", "/seldon/default/graph/api/v1.0/metadata")
    check("metadata of the graph", status == 200 and set(reply["models"]) == {
        "last", "scale", "join", "pick", "a", "b", "c"} and reply["graphinputs"] == [{"messagetype": "ndarray"}]
        and reply["graphoutputs"] == [{"messagetype": "tensor"}], (status, reply))
    status, reply, _ = call("POST", "/seldon/default/graph/api/v1.0/predictions", b"no json")
    check("a request that is no JSON", status == 400 and reply["status"]["status"] == "FAILURE", (status, reply))
    deploy(graph_of(-1))
    reply = predict("graph", 3)[1]
    check("all children, the first one's reply", reply["data"]["ndarray"] == [[161.5]], reply)
    deploy(graph_of(7))
    status, reply, _ = predict("graph", 3)
    check("a branch that is not there", status == 500 and "branch 7" in reply["status"]["info"], (status, reply))
    delete("graph")


def test_builtins():
    leaves = [{"name": n, "implementation": "SIMPLE_MODEL", "children": []} for n in ("x", "y")]
    for implementation in ("AVERAGE_COMBINER", "SIMPLE_ROUTER", "RANDOM_ABTEST"):
        graph = {"name": "top", "implementation": implementation, "children": leaves,
                 "parameters": [{"name": "ratioA", "value": "0.0", "type": "FLOAT"}]}
        one = predictor(graph=graph)
        one["componentSpecs"] = []
        apply(sdep("built", one))
        wanted = {"AVERAGE_COMBINER": {"top", "x", "y"}, "SIMPLE_ROUTER": {"x"}, "RANDOM_ABTEST": {"y"}}[implementation]
        good = wait(implementation, lambda: predict("built")[0] == 200 and
                    set(predict("built")[1]["meta"]["requestPath"]) == wanted)
        check(implementation, good, predict("built"))
    delete("built")


def test_errors():
    deploy(sdep("refuse", predictor(containers=[container("model", REFUSE=400)])))
    status, reply, _ = predict("refuse")
    check("a node's own error passes", status == 400 and reply["status"]["info"] == "no such input", (status, reply))
    delete("refuse")
    one = predictor(graph={"name": "m", "implementation": "SKLEARN_SERVER", "modelUri": "s3://x/y", "children": []})
    one["componentSpecs"] = []
    apply(sdep("prepack", one))
    now = wait("Failed", lambda: get("prepack").get("status", {}).get("state") == "Failed" and get("prepack")["status"])
    check("a prepackaged server", now and "image" in now["description"] and "cluster" in now["description"], now)
    delete("prepack")


def test_deadline():
    apply(sdep("late", predictor(progressDeadlineSeconds=1, containers=[container("model", "mlhost.local/none:1")])))
    now = wait("Failed", lambda: get("late").get("status", {}).get("state") == "Failed" and get("late")["status"])
    check("no progress is a failure", now and "none:1" in now["description"], get("late").get("status"))
    deploy(sdep("late", predictor(containers=[container("model")])))
    delete("late")


def test_core2():
    model = {"apiVersion": "mlops.seldon.io/v1alpha1", "kind": "Model",
             "metadata": {"name": "m", "namespace": "default"}, "spec": {"storageUri": "s3://m/1", "requirements": ["sklearn"]}}
    apply(model)
    path = "/apis/mlops.seldon.io/v1alpha1/namespaces/default/models/m"
    found = wait("a condition", lambda: call("GET", path)[1].get("status"))
    conditions = {c["type"]: (c["status"], c["reason"]) for c in found["conditions"]} if found else {}
    check("a Model says that it needs a cluster", conditions.get("ModelReady") == ("False", "ScheduleFailed"), found)
    call("DELETE", path)


def test_nonsense():
    """What cannot be understood is refused or Failed, and stops nobody else."""
    deploy(sdep("sane", predictor()))
    odd = [sdep("odd", {"name": "main"}), sdep("odd", predictor(containers=[{"name": "model"}])),
           sdep("odd", predictor(containers=[dict(container("model"), env=[{"valueFrom": {"secretKeyRef": {}}}])]))]
    for thing in odd:
        thing["spec"]["predictors"][0].setdefault("replicas", 1)
        status, reply, _ = call("POST", SDEPS, thing)
        if status in (200, 201):
            check("it is not Available", wait("a state", lambda: get("odd").get("status", {}).get("state") in
                                              ("Failed", "Creating")), get("odd").get("status"))
            delete("odd")
        else:
            check("it is refused", status in (400, 422), (status, reply))
        check("the other one answers", predict("sane")[0] == 200)
    deploy(sdep("sane", predictor(containers=[container("model", VERSION="2")])))
    check("and is updated", version(predict("sane")[1]) == "2")
    delete("sane")


def test_v2():
    graph = {"name": "first", "type": "TRANSFORMER", "children": [{"name": "second", "type": "MODEL", "children": []}]}
    deploy(sdep("oip", predictor(graph=graph, containers=[container("first", MUL=10), container("second", ADD=1)]),
                protocol="v2"))
    body = {"id": "7", "inputs": [{"name": "x", "datatype": "FP64", "shape": [1], "data": [4]}]}
    for path in ("/v2/models/infer", "/v2/models/first/infer"):
        status, reply, _ = call("POST", "/seldon/default/oip" + path, body)
        check(path, status == 200 and reply["model_name"] == "second" and reply["outputs"][0]["data"] == [41],
              (status, reply))
    status, reply, _ = call("POST", "/seldon/default/oip/v2/models/other/infer", body)
    check("another model", status == 404 and "other" in reply["error"], (status, reply))
    check("ready", call("GET", "/seldon/default/oip/v2/health/ready")[0] == 200)
    delete("oip")


def test_explainer():
    one = predictor(explainer={"type": "Custom", "containerSpec": container("why", VERSION="because")})
    apply(sdep("told", one))
    path = "/seldon/default/told-explainer/main/api/v1.0/explain"
    good = wait("the explainer answers", lambda: call("POST", path, {"data": {"ndarray": [[1]]}})[0] == 200)
    check("explanations", good and version(call("POST", path, {"data": {"ndarray": [[1]]}})[1]) == "because")
    check("no such predictor", call("POST", path.replace("main", "other"), {})[0] == 404)
    delete("told")


def test_service_host():
    deploy(sdep("far", predictor(containers=[container("model", ADD=5)])))
    graph = {"name": "near", "type": "TRANSFORMER", "children": [
        {"name": "model", "type": "MODEL", "children": [],
         "endpoint": {"service_host": "far-main-model.default.svc.cluster.local", "service_port": 9000}}]}
    deploy(sdep("near", predictor(graph=graph, containers=[container("near", MUL=2)])))
    status, reply, _ = predict("near", 4)
    check("a node of another deployment", status == 200 and reply["data"]["ndarray"] == [[13]], (status, reply))
    delete("near")
    delete("far")


def test_liveness():
    one = container("model", DEAD=1)
    one["livenessProbe"] = {"httpGet": {"path": "/alive", "port": "http"}, "periodSeconds": 1, "failureThreshold": 1}
    apply(sdep("dead", predictor(containers=[one])))
    found = wait("a restart", lambda: [s for s, _ in waiting("dead") if s["restartCount"] >= 1])
    check("liveness restarts", found, waiting("dead"))
    reasons = [e["message"] for e in call("GET", "/api/v1/namespaces/default/events")[1]["items"]
               if e["reason"] == "Unhealthy"]
    check("and is told", any("Liveness" in text for text in reasons), reasons)
    delete("dead")


def test_crash_under_load():
    deploy(sdep("kill", predictor(replicas=2, containers=[container("model", VERSION="1")])))
    load = Load("kill")

    def restarts():
        return sum(p["status"]["containerStatuses"][0]["restartCount"] for p in pods("kill"))
    for count in range(1, 4):
        wait("those of earlier tests end", lambda: len(nodes()) == 2)
        os.kill(nodes()[0], signal.SIGKILL)
        check("a killed process is restarted", wait("it is counted", lambda: restarts() == count and settled("kill")),
              (restarts(), nodes()))
    load.stop("processes that die")
    name = pods("kill")[0]["metadata"]["name"]
    call("DELETE", f"/api/v1/namespaces/default/pods/{name}")
    check("a deleted pod gets a successor", wait("a new pod", lambda: settled("kill") and len(pods("kill")) == 2 and
                                                 name not in [p["metadata"]["name"] for p in pods("kill")]))


def test_restart():
    before = nodes()
    names = sorted(p["metadata"]["name"] for p in pods("kill"))
    check("the server ends well", server.stop() == 0)
    check("its processes have ended", not [p for p in before if alive(p)], before)
    server.start()
    check("the deployment comes back", wait("kill is available", lambda: settled("kill") and predict("kill")[0] == 200),
          (get("kill").get("status"), [p["status"] for p in pods("kill")]))
    check("with the same pods", sorted(p["metadata"]["name"] for p in pods("kill")) == names)
    before = nodes()
    check("and processes of its own", len(before) == 2, before)
    server.stop(signal.SIGKILL)
    check("a killed server leaves none", wait("they end", lambda: not [p for p in before if alive(p)]), before)
    server.start()
    check("and again", wait("kill is available", lambda: settled("kill") and predict("kill")[0] == 200))
    delete("kill")
    check("nothing is left", wait("processes end", lambda: not nodes()), nodes())


TESTS = [test_deploy, test_scale, test_environment, test_bad_image, test_crash_loop, test_unready, test_rolling,
         test_split, test_canary_under_load, test_shadow, test_graph, test_builtins, test_errors, test_deadline,
         test_core2, test_nonsense, test_v2, test_explainer, test_service_host, test_liveness,
         test_crash_under_load, test_restart]

if not shutil.which("cc"):
    print("SKIPPED serve_seldon: no C compiler")
    done()
work = tempfile.mkdtemp(prefix="serve-seldon-")
server = Server(work)
try:
    open(os.path.join(work, "mlhost.yaml"), "w").close()
    build_images()
    server.start()
    wanted = sys.argv[1:]
    for test in TESTS:
        if not wanted or test.__name__ in wanted:
            started = time.monotonic()
            try:
                test()
            except Exception as error:  # one broken test must not hide the others
                check(test.__name__, False, repr(error))
            print(f"{test.__name__}: {time.monotonic() - started:.1f} s", flush=True)
    check("the server ends at last", server.stop() == 0)
finally:
    if server.process and server.process.poll() is None:
        server.process.kill()
        server.process.wait()
    faults = os.path.join(work, "serve.err")
    if failed and os.path.exists(faults):
        print(open(faults).read()[-3000:])
    shutil.rmtree(work, ignore_errors=True)
done()
