#!/usr/bin/env python3
"""docs/guide.md: each code block that names its file is written there, and run. usage: guide.py [MLHOST]

Blocks of Lua that name no file must at least be Lua. The last line is "N passed, N failed".
"""
import http.server, json, os, re, shutil, subprocess, sys, tempfile, threading

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "../.."))
PROGRAM = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("MLHOST", "build/mlhost"))
GUIDE = os.environ.get("GUIDE", os.path.join(ROOT, "docs/guide.md"))
work = tempfile.mkdtemp(prefix="mlhost-guide-") + "/checkout"
os.mkdir(work)
passed = failed = 0


def result(name, good, shown=""):
    global passed, failed
    if good:
        passed += 1
    else:
        failed += 1
        print(f"---- {name}\n{shown}")


def write(name, text):
    path = os.path.join(work, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as f:
        f.write(text)


def run(args, status, *texts, env={}, stdin=""):
    """The program's exit status, and texts that it prints in this order."""
    keep = {k: v for k, v in os.environ.items() if k != "CI" and not k.startswith(("MLHOST", "TF_BUILD", "MLFLOW", "KF_", "DEMO"))}
    done = subprocess.run([PROGRAM, *args], cwd=work, env={**keep, "LC_ALL": "C.UTF-8", **env}, input=stdin, text=True,
                          timeout=180, capture_output=True)
    out, at, good = done.stdout + done.stderr, 0, done.returncode == status
    for text in texts:
        found = out.find(text, at)
        good, at = good and found >= 0, max(found, at)
    result(" ".join(args), good, f"status {done.returncode}, wanted {status} with {texts}\n{out}")
    return out


def output_of(stage):
    runs = sorted(os.listdir(work + "/.mlhost/runs"))
    with open(f"{work}/.mlhost/runs/{runs[-1]}/journal.jsonl") as f:
        ends = [e for e in map(json.loads, f) if e["t"] == "stage_end" and e["stage"] == stage]
    return ends[-1].get("output")


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        there = self.path == "/"
        self.send_response(200 if there else 404)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello" if there else b"nope!")

    def log_message(self, *_):
        pass


text = open(GUIDE).read()
files, anonymous = {}, []
for kind, body in re.findall(r"^```(lua|yaml|dockerfile)\n(.*?)^```", text, re.M | re.S):
    named = re.match(r"(?:--|#) (\S+)\n", body)
    if named:
        result(f"{named[1]} occurs once", named[1] not in files)
        files[named[1]] = body
    elif kind == "lua":
        anonymous.append(body)
files.setdefault("mlhost.yaml", "profile: local\n")
for name, body in files.items():
    write(name, body)
for i, body in enumerate(anonymous):
    write("anonymous.lua", body + '\nstage "x" { run = function() end }\n')
    run(["check", "anonymous.lua"], 0)
write("data.csv", "a\nb\nc\n")

scripts = [n for n in files if n.endswith(".lua") and "/" not in n]
run(["check", *scripts], 0)
run(["plan", "first.lua"], 0, "count", "summary")
run(["run", "first.lua", "-P", "file=data.csv"], 0, "data.csv has 3 lines", "2 ok")
result("the stage's output", output_of("count") == {"lines": 3}, str(output_of("count")))
run(["run", "stages.lua"], 0, "audit ended as failed")
result("best of the matrix", output_of("choose") == {"best": "large-1", "count": 4}, str(output_of("choose")))
run(["run", "stages.lua", "-P", "deploy=true"], 0, "deploying\tlarge-1", "audit ended as ok")
run(["run", "together.lua"], 0, "no file (not_found), going on")
result("parallel", output_of("together")["squares"] == [n * n for n in range(1, 9)], str(output_of("together")))
run(["run", "release.lua"], 4, "approval 'release'", "hint: --approve release")
run(["run", "release.lua", "--approve", "release"], 0, "approved: Publish to everybody?")
run(["run", "release.lua", "--approve", "all"], 0)
result("the second release", output_of("release") == {"approved_by": "--approve", "number": 2}, str(output_of("release")))
run(["run", "errors.lua"], 1, "failed\t2", "2\t", "the data is not fit", "hint: look at row 7")
run(["run", "granted.lua"], 4, "error: granted.lua:18: stage 'without' may not write 'dist/more.txt'",
    "hint: add  permissions = { write = { \"dist/more.txt\" } }  to stage 'without'")
run(["plan", "granted.lua", "--policy", "../policy.yaml"], 0, "LANG")
run(["run", "granted.lua", "--policy", "../policy.yaml"], 4, "stage 'list' may not run the command 'ls'")
run(["run", "granted.lua", "--policy", "../policy.yaml", "--allow-exec", "ls"], 4, "may not write 'dist/more.txt'")
out = run(["run", "secrets.lua"], 0, "***", env={"DEMO_TOKEN": "swordfish-42"})
result("the secret is not shown", "swordfish" not in out, out)
run(["run", "secrets.lua"], 1, "set DEMO_TOKEN")
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
threading.Thread(target=server.serve_forever, daemon=True).start()
run(["run", "outside.lua", "-P", f"url=http://127.0.0.1:{server.server_port}/"], 0, "200\ttrue\t404")
files_stage = output_of("files")
result("files", len(files_stage["files"]) == 1 and files_stage["files"][0].endswith("files/out/numbers.txt") and
       files_stage["size"] == 6, str(files_stage))
server.shutdown()
run(["run", "images.lua"], 0, "built and pushed", "2 ok")
run(["run", "images.lua"], 0, "was there", "2 ok")
run(["component", "greeter/main.lua", "--name", "you", "--times", "2", "--greeting", "greeting.txt", "--length", "length.txt"], 0)
result("greeting.txt", open(work + "/greeting.txt").read() == "Hello, you! Hello, you!")
result("length.txt", open(work + "/length.txt").read() == "23")
run(["run", "kubeflow.lua"], 0, "greeter\tSUCCEEDED", "greeter-2\tSUCCEEDED", "2 ok")
result("the run's state", output_of("run")["state"] == "SUCCEEDED", str(output_of("run")))
run(["run", "mlflow.lua"], 0)
result("the model", output_of("log") == {"version": "1", "loss": 1 / 3, "runs": 1}, str(output_of("log")))
run(["run", "deploy.lua"], 0, "10 %: p95", "100 %: p95")
result("the rollout", {k: output_of("deploy")[k] for k in ("before", "after")} == {"before": 42, "after": 63}, str(output_of("deploy")))
run(["serve", "--status"], 0, "Available", "/seldon/demo/doubler/")
run(["serve", "--stop"], 0, "stopped")
run(["test", "tests", "--junit", "tests.xml"], 0, "2 passed")
write("tests/test_services.lua", '''local t, mlflow = require "test", require "mlflow"
t.case("the embedded services", function() t.eq(mlflow.connect():experiment("demo").name, "demo") end)
''')
run(["test", "tests"], 0, "3 passed")
out = run(["run", "scores.lua", "--debug"], 1, "stopped: error at scores.lua:4", "->    4    return total / row.count", "{ hits = 3, weight = 1 }", "scores.lua:13 in function 'run'", "1.0",
          "[scores] failed", stdin="row\nrow.count = 3\n:up\nscore(row)\n")
shown = re.findall(r"^> (.*)$", re.search(r"^\$ mlhost repl first.lua.*?\n(.*?)^```", text, re.M | re.S)[1], re.M)
run(["repl", "first.lua", "-P", "file=data.csv"], 0, "count", "data.csv has 3 lines", "3", "[summary] ok", "summary  <- count", stdin="\n".join(shown) + "\n")
shown = re.findall(r"^> (.*)$", re.search(r"^\$ mlhost repl\n(.*?)^```", text, re.M | re.S)[1], re.M)
run(["repl"], 0, "first.lua", "{ \"", stdin="\n".join(shown) + "\n:doc fs.read\n")
for command in set(re.findall(r"`mlhost (\w+)", text)) | set(re.findall(r"^mlhost (\w+)", text, re.M)):
    run([command, "--help"], 0, "mlhost " + command)
for path in set(re.findall(r"\]\(([^)#]+)\)", text)):
    result(f"link {path}", os.path.exists(os.path.join(ROOT, "docs", path)))
headings = {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in re.findall(r"^#+ (.*)$", text, re.M)}
for anchor in re.findall(r"\]\(#([^)]+)\)", text):
    result(f"anchor {anchor}", anchor in headings, str(sorted(headings)))
shutil.rmtree(work, ignore_errors=True)
print(f"{passed} passed, {failed} failed")
sys.exit(failed != 0)
