#!/usr/bin/env python3
"""Images that we build run: under runc, in a bundle of our unpacking, and under podman where it is. And they unpack to the same
files, whoever does it: we, umoci after skopeo, tar layer by layer. But for one thing: a folder that a script unpacks an image
into is open to all of the machine, so nothing in it is setuid or setgid. For root; $MLHOST is the program. Prints "N passed, N
failed" last.
"""
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
import traceback

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../images"))
import images  # noqa: E402

MLHOST = os.path.abspath(os.environ.get("MLHOST", os.path.join(HERE, "../../build/mlhost")))
REGISTRY = """version: 0.1
log: {{ level: error, accesslog: {{ disabled: true }} }}
storage: {{ filesystem: {{ rootdirectory: {0}/registry }} }}
http: {{ addr: "127.0.0.1:{1}" }}
"""
# What it prints depends on nearly everything: the command, its shell, the user, the folder, variables, links, modes, owners, what
# was removed, what a later layer replaced.
DOCKERFILE = """ARG REGISTRY
FROM ${REGISTRY}/busybox:1 AS tools
RUN mkdir -p /made/deep && echo one >/made/one && ln /made/one /made/deep/hard && ln -s ../one /made/deep/soft \\
 && echo gone >/made/gone && chmod 2750 /made/deep && chown -R app:staff /made/deep
FROM ${REGISTRY}/busybox:1
COPY --from=tools /made /made
COPY --chown=app:app program /usr/local/bin/program
RUN chmod 755 /usr/local/bin/program && rm /made/gone /etc/os-release && mkfifo /made/pipe \\
 && mkdir /made/empty && rm -r /usr/share && mkdir /usr/share && echo "$(id -u):$(pwd)" >/made/by-run
ENV GREETING="hello  you" NUMBER=5
RUN echo $((NUMBER * 2)) >>/made/by-run
USER app:staff
WORKDIR /home/app/work
ENTRYPOINT ["/usr/local/bin/program", "first arg"]
CMD ["second", "$GREETING"]
"""
PROGRAM = """#!/bin/sh
echo "user $(id -u):$(id -g)"
echo "folder $(pwd)"
echo "greeting $GREETING"
for word; do echo "argument $word"; done
cat /made/by-run /made/deep/soft
stat -c '%a %u:%g %h %F' /made/deep /made/deep/hard /made/pipe /tmp /home/app/work
ls -A /usr/share /made
test ! -e /etc/os-release && echo removed
touch mine && stat -c '%u:%g' mine
"""
PRINTED = """user 1000:50
folder /home/app/work
greeting hello  you
argument first arg
argument second
argument $GREETING
0:/
10
one
{0} 1000:50 2 directory
644 1000:50 2 regular file
644 0:0 1 fifo
1777 0:0 2 directory
755 1000:50 2 directory
/made:
by-run
deep
empty
one
pipe

/usr/share:
removed
1000:50
"""
SCRIPT = """local registry = require "registry"
pipeline "run" {{ permissions = {{ net = {{ "127.0.0.1" }}, write = {{ "rootfs" }} }} }}
stage "s" {{ run = function()
  registry.build {{ context = "ctx", args = {{ REGISTRY = "{0}/library" }} }}:push {{ to = "{0}/team/app:1" }}
  registry.unpack("{0}/team/app:1", "rootfs")
end }}
"""


SET_IDS = stat.S_ISUID | stat.S_ISGID


def walk(root):
    """path -> what can be told of it, but its times and whether it is setuid or setgid."""
    out, inodes = {}, {}
    for folder, folders, files in os.walk(root):
        for name in folders + files:
            path = os.path.join(folder, name)
            st = os.lstat(path)
            kind = stat.S_IFMT(st.st_mode)
            content = ""
            if kind == stat.S_IFLNK:
                content = os.readlink(path)
            elif kind == stat.S_IFREG:
                with open(path, "rb") as f:
                    content = images.sha256(f.read())
            relative = os.path.relpath(path, root)
            mode = 0 if kind == stat.S_IFLNK else st.st_mode & 0o7777 & ~SET_IDS
            out[relative] = [kind, mode, st.st_uid, st.st_gid, content,
                             {key: os.getxattr(path, key, follow_symlinks=False) for key in os.listxattr(path, follow_symlinks=False)}]
            if kind != stat.S_IFDIR and st.st_nlink > 1:
                inodes.setdefault(st.st_ino, []).append(relative)
    for names in inodes.values():
        for name in names:
            out[name].append(sorted(names))
    return out


class Runs:
    def __init__(self, work):
        self.work = work
        self.passed = self.failed = 0
        self.server = None

    def path(self, *names):
        return os.path.join(self.work, *names)

    def start(self):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        with open(self.path("registry.yml"), "w", encoding="utf-8") as f:
            f.write(REGISTRY.format(self.work, port))
        self.server = subprocess.Popen(["docker-registry", "serve", self.path("registry.yml")], stdout=subprocess.DEVNULL,
                                       stderr=open(self.path("registry.log"), "wb"))
        self.host, self.registry = f"127.0.0.1:{port}", images.Registry(port)
        deadline = time.monotonic() + 30
        while True:
            try:
                self.registry.request("GET", "/v2/")
                return
            except OSError:
                if time.monotonic() > deadline or self.server.poll() is not None:
                    raise
                time.sleep(0.05)

    def command(self, *command, **options):
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL, **options)
        assert done.returncode == 0, f"{' '.join(command)}: status {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

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

    def is_(self, what, got, wanted):
        assert got == wanted, f"{what}:\n{got}\nwanted:\n{wanted}"

    def same(self, got, wanted):
        """Trees; what differs is told, not all that there is."""
        differing = [f"{path}: {got.get(path)}, wanted {wanted.get(path)}" for path in sorted(set(got) | set(wanted))
                     if got.get(path) != wanted.get(path)]
        assert not differing, "\n".join(differing[:20])

    def peer(self, name):
        """A program of the system, else a newer one; None when there is neither."""
        found = shutil.which(name)
        if not found:
            done = subprocess.run([os.path.join(HERE, "../peers"), name], capture_output=True, text=True)
            found = done.stdout.strip() if done.returncode == 0 else None
            if not found:
                print(f"SKIPPED image_runs: no {name}: {done.stderr.strip()}")
        return found

    def build(self):
        self.registry.put_image("library/busybox", "1", [images.busybox_layer()], {"Env": ["PATH=" + images.PATH], "Cmd": ["sh"]})
        os.makedirs(self.path("ctx"))
        for name, text in (("Dockerfile", DOCKERFILE), ("program", PROGRAM)):
            with open(self.path("ctx", name), "w", encoding="utf-8") as f:
                f.write(text)
        with open(self.path("run.lua"), "w", encoding="utf-8") as f:
            f.write(SCRIPT.format(self.host))
        self.command(MLHOST, "run", "run.lua", "--output", "plain", cwd=self.work)
        self.image = self.registry.image("team/app", "1")

    def unpacked_is_the_tree(self):
        """What we unpacked is what the layers say, read by other code."""
        found, tree = walk(self.path("rootfs")), self.image.tree()
        self.is_("paths", sorted(found), sorted(tree))
        letters = {stat.S_IFREG: "f", stat.S_IFDIR: "d", stat.S_IFLNK: "l", stat.S_IFIFO: "p"}
        for path, node in tree.items():
            kind, mode, uid, gid, content = found[path][:5]
            self.is_(path, (letters[kind], uid, gid), (node.kind, node.uid, node.gid))
            if node.kind == "l":
                self.is_(path, content, node.target)
            else:
                self.is_(path, mode, node.mode & ~SET_IDS)
            if node.kind == "f":
                self.is_(path, content[7:23], node.digest)
        self.is_("made/deep in the image", tree["made/deep"].mode, 0o2750)
        self.is_("made/deep unpacked", stat.S_IMODE(os.stat(self.path("rootfs/made/deep")).st_mode), 0o750)

    def runc_runs_it(self):
        bundle = self.path("bundle")
        os.mkdir(bundle)
        self.command("cp", "-a", self.path("rootfs"), bundle)
        self.command(self.runc, "spec", cwd=bundle)
        place = os.path.join(bundle, "config.json")
        with open(place, encoding="utf-8") as f:
            spec = json.load(f)
        config = self.image.config["config"]
        uid, gid = 1000, 50
        self.is_("user", config["User"], "app:staff")
        spec["process"] |= {"terminal": False, "args": config["Entrypoint"] + config["Cmd"], "env": config["Env"],
                            "cwd": config["WorkingDir"], "user": {"uid": uid, "gid": gid}}
        spec["root"] = {"path": "rootfs", "readonly": False}
        with open(place, "w", encoding="utf-8") as f:
            json.dump(spec, f)
        name = f"mlhost-test-{os.getpid()}"
        self.is_("what it prints", self.command(self.runc, "--root", self.path("runc"), "run", "--bundle", bundle, name),
                 PRINTED.format(750))

    def podman_runs_it(self):
        podman = ["podman", "--root", self.path("podman/root"), "--runroot", self.path("podman/run"), "--storage-driver", "vfs",
                  "--runtime", "runc", "--cgroup-manager", "cgroupfs", "--events-backend", "none"]
        policy = self.path("policy.json")
        with open(policy, "w", encoding="utf-8") as f:
            f.write('{"default": [{"type": "insecureAcceptAnything"}]}')
        env = {**os.environ, "HOME": self.work, "XDG_RUNTIME_DIR": self.path("podman/xdg")}
        ref = f"{self.host}/team/app:1"
        os.makedirs(self.path("podman/xdg"))
        self.command(*podman, "pull", "-q", "--tls-verify=false", "--signature-policy", policy, ref, env=env)
        # This machine may not raise limits, so they are told.
        self.is_("what it prints", self.command(*podman, "run", "--rm", "--network=none", "--ulimit", "nofile=1024:4096", "--ulimit",
                                                "nproc=1024:1024", ref, env=env), PRINTED.format(2750))

    def umoci_unpacks_the_same(self):
        self.command("skopeo", "copy", "-q", "--insecure-policy", "--src-tls-verify=false", f"docker://{self.host}/team/app:1",
                     f"oci:{self.path('layout')}:1")
        self.command(self.umoci, "unpack", "--image", self.path("layout") + ":1", self.path("umoci"))
        self.same(walk(self.path("rootfs")), walk(self.path("umoci/rootfs")))

    def tar_unpacks_the_same(self):
        """Layer by layer; whiteouts are the one thing that tar does not know."""
        os.mkdir(self.path("tar"))
        for number, descriptor in enumerate(self.image.manifest["layers"]):
            layer = self.path(f"layer{number}.tar.gz")
            with open(layer, "wb") as f:
                f.write(self.image.blob(descriptor))
            names = self.command("tar", "-tzf", layer).splitlines()
            for name in names:
                folder, leaf = os.path.split(name)
                if leaf == ".wh..wh..opq":
                    shutil.rmtree(self.path("tar", folder))
                elif leaf.startswith(".wh."):
                    self.command("rm", "-rf", self.path("tar", folder, leaf[4:]))
            self.command("tar", "--numeric-owner", "-pxzf", layer, "--exclude=.wh.*", "-C", self.path("tar"))
        self.same(walk(self.path("rootfs")), walk(self.path("tar")))

    def all(self):
        self.start()
        self.build()
        self.test("what we unpack is what the layers say", self.unpacked_is_the_tree)
        self.runc = self.peer("runc")
        if self.runc:
            self.test("runc runs it", self.runc_runs_it)
        if shutil.which("podman") and shutil.which("runc"):
            self.test("podman runs it", self.podman_runs_it)
        self.umoci = self.peer("umoci")
        if self.umoci:
            self.test("skopeo and umoci unpack the same", self.umoci_unpacks_the_same)
        self.test("tar unpacks the same", self.tar_unpacks_the_same)


def main():
    missing = [tool for tool in ("docker-registry", "busybox", "skopeo") if not shutil.which(tool)]
    if os.geteuid() != 0:
        missing.append("root")
    if missing:
        print("SKIPPED image_runs: no", ", ".join(missing))
        print("0 passed, 0 failed")
        return
    with tempfile.TemporaryDirectory() as work:
        runs = Runs(work)
        try:
            runs.all()
        finally:
            if runs.server:
                runs.server.terminate()
                runs.server.wait()
    print(f"{runs.passed} passed, {runs.failed} failed")
    sys.exit(runs.failed > 0)


main()
