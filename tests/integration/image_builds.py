"""For tests of image builds: workspaces that build, docker-registry."""
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
PROGRAM = os.path.abspath(os.environ.get("MLHOST", os.path.join(HERE, "../../build/mlhost")))
BUSYBOX = "/bin/busybox"
passed = failed = 0


def check(name, good, *more):
    global passed, failed
    if good:
        passed += 1
        print("ok   " + name)
    else:
        failed += 1
        print("FAIL " + name, *more, sep="\n     ")


def lua(value):
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"[{lua(k)}] = {lua(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list):
        return "{ " + ", ".join(map(lua, value)) + " }"
    return json.dumps(value)


def finish():
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed != 0)


class Built:
    def __init__(self, log, status):
        self.log, self.status, self.shown = log, status, {}
        found = re.search(r"built (\S+)", log)
        self.digest = found.group(1) if found else None
        self.cached = re.findall(r"CACHED (\w+)", log)


class Machine:
    """A workspace with a state folder of its own."""

    def __init__(self, folder):
        self.folder = folder
        self.context = os.path.join(folder, "ctx")
        os.makedirs(self.context)
        shutil.copy(BUSYBOX, os.path.join(self.context, "busybox"))
        os.chmod(os.path.join(self.context, "busybox"), 0o755)

    def write(self, name, text):
        path = os.path.join(self.context, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as out:
            out.write(text)

    def build(self, dockerfile, env=None, umask=0o022, user=None, after="", **options):
        """after: Lua that has the image. What it gives to show(NAME, VALUE) is in the result's .shown."""
        self.write("Dockerfile", dockerfile)
        return self.run("local image = registry.build(" + lua({"context": "ctx", **options}) +
                        ')\n  log.info("built %s", image.digest)\n' + after, env, umask, user)

    def run(self, body, env=None, umask=0o022, user=None):
        script = ('local registry, json, fs = require "registry", require "json", require "fs"\n'
                  'pipeline "t" { permissions = { net = { "127.0.0.1" }, write = { "shown" } } }\n'
                  'local function show(name, value) fs.write("shown/" .. name, json.encode(value)) end\n'
                  'stage "s" { run = function()\n' + body + "\nend }\n")
        shutil.rmtree(os.path.join(self.folder, "shown"), ignore_errors=True)
        os.makedirs(os.path.join(self.folder, "shown"))
        if user:
            os.chown(os.path.join(self.folder, "shown"), user, user)
        with open(os.path.join(self.folder, "t.lua"), "w") as out:
            out.write(script)
        result = subprocess.run([PROGRAM, "run", "t.lua", "--output", "plain"], cwd=self.folder, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True, timeout=60, umask=umask, user=user, group=user,
                                extra_groups=[] if user else None, env={**os.environ, **(env or {})})
        built = Built(result.stdout, result.returncode)
        for name in os.listdir(os.path.join(self.folder, "shown")):
            with open(os.path.join(self.folder, "shown", name)) as file:
                built.shown[name] = json.load(file)
        return built

    def blob(self, digest):
        with open(os.path.join(self.folder, ".mlhost/cache/oci/blobs/sha256", digest.split(":")[1]), "rb") as file:
            return file.read()

    def config(self, built):
        return json.loads(self.blob(json.loads(self.blob(built.digest))["config"]["digest"]))


class Registry:
    def __init__(self, folder):
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        config = os.path.join(folder, "registry.yml")
        with open(config, "w") as out:
            out.write("version: 0.1\nlog: { level: error, accesslog: { disabled: true } }\n"
                      f"storage: {{ filesystem: {{ rootdirectory: {folder}/registry }} }}\n"
                      f'http: {{ addr: "127.0.0.1:{self.port}" }}\n')
        self.log = open(os.path.join(folder, "registry.log"), "w")
        self.process = subprocess.Popen(["docker-registry", "serve", config], stdout=self.log, stderr=self.log)
        for _ in range(200):
            try:
                self.request("GET", "/v2/")
                return
            except OSError:
                time.sleep(0.05)
        raise SystemExit("docker-registry did not start: see its log\n" + open(self.log.name).read())

    def request(self, method, path, body=None, **headers):
        url = path if path.startswith("http") else f"http://127.0.0.1:{self.port}{path}"
        request = urllib.request.Request(url, data=body, method=method,
                                         headers={k.replace("_", "-"): v for k, v in headers.items()})
        with urllib.request.urlopen(request, timeout=20) as reply:
            return reply.read(), reply.headers

    def manifest(self, name, ref):
        return json.loads(self.request("GET", f"/v2/{name}/manifests/{ref}",
                                       Accept="application/vnd.oci.image.manifest.v1+json")[0])

    def blob(self, name, digest):
        return self.request("GET", f"/v2/{name}/blobs/{digest}")[0]

    def put_blob(self, name, data):
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        where = self.request("POST", f"/v2/{name}/blobs/uploads/", b"")[1]["Location"]
        self.request("PUT", where + ("&" if "?" in where else "?") + "digest=" + digest, data,
                     Content_Type="application/octet-stream")
        return digest

    def put_manifest(self, name, tag, manifest):
        self.request("PUT", f"/v2/{name}/manifests/{tag}", json.dumps(manifest).encode(),
                     Content_Type="application/vnd.oci.image.manifest.v1+json")

    def stop(self):
        self.process.terminate()
        self.process.wait()
