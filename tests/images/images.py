"""Images as the tests see them: base images made here, a small registry client, an image flattened to a tree, both as text.

Written apart from the program: layers are read by Python's tarfile and zlib, so that what the program writes is judged by
another reader. Nothing is unpacked, so no root is needed and owners, modes and devices are seen as the image has them.
"""
import fnmatch
import gzip
import hashlib
import http.client
import io
import json
import os
import platform
import shutil
import subprocess
import tarfile

CACHE = os.environ.get("MLHOST_VENVS", os.path.expanduser("~/.cache/mlhost"))
OCI = "application/vnd.oci.image."
ACCEPT = ", ".join([OCI + "manifest.v1+json", OCI + "index.v1+json", "application/vnd.docker.distribution.manifest.v2+json",
                    "application/vnd.docker.distribution.manifest.list.v2+json"])
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def sha256(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


# ---- a registry ----

class Registry:
    """One on loopback: what a test needs to put images there and to read what others put there."""

    def __init__(self, port):
        self.port = port

    def request(self, method, path, body=None, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
            reply = connection.getresponse()
            data = reply.read()
            if reply.status >= 300:
                raise OSError(f"{method} {path}: {reply.status} {data[:200]!r}")
            return data, reply.headers
        finally:
            connection.close()

    def put_blob(self, name, data):
        _, headers = self.request("POST", f"/v2/{name}/blobs/uploads/", Content_Length="0")
        place = headers["Location"].split(f":{self.port}", 1)[-1]
        joint = "&" if "?" in place else "?"
        self.request("PUT", f"{place}{joint}digest={sha256(data)}", data, Content_Type="application/octet-stream")

    def put_image(self, name, tag, layers, config):
        """layers: uncompressed tars, or (gzipped tar, diff id)."""
        diff_ids, descriptors = [], []
        for layer in layers:
            data, diff_id = layer if isinstance(layer, tuple) else (gzip.compress(layer, 1, mtime=0), sha256(layer))
            self.put_blob(name, data)
            diff_ids.append(diff_id)
            descriptors.append({"mediaType": OCI + "layer.v1.tar+gzip", "digest": sha256(data), "size": len(data)})
        text = json.dumps({"created": "1970-01-01T00:00:00Z", "architecture": ARCHITECTURE, "os": "linux", "config": config,
                           "rootfs": {"type": "layers", "diff_ids": diff_ids},
                           "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "made for the tests"} for _ in layers],
                           }).encode()
        self.put_blob(name, text)
        manifest = json.dumps({"schemaVersion": 2, "mediaType": OCI + "manifest.v1+json", "layers": descriptors,
                               "config": {"mediaType": OCI + "config.v1+json", "digest": sha256(text), "size": len(text)}}).encode()
        self.request("PUT", f"/v2/{name}/manifests/{tag}", manifest, Content_Type=OCI + "manifest.v1+json")

    def image(self, name, tag):
        manifest = json.loads(self.request("GET", f"/v2/{name}/manifests/{tag}", Accept=ACCEPT)[0])
        return Image(manifest, lambda digest: self.request("GET", f"/v2/{name}/blobs/{digest}")[0])


class Image:
    """An image wherever it is; every digest and size that is read is checked."""

    def __init__(self, manifest, read):
        self.manifest, self.read = manifest, read
        self.config = json.loads(self.blob(manifest["config"]))
        self.diff_ids = self.config["rootfs"]["diff_ids"]

    def blob(self, descriptor):
        data = self.read(descriptor["digest"])
        assert sha256(data) == descriptor["digest"] and len(data) == descriptor["size"], descriptor
        return data

    def tree(self, known=None):
        """path -> Node. known: diff id of a lowest layer -> its tree, so that it need not be read again."""
        tree, first = {}, 0
        if known and self.diff_ids[:1] and self.diff_ids[0] in known:
            tree, first = dict(known[self.diff_ids[0]]), 1
        for descriptor, diff_id in list(zip(self.manifest["layers"], self.diff_ids))[first:]:
            data = self.blob(descriptor)
            data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
            assert sha256(data) == diff_id, f"the layer {descriptor['digest']} has not the diff id that the config says"
            apply_layer(tree, data)
        tree.pop("", None)
        return tree

    def problems(self):
        """What the image spec asks of any image and this one has not, as texts."""
        problems, config = [], self.config
        if len(self.diff_ids) != len(self.manifest["layers"]):
            problems.append(f"{len(self.diff_ids)} diff ids for {len(self.manifest['layers'])} layers")
        told = [item for item in config.get("history", []) if not item.get("empty_layer")]
        if config.get("history") and len(told) != len(self.diff_ids):
            problems.append(f"the history tells of {len(told)} layers, there are {len(self.diff_ids)}")
        if (config.get("os"), config.get("architecture")) != ("linux", ARCHITECTURE):
            problems.append(f"made for {config.get('os')}/{config.get('architecture')}")
        if self.manifest.get("schemaVersion") != 2 or self.manifest["config"]["mediaType"] != OCI + "config.v1+json":
            problems.append("the manifest is not OCI's")
        return problems


def folder_image(place):
    """What skopeo and buildah write as dir:PLACE."""
    def read(digest):
        with open(os.path.join(place, digest.split(":")[1]), "rb") as f:
            return f.read()

    with open(os.path.join(place, "manifest.json"), encoding="utf-8") as f:
        return Image(json.load(f), read)


# ---- base images ----

def busybox_layer():
    """A root file system of busybox, with the users, groups and folders that such images have."""
    program = shutil.which("busybox")
    applets = subprocess.run([program, "--list"], capture_output=True, text=True, check=True).stdout.split()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        def add(name, kind=tarfile.REGTYPE, mode=0o644, data=b"", link="", uid=0, gid=0):
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.linkname, info.size, info.uid, info.gid = kind, mode, link, len(data), uid, gid
            tar.addfile(info, io.BytesIO(data))

        for folder in ("bin dev etc home lib opt proc run srv sys usr usr/bin usr/lib usr/local usr/local/bin usr/local/lib "
                       "usr/sbin usr/share var var/cache var/lib var/log var/www").split():
            add(folder, tarfile.DIRTYPE, 0o755)
        add("home/app", tarfile.DIRTYPE, 0o755, uid=1000, gid=1000)
        add("root", tarfile.DIRTYPE, 0o700)
        add("tmp", tarfile.DIRTYPE, 0o1777)
        add("var/tmp", tarfile.DIRTYPE, 0o1777)
        with open(program, "rb") as f:
            add("bin/busybox", mode=0o755, data=f.read())
        for applet in sorted(set(applets) - {"busybox"}):
            add("bin/" + applet, tarfile.SYMTYPE, 0o777, link="busybox")
        add("usr/bin/env", tarfile.SYMTYPE, 0o777, link="../../bin/busybox")
        add("etc/passwd", data=b"root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\n"
            b"www-data:x:33:33:www-data:/var/www:/bin/false\napp:x:1000:1000:app:/home/app:/bin/sh\n"
            b"nobody:x:65534:65534:nobody:/:/bin/false\n")
        add("etc/group", data=b"root:x:0:\ndaemon:x:1:\nstaff:x:50:app\nwww-data:x:33:\napp:x:1000:\nnogroup:x:65534:\n")
        add("etc/shadow", mode=0o640, gid=42, data=b"root:*:::::::\napp:!:::::::\n")
        add("etc/os-release", data=b"ID=busybox\nNAME=BusyBox\n")
        for name in ("hosts", "hostname", "resolv.conf"):  # runtimes mount over them: there already, none is left behind
            add("etc/" + name)
    return out.getvalue()


def sparse_layer():
    """As some tools write layers: files without the folders that they are in."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, uid in (("tmp/dropped", 0), ("home/app/deep/file", 1000), ("root/.config", 0)):
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.uid, info.gid = 2, 0o644, uid, uid
            tar.addfile(info, io.BytesIO(b"x\n"))
    return out.getvalue()


def debian_layer():
    """Debian 12, minimal, by debootstrap: made once, kept. -> gzipped tar, diff id; or None and why not."""
    place = os.path.join(CACHE, f"debian-12-minbase-{ARCHITECTURE}.tar.gz")
    if not os.path.exists(place):
        if not shutil.which("debootstrap") or os.geteuid() != 0:
            return None, "no debootstrap, or not root"
        folder = place + f".{os.getpid()}"
        os.makedirs(os.path.dirname(place), exist_ok=True)
        try:
            made = subprocess.run(["debootstrap", "--variant=minbase", "bookworm", folder, *mirror()], capture_output=True, text=True,
                                  timeout=300)
            if made.returncode:
                return None, "debootstrap: " + (made.stdout + made.stderr).strip().split("\n")[-1]
            shutil.rmtree(folder + "/var/cache/apt/archives", ignore_errors=True)
            tar = subprocess.run(["tar", "-C", folder, "--sort=name", "--numeric-owner", "--mtime=@0", "--exclude=./dev/*",
                                  "--exclude=./var/lib/apt/lists/*", "-c", "."], stdout=subprocess.PIPE, check=True).stdout
            with open(folder + ".gz", "wb") as f:
                f.write(gzip.compress(tar, 1, mtime=0))
            os.rename(folder + ".gz", place)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    with open(place, "rb") as f:
        data = f.read()
    return (data, sha256(gzip.decompress(data))), None


def mirror():
    """The mirror of this machine's apt, if it has one for Debian 12."""
    targets = subprocess.run(["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages"],
                             capture_output=True, text=True).stdout
    return [line.split()[0] for line in targets.splitlines() if line.split()[1:] == ["bookworm", "main"]][:1]


# ---- a tree ----

class Node:
    """A file, folder, link or device; two names of one node are hard links."""

    def __init__(self, member, data):
        kinds = {tarfile.REGTYPE: "f", tarfile.AREGTYPE: "f", tarfile.DIRTYPE: "d", tarfile.SYMTYPE: "l", tarfile.CHRTYPE: "c",
                 tarfile.BLKTYPE: "b", tarfile.FIFOTYPE: "p"}
        self.kind = kinds[member.type]
        self.mode, self.uid, self.gid = member.mode & 0o7777, member.uid, member.gid
        self.target = member.linkname if self.kind == "l" else ""
        self.device = (member.devmajor, member.devminor) if self.kind in "cb" else None
        self.digest = sha256(data)[7:23] if self.kind == "f" else ""
        self.size = len(data) if self.kind == "f" else 0
        self.xattrs = {k[len("SCHILY.xattr."):]: v for k, v in member.pax_headers.items() if k.startswith("SCHILY.xattr.")}

    def same(self, other):
        return vars(self) == vars(other)


def clean(name):
    name = name.strip("/")
    while name.startswith("./"):
        name = name[2:]
    parts = name.split("/")
    if ".." in parts or (name and "" in parts):
        raise ValueError(f"a layer has the path {name!r}")
    return "" if name == "." else name


def apply_layer(tree, data):
    """tree: path -> Node. Whiteouts apply to what was there before this layer, wherever they stand in it."""
    lower, seen = dict(tree), set()

    def remove(path):
        for other in [p for p in tree if (p == path or p.startswith(path + "/")) and p in lower and tree[p] is lower[p]]:
            del tree[other]

    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = tar.getmembers()
        for member in members:
            path = clean(member.name)
            if path in seen:
                raise ValueError(f"a layer has {path!r} twice")
            seen.add(path)
        for member in members:
            folder, name = os.path.split(clean(member.name))
            if name == ".wh..wh..opq":
                for path in [p for p in lower if p.startswith(folder + "/")]:
                    remove(path)
            elif name.startswith(".wh."):
                remove(os.path.join(folder, name[4:]))
        for member in members:
            path = clean(member.name)
            if os.path.basename(path).startswith(".wh."):
                continue
            if member.islnk():
                node = tree[clean(member.linkname)]
            else:
                node = Node(member, tar.extractfile(member).read() if member.isfile() else b"")
            old = tree.get(path)
            if old and old.kind == "d" and node.kind != "d":
                for other in [p for p in tree if p.startswith(path + "/")]:
                    del tree[other]
            tree[path] = node
    return tree


def quote(text):
    return "".join(c if c.isprintable() and c not in " \\" else "".join(f"\\x{b:02x}" for b in c.encode("utf-8", "surrogateescape"))
                   for c in text)


def tree_text(tree, base, known, volatile):
    """What `tree` has that `base` has not, line by line. known: digest -> name instead of it. volatile: patterns of paths of
    whose files the content is not looked at."""
    names = {}
    for path in sorted(tree):
        names.setdefault(id(tree[path]), []).append(path)
    lines = []
    for path in sorted(tree):
        node = tree[path]
        if path in base and node.same(base[path]):
            continue
        first = names[id(node)][0]
        if first != path:
            lines.append(f"h {quote(path)} = {quote(first)}")
            continue
        line = f"{node.kind} {node.mode:04o} {node.uid}:{node.gid} {quote(path)}"
        if node.kind == "l":
            line = f"l {node.uid}:{node.gid} {quote(path)} -> {quote(node.target)}"
        elif node.kind == "f":
            vague = any(fnmatch.fnmatch(path, pattern) for pattern in volatile)
            line += " *" if vague else " " + known.get(node.digest, f"{node.size} {node.digest}")
        elif node.device:
            line += " %d:%d" % node.device
        for name, value in sorted(node.xattrs.items()):
            line += f" {name}={quote(value)}"
        lines.append(line)
    gone = sorted(path for path in base if path not in tree)
    lines += [f"- {quote(path)}" for path in gone if os.path.dirname(path) not in gone]
    return "\n".join(lines) + "\n"


# Of a config's fields those of the image spec, and the three that Docker adds; others are about the container that built it.
MEANT = ("User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels", "StopSignal", "Healthcheck",
         "OnBuild", "Shell")


def config_text(config):
    """What a container sees: the config, without what names its builder, and with what is the same said the same way."""
    inner = {k: v for k, v in config.get("config", {}).items() if k in MEANT and v not in (None, "", [], {})}
    labels = {k: v for k, v in inner.pop("Labels", {}).items() if k != "io.buildah.version"}
    if labels:
        inner["Labels"] = labels
    inner.setdefault("WorkingDir", "/")
    if config.get("author"):
        inner["author"] = config["author"]
    return json.dumps(inner, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
