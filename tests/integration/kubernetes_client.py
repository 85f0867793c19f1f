#!/usr/bin/env python3
"""The Kubernetes client: who it is and where it goes (kubeconfigs, certificates, tokens, plugins, a profile) against a TLS
server that asks, and what it does against the embedded API. Ends with "N passed, N failed"."""
import base64
import contextlib
import http.server
import json
import os
import ssl
import stat
import subprocess
import sys
import tempfile
import threading

PROGRAM = os.path.abspath(os.environ.get("MLHOST", "build/mlhost"))
passed = failed = 0


def check(name, condition, detail=""):
    global passed, failed
    passed, failed = passed + bool(condition), failed + (not condition)
    if not condition:
        print(f"FAIL {name}: {detail}")


def sh(*words, **kw):
    return subprocess.run(words, check=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kw).stdout


def certificates(folder):
    """A CA, a server's and a client's certificate."""
    def path(name):
        return os.path.join(folder, name)
    sh("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=ca", "-keyout", path("ca.key"),
       "-out", path("ca.crt"))
    for name, subject, extension in (("server", "/CN=localhost", "subjectAltName=IP:127.0.0.1,DNS:localhost"),
                                     ("client", "/O=system:masters/CN=ci", "extendedKeyUsage=clientAuth")):
        sh("openssl", "req", "-newkey", "rsa:2048", "-nodes", "-subj", subject, "-keyout", path(name + ".key"), "-out",
           path(name + ".csr"))
        with open(path("ext"), "w", encoding="utf-8") as file:
            file.write(extension)
        sh("openssl", "x509", "-req", "-in", path(name + ".csr"), "-CA", path("ca.crt"), "-CAkey", path("ca.key"),
           "-CAcreateserial", "-days", "2", "-extfile", path("ext"), "-out", path(name + ".crt"))
    return path


class Handler(http.server.BaseHTTPRequestHandler):
    """Says who asked; a stale bearer token is refused as the API server refuses it."""
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        certificate = self.connection.getpeercert() or {}
        common = [value for part in certificate.get("subject", ()) for key, value in part if key == "commonName"]
        token = self.headers.get("Authorization", "")
        self.server.asked.append((self.path, token))
        if token == "Bearer stale":
            return self.give(401, {"kind": "Status", "status": "Failure", "reason": "Unauthorized", "message": "Unauthorized", "code": 401})
        if "/secrets/" in self.path:
            return self.give(403, {"kind": "Status", "status": "Failure", "reason": "Forbidden", "code": 403,
                                   "message": 'secrets "s" is forbidden: User "ci" cannot get resource "secrets"'})
        if self.path.startswith("/api/v1/namespaces/paged/configmaps"):
            return self.page()
        return self.give(200, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "who", "namespace": self.path.split("/")[4]},
                               "data": {"user": common[0] if common else "", "authorization": token}})

    def page(self):
        """Three pages; the second one's continuation expires once."""
        at = int((self.path.split("continue=") + ["0"])[1].split("&")[0])
        if at == 2 and not self.server.expired:
            self.server.expired = True
            return self.give(410, {"kind": "Status", "status": "Failure", "reason": "Expired", "code": 410, "message": "too old"})
        meta = {"resourceVersion": "7", **({"continue": str(at + 1)} if at < 2 else {})}
        return self.give(200, {"kind": "ConfigMapList", "apiVersion": "v1", "metadata": meta,
                               "items": [{"metadata": {"name": f"c{at}"}}]})

    def give(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def api_server(path):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path("server.crt"), path("server.key"))
    context.load_verify_locations(path("ca.crt"))
    context.verify_mode = ssl.CERT_OPTIONAL
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.asked, server.expired = [], False
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


SCRIPT = """
local k8s = require "k8s"
pipeline "k" { permissions = { exec = { "%(exec)s" }, read = { "." } } }
stage "k" { timeout = "1m", run = function()
  local cluster = k8s.connect { %(connect)s }
  local object = cluster:get("cm", "who")
  return { namespace = cluster.namespace, user = object.data.user, authorization = object.data.authorization,
           there = object.metadata.namespace }
end }
"""


class Workspace:
    def __init__(self, folder):
        self.folder = folder
        self.write("mlhost.yaml", "profile: cluster\nprofiles: { cluster: {}, local: {} }\n")

    def write(self, name, text, mode=0o644):
        path = os.path.join(self.folder, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(path, mode)
        return path

    def run(self, script, env=None, *options):
        self.write("k.lua", script)
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("KUBE", "MLHOST_PROFILE"))}
        done = subprocess.run([PROGRAM, "run", "k.lua", "--output", "json", *options], cwd=self.folder,
                              env={**clean, "HOME": self.folder, **(env or {})}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=120, check=False)
        for line in done.stdout.splitlines():
            event = json.loads(line) if line.startswith("{") else {}
            if event.get("t") == "stage_end":
                return event.get("output"), event.get("error"), done.stdout
        return None, None, done.stdout

    def ask(self, env=None, connect="", permit="none", options=()):
        return self.run(SCRIPT % {"exec": permit, "connect": connect}, env, *options)


def kubeconfig(server, cluster, user, namespace="team"):
    return json.dumps({"apiVersion": "v1", "kind": "Config", "current-context": "main",
                       "clusters": [{"name": "c", "cluster": {"server": f"https://127.0.0.1:{server.server_address[1]}", **cluster}}],
                       "users": [{"name": "u", "user": user}],
                       "contexts": [{"name": "main", "context": {"cluster": "c", "user": "u", "namespace": namespace}},
                                    {"name": "other", "context": {"cluster": "c", "user": "u", "namespace": "elsewhere"}}]})


def encoded(path):
    with open(path, "rb") as file:
        return base64.b64encode(file.read()).decode()


def identities(work, path, server):
    trusted = {"certificate-authority": path("ca.crt")}
    config = work.write("by-file.yaml", kubeconfig(server, trusted, {"client-certificate": path("client.crt"), "client-key": path("client.key")}))
    out, err, told = work.ask({"KUBECONFIG": config})
    check("a client certificate from files", out and out["user"] == "ci" and out["namespace"] == out["there"] == "team", err or told)
    inline = work.write("inline.yaml", kubeconfig(server, {"certificate-authority-data": encoded(path("ca.crt"))},
                                                  {"client-certificate-data": encoded(path("client.crt")),
                                                   "client-key-data": encoded(path("client.key"))}))
    out, err, told = work.ask({"KUBECONFIG": inline})
    check("a client certificate from data", out and out["user"] == "ci", err or told)
    out, err, told = work.ask({"KUBECONFIG": inline}, 'context = "other"')
    check("another context", out and out["namespace"] == "elsewhere", err or told)
    out, err, told = work.ask({"KUBECONFIG": inline}, 'context = "mian"')
    check("an unknown context is said, with the near one", err and "main" in err.get("hint", ""), err or told)
    token = work.write("token.yaml", kubeconfig(server, trusted, {"token": "abc.def"}))
    out, err, told = work.ask({"KUBECONFIG": token})
    # What a script is told of a secret is masked in all that leaves the host.
    check("a token", ("/api/v1/namespaces/team/configmaps/who", "Bearer abc.def") in server.asked and "abc.def" not in told, err or told)
    work.write("secret.txt", "from-file\n")
    config = work.write("tokenfile.yaml", kubeconfig(server, trusted, {"tokenFile": "secret.txt"}))
    work.ask({"KUBECONFIG": config})
    check("a token file beside the kubeconfig", server.asked[-1][1] == "Bearer from-file", server.asked[-1])
    config = work.write("basic.yaml", kubeconfig(server, trusted, {"username": "u", "password": "p"}))
    work.ask({"KUBECONFIG": config})
    check("basic", server.asked[-1][1] == "Basic " + base64.b64encode(b"u:p").decode(), server.asked[-1])
    for name, holds in (("localhost", True), ("other.test", False)):
        config = work.write("name.yaml", kubeconfig(server, {**trusted, "tls-server-name": name}, {"token": "t1"}))
        out, err, told = work.ask({"KUBECONFIG": config})
        check(f"tls-server-name {name}", bool(out) == holds and (holds or "certificate" in str(err)), err or told)
    config = work.write("insecure.yaml", kubeconfig(server, {}, {"token": "t1"}))
    out, err, told = work.ask({"KUBECONFIG": config})
    check("an unknown CA is refused", err and "certificate" in err["message"].lower(), err or told)
    config = work.write("insecure.yaml", kubeconfig(server, {"insecure-skip-tls-verify": True}, {"token": "t1"}))
    check("unless the kubeconfig says so", work.ask({"KUBECONFIG": config})[0], "")
    first = work.write("first.yaml", json.dumps({"kind": "Config", "current-context": "other"}))
    out, err, told = work.ask({"KUBECONFIG": f"{first}:/nowhere:{inline}"})
    check("several files: the first that says something counts", out and out["namespace"] == "elsewhere", err or told)
    os.makedirs(os.path.join(work.folder, ".kube"), exist_ok=True)
    os.replace(work.write("home.yaml", kubeconfig(server, trusted, {"token": "home"})), os.path.join(work.folder, ".kube/config"))
    work.ask()
    check("~/.kube/config", server.asked[-1][1] == "Bearer home", server.asked[-1])
    os.unlink(os.path.join(work.folder, ".kube/config"))
    out, err, told = work.ask()
    check("no cluster at all says what to do", err and "KUBECONFIG" in err.get("hint", ""), err or told)
    work.write("mlhost.yaml", "profile: cluster\nprofiles: { cluster: { k8s: { kubeconfig: inline.yaml, context: other } } }\n")
    out, err, told = work.ask()
    check("the profile's kubeconfig and context", out and out["namespace"] == "elsewhere", err or told)
    work.write("mlhost.yaml", "profile: cluster\nprofiles: { cluster: { k8s: { url: 'https://127.0.0.1:%d', ca: %s, namespace: profiled,\n"
               "  auth: { type: bearer, token: { env: K_TOKEN } } } } }\n" % (server.server_address[1], path("ca.crt")))
    out, err, told = work.ask({"K_TOKEN": "of-the-profile"})
    check("the profile's own address", server.asked[-1][1] == "Bearer of-the-profile" and out and out["namespace"] == "profiled", err or told)
    work.write("mlhost.yaml", "profile: cluster\nprofiles: { cluster: {}, local: {} }\n")
    out, err, told = work.ask({}, 'kubeconfig = "inline.yaml"')
    check("a script's own kubeconfig needs the permission net", err and err["code"] == "denied", err or told)


def plugins(work, path, server):
    plugin = work.write("login", """#!/usr/bin/env python3
import json, os, sys
info = json.loads(os.environ["KUBERNETES_EXEC_INFO"])
with open(os.environ["COUNT"], "a") as file:
    file.write("x")
calls = os.path.getsize(os.environ["COUNT"])
token = os.environ.get("TOKEN") or ("stale" if calls == 1 else "fresh")
assert sys.argv[1:] == ["get-token"] and info["kind"] == "ExecCredential", sys.argv
print(json.dumps({"apiVersion": info["apiVersion"], "kind": "ExecCredential",
                  "status": {"token": token, "expirationTimestamp": "2199-01-01T00:00:00Z"}}))
""", stat.S_IRWXU)
    user = {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "./login", "args": ["get-token"],
                     "interactiveMode": "Never", "env": [{"name": "TOKEN", "value": "of-the-plugin"}]}}
    config = work.write("exec.yaml", kubeconfig(server, {"certificate-authority": path("ca.crt")}, user))
    count = os.path.join(work.folder, "count")
    out, err, told = work.ask({"KUBECONFIG": config, "COUNT": count})
    check("a plugin needs the permission exec", err and err["code"] == "denied" and "login" in err["message"], err or told)
    out, err, told = work.ask({"KUBECONFIG": config, "COUNT": count}, permit=plugin)
    check("a credential plugin", server.asked[-1][1] == "Bearer of-the-plugin" and "of-the-plugin" not in told, err or told)
    check("asked once", os.path.getsize(count) == 1, "")
    user["exec"]["env"] = []
    config = work.write("exec.yaml", kubeconfig(server, {"certificate-authority": path("ca.crt")}, user))
    os.unlink(count)
    out, err, told = work.ask({"KUBECONFIG": config, "COUNT": count}, permit=plugin)
    check("a refused credential is asked for again", [token for _, token in server.asked[-2:]] == ["Bearer stale", "Bearer fresh"], err or told)
    user["exec"].update(command="no-such-login", installHint="brew install it")
    config = work.write("exec.yaml", kubeconfig(server, {"certificate-authority": path("ca.crt")}, user))
    out, err, told = work.ask({"KUBECONFIG": config, "COUNT": count}, permit="no-such-login")
    check("a missing plugin says how to get it", err and "brew install it" in err.get("hint", "") + err["message"], err or told)


SCRIPTS_OWN = """
local k8s, exec = require "k8s", require "exec"
pipeline "own" { permissions = { net = { "127.0.0.1" }, exec = { "ln", "login", "./login" }, write = { "." } } }
stage "k" { run = function()
  local cluster, err = try(k8s.connect, { kubeconfig = "%s"%s })
  if cluster then
    %s
    local _
    _, err = try(cluster.get, cluster, "pod", "p")
  end
  return { code = err and err.code, message = err and err.message, connected = cluster ~= nil }
end }
"""


def scripts_own(work, path, server):
    """What a script's kubeconfig names is had with the script's rights, not the operator's."""
    trusted = {"certificate-authority-data": encoded(path("ca.crt"))}

    def ask(name, user, more="", between="", cluster=None):
        name = os.path.basename(work.write(name, kubeconfig(server, {**trusted, **(cluster or {})}, user)))
        before = len(server.asked)
        out, err, told = work.run(SCRIPTS_OWN % (name, more, between), {"TOKEN": "operators"})
        return out or {}, [token for _, token in server.asked[before:]], err or told

    out, asked, told = ask("own.yaml", {"token": "inline"})
    check("a script's own kubeconfig, with net granted", asked == ["Bearer inline"] and out["connected"], told)
    work.write("own.txt", "in-the-workspace")
    out, asked, told = ask("own.yaml", {"tokenFile": "own.txt"})
    check("with a token file that it may read", asked == ["Bearer in-the-workspace"], (asked, told))
    with tempfile.TemporaryDirectory() as outside:
        secret = os.path.join(outside, "operators.txt")
        with open(secret, "w", encoding="utf-8") as file:
            file.write("operators-token")
        os.chmod(outside, 0o755)
        for key in ("tokenFile", "client-certificate", "client-key"):
            out, asked, told = ask("own.yaml", {key: secret})
            check(f"{key} outside of read", out.get("code") == "denied" and not asked, told)
        out, asked, told = ask("own.yaml", {"token": "t"}, cluster={"certificate-authority-data": "", "certificate-authority": secret})
        check("certificate-authority outside of read", out.get("code") == "denied" and not asked, told)
        link = os.path.join(work.folder, "link.txt")
        os.symlink(secret, link)
        out, asked, told = ask("own.yaml", {"tokenFile": "link.txt"})
        check("a link to the outside", out.get("code") == "denied" and not asked, told)
        os.unlink(link)
        work.write("later.txt", "at-first")
        out, asked, told = ask("own.yaml", {"tokenFile": "later.txt"}, between=f'exec {{ "ln", "-sf", "{secret}", "later.txt" }}')
        check("a link that takes the file's place later", "operators" not in str(asked) and out.get("code") and out["connected"], (out, asked, told))
        operators = os.path.join(outside, "config")
        with open(operators, "w", encoding="utf-8") as file:
            file.write(kubeconfig(server, trusted, {"token": "operators-inline"}))
        out, err, told = work.run(SCRIPTS_OWN % ("none.yaml:" + operators, "", ""))
        check("a list of paths is one path", out and out["code"] == "not_found" and "operators" not in str(server.asked), err or told)
    reply = '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"%s-$TOKEN-$MINE"}}'
    work.write("login", "#!/bin/sh\ncat <<END\n" + reply % "plugin" + "\nEND\n", 0o755)

    def plugin(command):
        return {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": command, "interactiveMode": "Never",
                         "env": [{"name": "MINE", "value": "own"}]}}
    out, asked, told = ask("own.yaml", plugin("./login"))
    check("its credential plugin runs, without the operator's variables", asked == ["Bearer plugin--own"], (asked, told))
    out, asked, told = ask("own.yaml", plugin("sh"))
    check("a plugin that is not granted does not run", out.get("code") == "denied" and "sh" in out.get("message", "") and not asked, told)
    out, asked, told = ask("own.yaml", {"token": "t"}, cluster={"proxy-url": "http://127.0.0.2:1"})
    check("its proxy needs the permission net", out.get("code") == "denied" and not asked, told)
    out, asked, told = ask("own.yaml", {"token": "t"}, more=', token = "mine"')
    check("the script's token is in place of its kubeconfig's user", asked == ["Bearer mine"], (asked, told))
    config = work.write("operators.yaml", kubeconfig(server, trusted, {"token": "operators-user"}))
    for given, header in (('token = "mine"', "Bearer mine"), ('auth = { type = "none" }', "")):
        out, err, told = work.ask({"KUBECONFIG": config}, given)
        check(f"{given} beside the operator's kubeconfig", server.asked[-1][1] == header and out, err or told)


def replies(work, path, server):
    config = work.write("reply.yaml", kubeconfig(server, {"certificate-authority": path("ca.crt")}, {"token": "t"}))
    out, err, told = work.run("""
local k8s = require "k8s"
stage "k" { run = function()
  local cluster = k8s.connect()
  local _, err = try(cluster.get, cluster, "secret", "s")
  local list, version = cluster:list("cm", { namespace = "paged" })
  local names = {}
  for i, one in ipairs(list) do names[i] = one.metadata.name end
  return { code = err.code, message = err.message, names = names, version = version }
end }
""", {"KUBECONFIG": config})
    check("a Status object becomes an error", out and out["code"] == "forbidden" and "cannot get resource" in out["message"], err or told)
    check("pages, begun again when a continuation has expired", out and out["names"] == ["c0", "c1", "c2"] and out["version"] == "7", err or told)


def embedded(work):
    work.write("mlhost.yaml", "profile: local\n")
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "kubernetes/api.lua"), encoding="utf-8") as file:
        script = file.read()
    try:
        out, err, told = work.run(script)
        if not out:
            check("the embedded API", False, err or told)
            return
        wanted = {"selected": 1, "conflict": "conflict", "owner": True, "removed": True, "dry": "dry", "not_there": True, "patched": "4",
                  "merged": "5", "lock": "conflict", "again": "exists", "waited": "yes", "late": "timeout", "gone": True}
        for key, value in wanted.items():
            check(f"embedded: {key}", out.get(key) == value, out.get(key))
        check("embedded: watch", sorted(out["events"][:2]) == ["ADDED a", "ADDED b"] and out["events"][2] == "DELETED b", out["events"])
        check("embedded: a watch from long ago", out["old"] >= 1, out["old"])
        check("embedded: an unknown kind", "configmap" in (out.get("near") or "").lower(), out.get("near"))
    finally:
        subprocess.run([PROGRAM, "serve", "--stop"], cwd=work.folder, stdout=subprocess.DEVNULL, check=False)


def main():
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as keys:
        work, path = Workspace(folder), certificates(keys)
        with api_server(path) as server:
            for part in (identities, plugins, scripts_own, replies):
                try:
                    part(work, path, server)
                except Exception as error:  # counted, the rest goes on
                    check(part.__name__, False, f"{type(error).__name__}: {error}")
        try:
            embedded(work)
        except Exception as error:
            check("embedded", False, f"{type(error).__name__}: {error}")
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed != 0)


main()
