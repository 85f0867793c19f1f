"""Requests per second of `mlhost model`, seldon-core-microservice and MLServer, for the same model and the same row. Each server
has the first core to itself and wrk the second; what they answer is compared before anything is measured."""
import contextlib
import json
import os
import random
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

MLHOST = os.environ["MLHOST"]
VENVS = os.environ["MLHOST_VENVS"]
PEERS = os.path.abspath("tests/integration/serving")
SERVER_CORE, CLIENT_CORE = "0", "1"
CONNECTIONS, SECONDS, TRIES, PATIENCE = 16, 4, 3, 90


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def cpu_seconds(root):
    """Of root and all that descend from it, those that have ended among them."""
    parents, ticks = {}, {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
            parents[int(name)], ticks[int(name)] = int(fields[1]), sum(map(int, fields[11:15]))

    def below(pid):
        while pid and pid != root:
            pid = parents.get(pid)
        return pid == root
    return sum(ticks[pid] for pid in ticks if below(pid)) / os.sysconf("SC_CLK_TCK")


def write_model(folder):
    source = random.Random(7)
    os.makedirs(os.path.join(folder, "model"))
    shutil.copy("pipelines/serving/model.lua", folder)
    shutil.copy("pipelines/components/training/softmax.lua", os.path.join(folder, "model"))
    path = os.path.join(folder, "model", "model.json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"inputs": 64, "classes": 10, "scale": 1 / 16,
                   "weights": [[source.uniform(-1, 1) for _ in range(65)] for _ in range(10)]}, file)
    return path


@contextlib.contextmanager
def server(argv, port, ready, work, env=None):
    log = open(os.path.join(work, "server.log"), "w+", encoding="utf-8")
    child = subprocess.Popen(["taskset", "-c", SERVER_CORE] + argv, cwd=work, env=dict(os.environ, **(env or {})),
                             stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        end = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(OSError):
                if urllib.request.urlopen(f"http://127.0.0.1:{port}{ready}", timeout=2).status == 200:
                    break
            if child.poll() is not None or time.monotonic() > end:
                sys.exit(f"bench: {argv[0]} did not start:\n{open(log.name, encoding='utf-8').read()[-3000:]}")
            time.sleep(0.05)
        yield child.pid
    finally:
        child.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        log.close()


def answer(url, body):
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    reply = json.load(urllib.request.urlopen(request, timeout=10))
    if "outputs" in reply:
        return reply["outputs"][0]["data"]
    data = reply["data"]
    return data["tensor"]["values"] if "tensor" in data else data["ndarray"][0]


def wrk(url, body_file, seconds):
    out = subprocess.run(["taskset", "-c", CLIENT_CORE, "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--timeout", "10s",
                          "-s", os.path.abspath("tests/bench/scripts/serve.wrk.lua"), url, "--", body_file],
                         check=True, stdout=subprocess.PIPE, text=True).stdout
    told = json.loads(re.search(r"^BENCH (.*)$", out, re.M).group(1))
    if told["errors"]:
        sys.exit(f"bench: {told['errors']} requests to {url} failed")
    return told


def measure(name, argv, port, ready, path, bodies, wanted, work, env=None):
    """Medians of several tries: { rate, p50, p99 (ms), per_cpu }."""
    url = f"http://127.0.0.1:{port}{path}"
    with server(argv, port, ready, work, env) as pid:
        with open(bodies[path], "rb") as file:
            got = answer(url, file.read())
        if len(got) != len(wanted) or any(abs(a - b) > 1e-9 for a, b in zip(got, wanted)):
            sys.exit(f"bench: {name} answers {got}, not {wanted}")
        wrk(url, bodies[path], 1)
        tries = []
        for _ in range(TRIES):
            before = cpu_seconds(pid)
            told = wrk(url, bodies[path], SECONDS)
            tries.append({"rate": told["requests"] / told["seconds"], "p50": told["p50"], "p99": told["p99"],
                          "per_cpu": told["requests"] / (cpu_seconds(pid) - before)})
    return {key: statistics.median(one[key] for one in tries) for key in tries[0]}


def ours(work, app, path, bodies, wanted):
    port, = free_ports(1)
    argv = [MLHOST, "model", os.path.join(app, "model.lua"), "--port", str(port), "--workers", "1"]
    return measure("mlhost model", argv, port, "/health/ping", path, bodies, wanted, work)


# Gunicorn as it does best on one core: one worker and one thread (the default; 2 or 16 threads, or 2 or 4 workers, answered
# fewer requests). No gRPC server, no access log, log level WARNING.
def seldon(work, model, path, bodies, wanted):
    http, metrics = free_ports(2)
    argv = [os.path.join(VENVS, "venv-seldon/bin/python"), os.path.join(PEERS, "seldon_peer.py"), "seldon_digits", "--http-port",
            str(http), "--metrics-port", str(metrics), "--grpc-workers", "0", "--workers", "1", "--threads", "1", "--log-level",
            "WARNING"]
    env = {"PYTHONPATH": PEERS, "DIGITS_MODEL": model, "PREDICTIVE_UNIT_ID": "digits", "OPENBLAS_NUM_THREADS": "1"}
    return measure("seldon-core-microservice", argv, http, "/health/ping", path, bodies, wanted, work, env)


# No second process for inference (it is for several cores), no access log; uvloop and orjson are its own choice.
def mlserver(work, model, path, bodies, wanted):
    http, grpc, metrics = free_ports(3)
    folder = os.path.join(work, "mlserver")
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "settings.json"), "w", encoding="utf-8") as file:
        json.dump({"host": "127.0.0.1", "http_port": http, "grpc_port": grpc, "metrics_port": metrics, "parallel_workers": 0,
                   "debug": False}, file)
    with open(os.path.join(folder, "model-settings.json"), "w", encoding="utf-8") as file:
        json.dump({"name": "digits", "implementation": "mlserver_digits.Digits", "parameters": {"version": "7"}}, file)
    argv = [os.path.join(VENVS, "venv-mlserver/bin/mlserver"), "start", folder]
    env = {"PYTHONPATH": PEERS, "DIGITS_MODEL": model, "OPENBLAS_NUM_THREADS": "1"}
    return measure("MLServer", argv, http, "/v2/models/digits/ready", path, bodies, wanted, work, env)


def bench(row):
    """row(name, ours, peer name, peer, unit, scale, more_is_better)"""
    if len(os.sched_getaffinity(0)) < 2:
        sys.exit("bench: serve needs two cores, one for the server and one for wrk")
    with tempfile.TemporaryDirectory() as work:
        model = write_model(os.path.join(work, "app"))
        pixels = [random.Random(1).randint(0, 16) for _ in range(64)]
        bodies = {"/api/v1.0/predictions": os.path.join(work, "seldon.json"),
                  "/v2/models/digits/infer": os.path.join(work, "v2.json")}
        with open(bodies["/api/v1.0/predictions"], "w", encoding="utf-8") as file:
            json.dump({"data": {"ndarray": [pixels]}}, file)
        with open(bodies["/v2/models/digits/infer"], "w", encoding="utf-8") as file:
            json.dump({"inputs": [{"name": "x", "shape": [1, 64], "datatype": "FP64", "data": pixels}]}, file)
        numpy_says = ("import json, sys; from softmax import Softmax; "
                      "print(json.dumps(Softmax(sys.argv[1])([json.loads(sys.argv[2])])[0].tolist()))")
        wanted = json.loads(subprocess.run(
            [os.path.join(VENVS, "venv-mlserver/bin/python"), "-c", numpy_says, model, json.dumps(pixels)], cwd=PEERS, check=True,
            stdout=subprocess.PIPE, text=True).stdout)
        app = os.path.join(work, "app")
        for path, peer_name, peer in (("/api/v1.0/predictions", "seldon-core-microservice", seldon),
                                      ("/v2/models/digits/infer", "MLServer", mlserver)):
            mine, theirs = ours(work, app, path, bodies, wanted), peer(work, model, path, bodies, wanted)
            row("serve: requests/s, one core", mine["rate"], peer_name, theirs["rate"], "/s", 1, True)
            row("serve: requests per CPU-second", mine["per_cpu"], peer_name, theirs["per_cpu"], "", 1, True)
            row(f"serve: p50, {CONNECTIONS} connections", mine["p50"], peer_name, theirs["p50"], "ms", 1, False)
            row(f"serve: p99, {CONNECTIONS} connections", mine["p99"], peer_name, theirs["p99"], "ms", 1, False)
