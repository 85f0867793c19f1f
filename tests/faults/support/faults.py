"""What the drivers beside this folder share: a server that counts effects, a pipeline of ten stages that has some, runs of it."""
import collections
import http.server
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time

PROGRAM = os.path.abspath(os.environ.get("MLHOST", "build/mlhost"))
HERE = os.path.dirname(os.path.abspath(__file__))
MARK = f"faults-{os.getpid()}-{time.monotonic_ns()}"  # in the environment of every process that a driver starts
TIMEOUT = 120

PIPELINE = """
local http = require "http"
local host = require "host"

pipeline "faults" { permissions = { net = { "127.0.0.1:@PORT@" } } }

-- Makes something outside, once: what is known to be there is not made again, and the key tells the server the rest.
local function make(cx, what)
  local key = cx.run_id .. "/" .. cx.cell .. "/" .. what
  local there = cx.effects and cx.effects[what]
  if there then return there end
  local reply = http.post("http://127.0.0.1:@PORT@/" .. key, { headers = { ["Idempotency-Key"] = key }, body = what, retry = true })
  local made = reply:json().made
  host.event.effect(what, made)
  return made
end

stage "prepare" { run = function(cx)
  local f = cx.out "rows.txt"
  require "fs".write(f, "1\\n2\\n3\\n")
  return { rows = 3, made = make(cx, "data") }
end, permissions = { write = { "." } } }

stage "build" { needs = { "prepare" }, matrix = { part = { "a", "b" } }, run = function(cx)
  print("building " .. cx.matrix.part)
  return { image = make(cx, "image"), part = cx.matrix.part }
end }

stage "flaky" { needs = { "prepare" }, retry = { max = 3, backoff = "5ms" }, run = function(cx)
  make(cx, "try")
  if cx.attempt < 2 then error "not yet" end
  return { done = true }
end }

stage "train" { needs = { "build", "flaky" }, run = function(cx)
  local run = make(cx, "run")
  local metric = make(cx, "metric")
  return { run = run, metric = metric, parts = cx.needs.build.a.part .. cx.needs.build.b.part }
end }

stage "skipped" { when = function() return false, "never" end, run = function() end }

stage "evaluate" { needs = { "train", "skipped" }, run = function(cx)
  set_variable("score", "7")
  report.link("model", "http://127.0.0.1/" .. cx.needs.train.run)
  return { score = #cx.needs.train.run + 7 }
end }

stage "publish" { needs = { "evaluate" }, run = function(cx)
  return { version = make(cx, "version") }
end, always = function(cx) make(cx, "released") end }

stage "tolerated" { allow_failure = true, run = function() error "as it always does" end, always = function(cx) make(cx, "swept") end }

stage "spread" { needs = { "prepare" }, matrix = { x = { 1, 2 }, y = { "p", "q" } }, run = function(cx)
  return { text = cx.matrix.x .. cx.matrix.y }
end }

stage "report" { needs = { "publish", "spread", "tolerated" }, run = function(cx)
  local all = {}
  for _, cell in pairs(cx.needs.spread) do all[#all + 1] = cell.text end
  table.sort(all)
  return { version = cx.needs.publish.version, spread = table.concat(all, " ") }
end }
"""


class Server(http.server.ThreadingHTTPServer):
    """Counts what is made. A key that was there before makes nothing and gets the same answer."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.Lock()
        self.asked, self.made, self.order = collections.Counter(), {}, []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request, client_address):
        pass  # a client that was killed

    @property
    def port(self):
        return self.server_address[1]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"] or 0)).decode()
        key = self.headers["Idempotency-Key"]
        run, cell, what = key.split("/", 2)
        with self.server.lock:
            self.server.asked[key] += 1
            self.server.order.append(key)
            self.server.made.setdefault(key, f"{what} of {cell}" if what == body else "wrong")
            answer = json.dumps({"made": self.server.made[key]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


class Score:
    """Counts cases; the closing line is for tests/run."""

    def __init__(self):
        self.passed = self.failed = 0
        self.lock = threading.Lock()

    def case(self, name, problems, output="", quiet=False):
        with self.lock:
            if problems:
                self.failed += 1
                print(f"FAIL {name}: {problems}\n{output[-3000:]}", flush=True)
            else:
                self.passed += 1
                if not quiet:
                    print(f"ok   {name}", flush=True)

    def close(self):
        left = leftovers()
        self.case("no process is left", [f"{pid} {what}" for pid, what in left])
        for pid, _ in left:
            os.kill(pid, signal.SIGKILL)
        print(f"{self.passed} passed, {self.failed} failed")
        return self.failed != 0


def leftovers():
    """Processes that carry our mark, a moment after the last one should have ended."""
    for _ in range(100):
        left = []
        for name in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{name}/environ", "rb") as file:
                    if MARK.encode() in file.read() and int(name) != os.getpid():
                        with open(f"/proc/{name}/comm", encoding="utf-8") as comm:
                            left.append((int(name), comm.read().strip()))
            except OSError:
                continue
        if not left:
            return []
        time.sleep(0.1)
    return left


def build_preload(folder):
    library = os.path.join(folder, "preload.so")
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE", "-o", library,
                    os.path.join(HERE, "preload.c"), "-ldl"], check=True)
    return library


def environment(**more):
    env = {key: value for key, value in os.environ.items()
           if not key.startswith(("MLFLOW_", "KF_", "MLHOST_", "LD_", "FAULT_")) and key != "TF_BUILD"}
    return {**env, "FAULTS_MARK": MARK, **more}


class Work:
    """A folder with the pipeline in it."""

    def __init__(self, parent, server, script=None):
        self.folder = tempfile.mkdtemp(dir=parent)
        with open(os.path.join(self.folder, "a.lua"), "w", encoding="utf-8") as file:
            file.write((script or PIPELINE).replace("@PORT@", str(server.port if server else 0)))

    def start(self, *words, jobs=2, stdout=subprocess.PIPE, **env):
        return subprocess.Popen([PROGRAM, "run", "-o", "plain", "--jobs", str(jobs), *words], cwd=self.folder, env=environment(**env),
                                stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.STDOUT, text=True, errors="replace")

    def run(self, *words, **more):
        """-> exit status (None: it hung, and was killed), output."""
        process = self.start(*words, **more)
        try:
            output, _ = process.communicate(timeout=TIMEOUT)
            return process.returncode, output
        except subprocess.TimeoutExpired:
            process.kill()
            return None, process.communicate()[0]

    def command(self, *words):
        done = subprocess.run([PROGRAM, *words], cwd=self.folder, env=environment(), timeout=TIMEOUT, text=True, errors="replace",
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        return done.returncode, done.stdout

    def runs(self):
        folder = os.path.join(self.folder, ".mlhost", "runs")
        return sorted(os.listdir(folder)) if os.path.isdir(folder) else []

    def run_folder(self):
        return os.path.join(self.folder, ".mlhost", "runs", self.runs()[-1])

    def journal(self):
        """Whole lines of the newest run's journal."""
        path = os.path.join(self.run_folder(), "journal.jsonl")
        if not os.path.exists(path):
            return []
        with open(path, encoding="utf-8") as file:
            return [json.loads(line) for line in file.read().split("\n")[:-1]]

    def ends(self):
        """The last end of each cell: status and output, or what it failed with."""
        ends = {}
        for event in self.journal():
            if event["t"] == "stage_end":
                ends[event["stage"]] = (event["status"], event.get("output"), event.get("error", {}).get("message"))
        return ends

    def drop(self):
        shutil.rmtree(self.folder, ignore_errors=True)


def journal_order(events):
    """What any journal must be, however often its run was ended: numbered without a gap, each end after its start."""
    problems = []
    running = set()
    for at, event in enumerate(events):
        if event.get("seq") != at + 1:
            problems.append(f"event {at + 1} has number {event.get('seq')}")
        if event["t"] == "run_start":
            running = set()
        if event["t"] == "stage_start":
            running.add(event["stage"])
        if event["t"] == "stage_end" and event["status"] == "ok" and event.get("attempt", 0) < 1:
            problems.append(f"{event['stage']} ended without a start")
        if event.get("duration_ms", 0) < 0:
            problems.append(f"{event['t']} took {event['duration_ms']} ms")
    return problems
