#!/usr/bin/env python3
"""`mlhost model` when requests wait: drain, a stuck worker, a client that goes away.
$MLHOST is the program. Prints "N passed, N failed" last."""
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
MLHOST = os.environ.get("MLHOST", "build/mlhost")
PATIENCE = 60
passed = failed = 0


def check(name, holds, detail=""):
    global passed, failed
    passed, failed = (passed + 1, failed) if holds else (passed, failed + 1)
    if not holds:
        print(f"FAIL {name}: {detail}", flush=True)


def start(*options):
    child = subprocess.Popen([MLHOST, "model", os.path.join(HERE, "serving", "slow.lua"), "--port", "0", *options],
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return child, re.search(r"http://\S+", child.stdout.readline()).group(0)


def stop(child):
    child.send_signal(signal.SIGTERM)
    return child.wait(PATIENCE)


def body(x):
    return json.dumps({"data": {"ndarray": [[x]]}}).encode()


def ask(url, x):
    request = urllib.request.Request(url + "/predict", body(x), {"Content-Type": "application/json"})
    try:
        return urllib.request.urlopen(request, timeout=PATIENCE).status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError as error:
        return repr(error)


def ask_all(url, xs):
    out = [None] * len(xs)

    def one(i):
        out[i] = ask(url, xs[i])
    threads = [threading.Thread(target=one, args=(i,)) for i in range(len(xs))]
    for thread in threads:
        thread.start()
    return threads, out


def in_flight(url):
    return re.search(r"^mlhost_model_requests_in_flight\{.*\} (\d+)$", urllib.request.urlopen(url + "/metrics").read().decode(), re.M)


def wait(holds):
    end = time.monotonic() + PATIENCE
    while not holds() and time.monotonic() < end:
        time.sleep(0.05)
    return holds()


child, url = start("--workers", "1")
threads, out = ask_all(url, [1, 1, 3])
check("requests are in flight", wait(lambda: in_flight(url).group(1) != "0" or None not in out))
time.sleep(0.2)
status = stop(child)
for thread in threads:
    thread.join()
check("a drain ends what is in hand", out == [200, 200, 200] and status == 0, (out, status))

child, url = start("--workers", "1", "--timeout", "2s")
threads, out = ask_all(url, [2])
for thread in threads:
    thread.join()
check("a stuck model is 504", out == [504], out)
check("its worker is replaced", wait(lambda: ask(url, 3) == 200))
host, port = re.search(r"//(.*):(\d+)", url).groups()
with socket.create_connection((host, int(port))) as client:
    client.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
                   % (len(body(1)), body(1)))
check("a client that goes away leaves nothing behind", wait(lambda: in_flight(url).group(1) == "0"), in_flight(url))
check("and others are answered", ask(url, 3) == 200)
check("it ends well", stop(child) == 0)

child, url = start("--workers", "1", "--drain", "1s")
threads, out = ask_all(url, [2])
wait(lambda: in_flight(url).group(1) == "1")
status = stop(child)
for thread in threads:
    thread.join()
check("what outlasts the drain is told so", out == [503] and status == 0, (out, status))
print(f"{passed} passed, {failed} failed")
sys.exit(1 if failed else 0)
