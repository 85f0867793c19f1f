#!/usr/bin/env python3
"""What a user reads when something is wrong: services that answer 401, 404, 429, 500 or nothing, and broken files. Each case runs
the program as a user does and reads message, hint and exit code."""
import http.server
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading

PROGRAM = os.environ.get("MLHOST", "build/mlhost")
passed = failed = 0


class Answers(http.server.BaseHTTPRequestHandler):
    """Every request gets the status in the first part of its path: /401/api/..."""

    protocol_version = "HTTP/1.1"

    def answer(self):
        length = int(self.headers.get("Content-Length") or 0)
        self.rfile.read(length)
        status = self.server.status
        body = json.dumps({"error_code": "SOMETHING", "message": "told by the server", "code": 1,
                           "errors": [{"code": "UNKNOWN", "message": "told by the server"}]}).encode()
        if status == 404:  # some other server, at a wrong address
            body = b"<html>no such page</html>"
        self.send_response(status)
        self.send_header("Content-Type", "text/html" if status == 404 else "application/json")
        self.send_header("Content-Length", str(len(body)))
        if status == 429:
            self.send_header("Retry-After", "0")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.server.seen += 1

    do_GET = do_POST = do_PUT = do_HEAD = do_PATCH = do_DELETE = answer

    def log_message(self, *_):
        pass


def serve(status):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.status, server.seen = status, 0
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def closed_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


CALLS = {
    "mlflow": 'require("mlflow").connect():experiment("digits")',
    "kubeflow": 'require("kubeflow").connect():experiment("digits")',
    "registry": 'print(require("registry").tags("digits"))',
}
# What must be in the output, whatever the service: the status, and what to do.
WORDS = {401: ["401"], 404: ["404"], 429: ["429"], 500: ["500"]}


def case(name, files, words, code, argv=("run", "a.lua", "-o", "plain")):
    global passed, failed
    with tempfile.TemporaryDirectory() as folder:
        for file, text in files.items():
            path = os.path.join(folder, file)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w", encoding="utf-8") as out:
                out.write(text)
        env = {key: value for key, value in os.environ.items()
               if not key.startswith(("MLFLOW_", "KF_", "MLHOST_")) and key != "TF_BUILD"}
        done = subprocess.run([os.path.abspath(PROGRAM), *argv], cwd=folder, env=env, timeout=120, text=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    missing = [word for word in words if word not in done.stdout]
    if done.returncode != code:
        missing.append(f"exit status {code}, not {done.returncode}")
    if missing:
        failed += 1
        print(f"FAIL {name}: wanted {missing}\n{done.stdout}")
    else:
        passed += 1
        print(f"ok   {name}")


def profile(service, url):
    return f"profile: team\nprofiles:\n  team:\n    {service}: {{ url: '{url}' }}\n"


def stage(call):
    return f'stage "s" {{ timeout = "60s", run = function() {call} end }}\n'


def services():
    for service, call in CALLS.items():
        for status, words in WORDS.items():
            server = serve(status)
            url = f"http://127.0.0.1:{server.server_address[1]}"
            case(f"{service} answers {status}", {"mlhost.yaml": profile(service, url), "a.lua": stage(call)},
                 words + ["a.lua:1", "hint:"], 1)
            server.shutdown()
        url = f"http://127.0.0.1:{closed_port()}"
        case(f"{service} does not answer", {"mlhost.yaml": profile(service, url), "a.lua": stage(call)},
             [url.split("//")[1], "a.lua:1", "hint:"], 1)
        case(f"{service} is not configured",
             {"mlhost.yaml": "profile: team\nprofiles:\n  team: {}\n", "a.lua": stage(call)}, [service, "hint:"], 1)


def files():
    good = 'stage "s" { run = function() end }\n'
    case("a script with a syntax error", {"a.lua": "stage 's' {\n  run = function( end\n}\n"}, ["a.lua:2"], 2)
    case("a script with an unknown key", {"a.lua": 'stage "s" { ruun = 1, run = function() end }\n'},
         ["a.lua:1", "unknown key 'ruun'", "did you mean 'run'"], 2)
    case("a script with a cycle", {"a.lua": 'stage "a" { needs = {"b"}, run = print }\nstage "b" { needs = {"a"}, run = print }\n'},
         ["a.lua:2", "a -> b -> a", "hint:"], 2)
    case("a script that is not there", {}, ["a.lua"], 2)
    case("broken mlhost.yaml", {"mlhost.yaml": "profiles: [\n", "a.lua": good}, ["mlhost.yaml:", "not YAML"], 2)
    case("mlhost.yaml with an unknown key", {"mlhost.yaml": "profilles: {}\n", "a.lua": good},
         ["mlhost.yaml:1", "did you mean 'profiles'", "hint:"], 2)
    case("broken YAML in a script", {"x.yaml": "a: 1\nb: [\n", "a.lua": stage('require("yaml").decode(require("fs").read "x.yaml", "x.yaml")')},
         ["x.yaml:3:1", "not YAML", "a.lua:1"], 1)
    build = 'require("registry").build { context = "c", name = "x" }'
    case("a Dockerfile with an unknown instruction", {"c/Dockerfile": "FROM scratch\nCPOY a b\n", "a.lua": stage(build)},
         ["Dockerfile:2", "CPOY", "did you mean COPY"], 1)
    case("a Dockerfile with RUN", {"c/Dockerfile": "FROM scratch\nRUN make\n", "a.lua": stage(build)},
         ["Dockerfile:2", "RUN", "hint:"], 1)
    case("a Dockerfile that copies what is not there", {"c/Dockerfile": "FROM scratch\nCOPY nothing /\n", "a.lua": stage(build)},
         ["Dockerfile:2", "nothing"], 1)
    case("a component without an image", {"c.yaml": "name: x\nimplementation: {container: {}}\n",
                                          "a.lua": stage('require("kubeflow").load_component "c.yaml"')}, ["c.yaml", "image"], 1)
    case("a command that was not granted", {"a.lua": stage('require("exec") { "ls" }')},
         ["exec", "ls", "permissions", "hint:"], 4)
    case("an unknown profile", {"a.lua": good}, ["unknown profile 'nowhere'", "hint:"], 2, ("run", "a.lua", "--profile", "nowhere"))


services()
files()
print(f"{passed} passed, {failed} failed")
sys.exit(failed != 0)
