#!/usr/bin/env python3
"""The distribution client (host/oci/remote*.c, lua/registry/remote.lua): against docker-registry with TLS, passwords and signed tokens,
against mlhost's own registry, and against a registry that does what hosted ones do and docker-registry does not (quirky_registry.py).
$MLHOST is the program. Prints "N passed, N failed" last."""
import base64
import email.utils
import hashlib
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import traceback

from quirky_registry import INDEX, Proxy, Quirky

HERE = os.path.dirname(os.path.abspath(__file__))
PROGRAM = os.path.abspath(os.environ.get("MLHOST", os.path.join(HERE, "../../build/mlhost")))
BLOB = 6_000_000  # of random bytes: larger than the smallest piece
passed = failed = 0
BUILD = 'local image = registry.build { context = "ctx", name = "t", tag = "1" }\n'


def check(name, good, *more):
    global passed, failed
    if good:
        passed += 1
        print("ok   " + name)
    else:
        failed += 1
        print("FAIL " + name, *more, sep="\n     ")


class Ran:
    def __init__(self, status, log, shown):
        self.status, self.log, self.shown = status, log, shown


class Workspace:
    def __init__(self, folder):
        self.folder = folder
        self.env = {"HOME": os.path.join(folder, "home"), "DOCKER_CONFIG": os.path.join(folder, "docker")}
        for name in ("ctx", "home", "docker"):
            os.makedirs(os.path.join(folder, name))
        with open(os.path.join(folder, "ctx/blob"), "wb") as out:
            out.write(random.Random(3).randbytes(BLOB))
        with open(os.path.join(folder, "ctx/small"), "w") as out:
            out.write("small\n")
        self.write("ctx/Dockerfile", "FROM scratch\nCOPY blob /blob\nCOPY small /small\n")
        self.write("model.txt", "a model\n")

    def write(self, name, text):
        path = os.path.join(self.folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as out:
            out.write(text)

    def forget(self):
        """The build cache is gone."""
        shutil.rmtree(os.path.join(self.folder, ".mlhost/cache"), ignore_errors=True)

    def run(self, body, profile=None, env=None, hosts=()):
        """A stage; show(NAME, VALUE) gives what .shown has. profile: mlhost.yaml's registry."""
        self.write("mlhost.yaml", json.dumps({"profile": "p", "profiles": {"p": {"registry": profile}}} if profile else {}))
        granted = ", ".join(json.dumps(h) for h in ["127.0.0.1", "localhost", *hosts])
        self.write("t.lua", 'local registry, fs, json = require "registry", require "fs", require "json"\n'
                   f'pipeline "t" {{ permissions = {{ net = {{ {granted} }}, write = {{ "shown", "files" }} }} }}\n'
                   'local function show(name, value) fs.write("shown/" .. name, json.encode(value)) end\n'
                   'stage "s" { run = function()\n' + body + "\nend }\n")
        for name in ("shown", "files"):
            shutil.rmtree(os.path.join(self.folder, name), ignore_errors=True)
        os.makedirs(os.path.join(self.folder, "shown"))
        ran = subprocess.run([PROGRAM, "run", "t.lua", "--output", "plain"], cwd=self.folder, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, text=True, timeout=120, env={**os.environ, **self.env, **(env or {})})
        shown = {}
        for name in os.listdir(os.path.join(self.folder, "shown")):
            with open(os.path.join(self.folder, "shown", name)) as file:
                shown[name] = json.load(file)
        return Ran(ran.returncode, ran.stdout, shown)

    def login(self, entries, file="docker/config.json", **more):
        auths = {key: {"auth": base64.b64encode(f"{user}:{word}".encode()).decode()} for key, (user, word) in entries.items()}
        self.write(file, json.dumps({"auths": auths, **more}))

    def logout(self):
        for file in ("docker/config.json", "auth.json"):
            if os.path.exists(os.path.join(self.folder, file)):
                os.unlink(os.path.join(self.folder, file))


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


class DockerRegistry:
    def __init__(self, folder, name, extra="", tls=""):
        config = os.path.join(folder, name + ".yml")
        self.log = open(os.path.join(folder, name + ".log"), "w")
        for _ in range(5):  # another process may take the port first
            self.port = free_port()
            self.host = f"127.0.0.1:{self.port}"
            with open(config, "w") as out:
                out.write("version: 0.1\nlog: { level: error, accesslog: { disabled: true } }\n"
                          f"storage: {{ filesystem: {{ rootdirectory: {folder}/{name} }}, delete: {{ enabled: true }} }}\n"
                          f'http: {{ addr: "{self.host}"{tls} }}\n{extra}\n')
            self.process = subprocess.Popen(["docker-registry", "serve", config], stdout=self.log, stderr=self.log)
            if starts(self.port, self.process):
                return
        raise SystemExit("it did not start: " + open(self.log.name).read())

    def close(self):
        self.process.terminate()
        self.process.wait()
        self.log.close()


def starts(port, process):
    for _ in range(1200):
        if process.poll() is not None:
            break
        try:
            socket.create_connection(("127.0.0.1", port), 5).close()
            return True
        except OSError:
            time.sleep(0.05)
    return False


def digests(quirky):
    """Every blob is what its digest says; the number of them."""
    return all("sha256:" + hashlib.sha256(b).hexdigest() == d for (_, d), b in quirky.blobs.items()) and len(quirky.blobs)


# ---- uploads ----

def uploads(ws):
    quirky = Quirky(relative=True)
    ran = ws.run(BUILD + f'image:push {{ to = "{quirky.host}/a/b:1" }}')
    check("Locations that are relative, with a query that must not get lost", ran.status == 0 and digests(quirky) == 3, ran.log)
    quirky.close()

    quirky = Quirky(relative=True, patch_status=201)
    ran = ws.run(f'registry.build {{ context = "ctx", name = "t", push = "{quirky.host}/a/b:1", cache = false }}')
    patches = quirky.seen("PATCH")
    check("a layer that is sent while it is made: one PATCH without a range, 201 is as good as 202",
          ran.status == 0 and digests(quirky) == 3 and len(patches) >= 1 and not any("content-range" in p.headers for p in patches),
          ran.log, patches)
    quirky.close()

    quirky = Quirky(cut_after=[1_000_000])
    ran = ws.run(BUILD + f'image:push {{ to = "{quirky.host}/a/b:1" }}')
    patches = [p for p in quirky.seen("PATCH") if "content-range" in p.headers]
    check("an upload that breaks off goes on where it is", ran.status == 0 and digests(quirky) == 3 and len(patches) == 1 and
          int(patches[0].headers["content-range"].split("-")[0]) > 0 and patches[0].size < BLOB, ran.log, quirky.requests)
    check("in the same session", quirky.begun == 3, quirky.seen("POST"))
    quirky.close()

    quirky = Quirky(cut_after=[100_000], max_chunk=4 << 20)
    ran = ws.run(BUILD + f'image:push {{ to = "{quirky.host}/a/b:1" }}')
    sizes = [p.size for p in quirky.seen("PATCH") if "content-range" in p.headers]
    check("a registry that takes no large pieces gets smaller ones", ran.status == 0 and digests(quirky) == 3 and
          sizes[0] > 4 << 20 and len(sizes) == 3 and max(sizes[1:]) == 4 << 20, ran.log, sizes)
    quirky.close()

    quirky = Quirky(cut_after=[100_000], max_chunk=5_000_000, min_chunk=5_000_000)
    ran = ws.run(BUILD + f'image:push {{ to = "{quirky.host}/a/b:1" }}')
    sizes = [p.size for p in quirky.seen("PATCH") if "content-range" in p.headers]
    check("but none smaller than it wants (OCI-Chunk-Min-Length), except for the last", ran.status == 0 and digests(quirky) == 3 and
          len(sizes) == 3 and sizes[1] == 5_000_000, ran.log, sizes)
    quirky.close()

    quirky = Quirky(cut_after=[100_000, 100_000, 100_000])
    ran = ws.run(BUILD + f'image:push {{ to = "{quirky.host}/a/b:1" }}')
    check("one that breaks off again and again, but advances", ran.status == 0 and digests(quirky) == 3, ran.log)
    quirky.close()

    quirky = Quirky(cut_after=[0] * 100)
    ran = ws.run(BUILD + f'image:push {{ to = "{quirky.host}/a/b:1" }}')
    check("one that never advances is an error, and its sessions are deleted", ran.status != 0 and "blob sha256:" in ran.log and
          quirky.seen("DELETE", "/uploaded/") and not quirky.tags, ran.log, quirky.seen("DELETE"))
    quirky.close()

    quirky = Quirky(mounts=False)
    ran = ws.run(BUILD + f'image:push {{ to = "{quirky.host}/a/b:1" }}\nshow("p", image:push {{ to = "{quirky.host}/c:1", from = "a/b" }})')
    check("a mount that is refused is asked for without", ran.status == 0 and ran.shown["p"]["sent"] == 3 and
          len(quirky.seen("POST", "mount=.*from=a/b")) == 3, ran.log)
    quirky.close()

    quirky = Quirky()
    ran = ws.run(BUILD + f'image:push {{ to = "{quirky.host}/base:1" }}')
    ws.write("ctx/Dockerfile.on", f"FROM {quirky.host}/base:1\nCOPY small /more\n")
    ran = ws.run('local image = registry.build { context = "ctx", dockerfile = "ctx/Dockerfile.on" }\n'
                 f'show("p", image:push {{ to = "{quirky.host}/derived:1" }})')
    check("layers of the base image are mounted from its repository", ran.status == 0 and ran.shown["p"]["sent"] <= 2 and
          len(quirky.seen("POST", "^/v2/derived/.*mount=.*from=base$")) == 2, ran.log, quirky.seen("POST"))
    quirky.close()


# ---- who asks ----

def authentication(ws):
    quirky = Quirky(auth="basic")
    ws.login({quirky.host: quirky.credentials})
    ran = ws.run(BUILD + f'image:push {{ to = "{quirky.host}/a:1" }}')
    check("several challenges in several headers: the one that we can answer", ran.status == 0 and digests(quirky) == 3, ran.log)
    ws.login({quirky.host: ("ann", "wrong")})
    ran = ws.run(f'registry.tags "{quirky.host}/a"')
    check("a wrong password is sent once, and the file that has it is named", ran.status != 0 and "docker/config.json" in ran.log and
          len(quirky.seen("GET", "tags/list")) == 2, ran.log, quirky.seen("GET"))
    ws.login({f"{quirky.host}/a": quirky.credentials, f"{quirky.host}/a/deeper": ("bob", "wrong"), quirky.host: ("carl", "wrong")})
    ran = ws.run(f'registry.tags "{quirky.host}/a/x"')
    check("the login of the longest prefix counts", ran.status == 0, ran.log)
    ran = ws.run(f'registry.tags "{quirky.host}/abc"')
    check("a prefix ends at a slash", ran.status != 0 and "401" in ran.log, ran.log)
    ws.logout()
    ws.login({quirky.host: quirky.credentials}, "auth.json")
    ran = ws.run(f'registry.tags "{quirky.host}/a/x"', env={"REGISTRY_AUTH_FILE": os.path.join(ws.folder, "auth.json")})
    check("REGISTRY_AUTH_FILE", ran.status == 0, ran.log)
    ws.logout()
    ws.login({quirky.host: quirky.credentials}, "home/.config/containers/auth.json")
    ran = ws.run(f'registry.tags "{quirky.host}/a/x"')
    check("containers/auth.json", ran.status == 0, ran.log)
    shutil.rmtree(os.path.join(ws.folder, "home/.config"))
    ran = ws.run(f'registry.tags "{quirky.host}/a/x"', profile={"hosts": {quirky.host: {"auth": {
        "type": "basic", "username": "ann", "password": {"env": "PW"}}}}}, env={"PW": "secret-word"})
    check("registry.hosts of the profile", ran.status == 0, ran.log)
    quirky.close()

    quirky = Quirky(auth="bearer")
    ws.login({quirky.host: quirky.credentials})
    ran = ws.run(BUILD + f'image:push {{ to = "{quirky.host}/a:1" }}\nregistry.exists "{quirky.host}/a:1"\n'
                 f'registry.manifest "{quirky.host}/a:1"\nregistry.tags "{quirky.host}/a"\nregistry.inspect "{quirky.host}/a:1"')
    check("calls of a run share tokens: one for each set of scopes", ran.status == 0 and len(quirky.seen("GET", "^/token")) == 2,
          ran.log, quirky.seen("GET"))
    check("a token is no part of what is logged", "token-number" not in ran.log, ran.log)
    quirky.close()

    quirky = Quirky(auth="bearer", revoke=True)
    ws.login({quirky.host: quirky.credentials})
    ran = ws.run(BUILD + f'image:push {{ to = "{quirky.host}/a:1" }}')
    check("tokens that end amid an upload do not end its session", ran.status == 0 and digests(quirky) == 3 and not quirky.revoke and
          quirky.begun == 3 and len(quirky.seen("PUT", "/uploaded/")) > 3, ran.log, quirky.requests)
    quirky.close()

    quirky = Quirky(auth="bearer", gives_refresh=True, lifetime=1)
    ws.login({quirky.host: quirky.credentials})
    ran = ws.run(f'registry.exists "{quirky.host}/a:1"\nrequire("time").sleep(1.2)\nregistry.exists "{quirky.host}/a:1"')
    posts = quirky.seen("POST", "^/token")
    check("a refresh token that the service gave is used", ran.status == 0 and len(quirky.seen("GET", "^/token")) == 1 and
          {p.form["grant_type"] for p in posts} == {"refresh_token"}, ran.log, quirky.requests)
    quirky.close()

    quirky = Quirky(auth="bearer")
    quirky.refresh.add("an-identity-token")
    ws.write("docker/config.json", json.dumps({"auths": {quirky.host: {"identitytoken": "an-identity-token"}}}))
    ran = ws.run(f'registry.exists "{quirky.host}/a:1"')
    check("an identity token goes to the service by POST", ran.status == 0 and len(quirky.seen("POST", "^/token")) == 1, ran.log)
    ws.write("docker/config.json", json.dumps({"auths": {quirky.host: {"registrytoken": "token-given"}}}))
    quirky.tokens["token-given"] = ["repository:a:pull"]
    ran = ws.run(f'registry.exists "{quirky.host}/a:1"')
    check("a registry token is used as it is", ran.status == 0 and len(quirky.seen("", "^/token")) == 1, ran.log)
    quirky.close()

    quirky = Quirky(auth="bearer", first_scope_only=True)
    ws.login({quirky.host: quirky.credentials})
    ran = ws.run(BUILD + f'image:push {{ to = "{quirky.host}/a:1" }}\nshow("p", image:push {{ to = "{quirky.host}/b:1", from = "a" }})')
    order = [r.path for r in quirky.seen("GET", "^/token.*repository%3Aa%3Apull&|^/token.*scope=repository%3Aa%3Apull$")]
    check("a service that grants the first scope only is asked for the missing one first", ran.status == 0 and
          any(re.search("scope=repository%3Aa%3Apull&scope=repository%3Ab", p) for p in order), ran.log, quirky.seen("GET", "^/token"))
    quirky.close()

    quirky = Quirky(auth="azure")
    ws.logout()
    profile = {"url": quirky.url, "auth": {"type": "azure_ad", "tenant": "T", "client_id": "C", "client_secret": {"env": "S"},
                                           "authority": quirky.url + "/aad"}}
    ran = ws.run(BUILD + "image:push()\n" + 'registry.tags "t"', profile=profile, env={"S": "secret-word"})
    check("Azure AD: a token of it is exchanged, once", ran.status == 0 and digests(quirky) == 3 and
          len(quirky.seen("POST", "^/oauth2/exchange")) == 1 and len(quirky.seen("POST", "^/aad/")) == 1 and
          len(quirky.seen("POST", "^/oauth2/token")) == 2, ran.log, quirky.seen("POST"))
    ws.write("assertion", "the-assertion")
    federated = {**profile, "auth": {"type": "workload_identity", "tenant": "T", "client_id": "C", "token_file": "assertion",
                                     "authority": quirky.url + "/aad"}}
    ran = ws.run('registry.tags "t"', profile=federated)
    check("Azure AD: by the identity of a workload", ran.status == 0 and len(quirky.seen("POST", "^/oauth2/exchange")) == 2, ran.log)
    ran = ws.run('registry.tags "t"', profile=profile, env={"S": "mistaken"})
    check("Azure AD: a wrong secret", ran.status != 0 and "Azure AD refuses the client credentials" in ran.log, ran.log)
    quirky.close()

    now = email.utils.formatdate(time.time() + 2, usegmt=True)
    quirky = Quirky(auth="bearer", busy_tokens=["1", now])
    ws.login({quirky.host: quirky.credentials})
    ran = ws.run(f'registry.exists "{quirky.host}/a:1"')
    asked = quirky.seen("GET", "^/token")
    check("a token service that wants to be left alone, for seconds and until a date", ran.status == 0 and len(asked) == 3 and
          asked[1].at - asked[0].at >= 0.99, ran.log, asked)
    quirky.close()

    storage = Quirky()
    quirky = Quirky(auth="bearer")
    ws.login({quirky.host: quirky.credentials, f"localhost:{storage.port}": ("other", "words")})
    ran = ws.run(BUILD + f'image:push {{ to = "{quirky.host}/a:1" }}')
    quirky.storage, storage.blobs = f"http://localhost:{storage.port}", quirky.blobs
    ws.forget()
    ran = ws.run(f'registry.pull "{quirky.host}/a:1"')
    check("redirects to another host are followed, who asks is not told there", ran.status == 0 and len(storage.requests) == 3 and
          not any(r.authorization for r in storage.requests), ran.log, storage.requests)
    storage.auth, storage.blobs = "bearer", {}
    ws.forget()
    ran = ws.run(f'registry.pull "{quirky.host}/a:1"')
    check("nor is its challenge answered", ran.status != 0 and "401" in ran.log and not storage.seen("", "^/token") and
          not any(r.authorization for r in storage.requests), ran.log, storage.requests)
    ws.logout()
    storage.close()
    quirky.close()


HELPER = """#!/bin/sh
read -r key
echo "$1 $key" >>"$HELPER_LOG"
case $key in
  {host}/team/*) printf '{{"ServerURL":"%s","Username":"ann","Secret":"secret-word"}}' "$key" ;;
  {host}) printf '{{"ServerURL":"%s","Username":"<token>","Secret":"an-identity-token"}}' "$key" ;;
  *) echo "credentials not found in native keychain"; exit 1 ;;
esac
"""


def helpers(ws):
    quirky, other = Quirky(auth="bearer"), Quirky(auth="basic")
    quirky.refresh.add("an-identity-token")
    ws.write("bin/docker-credential-test", HELPER.format(host=quirky.host))
    ws.write("bin/docker-credential-broken", "#!/bin/sh\necho the keychain is locked; exit 1\n")
    for name in ("test", "broken"):
        os.chmod(os.path.join(ws.folder, "bin/docker-credential-" + name), 0o755)
    log = os.path.join(ws.folder, "helper.log")
    env = {"PATH": os.path.join(ws.folder, "bin") + ":" + os.environ["PATH"], "HELPER_LOG": log}

    def asked():
        with open(log) as file:
            lines = file.read().splitlines()
        os.unlink(log)
        return lines

    ws.login({}, credsStore="test")
    ran = ws.run(f'registry.exists "{quirky.host}/a:1"', env=env)
    check("credsStore, which gives an identity token", ran.status == 0 and asked() == [f"get {quirky.host}"] and
          len(quirky.seen("POST", "^/token")) == 1 and "an-identity-token" not in ran.log, ran.log, quirky.requests)
    ws.login({}, credHelpers={f"{quirky.host}/team/x": "test"}, credsStore="broken")
    ran = ws.run(f'registry.exists "{quirky.host}/team/x:1"', env=env)
    check("credHelpers of a repository, before credsStore", ran.status == 0 and asked() == [f"get {quirky.host}/team/x"] and
          quirky.seen("GET", "^/token")[-1].authorization == quirky.basic(), ran.log, quirky.requests)
    ws.login({other.host: other.credentials}, credsStore="test")
    ran = ws.run(f'registry.tags "{other.host}/a"', env=env)
    check("what a helper has not is looked for in auths", ran.status == 0 and asked() == [f"get {other.host}"], ran.log)
    ws.login({}, credsStore="broken")
    ran = ws.run(f'registry.tags "{other.host}/a"', env=env)
    check("a helper that fails says why", ran.status != 0 and "docker-credential-broken failed: the keychain is locked" in ran.log, ran.log)
    ws.write("docker/config.json", '{"auths": {"%s": {"auth": "no base64!"}}}' % other.host)
    ran = ws.run(f'registry.tags "{other.host}/a"')
    check("a login that is none names its file", ran.status != 0 and "docker/config.json" in ran.log and "base64" in ran.log, ran.log)
    hub = {"hosts": {"docker.io": {"url": other.url, "insecure": True}}}
    ws.login({"https://index.docker.io/v1/": other.credentials})
    ran = ws.run('registry.exists "docker.io/alpine:3"', profile=hub, hosts=["docker.io"])
    check("Docker Hub: its old key, library/", ran.status == 0 and
          other.seen("HEAD", "^/v2/library/alpine/manifests/3$")[-1].authorization == other.basic(), ran.log, other.requests)
    ws.logout()
    other.close()
    quirky.close()


def proxies(ws):
    quirky = Quirky(auth="bearer")
    # what is not told where its token service is by a name of loopback
    quirky.url = "http://registry.test"
    proxy = Proxy({"registry.test:80": quirky.port, "x.azurecr.io:80": quirky.port})
    hosts = {"registry.test": {"url": "http://registry.test", "insecure": True, "proxy": proxy.url}}
    ws.login({"registry.test": quirky.credentials})
    ran = ws.run(BUILD + 'image:push { to = "registry.test/a:1" }', profile={"hosts": hosts}, hosts=["registry.test"])
    check("a proxy of the profile, its token service too", ran.status == 0 and digests(quirky) == 3 and
          any(line.startswith("GET http://registry.test/token?") for line in proxy.seen), ran.log, proxy.seen)
    count = len(quirky.requests)
    ran = ws.run('registry.tags "registry.test/a"', profile={"hosts": hosts})
    check("a proxy gives no right to what is behind it", ran.status != 0 and len(quirky.requests) == count, ran.log)
    plain = {"registry.test": {"url": "http://registry.test", "insecure": True}}
    ran = ws.run('registry.tags "registry.test/a"', profile={"hosts": plain}, hosts=["registry.test"], env={"http_proxy": proxy.url})
    check("http_proxy", ran.status == 0 and len(quirky.requests) > count, ran.log)
    count = len(proxy.seen)
    ran = ws.run('registry.tags "registry.test/a"', profile={"hosts": plain}, hosts=["registry.test"],
                 env={"http_proxy": proxy.url, "no_proxy": "else.test,.test"})
    check("no_proxy", ran.status != 0 and len(proxy.seen) == count, ran.log)
    ran = ws.run(f'registry.tags "{quirky.host}/a"', env={"http_proxy": proxy.url, "https_proxy": proxy.url})
    check("loopback is asked without a proxy", ran.status == 0 and not any(quirky.host in line for line in proxy.seen), ran.log, proxy.seen)
    quirky.storage = "http://169.254.169.254"
    ws.forget()
    ran = ws.run('registry.pull "registry.test/a:1"', profile={"hosts": hosts}, hosts=["registry.test"])
    check("a registry cannot send us to private addresses", ran.status != 0 and "169.254.169.254" in ran.log and
          "a private address" in ran.log and not any("169.254" in line for line in proxy.seen), ran.log, proxy.seen)
    quirky.storage, quirky.auth = None, None
    quirky.tags["t", "1"] = "sha256:" + "0" * 64
    ran = ws.run('registry.untag "x.azurecr.io/t:1"', hosts=["x.azurecr.io"], profile={"hosts": {"x.azurecr.io": {
        "url": "http://x.azurecr.io", "insecure": True, "proxy": proxy.url}}})
    check("Azure's way to take a tag away", ran.status == 0 and ("t", "1") not in quirky.tags and
          quirky.seen("DELETE", "^/acr/v1/t/_tags/1$"), ran.log, quirky.seen("DELETE"), quirky.tags)
    closed = Proxy({"registry.test:80": quirky.port}, password=base64.b64encode(b"eve:word-of-proxy").decode())
    ran = ws.run('registry.tags "registry.test/a"', hosts=["registry.test"], profile={"hosts": {"registry.test": {
        "url": "http://registry.test", "insecure": True, "proxy": closed.url.replace("//", "//eve:word-of-proxy@")}}})
    check("a proxy with a password", ran.status == 0 and "word-of-proxy" not in ran.log, ran.log, closed.seen)
    closed.close()
    ws.logout()
    proxy.close()
    quirky.close()


# ---- pulls ----

def pulls(ws):
    quirky = Quirky(auth="bearer")
    ws.login({quirky.host: quirky.credentials})
    ref = f"{quirky.host}/a:1"
    ran = ws.run(BUILD + f'image:push {{ to = "{ref}" }}\nshow("digest", image.digest)')
    image = ran.shown["digest"]
    layer = max(quirky.blobs, key=lambda key: len(quirky.blobs[key]))[1]
    size = len(quirky.blobs["a", layer])

    def pull(name, ranges, *cuts):
        quirky.cut_blobs, quirky.ranges = list(cuts), ranges
        quirky.requests.clear()
        ws.forget()
        ran = ws.run(f'show("digest", registry.pull("{ref}").digest)')
        gets = quirky.seen("GET", f"/blobs/{layer}$")
        check(name, ran.status == 0 and ran.shown["digest"] == image and not quirky.cut_blobs and len(gets) == len(cuts) + 1, ran.log, gets)
        return [g.headers.get("range") for g in gets]

    ranges = pull("a pull that breaks off twice", True, 1_000_000, 3_000_000)
    check("goes on where it is", ranges[0] is None and 0 < int(ranges[1][6:-1]) < int(ranges[2][6:-1]) < size, ranges)
    ranges = pull("from a registry without ranges it begins again", False, 1_000_000)
    check("with the digest of the whole", ranges[1:] and ranges[1].startswith("bytes="), ranges)

    type_, text = quirky.manifests["a", image]
    for said in (INDEX, "application/vnd.docker.distribution.manifest.v2+json"):
        quirky.manifests["a", image] = (said, text)
        ws.forget()
        ran = ws.run(f'registry.pull "{ref}"')
        check(f"a registry that calls an image {said}", ran.status != 0 and "it says of itself" in ran.log, ran.log)
    quirky.manifests["a", image] = (type_, text)
    both = json.dumps({**json.loads(text), "manifests": []}).encode()
    for name, content in {"both": both, "large": b'{"schemaVersion":2,"annotations":{"a":"' + b"x" * (5 << 20) + b'"}}'}.items():
        digest = "sha256:" + hashlib.sha256(content).hexdigest()
        quirky.manifests["a", digest], quirky.tags["a", name] = (type_, content), digest
    ran = ws.run(f'registry.pull "{quirky.host}/a:both"')
    check("what is image and index at once", ran.status != 0 and "an image and an index at once" in ran.log, ran.log)
    ran = ws.run(f'registry.pull "{quirky.host}/a:large"')
    check("a manifest without end", ran.status != 0 and "larger than" in ran.log, ran.log)

    detail = {"errors": [{"code": "DENIED", "message": "no", "detail": {"name": "a", "n": [1]}}, {"code": "UNKNOWN"}]}
    quirky.answers["/v2/a/manifests/detail"] = (403, json.dumps(detail).encode(), {})
    quirky.answers["/v2/a/manifests/page"] = (403, b"<html>\x1b[31m secondary limit</html>", {})
    ran = ws.run(f'registry.manifest "{quirky.host}/a:detail"')
    check("an error list with details", ran.status != 0 and 'DENIED: no ({"n":[1],"name":"a"}); UNKNOWN: no message' in ran.log or
          'DENIED: no ({"name":"a","n":[1]}); UNKNOWN: no message' in ran.log, ran.log)
    ran = ws.run(f'registry.manifest "{quirky.host}/a:page"')
    check("an error that is no list", ran.status != 0 and "secondary limit" in ran.log and "\x1b[31m secondary" not in ran.log, ran.log)
    quirky.answers["/v2/a/manifests/round"] = (307, b"", {"Location": "/v2/a/manifests/round"})
    ran = ws.run(f'registry.manifest "{quirky.host}/a:round"')
    check("redirects without end", ran.status != 0 and "redirect" in ran.log, ran.log)
    ws.logout()
    quirky.close()


# ---- lists, warnings, limits ----

def lists(ws):
    quirky = Quirky(says_digest=False, warning="this registry \\\"closes\\\" soon", pages={
        "/v2/a/tags/list": [["b", "d"], [], ["a"], ["c"]], "/v2/_catalog": [["z/a"], None, ["b"]], "/v2/none/tags/list": [None]})
    ran = ws.run(f'show("tags", registry.tags "{quirky.host}/a") show("catalog", registry.catalog {{ host = "{quirky.host}" }})\n'
                 f'show("two", registry.tags("{quirky.host}/a", {{ limit = 2, last = "x y" }}))\n'
                 f'show("none", #registry.tags "{quirky.host}/none")')
    check("all pages, an empty one amid them, relative links", ran.shown.get("tags") == ["a", "b", "c", "d"], ran.log)
    check("catalog", ran.shown.get("catalog") == ["b", "z/a"], ran.log)
    check("limit and last", ran.shown.get("two") == ["b", "d"] and quirky.seen("GET", r"\?n=2&last=x%20y$"), quirky.requests)
    check("tags: null", ran.shown.get("none") == 0, ran.log)
    check("a warning is shown once in a run", ran.log.count('this registry "closes" soon') == 1, ran.log)
    ran = ws.run(BUILD + f'local p = image:push {{ to = "{quirky.host}/w:1" }}\n'
                 f'show("same", registry.exists "{quirky.host}/w:1" == image.digest)')
    check("HEAD that does not say the digest", ran.status == 0 and ran.shown["same"] is True, ran.log)
    quirky.busy, before = 1, len(quirky.requests)
    ran = ws.run(f'registry.tags "{quirky.host}/a"')
    waited = quirky.requests[before + 1].at - quirky.requests[before].at
    check("429: as long as Retry-After says, then again", ran.status == 0 and waited >= 0.99, waited, ran.log)
    ran = ws.run('registry.catalog { host = "no/host" }')
    check("a catalog of what is no host", ran.status != 0 and "is no registry" in ran.log, ran.log)
    quirky.close()


# ---- referrers and artifacts ----

def referrers(ws, has_api):
    kind = "with the referrers API" if has_api else "with the fallback tag"
    quirky = Quirky(referrers=has_api)
    ref = f"{quirky.host}/a:1"
    ran = ws.run(BUILD + f'''image:push {{ to = "{ref}" }}
      show("first", registry.attach("{ref}", {{ type = "application/x.one", document = {{ a = 1 }}, annotations = {{ k = "v" }} }}))
      show("again", registry.attach("{ref}", {{ type = "application/x.one", document = {{ a = 1 }}, annotations = {{ k = "v" }} }}))
      show("second", registry.artifact("{quirky.host}/a:art", {{ type = "application/x.two", subject = "{ref}",
        files = {{ "model.txt", {{ path = "ctx/small", name = "in/small", type = "text/plain" }} }} }}))
      show("all", registry.referrers "{ref}") show("one", registry.referrers("{ref}", {{ type = "application/x.one" }}))
      show("files", registry.files("{quirky.host}/a:art", "files"))
      show("image", image.digest)''')
    shown = ran.shown
    check(f"{kind}: artifacts refer to the image", ran.status == 0 and sorted(d["artifactType"] for d in shown["all"]) ==
          ["application/x.one", "application/x.two"], ran.log)
    if ran.status != 0:
        return quirky.close()
    check(f"{kind}: attached twice is there once, by type", [d["digest"] for d in shown["one"]] == [shown["first"]] and
          shown["first"] == shown["again"] and shown["one"][0]["annotations"] == {"k": "v"}, shown)
    tag = quirky.tags.get(("a", "sha256-" + shown["image"][7:]))
    check(f"{kind}: the index is {'left to the registry' if has_api else 'kept'}", (tag is None) == has_api and
          (has_api or quirky.manifests["a", tag][0] == INDEX), quirky.tags)
    manifest = json.loads(quirky.manifests["a", shown["second"]["digest"]][1])
    check(f"{kind}: an artifact of files", manifest["artifactType"] == "application/x.two" and
          manifest["config"]["mediaType"] == "application/vnd.oci.empty.v1+json" and
          manifest["subject"]["digest"] == shown["image"] and
          [layer["annotations"]["org.opencontainers.image.title"] for layer in manifest["layers"]] == ["model.txt", "in/small"], manifest)
    check(f"{kind}: its files come back", [f["path"] for f in shown["files"]] == ["files/model.txt", "files/in/small"] and
          open(os.path.join(ws.folder, "files/model.txt")).read() == "a model\n" and
          open(os.path.join(ws.folder, "files/in/small")).read() == "small\n", shown["files"])
    ran = ws.run(f'registry.delete("{quirky.host}/a@{shown["first"]}") show("left", registry.referrers "{ref}")')
    check(f"{kind}: a deleted one is listed no more", ran.status == 0 and
          [d["digest"] for d in ran.shown["left"]] == [shown["second"]["digest"]], ran.log)
    # titles that lead out
    evil = json.loads(quirky.manifests["a", shown["second"]["digest"]][1])
    evil["layers"][0]["annotations"]["org.opencontainers.image.title"] = "../out.txt"
    text = json.dumps(evil).encode()
    quirky.manifests["a", "sha256:" + hashlib.sha256(text).hexdigest()] = (manifest["mediaType"], text)
    quirky.tags["a", "evil"] = "sha256:" + hashlib.sha256(text).hexdigest()
    ran = ws.run(f'registry.files("{quirky.host}/a:evil", "files")')
    check(f"{kind}: no file is written outside of the folder", ran.status != 0 and "'../out.txt'" in ran.log and
          not os.path.exists(os.path.join(ws.folder, "out.txt")), ran.log)
    ran = ws.run(f'registry.untag "{quirky.host}/a:art" registry.delete "{ref}"\nshow("tags", registry.exists "{ref}" == nil)')
    check(f"{kind}: untag and delete", ran.status == 0 and ran.shown["tags"] and ("a", "art") not in quirky.tags and
          ("a", shown["second"]["digest"]) in quirky.manifests, ran.log)
    quirky.close()


def fallback_tags(ws):
    quirky = Quirky(etags=True)
    ref = f"{quirky.host}/a:1"
    attach = 'registry.attach("%s", { type = "application/x.%s", document = { a = "%s" } })\n'
    ran = ws.run(BUILD + f'image:push {{ to = "{ref}" }}\nshow("image", image.digest)\n' + attach % (ref, "one", "one"))
    tag = "sha256-" + ran.shown["image"][7:]

    def another():  # writes the index at the same time
        text = quirky.manifests["a", quirky.tags["a", tag]][1]
        index = json.loads(text)
        index["manifests"].append({**index["manifests"][0], "digest": "sha256:" + "1" * 64})
        text = json.dumps(index).encode()
        digest = "sha256:" + hashlib.sha256(text).hexdigest()
        quirky.manifests["a", digest], quirky.tags["a", tag] = (INDEX, text), digest

    quirky.races = [another]
    ran = ws.run(attach % (ref, "two", "two") + f'show("all", registry.referrers "{ref}")')
    check("an index that changes while it is written loses nothing", ran.status == 0 and not quirky.races and
          len(ran.shown["all"]) == 3 and len(quirky.seen("PUT", "manifests/sha256-")) == 3, ran.log, quirky.seen("PUT"))
    quirky.digest_tags = True
    ran = ws.run(f'show("all", registry.referrers "{ref}")')
    check("a registry that takes the tag for the digest", ran.status == 0 and ran.shown["all"] == [], ran.log)
    quirky.digest_tags = False
    quirky.tags["a", tag] = quirky.tags["a", "1"]
    _, text = quirky.manifests["a", quirky.tags["a", "1"]]
    other = json.dumps({**json.loads(text), "annotations": {"k": "v"}}).encode()
    digest = "sha256:" + hashlib.sha256(other).hexdigest()
    quirky.manifests["a", digest], quirky.tags["a", tag] = (json.loads(text)["mediaType"], other), digest
    ran = ws.run(attach % (ref, "three", "three"))
    check("something else under that tag is left alone", ran.status != 0 and "is no index" in ran.log and
          quirky.tags["a", tag] == digest, ran.log)
    quirky.close()


def deleting(ws):
    quirky = Quirky(deletes_tags=False)
    ref = f"{quirky.host}/a:1"
    ran = ws.run(BUILD + f'image:push {{ to = "{ref}" }} registry.untag "{ref}"')
    check("a registry that deletes no tags", ran.status != 0 and f'registry.delete "{ref}"' in ran.log and ("a", "1") in quirky.tags,
          ran.log)
    quirky.deletes = False
    ran = ws.run(f'registry.delete "{ref}"')
    check("a registry that deletes nothing", ran.status != 0 and "does not delete by this API" in ran.log, ran.log)
    ran = ws.run(f'registry.delete "{quirky.host}/a:2"')
    check("what is not there", ran.status != 0 and "is not there" in ran.log, ran.log)
    quirky.close()


# ---- mirrors ----

def mirrors(ws):
    mirror, origin = Quirky(), Quirky()
    ws.login({"upstream.test": ("ann", "secret-word")})
    ran = ws.run(BUILD + f'image:push {{ to = "{mirror.host}/team/a:1" }}')
    ws.forget()
    profile = {"mirrors": {"upstream.test": ["http://127.0.0.1:1", mirror.url]}}
    ran = ws.run('registry.pull "upstream.test/team/a:1"', profile=profile, hosts=["upstream.test"])
    pulled = mirror.seen("GET", "^/v2/team/a/")
    check("an image comes from a mirror, which hears whose it is", ran.status == 0 and len(pulled) == 4 and
          all("ns=upstream.test" in r.path for r in pulled), ran.log, mirror.requests)
    check("but not who asks there", not any(r.authorization for r in mirror.requests), mirror.requests)
    check("a mirror that does not answer is left alone", ran.log.count("the mirror 127.0.0.1:1 of upstream.test fails") == 1, ran.log)
    ws.forget()
    ran = ws.run('registry.pull "upstream.test/team/a:1"', profile=profile)
    check("a mirror gives no right to what it mirrors", ran.status != 0 and "upstream.test" in ran.log and "net" in ran.log, ran.log)
    ran = ws.run(BUILD + f'image:push {{ to = "{origin.host}/team/a:2" }}')
    mirror.blobs, mirror.manifests, mirror.tags = dict(origin.blobs), dict(origin.manifests), dict(origin.tags)
    mirror.cut_blobs = [1_000_000]
    ws.forget()
    ran = ws.run(f'registry.pull "{origin.host}/team/a:2"', profile={"mirrors": {origin.host: mirror.url}})
    rest = [r for r in origin.seen("GET", "/blobs/") if "range" in r.headers]
    check("what a mirror breaks off comes from the registry from there on", ran.status == 0 and len(rest) == 1 and
          "the mirror" in ran.log, ran.log, rest)
    mirror.manifests.clear()
    ws.forget()
    before = len(mirror.requests)
    ran = ws.run(f'registry.pull "{origin.host}/team/a:2"', profile={"mirrors": {origin.host: mirror.url}})
    check("what the mirror has not comes from the registry", ran.status == 0 and len(mirror.requests) > before and
          any(r.path.startswith("/v2/team/a/manifests/2") for r in origin.seen("GET")), ran.log)
    count = len(mirror.requests)
    ran = ws.run(BUILD + f'image:push {{ to = "{origin.host}/team/a:3" }}', profile={"mirrors": {origin.host: mirror.url}})
    check("a push asks no mirror", ran.status == 0 and len(mirror.requests) == count, ran.log)
    mirror.close()
    origin.close()


# ---- real registries ----

def real(ws, folder):
    key, cert = os.path.join(folder, "tls.key"), os.path.join(folder, "tls.crt")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-days", "2", "-subj",
                    "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,DNS:registry.test,IP:127.0.0.1"], check=True, capture_output=True)
    passwords = os.path.join(folder, "htpasswd")
    subprocess.run(["htpasswd", "-Bbc", passwords, "ann", "secret-word"], check=True, capture_output=True)
    secure = DockerRegistry(folder, "secure", f"auth: {{ htpasswd: {{ realm: t, path: {passwords} }} }}",
                            f", tls: {{ certificate: {cert}, key: {key} }}")
    trusted = os.path.join(ws.folder, "home/.config/containers/certs.d", secure.host)
    ws.login({f"{secure.host}/team": ("ann", "secret-word"), secure.host: ("nobody", "x")})
    everything = BUILD + '''local host = "%s"
      registry.build { context = "ctx", name = "u", push = host .. "/team/u:1", cache = false }
      image:push { to = host .. "/team/x:1" } image:push { to = host .. "/team/x:2" }
      show("tags", registry.tags(host .. "/team/x"))
      show("referrer", registry.attach(host .. "/team/x:1", { type = "application/x.one", document = "text" }))
      show("referrers", registry.referrers(host .. "/team/x:1"))
      registry.delete(host .. "/team/x@" .. registry.referrers(host .. "/team/x:1")[1].digest)
      show("none", #registry.referrers(host .. "/team/x:1"))
      registry.delete(host .. "/team/x:1")
      show("gone", registry.exists(host .. "/team/x:2") == nil)'''

    def held(name, ran):
        check(f"{name}: push, tags, referrers, delete", ran.status == 0 and {"1", "2"} <= set(ran.shown["tags"]) and
              [d["digest"] for d in ran.shown["referrers"]] == [ran.shown["referrer"]] and ran.shown["none"] == 0 and
              ran.shown["gone"], ran.log)

    ran = ws.run(f'registry.tags "{secure.host}/team/x"')
    check("docker-registry, TLS: without its CA", ran.status != 0, ran.log)
    os.makedirs(trusted)
    shutil.copy(cert, os.path.join(trusted, "ca.crt"))
    held("docker-registry, TLS by certs.d, a password for a repository", ws.run(everything % secure.host))
    shutil.rmtree(os.path.join(ws.folder, "home/.config"))
    ran = ws.run(BUILD + f'image:push {{ to = "{secure.host}/team/x:4" }}\nregistry.untag "{secure.host}/team/x:4"',
                 profile={"hosts": {secure.host: {"url": f"https://{secure.host}", "ca": cert}}})
    check("docker-registry, TLS by registry.hosts: tags cannot be deleted, the error says what can",
          ran.status != 0 and "registry.delete" in ran.log, ran.log)
    proxy = Proxy({f"registry.test:{secure.port}": secure.port})
    name = f"registry.test:{secure.port}"
    ws.login({name: ("ann", "secret-word")})
    ran = ws.run(f'show("tags", registry.tags "{name}/team/x")', hosts=["registry.test"], env={"HTTPS_PROXY": proxy.url},
                 profile={"hosts": {name: {"ca": cert}}})
    check("docker-registry, TLS through HTTPS_PROXY", ran.status == 0 and "4" in ran.shown["tags"] and proxy.seen and
          set(proxy.seen) == {f"CONNECT {name}"}, ran.log, proxy.seen)
    proxy.close()
    ws.logout()
    secure.close()

    mutual = DockerRegistry(folder, "mutual", tls=f", tls: {{ certificate: {cert}, key: {key}, clientcas: [{cert}] }}")
    hosts = {mutual.host: {"url": f"https://{mutual.host}", "ca": cert}}
    ran = ws.run(f'registry.catalog {{ host = "{mutual.host}" }}', profile={"hosts": hosts})
    check("docker-registry, TLS: without a certificate of the client", ran.status != 0, ran.log)
    hosts[mutual.host].update(client_cert=cert, client_key=key)
    ran = ws.run(f'registry.catalog {{ host = "{mutual.host}" }}', profile={"hosts": hosts})
    check("docker-registry, TLS: with one of registry.hosts", ran.status == 0, ran.log)
    trusted = os.path.join(ws.folder, "home/.config/containers/certs.d", mutual.host)
    os.makedirs(trusted)
    for source, target in ((cert, "ca.crt"), (cert, "client.cert"), (key, "client.key")):
        shutil.copy(source, os.path.join(trusted, target))
    ran = ws.run(f'registry.catalog {{ host = "{mutual.host}" }}')
    check("docker-registry, TLS: with one of certs.d", ran.status == 0, ran.log)
    mutual.close()

    port = free_port()
    log = open(os.path.join(folder, "token.log"), "w")
    service = subprocess.Popen([sys.executable, os.path.join(HERE, "registry_servers.py"), "token", str(port), key, cert, "bob", "his-word"],
                               stdout=log, stderr=log)
    check("the token service starts", starts(port, service))
    bearer = DockerRegistry(folder, "bearer", f"auth: {{ token: {{ realm: 'http://127.0.0.1:{port}/token', service: t, "
                                              f"issuer: mlhost-test, rootcertbundle: {cert} }} }}")
    ws.login({bearer.host: ("bob", "his-word")})
    held("docker-registry, signed tokens", ws.run(everything % bearer.host))
    ran = ws.run(BUILD + f'image:push {{ to = "{bearer.host}/team/y:1" }} show("all", registry.catalog {{ host = "{bearer.host}" }})')
    check("docker-registry, signed tokens: catalog", ran.status == 0 and "team/y" in ran.shown["all"], ran.log)
    ws.logout()
    bearer.close()
    service.terminate()
    service.wait()
    log.close()

    held("mlhost's own registry", ws.run(everything % "mlhost.local"))
    ran = ws.run('show("all", registry.catalog())')
    check("mlhost's own registry: catalog", ran.status == 0 and isinstance(ran.shown["all"], list), ran.log)


def main():
    for tool in ("docker-registry", "htpasswd", "openssl"):
        if not shutil.which(tool):
            print(f"SKIPPED registry_client: no {tool}\n0 passed, 0 failed")
            return 0
    folder = tempfile.mkdtemp(prefix="mlhost-client")
    groups = {"uploads": uploads, "authentication": authentication, "helpers": helpers, "proxies": proxies, "pulls": pulls, "lists": lists,
              "referrers": lambda ws: (referrers(ws, True), referrers(ws, False)), "fallback tags": fallback_tags, "deleting": deleting, "mirrors": mirrors,
              "real": lambda ws: real(ws, folder)}
    try:
        for name, group in groups.items():
            if sys.argv[1:] and name not in sys.argv[1:]:
                continue
            try:
                group(Workspace(os.path.join(folder, name + ".ws")))
            except Exception:  # the other groups still say what they have to
                check(name, False, traceback.format_exc())
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{passed} passed, {failed} failed")
    return failed != 0


sys.exit(main())
