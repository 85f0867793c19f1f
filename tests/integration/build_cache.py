#!/usr/bin/env python3
"""The cache of builds: what a RUN depends on, and what not; sharing its layers through docker-registry; what comes of a cache that
lies. $MLHOST is the program. Prints "N passed, N failed" last."""
import glob
import io
import json
import os
import shutil
import sys
import tarfile
import tempfile
import threading
import time
import traceback
import urllib.error

from image_builds import BUSYBOX, Machine, Registry, check, finish

HEAD = 'FROM scratch\nCOPY busybox /bin/busybox\nSHELL ["/bin/busybox", "sh", "-c"]\n'
# Another value each time it really runs.
STAMP = "RUN /bin/busybox head -c 8 /dev/urandom | /bin/busybox sha256sum > /stamp\n"


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
    heredoc = HEAD + "RUN <<END\n" + STAMP[4:] + "END\n"
    machine.build(heredoc)
    check("a heredoc elsewhere in the file is the same", "RUN" in machine.build(heredoc.replace("RUN", "# note\nRUN")).cached)
    check("its text counts", "RUN" not in machine.build(heredoc.replace("8", "9")).cached)
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


def mounts(machine):
    text = HEAD + "RUN --mount=type=bind,source=src,target=/src /bin/busybox cp /src/a /b\n"
    machine.write("src/a", "one")
    first = machine.build(text)
    check("a bind of the context is found again", first.status == 0 and "RUN" in machine.build(text).cached, first.log)
    machine.write("other", "x")
    check("other files do not count", "RUN" in machine.build(text).cached)
    machine.write("src/a", "two")
    built = machine.build(text)
    check("its files do", "RUN" not in built.cached and built.digest != first.digest, built.log)
    # The command waits, in its cache folder, until the context has changed behind its back.
    slow = (HEAD + "RUN --mount=type=bind,target=/all --mount=type=cache,id=door,target=/c /bin/busybox cp /all/src/a /b; "
            "/bin/busybox touch /c/ready; until [ -e /c/go ]; do /bin/busybox sleep 0.1; done\n")
    machine.write("src/a", "before")

    def change():
        for _ in range(600):
            doors = glob.glob(os.path.join(machine.folder, ".mlhost/cache/oci/layers/cache.*/data/ready"))
            if doors:
                machine.write("src/a", "after!")
                open(os.path.join(os.path.dirname(doors[0]), "go"), "w").close()
                return
            time.sleep(0.1)

    writer = threading.Thread(target=change)
    writer.start()
    first = machine.build(slow)
    writer.join()
    machine.write("src/a", "before")
    again = machine.build(slow)
    check("a command whose context changed meanwhile is not kept", first.status == again.status == 0 and "RUN" not in again.cached,
          first.log, again.log)
    check("the next one is", "RUN" in machine.build(slow).cached)
    stages = (HEAD.replace("scratch", "scratch AS a") + "COPY src/a /in\n" + HEAD +
              "RUN --mount=from=a,target=/m /bin/busybox cp /m/in /out && /bin/busybox head -c 8 /dev/urandom > /stamp\n")
    first = machine.build(stages)
    check("a bind of a stage is found again", first.status == 0 and machine.build(stages).digest == first.digest, first.log)
    machine.write("src/a", "three")
    check("a stage's files count", machine.build(stages).digest != first.digest)
    text = HEAD + "RUN --mount=type=cache,target=/c --mount=type=tmpfs,target=/t /bin/busybox date >> /c/n; /bin/busybox cp /c/n /n\n"
    first = machine.build(text)
    again = machine.build(text)
    check("what is in a cache mount does not count", "RUN" in again.cached and again.digest == first.digest, again.log)


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
        mounts(fresh("mounts"))
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
    finish()


main()
