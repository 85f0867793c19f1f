#!/usr/bin/env python3
"""RUN of the image builder: what a command sees, what becomes of what it changes, its mounts, its limits, and what it must not reach.
As root, as a normal user with ranges of ids, and as one without; only as the caller where that is not root. $MLHOST is the program.
Prints "N passed, N failed" last."""
import glob
import gzip
import hashlib
import io
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import traceback

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
PROGRAM = os.path.abspath(os.environ.get("MLHOST", os.path.join(HERE, "../../build/mlhost")))
RUN_LIMIT = 120
# Also what a program that was built with sanitizers is to do.
ENV = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **{name: os.environ[name] for name in ("ASAN_OPTIONS", "UBSAN_OPTIONS") if name in os.environ}}
MARK = str(98000000 + os.getpid())  # of commands that shall be gone: nobody else on the machine has it
BASE = """FROM scratch AS base
COPY busybox probe /bin/
RUN ["/bin/busybox", "sh", "-c", "/bin/busybox --install -s /bin; mkdir -p /etc /tmp /root /home/app; chmod 1777 /tmp; \
echo root:x:0:0::/root:/bin/sh > /etc/passwd"]
"""
USERS = """RUN echo app:x:1000:1000::/home/app:/bin/sh >> /etc/passwd; printf 'root:x:0:\\napp:x:1000:\\nstaff:x:50:app\\nother:x:60:root\\n' > \
/etc/group; chown 1000:1000 /home/app
"""
SCRIPT = """
local registry, fs = require "registry", require "fs"
pipeline "b" {{ permissions = {{ read = {{ "." }}, write = {{ "digest" }}{net} }} }}
stage "build" {{ timeout = "{timeout}", run = function()
  fs.write("digest", registry.build({{ context = "context", name = "x", {options} }}).digest)
end }}
"""
VERBOSE = bool(os.environ.get("VERBOSE"))
passed = failed = 0


def check(what, ok, seen=""):
    global passed, failed
    if ok:
        passed += 1
    else:
        failed += 1
        print(f"FAILED {what}\n    {str(seen)[-3000:]}", flush=True)
    return ok


class Image:
    def __init__(self, store, digest):
        self.store = store
        self.manifest = json.loads(self.blob(digest))
        self.config = json.loads(self.blob(self.manifest["config"]["digest"]))
        self.layers = [self.layer(one["digest"]) for one in self.manifest["layers"]]

    def blob(self, digest):
        with open(os.path.join(self.store, "blobs/sha256", digest.split(":")[1]), "rb") as file:
            return file.read()

    def layer(self, digest):
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(self.blob(digest)))) as tar:
            return {one.name: one for one in tar.getmembers()}

    def read(self, number, name):
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(self.blob(self.manifest["layers"][number]["digest"])))) as tar:
            return tar.extractfile(name).read().decode()

    def bytes(self):
        """All that is in the image, unpacked, and its texts."""
        return b"".join(gzip.decompress(self.blob(one["digest"])) for one in self.manifest["layers"]) + json.dumps(
            [self.manifest, self.config]).encode()


class Place:
    """A workspace, and who works there."""

    def __init__(self, folder, name, who, ids):
        self.folder, self.name, self.who, self.ids = folder, name, who, ids
        self.context, self.store = folder + "/context", folder + "/.mlhost/cache/oci"
        os.makedirs(self.context)
        self.own()

    def own(self):
        if self.who:
            subprocess.run(["chown", "-R", self.who[1], self.context, self.folder + "/p.lua"], check=False, stderr=subprocess.DEVNULL)
            os.chown(self.folder, int(self.who[1]), -1)

    def words(self):
        if not self.who:
            return []
        return ["setpriv", "--reuid", self.who[1], "--regid", self.who[2], "--clear-groups"]

    def prepare(self, dockerfile, options="", files=None, net=False, timeout="60s"):
        shutil.rmtree(self.context)
        os.makedirs(self.context)
        for tool in ("busybox", "probe", "attempt"):
            shutil.copy(os.path.join(TOOLS, tool), self.context)
        for name, text in (files or {}).items():
            path = os.path.join(self.context, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w") as file:
                file.write(text)
        with open(self.context + "/Dockerfile", "w") as file:
            file.write(dockerfile)
        with open(self.folder + "/p.lua", "w") as file:
            file.write(SCRIPT.format(options=options, timeout=timeout, net=', net = { "127.0.0.1" }' if net else ""))
        self.own()

    def start(self, env=None):
        return subprocess.Popen([*self.words(), BIN + "/mlhost", "run", "p.lua"], cwd=self.folder, text=True, errors="replace",
                                env={**ENV, "HOME": self.folder, "LC_ALL": "C.UTF-8", **(env or {})},
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def run(self, env=None):
        process = self.start(env)
        try:
            self.told = process.communicate(timeout=RUN_LIMIT)[0]
        except subprocess.TimeoutExpired:
            process.kill()
            self.told = process.communicate()[0] + "\n(did not end)"
        return process.returncode

    def build(self, what, dockerfile, options="", files=None, net=False, env=None, head=BASE):
        """The image, or None, which is a failure of the test."""
        self.prepare(head + dockerfile, options, files, net)
        status = self.run(env)
        if not check(f"{self.name}: {what}: builds", status == 0, self.told):
            return None
        with open(self.folder + "/digest") as file:
            return Image(self.store, file.read())

    def fails(self, what, dockerfile, *texts, options="", files=None, net=False, timeout="60s", head=BASE):
        self.prepare(head + dockerfile, options, files, net, timeout)
        status = self.run()
        missing = [text for text in texts if text not in self.told]
        check(f"{self.name}: {what}: fails and says so", status != 0 and not missing, f"status {status}, without {missing}:\n{self.told}")

    def check(self, what, ok, seen=None):
        return check(f"{self.name}: {what}", ok, self.told if seen is None else seen)

    def line(self, number):
        return f"context/Dockerfile:{BASE.count(chr(10)) + number}"

    def scratch(self):
        return glob.glob(self.store + "/layers*/run.*") + glob.glob(self.store + "/contexts/run.*")


def left_behind():
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = open(f"/proc/{pid}/cmdline", "rb").read()
        except OSError:
            continue
        if MARK.encode() in words:
            found.append(words)
    return found


def changes(place):
    image = place.build("changes", """RUN mkdir -p /d/sub /e /keep && echo 1 > /d/a && echo 2 > /d/b && echo 3 > /d/sub/c && echo 4 > /e/f \
&& ln /d/a /d/hard && ln -s /nowhere/at/all /d/soft && chmod 4711 /d/b && touch -d @1000000000 /d/b && mkfifo /d/pipe && echo keep > /keep/it
RUN rm /d/b && rm -r /e && mkdir /e && echo new > /e/g && rm -r /d/sub && echo file > /d/sub && chmod 0600 /keep/it
RUN true
RUN test ! -e /d/b && test "$(cat /e/g)" = new && test ! -e /e/f && test "$(cat /d/sub)" = file && test "$(cat /d/hard)" = 1 \
&& test "$(ls /keep)" = it
RUN probe attribute /keep/it user.note text && probe capability /bin/probe
RUN probe has-attribute /keep/it user.note text && probe has-capability /bin/probe
RUN mkdir '/keep/a name with spaces' && echo x > "/keep/a name with spaces/ü" && probe long /keep
RUN rm -rf /keep
""")
    if not image:
        return
    made, removed, marked, long_names, gone = image.layers[2:]
    place.check("hard links stay", made["d/hard"].islnk() and made["d/hard"].linkname == "d/a", made["d/hard"].get_info())
    place.check("modes and times stay", made["d/b"].mode == 0o4711 and made["d/b"].mtime == 1000000000, made["d/b"].get_info())
    place.check("links and pipes", made["d/soft"].linkname == "/nowhere/at/all" and made["d/pipe"].isfifo(), made)
    place.check("owners are the image's", {(one.uid, one.gid) for one in made.values()} == {(0, 0)}, made)
    place.check("only what changed", not {"bin", "etc", "proc", "dev", "sys", "etc/hosts", "etc/resolv.conf", "bin/busybox", "tmp"}
                & set(made), sorted(made))
    place.check("what was removed", "d/.wh.b" in removed and "e/g" in removed and removed["d/sub"].isfile() and "d/a" not in removed
                and ("e/.wh..wh..opq" in removed or "e/.wh.f" in removed), sorted(removed))
    place.check("a mode that changed", removed["keep/it"].mode == 0o600 and removed["keep/it"].size == 5, sorted(removed))
    place.check("attributes", marked["keep/it"].pax_headers.get("SCHILY.xattr.user.note") == "text"
                and "SCHILY.xattr.security.capability" in marked["bin/probe"].pax_headers
                and not [key for one in marked.values() for key in one.pax_headers if "overlay" in key], marked["keep/it"].pax_headers)
    place.check("long and odd names", "keep/a name with spaces/ü" in long_names and any(len(name) > 300 for name in long_names), sorted(long_names))
    place.check("a folder that is gone", list(gone) == [".wh.keep"], sorted(gone))
    history = [one for one in image.config["history"] if not one.get("empty_layer")]
    empty = [one["created_by"] for one in image.config["history"] if one.get("empty_layer")]
    place.check("no change is no layer", len(history) == len(image.layers) and "RUN true" in empty, image.config["history"])
    before = image.manifest
    status = place.run()
    again = Image(place.store, open(place.folder + "/digest").read()) if status == 0 else None
    place.check("the second time nothing runs", again and again.manifest == before and place.told.count("CACHED RUN") == 9)
    place.check("no scratch folder is left", not place.scratch(), place.scratch())


def refused(place):
    place.fails("a name that means a removal", "RUN touch /.wh.x\n", place.line(1), "means a removed file")
    place.fails("exit status", "RUN echo to-out; echo a; echo to-err >&2; exit 3\n", place.line(1), "exit status 3", "it said: to-err", "to-out")
    place.fails("a signal", "RUN kill -9 $$\n", place.line(1), "ended by signal 9")
    place.fails("no such command", "RUN nosuchcommand\n", place.line(1), "exit status 127", "nosuchcommand")
    place.fails("no such program", 'RUN ["/no/such", "x"]\n', place.line(1), "/no/such")
    place.fails("no shell", "FROM scratch\nCOPY probe /\nRUN echo\n", "context/Dockerfile:3", "/bin/sh", head="")
    place.fails("no files", "FROM scratch\nRUN echo\n", "context/Dockerfile:2", "no files yet", head="")
    place.fails("security", "RUN --security=insecure true\n", place.line(1), "insecure")
    place.fails("ssh", "RUN --mount=type=ssh true\n", place.line(1), "ssh")
    place.fails("unknown key", "RUN --mount=type=cache,targt=/x true\n", place.line(1), "targt", "target")
    place.fails("a user that is not there", "USER nobody9\nRUN true\n", "nobody9")
    place.fails("a working folder that is none", "RUN echo > /file\nRUN cd /file && true\n", place.line(2), "exit status")
    place.check("no scratch folder is left", not place.scratch(), place.scratch())


def view(place):
    text = USERS if place.ids != "one" else ""
    asking = """RUN id -u > /who && cat /proc/1/comm > /first && ls /proc | grep -c '^[0-9]' > /count && ls / > /root-has && env | sort > /env && pwd > /cwd \
&& hostname > /host && umask > /mask && ls /dev > /devices && cat /etc/hosts > /hosts && (ls /sys | wc -l) > /sysfs
"""
    image = place.build("view", text + "ARG ONE=1\nARG TWO\nENV ONE=env DEEP=${ONE}x\nWORKDIR /tmp/here\n" + asking,
                        options='args = { TWO = "given", HTTP_PROXY = "http://proxy.invalid" }', env={"CANARY": "of the operator"})
    if not image:
        return

    def read(name):
        return image.read(-1, name)
    place.check("root", read("who") == "0\n" and read("cwd") == "/tmp/here\n" and read("mask") == "0022\n", read("who"))
    variables = read("env").split("\n")
    place.check("ENV beats ARG, ARG is seen, nothing else", "ONE=env" in variables and "TWO=given" in variables and "DEEP=1x" in variables
                and "HOME=/root" in variables and "HTTP_PROXY=http://proxy.invalid" in variables and "CANARY" not in read("env"), variables)
    place.check("nobody else's processes", int(read("count")) < 8, read("count"))
    place.check("the image's files only", set(read("root-has").split()) <= {
        "bin", "dev", "etc", "home", "proc", "root", "tmp", "who", "first", "count", "root-has"}, read("root-has"))
    place.check("a host name and hosts of its own", read("host") == "build\n" and "localhost" in read("hosts"), read("host") + read("hosts"))
    place.check("few devices", set(read("devices").split()) == {"fd", "full", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "urandom",
                                                                "zero"}, read("devices"))
    place.check("/etc/hosts is not in the layer", not any(name in layer for layer in image.layers for name in ("etc/hosts", "etc/resolv.conf",
                "proc", "dev", "sys")), [sorted(layer) for layer in image.layers[-1:]])
    if place.ids == "one":
        place.check("a warning about ids", "all files belong to root" in place.told)
        place.fails("USER needs ids", "RUN echo app:x:1000:1000::/:/bin/sh >> /etc/passwd\nUSER app\nRUN true\n", place.line(3), "only one id", "usermod")
        return
    image = place.build("users", text + """USER app
RUN test "$(id -u):$(id -g)" = 1000:1000 && id -G | grep -q 50 && ! id -G | grep -q 60 && test "$HOME" = /home/app && echo x > ~/mine
USER 1234:4321
RUN test "$(id -u):$(id -g)" = 1234:4321 && touch /tmp/other
USER root
RUN cp /bin/probe /bin/gains && chmod 4755 /bin/gains && chown app /home/app/mine && chown 65534:65534 /tmp/other
USER app
RUN /bin/gains effective 0 && probe effective 1000
""")
    if image:
        place.check("owners of a user's files", (image.layers[3]["home/app/mine"].uid, image.layers[4]["tmp/other"].gid,
                    image.layers[5]["tmp/other"].uid) == (1000, 4321, 65534), [sorted(layer) for layer in image.layers[3:]])


def mounts(place):
    image = place.build("mounts", """RUN --mount=type=bind,target=/src test -f /src/sub/kept && test ! -e /src/hidden && ! touch /src/x 2>/dev/null \
&& ! touch /src/sub/kept 2>/dev/null
RUN --mount=type=bind,source=sub,target=/src,rw echo more > /src/made && rm /src/kept && test "$(ls /src)" = made
RUN --mount=type=bind,source=sub/kept,target=/etc/kept grep -q 'of the context' /etc/kept
RUN --mount=type=tmpfs,target=/fast,size=1m ! dd if=/dev/zero of=/fast/x bs=64k count=40 2>/dev/null && test -s /fast/x
FROM base AS other
RUN mkdir -p /o/deep && echo other > /o/deep/file && ln -s deep /o/link
FROM base
RUN --mount=type=bind,from=other,source=/o,target=/o,rw test "$(cat /o/deep/file)" = other && echo x > /o/deep/file && touch /o/new
RUN --mount=type=bind,from=other,source=/o/link/file,target=/o test "$(cat /o)" = other && ! (echo > /o) 2>/dev/null
RUN --mount=from=other,target=/all ! test -e /all/o/new && test -x /all/bin/busybox
WORKDIR /w
RUN --mount=type=tmpfs,target=rel touch rel/x && grep -q ' /w/rel ' /proc/self/mounts
RUN --mount=type=tmpfs,target=/bin/new touch /bin/new/x; mkdir /bin/new2
""", files={"sub/kept": "of the context", "hidden": "secret", ".dockerignore": "hidden\n"})
    if image:
        place.check("mounts leave nothing in the layer", [sorted(layer) for layer in image.layers[2:]] == [["w"], ["bin", "bin/new2"]],
                    [sorted(layer) for layer in image.layers[2:]])
    place.fails("a source that is not there", "RUN --mount=target=/x,source=nothing true\n", place.line(1), "nothing", "build context")
    place.fails("a later stage", "RUN --mount=from=late,target=/x true\nFROM base AS late\nRUN true\nFROM base\nCOPY --from=1 /etc /x\n", "late")


def caches(place):
    text = "RUN --mount=type=cache,target=/c,id=%s%s %s\n"
    counting = text % ("n", ",mode=0750", 'echo x >> /c/n && wc -l < /c/n > /lines && stat -c %a /c > /mode')
    for number in (1, 2):
        image = place.build(f"cache, {number}", counting, options="no_cache = true")
        if image:
            place.check(f"a cache stays ({number})", image.read(-1, "lines") == f"{number}\n" and image.read(-1, "mode") == "750\n"
                        and set(image.layers[-1]) == {"lines", "mode"}, sorted(image.layers[-1]))
    place.build("another id is another cache", text % ("m", "", "test ! -e /c/n"))
    place.build("read-only", text % ("n", ",ro", "test -e /c/n && ! touch /c/x 2>/dev/null"))
    place.build("begins with a stage's files", "FROM base AS seed\nRUN mkdir /s && echo seed > /s/f\nFROM base\n"
                + text % ("s", ",from=seed,source=/s", 'test "$(cat /c/f)" = seed && echo more > /c/g')
                + text % ("s", ",from=seed,source=/s", 'test "$(cat /c/g)" = more && rm /c/f')
                + text % ("s", ",from=seed,source=/s", "test ! -e /c/f"))
    # Two builds at once: `locked` one after the other, `private` each its own, `shared` both.
    other = Place(place.folder + "-2", place.name, place.who, place.ids)
    meet = "i=0; while [ $i -lt 40 ] && [ $(ls /c | wc -l) -lt 2 ]; do sleep 0.05; i=$((i+1)); done"
    for sharing, script, wanted in (
            ("locked", "test ! -e /c/busy && touch /c/busy && sleep 0.5 && rm /c/busy", (0, 0)),
            ("private", "test ! -e /c/busy && touch /c/busy && sleep 1 && rm /c/busy", (0, 0)),
            ("shared", f"touch /c/$WHO; {meet}; test -e /c/one && test -e /c/two", (0, 0))):
        line = text % ("at-once-" + sharing, ",sharing=" + sharing, script)
        for one, who in ((place, "one"), (other, "two")):
            one.prepare(BASE + f"ARG WHO={who}\n" + line, options="no_cache = true")
        shutil.rmtree(other.folder + "/.mlhost", ignore_errors=True)
        os.symlink(place.folder + "/.mlhost/cache", other.folder + "/cache")
        os.makedirs(other.folder + "/.mlhost")
        os.rename(other.folder + "/cache", other.folder + "/.mlhost/cache")
        if place.who:
            os.chown(other.folder + "/.mlhost", int(place.who[1]), -1)
        began = [one.start() for one in (place, other)]
        told = [process.communicate(timeout=RUN_LIMIT)[0] for process in began]
        place.check(f"two builds at once, {sharing}", tuple(process.returncode for process in began) == wanted, "\n".join(told))


def secrets(place):
    values = (b"very-secret-token", b"hunter2-hunter2", b"plain-text-secret")
    options = 'secrets = { token = require("secret").get("TOKEN"), [".netrc"] = { file = "netrc" }, plain = "plain-text-secret" }'
    with open(place.folder + "/netrc", "w") as file:
        file.write("machine one\npassword hunter2-hunter2\n")
    sums = {name: hashlib.sha256(text).hexdigest() for name, text in (("token", values[0]), ("plain", values[2]))}
    script = f"""RUN --mount=type=secret,id=token test "$(sha256sum < /run/secrets/token)" = "{sums['token']}  -" \
&& test "$(stat -c %a:%u /run/secrets/token)" = 400:0 && cat /run/secrets/token
RUN --mount=type=secret,id=.netrc,target=/home/app/.netrc,mode=0440 grep -q hunter /home/app/.netrc && sed -n 2p /home/app/.netrc
RUN --mount=type=secret,id=token,env=TOKEN --mount=type=secret,id=plain,target=/p test "$(sha256sum < /p)" = "{sums['plain']}  -" \
&& test ! -e /run/secrets && test ${{#TOKEN}} = 17 && echo "it is $TOKEN"
RUN --mount=type=secret,id=absent test ! -e /run/secrets/absent
"""
    place.prepare("")
    shutil.rmtree(place.folder + "/.mlhost", ignore_errors=True)

    def with_token(text):
        image = None
        place.prepare(BASE + script, options)
        with open(place.folder + "/p.lua") as file:
            lua = file.read().replace('write = { "digest" }', 'write = { "digest" }, env = { "TOKEN" }')
        with open(place.folder + "/p.lua", "w") as file:
            file.write(lua)
        status = place.run(env={"TOKEN": text})
        if place.check("secrets: builds", status == 0):
            image = Image(place.store, open(place.folder + "/digest").read())
        return image
    image = with_token("very-secret-token")
    if not image:
        return
    place.check("secrets are not in the image", not [value for value in values if value in image.bytes()])
    place.check("secrets are masked in the log", not [value for value in values if value.decode() in place.told] and "***" in place.told)
    place.check("secrets leave no place behind", len(image.layers) == 2, [sorted(layer) for layer in image.layers])
    kept = [path for path in glob.glob(place.folder + "/.mlhost/**", recursive=True) if os.path.isfile(path)
            and any(value in open(path, "rb").read() for value in values[:2])]
    place.check("secrets are on no disk", not kept, kept)
    with_token("another-token")
    place.check("a secret is no part of the key", place.told.count("CACHED RUN") == 5)
    place.prepare(BASE + "RUN --mount=type=secret,id=a,required --mount=type=secret,id=b,env=B,required cat /run/secrets/a && test ${#B} = 9\n")
    done = subprocess.run([*place.words(), BIN + "/mlhost", "image", "build", "context", "--secret", "id=a,src=netrc", "--secret",
                           "id=b,env=TOKEN"], cwd=place.folder, text=True, capture_output=True, timeout=RUN_LIMIT,
                          env={**ENV, "HOME": place.folder, "TOKEN": "by-the-cli"[:9]})
    place.check("mlhost image build --secret", done.returncode == 0 and "***" in done.stderr and "hunter2" not in done.stderr, done)
    place.fails("a required one", "RUN --mount=type=secret,id=absent,required true\n", place.line(1), "the secret absent was not given")
    place.fails("last words are masked", "RUN --mount=type=secret,id=plain cat /run/secrets/plain >&2; exit 1\n", "exit status 1", "it said: ***",
                options='secrets = { plain = "plain-text-secret" }')


def network(place):
    place.build("no network", """RUN test "$(ls /proc/sys/net/ipv4/conf 2>/dev/null | grep -vE '^(all|default|lo)$')" = '' && ! probe tcp 127.0.0.1 \
&& test ! -e /etc/resolv.conf
""")
    place.fails("host without a permission", "RUN --network=host true\n", place.line(1), "no network")
    place.build("with network", """RUN test -e /etc/resolv.conf
RUN --network=none test ! -e /etc/resolv.conf && test "$(grep -c : /proc/net/dev)" = 1
RUN --network=host test "$(grep -c : /proc/net/dev)" -ge 1
""", net=True)


def limits(place):
    staying = f"(trap '' TERM; setsid sh -c 'trap \"\" TERM; sleep {MARK}' >/dev/null 2>&1 &); trap '' TERM; sleep {MARK}"
    start = time.monotonic()
    place.fails("a time limit", f"RUN echo begun; {staying}\n", "begun", timeout="1500ms")
    place.check("the time limit is kept", time.monotonic() - start < 40)
    place.check("nobody outlives it", not left_behind(), left_behind())
    place.prepare(BASE + f"RUN echo begun; {staying}\n")
    process = place.start()
    for line in process.stdout:
        if "begun" in line:
            break
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=RUN_LIMIT)[0]
    place.check("a cancel ends it", process.returncode in (130, -signal.SIGINT) and not left_behind(), f"{process.returncode} {left_behind()}\n{rest}")
    place.check("no scratch folder is left", not place.scratch(), place.scratch())
    place.prepare(BASE + f"RUN echo begun; {staying}\n")
    process = place.start()
    for line in process.stdout:
        if "begun" in line:
            break
    subprocess.run(["kill", "-9", str(process.pid)], check=True)
    process.communicate(timeout=RUN_LIMIT)
    for _ in range(200):
        if not left_behind():
            break
        time.sleep(0.05)
    place.check("nor does anybody outlive a build that was killed", not left_behind(), left_behind())
    place.build("the next one takes away what the killed one left", "RUN echo again\n")
    place.check("no scratch folder is left of it", not place.scratch(), place.scratch())
    place.fails("processes", f"RUN i=0; while [ $i -lt 60 ]; do sleep {MARK} & i=$((i+1)); done\n", "exit status", options="processes = 30")
    place.check("none is left of them", not left_behind(), left_behind())


ATTEMPTS = """proc_one_root proc_parent_root dots handle one_environment trace_parent read_parent new_user_namespace
new_mount_namespace new_net_namespace cloned_namespace clone3_namespace enter_namespace mount_tmpfs mount_bind new_mount_api tree_of_mounts pivot bpf
performance_events user_faults io_uring key_add key_control fan_notify kernel_log load_module kexec swap_on set_clock host_name restart_machine io_ports
tcp udp tcp6 packets raw netlink vsock crypto hidden_family abstract_socket gain_capabilities core_limit""".split()


def escapes(place):
    lines = " ; ".join(f"attempt {name} || exit 1" for name in ATTEMPTS)
    place.build("attempts to get out", f"RUN {lines}\n", files={}, head=BASE.replace("probe /bin/", "probe attempt /bin/"))
    place.build("files of the machine", f"""RUN test ! -e {HERE} && test ! -e {place.folder} && test ! -e /usr/bin/python3 && test ! -e /.mlhost
RUN ! (cat /proc/sys/kernel/core_pattern > /proc/sys/kernel/core_pattern) 2>/dev/null && ! (echo b > /proc/sysrq-trigger) 2>/dev/null
RUN ! mount -t proc p /tmp 2>/dev/null && ! mount -o remount,rw /proc/sys 2>/dev/null && ! umount /proc/sys 2>/dev/null
RUN mknod /tmp/null c 1 3 2>/dev/null; ! (cat /tmp/null) 2>/dev/null; rm -f /tmp/null
RUN kill -9 -1; true
""")
    place.build("links that lead mounts out", """RUN rm -rf /etc/hosts /etc/resolv.conf; ln -s /../../../../tmp/mlhost-planted-hosts /etc/hosts; \
ln -s ../../../../../../etc/passwd /etc/resolv.conf; ln -s /../../../tmp/mlhost-planted /trap
RUN --mount=type=cache,target=/trap/in --mount=type=secret,id=s,target=/trap/secret cat /etc/hosts >/dev/null; ls /trap/in
""", net=True, options='secrets = { s = "planted-text" }')
    place.check("nothing was planted", not glob.glob("/tmp/mlhost-planted*"), glob.glob("/tmp/mlhost-planted*"))


def scripts(place):
    image = place.build("heredocs", """RUN <<END
echo one > /one
echo "$HOME" >> /one
END
RUN cat <<A > /two && cat <<"B" >> /two
a $HOME
A
b $HOME
B
RUN <<S
#!/bin/cat
of the script
S
SHELL ["/bin/busybox", "ash", "-u", "-c"]
RUN case $- in *u*) echo strict > /three;; esac
""")
    if not image:
        return
    place.check("a script with a first line", "of the script" in place.told)
    seen = [image.read(2 + number, name) for number, name in enumerate(("one", "two", "three"))]
    place.check("what scripts wrote", seen == ["one\n/root\n", "a /root\nb $HOME\n", "strict\n"], seen)


def times(place):
    image = place.build("SOURCE_DATE_EPOCH", "RUN touch /now && touch -d @1000 /old\n", env={"SOURCE_DATE_EPOCH": "1600000000"},
                        options="no_cache = true")
    if image:
        made = image.layers[-1]
        place.check("newer files get that time, older ones keep theirs", (made["now"].mtime, made["old"].mtime) == (1600000000, 1000), made)


CASES = [changes, refused, view, mounts, caches, secrets, network, limits, escapes, scripts, times]
COPIED = [changes, refused, view, secrets, scripts, times]


def program_for_all(folder):
    """Where every user may read it."""
    os.makedirs(folder)
    build = os.path.dirname(PROGRAM)
    for name in os.listdir(build):
        if name == os.path.basename(PROGRAM) or name.endswith(".so"):
            to = "mlhost" if name == os.path.basename(PROGRAM) else name
            shutil.copy(os.path.join(build, name), os.path.join(folder, to))
            os.chmod(os.path.join(folder, to), 0o755)


def user_with_ranges():
    name = f"mlhost{os.getpid()}"
    done = subprocess.run(["useradd", "-M", "-N", "-s", "/bin/sh", name], capture_output=True, text=True)
    if done.returncode != 0:
        return None
    if name + ":" not in open("/etc/subuid").read():
        subprocess.run(["usermod", "--add-subuids", "700000-765535", "--add-subgids", "700000-765535", name], check=True)
    return name


def overlay_place(folder):
    """A workspace in an overlay, in which no other one can be had, as in most containers. None where this cannot be mounted."""
    lower, upper, work, place = (f"{folder}/{name}" for name in ("lower", "upper", "work", "copied"))
    for one in (lower, upper, work, place):
        os.makedirs(one)
    done = subprocess.run(["mount", "-t", "overlay", "overlay", "-o", f"lowerdir={lower},upperdir={upper},workdir={work}", place],
                          capture_output=True)
    return Place(place, "copied", None, "all") if done.returncode == 0 else None


def places_of(folder):
    """Who builds, and the user that was made for it."""
    if os.geteuid() != 0:
        return [Place(folder + "/caller", "caller", None, "some")], None
    places = [Place(folder + "/root", "root", None, "all")]
    user = user_with_ranges() if shutil.which("newuidmap") else None
    if user:
        entry = pwd.getpwnam(user)
        places.append(Place(folder + "/ranges", "ranges", (user, str(entry.pw_uid), str(entry.pw_gid)), "some"))
    else:
        print("SKIPPED: a user with ranges of ids: uidmap is not installed")
    places.append(Place(folder + "/nobody", "one id", ("nobody", "65534", "65534"), "one"))
    copied = overlay_place(folder)
    if copied:
        places.append(copied)
    else:
        print("SKIPPED: a workspace in an overlay: it cannot be mounted")
    return places, user


def run(cases, fewer):
    """Each case at each place, or those that `fewer` has for a place's name; words of the command line choose. -> exit status"""
    global TOOLS, BIN
    wanted = sys.argv[1:]
    folder = tempfile.mkdtemp(prefix="mlhost-run-")
    os.chmod(folder, 0o755)
    TOOLS, BIN = folder + "/tools", folder + "/bin"
    os.makedirs(TOOLS)
    program_for_all(BIN)
    shutil.copy(shutil.which("busybox"), TOOLS)
    for name, source in (("probe", "run/probe.c"), ("attempt", "../escape/probes/probe.c")):
        subprocess.run(["cc", "-static", "-D_GNU_SOURCE", "-O1", "-o", f"{TOOLS}/{name}", os.path.join(HERE, source)], check=True)
    places, user = places_of(folder)
    try:
        for place in places:
            for case in fewer.get(place.name, cases):
                if wanted and case.__name__ not in wanted and place.name not in wanted:
                    continue
                began = time.monotonic()
                try:
                    case(place)
                except Exception:  # a test that cannot be finished has failed
                    check(f"{place.name}: {case.__name__}", False, traceback.format_exc())
                if VERBOSE:
                    print(f"{place.name}: {case.__name__} took {time.monotonic() - began:.1f} s", flush=True)
    finally:
        if user:
            subprocess.run(["userdel", user], capture_output=True)
        subprocess.run(["umount", "-l", folder + "/copied"], capture_output=True)
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(run(CASES, {"copied": COPIED}))
