#!/usr/bin/env python3
"""crane, skopeo, oras and buildah, the newest that Debian has (tests/peers), against the registry of `mlhost serve`: what one
pushes the others pull, digest by digest, and what we push they pull. $MLHOST is the program. Prints "N passed, N failed" last.
"""
import hashlib
import io
import json
import os
import select
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import traceback

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../images"))
import images  # noqa: E402

MLHOST = os.path.abspath(os.environ.get("MLHOST", os.path.join(HERE, "../../build/mlhost")))
DOCKERFILE = """FROM scratch
LABEL made.by=test
COPY --chmod=755 bin /bin
COPY data /data
USER 1000:1000
ENTRYPOINT ["/bin/run"]
"""
SCRIPT = """local registry = require "registry"
pipeline "peers" {{ permissions = {{ net = {{ "127.0.0.1" }}, write = {{ "out" }} }} }}
stage "s" {{ run = function(cx) {0} end }}
"""


class Peers:
    def __init__(self, work):
        self.work = work
        self.passed = self.failed = 0
        self.server = None
        self.tools = {}
        self.env = {**os.environ, "HOME": work, "DOCKER_CONFIG": os.path.join(work, "docker"), "TMPDIR": work,
                    "XDG_RUNTIME_DIR": os.path.join(work, "run"), "CONTAINERS_CONF": os.path.join(work, "containers.conf")}

    def path(self, *names):
        return os.path.join(self.work, *names)

    def write(self, name, data):
        os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
        with open(self.path(name), "wb") as f:
            f.write(data if isinstance(data, bytes) else data.encode())

    def start(self):
        os.makedirs(self.path("ws"))
        os.makedirs(self.path("docker"))
        os.makedirs(self.path("run"))
        self.server = subprocess.Popen([MLHOST, "serve", "--port", "0", "--workspace", self.path("ws")], stdout=subprocess.PIPE,
                                       stderr=open(self.path("serve.log"), "wb"), text=True)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if select.select([self.server.stdout], [], [], 1)[0]:
                line = self.server.stdout.readline()
                if line.startswith("mlhost: serving "):
                    self.host = line.split("http://")[1].strip()
                    self.registry = images.Registry(int(self.host.rsplit(":", 1)[1]))
                    return
                if not line:
                    break
        raise RuntimeError("mlhost serve did not start: " + open(self.path("serve.log"), encoding="utf-8").read())

    def find(self, name):
        """A peer's path, or None: said once."""
        if name not in self.tools:
            found = subprocess.run([os.path.join(HERE, "../peers"), name], capture_output=True, text=True)
            self.tools[name] = found.stdout.strip() if found.returncode == 0 else shutil.which(name)
            if not self.tools[name]:
                print(f"SKIPPED registry_peers: {name}: {found.stderr.strip()}")
        return self.tools[name]

    def run(self, name, *args, status=0, **options):
        done = subprocess.run([self.tools[name], *args], env=self.env, cwd=self.work, capture_output=True, timeout=120,
                              stdin=subprocess.DEVNULL, **options)
        if (done.returncode != 0) != (status != 0):
            raise AssertionError(f"{name} {' '.join(args)}: status {done.returncode}\n"
                                 f"{done.stdout[-2000:].decode(errors='replace')}{done.stderr[-2000:].decode(errors='replace')}")
        return done.stdout if status == 0 else done.stderr

    def text(self, name, *args, **options):
        return self.run(name, *args, **options).decode().strip()

    def ours(self, body):
        self.write("ws/peers.lua", SCRIPT.format(body))
        done = subprocess.run([MLHOST, "run", "peers.lua", "--output", "plain"], cwd=self.path("ws"), capture_output=True, text=True,
                              timeout=120, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, done.stdout + done.stderr

    def is_(self, what, got, wanted):
        assert got == wanted, f"{what}: got {got!r}, wanted {wanted!r}"

    def test(self, name, function):
        try:
            function()
        except Exception:
            self.failed += 1
            print("FAIL", name)
            print("  " + traceback.format_exc().strip().replace("\n", "\n  "))
        else:
            self.passed += 1
            print("ok  ", name)

    # ---- an image of ours, in the registry ----

    def push(self):
        self.write("ws/ctx/Dockerfile", DOCKERFILE)
        self.write("ws/ctx/bin/run", "#!/bin/sh\n")
        self.write("ws/ctx/data/random", os.urandom(300000))
        self.write("ws/ctx/data/zeros", bytes(2 << 20))
        self.ours(f"""registry.build {{ context = "ctx" }}:push {{ to = "{self.host}/ours/app:1" }}""")
        self.image = self.registry.image("ours/app", "1")
        self.tree = self.image.tree()
        self.digest = self.registry.request("HEAD", "/v2/ours/app/manifests/1", Accept=images.ACCEPT)[1]["Docker-Content-Digest"]

    def unchanged(self, name, tag):
        """An image in the registry is ours, byte by byte."""
        data, headers = self.registry.request("GET", f"/v2/{name}/manifests/{tag}", Accept=images.ACCEPT)
        self.is_("digest", images.sha256(data), self.digest)
        self.is_("what the registry says", headers["Docker-Content-Digest"], self.digest)
        self.registry.image(name, tag).tree()

    def same_tree(self, name, tag):
        tree = self.registry.image(name, tag).tree()
        self.is_("paths", sorted(tree), sorted(self.tree))
        for path, node in tree.items():
            self.is_(path, vars(node), vars(self.tree[path]))

    # ---- crane ----

    def crane_reads(self):
        ref = f"{self.host}/ours/app:1"
        self.is_("digest", self.text("crane", "digest", ref), self.digest)
        self.is_("manifest", images.sha256(self.run("crane", "manifest", ref)), self.digest)
        self.is_("config", json.loads(self.text("crane", "config", ref)), self.image.config)
        self.is_("ls", self.text("crane", "ls", f"{self.host}/ours/app"), "1")
        self.text("crane", "validate", "--remote", ref)
        self.text("crane", "validate", "--remote", f"{self.host}/ours/app@{self.digest}")
        data = self.run("crane", "export", ref, "-")
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            names = {images.clean(member.name): member for member in tar.getmembers()}
        self.is_("mode in the export", names["bin/run"].mode, 0o755)
        self.is_("size in the export", names["data/zeros"].size, 2 << 20)

    def crane_copies(self):
        self.text("crane", "copy", f"{self.host}/ours/app:1", f"{self.host}/crane/copied:1")
        self.unchanged("crane/copied", "1")
        self.text("crane", "tag", f"{self.host}/crane/copied:1", "two")
        self.unchanged("crane/copied", "two")
        self.is_("tags", sorted(self.text("crane", "ls", f"{self.host}/crane/copied").split()), ["1", "two"])
        assert "crane/copied" in self.text("crane", "catalog", self.host).split()

    def crane_pulls_and_pushes(self):
        self.text("crane", "pull", "--format=oci", f"{self.host}/ours/app:1", self.path("crane-oci"))
        self.text("crane", "push", self.path("crane-oci"), f"{self.host}/crane/pushed:1")
        self.same_tree("crane/pushed", "1")
        self.text("crane", "pull", f"{self.host}/ours/app:1", self.path("crane.tar"))
        self.text("crane", "validate", "--tarball", self.path("crane.tar"))
        self.text("crane", "push", self.path("crane.tar"), f"{self.host}/crane/tarball:1")
        self.same_tree("crane/tarball", "1")

    def crane_appends(self):
        with tarfile.open(self.path("layer.tar"), "w") as tar:
            for name, data in (("data/zeros", b"replaced"), ("data/.wh.random", b""), ("new/file", b"new")):
                info = tarfile.TarInfo(name)
                info.size, info.mode = len(data), 0o640
                tar.addfile(info, io.BytesIO(data))
        self.text("crane", "append", "-b", f"{self.host}/ours/app:1", "-f", self.path("layer.tar"), "-t",
                  f"{self.host}/crane/appended:1")
        self.text("crane", "mutate", "--label", "changed=yes", "--user", "7", "-t", f"{self.host}/crane/mutated:1",
                  f"{self.host}/crane/appended:1")
        self.text("crane", "flatten", "-t", f"{self.host}/crane/flat:1", f"{self.host}/crane/mutated:1")
        for name in ("appended", "mutated", "flat"):
            tree = self.registry.image("crane/" + name, "1").tree()
            assert "data/random" not in tree and tree["data/zeros"].size == 8 and tree["new/file"].mode == 0o640, name
        self.is_("user", self.registry.image("crane/flat", "1").config["config"]["User"], "7")
        # ours reads what crane made, whiteout included
        self.ours(f"""registry.unpack("{self.host}/crane/mutated:1", "out")""")
        self.is_("our unpack", sorted(os.listdir(self.path("ws/out/data"))), ["zeros"])

    def crane_indexes(self):
        self.text("crane", "index", "append", "-t", f"{self.host}/crane/index:1", "-m", f"{self.host}/ours/app:1", "-m",
                  f"{self.host}/crane/flat:1")
        index = json.loads(self.text("crane", "manifest", f"{self.host}/crane/index:1"))
        assert self.digest in [entry["digest"] for entry in index["manifests"]], index
        self.text("crane", "copy", f"{self.host}/crane/index:1", f"{self.host}/crane/index-copy:1")
        self.is_("digest of the index", self.text("crane", "digest", f"{self.host}/crane/index-copy:1"),
                 self.text("crane", "digest", f"{self.host}/crane/index:1"))

    def crane_deletes(self):
        self.text("crane", "copy", f"{self.host}/ours/app:1", f"{self.host}/crane/gone:1")
        self.text("crane", "delete", f"{self.host}/crane/gone@{self.digest}")
        assert b"MANIFEST_UNKNOWN" in self.run("crane", "manifest", f"{self.host}/crane/gone:1", status=1)

    # ---- skopeo ----

    def skopeo(self, *args, **options):
        return self.text("skopeo", "--policy", self.path("policy.json"), *args, **options)

    def skopeo_copies(self):
        insecure = ["--src-tls-verify=false", "--dest-tls-verify=false"]
        source = f"docker://{self.host}/ours/app:1"
        self.is_("inspect", json.loads(self.skopeo("inspect", "--tls-verify=false", source))["Digest"], self.digest)
        for transport in ("oci:" + self.path("skopeo-oci") + ":1", "dir:" + self.path("skopeo-dir"),
                          "oci-archive:" + self.path("skopeo.tar") + ":1"):
            name = transport.split(":")[0]
            self.skopeo("copy", "-q", "--preserve-digests", "--src-tls-verify=false", source, transport)
            self.skopeo("copy", "-q", "--preserve-digests", "--dest-tls-verify=false", transport,
                        f"docker://{self.host}/skopeo/{name}:1")
            self.unchanged("skopeo/" + name, "1")
        self.skopeo("copy", "-q", *insecure, source, f"docker://{self.host}/skopeo/direct:1")
        self.unchanged("skopeo/direct", "1")
        self.skopeo("copy", "-q", *insecure, "--format", "v2s2", source, f"docker://{self.host}/skopeo/docker:1")
        self.same_tree("skopeo/docker", "1")
        self.skopeo("copy", "-q", *insecure, "--dest-compress-format", "zstd", "--dest-force-compress-format", source,
                    f"docker://{self.host}/skopeo/zstd:1")
        self.ours(f"""registry.unpack("{self.host}/skopeo/zstd:1", "out/zstd")
          registry.unpack("{self.host}/skopeo/docker:1", "out/docker")""")
        for name in ("zstd", "docker"):
            for file in ("data/zeros", "data/random", "bin/run"):
                with open(self.path("ws/out", name, file), "rb") as f, open(self.path("ws/ctx", file), "rb") as g:
                    self.is_(f"{name} {file}", hashlib.sha256(f.read()).digest(), hashlib.sha256(g.read()).digest())

    def skopeo_lists_and_deletes(self):
        self.skopeo("copy", "-q", "--src-tls-verify=false", "--dest-tls-verify=false", f"docker://{self.host}/ours/app:1",
                    f"docker://{self.host}/skopeo/gone:x")
        tags = json.loads(self.skopeo("list-tags", "--tls-verify=false", f"docker://{self.host}/skopeo/gone"))["Tags"]
        self.is_("tags", tags, ["x"])
        self.skopeo("delete", "--tls-verify=false", f"docker://{self.host}/skopeo/gone:x")
        assert "manifest unknown" in self.run("skopeo", "inspect", "--tls-verify=false", f"docker://{self.host}/skopeo/gone:x",
                                              status=1).decode()

    def skopeo_syncs(self):
        self.skopeo("sync", "--src", "docker", "--dest", "dir", "--src-tls-verify=false", f"{self.host}/ours/app",
                    self.path("skopeo-sync"))
        assert os.path.exists(self.path("skopeo-sync", "app:1", "manifest.json")), os.listdir(self.path("skopeo-sync"))

    # ---- oras ----

    def oras_artifacts(self):
        self.write("model.bin", os.urandom(100000))
        self.write("card.md", "# A model\n")
        self.text("oras", "push", "--plain-http", "--artifact-type", "application/vnd.test.model", f"{self.host}/oras/model:1",
                  "model.bin:application/octet-stream", "card.md:text/markdown")
        self.text("oras", "pull", "--plain-http", "-o", self.path("oras-out"), f"{self.host}/oras/model:1")
        for name in ("model.bin", "card.md"):
            with open(self.path(name), "rb") as f, open(self.path("oras-out", name), "rb") as g:
                self.is_(name, f.read(), g.read())
        self.is_("repo ls", "oras/model" in self.text("oras", "repo", "ls", "--plain-http", self.host).split(), True)
        self.is_("repo tags", self.text("oras", "repo", "tags", "--plain-http", f"{self.host}/oras/model"), "1")

    def oras_referrers(self):
        self.write("sbom.json", '{"spdxVersion":"SPDX-2.3"}')
        for kind in ("application/spdx+json", "application/vnd.test.report"):
            self.text("oras", "attach", "--plain-http", "--artifact-type", kind, f"{self.host}/ours/app:1",
                      "sbom.json:application/json")
        found = json.loads(self.text("oras", "discover", "--plain-http", "--format", "json", f"{self.host}/ours/app:1"))
        entries = found.get("referrers") or found.get("manifests")
        self.is_("artifact types", sorted(entry["artifactType"] for entry in entries),
                 ["application/spdx+json", "application/vnd.test.report"])
        one = json.loads(self.text("oras", "discover", "--plain-http", "--format", "json", "--artifact-type",
                                   "application/spdx+json", f"{self.host}/ours/app:1"))
        self.is_("filtered", len(one.get("referrers") or one.get("manifests")), 1)
        # The registry answers itself: no tag stands in for the referrers API.
        self.is_("tags", self.text("oras", "repo", "tags", "--plain-http", f"{self.host}/ours/app"), "1")
        self.text("oras", "cp", "-r", "--from-plain-http", "--to-plain-http", f"{self.host}/ours/app:1", f"{self.host}/oras/copied:1")
        self.unchanged("oras/copied", "1")
        copied = json.loads(self.text("oras", "discover", "--plain-http", "--format", "json", f"{self.host}/oras/copied:1"))
        self.is_("copied referrers", len(copied.get("referrers") or copied.get("manifests")), 2)

    def oras_blobs(self):
        self.write("blob", os.urandom(5000))
        pushed = json.loads(self.text("oras", "blob", "push", "--plain-http", "--descriptor", f"{self.host}/oras/blob", "blob"))
        self.text("oras", "blob", "fetch", "--plain-http", "-o", self.path("blob-back"), f"{self.host}/oras/blob@{pushed['digest']}")
        with open(self.path("blob"), "rb") as f, open(self.path("blob-back"), "rb") as g:
            self.is_("blob", f.read(), g.read())
        self.text("oras", "blob", "delete", "--plain-http", "--force", f"{self.host}/oras/blob@{pushed['digest']}")
        self.run("oras", "blob", "fetch", "--plain-http", "-o", self.path("never"), f"{self.host}/oras/blob@{pushed['digest']}",
                 status=1)

    def oras_layout(self):
        self.text("oras", "cp", "--from-plain-http", "--to-oci-layout", f"{self.host}/ours/app:1", self.path("oras-layout") + ":1")
        self.text("oras", "cp", "--from-oci-layout", "--to-plain-http", self.path("oras-layout") + ":1", f"{self.host}/oras/layout:1")
        self.unchanged("oras/layout", "1")
        self.is_("resolve", self.text("oras", "resolve", "--plain-http", f"{self.host}/oras/layout:1"), self.digest)

    # ---- buildah ----

    def buildah(self, *args):
        return self.text("buildah", "--root", self.path("storage"), "--runroot", self.path("run/storage"), "--storage-driver",
                         "vfs", *args)

    def buildah_builds_on_ours(self):
        policy = ["--signature-policy", self.path("policy.json")]
        self.write("child/Dockerfile", f"FROM {self.host}/ours/app:1\nCOPY Dockerfile /data/Dockerfile\nUSER 5\n")
        self.buildah("build", "-q", "--isolation", "chroot", "--tls-verify=false", *policy, "-t", f"{self.host}/buildah/child:1",
                     self.path("child"))
        self.buildah("push", "-q", "--tls-verify=false", *policy, f"{self.host}/buildah/child:1")
        child = self.registry.image("buildah/child", "1")
        tree = child.tree()
        assert set(self.tree) | {"data/Dockerfile"} == set(tree), sorted(tree)
        self.is_("user", child.config["config"]["User"], "5")
        self.ours(f"""registry.pull "{self.host}/buildah/child:1" """)

    def all(self):
        self.start()
        self.write("docker/config.json", "{}")
        self.write("policy.json", '{"default": [{"type": "insecureAcceptAnything"}]}')
        os.mkdir(self.path("helpers"))
        self.write("helpers/netavark", "#!/bin/sh\nexit 1\n")
        os.chmod(self.path("helpers/netavark"), 0o755)
        self.write("containers.conf", f'[engine]\nhelper_binaries_dir = ["{self.path("helpers")}"]\n'
                   '[containers]\ndefault_ulimits = ["nofile=1024:4096", "nproc=1024:1024"]\n')
        self.push()
        for tool, tests in {
            "crane": [self.crane_reads, self.crane_copies, self.crane_pulls_and_pushes, self.crane_appends, self.crane_indexes,
                      self.crane_deletes],
            "skopeo": [self.skopeo_copies, self.skopeo_lists_and_deletes, self.skopeo_syncs],
            "oras": [self.oras_artifacts, self.oras_referrers, self.oras_blobs, self.oras_layout],
            "buildah": [self.buildah_builds_on_ours],
        }.items():
            if self.find(tool):
                for test in tests:
                    self.test(test.__name__.replace("_", " "), test)
        self.test("the image of the beginning is as it was", lambda: self.unchanged("ours/app", "1"))


def main():
    with tempfile.TemporaryDirectory() as work:
        peers = Peers(work)
        try:
            peers.all()
        finally:
            if peers.server:
                peers.server.terminate()
                peers.server.wait()
    print(f"{peers.passed} passed, {peers.failed} failed")
    sys.exit(peers.failed > 0)


main()
