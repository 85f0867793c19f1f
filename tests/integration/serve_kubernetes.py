"""The official clients of Kubernetes against `mlhost serve`: $MLHOST is the program, each argument a kubectl. Run by
serve_kubernetes.sh. Prints "N passed, N failed" last."""
import base64
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import urllib.error
import urllib.request

import kubernetes
from kubernetes import client, dynamic, watch
from kubernetes.client.exceptions import ApiException

SELDON = "machinelearning.seldon.io"
tests, failures = [], []


def test(function):
    tests.append(function)
    return function


def same(got, wanted, what="value"):
    if got != wanted:
        raise AssertionError("%s: %r, wanted %r" % (what, got, wanted))


def holds(text, part):
    if part not in text:
        raise AssertionError("%r does not hold %r" % (text, part))


def refused(status, reason, call, *args, **kwargs):
    """The Status that the call was refused with."""
    try:
        call(*args, **kwargs)
    except ApiException as e:
        body = json.loads(e.body)
        same((e.status, body["kind"], body["status"], body["code"], body["reason"]),
             (status, "Status", "Failure", status, reason), "status (%s)" % body["message"])
        return body
    raise AssertionError("not refused")


def until(what, condition, seconds=30):
    """Waits for something that another process or thread does."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("%s did not happen" % what)
        time.sleep(0.02)


class Server:
    def __init__(self):
        self.work = tempfile.mkdtemp()
        self.process = None
        self.start()

    def start(self):
        self.process = subprocess.Popen([os.environ["MLHOST"], "serve", "--port", "0"], cwd=self.work, text=True,
                                        stdout=subprocess.PIPE, stderr=open(os.path.join(self.work, "stderr"), "a"))
        line = self.process.stdout.readline()
        if "http://" not in line:
            raise SystemExit("mlhost serve does not start: %s" % open(os.path.join(self.work, "stderr")).read())
        self.url = line[line.index("http://"):].split()[0]
        self.drain = threading.Thread(target=self.process.stdout.read, daemon=True)
        self.drain.start()
        config = {"apiVersion": "v1", "kind": "Config", "current-context": "local",
                  "clusters": [{"name": "local", "cluster": {"server": self.url}}],
                  "users": [{"name": "local", "user": {}}],
                  "contexts": [{"name": "local", "context": {"cluster": "local", "user": "local"}}]}
        self.kubeconfig = os.path.join(self.work, "kubeconfig")
        with open(self.kubeconfig, "w") as f:
            json.dump(config, f)
        configuration = client.Configuration()
        configuration.host = self.url
        self.api = client.ApiClient(configuration)
        self.core, self.apps = client.CoreV1Api(self.api), client.AppsV1Api(self.api)
        self.custom = client.CustomObjectsApi(self.api)

    def stop(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        return self.process.wait(timeout=60)

    def state(self, *parts):
        return os.path.join(self.work, ".mlhost", "local", "kubernetes", *parts)

    def call(self, method, path, body=None, kind="application/json", **headers):
        """(status, decoded body) of a plain request."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": kind, **headers}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                return reply.status, json.loads(reply.read())
        except urllib.error.HTTPError as e:
            return e.code, json.loads(e.read())


def config_map(name, data=None, **metadata):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, **metadata}, "data": data or {}}


def workload(name, image="one:1", replicas=1, kind="ReplicaSet"):
    """A ReplicaSet: no operator of the server writes to it, as one does to a Deployment."""
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}},
                     "template": {"metadata": {"labels": {"app": name}},
                                  "spec": {"containers": [{"name": "main", "image": image}]}}}}


def pod(name, annotations=None, containers=("main",)):
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "annotations": annotations or {}},
            "spec": {"containers": [{"name": c, "image": "one:1"} for c in containers]}}


# ---- the Python client: objects ----

@test
def discovery(s):
    same(client.VersionApi(s.api).get_code().major, "1")
    same([g.name for g in client.ApisApi(s.api).get_api_versions().groups], ["apps", SELDON, "mlops.seldon.io"])
    names = {r.name: r for r in s.core.get_api_resources().resources}
    same(names["pods"].namespaced, True)
    same(names["namespaces"].namespaced, False)
    assert "pods/log" in names and "services/proxy" in names
    assert "deployments/scale" in {r.name for r in s.apps.get_api_resources().resources}
    refused(404, "NotFound", client.BatchV1Api(s.api).list_namespaced_job, "default")


@test
def crud(s):
    made = s.core.create_namespaced_config_map("crud", config_map("a", {"k": "v"}, labels={"app": "x"}))
    same(made.data, {"k": "v"})
    assert made.metadata.uid and made.metadata.creation_timestamp and made.metadata.resource_version
    same(s.core.read_namespace("crud").status.phase, "Active")
    details = refused(409, "AlreadyExists", s.core.create_namespaced_config_map, "crud", config_map("a"))["details"]
    same((details["name"], details["kind"]), ("a", "configmaps"))
    made.data = {"k": "w"}
    replaced = s.core.replace_namespaced_config_map("a", "crud", made)
    same(replaced.data, {"k": "w"})
    same(replaced.metadata.uid, made.metadata.uid)
    made.data = {"k": "stale"}
    refused(409, "Conflict", s.core.replace_namespaced_config_map, "a", "crud", made)
    body = s.call("DELETE", "/api/v1/namespaces/crud/configmaps/a")[1]
    same((body["status"], body["details"]), ("Success", {"name": "a", "kind": "configmaps", "uid": made.metadata.uid}))
    body = refused(404, "NotFound", s.core.read_namespaced_config_map, "a", "crud")
    same(body["message"], 'configmaps "a" not found')
    refused(404, "NotFound", s.core.delete_namespaced_config_map, "a", "crud")
    name = s.core.create_namespaced_config_map("crud", {"metadata": {"generateName": "gen-"}}).metadata.name
    assert name.startswith("gen-") and len(name) == 9, name
    # as before: an unchanged write has no number of its own
    one = s.core.read_namespaced_config_map(name, "crud")
    same(s.core.replace_namespaced_config_map(name, "crud", one).metadata.resource_version, one.metadata.resource_version)


@test
def refusals(s):
    body = refused(422, "Invalid", s.core.create_namespaced_config_map, "crud", config_map("Bad_Name"))
    same(body["details"]["causes"][0]["field"], "metadata.name")
    code, body = s.call("POST", "/apis/apps/v1/namespaces/crud/deployments", {"metadata": {"name": "d"}, "spec": {}})
    same((code, [c["field"] for c in body["details"]["causes"]]), (422, ["spec.selector", "spec.template"]))
    refused(400, "BadRequest", s.core.create_namespaced_config_map, "crud", config_map("a", namespace="other"))
    refused(400, "BadRequest", s.core.list_namespaced_config_map, "crud", label_selector="a in (b")
    refused(400, "BadRequest", s.core.list_namespaced_config_map, "crud", field_selector="spec.x=1")
    same(s.call("POST", "/api/v1/namespaces/crud/configmaps", b"{")[1]["reason"], "BadRequest")
    same(s.call("POST", "/api/v1/namespaces/crud/configmaps", b"[]")[1]["reason"], "BadRequest")
    same(s.call("POST", "/api/v1/namespaces/crud/configmaps", b"k8s", "application/vnd.kubernetes.protobuf")[0], 415)
    same(s.call("POST", "/api/v1/namespaces/crud/configmaps", {"kind": "Secret"})[1]["reason"], "BadRequest")
    same(s.call("POST", "/api/v1/namespaces/crud/configmaps", {"metadata": 3})[1]["reason"], "BadRequest")
    same(s.call("POST", "/api/v1/namespaces/crud/configmaps", {"metadata": {"name": "x", "labels": {"a": 1}}})[0], 400)
    same(s.call("PATCH", "/api/v1/namespaces/crud/configmaps/x", {}, "text/plain")[0], 415)
    same(s.call("PUT", "/api/v1/namespaces/crud/configmaps", {})[0], 405)
    same(s.call("GET", "/api/v1/namespaces/crud/nothings")[1]["reason"], "NotFound")
    same(s.call("GET", "/api/v1/namespaces/crud/configmaps/..%2f..%2fescape")[0], 404)
    same(s.call("GET", "/api/v1/namespaces", Host="evil.example")[0], 403)


@test
def lists(s):
    for i in range(7):
        s.core.create_namespaced_config_map("lists", config_map("c%d" % i, labels={
            "parity": "even" if i % 2 == 0 else "odd", **({"first": "yes"} if i == 0 else {})}))
    s.core.create_namespaced_config_map("lists-too", config_map("c0"))

    def names(labels=None, **options):
        found = s.core.list_namespaced_config_map("lists", label_selector=labels, **options)
        return "".join(c.metadata.name[1:] for c in found.items)

    same(names(), "0123456")
    for labels, wanted in {"parity=even": "0246", "parity==odd": "135", "parity!=even": "135", "parity in (odd, none)": "135",
                           "parity notin (odd)": "0246", "first": "0", "!first": "123456", "parity=even,!first": "246",
                           "nothing!=1": "0123456"}.items():
        same(names(labels), wanted, labels)
    same(names(field_selector="metadata.name=c3"), "3")
    same(names(field_selector="metadata.name!=c3,metadata.namespace=lists"), "012456")
    pages, token, versions = [], None, set()
    while True:
        page = s.core.list_namespaced_config_map("lists", limit=3, _continue=token)
        pages.append("".join(c.metadata.name[1:] for c in page.items))
        versions.add(page.metadata.resource_version)
        token = page.metadata._continue
        if not token:
            break
        if len(pages) == 1:
            same(page.metadata.remaining_item_count, 4)
            s.core.create_namespaced_config_map("lists", config_map("c31"))
    same(pages, ["012", "3314", "56"])
    same(len(versions), 1)
    refused(400, "BadRequest", s.core.list_namespaced_config_map, "lists", limit=1, _continue="zz")
    everywhere = s.core.list_config_map_for_all_namespaces(field_selector="metadata.name=c0").items
    same([c.metadata.namespace for c in everywhere], ["lists", "lists-too"])
    s.core.delete_collection_namespaced_config_map("lists", label_selector="parity=odd")
    same(names(), "02" + "31" + "46")


@test
def patches(s):
    s.apps.create_namespaced_replica_set("patches", workload("d"))
    path = "/apis/apps/v1/namespaces/patches/replicasets/d"
    code, d = s.call("PATCH", path, {"spec": {"template": {"spec": {"containers": [
        {"name": "main", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]},
        {"name": "side", "image": "two:2"}]}}}}, "application/strategic-merge-patch+json")
    same(code, 200)
    containers = d["spec"]["template"]["spec"]["containers"]
    same([(c["name"], c["image"]) for c in containers], [("main", "one:1"), ("side", "two:2")])
    same(d["metadata"]["generation"], 2)
    code, d = s.call("PATCH", path, {"spec": {"template": {"spec": {"containers": [
        {"name": "main", "env": [{"name": "A", "$patch": "delete"}, {"name": "B", "value": "3"}]},
        {"name": "side", "$patch": "delete"}]}}}}, "application/strategic-merge-patch+json")
    same(d["spec"]["template"]["spec"]["containers"],
         [{"name": "main", "image": "one:1", "env": [{"name": "B", "value": "3"}]}])
    code, d = s.call("PATCH", path, {"spec": {"template": {"spec": {"containers": [{"name": "new", "image": "x"}]}}}},
                     "application/merge-patch+json")
    same(d["spec"]["template"]["spec"]["containers"], [{"name": "new", "image": "x"}])
    code, d = s.call("PATCH", path, [{"op": "test", "path": "/spec/replicas", "value": 1},
                                     {"op": "replace", "path": "/spec/replicas", "value": 4},
                                     {"op": "add", "path": "/metadata/annotations", "value": {"a/b": "~"}}],
                     "application/json-patch+json")
    same((code, d["spec"]["replicas"], d["metadata"]["annotations"]), (200, 4, {"a/b": "~"}))
    code, d = s.call("PATCH", path, [{"op": "remove", "path": "/metadata/annotations/a~1b"},
                                     {"op": "test", "path": "/spec/replicas", "value": 1}], "application/json-patch+json")
    same((code, d["reason"]), (422, "Invalid"))
    same(s.apps.read_namespaced_replica_set("d", "patches").metadata.annotations, {"a/b": "~"})
    code, d = s.call("PATCH", path, {"metadata": {"resourceVersion": "1"}, "spec": {"replicas": 9}},
                     "application/merge-patch+json")
    same((code, d["reason"]), (409, "Conflict"))
    # status and scale
    d = s.apps.patch_namespaced_replica_set_status("d", "patches", {"status": {"replicas": 4}, "spec": {"replicas": 99}})
    same((d.status.replicas, d.spec.replicas), (4, 4))
    d = s.apps.patch_namespaced_replica_set("d", "patches", {"status": {"replicas": 77}, "spec": {"minReadySeconds": 1}})
    same((d.status.replicas, d.spec.min_ready_seconds), (4, 1))
    scale = s.apps.read_namespaced_replica_set_scale("d", "patches")
    same((scale.spec.replicas, scale.status.replicas, scale.status.selector), (4, 4, "app=d"))
    scale.spec.replicas = 2
    same(s.apps.replace_namespaced_replica_set_scale("d", "patches", scale).spec.replicas, 2)
    scale.spec.replicas = 3
    refused(409, "Conflict", s.apps.replace_namespaced_replica_set_scale, "d", "patches", scale)
    same(s.apps.patch_namespaced_replica_set_scale("d", "patches", {"spec": {"replicas": 5}}).spec.replicas, 5)
    same(s.apps.read_namespaced_replica_set("d", "patches").spec.replicas, 5)
    # many at once: none is lost
    threads = [threading.Thread(target=s.call, args=("PATCH", path, {"metadata": {"labels": {"l%d" % i: "x"}}},
                                                     "application/merge-patch+json")) for i in range(12)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    same(len(s.apps.read_namespaced_replica_set("d", "patches").metadata.labels), 12)


# ---- server-side apply ----

def apply(s, path, manager, body, force=False, **query):
    text = "&".join("%s=%s" % pair for pair in {"fieldManager": manager, "force": str(force).lower(), **query}.items())
    return s.call("PATCH", path + "?" + text, body, "application/apply-patch+yaml")


def managers(s, path):
    return {(m["manager"], m["operation"]): m for m in s.call("GET", path)[1]["metadata"]["managedFields"]}


@test
def server_side_apply(s):
    path = "/apis/apps/v1/namespaces/ssa/replicasets/d"
    code, made = apply(s, path, "ci", workload("d"))
    same((code, made["metadata"]["generation"]), (201, 1))
    same(managers(s, path)["ci", "Apply"]["fieldsV1"]["f:spec"]["f:template"]["f:spec"],
         {"f:containers": {'k:{"name":"main"}': {".": {}, "f:image": {}, "f:name": {}}}})
    code, again = apply(s, path, "ci", workload("d"))
    same((code, again["metadata"]["resourceVersion"]), (200, made["metadata"]["resourceVersion"]))
    # another manager: the same value is shared, another one is refused, with who and what
    same(apply(s, path, "ops", {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "d"},
                                "spec": {"replicas": 1}})[0], 200)
    code, status = apply(s, path, "ops", {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "d"},
                                          "spec": {"replicas": 3}})
    same((code, status["reason"]), (409, "Conflict"))
    same([(c["reason"], c["field"]) for c in status["details"]["causes"]], [("FieldManagerConflict", ".spec.replicas")])
    holds(status["details"]["causes"][0]["message"], 'conflict with "ci"')
    code, d = apply(s, path, "ops", {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "d"},
                                     "spec": {"replicas": 3}}, force=True)
    same((code, d["spec"]["replicas"]), (200, 3))
    assert "f:replicas" not in managers(s, path)["ci", "Apply"]["fieldsV1"]["f:spec"]
    # a list item of each
    side = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "d"},
            "spec": {"template": {"spec": {"containers": [{"name": "side", "image": "two:2",
                                                           "env": [{"name": "A", "value": "1"}]}]}}}}
    code, d = apply(s, path, "mesh", side)
    same([c["name"] for c in d["spec"]["template"]["spec"]["containers"]], ["main", "side"])
    # what its manager no longer applies goes, unless somebody else wants it
    own = workload("d")
    del own["spec"]["replicas"]
    own["metadata"]["labels"] = {"team": "ml"}
    apply(s, path, "ci", own)
    del own["metadata"]["labels"]
    code, d = apply(s, path, "ci", own)
    same((d["spec"]["replicas"], d["metadata"].get("labels")), (3, None))
    code, d = apply(s, path, "mesh", {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "d"}})
    same(d["spec"]["template"]["spec"]["containers"], [{"name": "main", "image": "one:1"}])
    # a plain write takes ownership, and an apply over it is a conflict
    s.apps.patch_namespaced_replica_set("d", "ssa", {"spec": {"template": {"spec": {"containers": [
        {"name": "main", "image": "hot:fix"}]}}}}, field_manager="hand")
    code, status = apply(s, path, "ci", own)
    same((code, status["details"]["causes"][0]["field"]),
         (409, '.spec.template.spec.containers[name="main"].image'))
    holds(status["message"], '"hand"')
    # dry run, and what must be refused
    code, d = apply(s, path, "ci", own, force=True, dryRun="All")
    same(d["spec"]["template"]["spec"]["containers"][0]["image"], "one:1")
    same(s.apps.read_namespaced_replica_set("d", "ssa").spec.template.spec.containers[0].image, "hot:fix")
    code, d = apply(s, "/apis/apps/v1/namespaces/ssa/replicasets/dry", "ci", workload("dry"), dryRun="All")
    same(code, 201)
    same(s.call("GET", "/apis/apps/v1/namespaces/ssa/replicasets/dry")[0], 404)
    same(s.call("PATCH", path, own, "application/apply-patch+yaml")[0], 400)
    bad = dict(own, metadata={"name": "d", "managedFields": []})
    same(apply(s, path, "ci", bad)[0], 400)
    same(apply(s, path, "ci", dict(own, metadata={"name": "d", "resourceVersion": "1"}))[0], 409)
    # YAML, as the type says
    code, d = s.call("PATCH", "/api/v1/namespaces/ssa/configmaps/y?fieldManager=ci",
                     b"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: y\ndata: {a: 'yes'}\n",
                     "application/apply-patch+yaml")
    same((code, d["data"]), (201, {"a": "yes"}))


@test
def custom_resources(s):
    predictor = {"name": "main", "replicas": 1, "traffic": 100, "graph": {
        "name": "classifier", "implementation": "SKLEARN_SERVER", "modelUri": "s3://models/digits"}}
    body = {"apiVersion": SELDON + "/v1", "kind": "SeldonDeployment", "metadata": {"name": "digits"},
            "spec": {"predictors": [predictor]}}
    path = "/apis/%s/v1/namespaces/seldon/seldondeployments/digits" % SELDON
    api = dynamic.DynamicClient(s.api).resources.get(api_version=SELDON + "/v1", kind="SeldonDeployment")
    made = api.server_side_apply(body=body, name="digits", namespace="seldon", field_manager="cd")
    same(made.metadata.generation, 1)
    canary = dict(predictor, name="canary", traffic=0)
    more = dict(body, spec={"predictors": [canary]})
    both = api.server_side_apply(body=more, name="digits", namespace="seldon", field_manager="canary")
    same([p.name for p in both.spec.predictors], ["main", "canary"])
    same(both.metadata.generation, 2)
    status = s.custom.patch_namespaced_custom_object_status(SELDON, "v1", "seldon", "seldondeployments", "digits",
                                                            {"status": {"state": "Available"}})
    same((status["status"]["state"], status["metadata"]["generation"]), ("Available", 2))
    assert len(api.get(namespace="seldon").items) == 1
    code, reply = s.call("PATCH", path, {}, "application/strategic-merge-patch+json")
    same((code, reply["reason"]), (415, "UnsupportedMediaType"))
    code, reply = apply(s, "/apis/%s/v1/namespaces/seldon/seldondeployments/bad" % SELDON, "cd",
                        {"apiVersion": SELDON + "/v1", "kind": "SeldonDeployment", "metadata": {"name": "bad"},
                         "spec": {"predictors": [{"name": "a", "graph": {"name": "m"}}, {"name": "a", "graph": {}}]}})
    same((code, reply["reason"], reply["details"]["kind"]), (422, "Invalid", "SeldonDeployment"))
    assert reply["details"]["causes"][0]["field"].startswith("spec.predictors"), reply
    api.delete(name="digits", namespace="seldon")
    refused(404, "NotFound", s.custom.get_namespaced_custom_object, SELDON, "v1", "seldon", "seldondeployments", "digits")
    model = {"apiVersion": "mlops.seldon.io/v1alpha1", "kind": "Model", "metadata": {"name": "iris"},
             "spec": {"storageUri": "gs://models/iris", "requirements": ["sklearn"]}}
    s.custom.create_namespaced_custom_object("mlops.seldon.io", "v1alpha1", "seldon", "models", model)
    same(s.custom.list_namespaced_custom_object("mlops.seldon.io", "v1alpha1", "seldon", "models")["items"][0]["kind"],
         "Model")


# ---- the end of objects ----

@test
def finalizers_and_owners(s):
    owner = s.core.create_namespaced_config_map("owners", config_map("owner", finalizers=["example.com/wait"]))

    def child(name, uid=owner.metadata.uid, block=False):
        return s.core.create_namespaced_config_map("owners", config_map(name, ownerReferences=[{
            "apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid, "blockOwnerDeletion": block}]))

    def there(name):
        return s.call("GET", "/api/v1/namespaces/owners/configmaps/" + name)[0] == 200

    child("one")
    s.core.delete_namespaced_config_map("owner", "owners")
    marked = s.core.read_namespaced_config_map("owner", "owners")
    assert marked.metadata.deletion_timestamp
    assert there("one")
    s.core.patch_namespaced_config_map("owner", "owners", {"metadata": {"finalizers": None}})
    assert not there("owner")
    until("the collection of what it owned", lambda: not there("one"))

    owner = s.core.create_namespaced_config_map("owners", config_map("owner"))
    child("two", owner.metadata.uid)
    s.core.delete_namespaced_config_map("owner", "owners", propagation_policy="Orphan")
    same(s.core.read_namespaced_config_map("two", "owners").metadata.owner_references, None)

    owner = s.core.create_namespaced_config_map("owners", config_map("owner"))
    blocker = config_map("three", finalizers=["example.com/wait"], ownerReferences=[{
        "apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner.metadata.uid, "blockOwnerDeletion": True}])
    s.core.create_namespaced_config_map("owners", blocker)
    s.core.delete_namespaced_config_map("owner", "owners", propagation_policy="Foreground")
    same(s.core.read_namespaced_config_map("owner", "owners").metadata.finalizers, ["foregroundDeletion"])
    until("the mark on the dependent", lambda: s.core.read_namespaced_config_map(
        "three", "owners").metadata.deletion_timestamp)
    assert there("owner")
    s.core.patch_namespaced_config_map("three", "owners", {"metadata": {"finalizers": None}})
    until("the end of the owner", lambda: not there("owner"))

    keep = s.core.create_namespaced_config_map("owners", config_map("keep"))
    body = client.V1DeleteOptions(preconditions=client.V1Preconditions(uid="other"))
    refused(409, "Conflict", s.core.delete_namespaced_config_map, "keep", "owners", body=body)
    s.core.delete_namespaced_config_map("keep", "owners", dry_run="All")
    assert there("keep")
    s.core.delete_namespaced_config_map("keep", "owners", body=client.V1DeleteOptions(
        preconditions=client.V1Preconditions(uid=keep.metadata.uid)))
    assert not there("keep")


@test
def namespaces(s):
    s.core.create_namespace({"metadata": {"name": "team"}})
    refused(409, "AlreadyExists", s.core.create_namespace, {"metadata": {"name": "team"}})
    s.core.create_namespaced_config_map("team", config_map("held", finalizers=["example.com/wait"]))
    s.core.create_namespaced_secret("team", {"metadata": {"name": "s"}, "stringData": {"k": "v"}})
    s.core.delete_namespace("team")
    until("the end of its secret", lambda: s.call("GET", "/api/v1/namespaces/team/secrets/s")[0] == 404)
    same(s.core.read_namespace("team").status.phase, "Terminating")
    refused(403, "Forbidden", s.core.create_namespaced_config_map, "team", config_map("late"))
    s.core.patch_namespaced_config_map("held", "team", {"metadata": {"finalizers": None}})
    until("the end of the namespace", lambda: s.call("GET", "/api/v1/namespaces/team")[0] == 404)
    refused(403, "Forbidden", s.core.delete_namespace, "default")


@test
def secrets_are_private(s):
    made = s.core.create_namespaced_secret("private", {"metadata": {"name": "s"}, "stringData": {"k": "hunter2"},
                                                       "data": {"b": base64.b64encode(b"\0\1").decode()}})
    same(base64.b64decode(made.data["k"]), b"hunter2")
    same(base64.b64decode(made.data["b"]), b"\0\1")
    same(made.type, "Opaque")
    same(oct(os.stat(s.state("secrets", "private", "s.json")).st_mode & 0o777), "0o600")
    same(oct(os.stat(s.state()).st_mode & 0o777), "0o700")


# ---- watches ----

def follow(s, path, **query):
    """A queue of the lines of a watch, decoded; None at its end."""
    lines = queue.Queue()
    text = "&".join("%s=%s" % pair for pair in query.items())
    reply = urllib.request.urlopen(s.url + path + "?watch=true&" + text, timeout=60)

    def read():
        try:
            for line in reply:
                lines.put(json.loads(line))
        except Exception as e:  # noqa: a cut is an end, too
            lines.put({"type": "CUT", "object": {"message": str(e)}})
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    return lines


def events(lines, count):
    got = [lines.get(timeout=30) for _ in range(count)]
    return [(e["type"], e["object"]["metadata"]["name"]) for e in got]


@test
def watches(s):
    path = "/api/v1/namespaces/watch/configmaps"
    s.core.create_namespaced_config_map("watch", config_map("a", labels={"in": "yes"}))
    version = s.core.list_namespaced_config_map("watch").metadata.resource_version
    everything, selected = follow(s, path), follow(s, path, labelSelector="in%3Dyes")
    later, one = follow(s, path, resourceVersion=version), follow(s, path, fieldSelector="metadata.name%3Db")
    same(events(everything, 1), [("ADDED", "a")])
    same(events(selected, 1), [("ADDED", "a")])
    s.core.create_namespaced_config_map("watch", config_map("b"))
    s.core.create_namespaced_config_map("watch-not", config_map("b"))
    s.core.patch_namespaced_config_map("a", "watch", {"metadata": {"labels": {"in": "no"}}})
    s.core.patch_namespaced_config_map("b", "watch", {"metadata": {"labels": {"in": "yes"}}})
    s.core.delete_namespaced_config_map("b", "watch")
    wanted = [("ADDED", "b"), ("MODIFIED", "a"), ("MODIFIED", "b"), ("DELETED", "b")]
    same(events(everything, 4), wanted)
    same(events(later, 4), wanted)
    same(events(selected, 3), [("DELETED", "a"), ("ADDED", "b"), ("DELETED", "b")])
    same(events(one, 3), [("ADDED", "b"), ("MODIFIED", "b"), ("DELETED", "b")])
    # the end, with a bookmark when it was asked for
    lines = follow(s, path, timeoutSeconds=1, allowWatchBookmarks="true", resourceVersion=version)
    got = [lines.get(timeout=30) for _ in range(6)]
    same(got[4]["type"], "BOOKMARK")
    assert int(got[4]["object"]["metadata"]["resourceVersion"]) > int(version)
    same(got[4]["object"]["kind"], "ConfigMap")
    same(got[5], None)
    lines = follow(s, path, sendInitialEvents="true", allowWatchBookmarks="true", timeoutSeconds=1,
                   resourceVersionMatch="NotOlderThan")
    same(lines.get(timeout=30)["type"], "ADDED")
    same(lines.get(timeout=30)["object"]["metadata"]["annotations"], {"k8s.io/initial-events-end": "true"})
    same(s.call("GET", path + "?watch=1&resourceVersion=x")[0], 400)


@test
def a_watch_of_the_client_resumes(s):
    s.core.create_namespaced_config_map("resume", config_map("a"))
    listed = s.core.list_namespaced_config_map("resume")
    got = []
    stream = watch.Watch()
    # the stream ends after each second, and the client goes on where it was
    for i in range(3):
        s.core.create_namespaced_config_map("resume", config_map("n%d" % i))
        version = stream.resource_version or listed.metadata.resource_version
        for event in stream.stream(s.core.list_namespaced_config_map, "resume", timeout_seconds=1,
                                   resource_version=version):
            got.append((event["type"], event["object"].metadata.name))
    same(got, [("ADDED", "n0"), ("ADDED", "n1"), ("ADDED", "n2")])


# ---- logs ----

@test
def pod_logs(s):
    folder = os.path.join(s.work, "logs")
    os.makedirs(folder)
    annotations = {"mlhost.io/log-dir": folder}
    s.core.create_namespaced_pod("logs", pod("p", annotations))
    s.core.create_namespaced_pod("logs", pod("two", annotations, ("main", "side")))
    refused(400, "BadRequest", s.core.read_namespaced_pod_log, "two", "logs")
    refused(400, "BadRequest", s.core.read_namespaced_pod_log, "p", "logs", container="nobody")
    refused(404, "NotFound", s.core.read_namespaced_pod_log, "nobody", "logs")
    refused(400, "BadRequest", s.core.read_namespaced_pod_log, "p", "logs", previous=True)
    lines = ["line %d\n" % i for i in range(20000)]
    log = open(os.path.join(folder, "main.log"), "w")
    log.write("".join(lines))
    log.flush()
    with open(os.path.join(folder, "main.previous.log"), "w") as f:
        f.write("before\n")

    def read(**options):
        return s.core.read_namespaced_pod_log("p", "logs", **options)

    same(read(), "".join(lines))
    same(read(previous=True), "before\n")
    same(read(tail_lines=3), "".join(lines[-3:]))
    same(read(tail_lines=15000), "".join(lines[-15000:]))
    same(read(tail_lines=0), "")
    same(read(tail_lines=1000000), "".join(lines))
    same(read(limit_bytes=6), "line 0")
    same(read(since_seconds=600, container="main"), "".join(lines))
    os.utime(os.path.join(folder, "main.log"), (1, 1))
    same(read(since_seconds=600), "")
    # a follower gets what is written, over the start of another file, until the pod is gone
    got = []
    reply = s.core.read_namespaced_pod_log("p", "logs", follow=True, tail_lines=1, _preload_content=False)
    reader = threading.Thread(target=lambda: [got.append(line) for line in reply], daemon=True)
    reader.start()
    log.write("more\n")
    log.flush()
    until("the line", lambda: b"".join(got) == b"line 19999\nmore\n")
    log.close()
    os.rename(os.path.join(folder, "main.log"), os.path.join(folder, "main.log.1"))
    with open(os.path.join(folder, "main.log"), "w") as f:
        f.write("rotated\n")
    until("the line of the new file", lambda: b"".join(got).endswith(b"rotated\n"))
    s.core.delete_namespaced_pod("p", "logs")
    with open(os.path.join(folder, "main.log"), "a") as f:
        f.write("last\n")
    reader.join(timeout=60)
    same((reader.is_alive(), b"".join(got)), (False, b"line 19999\nmore\nrotated\nlast\n"))


# ---- kubectl ----

class Kubectl:
    def __init__(self, server, program, number):
        self.server, self.program = server, program
        self.namespace = "kubectl-%d" % number
        self.cache = os.path.join(server.work, "cache-%d" % number)

    def start(self, *args, **options):
        return subprocess.Popen([self.program, "--kubeconfig", self.server.kubeconfig, "--cache-dir", self.cache, "-n",
                                 self.namespace, *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True, env={**os.environ, "HOME": self.cache}, **options)

    def __call__(self, *args, text=None, code=0):
        process = self.start(*args)
        out, _ = process.communicate(text if isinstance(text, str) else json.dumps(text), timeout=120)
        same(process.returncode, code, "status of kubectl %s: %s" % (" ".join(args), out))
        return out


def kubectl_works(s, k):
    holds(k("version"), "v1.29.0+mlhost")
    holds(k("api-resources"), "seldondeployments")
    holds(k("get", "ns"), "default")
    s.core.create_namespace({"metadata": {"name": k.namespace}})
    # client-side apply: twice changes nothing, then a merge of lists by key
    d = workload("web", kind="Deployment")
    d["spec"]["template"]["spec"]["containers"][0]["env"] = [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]
    d["spec"]["template"]["spec"]["containers"][0]["ports"] = [{"containerPort": 80}, {"containerPort": 81}]
    holds(k("apply", "-f", "-", text=d), "created")
    holds(k("apply", "-f", "-", text=d), "unchanged")
    del d["spec"]["template"]["spec"]["containers"][0]["env"][0]
    del d["spec"]["template"]["spec"]["containers"][0]["ports"][1]
    holds(k("apply", "-f", "-", text=d), "configured")
    live = s.apps.read_namespaced_deployment("web", k.namespace)
    same([e.name for e in live.spec.template.spec.containers[0].env], ["B"])
    same([p.container_port for p in live.spec.template.spec.containers[0].ports], [80])
    holds(k("diff", "-f", "-", text=dict(d, spec=dict(d["spec"], replicas=7)), code=1), "replicas: 7")
    # server-side
    c = config_map("conf", {"k": "v"})
    holds(k("apply", "--server-side", "-f", "-", text=c), "serverside-applied")
    k("patch", "configmap", "conf", "--type", "merge", "-p", '{"data":{"k":"mine"}}')
    out = k("apply", "--server-side", "--field-manager", "robot", "-f", "-", text=c, code=1)
    holds(out, "conflict")
    holds(out, ".data.k")
    holds(k("apply", "--server-side", "--force-conflicts", "--field-manager", "robot", "-f", "-", text=c),
          "serverside-applied")
    holds(k("apply", "--server-side", "--dry-run=server", "-f", "-", text=config_map("dry")), "dry run")
    holds(k("get", "configmap", "dry", code=1), 'configmaps "dry" not found')
    # the three patches, labels, scale
    k("patch", "deployment", "web", "-p",
      '{"spec":{"template":{"spec":{"containers":[{"name":"main","image":"two:2"}]}}}}')
    k("patch", "deployment", "web", "--type", "json", "-p", '[{"op":"replace","path":"/spec/replicas","value":2}]')
    k("patch", "deployment", "web", "--type", "merge", "-p", '{"metadata":{"annotations":{"a":"b"}}}')
    k("label", "deployment", "web", "team=ml")
    k("annotate", "deployment", "web", "a-")
    holds(k("scale", "deployment", "web", "--replicas", "3"), "scaled")
    k("set", "image", "deployment/web", "main=three:3")
    out = json.loads(k("get", "deployment", "web", "-o", "json"))
    same((out["spec"]["replicas"], out["metadata"]["labels"]["team"], "a" in out["metadata"]["annotations"],
          out["spec"]["template"]["spec"]["containers"][0]["image"]), (3, "ml", False, "three:3"))
    same(k("get", "deployment", "-l", "team=ml", "-o", "name"), "deployment.apps/web\n")
    same(k("get", "deployment", "-l", "team!=ml", "-o", "name"), "")
    holds(k("describe", "deployment", "web"), "three:3")
    # as a table, with the columns of its kind, in a list and in a watch
    same(k("get", "deployment", "web").split()[:7],
         ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE", "web", "0/3"])
    watcher = k.start("get", "configmap", "-w")
    same(watcher.stdout.readline().split(), ["NAME", "DATA", "AGE"])
    same(watcher.stdout.readline().split()[:2], ["conf", "1"])
    k("create", "configmap", "seen", "--from-literal=a=b", "--from-literal=c=d")
    same(watcher.stdout.readline().split()[:2], ["seen", "2"])
    watcher.kill()
    watcher.communicate()
    k("delete", "configmap", "seen")
    # a watch in the background, wait, rollout status, logs, delete
    watcher = k.start("get", "configmap", "-w", "-o", "name")
    same(watcher.stdout.readline(), "configmap/conf\n")
    k("create", "configmap", "extra", "--from-literal=a=b")
    same(watcher.stdout.readline(), "configmap/extra\n")
    watcher.kill()
    watcher.communicate()
    # (of a kind that no operator here writes to)
    k("apply", "-f", "-", text=workload("set"))
    waiter = k.start("wait", "replicaset/set", "--for=condition=Ready", "--timeout=60s")
    s.call("PATCH", "/apis/apps/v1/namespaces/%s/replicasets/set/status" % k.namespace, {"status": {
        "readyReplicas": 1, "conditions": [{"type": "Ready", "status": "True"}]}}, "application/merge-patch+json")
    holds(waiter.communicate(timeout=60)[0], "condition met")
    same(waiter.returncode, 0)
    same(k("get", "replicaset", "--no-headers").split()[:4], ["set", "1", "0", "1"])
    k("scale", "deployment", "web", "--replicas", "0")
    holds(k("rollout", "status", "deployment/web", "--timeout=60s"), "successfully rolled out")
    folder = os.path.join(s.work, "kubectl-logs")
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "main.log"), "w") as f:
        f.write("one\ntwo\n")
    s.core.create_namespaced_pod(k.namespace, pod("logged", {"mlhost.io/log-dir": folder}))
    same(k("logs", "logged", "--tail=1"), "two\n")
    s.core.create_namespaced_event(k.namespace, {
        "metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "name": "logged", "namespace": k.namespace,
                                                      "uid": s.core.read_namespaced_pod("logged", k.namespace).metadata.uid},
        "reason": "Pulled", "message": "image is here", "type": "Normal"})
    holds(k("describe", "pod", "logged"), "image is here")
    k("create", "secret", "generic", "token", "--from-literal=k=v")
    holds(k("get", "secret", "token", "-o", "jsonpath={.data.k}"), "dg==")
    seldon = {"apiVersion": SELDON + "/v1", "kind": "SeldonDeployment", "metadata": {"name": "digits"},
              "spec": {"predictors": [{"name": "main", "graph": {"name": "m", "implementation": "SKLEARN_SERVER",
                                                                 "modelUri": "s3://m/d"}}]}}
    holds(k("apply", "-f", "-", text=seldon), "created")
    seldon["spec"]["predictors"][0]["replicas"] = 2
    holds(k("apply", "-f", "-", text=seldon), "configured")
    holds(k("get", "sdep", "-o", "name"), "digits")
    holds(k("delete", "sdep", "digits"), "deleted")
    holds(k("delete", "configmap", "--all"), "deleted")
    holds(k("delete", "namespace", k.namespace), "deleted")
    holds(k("get", "deployment", "web", code=1), "not found")


# ---- the server's end ----

@test
def restarts(s):
    s.core.create_namespaced_config_map("restart", config_map("a", {"k": "v"}))
    before = s.core.read_namespaced_config_map("a", "restart")
    s.core.create_namespaced_config_map("restart", config_map("b"))
    page = s.core.list_namespaced_config_map("restart", limit=1).metadata._continue
    lines = follow(s, "/api/v1/namespaces/restart/configmaps")
    same(events(lines, 2), [("ADDED", "a"), ("ADDED", "b")])
    started = time.monotonic()
    same(s.stop(), 0)
    same(lines.get(timeout=30), None, "the watch ends whole")
    assert time.monotonic() - started < 60
    s.start()
    after = s.core.read_namespaced_config_map("a", "restart")
    same(after.to_dict(), before.to_dict())
    # what happened before is not in the log: watchers and pages must begin anew
    version = before.metadata.resource_version
    lines = follow(s, "/api/v1/namespaces/restart/configmaps", resourceVersion=version)
    error = lines.get(timeout=30)
    same((error["type"], error["object"]["code"], error["object"]["reason"]), ("ERROR", 410, "Expired"))
    same(lines.get(timeout=30), None)
    try:
        for event in watch.Watch().stream(s.core.list_namespaced_config_map, "restart", resource_version=version):
            raise AssertionError("no 410: %r" % event)
    except ApiException as e:
        same(e.status, 410)
    refused(410, "Expired", s.core.list_namespaced_config_map, "restart", limit=1, _continue=page)
    # killed while it is written to: what it has answered is there
    done = []

    def write():
        try:
            for i in range(100000):
                s.core.create_namespaced_config_map("restart", config_map("w%d" % i))
                done.append(i)
        except Exception:  # noqa: the server has gone
            pass

    writer = threading.Thread(target=write)
    writer.start()
    until("fifty writes", lambda: len(done) >= 50)
    s.stop(signal.SIGKILL)
    writer.join()
    s.start()
    there = {c.metadata.name for c in s.core.list_namespaced_config_map("restart").items}
    same([i for i in done if "w%d" % i not in there], [])


def main():
    server = Server()
    passed = 0
    wanted = os.environ.get("TESTS", "").split()
    try:
        runs = [(t.__name__, t, (server,)) for t in tests if t is not restarts]
        versions = set()
        for number, program in enumerate(sys.argv[1:]):
            version = json.loads(subprocess.run([program, "version", "--client", "-o", "json"], stdout=subprocess.PIPE,
                                                check=True).stdout)["clientVersion"]["gitVersion"]
            if version not in versions:
                versions.add(version)
                runs.append(("kubectl " + version, kubectl_works, (server, Kubectl(server, program, number))))
        runs.append(("restarts", restarts, (server,)))
        for name, function, args in runs:
            if wanted and name.split()[0] not in wanted:
                continue
            try:
                function(*args)
                passed += 1
            except Exception:
                failures.append(name)
                print("FAIL", name)
                traceback.print_exc(file=sys.stdout)
    finally:
        if server.process.poll() is None:
            server.stop()
        log = open(os.path.join(server.work, "stderr")).read()
        if failures or "traceback" in log:
            print("\n".join(line for line in log.splitlines() if " ms" not in line)[-4000:])
        if "stack traceback" in log:
            failures.append("the server's log has a traceback")
        shutil.rmtree(server.work)
    print("%d passed, %d failed" % (passed, len(failures)))
    return 1 if failures else 0


sys.exit(main())
