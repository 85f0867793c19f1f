#!/usr/bin/env python3
"""The Dockerfiles of tests/images: each is built, pushed to a docker-registry, read back there by other code, and its files and
config are those that tree.txt and config.json of its folder tell. Built again, from what was kept and from nothing, it is the
same image to the byte. Where a newer buildah can be had (tests/peers) the same
build goes through it, and it has to tell the same: that is how the texts were made. Docker's builder is the measure where
buildah differs from it: case.json says where, and why.

  build_trees.py [NAME...]           only those whose folder's name has one of these in it
  build_trees.py --accept [NAME...]  writes the texts from buildah's builds instead; read the difference before committing it

$MLHOST is the program; MLHOST_NO_BUILDAH=1 leaves buildah out; MLHOST_TEST_IMAGES is another folder of such cases. Prints
"N passed, N failed" last.
"""
import concurrent.futures
import difflib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import traceback

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
IMAGES = os.path.join(HERE, "../images")
CASES = os.environ.get("MLHOST_TEST_IMAGES", IMAGES)
sys.path.insert(0, IMAGES)
import images  # noqa: E402

MLHOST = os.path.abspath(os.environ.get("MLHOST", os.path.join(HERE, "../../build/mlhost")))
REGISTRY = """version: 0.1
log: {{ level: error, accesslog: {{ disabled: true }} }}
storage: {{ filesystem: {{ rootdirectory: {0}/registry }} }}
http: {{ addr: "127.0.0.1:{1}" }}
"""
# For buildah: this machine may not raise limits; a chroot needs no network of its own, yet it asks for the helper.
CONTAINERS = """[engine]
helper_binaries_dir = ["{0}"]
[containers]
default_ulimits = ["nofile=1024:4096", "nproc=1024:1024"]
"""
SCRIPT = """local registry, fs, json = require "registry", require "fs", require "json"
pipeline "trees" {{ permissions = {{ net = {{ "127.0.0.1" }} }} }}
stage "build" {{ run = function(cx)
  for _, step in ipairs(json.decode(fs.read "steps.json")) do
    local image = registry.build(step.build)
    image:push {{ to = step.to }}
    local again = registry.build(step.build)
    assert(again.digest == image.digest, "the layers that were kept make another image")
    -- nothing kept, and sent while it is made
    step.build.no_cache, step.build.push = true, step.to .. "-again"
    again = registry.build(step.build)
    if again.digest ~= image.digest then again = registry.build(step.build) end    -- see RARE in host/oci/pack.c
    assert(again.digest == image.digest, "made anew it is another image")
  end
end }}
"""


class Case:
    def __init__(self, name, place=CASES):
        self.name = name
        self.folder = os.path.join(place, name)
        told = os.path.join(self.folder, "case.json")
        options = json.load(open(told, encoding="utf-8")) if os.path.exists(told) else {}
        self.dockerfile = options.get("dockerfile", "Dockerfile")
        self.target = options.get("target")
        self.args = options.get("args", {})
        self.base = options.get("base", "busybox")   # what the tree is told relative to: scratch, busybox or debian
        self.first = options.get("first", {})        # Dockerfile -> name, built before and there as ${BUILT}/name:1
        self.volatile = options.get("volatile", [])
        self.differs = options.get("buildah", [])    # where buildah is not Docker: why, its text, the right text

    def text(self, name):
        place = os.path.join(self.folder, name)
        return open(place, encoding="utf-8").read() if os.path.exists(place) else ""

    def prepare(self, folder):
        """The context as the Dockerfile's author has it: modes that git does not keep are set, then setup.sh adds the rest."""
        shutil.copytree(os.path.join(self.folder, "context"), folder, symlinks=True)
        for place, _, files in os.walk(folder):
            os.chmod(place, 0o755)
            for name in files:
                path = os.path.join(place, name)
                if not os.path.islink(path):
                    os.chmod(path, 0o755 if os.stat(path).st_mode & 0o100 else 0o644)
        setup = os.path.join(self.folder, "setup.sh")
        if os.path.exists(setup):
            subprocess.run(["sh", "-eu", setup], cwd=folder, check=True, timeout=60, umask=0o022)


class Trees:
    def __init__(self, work):
        self.work = work
        self.passed = self.failed = 0
        self.skipped = set()
        self.bases = {"scratch": {}}  # name -> tree
        self.layers = {}              # diff id -> tree
        self.known = {}
        self.buildah = None
        self.server = None

    def start(self, cases):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        config = os.path.join(self.work, "registry.yml")
        with open(config, "w", encoding="utf-8") as f:
            f.write(REGISTRY.format(self.work, self.port))
        self.server = subprocess.Popen(["docker-registry", "serve", config], stdout=subprocess.DEVNULL,
                                       stderr=open(os.path.join(self.work, "registry.log"), "wb"))
        self.registry = images.Registry(self.port)
        deadline = time.monotonic() + 30
        while True:
            try:
                self.registry.request("GET", "/v2/")
                break
            except OSError:
                if time.monotonic() > deadline or self.server.poll() is not None:
                    raise
                time.sleep(0.05)
        busybox = images.busybox_layer()
        self.put_base("busybox", busybox, {"Env": ["PATH=" + images.PATH], "Cmd": ["sh"]})
        self.registry.put_image("library/sparse", "1", [busybox, images.sparse_layer()], {"Env": ["PATH=" + images.PATH]})
        self.known[self.bases["busybox"]["bin/busybox"].digest] = "busybox"
        if any(case.base == "debian" for case in cases):
            layer, reason = images.debian_layer()
            if layer:
                self.put_base("debian", layer, {"Env": ["PATH=" + images.PATH], "Cmd": ["bash"]})
            else:
                print("SKIPPED build_trees: the cases on Debian:", reason)

    def put_base(self, name, layer, config):
        self.registry.put_image("library/" + name, "1", [layer], config)
        image = self.registry.image("library/" + name, "1")
        self.bases[name] = self.layers[image.diff_ids[0]] = image.tree()

    def find_buildah(self):
        if os.environ.get("MLHOST_NO_BUILDAH") or os.geteuid() != 0:
            return
        found = subprocess.run([os.path.join(HERE, "../peers"), "buildah"], capture_output=True, text=True)
        if found.returncode:
            print("SKIPPED build_trees: buildah's builds:", found.stderr.strip())
            return
        helpers = os.path.join(self.work, "helpers")
        os.mkdir(helpers)
        with open(os.path.join(helpers, "netavark"), "w", opener=lambda p, f: os.open(p, f, 0o755), encoding="utf-8") as f:
            f.write("#!/bin/sh\nexit 1\n")
        with open(os.path.join(self.work, "containers.conf"), "w", encoding="utf-8") as f:
            f.write(CONTAINERS.format(helpers))
        with open(os.path.join(self.work, "policy.json"), "w", encoding="utf-8") as f:
            f.write('{"default": [{"type": "insecureAcceptAnything"}]}')
        self.buildah = found.stdout.strip()
        # vfs works everywhere and copies the base for each container.
        test = subprocess.run([self.buildah, "--root", os.path.join(self.work, "test/root"), "--runroot",
                               os.path.join(self.work, "test/run"), "--storage-driver", "overlay", "from", "--signature-policy",
                               os.path.join(self.work, "policy.json"), "scratch"], capture_output=True,
                              env={**os.environ, "CONTAINERS_CONF": os.path.join(self.work, "containers.conf")})
        self.driver = "overlay" if test.returncode == 0 else "vfs"

    # ---- builders ----

    def references(self, case, who):
        """Dockerfile, target and reference of each build of a case, in order; then its arguments."""
        host = f"127.0.0.1:{self.port}"
        steps = [(dockerfile, None, f"{who}/{name}:1") for dockerfile, name in case.first.items()]
        steps.append((case.dockerfile, case.target, f"{who}/{case.name}:1"))
        args = {"REGISTRY": host + "/library", "BUILT": f"{host}/{who}", **case.args}
        return [(d, t, f"{host}/{to}") for d, t, to in steps], args

    def build_ours(self, case, folder):
        """-> what went wrong, or None."""
        space = os.path.join(folder, "ours")
        os.mkdir(space)
        case.prepare(os.path.join(space, "context"))
        steps, args = self.references(case, "ours")
        told = []
        for dockerfile, target, to in steps:
            build = {"context": "context", "dockerfile": "context/" + dockerfile, "args": args}
            told.append({"build": build | ({"target": target} if target else {}), "to": to})
        with open(os.path.join(space, "steps.json"), "w", encoding="utf-8") as f:
            json.dump(told, f)
        with open(os.path.join(space, "trees.lua"), "w", encoding="utf-8") as f:
            f.write(SCRIPT.format())
        # With a time of its own a build is the same whenever it is made, RUN included.
        done = subprocess.run([MLHOST, "run", "trees.lua", "--output", "plain"], cwd=space, capture_output=True, text=True,
                              timeout=300, stdin=subprocess.DEVNULL, env={**os.environ, "SOURCE_DATE_EPOCH": "1000000000"})
        return None if done.returncode == 0 else done.stdout + done.stderr

    def build_buildah(self, case, folder):
        space = os.path.join(folder, "buildah")
        case.prepare(os.path.join(space, "context"))
        steps, args = self.references(case, "buildah")
        env = {**os.environ, "CONTAINERS_CONF": os.path.join(self.work, "containers.conf"), "TMPDIR": space, "HOME": space}
        store = [self.buildah, "--root", os.path.join(space, "root"), "--runroot", os.path.join(space, "run"),
                 "--storage-driver", self.driver]
        policy = ["--signature-policy", os.path.join(self.work, "policy.json")]
        commands = []
        for dockerfile, target, to in steps:
            commands.append([*store, "build", "--isolation", "chroot", "--tls-verify=false", "--layers=false", "--format", "docker",
                             "-q", *policy, "-f", dockerfile, "-t", to, *(f"--build-arg={k}={v}" for k, v in args.items()),
                             *(["--target", target] if target else []), "."])
        commands.append([*store, "push", "-q", "--disable-compression", *policy, steps[-1][2],
                         "dir:" + os.path.join(space, "image")])
        for command in commands:
            done = subprocess.run(command, cwd=os.path.join(space, "context"), env=env, capture_output=True, text=True,
                                  timeout=300, stdin=subprocess.DEVNULL)
            if done.returncode:
                return done.stdout + done.stderr
        return None

    # ---- comparison ----

    def texts(self, case, image):
        return {"tree.txt": images.tree_text(image.tree(self.layers), self.bases[case.base], self.known, case.volatile),
                "config.json": images.config_text(image.config)}

    def one(self, case, builders, accept):
        """Builds with these (ours, buildah) and compares with the texts, or writes them. -> failures, number of checks passed"""
        folder = os.path.join(self.work, case.name)
        os.mkdir(folder)
        failures, passed = [], 0
        for who in builders:
            problem = (self.build_ours if who == "ours" else self.build_buildah)(case, folder)
            if problem:
                failures.append(f"{who} does not build:\n{problem}")
                continue
            image = (self.registry.image("ours/" + case.name, "1") if who == "ours" else
                     images.folder_image(os.path.join(folder, "buildah", "image")))
            if who == "ours" and image.problems():
                failures.append("the image: " + "; ".join(image.problems()))
            texts = self.texts(case, image)
            for why, theirs, right in case.differs if who == "buildah" else []:
                if not any(theirs in text for text in texts.values()):
                    failures.append(f"buildah no longer differs here: {why}")
                texts = {name: text.replace(theirs, right, 1) for name, text in texts.items()}
            for name, text in texts.items():
                if accept:
                    with open(os.path.join(case.folder, name), "w", encoding="utf-8") as f:
                        f.write(text)
                wanted = case.text(name)
                if text == wanted:
                    passed += 1
                    continue
                failures.append("".join(difflib.unified_diff(wanted.splitlines(True), text.splitlines(True),
                                                             f"{case.name}/{name}", who)))
        shutil.rmtree(folder)
        return failures, passed

    def run(self, names, accept):
        cases = [Case(name) for name in sorted(os.listdir(CASES)) if os.path.isdir(os.path.join(CASES, name, "context"))]
        cases = [case for case in cases if not names or any(name in case.name for name in names)]
        self.start(cases)
        self.find_buildah()
        if accept and not self.buildah:
            sys.exit("--accept needs buildah")
        cases = [case for case in cases if case.base in self.bases]

        builders = ["buildah"] if accept else ["ours"] + ["buildah"] * bool(self.buildah)
        for case, (failures, passed) in self.each(cases, lambda case: self.one(case, builders, accept)):
            self.passed += passed
            self.failed += len(failures)
            print(f"{'FAIL' if failures else 'ok  '} {case.name}", flush=True)
            for failure in failures:
                print("  " + failure.rstrip("\n").replace("\n", "\n  "), flush=True)

    def each(self, cases, function):
        """Two at a time, in order: (case, what function(case) returned)."""
        def guarded(case):
            try:
                return function(case)
            except Exception:
                return [traceback.format_exc()], 0

        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            yield from zip(cases, pool.map(guarded, cases))


def main():
    accept = "--accept" in sys.argv[1:]
    names = [name for name in sys.argv[1:] if name != "--accept"]
    missing = [tool for tool in ("docker-registry", "busybox") if not shutil.which(tool)]
    if missing:
        print("SKIPPED build_trees: no", ", ".join(missing))
        print("0 passed, 0 failed")
        return
    with tempfile.TemporaryDirectory() as work:
        trees = Trees(work)
        try:
            trees.run(names, accept)
        finally:
            if trees.server:
                trees.server.terminate()
                trees.server.wait()
    print(f"{trees.passed} passed, {trees.failed} failed")
    sys.exit(trees.failed > 0)


if __name__ == "__main__":
    main()
