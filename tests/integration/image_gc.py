#!/usr/bin/env python3
"""`mlhost image gc` beside a build whose RUN stands on unpacked layers, and after it: what is in use or led to stays, the rest goes. $MLHOST
is the program. Prints "N passed, N failed" last."""
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

PROGRAM = os.path.abspath(os.environ.get("MLHOST", "build/mlhost"))
DOCKERFILE = """FROM scratch AS base
COPY busybox /bin/
RUN ["/bin/busybox", "touch", "/first"]
RUN ["/bin/busybox", "sleep", "6"]
RUN ["/bin/busybox", "touch", "/last"]
"""
passed = failed = 0


def check(what, ok, seen=""):
    global passed, failed
    if ok:
        passed += 1
        print(f"ok   {what}", flush=True)
    else:
        failed += 1
        print(f"FAIL {what}: {str(seen)[-2000:]}", flush=True)


def image(folder, *words, status=0):
    done = subprocess.run([PROGRAM, "image", *words], cwd=folder, text=True, errors="replace", timeout=120, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    if done.returncode != status:
        check(f"image {' '.join(words)}", False, (done.returncode, done.stdout, done.stderr))
    return done.stdout


def collect(folder, *words):
    return json.loads(image(folder, "gc", "--grace", "2", "--untagged", "--json", *words) or "{}")


def folders(work):
    root = os.path.join(work, ".mlhost/cache/oci/layers")
    return [name for name in os.listdir(root) if len(name) == 32] if os.path.isdir(root) else []


def blobs(work):
    """But for statements of how something was built, which nothing leads to."""
    found = set()
    root = os.path.join(work, ".mlhost/cache/oci/blobs/sha256")
    for name in os.listdir(root):
        with open(os.path.join(root, name), "rb") as file:
            if not file.read(100).startswith(b'{"_type"'):
                found.add(name)
    return found


def main(work):
    shutil.copy(shutil.which("busybox") or "/bin/busybox", work)
    with open(os.path.join(work, "Dockerfile"), "w", encoding="utf-8") as file:
        file.write(DOCKERFILE)
    build = subprocess.Popen([PROGRAM, "image", "build", ".", "--tag", "mlhost.local/gc:1"], cwd=work, text=True, errors="replace",
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    beside = taken = 0
    while build.poll() is None:
        result = collect(work)
        beside += 1
        taken += result["cache"]["layers"]["count"]
        time.sleep(0.5)
    output = build.communicate()[0]
    check(f"a build goes on beside {beside} collections", build.returncode == 0 and beside > 2, output)
    check("its layers were in use", taken == 0 and folders(work), (taken, folders(work)))
    kept = blobs(work)
    time.sleep(3.2)
    plan = collect(work, "--dry-run")
    check("afterwards they are not", plan["cache"]["layers"]["count"] == len(folders(work)) > 0, plan)
    result = collect(work)
    check("a dry run says what goes", plan == result, (plan, result))
    check("the unpacked layers are gone", not folders(work), folders(work))
    check("what the image and the build cache need is there", blobs(work) == kept, kept ^ blobs(work))
    output = subprocess.run([PROGRAM, "image", "build", ".", "--tag", "mlhost.local/gc:2"], cwd=work, text=True, errors="replace",
                            timeout=120, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    check("the next build takes it from there", output.returncode == 0 and "CACHED" in output.stdout, output.stdout)
    # A later instruction stands on layers that have to be unpacked again.
    with open(os.path.join(work, "Dockerfile"), "a", encoding="utf-8") as file:
        file.write('RUN ["/bin/busybox", "ls", "/first", "/last"]\n')
    image(work, "build", ".", "--tag", "mlhost.local/gc:3")
    check("layers are unpacked again where a command needs them", folders(work))


with tempfile.TemporaryDirectory(prefix="mlhost-gc-") as place:
    main(place)
print(f"{passed} passed, {failed} failed")
sys.exit(failed != 0)
