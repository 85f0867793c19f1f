#!/usr/bin/env python3
"""The workspace's daemon: `mlhost serve --background|--status|--stop`, what it survives, and what brings it back.

$MLHOST is the program. A real model is deployed by a real run; processes are killed by their own pid only. Started as
root, everything is done a second time as the user nobody. Prints "N passed, N failed" last.
"""
import http.client
import json
import os
import re
import select
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
import traceback

MLHOST = os.path.abspath(os.environ.get("MLHOST", "build/mlhost"))
PATIENCE = 60  # seconds until something that must happen has not
LOG_LIMIT = 8 << 20
# As agents name what a job started: Azure Pipelines, GitHub, Jenkins.
TRACKED = ["VSTS_PROCESS_LOOKUP_ID", "RUNNER_TRACKING_ID", "JENKINS_NODE_COOKIE"]

MODEL = """
model "doubler" {
  load = function(cx) return { factor = cx.parameters.factor or 2 } end,
  predict = function(self, rows)
    local out = {}
    for i, row in ipairs(rows) do out[i] = { row[1] * self.factor } end
    return out
  end,
}
"""
DEPLOY = """
local registry, seldon = require "registry", require "seldon"
stage "deploy" {
  timeout = "5m",
  run = function()
    local image = registry.ensure { context = "doubler", name = "doubler" }
    local s = seldon.connect { namespace = "demo" }
    local deployment = s:deploy(seldon.deployment { name = "doubler", image = image.ref })
    return { value = deployment:client():predict { { 21 } }.values[1][1] }
  end,
}
"""
TOUCH = """
local k8s = require "k8s"
pipeline "touch" { params = { name = { type = "string" } } }
stage "touch" {
  run = function(cx)
    local cluster = k8s.connect {}
    cluster:apply { apiVersion = "v1", kind = "ConfigMap", metadata = { name = cx.params.name }, data = { of = cx.params.name } }
    return cluster:get("ConfigMap", cx.params.name).data.of
  end,
}
"""

passed = failed = 0


def check(name, holds, detail=""):
    global passed, failed
    if holds:
        passed += 1
    else:
        failed += 1
        print(f"FAIL {name}: {detail}", flush=True)
    return holds


def until(what, holds):
    """Until holds() is true; its value, or None when the time is over."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        value = holds()
        if value:
            return value
        time.sleep(0.02)
    print(f"  waited in vain: {what}", flush=True)
    return None


# ---- processes ----


def parents():
    found = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as f:
                fields = f.read().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] not in "ZX":
            found[int(name)] = int(fields[1])
    return found


def tree(pid):
    """The processes below pid, without it."""
    by_child, found = parents(), []
    level = [pid]
    while level:
        level = [child for child, parent in by_child.items() if parent in level]
        found += level
    return found


def environment(pid):
    try:
        with open(f"/proc/{pid}/environ", "rb") as f:
            return dict(item.split(b"=", 1) for item in f.read().split(b"\0") if b"=" in item)
    except OSError:
        return {}


def kill(pid, signo):
    """A process that may have ended since it was found."""
    try:
        os.kill(pid, signo)
    except ProcessLookupError:
        pass


def gone(pids):
    return until("processes end: " + str(pids), lambda: not set(pids) & set(parents())) is not None


class Workspace:
    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="mlhost-daemon-")
        self.write("mlhost.yaml", "profile: local\n")
        self.write("doubler/model.lua", MODEL)
        self.write("doubler/Dockerfile",
                   'FROM mlhost/base\nCOPY model.lua /app/\nENTRYPOINT ["mlhost", "model", "/app/model.lua"]\n')
        self.write("deploy.lua", DEPLOY)
        self.write("touch.lua", TOUCH)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.cli("serve", "--stop")
        left = self.processes()
        check("nothing is left", not left, left)
        for pid in left:
            kill(pid, signal.SIGKILL)
        for folder, names, _ in os.walk(self.dir):
            for name in names:
                if not os.path.islink(os.path.join(folder, name)):
                    os.chmod(os.path.join(folder, name), 0o700)  # an overlay leaves folders that nobody may read
        shutil.rmtree(self.dir)

    def path(self, name):
        return os.path.join(self.dir, name)

    def write(self, name, text):
        os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
        with open(self.path(name), "w") as f:
            f.write(text)

    def read(self, name):
        with open(self.path(name)) as f:
            return f.read()

    def popen(self, *args, **more):
        env = {**os.environ, "HOME": self.dir, "MLHOST_SELDON_BACKOFF_MS": "200", **more.pop("env", {})}
        return subprocess.Popen([MLHOST, *args], cwd=self.dir, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True, **more)

    def cli(self, *args, **more):
        """(exit status, stdout, stderr)"""
        process = self.popen(*args, **more)
        out, err = process.communicate(timeout=5 * PATIENCE)
        return process.returncode, out, err

    def background(self, *args):
        status, out, err = self.cli("serve", "--background", *args)
        check("it starts", status == 0, (status, out, err))
        return self.record()

    def record(self):
        return json.loads(self.read(".mlhost/local/daemon/daemon.json"))

    def status(self):
        status, out, _ = self.cli("serve", "--status", "--json")
        found = json.loads(out)
        check("the exit status says whether it runs", status == (0 if found["running"] else 3), (status, found))
        return found

    def running(self):
        return self.status()["running"]

    def processes(self):
        """The processes that serve this workspace."""
        found = []
        for pid in parents():
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as f:
                    words = f.read().split(b"\0")
            except OSError:
                continue
            if b"serve" in words and self.dir.encode() in words:
                found.append(pid)
        return found

    def serving(self, record):
        """The serving process; the other one supervises it."""
        return until("a serving process", lambda: [p for p in self.processes() if p != record["pid"]])[0]


def get(record, path="/healthz"):
    """(status, text) through the port; 0: nobody is there."""
    link = http.client.HTTPConnection("127.0.0.1", record["port"], timeout=PATIENCE)
    try:
        link.request("GET", path)
        reply = link.getresponse()
        return reply.status, reply.read().decode()
    except (ConnectionError, http.client.HTTPException) as e:
        return 0, str(e)
    finally:
        link.close()


def over_socket(record):
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(PATIENCE)
        link.connect(record["socket"])
        link.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return link.recv(12)


def predict(record, value=21):
    """(status, predicted value or text) through the ingress."""
    link = http.client.HTTPConnection("127.0.0.1", record["port"], timeout=PATIENCE)
    try:
        link.request("POST", "/seldon/demo/doubler/api/v1.0/predictions", json.dumps({"data": {"ndarray": [[value]]}}),
                     {"Content-Type": "application/json"})
        reply = link.getresponse()
        text = reply.read().decode()
        return reply.status, json.loads(text)["data"]["ndarray"][0][0] if reply.status == 200 else text
    except (ConnectionError, http.client.HTTPException) as e:
        return 0, str(e)
    finally:
        link.close()


def answers(record):
    return until("the model answers", lambda: predict(record) == (200, 42)) is not None


# ---- the tests ----

TESTS = []


def test(fn):
    TESTS.append(fn)
    return fn


@test
def starts_and_stops():
    with Workspace() as w:
        status, out, _ = w.cli("serve", "--status")
        check("nothing runs yet", (status, out) == (3, "not running\n"), (status, out))
        status, out, _ = w.cli("serve", "--stop")
        check("nothing is stopped", (status, out) == (0, "not running\n"), (status, out))
        first = w.background()
        check("its record is private", stat.S_IMODE(os.stat(w.path(".mlhost/local/daemon/daemon.json")).st_mode) == 0o600)
        check("its folder is private", stat.S_IMODE(os.stat(w.path(".mlhost/local/daemon")).st_mode) == 0o700)
        check("its socket's folder is private",
              stat.S_IMODE(os.stat(os.path.dirname(first["socket"])).st_mode) & 0o077 == 0, first)
        check("the port answers", get(first) == (200, "OK"), get(first))
        check("the socket answers", over_socket(first) == b"HTTP/1.1 200")
        check("a page of another origin is refused", refused(first))
        found = w.status()
        check("the status is the record's", [found[k] for k in ("pid", "url", "socket", "version")]
              == [first[k] for k in ("pid", "url", "socket", "version")] and found["running"], (found, first))
        status, out, _ = w.cli("serve", "--background")
        check("a second start says so", status == 0 and f"process {first['pid']}" in out and first["url"] in out, out)
        check("there is one", len(w.processes()) == 2, w.processes())
        status, out, _ = w.cli("doctor")
        check("doctor shows it", f"{first['url']}, process {first['pid']}" in out, out)
        for fd in (0, 1, 2):
            try:
                where = os.readlink(f"/proc/{first['pid']}/fd/{fd}")
            except PermissionError:  # it is open to nobody but root
                check(f"descriptor {fd} cannot be looked at", os.getuid() != 0)
                continue
            check(f"descriptor {fd} is not the starter's", where == "/dev/null" or where.endswith("serve.log"), where)
        pids = w.processes()
        status, out, _ = w.cli("serve", "--stop")
        check("--stop says what it ended", status == 0 and f"process {first['pid']}" in out, out)
        check("no process is left", not set(pids) & set(parents()))
        check("no socket is left", not os.path.exists(first["socket"]))
        check("the port is closed", get(first)[0] == 0)
        check("it is known to be stopped", not w.running())
        again = w.background()
        check("the address stays", again["url"] == first["url"], (first, again))


def refused(record):
    link = http.client.HTTPConnection("127.0.0.1", record["port"], timeout=PATIENCE)
    link.request("GET", "/api/v1/namespaces", headers={"Host": "rebound.example"})
    status = link.getresponse().status
    link.close()
    return status == 403


@test
def port_is_taken():
    with Workspace() as w, socket.socket() as taken:
        first = w.background()
        w.cli("serve", "--stop")
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", first["port"]))
        taken.listen()
        status, _, err = w.cli("serve", "--background", "--port", str(first["port"]))
        check("a port that was asked for and is taken is an error", status == 1 and str(first["port"]) in err, (status, err))
        check("nothing stays of a start that failed", gone(w.processes()) and not w.running(), w.processes())
        second = w.background()
        check("another port is taken instead of the last one", second["port"] != first["port"] and get(second)[0] == 200)


@test
def first_start_fails():
    with Workspace() as w:
        w.write(".mlhost/local/kubernetes", "a file where the folder of objects should be\n")
        status, _, err = w.cli("serve", "--background")
        check("the reason comes to the starter", status == 1 and "kubernetes" in err, (status, err))
        check("no process keeps trying", gone(w.processes()), w.processes())
        check("it does not count as running", not w.running())
        os.unlink(w.path(".mlhost/local/kubernetes"))
        check("it starts once the cause is gone", get(w.background())[0] == 200)


@test
def lives_on():
    """A run on a build agent deploys a model; the job's end does not take it."""
    with Workspace() as w:
        job = {name: f"job-{os.getpid()}" for name in TRACKED}
        job["SYSTEM_ACCESSTOKEN"] = "a token of the job"
        job["AZURE_CLIENT_SECRET"] = "a secret of the job"
        run = w.popen("run", "deploy.lua", "--output", "plain", start_new_session=True, env=job)
        out, err = run.communicate(timeout=5 * PATIENCE)
        if not check("the run deploys", run.returncode == 0, out + err):
            return
        record = w.record()
        mine = [record["pid"], *tree(record["pid"])]
        check("supervising, serving, model", len(mine) >= 3, mine)
        check("it is nobody's child", parents()[record["pid"]] not in (run.pid, os.getpid()))
        for pid in mine:
            check("it is in a session of its own", os.getsid(pid) != run.pid and os.getpgid(pid) != run.pid)
            kept = [name for name in job if name.encode() in environment(pid)]
            check("no agent takes it for the job's", not kept, (pid, kept))
        # What an agent does at the end of a job: the group, then whoever has the job's mark.
        try:
            os.killpg(run.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        for pid in parents():
            if environment(pid).get(TRACKED[0].encode()) == job[TRACKED[0]].encode():
                kill(pid, signal.SIGKILL)
        check("the model answers after the job", predict(record) == (200, 42), predict(record))
        check("the same processes live", set(mine) <= set(parents()), (mine, tree(record["pid"])))
        found = w.status()
        check("the status has the deployment", [(d["namespace"], d["name"], d["state"]) for d in found["deployments"]]
              == [("demo", "doubler", "Available")], found["deployments"])
        status, out, _ = w.cli("serve", "--status")
        check("the status shows its address", status == 0 and f"{record['url']}/seldon/demo/doubler/" in out, out)
        dies_and_comes_back(w, record)


def dies_and_comes_back(w, record):
    models = tree(w.serving(record))
    serving = w.serving(record)
    os.kill(serving, signal.SIGKILL)
    check("a request to the dead one waits for the next", get(record) == (200, "OK"), get(record))
    check("its models died with it", gone([serving, *models]))
    check("the supervising one lives", w.record() == record and record["pid"] in parents())
    check("the model comes back by itself", answers(record), predict(record))
    check("the log tells of it", "signal 9" in w.read(".mlhost/local/daemon/serve.log"))

    pids = [record["pid"], *tree(record["pid"])]
    os.kill(record["pid"], signal.SIGSTOP)  # so that it cannot start another one in between
    os.kill(w.serving(record), signal.SIGKILL)
    os.kill(record["pid"], signal.SIGKILL)
    check("both are killed, and all below", gone(pids))
    check("a record without a lock is nobody's", not w.running())
    check("a killed one leaves its socket", os.path.exists(record["socket"]))
    status, out, err = w.cli("run", "touch.lua", "--param", "name=after", "--output", "plain")
    check("the next run that needs it starts it", status == 0, out + err)
    again = w.record()
    check("at the same address", again["url"] == record["url"] and again["pid"] != record["pid"], (record, again))
    check("what was deployed comes back", answers(again), predict(again))

    pids = [again["pid"], *tree(again["pid"])]
    os.kill(again["pid"], signal.SIGKILL)
    status, out, err = w.cli("serve", "--stop")
    check("--stop waits for a serving process that lost its supervising one", status == 0, (status, out, err))
    check("it has ended, with its models", not set(pids) & set(parents()), pids)
    check("its socket is removed", not os.path.exists(again["socket"]))
    check("nothing runs", not w.running())
    check("the deployment is remembered", [d["name"] for d in w.status()["deployments"]] == ["doubler"])

    pids = [w.background()["pid"]]
    check("a start brings it back", answers(w.record()))
    pids += tree(pids[0])
    status, out, _ = w.cli("serve", "--stop")
    check("--stop ends the models, too", status == 0 and not set(pids) & set(parents()), (status, out))


@test
def terminal_dies():
    """Started at a terminal that then hangs up."""
    with Workspace() as w:
        leader, follower = os.openpty()
        process = subprocess.Popen(["setsid", "--ctty", "--wait", MLHOST, "serve", "--background"], cwd=w.dir,
                                   stdin=follower, stdout=follower, stderr=follower, env={**os.environ, "HOME": w.dir})
        os.close(follower)
        check("it starts at a terminal", process.wait(PATIENCE) == 0)
        os.close(leader)
        record = w.record()
        check("it serves without the terminal", get(record) == (200, "OK") and w.running())


@test
def many_start_at_once():
    with Workspace() as w:
        starts = [w.popen("serve", "--background") for _ in range(6)]
        done = [(*p.communicate(timeout=PATIENCE), p.returncode) for p in starts]
        check("all starts succeed", all(code == 0 for _, _, code in done), done)
        url = w.record()["url"]
        check("all say the same address", all(url in out for out, _, _ in done), (url, done))
        check("one has won", until("the others end", lambda: len(w.processes()) == 2), w.processes())
        w.cli("serve", "--stop")
        runs = [w.popen("run", "touch.lua", "--param", f"name=run{i}", "--output", "plain") for i in range(3)]
        done = [(*p.communicate(timeout=2 * PATIENCE), p.returncode) for p in runs]
        check("runs that start it at once all work", all(code == 0 for _, _, code in done), done)
        check("one serves them", until("the others end", lambda: len(w.processes()) == 2), w.processes())
        record = w.record()
        found = [get(record, f"/api/v1/namespaces/default/configmaps/run{i}")[0] for i in range(3)]
        check("each run's object is there", found == [200] * 3, found)


@test
def in_the_foreground():
    with Workspace() as w:
        first = w.popen("serve", "--port", "0")
        record = until("it serves", lambda: w.running() and w.record())
        check("in the foreground it is the daemon", record["pid"] == first.pid, (record, first.pid))
        check("a run uses it", w.cli("run", "touch.lua", "--param", "name=fore", "--output", "plain")[0] == 0
              and get(record, "/api/v1/namespaces/default/configmaps/fore")[0] == 200)
        second = w.popen("serve", "--port", "0")
        url = re.search(r"http://127\.0\.0\.1:(\d+)", second.stdout.readline())
        other = {"port": int(url.group(1))}
        check("a second one serves the rest", get(other, "/v2/")[0] == 200)
        for path in ("/api/v1/namespaces", "/apis/machinelearning.seldon.io/v1/seldondeployments", "/seldon/demo/doubler/"):
            status, text = get(other, path)
            check(f"{path} names the daemon", status == 503 and record["url"] in text, (status, text))
        check("Kubeflow's paths are its own", get(other, "/apis/v2beta1/healthz")[0] == 200)
        second.send_signal(signal.SIGINT)
        check("Ctrl-C ends it", second.wait(PATIENCE) == 0)
        second.communicate()
        status, _, _ = w.cli("serve", "--stop")
        check("--stop ends one in the foreground", status == 0 and first.wait(PATIENCE) == 0)
        first.communicate()
        check("with its socket", not os.path.exists(record["socket"]) and not w.running())


@test
def ended_at_any_moment():
    """Signals before, while and after it gets ready: neither a process nor a socket nor the lock stays."""
    with Workspace() as w:
        record = w.background()
        w.cli("serve", "--stop")
        for i, signo in enumerate((signal.SIGINT, signal.SIGTERM) * 8):
            process = w.popen("serve", "--port", "0")
            select.select([process.stdout], [], [], i * 0.004)
            process.send_signal(signo)
            process.communicate(timeout=PATIENCE)
            if not check(f"{signo.name} after {i * 4} ms", not os.path.exists(record["socket"]) and not w.processes(),
                         w.processes()):
                break
        for i in range(8):
            start = w.popen("serve", "--background")
            time.sleep(i * 0.004)
            for pid in w.processes():
                kill(pid, signal.SIGTERM)
            start.communicate(timeout=PATIENCE)
            if w.processes():
                w.cli("serve", "--stop")
            check(f"the background one after {i * 4} ms", gone(w.processes()) and not os.path.exists(record["socket"]),
                  w.processes())
        check("it starts after all that", get(w.background())[0] == 200)


@test
def records_lie():
    with Workspace() as w:
        first = w.background()
        w.cli("serve", "--stop")
        bystander = subprocess.Popen(["sleep", "600"])
        w.write(".mlhost/local/daemon/daemon.json", json.dumps({**first, "pid": bystander.pid}))
        check("a pid without the lock is somebody else's", not w.running())
        status, out, _ = w.cli("serve", "--stop")
        check("and is left alone", (status, out) == (0, "not running\n") and bystander.poll() is None, out)
        bystander.kill()
        bystander.wait()
        w.write(".mlhost/local/daemon/daemon.json", '{"pid": "x')
        check("a record that is cut off is none", not w.running())
        record = w.background()
        w.write(".mlhost/local/daemon/daemon.json", json.dumps({**record, "version": "0.0.1"}))
        _, _, err = w.cli("serve", "--background")
        check("another build is named with what to do", "0.0.1" in err and "mlhost serve --stop" in err, err)
        _, out, err = w.cli("run", "touch.lua", "--param", "name=skew", "--output", "plain")
        check("a run says so, too", "0.0.1" in out + err and "mlhost serve --stop" in out + err, out + err)


@test
def log_is_bounded():
    with Workspace() as w:
        record = w.background()
        log = w.path(".mlhost/local/daemon/serve.log")
        with open(log, "a") as f:
            f.write(("x" * 99 + "\n") * (LOG_LIMIT // 100 + 1) + "the last line\n")
        os.kill(w.serving(record), signal.SIGKILL)
        check("it serves again", get(record)[0] == 200)
        check("the log has been cut", until("the log is cut", lambda: os.path.getsize(log) < LOG_LIMIT), os.path.getsize(log))
        old = w.read(".mlhost/local/daemon/serve.log.1")
        check("its end is kept aside", "the last line" in old and len(old) < LOG_LIMIT, len(old))


@test
def usage():
    with Workspace() as w:
        for words in (["--background", "--stop"], ["--json"], ["--port", "70000"], ["more"]):
            status, _, err = w.cli("serve", *words)
            check(f"serve {' '.join(words)}", status == 2 and "mlhost serve --help" in err, (status, err))


def as_nobody():
    """The same once more without privileges: (passed, failed)."""
    home = tempfile.mkdtemp(prefix="mlhost-nobody-")
    try:
        os.chmod(home, 0o755)
        program = shutil.copy(MLHOST, os.path.join(home, "mlhost"))
        script = shutil.copy(os.path.abspath(__file__), os.path.join(home, "serve_daemon.py"))
        for module in os.listdir(os.path.dirname(MLHOST)):
            if module.endswith(".so"):
                shutil.copy(os.path.join(os.path.dirname(MLHOST), module), home)
        env = {k: v for k, v in os.environ.items() if k not in ("XDG_RUNTIME_DIR", "TMPDIR")}
        done = subprocess.run(["/usr/bin/python3", "-B", script, *sys.argv[1:]], env={**env, "MLHOST": program, "HOME": "/nonexistent"},
                              cwd="/", user="nobody", group="nogroup", extra_groups=[], stdout=subprocess.PIPE, text=True)
        print(re.sub("^", "  nobody: ", done.stdout.rstrip(), flags=re.M))
        line = re.search(r"^(\d+) passed, (\d+) failed$", done.stdout, re.M)
        return (int(line[1]), int(line[2])) if line else (0, 1)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def main():
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs, and what they start, ignore it
    global passed, failed
    for fn in TESTS:
        if sys.argv[1:] and fn.__name__ not in sys.argv[1:]:
            continue
        start = time.monotonic()
        try:
            fn()
        except Exception:
            check(fn.__name__, False, traceback.format_exc())
        print(f"{fn.__name__} {time.monotonic() - start:.1f}s", flush=True)
    if os.getuid() == 0:
        more = as_nobody()
        passed, failed = passed + more[0], failed + more[1]
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


main()
