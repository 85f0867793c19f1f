#!/usr/bin/env python3
"""seldon's library on the embedded Seldon: deployments, canaries, rollouts, ways back - while somebody keeps asking.

Each act of tests/integration/seldon/rollout.lua is a run of its own. From the first deployment to the last way back a
constant load runs on it, of which no request may fail. Prints "N passed, N failed" last.
"""
import collections
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

HERE = os.path.dirname(os.path.abspath(__file__))
MLHOST = os.path.abspath(os.environ.get("MLHOST", "build/mlhost"))
PATIENCE = 120  # seconds until something that must happen has not

passed = failed = 0


def check(name, holds, detail=""):
    global passed, failed
    if holds:
        passed += 1
    else:
        failed += 1
        print(f"FAIL {name}: {detail}", flush=True)
    return holds


def environment():
    foreign = ("MLFLOW_", "KF_", "MLHOST_", "KUBE", "SELDON_", "TF_BUILD")
    return dict({k: v for k, v in os.environ.items() if not k.startswith(foreign)}, MLHOST_SELDON_BACKOFF_MS="200")


def mlhost(*words):
    done = subprocess.run([MLHOST, *words], cwd=work, env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=PATIENCE * 3, check=False)
    return done.returncode, done.stdout


def command(act):
    return ["run", "rollout.lua", "--output", "plain", "-P", f"act={act}"]


def act(name):
    started = time.monotonic()
    status, out = mlhost(*command(name))
    check(name, status == 0, out)
    print(f"{name}: {time.monotonic() - started:.1f} s", flush=True)
    return status == 0


def cut_off():
    """A run that is cancelled while it waits at its gate: status and output."""
    run = subprocess.Popen([MLHOST, *command("cut_off")], cwd=work, env=environment(), stdin=subprocess.DEVNULL,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines, there = [], False
    for line in run.stdout:
        lines.append(line)
        there = "at the gate" in line
        if there:
            break
    check("the canary gets to its gate", there, "".join(lines))
    run.send_signal(signal.SIGINT)
    lines += run.stdout.readlines()
    return run.wait(PATIENCE), "".join(lines)


class Load:
    """Keeps asking, on connections that stay open."""

    def __init__(self, url, threads=3):
        self.address, self.over = urllib.parse.urlsplit(url), threading.Event()
        self.versions, self.bad, self.lock = collections.Counter(), [], threading.Lock()
        self.threads = [threading.Thread(target=self.run) for _ in range(threads)]
        for thread in self.threads:
            thread.start()

    def run(self):
        connection = http.client.HTTPConnection(self.address.hostname, self.address.port, timeout=30)
        body = json.dumps({"data": {"ndarray": [[1]]}})
        while not self.over.is_set():
            try:
                connection.request("POST", "/seldon/shop/digits/api/v1.0/predictions", body, {"Content-Type": "application/json"})
                reply = connection.getresponse()
                text = reply.read()
                with self.lock:
                    if reply.status == 200:
                        self.versions[json.loads(text)["meta"]["tags"]["version"]] += 1
                    else:
                        self.bad.append((reply.status, text[:300]))
            except Exception as error:  # any failure is what this looks for
                with self.lock:
                    self.bad.append(("no answer", repr(error)))
                connection.close()
            self.over.wait(0.002)

    def stop(self):
        self.over.set()
        for thread in self.threads:
            thread.join()


def under_load():
    """All that changes who answers."""
    for name in ("changes", "canary", "gates", "failed_gate", "crash", "rollback", "broken_deploy", "shadow"):
        act(name)
    status, out = cut_off()
    check("a cancelled run says so", status == 130, (status, out))
    act("after_cancel")
    act("abandoned")
    act("conflict")


def main():
    folder = os.path.join(work, "node")
    os.mkdir(folder)
    subprocess.run(["cc", "-O1", "-static", "-pthread", "-o", os.path.join(folder, "node"),
                    os.path.join(HERE, "seldon", "node.c")], check=True)
    with open(os.path.join(folder, "Dockerfile"), "w", encoding="utf-8") as file:
        file.write('FROM scratch\nCOPY node /node\nENTRYPOINT ["/node"]\n')
    shutil.copy(os.path.join(HERE, "seldon", "rollout.lua"), work)
    open(os.path.join(work, "mlhost.yaml"), "w", encoding="utf-8").close()
    if not act("image") or not act("deploy"):
        return
    status, out = mlhost("serve", "--status", "--json")
    if not check("the daemon runs", status == 0, out):
        return
    load = Load(json.loads(out)["url"])
    try:
        under_load()
    finally:
        load.stop()
    total = sum(load.versions.values())
    check(f"no request of {total} has failed", total > 500 and not load.bad, (len(load.bad), load.bad[:5]))
    answered = {str(i) for i in (1, 2, 3, 4, 5, 6, 7, 8, 11, 14, 15)}
    check("every version that was ready has answered, and no other", set(load.versions) == answered, load.versions)
    for name in ("adopted", "refused", "core2", "delete"):
        act(name)


if not shutil.which("cc"):
    print("SKIPPED seldon_rollout: no C compiler")
    print("0 passed, 0 failed")
    sys.exit(0)
work = tempfile.mkdtemp(prefix="seldon-rollout-")
try:
    main()
except Exception as error:  # counted, and the daemon is stopped all the same
    check("the test itself", False, repr(error))
finally:
    mlhost("serve", "--stop")
    shutil.rmtree(work, ignore_errors=True)
print(f"{passed} passed, {failed} failed")
sys.exit(1 if failed else 0)
