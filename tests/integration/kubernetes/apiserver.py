#!/usr/bin/env python3
"""usage: apiserver.py KUBE_APISERVER. Starts etcd and the API server on loopback, and runs the client's scripts on them."""
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
PROGRAM = os.path.abspath(os.environ.get("MLHOST", "build/mlhost"))
passed = failed = 0


def check(name, condition, detail=""):
    global passed, failed
    passed, failed = passed + bool(condition), failed + (not condition)
    if not condition:
        print(f"FAIL {name}: {detail}")


def sh(*words):
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Cluster:
    def __init__(self, folder, server):
        self.folder, self.processes = folder, []
        self.etcd, self.port, peer = free_port(), free_port(), free_port()
        os.chdir(folder)
        sh("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.crt")
        for name, subject in (("admin", "/O=system:masters/CN=admin"), ("nobody", "/CN=nobody")):
            sh("openssl", "req", "-newkey", "rsa:2048", "-nodes", "-subj", subject, "-keyout", name + ".key", "-out", name + ".csr")
            sh("openssl", "x509", "-req", "-in", name + ".csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
               "-out", name + ".crt")
        sh("openssl", "genrsa", "-out", "sa.key", "2048")
        with open("tokens.csv", "w", encoding="utf-8") as file:
            file.write('token-of-ci,ci,1,"system:masters"\n')
        self.start("etcd", "etcd", "--data-dir", folder + "/etcd", "--listen-client-urls", f"http://127.0.0.1:{self.etcd}",
                   "--advertise-client-urls", f"http://127.0.0.1:{self.etcd}", "--listen-peer-urls", f"http://127.0.0.1:{peer}")
        # No watch cache: what etcd has compacted is gone, as it is after hours in a real cluster.
        self.start("apiserver", server, "--etcd-servers", f"http://127.0.0.1:{self.etcd}", "--secure-port", str(self.port),
                   "--bind-address", "127.0.0.1", "--cert-dir", folder + "/certs", "--client-ca-file", "ca.crt", "--token-auth-file",
                   "tokens.csv", "--service-account-issuer", "https://local", "--service-account-key-file", "sa.key",
                   "--service-account-signing-key-file", "sa.key", "--service-cluster-ip-range", "10.0.0.0/24",
                   "--authorization-mode", "RBAC", "--watch-cache=false")
        self.wait_ready()

    def start(self, name, *words):
        with open(name + ".log", "wb") as log:
            self.processes.append(subprocess.Popen(words, stdout=log, stderr=log))

    def wait_ready(self):
        context = ssl._create_unverified_context()
        context.load_cert_chain("admin.crt", "admin.key")
        end = time.monotonic() + 120
        while time.monotonic() < end and self.processes[-1].poll() is None:
            try:
                with urllib.request.urlopen(f"https://127.0.0.1:{self.port}/readyz", context=context, timeout=5) as reply:
                    if reply.status == 200:
                        return
            except OSError:
                pass
            time.sleep(0.3)
        with open("apiserver.log", encoding="utf-8", errors="replace") as log:
            raise RuntimeError("the API server does not get ready: " + log.read()[-1500:])

    def compact(self):
        """etcd forgets all revisions but the newest."""
        def ask(path, body):
            request = urllib.request.Request(f"http://127.0.0.1:{self.etcd}/v3/{path}", json.dumps(body).encode())
            with urllib.request.urlopen(request, timeout=10) as reply:
                return json.load(reply)
        revision = ask("kv/range", {"key": "AA=="})["header"]["revision"]
        ask("kv/compaction", {"revision": revision, "physical": True})

    def kubeconfig(self, user):
        return json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": f"https://127.0.0.1:{self.port}", "certificate-authority": "certs/apiserver.crt"}}],
            "users": [{"name": "u", "user": user}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "t"}}]})

    def stop(self):
        for process in reversed(self.processes):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()


def run(folder, script, config):
    with open(folder + "/k.lua", "w", encoding="utf-8") as file:
        file.write(script)
    with open(folder + "/kube.yaml", "w", encoding="utf-8") as file:
        file.write(config)
    env = {k: v for k, v in os.environ.items() if not k.startswith(("KUBE", "MLHOST_PROFILE"))}
    done = subprocess.run([PROGRAM, "run", "k.lua", "--output", "json"], cwd=folder, env={**env, "KUBECONFIG": folder + "/kube.yaml"},
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=180, check=False)
    for line in done.stdout.splitlines():
        event = json.loads(line) if line.startswith("{") else {}
        if event.get("t") == "stage_end":
            return event.get("output"), event.get("error") or done.stdout
    return None, done.stdout


RESOURCES = """
local k8s, seldon = require "k8s", require "seldon"
stage "k" { timeout = "2m", run = function()
  local cluster, out = k8s.connect(), {}
  cluster:apply { apiVersion = "v1", kind = "Namespace", metadata = { name = "t" } }
  cluster:apply [[
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: seldondeployments.machinelearning.seldon.io}
spec:
  group: machinelearning.seldon.io
  names: {kind: SeldonDeployment, plural: seldondeployments, singular: seldondeployment, shortNames: [sdep]}
  scope: Namespaced
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, x-kubernetes-preserve-unknown-fields: true}
          status: {type: object, x-kubernetes-preserve-unknown-fields: true}
]]
  -- a kind that only discovery knows
  cluster:wait("customresourcedefinitions.apiextensions.k8s.io", "seldondeployments.machinelearning.seldon.io",
    "condition=Established", { timeout = "60s" })
  local s = seldon.connect { cluster = cluster }
  local function applied(image) return s:apply(seldon.deployment { name = "digits", image = image }).changed end
  out.changed = { applied "x/y:1", applied "x/y:1", applied "x/y:2" }
  cluster:patch("sdep", "digits", { status = { state = "Creating" } }, { subresource = "status" })
  out.state = s:get("digits").status.state
  for i = 1, 7 do
    cluster:apply { apiVersion = "v1", kind = "ConfigMap", metadata = { name = "n" .. i, labels = { many = "yes" } } }
  end
  local raw = cluster:request("GET", "/api/v1/namespaces/t/configmaps?labelSelector=many&limit=3")
  out.first_page, out.more = #raw.items, raw.metadata.continue ~= nil
  local list, version = cluster:list("cm", { labels = "many" })
  out.listed, out.version = #list, version
  return out
end }
"""

GONE = """
local k8s = require "k8s"
stage "k" { timeout = "1m", run = function()
  local cluster, names = k8s.connect(), {}
  for event in cluster:watch("cm", { resource_version = "%s", labels = "many", timeout = "5s" }) do
    names[#names + 1] = event.type .. " " .. event.object.metadata.name
    if #names == 7 then break end
  end
  return { names = names }
end }
"""

FORBIDDEN = """
local k8s = require "k8s"
stage "k" { timeout = "1m", run = function()
  local _, err = try(function() return k8s.connect():get("secret", "s") end)
  return { code = err.code, message = err.message }
end }
"""


def tests(cluster, folder):
    admin = cluster.kubeconfig({"client-certificate": "admin.crt", "client-key": "admin.key"})
    out, told = run(folder, RESOURCES, admin)
    if not out:
        check("resources", False, told)
        return
    check("a custom resource is applied once per change", out["changed"] == [True, False, True], out)
    check("status", out["state"] == "Creating", out)
    check("pages", out["first_page"] == 3 and out["more"] and out["listed"] == 7, out)
    with open(HERE + "/api.lua", encoding="utf-8") as file:
        result, told = run(folder, file.read(), cluster.kubeconfig({"token": "token-of-ci"}))
    wanted = {"selected": 1, "conflict": "conflict", "owner": True, "removed": True, "dry": "dry", "not_there": True, "patched": "4",
              "merged": "5", "lock": "conflict", "again": "exists", "waited": "yes", "late": "timeout", "gone": True}
    for key, value in wanted.items():
        check(key, result and result.get(key) == value, told if not result else result.get(key))
    cluster.compact()
    result, told = run(folder, GONE % "1", admin)
    check("410 Gone: listed anew, nothing lost", result and sorted(result["names"]) == [f"ADDED n{i}" for i in range(1, 8)], result or told)
    result, told = run(folder, FORBIDDEN, cluster.kubeconfig({"client-certificate": "nobody.crt", "client-key": "nobody.key"}))
    check("RBAC says who may not", result and result["code"] == "forbidden" and 'User "nobody" cannot get' in result["message"], result or told)
    result, told = run(folder, FORBIDDEN, cluster.kubeconfig({"token": "nobody's"}))
    check("a wrong token", result and result["code"] == "unauthorized", result or told)


def main():
    with tempfile.TemporaryDirectory() as folder:
        with open(folder + "/mlhost.yaml", "w", encoding="utf-8") as file:
            file.write("profile: cluster\nprofiles: { cluster: {} }\n")
        cluster = None
        try:
            cluster = Cluster(folder, os.path.abspath(sys.argv[1]))
            tests(cluster, folder)
        except Exception as error:  # counted; the processes are stopped all the same
            check("the API server", False, f"{type(error).__name__}: {error}")
        finally:
            os.chdir("/")
            if cluster:
                cluster.stop()
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed != 0)


main()
