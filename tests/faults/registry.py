#!/usr/bin/env python3
"""Pushes to and pulls from docker-registry through a proxy that does one wrong thing at one request, each request in its turn, or that
thing from then on. What must hold: the image arrives as it was, or the program says what is wrong; a wrong digest is never accepted,
nothing is tagged that is not complete. $MLHOST is the program. Prints "N passed, N failed" last."""
import concurrent.futures
import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "support"))
from registry_proxy import FAULTS, Proxy  # noqa: E402

PROGRAM = os.path.abspath(os.environ.get("MLHOST", os.path.join(HERE, "../../build/mlhost")))
LAYERS = 3
LAYER_SIZE = 300_000  # several reads of a socket, so that a half is not nothing
RUN_LIMIT = 120
FATAL = {"corrupt-reply", "short-reply", "500", "503", "408", "401-basic", "refuse", "cut-request", "drop-reply", "cut-reply",
         "corrupt-request", "429", "silence"}  # what nothing helps against when it goes on
SCRIPT = """
local registry, fs = require "registry", require "fs"
pipeline "faults" { permissions = { net = { "127.0.0.1" }, write = { "unpacked" } } }
stage "push" { timeout = "%(push)s", run = function()
  local image = registry.build { context = "context", name = "x" }
  return { digest = image:push { to = "%(ref)s" }.digest }
end }
stage "pull" { timeout = "%(pull)s", run = function()
  return { digest = registry.unpack("%(ref)s", "unpacked") }
end }
"""


class Registry:
    def __init__(self, folder):
        with __import__("socket").create_server(("127.0.0.1", 0)) as probe:
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
                self.get("/v2/")
                return
            except OSError:
                time.sleep(0.05)
        raise SystemExit("docker-registry did not start: see its log\n" + open(self.log.name).read())

    def get(self, path, accept="*/*"):
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers={"Accept": accept})
        with urllib.request.urlopen(request, timeout=30) as reply:
            return reply.read()

    def image(self, name):
        """What stands under name:t, every digest checked: None when nothing does, a text when something is wrong."""
        types = "application/vnd.oci.image.manifest.v1+json"
        try:
            text = self.get(f"/v2/{name}/manifests/t", types)
        except urllib.error.HTTPError as problem:
            return None if problem.code == 404 else f"HTTP {problem.code}"
        manifest = json.loads(text)
        for part in [manifest["config"]] + manifest["layers"]:
            try:
                blob = self.get(f"/v2/{name}/blobs/{part['digest']}")
            except urllib.error.HTTPError as problem:
                return f"the tag is there, its blob {part['digest']} is not: HTTP {problem.code}"
            if "sha256:" + hashlib.sha256(blob).hexdigest() != part["digest"]:
                return f"the blob {part['digest']} holds something else"
        return "sha256:" + hashlib.sha256(text).hexdigest()


def make_context(folder):
    chance = random.Random(7)
    os.makedirs(folder)
    lines = ["FROM scratch"]
    for n in range(LAYERS):
        with open(os.path.join(folder, f"part{n}"), "wb") as out:
            out.write(chance.randbytes(LAYER_SIZE))
        lines.append(f"COPY part{n} /data/part{n}")
    with open(os.path.join(folder, "Dockerfile"), "w") as out:
        out.write("\n".join(lines) + "\n")


class Faults:
    def __init__(self, folder, registry):
        self.folder, self.registry = folder, registry
        self.context = os.path.join(folder, "context")
        self.passed = self.failed = self.count = 0
        make_context(self.context)

    def run(self, stage, port, name, limit="60s"):
        """One stage in a workspace, home and build cache of its own."""
        self.count += 1
        work = tempfile.mkdtemp(prefix="run", dir=self.folder)
        os.symlink(self.context, os.path.join(work, "context")) if stage == "pull" else shutil.copytree(
            self.context, os.path.join(work, "context"))
        with open(os.path.join(work, "t.lua"), "w") as out:
            out.write(SCRIPT % {"ref": f"127.0.0.1:{port}/{name}:t", "push": limit, "pull": limit})
        env = {"PATH": os.environ["PATH"], "HOME": work, "DOCKER_CONFIG": work}
        try:
            done = subprocess.run([PROGRAM, "run", "t.lua", "--stage", stage, "--output", "plain"], cwd=work, env=env,
                                  capture_output=True, text=True, timeout=RUN_LIMIT, errors="replace")
            return work, done.returncode, done.stdout + done.stderr
        except subprocess.TimeoutExpired:
            return work, None, "it did not end"

    def wrong_blob(self, work):
        """A blob of the build cache whose content is not what its name says."""
        blobs = os.path.join(work, ".mlhost/cache/oci/blobs/sha256")
        for name in os.listdir(blobs) if os.path.isdir(blobs) else ():
            with open(os.path.join(blobs, name), "rb") as data:
                if hashlib.sha256(data.read()).hexdigest() != name:
                    return name
        return None

    def unpacked(self, work):
        for n in range(LAYERS):
            with open(os.path.join(work, f"unpacked/data/part{n}"), "rb") as got, \
                    open(os.path.join(self.context, f"part{n}"), "rb") as given:
                if got.read() != given.read():
                    return False
        return True

    def judge(self, stage, work, status, text, name, digest, fault, always, proxy):
        """None when all is well, else what is not."""
        if status is None:
            return text
        if self.wrong_blob(work):
            return "the build cache has a blob under a wrong digest"
        there = self.registry.image(name)
        if stage == "push" and there is not None and there != digest:
            return f"a partial tag: {there}"
        if status == 0:
            if stage == "push" and there != digest:
                return f"it says it pushed {digest}, there is {there}"
            if stage == "pull" and not self.unpacked(work):
                return "it says it pulled, other files are there"
            if always and fault in FATAL and proxy.hit and not (fault == "corrupt-request" and stage == "pull") and not (stage == "push" and there == digest):
                return "it says all is well, and nothing could be"
            return None
        if not proxy.hit:
            return "it failed, and nothing was wrong"
        if not re.search(r"127\.0\.0\.1:\d+|the (stage|registry)|timed out|timeout", text):
            return "the error does not say what went wrong"
        return None

    def one(self, stage, fault, at, digest, source, always):
        proxy = Proxy(self.registry.port, fault, at, always)
        name = source if stage == "pull" else f"faults/n{at}-{fault}-{'on' if always else 'once'}"
        limit = "3s" if fault == "silence" else "20s" if always else "60s"
        begun = time.monotonic()
        try:
            work, status, text = self.run(stage, proxy.port, name, limit)
        finally:
            proxy.close()
        problem = self.judge(stage, work, status, text, name, digest, fault, always, proxy)
        # One fault that a second try gets over must be got over. (A manifest that changed on its way is refused, and that is final.)
        tolerable = ("stall", "429", "429-late", "503", "408", "500", "401-bearer", "refuse", "cut-request", "drop-reply", "cut-reply",
                     "corrupt-request")
        final = fault == "corrupt-request" and re.search(r"PUT \S+/manifests/\S+ answered 400", text)
        if not problem and status != 0 and not always and fault in tolerable and not final:
            problem = "one fault, and it gave up"
        shutil.rmtree(work, ignore_errors=True)
        what = f"{stage}, {fault} {'from' if always else 'at'} request {at}"
        return what, problem, status, text, time.monotonic() - begun

    def plan(self, stage, requests):
        last = len(requests) - 1
        for at in range(len(requests)):
            for fault in FAULTS:
                if fault == "corrupt-request" and not requests[at][2]:
                    continue
                if fault in ("short-reply", "corrupt-reply") and not requests[at][3]:
                    continue
                yield fault, at, False
        for at in sorted({0, last // 2, last}):
            for fault in FAULTS + ("silence",):
                if fault not in ("stall", "429-late", "401-bearer"):
                    yield fault, at, True

    def all(self):
        proxy = Proxy(self.registry.port)
        work, status, text = self.run("push", proxy.port, "calm")
        digest = self.registry.image("calm")
        proxy.close()
        if status != 0 or not digest or not digest.startswith("sha256:"):
            print("FAIL undisturbed push", status, digest, text)
            self.failed += 1
            return
        pushed = list(proxy.seen)
        proxy = Proxy(self.registry.port)
        work, status, text = self.run("pull", proxy.port, "calm")
        proxy.close()
        if status != 0 or not self.unpacked(work):
            print("FAIL undisturbed pull", status, text)
            self.failed += 1
            return
        self.passed += 2
        print(f"undisturbed: a push of {len(pushed)} requests, a pull of {len(proxy.seen)}")
        jobs = [("push",) + job for job in self.plan("push", pushed)] + [("pull",) + job for job in self.plan("pull", proxy.seen)]
        gave_up = 0
        with concurrent.futures.ThreadPoolExecutor(6) as crew:
            done = [crew.submit(self.one, stage, fault, at, digest, "calm", always) for stage, fault, at, always in jobs]
            for job in done:
                what, problem, status, text, seconds = job.result()
                gave_up += status != 0
                if problem:
                    self.failed += 1
                    print(f"FAIL {what}: {problem} (status {status}, {seconds:.1f} s)\n{text}")
                else:
                    self.passed += 1
        print(f"{len(jobs)} faults; {gave_up} ended with an error that says so, in the others the image was right")


def main():
    if not shutil.which("docker-registry"):
        print("SKIPPED faults.registry: no docker-registry")
        print("0 passed, 0 failed")
        return 0
    folder = tempfile.mkdtemp()
    registry = Registry(folder)
    faults = Faults(folder, registry)
    try:
        faults.all()
    finally:
        registry.process.terminate()
        registry.process.wait()
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{faults.passed} passed, {faults.failed} failed")
    return 1 if faults.failed else 0


if __name__ == "__main__":
    sys.exit(main())
