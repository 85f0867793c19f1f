#!/usr/bin/env python3
"""The store of the embedded registry, treated badly: kill -9 at random instants of uploads and of manifests that are put, many clients with
one blob, pushes while garbage is collected, a full disk, names that are paths, links that were planted. What must hold: what was
acknowledged is there, what is there is whole, an upload goes on where it was, nothing outside the store is read or written.
FAULTS_INSTANTS is the number of kills (60), FAULTS_SEED where their instants begin."""
import concurrent.futures
import hashlib
import http.client
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "support"))
from faults import PROGRAM, Score, environment  # noqa: E402

INSTANTS = int(os.environ.get("FAULTS_INSTANTS", "60"))
SEED = int(os.environ.get("FAULTS_SEED", "1"))
CLIENTS = 16
CHUNK = 64 * 1024
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
BROKEN = (OSError, http.client.HTTPException)  # the server went away
score = Score()


def sha(data, algorithm="sha256"):
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


class Server:
    """`mlhost serve` on a workspace; it can die and come again."""

    def __init__(self, folder):
        self.folder = folder
        self.process = None
        self.port = 0

    def start(self):
        log = os.path.join(self.folder, "serve.out")
        with open(log, "w", encoding="utf-8") as out, open(os.path.join(self.folder, "serve.err"), "a", encoding="utf-8") as err:
            self.process = subprocess.Popen([PROGRAM, "serve", "--port", "0", "--workspace", os.path.join(self.folder, "ws")], stdout=out,
                                            stderr=err, stdin=subprocess.DEVNULL, env=environment(), start_new_session=True)
        for _ in range(600):
            with open(log, encoding="utf-8") as file:
                found = re.search(r"^mlhost: serving http://[^:]+:(\d+)", file.read(), re.M)
            if found:
                self.port = int(found.group(1))
                return self
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise RuntimeError("the server does not start: " + self.log())

    def log(self):
        with open(os.path.join(self.folder, "serve.err"), encoding="utf-8") as file:
            return file.read()[-2000:]

    def kill(self):
        """The serving process and whatever it started."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()

    @property
    def store(self):
        return os.path.join(self.folder, "ws", ".mlhost", "local", "registry")


class Client:
    """One connection, opened when needed."""

    def __init__(self, server):
        self.server = server
        self.connection = None

    def ask(self, method, path, body=None, headers=None):
        """-> status, headers (lower case), body"""
        try:
            if not self.connection:
                self.connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
            self.connection.request(method, path, body=body, headers=headers or {})
            reply = self.connection.getresponse()
            return reply.status, {key.lower(): value for key, value in reply.getheaders()}, reply.read()
        except BROKEN:
            self.close()
            raise

    def close(self):
        if self.connection:
            self.connection.close()
        self.connection = None

    def upload(self, name, data, way=0):
        """The whole blob at once (0), POST and PUT (1), or in chunks (2). -> the last status"""
        digest = sha(data)
        if way == 0:
            return self.ask("POST", f"/v2/{name}/blobs/uploads/?digest={digest}", data)[0]
        status, headers, _ = self.ask("POST", f"/v2/{name}/blobs/uploads/", headers={"Content-Length": "0"})
        if status != 202:
            return status
        where = headers["location"]
        if way == 1:
            return self.ask("PUT", f"{where}?digest={digest}", data)[0]
        for at in range(0, len(data), CHUNK):
            piece = data[at:at + CHUNK]
            status, headers, _ = self.ask("PATCH", where, piece, {"Content-Range": f"{at}-{at + len(piece) - 1}"})
            if status != 202:
                return status
            where = headers["location"]
        return self.ask("PUT", f"{where}?digest={digest}", headers={"Content-Length": "0"})[0]


def manifest_of(config, layers, note=""):
    def describe(kind, data):
        return {"mediaType": f"application/x-{kind}", "digest": sha(data), "size": len(data)}
    return json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": describe("config", config),
                       "layers": [describe("layer", layer) for layer in layers], "annotations": {"note": note}}).encode()


def whole(server):
    """What is wrong with the store as a client and as a file system sees it."""
    problems = []
    for algorithm in "sha256", "sha512":
        folder = os.path.join(server.store, "blobs", algorithm)
        for name in os.listdir(folder):
            with open(os.path.join(folder, name), "rb") as file:
                if hashlib.file_digest(file, algorithm).hexdigest() != name:
                    problems.append(f"blob {algorithm}:{name} is not what it is called")
    client = Client(server)
    for name in json.loads(client.ask("GET", "/v2/_catalog")[2])["repositories"]:
        for tag in json.loads(client.ask("GET", f"/v2/{name}/tags/list")[2])["tags"]:
            status, _, text = client.ask("GET", f"/v2/{name}/manifests/{tag}")
            if status != 200:
                problems.append(f"{name}:{tag} is listed, and {status}")
                continue
            manifest = json.loads(text)
            for one in [manifest["config"], *manifest["layers"]]:
                status, headers, _ = client.ask("HEAD", f"/v2/{name}/blobs/{one['digest']}")
                if status != 200 or int(headers["content-length"]) != one["size"]:
                    problems.append(f"{name}:{tag} lacks {one['digest']}: {status}")
    client.close()
    return problems


# ---- kill -9 ----

class Pushed:
    """What the server has said yes to."""

    def __init__(self):
        self.blobs, self.tags = {}, {}
        self.upload = self.data = None  # the one under way
        self.acknowledged = 0


def push_until_dead(server, pushed, chance):
    """Images one after the other, in all three ways, until the connection breaks."""
    client = Client(server)
    try:
        for number in range(10_000):
            layer, config = chance.randbytes(chance.randrange(1, 6 * CHUNK)), chance.randbytes(100)
            for way, data in ((number % 3, layer), ((number + 1) % 3, config)):
                if way < 2:
                    if client.upload("team/image", data, way) == 201:
                        pushed.blobs[sha(data)] = data
                    continue
                _, headers, _ = client.ask("POST", "/v2/team/image/blobs/uploads/", headers={"Content-Length": "0"})
                pushed.upload, pushed.data, pushed.acknowledged = headers["location"], data, 0
                for at in range(0, len(data), CHUNK):
                    piece = data[at:at + CHUNK]
                    client.ask("PATCH", pushed.upload, piece, {"Content-Range": f"{at}-{at + len(piece) - 1}"})
                    pushed.acknowledged = at + len(piece)
                if client.ask("PUT", f"{pushed.upload}?digest={sha(data)}", headers={"Content-Length": "0"})[0] == 201:
                    pushed.blobs[sha(data)] = data
                pushed.upload = None
            text = manifest_of(config, [layer], str(number))
            tag = f"v{number % 5}"
            pushed.tags.setdefault(tag, []).append(text)  # it may be either when it dies now
            if client.ask("PUT", f"/v2/team/image/manifests/{tag}", text, {"Content-Type": MANIFEST})[0] == 201:
                pushed.tags[tag] = [text]
    except BROKEN:
        pass
    client.close()


def go_on(server, pushed):
    """The upload that was under way goes on from what was acknowledged, or was finished."""
    client = Client(server)
    status, headers, _ = client.ask("GET", pushed.upload)
    if status == 404:  # its last request was done, only the answer did not come
        status, _, text = client.ask("GET", f"/v2/team/image/blobs/{sha(pushed.data)}")
        return [] if pushed.acknowledged == len(pushed.data) and text == pushed.data else [f"the upload is gone, its blob {status}"]
    there = int(headers["range"].split("-")[1]) + 1
    if there == 1:  # "0-0" says an empty one, too
        there = os.path.getsize(os.path.join(server.store, "uploads", pushed.upload.rsplit("/", 1)[1]))
    if status != 204 or there < pushed.acknowledged:
        return [f"{pushed.acknowledged} bytes were acknowledged, {status} {headers['range']}"]
    if there < len(pushed.data):
        status, _, text = client.ask("PATCH", pushed.upload, pushed.data[there:], {"Content-Range": f"{there}-{len(pushed.data) - 1}"})
        if status != 202:
            return [f"it does not go on: {status} {text}"]
    status, _, text = client.ask("PUT", f"{pushed.upload}?digest={sha(pushed.data)}", headers={"Content-Length": "0"})
    client.close()
    return [] if status == 201 else [f"it is not finished: {status} {text}"]


def kills(parent):
    chance = random.Random(SEED)
    server = Server(tempfile.mkdtemp(dir=parent))
    os.mkdir(os.path.join(server.folder, "ws"))
    pushed = Pushed()
    resumed = 0
    for number in range(INSTANTS):
        problems = []
        server.start()
        if number:
            problems = whole(server)
            client = Client(server)
            for digest, data in pushed.blobs.items():
                if client.ask("GET", f"/v2/team/image/blobs/{digest}")[2] != data:
                    problems.append(f"{digest} was acknowledged, and is not there")
            for tag, texts in pushed.tags.items():
                status, _, text = client.ask("GET", f"/v2/team/image/manifests/{tag}")
                if text not in texts and (status != 404 or len(texts) > 1 and tag in pushed.known):
                    problems.append(f"{tag} is not what was put: {status} {text[:200]}")
            listed = json.loads(client.ask("GET", "/v2/team/image/tags/list")[2]).get("tags", [])
            problems += [f"a tag that nobody put: {tag}" for tag in listed if tag not in pushed.tags]
            if pushed.upload:
                problems += go_on(server, pushed)
                resumed += 1
            client.close()
            # The next round begins with what is there now.
            pushed.tags = {tag: texts[-1:] if len(texts) == 1 else texts for tag, texts in pushed.tags.items()}
        pushed.known = set(json.loads(Client(server).ask("GET", "/v2/team/image/tags/list")[2]).get("tags") or [])
        pushed.upload = None
        pushed.blobs = dict(list(pushed.blobs.items())[-40:])
        if number:
            score.case(f"kill -9, number {number}", problems, server.log() if problems else "", quiet=True)
        thread = threading.Thread(target=push_until_dead, args=(server, pushed, random.Random(SEED * 1000 + number)))
        thread.start()
        time.sleep(chance.uniform(0.002, 0.12))
        server.kill()
        thread.join()
    server.start()
    problems = whole(server)
    server.stop()
    score.case(f"after {INSTANTS} kills, {resumed} of them within an upload that went on, everything is whole",
               problems + ([] if resumed or INSTANTS < 30 else ["no kill met an upload"]))


# ---- many at once ----

def crowd(server):
    data = random.Random(SEED).randbytes(3_000_000)
    digest = sha(data)
    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
        answers = list(pool.map(lambda i: Client(server).upload(f"crowd/r{i % 4}", data, i % 3), range(CLIENTS)))
    problems = [] if set(answers) == {201} else [answers]
    for i in range(4):
        if Client(server).ask("GET", f"/v2/crowd/r{i}/blobs/{digest}")[2] != data:
            problems.append(f"crowd/r{i} has not what was pushed")
    score.case(f"{CLIENTS} clients push one blob", problems + [f"left: {name}" for name in os.listdir(os.path.join(server.store, "uploads"))])

    config = b"{}"
    Client(server).upload("crowd/tag", config)
    texts = [manifest_of(config, [data], str(i)) for i in range(CLIENTS)]
    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
        answers = list(pool.map(lambda text: Client(server).ask("PUT", "/v2/crowd/tag/manifests/one", text, {"Content-Type": MANIFEST})[0],
                                texts))
    client = Client(server)
    problems = [] if set(answers) == {201} else [answers]
    if client.ask("GET", "/v2/crowd/tag/manifests/one")[2] not in texts:
        problems.append("the tag is none of them")
    problems += [f"lost: {i}" for i, text in enumerate(texts) if client.ask("GET", f"/v2/crowd/tag/manifests/{sha(text)}")[2] != text]
    score.case(f"{CLIENTS} clients put one tag", problems)

    # Two requests for one upload: one of them is told, the content is one of theirs.
    status, headers, _ = client.ask("POST", "/v2/crowd/one/blobs/uploads/", headers={"Content-Length": "0"})
    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
        answers = list(pool.map(lambda i: Client(server).ask("PATCH", headers["location"], bytes([i]) * 500_000,
                                                             {"Content-Range": "0-499999"})[0], range(CLIENTS)))
    problems = [] if answers.count(202) == 1 and set(answers) <= {202, 409, 416} else [answers]
    mine = bytes([answers.index(202)]) * 500_000 if 202 in answers else b""
    status = client.ask("PUT", f"{headers['location']}?digest={sha(mine)}", headers={"Content-Length": "0"})[0]
    score.case(f"{CLIENTS} clients write into one upload", problems + ([] if status == 201 else [status]))


# ---- garbage collection ----

COLLECT = """
local registry = require "registry"
pipeline "collect" {}
stage "collect" { run = function() return registry.collect { grace = 2, untagged = true } end }
"""


def collect(folder):
    done = subprocess.run([PROGRAM, "run", "-o", "plain", "collect.lua"], cwd=os.path.join(folder, "ws"), env=environment(), timeout=120,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        return None, done.stdout
    runs = os.path.join(folder, "ws", ".mlhost", "runs")
    with open(os.path.join(runs, sorted(os.listdir(runs))[-1], "journal.jsonl"), encoding="utf-8") as file:
        ends = [event for event in map(json.loads, file) if event["t"] == "stage_end"]
    return ends[-1]["output"]["registry"], done.stdout


def push_some(server, number, until, problems):
    """Images of few blobs, so that most are there already, or were a moment ago."""
    chance = random.Random(SEED * 100 + number)
    blobs = [random.Random(i).randbytes(2000 + i) for i in range(14)]
    client = Client(server)
    pushes = 0
    while time.monotonic() < until:
        name, tag = f"gc/r{chance.randrange(3)}", f"t{number}"
        config, *layers = chance.sample(blobs, 3)
        text = manifest_of(config, layers, f"{number} {pushes}")
        for _ in range(10):
            looked = time.monotonic()
            for data in (config, *layers):
                if client.ask("HEAD", f"/v2/{name}/blobs/{sha(data)}")[0] != 200:
                    if client.upload(name, data, chance.randrange(3)) != 201:
                        problems.append("a blob was refused")
            time.sleep(chance.choice((0, 0.2)))
            status, _, body = client.ask("PUT", f"/v2/{name}/manifests/{tag}", text, {"Content-Type": MANIFEST})
            if status == 201:
                break
            # Collected between HEAD and PUT: that is said, and the blobs come again.
            if status != 404 or b"MANIFEST_BLOB_UNKNOWN" not in body:
                problems.append(f"{status} {body}")
                break
            # Two seconds of grace, in whole seconds of the clock: so long a blob stays that was seen.
            if time.monotonic() - looked < 0.8:
                problems.append("a blob went that had been seen a moment before")
        pushes += 1
        for data in (config, *layers):
            status, _, body = client.ask("GET", f"/v2/{name}/blobs/{sha(data)}")
            if body != data:
                problems.append(f"{name}:{tag} was accepted, and lacks {sha(data)}: {status}")
        time.sleep(chance.choice((0, 0.05, 0.5, 2.5)))
        if chance.random() < 0.7:
            client.ask("DELETE", f"/v2/{name}/manifests/{sha(text)}")
    client.close()
    return pushes


def collections(server):
    with open(os.path.join(server.folder, "ws", "collect.lua"), "w", encoding="utf-8") as file:
        file.write(COLLECT)
    problems = []
    until = time.monotonic() + 12
    runs = gone = 0
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        pushes = [pool.submit(push_some, server, i, until, problems) for i in range(8)]
        while time.monotonic() < until:
            result, output = collect(server.folder)
            if result is None:
                problems.append(output[-500:])
                break
            runs += 1
            gone += result["blobs"]["count"]
        count = sum(push.result() for push in pushes)
    problems += whole(server)
    score.case(f"{count} pushes beside {runs} collections, which took {gone} blobs", problems + ([] if gone and count else ["nothing met"]))
    # And when nobody needs anything, nothing stays.
    client = Client(server)
    for name in json.loads(client.ask("GET", "/v2/_catalog")[2])["repositories"]:
        for tag in json.loads(client.ask("GET", f"/v2/{name}/tags/list")[2])["tags"]:
            client.ask("DELETE", f"/v2/{name}/manifests/{tag}")
    time.sleep(4.5)
    result, output = collect(server.folder)
    left = os.listdir(os.path.join(server.store, "blobs", "sha256"))
    score.case("without tags all blobs go", left or ([] if result else [output[-500:]]))


# ---- tricks ----

def raw(server, line):
    """A request line as it stands, for clients that mend paths. -> status"""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(line + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        reply = b""
        while piece := connection.recv(65536):
            reply += piece
    found = re.match(rb"HTTP/1.1 (\d+)", reply)
    return int(found.group(1)) if found else 0, reply


def files(folder):
    return sorted(os.path.join(at, name) for at, _, names in os.walk(folder) for name in names)


def tricks(server):
    secret = os.path.join(server.folder, "ws", ".mlhost", "local", "secret")
    with open(secret, "w", encoding="utf-8") as file:
        file.write("canary")
    client = Client(server)
    client.upload("trick/base", b"{}")
    manifest = manifest_of(b"{}", [b"{}"])
    client.ask("PUT", "/v2/trick/base/manifests/v1", manifest, {"Content-Type": MANIFEST})
    before = files(os.path.join(server.folder, "ws"))
    hexes = "0" * 64
    ups = [b"..", b"%2e%2e", b"%2E%2e", b"..%2f..", b"..%5c..", b"%252e%252e", b"..%00", b"a%00b", b".", b"%2f", b"\xc0\xae\xc0\xae",
           b"%c0%ae%c0%ae", "\u2025".encode(), b"%e2%80%a5", b"_tags", b"_manifests", b"A", b"a" * 300, b"a%0d%0aX-Y:z", b"a%20b",
           b"~", b"a;b", b"a\\b", b"con:", b"a//b", b"a/../../secret", b"a/%2e%2e/%2e%2e/secret"]
    lines = []
    for up in ups:
        for method in b"GET", b"HEAD", b"PUT", b"DELETE", b"POST":
            lines += [method + b" /v2/" + up + b"/manifests/v1", method + b" /v2/trick/base/manifests/" + up,
                      method + b" /v2/trick/base/blobs/" + up, method + b" /v2/trick/base/blobs/sha256:" + up,
                      method + b" /v2/trick/base/blobs/uploads/" + up, method + b" /v2/" + up + b"/blobs/sha256:" + hexes.encode(),
                      method + b" /v2/trick/base/referrers/" + up, method + b" /v2/trick/base/blobs/sha256:..%2f..%2f..%2fsecret",
                      method + b" /v2/trick/" + up + b"/tags/list", method + b" /v2/trick/base/manifests/sha256:" + up + hexes[2:].encode(),
                      method + b" /v2/trick/base/blobs/sha512:" + up, method + b" /v2/trick/base/blobs/md5:" + up,
                      method + b" /v2/trick/base/blobs/sha256:" + hexes[:63].encode() + b"A",
                      method + b" /v2/trick/base/blobs/sha256:" + hexes.encode() + b"/../../../secret"]
        lines.append(b"POST /v2/" + up + b"/blobs/uploads/")
        lines.append(b"PATCH /v2/trick/base/blobs/uploads/" + up)
        lines.append(b"PUT /v2/trick/base/blobs/uploads/" + up + b"?digest=sha256:" + hexes.encode())
    problems = []
    for line in lines:
        try:
            status, reply = raw(server, line)
        except OSError as e:
            status, reply = 0, str(e).encode()
        # "_tags", "a//b" and the like may be other calls, which say no or nothing. 0: no answer but a closed connection.
        if status >= 500 or b"canary" in reply or b"root:" in reply or (200 <= status < 300 and not line.startswith((b"GET", b"HEAD", b"POST"))):
            problems.append(f"{line}: {status} {reply[:200]}")
    after = files(os.path.join(server.folder, "ws"))
    new = [name for name in after if name not in before and "/registry/uploads/" not in name and "gc.lock" not in name]
    score.case(f"{len(lines)} paths that are none", problems + [f"made: {name}" for name in new]
               + [f"removed: {name}" for name in before if name not in after])
    if client.ask("GET", "/v2/trick/base/manifests/v1")[2] != manifest:
        problems.append("the image is not what it was")
    for mount in ("../../secret", "sha256:" + hexes, "sha256:..%2f..", "x" * 5000):
        status = client.ask("POST", f"/v2/trick/base/blobs/uploads/?mount={mount}&from=../../..", headers={"Content-Length": "0"})[0]
        score.case(f"mount={mount[:20]}", [] if status == 202 else [status], quiet=True)

    # Whoever could plant links in the store could do so; what they lead to is still not given out.
    digest = sha(b"planted")
    os.symlink(secret, os.path.join(server.store, "blobs", "sha256", digest[7:]))
    os.symlink(secret, os.path.join(server.store, "uploads", "0" * 32))
    os.symlink("/etc/passwd", os.path.join(server.store, "repositories", "trick", "base", "_tags", "planted"))
    for method, path in (("GET", f"blobs/{digest}"), ("HEAD", f"blobs/{digest}"), ("GET", "manifests/planted"),
                         ("GET", "blobs/uploads/" + "0" * 32), ("PATCH", "blobs/uploads/" + "0" * 32)):
        status, _, body = client.ask(method, f"/v2/trick/base/{path}")
        score.case(f"a planted link: {method} {path[:20]}", [] if status == 404 and b"canary" not in body and b"root:" not in body
                   else [status, body], quiet=True)
    with open(secret, encoding="utf-8") as file:
        score.case("what the links led to is as it was", [] if file.read() == "canary" else ["changed"])
    # A blob that was planted as a link is replaced by the real one.
    status = client.upload("trick/base", b"planted")
    body = client.ask("GET", f"/v2/trick/base/blobs/{digest}")[2]
    score.case("a link gives way to the blob", [] if status == 201 and body == b"planted" else [status, body])


# ---- a full disk ----

def full_disk(parent):
    folder = tempfile.mkdtemp(dir=parent)
    os.mkdir(os.path.join(folder, "ws"))
    state = os.path.join(folder, "ws", ".mlhost")
    os.mkdir(state)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "none", state], check=True)
    server = Server(folder).start()
    try:
        fill(server, state)
    finally:
        server.stop()
        subprocess.run(["umount", state], check=True)


def fill(server, state):
    client = Client(server)
    kept = random.Random(1).randbytes(1_000_000)
    config = b"{}"
    problems = []
    for data in (kept, config):
        if client.upload("disk/x", data) != 201:
            problems.append("the first image does not fit")
    text = manifest_of(config, [kept])
    client.ask("PUT", "/v2/disk/x/manifests/v1", text, {"Content-Type": MANIFEST})
    for way in range(3):
        large = random.Random(2 + way).randbytes(8_000_000)
        try:
            status = client.upload("disk/x", large, way)
        except BROKEN:
            status = "the connection broke"  # while the body was on its way: allowed
        if status == 201:
            problems.append(f"way {way}: it says that 8 MB are on 6 MB")
        if client.ask("HEAD", f"/v2/disk/x/blobs/{sha(large)}")[0] != 404:
            problems.append(f"way {way}: half a blob is there")
        for name in os.listdir(os.path.join(server.store, "uploads")):
            # Of chunks those that were acknowledged stay; of one body nothing.
            if way < 2 and os.path.getsize(os.path.join(server.store, "uploads", name)):
                problems.append(f"way {way}: half an upload keeps the disk full")
            client.ask("DELETE", f"/v2/disk/x/blobs/uploads/{name}")
    # Without room for a single page: a manifest is refused, and the tag stays what it was.
    with open(os.path.join(state, "filler"), "wb", buffering=0) as filler:
        try:
            while filler.write(bytes(4096)):
                pass
        except OSError:
            pass
    other = manifest_of(config, [kept], "other" * 2000)
    status, _, body = client.ask("PUT", "/v2/disk/x/manifests/v1", other, {"Content-Type": MANIFEST})
    if status < 500 or b"No space left" not in body:
        problems.append(f"a manifest on a full disk: {status} {body[:300]}")
    if client.ask("GET", "/v2/disk/x/manifests/v1")[2] != text or client.ask("GET", f"/v2/disk/x/blobs/{sha(kept)}")[2] != kept:
        problems.append("the image is not what it was")
    os.unlink(os.path.join(state, "filler"))
    if client.ask("PUT", "/v2/disk/x/manifests/v1", other, {"Content-Type": MANIFEST})[0] != 201:
        problems.append("with room again it is not accepted")
    problems += whole(server)
    left = os.listdir(os.path.join(server.store, "uploads"))
    score.case("a full disk", problems + [f"left: {name}" for name in left], server.log() if problems else "")


def main():
    with tempfile.TemporaryDirectory(prefix="mlhost-store-") as parent:
        kills(parent)
        folder = tempfile.mkdtemp(dir=parent)
        os.mkdir(os.path.join(folder, "ws"))
        server = Server(folder).start()
        try:
            crowd(server)
            tricks(server)
            collections(server)
        finally:
            server.stop()
        if os.environ["FAULTS_MOUNTS"]:
            full_disk(parent)
        else:
            print("SKIPPED: a full disk needs mounts, which are not to be had here")
        return score.close()


if "FAULTS_MOUNTS" not in os.environ:
    # Mounts that nobody else sees, and that end with us.
    private = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
    mounted = subprocess.run([*private, "sh", "-c", "mount -t tmpfs none /mnt"], check=False, stderr=subprocess.DEVNULL).returncode == 0
    os.environ["FAULTS_MOUNTS"] = "1" if mounted else ""
    if mounted:
        os.execvp(private[0], [*private, sys.executable, os.path.abspath(__file__)])
sys.exit(main())
