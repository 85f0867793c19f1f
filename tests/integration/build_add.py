#!/usr/bin/env python3
"""ADD of URLs and git repositories: what a server has, with the rights of the script, its time, its digest; and what is said when that fails.

$MLHOST is the program. Prints "N passed, N failed" last.
"""
import hashlib
import http.server
import io
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
import threading

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
MLHOST = os.path.abspath(os.environ.get("MLHOST", os.path.join(HERE, "../../build/mlhost")))
TEXT = b"fetched\n" * 1000
WHEN = "Sun, 06 Nov 1994 08:49:37 GMT"


def archive():
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        info = tarfile.TarInfo("inner/file")
        info.size, info.mode = 3, 0o640
        tar.addfile(info, io.BytesIO(b"abc"))
    return out.getvalue()


ARCHIVE = archive()


class Server(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    cuts = 0
    folder = ""

    def log_message(self, *args):
        pass

    def answer(self, body, headers=(), length=None):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def repository(self, path):
        """A repository as a plain web server has it."""
        place = os.path.normpath(os.path.join(Server.folder, path.lstrip("/")))
        if place.startswith(Server.folder + os.sep) and os.path.isfile(place):
            with open(place, "rb") as file:
                self.answer(file.read())
        else:
            self.send_error(404)

    def do_GET(self):
        path = self.path.split("?")[0]
        if path in ("/file.txt", "/a%20b.txt", "/"):
            self.answer(TEXT, [("Last-Modified", WHEN)])
        elif path == "/plain":
            self.answer(TEXT)
        elif path == "/t.tar.gz":
            self.answer(ARCHIVE)
        elif path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/file.txt")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif path == "/away":
            self.send_response(302)
            self.send_header("Location", f"http://localhost:{self.server.server_port}/file.txt")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif path.startswith("/repo.git/"):
            self.repository(path)
        elif path == "/cut" and Server.cuts == 0:
            Server.cuts += 1
            self.answer(TEXT[:100], length=len(TEXT))
            self.close_connection = True
        elif path == "/cut":
            self.answer(TEXT)
        else:
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()


class Tests:
    def __init__(self, work, port):
        self.work, self.at, self.passed, self.failed = work, f"http://127.0.0.1:{port}", 0, 0

    def build(self, dockerfile, net='"127.0.0.1"', exec_of='"git"'):
        """The status and what was printed; the files are in <work>/out."""
        subprocess.run(["rm", "-rf", os.path.join(self.work, "out")], check=True)
        os.makedirs(os.path.join(self.work, "ctx"), exist_ok=True)
        with open(os.path.join(self.work, "ctx/Dockerfile"), "w", encoding="utf-8") as file:
            file.write(dockerfile.replace("{}", self.at))
        with open(os.path.join(self.work, "t.lua"), "w", encoding="utf-8") as file:
            file.write(f'''local registry = require "registry"
pipeline "t" {{ permissions = {{ net = {{ {net} }}, exec = {{ {exec_of} }}, write = {{ "out" }} }} }}
stage "s" {{ run = function(cx)
  registry.build {{ context = "ctx", name = "t" }}
  registry.unpack("t:latest", "out")
end }}
''')
        ran = subprocess.run([MLHOST, "run", "t.lua", "--output", "plain"], cwd=self.work, timeout=60,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        return ran.returncode, ran.stdout

    def ok(self, name, dockerfile, path, content, mode, mtime=None):
        status, said = self.build(dockerfile)
        place = os.path.join(self.work, "out", path)
        if status != 0 or not os.path.exists(place):
            return self.result(name, f"status {status}\n{said}")
        facts = os.stat(place)
        with open(place, "rb") as file:
            if file.read() != content:
                return self.result(name, "another content")
        if stat.S_IMODE(facts.st_mode) != mode:
            return self.result(name, f"mode {stat.S_IMODE(facts.st_mode):o}")
        if mtime is not None and int(facts.st_mtime) != mtime:
            return self.result(name, f"time {facts.st_mtime}")
        return self.result(name, None)

    def fails(self, name, dockerfile, *wanted, **rights):
        status, said = self.build(dockerfile, **rights)
        missing = [text for text in wanted if text not in said]
        self.result(name, f"status {status}, it does not say {missing}:\n{said}" if status == 0 or missing else None)

    def result(self, name, problem):
        if problem:
            self.failed += 1
            print(f"FAIL {name}: {problem}")
        else:
            self.passed += 1
            print(f"ok   {name}")

    def run(self):
        digest = hashlib.sha256(TEXT).hexdigest()
        base = "FROM scratch\n"
        self.ok("mode and time", base + "ADD {}/file.txt /x/\n", "x/file.txt", TEXT, 0o600, 784111777)
        self.ok("no time", base + "ADD {}/plain /y\n", "y", TEXT, 0o600, 0)
        self.ok("an encoded name, a query", base + "ADD {}/a%20b.txt?q=/z /x/\n", "x/a b.txt", TEXT, 0o600)
        self.ok("--checksum, --chmod", base + f"ARG SUM={digest}\nADD --checksum=sha256:$SUM --chmod=u=rw,go=r {{}}/file.txt /x\n",
                "x", TEXT, 0o644)
        self.ok("an archive stays one", base + "ADD {}/t.tar.gz /x/\n", "x/t.tar.gz", ARCHIVE, 0o600)
        self.ok("--unpack", base + "ADD --unpack {}/t.tar.gz /x/\n", "x/inner/file", b"abc", 0o640)
        self.ok("--unpack of what is none", base + "ADD --unpack=true {}/file.txt /x/\n", "x/file.txt", TEXT, 0o600)
        self.ok("a redirect", base + "ADD {}/moved /x\n", "x", TEXT, 0o600)
        self.ok("cut in the middle", base + "ADD {}/cut /x\n", "x", TEXT, 0o600)
        self.ok("ONBUILD", "FROM scratch AS a\nONBUILD ADD {}/plain /x\nFROM a\n", "x", TEXT, 0o600)
        self.ok("two sources", base + "ADD {}/plain {}/file.txt /x/\n", "x/plain", TEXT, 0o600)
        self.fails("404", base + "ADD {}/nothere /x\n", "Dockerfile:2: ADD: http://127.0.0.1", "404")
        self.fails("another digest", base + "ADD --checksum=sha256:" + "0" * 64 + " {}/plain /x\n", digest, "look at it")
        self.fails("no digest", base + "ADD --checksum=md5:0 {}/plain /x\n", "is no digest", "64 hexadecimal")
        self.fails("a digest for two", base + f"ADD --checksum=sha256:{digest} {{}}/plain {{}}/file.txt /x/\n", "for one source")
        self.fails("no name", base + "ADD {}/ /x/\n", "names no file", "give it a name")
        self.fails("COPY", base + "COPY {}/plain /x\n", "COPY takes nothing from elsewhere", "ADD does")
        self.fails("no permission", base + "ADD {}/plain /x\n", "127.0.0.1", "net", net='"example.org"')
        self.fails("a redirect away", base + "ADD {}/away /x\n", "localhost")
        self.fails("COPY of a repository", base + "COPY {}/repo.git /x\n", "COPY takes nothing from elsewhere")
        if shutil.which("git"):
            self.git()
        else:
            self.fails("no git", base + "ADD {}/repo.git /x\n", "git")

    def git(self):
        base = "FROM scratch\n"
        first, second = repository(Server.folder)
        self.ok("a repository", base + "ADD {}/repo.git /x\n", "x/file.txt", b"two", 0o644)
        self.result("without .git", "it is there" if os.path.exists(os.path.join(self.work, "out/x/.git")) else None)
        self.ok("an executable of it", base + "ADD {}/repo.git /x\n", "x/sub/run.sh", b"#!/bin/sh\n", 0o755)
        self.ok("a branch", base + "ADD {}/repo.git#old /x/\n", "x/file.txt", b"one", 0o644)
        self.ok("a tag, a folder", base + "ADD {}/repo.git#v1:sub /x\n", "x/run.sh", b"#!/bin/sh\n", 0o755)
        self.ok("a commit", base + f"ADD {{}}/repo.git#{first} /x\n", "x/file.txt", b"one", 0o644)
        self.ok("--checksum, --chmod, --chown", base + f"ADD --checksum={second} --chmod=600 {{}}/repo.git /x\n", "x/file.txt",
                b"two", 0o600)
        self.ok("--keep-git-dir", base + "ADD --keep-git-dir {}/repo.git /x\n", "x/.git/HEAD", (second + "\n").encode(), 0o644)
        self.ok("--exclude", base + "ADD --exclude=sub {}/repo.git /x\n", "x/file.txt", b"two", 0o644)
        self.result("without sub", "it is there" if os.path.exists(os.path.join(self.work, "out/x/sub")) else None)
        self.fails("another commit", base + f"ADD --checksum={first} {{}}/repo.git /x\n", f"it is at {second}, not at {first}")
        self.fails("no such branch", base + "ADD {}/repo.git#nothere /x\n", "Dockerfile:2: ADD: http://127.0.0.1", "nothere")
        self.fails("no such folder", base + "ADD {}/repo.git#main:nothere /x\n", "nothere")
        self.fails("a folder that is a link", base + "ADD {}/repo.git#main:away /x\n", "away")
        self.fails("an option as a branch", base + "ADD {}/repo.git#--upload-pack=x /x\n", "is no name of a commit")
        self.fails("git may not run", base + "ADD {}/repo.git /x\n", "git", "exec", exec_of="")
        self.fails("its host is not allowed", base + "ADD {}/repo.git /x\n", "net", net='"example.org"')
        left = [name for place, folders, _ in os.walk(os.path.join(self.work, ".mlhost/runs")) for name in folders
                if name.startswith("git-")]
        self.result("nothing is left of the clones", str(left) if left else None)


def repository(folder):
    """A bare one with two commits, the first of which a branch and a tag have; their numbers."""
    work, bare = os.path.join(folder, "work"), os.path.join(folder, "repo.git")
    env = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1", "GIT_AUTHOR_NAME": "a",
           "GIT_AUTHOR_EMAIL": "a@example.org", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@example.org"}

    def git(*words):
        return subprocess.run(["git", *words], cwd=work, env=env, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()

    os.makedirs(os.path.join(work, "sub"))
    subprocess.run(["git", "init", "-q", "-b", "main", work], env=env, check=True)
    with open(os.path.join(work, "file.txt"), "w", encoding="utf-8") as file:
        file.write("one")
    with open(os.path.join(work, "sub/run.sh"), "w", encoding="utf-8") as file:
        file.write("#!/bin/sh\n")
    os.chmod(os.path.join(work, "sub/run.sh"), 0o755)
    os.symlink("/", os.path.join(work, "away"))
    git("add", "-A")
    git("commit", "-q", "-m", "one")
    git("branch", "old")
    git("tag", "v1")
    first = git("rev-parse", "HEAD")
    with open(os.path.join(work, "file.txt"), "w", encoding="utf-8") as file:
        file.write("two")
    git("commit", "-q", "-a", "-m", "two")
    second = git("rev-parse", "HEAD")
    subprocess.run(["git", "clone", "-q", "--bare", work, bare], env=env, check=True)
    subprocess.run(["git", "-C", bare, "update-server-info"], env=env, check=True)
    return first, second


def main():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as work, tempfile.TemporaryDirectory() as served:
        Server.folder = served
        tests = Tests(work, server.server_port)
        tests.run()
    server.shutdown()
    print(f"{tests.passed} passed, {tests.failed} failed")
    return 1 if tests.failed else 0


if __name__ == "__main__":
    sys.exit(main())
