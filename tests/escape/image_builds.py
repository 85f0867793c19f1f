#!/usr/bin/env python3
"""RUN on base images and in commands that mean harm: layers whose links and names lead to the host, marks of removals that name nothing
or everything, a shell that is none, files that stand where mounts belong, commands that leave processes, devices, holes and full disks.
As root, as a normal user with ranges of ids, and as one without (../integration/build_run.py). Nothing on the host may change, and what
cannot be built must say where and why. $MLHOST is the program. Prints "N passed, N failed" last."""
import gzip
import hashlib
import http.server
import io
import json
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import threading
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../integration"))
import build_run  # noqa: E402
from build_run import MARK, left_behind  # noqa: E402

FOLDER, LINK, HARD, FIFO, DEVICE = tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE
KINDS = (FOLDER, LINK, HARD, FIFO, DEVICE)
UP = "../" * 12
OF_THE_HOST = "of the host"


class Bases(http.server.BaseHTTPRequestHandler):
    """A registry that has what no tool would make."""
    protocol_version = "HTTP/1.1"
    blobs, manifests, port = {}, {}, 0

    def do_GET(self):
        words = self.path.split("/")
        data = b"{}" if self.path == "/v2/" else (self.blobs if words[-2:-1] == ["blobs"] else self.manifests).get(words[-1])
        self.send_response(404 if data is None else 200)
        if words[-2:-1] == ["manifests"]:
            self.send_header("Content-Type", "application/vnd.oci.image.manifest.v1+json")
        self.send_header("Content-Length", str(len(data or b"")))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data or b"")

    do_HEAD = do_GET

    def log_message(self, *_):
        pass

    @classmethod
    def blob(cls, data, kind):
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        cls.blobs[digest] = data
        return {"mediaType": "application/vnd.oci.image." + kind, "digest": digest, "size": len(data)}

    @classmethod
    def put(cls, layers):
        """-> FROM ... of an image with these layers, each a list of entries: name, one of KINDS or a text, more of its header."""
        told, ids = [], []
        for entries in layers:
            tar = tar_of(entries)
            told.append(cls.blob(gzip.compress(tar, 1, mtime=0), "layer.v1.tar+gzip"))
            ids.append("sha256:" + hashlib.sha256(tar).hexdigest())
        config = {"architecture": "amd64", "os": "linux", "config": {"Env": ["PATH=/bin"]}, "rootfs": {"type": "layers", "diff_ids": ids}}
        manifest = json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                               "config": cls.blob(json.dumps(config).encode(), "config.v1+json"), "layers": told}).encode()
        digest = cls.blob(manifest, "manifest.v1+json")["digest"]
        cls.manifests["1"] = cls.manifests[digest] = manifest
        return f"FROM 127.0.0.1:{cls.port}/base@{digest}\n"


def tar_of(entries):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, what, *more in entries:
            data = b"" if what in KINDS else what
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o755
            if what in KINDS:
                member.type = what
            for key, value in (more[0] if more else {}).items():
                setattr(member, key, value)
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


def to(path):
    return {"linkname": path}


def tools():
    """busybox under the names that the tests use."""
    names = "sh ls cat test echo mkdir touch ln rm dd truncate sleep mknod chmod stat wc true id sync".split()
    entries = [("bin", FOLDER)]
    for name in ("busybox", "probe"):
        with open(os.path.join(build_run.TOOLS, name), "rb") as file:
            entries.append(("bin/" + name, file.read()))
    return entries + [("bin/" + name, LINK, to("busybox")) for name in names]


class Host:
    """A folder of the host that everybody may write to, which no build may touch."""

    def __init__(self, place):
        self.folder = place.folder + "-host"
        shutil.rmtree(self.folder, ignore_errors=True)
        for name in ("", "etc", "dev", "proc", "tmp", "trap"):
            os.makedirs(os.path.join(self.folder, name), exist_ok=True)
            os.chmod(os.path.join(self.folder, name), 0o777)
        for name in ("etc/hosts", "etc/resolv.conf", "etc/passwd", "proc/version", "dev/null", "tmp/file", "trap/file"):
            path = os.path.join(self.folder, name)
            with open(path, "w") as file:
                file.write(OF_THE_HOST)
            os.chmod(path, 0o666)
        self.before = self.now()

    def now(self):
        found = {}
        for folder, folders, files in os.walk(self.folder):
            for name in folders + files:
                st = os.lstat(os.path.join(folder, name))
                found[os.path.join(folder, name)] = (st.st_ino, st.st_mode, st.st_uid, st.st_size, st.st_mtime_ns, st.st_ctime_ns)
        return found

    def check(self, place, what):
        place.check(f"{what}: the host is as it was", self.now() == self.before, self.now())


def try_build(place, what, text, head, *words, **more):
    """One that may build or not, but ends well: with an image, or an error that has the words."""
    place.prepare(head + text, **{"net": True, **more})
    began = time.monotonic()
    status = place.run()
    said = [line for line in place.told.splitlines() if "rror:" in line]
    good = status == 0 or (said and (not words or all(word in place.told for word in words)))
    place.check(f"{what}: ends well", good and "crashed" not in place.told and status >= 0)
    place.check(f"{what}: in time", time.monotonic() - began < 60)
    place.check(f"{what}: shows nothing of the host", OF_THE_HOST not in place.told)
    return status


USE_ALL = """WORKDIR /trap/work
COPY a.txt /trap/
COPY a.txt /etc/hosts
RUN --mount=type=cache,target=/trap/cache --mount=type=secret,id=s,target=/trap/secret --mount=type=tmpfs,target=/trap/tmp \
cat /etc/hosts /etc/passwd /trap/file /tmp/file; echo planted > /etc/planted; echo planted > /tmp/planted; echo planted > /trap/planted; \
echo planted > /dev/planted; ls -la /proc /dev /etc /tmp /trap; true
RUN --mount=type=bind,target=/tmp/context,rw touch /tmp/context/x; rm -rf /etc/* /tmp/* /trap/*; true
"""
MORE = {"files": {"a.txt": "of the context\n"}, "options": 'secrets = { s = "of-the-build" }'}


def links(place):
    """Each place where something is mounted or written leads to the host."""
    host = Host(place)
    names = ("etc", "proc", "dev", "tmp", "trap")
    for what, lead in (("absolute links", host.folder + "/"), ("links that go up", UP + host.folder[1:] + "/"),
                       ("links through /proc", "/proc/1/root" + host.folder + "/"), ("links through /proc/self/cwd", "/proc/self/cwd/" + UP + host.folder[1:] + "/")):
        head = Bases.put([tools(), [(name, LINK, to(lead + name)) for name in names]])
        try_build(place, what, USE_ALL, head, "context/Dockerfile:", **MORE)
        host.check(place, what)
    files = [("etc", FOLDER)] + [("etc/" + name, LINK, to(host.folder + "/etc/" + name)) for name in ("hosts", "resolv.conf", "passwd", "group")]
    try_build(place, "files that are links", USE_ALL, Bases.put([tools(), files]), **MORE)
    host.check(place, "files that are links")
    for what, entries in (("all is the root", [(name, LINK, to("/")) for name in names]), ("all is one", [("etc", LINK, to("proc")), ("proc", LINK, to("dev")),
                          ("dev", FOLDER), ("tmp", LINK, to("etc")), ("trap", LINK, to("etc/../trap/.."))]),
                          ("/dev is /bin", [("dev", LINK, to("bin"))]), ("loops", [(name, LINK, to("/" + name)) for name in names])):
        try_build(place, what, USE_ALL, Bases.put([tools(), entries]), "context/Dockerfile:", **MORE)
        host.check(place, what)
    place.check("no scratch folder is left", not place.scratch(), place.scratch())


def names(place):
    """Entries that would be written elsewhere."""
    host = Host(place)
    aim = host.folder[1:] + "/etc/hosts"
    run = "RUN ls -la /; cat /stolen /l/etc/hosts; true\n"
    for what, entries in (("a name that goes up", [(UP + aim, b"planted")]), ("a name that goes up later", [("bin/" + UP + aim, b"planted")]),
                          ("a whiteout that goes up", [(UP + os.path.dirname(aim) + "/.wh.hosts", b"")]),
                          ("a hard link that goes up", [("stolen", HARD, to(UP + aim))])):
        head = Bases.put([tools(), entries])
        place.prepare(head + run, net=True)
        status = place.run()
        place.check(what + ": is refused, and says where", status != 0 and "context/Dockerfile:" in place.told and "layer" in place.told)
        host.check(place, what)
    inside = [("l", LINK, to(host.folder)), ("l/etc/hosts", b"planted"), ("l/.wh.tmp", b""), ("l/dev/.wh..wh..opq", b""), ("/" + aim + "2", b"planted"),
              ("m", LINK, to(UP + aim)), ("m", b"instead of the link")]
    image = place.build("names behind links stay inside", run + f"RUN test \"$(cat /{aim})\" = planted && test \"$(cat /m)\" = 'instead of the link'\n",
                        net=True, head=Bases.put([tools(), inside]))
    place.check("names behind links: nothing of the host", image is not None and OF_THE_HOST not in place.told)
    host.check(place, "names behind links")
    try_build(place, "a hard link to a link", "RUN cat /h; true\n", Bases.put([tools(), [("s", LINK, to("/" + aim)), ("h", HARD, to("s"))]]))
    try_build(place, "a hard link to nothing", "RUN cat /h; true\n", Bases.put([tools(), [("h", HARD, to("nothing"))]]), "context/Dockerfile:", "nothing")
    host.check(place, "hard links")


def removals(place):
    for name in (".wh.", ".wh..", ".wh...", "bin/.wh..."):
        place.fails(f"the whiteout {name}", "RUN true\n", "context/Dockerfile:", "names nothing", net=True, head=Bases.put([tools(), [(name, b"")]]))
    lower = [("old", FOLDER), ("old/file", b"old"), ("gone", b"old"), ("was", FOLDER), ("was/deep", FOLDER), ("was/deep/file", b"old")]
    upper = [(".wh.gone", b""), ("old", FOLDER), ("old/new", b"new"), (".wh.old", b""), (".wh.was", b""), ("was", FOLDER), ("was/new", b"new"),
             (".wh.nothing", b""), ("bin/.wh.dd", b"")]
    image = place.build("removed and there again", "RUN test ! -e /gone && test \"$(ls /old /was)\" = \"$(echo '/old:'; echo new; echo; echo '/was:'; echo new)\" \
&& test ! -e /nothing && test ! -e /bin/dd\nFROM scratch\nCOPY --from=0 / /\n", net=True, head=Bases.put([tools(), lower, upper]))
    if image:
        seen = {name for name in image.layers[0] if not name.startswith("bin")}
        place.check("COPY has what RUN sees", {"old", "old/new", "was", "was/new"} <= seen and not seen & {"gone", "old/file", "was/deep", "was/deep/file"}, seen)
    place.build("all is hidden", "RUN test ! -e /old && test ! -e /gone && ls / > /seen\n", net=True,
                head=Bases.put([tools(), lower, [(".wh..wh..opq", b"")] + tools()]))
    marks = [("old", FOLDER, {"pax_headers": {"SCHILY.xattr." + key: value for key, value in (
        ("trusted.overlay.opaque", "y"), ("user.overlay.opaque", "y"), ("trusted.overlay.redirect", "/bin"), ("user.overlay.redirect", "/bin"))}}),
        ("gone", b"", {"pax_headers": {"SCHILY.xattr.trusted.overlay.metacopy": "", "SCHILY.xattr.trusted.overlay.redirect": "/etc/shadow"}})]
    place.build("marks of overlays mean nothing", "RUN test -e /old/file && test ! -e /old/busybox && test ! -s /gone\n", net=True,
                head=Bases.put([tools(), lower, marks]))


def shells(place):
    for what, entry in (("a FIFO", ("bin/sh", FIFO)), ("a folder", ("bin/sh", FOLDER)), ("a text", ("bin/sh", b"no program\n")), ("empty", ("bin/sh", b"")),
                        ("a link to nowhere", ("bin/sh", LINK, to("/nowhere"))), ("a link to itself", ("bin/sh", LINK, to("sh"))),
                        ("not executable", ("bin/sh", b"#!/bin/busybox sh\n", {"mode": 0o644})),
                        ("half a program", ("bin/sh", b"\x7fELF\x02\x01\x01" + b"\0" * 57)), ("a script of itself", ("bin/sh", b"#!/bin/sh\n"))):
        began = time.monotonic()
        place.fails(f"a shell that is {what}", "RUN echo x\n", "context/Dockerfile:2", "/bin/sh", net=True,
                    head=Bases.put([[one for one in tools() if one[0] != "bin/sh"], [entry]]))
        place.check(f"a shell that is {what}: at once", time.monotonic() - began < 30)


def places(place):
    """What stands where something is to be mounted."""
    for name in ("etc/hosts", "proc", "dev"):
        for what, entry in (("a file", b"text"), ("a folder", FOLDER), ("a FIFO", FIFO), ("a link to nowhere", LINK)):
            above = [("etc", FOLDER)] if "/" in name else []
            one = (name, entry, to("/no/where")) if entry == LINK else (name, entry)
            fits = entry != FOLDER if name == "etc/hosts" else entry == FOLDER or (entry == LINK and name == "proc")
            head = Bases.put([tools(), above + [one]])
            if fits:
                place.build(f"/{name} is {what}", "RUN cat /etc/hosts > /seen\n", net=True, head=head)
            else:
                place.fails(f"/{name} is {what}", "RUN cat /etc/hosts > /seen\n", "context/Dockerfile:2", "/" + name, net=True, head=head)
    place.check("no scratch folder is left", not place.scratch(), place.scratch())


def devices(place):
    """Of a layer: they open nothing. Of a command: it cannot make any, and what is on the host belongs to nobody else."""
    entries = [("d", FOLDER)] + [("d/" + name, DEVICE, {"devmajor": major, "devminor": minor, "mode": 0o666})
                                 for name, major, minor in (("mem", 1, 1), ("null", 1, 3), ("disk", 8, 0), ("zero", 0, 0))]
    place.build("devices of a layer", "RUN for one in /d/mem /d/null /d/disk; do ! (cat $one) 2>/dev/null || exit 1; done\n", net=True,
                head=Bases.put([tools(), entries]))
    base = Bases.put([tools()])
    place.fails("a device of a command", "RUN mknod /null c 1 3\n", "context/Dockerfile:2", "mknod", net=True, head=base)
    place.fails("a removal that a command makes", "RUN mknod /bin/mark c 0 0 && echo made it\n", "context/Dockerfile:2", "mknod", net=True, head=base)
    image = place.build("rights of files", "RUN mkdir /s && touch /s/set && chmod 6755 /s/set && probe capability /bin/probe\n", net=True, head=base)
    if not image:
        return
    place.check("rights of files are in the layer", image.layers[-1]["s/set"].mode == 0o6755 and
                "SCHILY.xattr.security.capability" in image.layers[-1]["bin/probe"].pax_headers, image.layers[-1])
    kept = [folder for folder in os.listdir(place.store) if folder.startswith("layers")]
    modes = {folder: stat.S_IMODE(os.lstat(os.path.join(place.store, folder)).st_mode) for folder in kept}
    place.check("and behind a folder that is its user's alone", kept and set(modes.values()) == {0o700}, modes)
    if os.geteuid() == 0:
        here = [os.path.join(place.store, folder, name) for folder in kept for name in os.listdir(os.path.join(place.store, folder))]
        told = subprocess.run(["setpriv", "--reuid", "1", "--regid", "1", "--clear-groups", "ls", *here], capture_output=True, text=True)
        place.check("others cannot look into it", told.returncode != 0 and not told.stdout, told)


def processes(place):
    base = Bases.put([tools()])
    began = time.monotonic()
    place.build("processes that stay", f"RUN sleep {MARK} & (sleep {MARK} <&- >&- 2>&- &) ; (trap '' TERM HUP; sleep {MARK}) & echo done > /done\n",
                net=True, head=base)
    place.check("the command's end is theirs", time.monotonic() - began < 40 and not left_behind(), left_behind())
    place.build("one that holds the output", f"RUN (trap '' TERM HUP; exec sleep {MARK}) & true\nRUN test ! -e /proc/3/cwd/x\n", net=True, head=base)
    place.check("nobody is left", not left_behind(), left_behind())


def sizes(place):
    base = Bases.put([tools()])
    began = time.monotonic()
    place.fails("a file of holes", "RUN truncate -s 1000G /huge\n", "context/Dockerfile:2", "64 GiB", "/huge", net=True, head=base)
    place.check("a file of holes: at once", time.monotonic() - began < 30)
    began = time.monotonic()
    place.fails("holes and a time limit", "RUN truncate -s 60G /huge\n", net=True, head=base, timeout="2500ms")
    place.check("holes: the time limit is kept", time.monotonic() - began < 40)
    place.prepare(base + "COPY huge /\n", net=True, timeout="2500ms")
    with open(place.context + "/huge", "w") as file:
        file.truncate(60 << 30)
    began = time.monotonic()
    status = place.run()
    place.check("COPY of holes: the time limit is kept", status != 0 and "took too long" in place.told and time.monotonic() - began < 40)
    place.check("no scratch folder is left", not place.scratch(), place.scratch())
    image = place.build("some holes", "RUN truncate -s 40M /some && echo x >> /some\n", net=True, head=base)
    place.check("holes are in the layer as zeros", image and image.layers[-1]["some"].size == (40 << 20) + 2)
    place.fails("memory", "RUN dd if=/dev/zero of=/dev/null bs=400M count=1\n", "context/Dockerfile:2", "memory", net=True, head=base,
                options='memory = "64MiB"')


def full_disk(place):
    """The command's part of it, and ours."""
    state = place.folder + "/.mlhost"
    shutil.rmtree(state, ignore_errors=True)
    os.makedirs(state)
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m,mode=0777", "tmpfs", state], capture_output=True).returncode:
        print("SKIPPED: a full disk: no file system can be mounted here")
        return
    try:
        base = Bases.put([tools()])
        place.fails("a command that fills the disk", "RUN dd if=/dev/zero of=/fill bs=64k 2>&1 || exit 4\n", "context/Dockerfile:2", "exit status 4",
                    "No space left", net=True, head=base)
        place.build("then there is room again", "RUN echo small > /small\n", net=True, head=base)
        place.fails("no room for the layer", "RUN dd if=/dev/urandom of=/half bs=1M count=13 2>/dev/null\n", "context/Dockerfile:2", "No space left",
                    net=True, head=base)
        place.check("no scratch folder is left", not place.scratch(), place.scratch())
    finally:
        subprocess.run(["umount", "-l", state], check=True)


CASES = [links, names, removals, shells, places, devices, processes, sizes, full_disk]
FEWER = {"ranges": [links, names, removals, devices, processes, sizes], "one id": [links, names, removals, processes],
         "copied": [links, names, removals, devices]}

if __name__ == "__main__":
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Bases)
    server.daemon_threads = True
    Bases.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.exit(build_run.run(CASES, FEWER))
