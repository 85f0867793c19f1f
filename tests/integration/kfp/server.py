"""A server of our own on a workspace of its own, and an image to run: busybox, as an OCI layout that skopeo pushes."""
import gzip
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import tarfile
import tempfile

MLHOST = os.path.abspath(os.environ["MLHOST"])


def image_layout(folder, config):
    """An OCI layout with one image: busybox and what tests need beside it."""
    blobs = os.path.join(folder, "blobs", "sha256")
    os.makedirs(blobs)

    def blob(data):
        digest = hashlib.sha256(data).hexdigest()
        with open(os.path.join(blobs, digest), "wb") as out:
            out.write(data)
        return {"digest": "sha256:" + digest, "size": len(data)}

    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        def add(name, data=b"", mode=0o644, kind=tarfile.REGTYPE, link=""):
            info = tarfile.TarInfo(name)
            info.mode, info.type, info.linkname, info.size = mode, kind, link, len(data)
            tar.addfile(info, io.BytesIO(data))
        for name in ("bin", "etc", "home", "tmp", "data"):
            add(name, mode=0o755, kind=tarfile.DIRTYPE)
        with open(shutil.which("busybox"), "rb") as program:
            add("bin/busybox", program.read(), 0o755)
        for applet in subprocess.run(["busybox", "--list"], capture_output=True, text=True, check=True).stdout.split():
            if applet != "busybox":
                add("bin/" + applet, kind=tarfile.SYMTYPE, link="busybox")
        add("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home:/bin/sh\n")
        add("etc/group", b"root:x:0:\napp:x:1000:\n")
        add("etc/marker", b"from the image\n")
    layer = blob(gzip.compress(raw.getvalue(), mtime=0))
    config = blob(json.dumps({
        "architecture": os.uname().machine.replace("x86_64", "amd64").replace("aarch64", "arm64"), "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(raw.getvalue()).hexdigest()]},
    }).encode())
    manifest = blob(json.dumps({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", **config},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", **layer}],
    }).encode())
    with open(os.path.join(folder, "index.json"), "w") as out:
        json.dump({"schemaVersion": 2, "manifests": [
            {"mediaType": "application/vnd.oci.image.manifest.v1+json", **manifest}]}, out)
    with open(os.path.join(folder, "oci-layout"), "w") as out:
        out.write('{"imageLayoutVersion": "1.0.0"}')


class Server:
    """`mlhost serve` on a free port; a context manager."""

    def __init__(self, workspace=None):
        self.own = workspace is None
        self.workspace = workspace or tempfile.mkdtemp(prefix="mlhost-kfp-")
        self.state = os.path.join(self.workspace, ".mlhost", "local", "kubeflow")

    def __enter__(self):
        log = open(os.path.join(self.workspace, "serve.log"), "a")
        self.process = subprocess.Popen([MLHOST, "serve", "--port", "0", "--workspace", self.workspace],
                                        stdout=subprocess.PIPE, stderr=log, text=True)
        self.url = None
        for line in self.process.stdout:
            if "serving http://" in line:
                self.url = line.split()[-1]
                break
        if not self.url:
            self.process.wait()
            raise SystemExit(open(os.path.join(self.workspace, "serve.log")).read())
        return self

    def stop(self, signo=signal.SIGTERM):
        self.process.send_signal(signo)
        self.process.wait(timeout=30)
        self.process.stdout.close()

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.stop()
        if self.own:
            subprocess.run(["rm", "-rf", self.workspace], check=True)

    def push(self, names, config=None):
        """Pushes the busybox image under each of the names (name:tag)."""
        with tempfile.TemporaryDirectory() as folder:
            image_layout(folder, config or {"Env": ["PATH=/bin", "FROM_IMAGE=yes"], "WorkingDir": "/data"})
            for name in names:
                subprocess.run(["skopeo", "copy", "-q", "--insecure-policy", "--dest-tls-verify=false", "oci:" + folder,
                                "docker://" + self.url[len("http://"):] + "/" + name], check=True)
