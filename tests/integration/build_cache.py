#!/usr/bin/env python3
"""The cache of builds: what a RUN depends on, and what not; sharing its layers through docker-registry; what comes of a cache that
lies. $MLHOST is the program. Prints "N passed, N failed" last."""
import hashlib
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import traceback
import urllib.error
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
PROGRAM = os.path.abspath(os.environ.get("MLHOST", os.path.join(HERE, "../../build/mlhost")))
BUSYBOX = "/bin/busybox"
HEAD = 'FROM scratch\nCOPY busybox /bin/busybox\nSHELL ["/bin/busybox", "sh", "-c"]\n'
# Another value each time it really runs.
STAMP = "RUN /bin/busybox head -c 8 /dev/urandom | /bin/busybox sha256sum > /stamp\n"
passed = failed = 0


def check(name, good, *more):
    global passed, failed
    if good:
        passed += 1
        print("ok   " + name)
    else:
        failed += 1
        print("FAIL " + name, *more, sep="\n     ")


def lua(value):
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"[{lua(k)}] = {lua(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list):
        return "{ " + ", ".join(map(lua, value)) + " }"
    return json.dumps(value)


class Built:
    def __init__(self, log, status):
        self.log, self.status = log, status
        found = re.search(r"built (\S+)", log)
        self.digest = found.group(1) if found else None
        self.cached = re.findall(r"CACHED (\w+)", log)


class Machine:
    """A workspace with a state folder of its own."""

    def __init__(self, folder):
        self.folder = folder
        self.context = os.path.join(folder, "ctx")
        os.makedirs(self.context)
        shutil.copy(BUSYBOX, os.path.join(self.context, "busybox"))
        os.chmod(os.path.join(self.context, "busybox"), 0o755)

    def write(self, name, text):
        path = os.path.join(self.context, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as out:
            out.write(text)

    def build(self, dockerfile, env=None, umask=0o022, user=None, **options):
        self.write("Dockerfile", dockerfile)
        time.sleep(0.1)  # what changed this very moment is not cached
        script = ('local registry = require "registry"\npipeline "t" { permissions = { net = { "127.0.0.1" } } }\n'
                  'stage "s" { run = function()\n  local image = registry.build(' + lua({"context": "ctx", **options}) +
                  ')\n  log.info("built %s", image.digest)\nend }\n')
        with open(os.path.join(self.folder, "t.lua"), "w") as out:
            out.write(script)
        result = subprocess.run([PROGRAM, "run", "t.lua", "--output", "plain"], cwd=self.folder, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True, timeout=60, umask=umask, user=user, group=user,
                                extra_groups=[] if user else None, env={**os.environ, **(env or {})})
        return Built(result.stdout, result.returncode)

    def blob(self, digest):
        with open(os.path.join(self.folder, ".mlhost/cache/oci/blobs/sha256", digest.split(":")[1]), "rb") as file:
            return file.read()

    def config(self, built):
        return json.loads(self.blob(json.loads(self.blob(built.digest))["config"]["digest"]))


class Registry:
    def __init__(self, folder):
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        config = os.path.join(folder, "registry.yml")
        with open(config, "w") as out:
            out.write("version: 0.1\nlog: { level: error, accesslog: { disabled: true } }\n"
                      f"storage: {{ filesystem: {{ rootdirectory: {folder}/registry }} }}\n"
                      f'http: {{ addr: "127.0.0.1:{self.port}" }}\n')
        self.log = open(os.path.join(folder, "registry.log"), "w")
        self.process = subprocess.Popen(["docker-registry", "serve", config], stdout=self.log, stderr=self.log)
        for _ in range(200):
            try:
                self.request("GET", "/v2/")
                return
            except OSError:
                time.sleep(0.05)
        raise SystemExit("docker-registry did not start: see its log\n" + open(self.log.name).read())

    def request(self, method, path, body=None, **headers):
        url = path if path.startswith("http") else f"http://127.0.0.1:{self.port}{path}"
        request = urllib.request.Request(url, data=body, method=method,
                                         headers={k.replace("_", "-"): v for k, v in headers.items()})
        with urllib.request.urlopen(request, timeout=20) as reply:
            return reply.read(), reply.headers

    def manifest(self, name, ref):
        return json.loads(self.request("GET", f"/v2/{name}/manifests/{ref}",
                                       Accept="application/vnd.oci.image.manifest.v1+json")[0])

    def blob(self, name, digest):
        return self.request("GET", f"/v2/{name}/blobs/{digest}")[0]

    def put_blob(self, name, data):
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        where = self.request("POST", f"/v2/{name}/blobs/uploads/", b"")[1]["Location"]
        self.request("PUT", where + ("&" if "?" in where else "?") + "digest=" + digest, data,
                     Content_Type="application/octet-stream")
        return digest

    def put_manifest(self, name, tag, manifest):
        self.request("PUT", f"/v2/{name}/manifests/{tag}", json.dumps(manifest).encode(),
                     Content_Type="application/vnd.oci.image.manifest.v1+json")

    def stop(self):
        self.process.terminate()
        self.process.wait()


def runs(machine):
    """What makes a RUN anew."""
    first = machine.build(HEAD + STAMP)
    check("a first build makes everything", first.status == 0 and first.cached == [], first.log)
    again = machine.build(HEAD + STAMP)
    check("a second one nothing", again.cached == ["COPY", "RUN"] and again.digest == first.digest, again.log)
    # The layer of STAMP is the same one, and so nothing ran, after changes that the command cannot see.
    for name, text in {
        "a comment": HEAD + "# note\n" + STAMP,
        "a label": HEAD + "LABEL a=b\n" + STAMP,
        "an entrypoint": HEAD + 'ENTRYPOINT ["/x"]\n' + STAMP,
        "an exposed port": HEAD + "EXPOSE 80\n" + STAMP,
        "the name of a stage": HEAD.replace("scratch", "scratch AS x") + STAMP,
        "an ARG before FROM": "ARG V=1\n" + HEAD + STAMP,
        "a variable after it": HEAD + STAMP + "ENV A=b\n",
    }.items():
        built = machine.build(text)
        check(name + " does not count", "RUN" in built.cached, built.log)
    for name, text in {
        "ENV": HEAD + "ENV A=b\n" + STAMP,
        "ARG": HEAD + "ARG A=b\n" + STAMP,
        "USER": HEAD + "USER 7\n" + STAMP.replace("/stamp", "/dev/null"),
        "WORKDIR": HEAD + "WORKDIR /bin\n" + STAMP,
        "SHELL": HEAD.replace("sh", "ash", 1).replace('"ash"', '"sh"').replace('["/bin/busybox", "sh"', '["/bin/busybox", "ash"') + STAMP,
        "its text": HEAD + STAMP.replace("8", "9"),
        "its form": HEAD + 'RUN ["/bin/busybox", "sh", "-c", "/bin/busybox date > /stamp"]\n',
        "a layer below": HEAD + "COPY Dockerfile /x\n" + STAMP,
    }.items():
        built = machine.build(text)
        check(name + " counts", built.status == 0 and "RUN" not in built.cached, built.log)
        built = machine.build(text)
        check(name + ": and is found again", "RUN" in built.cached, built.log)
    text = HEAD + "ARG V=1\n" + STAMP
    machine.build(text, args={"V": "a"})
    check("a build argument counts", "RUN" not in machine.build(text, args={"V": "b"}).cached)
    check("each value has its layer", "RUN" in machine.build(text, args={"V": "a"}).cached)
    built = machine.build(text, args={"V": "a", "HTTP_PROXY": "http://127.0.0.1:9"})
    check("a proxy does not count", "RUN" in built.cached and "warning" not in built.log, built.log)
    early = HEAD + STAMP + "ARG V=1\nRUN /bin/busybox true\n"
    machine.build(early, args={"V": "a"})
    check("an ARG counts from its line on", machine.build(early, args={"V": "b"}).cached == ["COPY", "RUN"])
    machine.write("busybox.txt", "x")
    stages = HEAD.replace("scratch", "scratch AS a") + "COPY busybox.txt /in\n" + STAMP + HEAD + "COPY --from=a /in /out\n" + STAMP
    first = machine.build(stages)
    check("stages are kept", machine.build(stages).digest == first.digest)
    machine.write("busybox.txt", "y")
    built = machine.build(stages)
    check("a stage's file counts in the next", built.cached == ["COPY", "COPY"] and built.digest != first.digest, built.log)
    empty = machine.build(HEAD + "RUN /bin/busybox true\n")
    again = machine.build(HEAD + "RUN /bin/busybox true\n")
    check("a command that changes nothing is not run again", again.cached == ["COPY", "RUN"] and again.digest == empty.digest, again.log)
    broken = HEAD + "RUN /bin/busybox false\n"
    machine.build(broken)
    check("one that failed is", machine.build(broken).status != 0)

    anew = machine.build(HEAD + STAMP, no_cache=True)
    check("no_cache makes all anew", anew.cached == [] and anew.digest != again.digest, anew.log)
    check("and keeps it", machine.build(HEAD + STAMP).digest == anew.digest)
    other = machine.build(HEAD + STAMP, cache=False)
    check("cache = false, too", other.cached == [] and other.digest != anew.digest, other.log)
    check("and does not", machine.build(HEAD + STAMP).digest == anew.digest)
    built = machine.build(HEAD + STAMP, cache=False, cache_to="127.0.0.1:1/x:1")
    check("cache = false goes with nothing", built.status != 0 and "no_cache = true" in built.log, built.log)


def sharing(registry, one, two):
    """Layers of one machine on another."""
    ref = f"127.0.0.1:{registry.port}/cache/x:main"
    text = HEAD + STAMP + "RUN /bin/busybox true\nENV A=b\n" + STAMP
    none = two.build(HEAD + STAMP.replace("8", "7"), cache_from=ref)
    check("a cache that is not there yet is no problem", none.status == 0 and "none yet" in none.log and none.cached == [], none.log)
    first = one.build(text, cache_to=ref)
    check("cache_to", first.status == 0, first.log)
    manifest = registry.manifest("cache/x", "main")
    table = json.loads(registry.blob("cache/x", manifest["config"]["digest"]))
    check("an artifact", manifest["artifactType"] == "application/vnd.mlhost.buildcache.v1" and len(manifest["layers"]) == 2 and
          [bool(e.get("empty")) for e in table["entries"]] == [False, True, False], manifest, table)
    second = two.build(text, cache_from=[ref])
    check("cache_from", second.cached.count("RUN") == 3 and second.digest == first.digest, second.log)
    third = two.build(text, cache_from=[f"127.0.0.1:{registry.port}/cache/x:other", ref])
    check("and then from its own", third.digest == first.digest and "none yet" not in third.log, third.log)
    again = two.build(text, cache_to=ref)
    check("the same cache is written", registry.manifest("cache/x", "main") == manifest, again.log)
    built = two.build(HEAD + "RUN /bin/busybox echo\n", cache_from="127.0.0.1:1/x:y")
    check("a registry that is not there costs a warning", built.status == 0 and "is not used" in built.log, built.log)
    built = two.build(HEAD + "RUN /bin/busybox echo 2\n", cache_from="UPPER/x:y")
    check("a reference that is none is an error", built.status != 0 and "cache_from" in built.log, built.log)
    built = two.build(HEAD, cache_to=f"127.0.0.1:{registry.port}/cache/none:1")
    check("a cache without layers", built.status == 0 and registry.manifest("cache/none", "1")["layers"][0]["size"] == 2, built.log)
    return manifest, table


def lies(registry, fresh, manifest, table):
    """A registry's content is what its writer wants: none of it gets through unchecked."""
    name = "cache/x"
    ref = f"127.0.0.1:{registry.port}/{name}:bad"
    text = HEAD + STAMP + "RUN /bin/busybox true\nENV A=b\n" + STAMP
    foreign = registry.put_blob(name, b"not a layer")
    layer = manifest["layers"][0]

    def publish(change_manifest=None, change_table=None, raw=None):
        new_table, new = json.loads(json.dumps(table)), json.loads(json.dumps(manifest))
        if change_table:
            change_table(new_table)
        data = raw if raw is not None else json.dumps(new_table).encode()
        new["config"].update(digest=registry.put_blob(name, data), size=len(data))
        if change_manifest:
            change_manifest(new)
        registry.put_manifest(name, "bad", new)

    def swap(entries):
        entries["entries"][0].update(layer=entries["entries"][2]["layer"])

    def other_diff(entries):
        entries["entries"][0]["diffId"] = "sha256:" + "0" * 64

    cases = {
        "a layer of another command": dict(change_table=swap),
        "a wrong diff id": dict(change_table=other_diff),
        "a layer that the manifest does not have": dict(change_table=lambda t: t["entries"][0].update(layer=foreign)),
        "a layer that is no tar": dict(change_table=lambda t: t["entries"][0].update(layer=foreign), change_manifest=lambda m: m[
            "layers"].append({"mediaType": layer["mediaType"], "digest": foreign, "size": 11})),
        "a layer of another type": dict(change_manifest=lambda m: m["layers"][0].update(mediaType="text/plain")),
        "a layer of elsewhere": dict(change_manifest=lambda m: m["layers"][0].update(urls=["http://127.0.0.1:1/x"])),
        "a smaller size": dict(change_manifest=lambda m: m["layers"][0].update(size=layer["size"] - 1)),
        "a larger size": dict(change_manifest=lambda m: m["layers"][0].update(size=layer["size"] + 1)),
        "a table that is no JSON": dict(raw=b"{"),
        "a table of another version": dict(change_table=lambda t: t.update(version="mlhost-build-cache 0")),
        "a table without entries": dict(change_table=lambda t: t.pop("entries")),
        "keys that are none": dict(change_table=lambda t: t["entries"][0].update(key="../../x")),
        "a size that is a lie": dict(change_manifest=lambda m: m["config"].update(size=1 << 40)),
        "an image": dict(change_manifest=lambda m: m["config"].update(mediaType="application/vnd.oci.image.config.v1+json")),
    }
    for number, (name_of, case) in enumerate(cases.items()):
        try:
            publish(**case)
        except urllib.error.HTTPError as problem:
            print(f"     {name_of}: docker-registry itself refuses it ({problem.code})")
            continue
        machine = fresh(f"lie{number}")
        built = machine.build(text, cache_from=ref)
        good = built.status == 0 and "is not used" in built.log and "RUN" not in built.cached
        config = machine.config(built) if built.digest else {}
        good = good and len(config["rootfs"]["diff_ids"]) == 3
        check(name_of + " is refused, and the build goes on", good, built.log)
        again = machine.build(text)
        check(name_of + ": nothing of it stays", again.digest == built.digest, again.log)


def reproducible(fresh):
    """The same input gives the same image: elsewhere, later, with another umask, zone, locale and user."""
    text = (HEAD + "ARG SOURCE_DATE_EPOCH\nCOPY tree /tree\n" +
            "RUN /bin/busybox mkdir -p /made/b && echo $SOURCE_DATE_EPOCH > /made/b/epoch && /bin/busybox touch -d '1980-01-01 00:00:00' /made/old\n"
            "RUN /bin/busybox rm /tree/x && /bin/busybox ln /made/old /made/b/hard && /bin/busybox chmod 700 /made\n")
    plain = "FROM scratch\nWORKDIR /w\nCOPY tree /tree\nCOPY --chown=5:6 tree/x /y\n"

    def machine(name, order):
        made = fresh(name)
        for file in order:
            made.write("tree/" + file, "text of " + file)
        return made

    one, two = machine("repro1", ["x", "sub/y", "z"]), machine("repro/deeper/2", ["z", "x", "sub/y"])
    env = {"SOURCE_DATE_EPOCH": "1700000000"}
    os.utime(os.path.join(two.context, "tree/x"), (1, 1))
    first = one.build(text, env=env)
    time.sleep(1.1)
    second = two.build(text, env={**env, "TZ": "Asia/Tokyo", "LANG": "de_DE.UTF-8"}, umask=0o077)
    check("the same digest elsewhere and later, RUN included", first.status == 0 and first.digest == second.digest, first.log,
          second.log)
    config = one.config(first)
    check("created and history have the time", {config["created"]} | {h["created"] for h in config["history"]} ==
          {"2023-11-14T22:13:20.000Z"}, config)
    latest, seen = 0, {}
    for layer in json.loads(one.blob(first.digest))["layers"]:
        with tarfile.open(fileobj=io.BytesIO(one.blob(layer["digest"]))) as tar:
            for member in tar:
                latest = max(latest, member.mtime)
                seen[member.name] = member.mtime
    check("no file is later, and an older one keeps its time", latest == 1700000000 and seen["made/old"] < 1700000000, seen)
    by_arg = one.build(text, env={"SOURCE_DATE_EPOCH": "12"}, args=env)
    check("a build argument beats the environment", by_arg.digest == first.digest and "used by no ARG" not in by_arg.log, by_arg.log)
    check("another time is another image", one.build(text, env={"SOURCE_DATE_EPOCH": "12"}).digest != first.digest)
    for bad in "abc", "-5", "1.5":
        built = one.build(text, env={"SOURCE_DATE_EPOCH": bad})
        check(f"SOURCE_DATE_EPOCH={bad} is an error that says so", built.status != 0 and bad in built.log and
              "SOURCE_DATE_EPOCH of the environment" in built.log, built.log)
    first = one.build(plain)
    three = machine("repro3", ["sub/y", "x", "z"])
    for folder, _, files in os.walk(os.path.dirname(three.context)):
        for path in [folder] + [os.path.join(folder, f) for f in files]:
            os.chown(path, 65534, 65534)
    second = three.build(plain, user=65534)
    check("the same digest for another user", second.status == 0 and first.digest == second.digest, second.log)


def main():
    if os.geteuid() != 0 or not shutil.which("docker-registry") or not os.path.exists(BUSYBOX):
        print("SKIPPED build_cache: needs root, docker-registry, busybox-static")
        print("0 passed, 0 failed")
        return
    work = tempfile.mkdtemp(prefix="mlhost-build-cache-")
    registry = None
    try:
        def fresh(name):
            return Machine(os.path.join(work, name))

        runs(fresh("runs"))
        os.chmod(work, 0o755)
        reproducible(fresh)
        registry = Registry(work)
        manifest, table = sharing(registry, fresh("one"), fresh("two"))
        lies(registry, fresh, manifest, table)
    except Exception:
        traceback.print_exc(file=sys.stdout)
        check("no exception", False)
    finally:
        if registry:
            registry.stop()
        shutil.rmtree(work, ignore_errors=True)
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed != 0)


main()
