#!/usr/bin/env python3
"""The callback component as the exit handler of runs in the embedded Kubeflow Pipelines, against Azure DevOps's contracts: at
first nothing listens, then the service answers both events with 500 three times and with 429 and Retry-After.
usage: azdo_callback.py [MLHOST]"""
import base64
import glob
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import azdo_server

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.abspath(HERE + "/../..")
PROGRAM = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("MLHOST", "build/mlhost"))
PAT = "the-pat"
PLAN = "/proj/_apis/distributedtask/hubs/build/plans/plan-1/"
DEADLINE = 240
passed = failed = 0
taken = []   # (contract's name, body) of each request that got its answer
refused = []  # (name of the event, status) of each that got a fault
FAULTS = [(500, {}), (500, {}), (500, {}), (429, {"Retry-After": "2"})]
faults = {"TaskStarted": list(FAULTS), "TaskCompleted": list(FAULTS)}
times = []


def check(name, good, why=""):
    global passed, failed
    passed, failed = passed + bool(good), failed + (not good)
    if not good:
        print("not ok %s: %s" % (name, why))


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def reply(self, status, value, headers):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, text in headers.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(data)

    def any(self):
        url = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        times.append(time.monotonic())
        if self.headers.get("Authorization") != "Basic " + base64.b64encode((":" + PAT).encode()).decode():
            self.reply(401, {"message": "TF400813: not authorized"}, {})
            return
        query = {k: v[-1] for k, v in parse_qs(url.query).items()}
        row, problem = azdo_server.check(self.command, url.path, query, self.headers, body)
        if problem:
            check("contract", False, problem)
            self.reply(400, {"message": problem}, {})
            return
        sent = json.loads(body) if "body" in row else body.decode()
        event = sent.get("name") if isinstance(sent, dict) else None
        if faults.get(event):
            status, headers = faults[event].pop(0)
            refused.append((event, status))
            self.reply(status, {"message": "not now"}, headers)
        else:
            taken.append((row["id"], sent))
            self.reply(200, azdo_server.answer(row, query, body, ""), {})

    do_GET = do_POST = do_PUT = do_PATCH = any


class LateServer(ThreadingHTTPServer):
    """Its port is taken at once; who connects before listen() is refused."""

    def server_activate(self):
        pass


def pipeline(work, port):
    shutil.copytree(ROOT + "/pipelines/components/azdocallback", work + "/components/azdocallback")
    shutil.copy(HERE + "/azdo/callback.lua", work)
    os.makedirs(work + "/.mlhost/local/kubeflow/secrets/azdopat", mode=0o700)
    with open(work + "/.mlhost/local/kubeflow/secrets/azdopat/azdopat", "w") as f:
        f.write(PAT)
    with open(work + "/mlhost.yaml", "w"):
        pass
    info = {"PlanUri": "http://127.0.0.1:%d/" % port, "ProjectId": "proj", "HubName": "build", "PlanId": "plan-1", "JobId": "job-1",
            "TimelineId": "line-1", "TaskInstanceId": "task-1"}
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MLHOST", "KF_", "AZDO", "TF_BUILD"))}
    return subprocess.Popen([PROGRAM, "run", "callback.lua", "--output", "plain"], cwd=work, stdin=subprocess.DEVNULL,
                            stdout=open(work + "/output", "w"), stderr=subprocess.STDOUT,
                            env={**env, "CALLBACK_INFO": json.dumps(info)})


def logs(work):
    paths = glob.glob(work + "/.mlhost/local/kubeflow/runs/*/tasks/*/log.txt")
    return [open(path, errors="replace").read() for path in paths]


def main(work):
    server = LateServer(("127.0.0.1", 0), Handler)
    child = pipeline(work, server.server_port)
    end = time.monotonic() + DEADLINE
    # nothing announces a refused connection to the one who would have to listen: the component's log tells
    while child.poll() is None and time.monotonic() < end and not any("next try" in text for text in logs(work)):
        time.sleep(0.05)
    check("while nothing listens it goes on", any("next try" in text for text in logs(work)))
    check("nothing was taken yet", not times)
    server.socket.listen(16)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        child.wait(max(1, end - time.monotonic()))
    except subprocess.TimeoutExpired:
        child.terminate()
        child.wait()
    output = open(work + "/output").read()
    check("the pipeline", child.returncode == 0, output + "".join(logs(work)))
    states = [line.split()[-1] for line in output.splitlines() if "run " in line and line.endswith(("FAILED", "SUCCEEDED"))]
    check("one run fails, one does not", states == ["FAILED", "SUCCEEDED"], output)
    check("the faults", refused == [(event, status) for event in ("TaskStarted", "TaskCompleted") for status, _ in FAULTS], refused)
    check("Retry-After is kept", len(times) > 4 and times[4] - times[3] >= 2, times)
    ends = [at for at, (_, body) in enumerate(taken) if isinstance(body, dict) and body.get("name") == "TaskCompleted"]
    check("each run ended its task once", [taken[at][1]["result"] for at in ends] == ["failed", "succeeded"], taken)
    if len(ends) != 2:
        return
    for good, told in ((False, taken[:ends[0] + 1]), (True, taken[ends[0] + 1:])):
        name = "the good run" if good else "the failed run"
        check(name + ": the order", [n for n, _ in told] == ["event", "feed", "create log", "append log", "records", "event"], told)
        check(name + ": it starts once", told[0][1]["name"] == "TaskStarted", told)
        log = "".join(body for n, body in told if n == "append log")
        live = "\n".join(line for n, body in told if n == "feed" for line in body["value"])
        for text in (log, live):
            check(name + ": the log", ("the run succeeded" in text) if good else
                  ("step 'check the rows' failed: " in text and "the table has no rows" in text and "'look'" not in text), text)
        records = [body for n, body in told if n == "records"]
        run_id = records[0]["value"][0]["variables"]["KF_RUN_ID"]["value"] if records else None
        check(name + ": the run's id for CD", run_id and run_id in output, records)
    check("the token is in no log", not any(PAT in text for text in logs(work)) and PAT not in output)


with tempfile.TemporaryDirectory() as folder:
    main(folder)
print("%d passed, %d failed" % (passed, failed))
sys.exit(failed > 0)
