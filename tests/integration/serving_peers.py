#!/usr/bin/env python3
"""Official clients against `mlhost model`, and our client against official servers. Run by serving_peers.sh, in the Python
environment of seldon-core; argument: the Python of MLServer's environment. Prints "N passed, N failed" last."""
import contextlib
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

import numpy
from seldon_core.seldon_client import SeldonClient

HERE = os.path.dirname(os.path.abspath(__file__))
PEERS = os.path.join(HERE, "serving")
MLHOST = os.path.abspath(os.environ.get("MLHOST", "build/mlhost"))
MLSERVER_PYTHON = sys.argv[1]
PATIENCE = 90  # seconds until something that must happen has not

passed = failed = 0


def check(name, holds, detail=""):
    global passed, failed
    if holds:
        passed += 1
    else:
        failed += 1
        print(f"FAIL {name}: {detail}", flush=True)


def add(output):
    """The closing line of a driver."""
    global passed, failed
    line = re.findall(r"^(\d+) passed, (\d+) failed", output, re.M)
    good, bad = map(int, line[-1]) if line else (0, 1)
    passed, failed = passed + good, failed + bad
    if bad:
        print(output, flush=True)


# ---- processes ----


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@contextlib.contextmanager
def process(argv, work, ready, env=None):
    """argv until the block ends; ready(log) says when it is. Ends with its group."""
    log = tempfile.NamedTemporaryFile("w+", dir=work, suffix=".log", delete=False)
    child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, cwd=work,
                             env=dict(os.environ, **(env or {})), start_new_session=True)
    try:
        end = time.monotonic() + PATIENCE
        while not (answer := ready(open(log.name).read())):
            if child.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{argv[0]} did not start:\n" + open(log.name).read()[-3000:])
            time.sleep(0.05)
        yield answer
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(20)
        except subprocess.TimeoutExpired:
            pass
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def answers(url):
    def ready(_):
        try:
            return url if urllib.request.urlopen(url, timeout=2).status == 200 else None
        except OSError:
            return None
    return ready


def mlhost_model(script, work, *options):
    def ready(log):
        found = re.search(r"ready on http://(\S+)", log)
        return found and found.group(1)
    return process([MLHOST, "model", script, "--port", "0", "--workers", "1", *options], work, ready)


def seldon_microservice(work):
    http, metrics = free_ports(2)
    # no gRPC, whose server cannot be told to stay on loopback; one worker, so that the start is a short one
    argv = [sys.executable, os.path.join(PEERS, "seldon_peer.py"), "seldon_digits", "--http-port", str(http),
            "--metrics-port", str(metrics), "--grpc-workers", "0", "--workers", "1"]
    return process(argv, work, lambda log: answers(f"http://127.0.0.1:{http}/health/ping")(log) and http,
                   env={"PYTHONPATH": PEERS, "PREDICTIVE_UNIT_ID": "digits"})


def mlserver(work):
    http, grpc, metrics = free_ports(3)
    folder = os.path.join(work, "mlserver")
    os.makedirs(folder)
    with open(os.path.join(folder, "settings.json"), "w") as file:
        json.dump({"host": "127.0.0.1", "http_port": http, "grpc_port": grpc, "metrics_port": metrics, "parallel_workers": 0,
                   "debug": False}, file)
    with open(os.path.join(folder, "model-settings.json"), "w") as file:
        json.dump({"name": "digits", "implementation": "mlserver_digits.Digits", "parameters": {"version": "7"}}, file)
    argv = [os.path.join(os.path.dirname(MLSERVER_PYTHON), "mlserver"), "start", folder]
    return process(argv, work, lambda log: answers(f"http://127.0.0.1:{http}/v2/models/digits/ready")(log) and http,
                   env={"PYTHONPATH": PEERS})


def write_model(path):
    """Weights as training writes them; random, since only agreement is asked for."""
    source = random.Random(7)
    weights = [[source.uniform(-1, 1) for _ in range(65)] for _ in range(10)]
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"inputs": 64, "classes": 10, "scale": 1 / 16, "weights": weights}, file)


# ---- Seldon's Python client against mlhost model ----


def seldon_python_client(address):
    client = SeldonClient(microservice_endpoint=address, transport="rest")
    rows = numpy.array([[1.5, 2.0], [3.0, -4.0]])
    wanted = [[3.0, 1.0], [6.0, -2.0]]

    for kind in ("tensor", "ndarray"):  # tftensor is for those who have TensorFlow
        got = client.microservice(method="predict", data=rows, payload_type=kind, names=["a", "b"])
        name = f"SeldonClient predict {kind}"
        if not got.success or got.response is None:
            check(name, False, got.msg)
            continue
        data = got.response.data
        check(name, data.WhichOneof("data_oneof") == kind, got.response)
        check(name + " names", list(data.names) == ["double", "half"], got.response)
        check(name + " tags", got.response.meta.tags["model_version"].string_value == "7", got.response.meta)
        check(name + " metrics", [m.key for m in got.response.meta.metrics] == ["asked"], got.response.meta)
        check(name + " path", list(got.response.meta.requestPath) == ["node"], got.response.meta)
        if kind == "tensor":
            check(name + " values", numpy.array(data.tensor.values).reshape(data.tensor.shape).tolist() == wanted, data)
        else:
            check(name + " values", [list(row) for row in data.ndarray] == wanted, data)

    got = client.microservice(method="predict", str_data="abc")
    check("SeldonClient predict strData", got.success and got.response.strData == "cba", got)
    got = client.microservice(method="predict", bin_data=bytes(range(256)))
    check("SeldonClient predict binData", got.success and got.response.binData == bytes(reversed(range(256))), got.msg)
    got = client.microservice(method="predict", json_data={"deep": [1, {"x": None}]})
    told = got.success and got.response.jsonData.struct_value.fields["got"].struct_value.fields["deep"].list_value
    check("SeldonClient predict jsonData", told and told[0] == 1 and "x" in told[1].fields, got)

    got = client.microservice(method="transform-input", data=rows)
    check("SeldonClient transform-input", got.success and list(got.response.data.tensor.values) == [2.5, 3.0, 4.0, -3.0]
          and list(got.response.data.names) == ["moved"], got)
    got = client.microservice(method="transform-output", data=rows)
    check("SeldonClient transform-output", got.success and list(got.response.data.tensor.values) == [15, 20, 30, -40], got)
    for value, branch in ((3.0, 1), (-3.0, 0)):
        got = client.microservice(method="route", data=numpy.array([[value]]))
        told = got.success and (list(got.response.data.tensor.values) or list(got.response.data.ndarray[0]))
        check("SeldonClient route", told == [branch], got)
    got = client.microservice(method="aggregate", datas=[rows, rows * 3])
    check("SeldonClient aggregate", got.success and list(got.response.data.tensor.values) == [3, 4, 6, -8], got)

    asked = client.microservice(method="predict", data=rows)
    got = client.microservice_feedback(prediction_request=asked.request, prediction_response=asked.response, reward=0.75)
    check("SeldonClient feedback", got.success, got)
    told = json.load(urllib.request.urlopen(f"http://{address}/health/status"))["jsonData"]
    check("the feedback arrived", told["reward"] == 0.75 and told["request"] == rows.tolist() and told["response"] == wanted, told)

    got = client.microservice(method="predict", data=numpy.array([[-1.0, 1.0]]))
    check("SeldonClient sees a bad request", not got.success and got.msg.upper() == "BAD REQUEST"
          and got.response.status.info == "row 1 is negative" and got.response.status.code == -1, got)
    got = client.microservice(method="predict", data=numpy.array([[666.0, 1.0]]))
    check("SeldonClient sees a failure", not got.success and got.response.status.reason == "MICROSERVICE_INTERNAL_ERROR"
          and "no such number" in got.response.status.info, got)

    # as an ingress without a gateway would be called
    direct = SeldonClient(gateway="seldon", gateway_endpoint=address, transport="rest", client_return_type="dict")
    got = direct.predict(data=rows, payload_type="ndarray")
    check("SeldonClient predictions", got.success and got.response["data"]["ndarray"] == wanted, got)
    got = direct.feedback(prediction_request=asked.request, prediction_response=asked.response, reward=1)
    check("SeldonClient feedback by the executor's path", got.success, got)


# ---- our client against the official servers ----


def our_client(work, seldon_port, mlserver_port, own):
    shutil.copy(os.path.join(HERE, "serving_client.lua"), work)
    rows = [[random.Random(i).randint(0, 16) for _ in range(64)] for i in range(5)]
    with open(os.path.join(work, "rows.json"), "w", encoding="utf-8") as file:
        json.dump(rows, file)
    sys.path.insert(0, PEERS)
    from softmax import Softmax
    with open(os.path.join(work, "wanted.json"), "w", encoding="utf-8") as file:
        json.dump(Softmax(os.environ["DIGITS_MODEL"])(rows).tolist(), file)
    out = subprocess.run([MLHOST, "run", "serving_client.lua", "--output", "plain", "--param", f"seldon=http://127.0.0.1:{seldon_port}",
                          "--param", f"mlserver=http://127.0.0.1:{mlserver_port}", "--param", f"own=http://{own}"],
                         cwd=work, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    good, bad = len(re.findall(r"\] ok - ", out.stdout)), len(re.findall(r"\] not ok - ", out.stdout))
    if out.returncode and not bad:
        bad = 1
    if bad:
        print(out.stdout)
    add(f"{good} passed, {bad} failed")


def main():
    work = tempfile.mkdtemp(prefix="mlhost-serving-")
    try:
        os.environ["DIGITS_MODEL"] = os.path.join(work, "model.json")
        write_model(os.environ["DIGITS_MODEL"])
        with mlhost_model(os.path.join(PEERS, "node.lua"), work, "--name", "node") as address:
            seldon_python_client(address)
            triton = subprocess.run([MLSERVER_PYTHON, os.path.join(PEERS, "triton.py"), address], text=True,
                                    stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            add(triton.stdout)
            with seldon_microservice(work) as seldon_port, mlserver(work) as mlserver_port:
                our_client(work, seldon_port, mlserver_port, address)
    finally:
        shutil.rmtree(work)
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
