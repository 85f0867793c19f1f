#!/usr/bin/env python3
"""mlhost image: every verb against the embedded registry and docker-registry; skopeo looks at what came of it. $MLHOST is the
program. Prints "N passed, N failed" last."""
import hashlib
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request

PROGRAM = os.path.abspath(os.environ.get("MLHOST", os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../build/mlhost")))
WORK = tempfile.mkdtemp()
passed = failed = 0


def check(name, good, *shown):
    global passed, failed
    if good:
        passed += 1
        print("ok  ", name)
    else:
        failed += 1
        print("FAIL", name, *shown, sep="\n  ")


def image(*words, status=0):
    """One verb: its standard output. Another exit status than the wanted one is a failure."""
    env = {"PATH": os.environ["PATH"], "HOME": WORK, "DOCKER_CONFIG": WORK}
    done = subprocess.run([PROGRAM, "image", *words], cwd=WORK, env=env, capture_output=True, text=True, timeout=120)
    check("image " + " ".join(words)[:90], done.returncode == status, f"exit status {done.returncode}", done.stdout, done.stderr)
    return done.stdout if status == 0 else done.stderr


def data(*words):
    try:
        return json.loads(image(*words, "--json"))
    except ValueError:
        return {}


def registry():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    config = os.path.join(WORK, "registry.yml")
    with open(config, "w") as out:
        out.write("version: 0.1\nlog: { level: error, accesslog: { disabled: true } }\n"
                  f"storage: {{ filesystem: {{ rootdirectory: {WORK}/registry }}, delete: {{ enabled: true }} }}\n"
                  f'http: {{ addr: "127.0.0.1:{port}" }}\n')
    log = open(os.path.join(WORK, "registry.log"), "w")
    process = subprocess.Popen(["docker-registry", "serve", config], stdout=log, stderr=log)
    for _ in range(200):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/", timeout=5).close()
            return process, f"127.0.0.1:{port}"
        except OSError:
            time.sleep(0.05)
    raise SystemExit("docker-registry did not start")


def skopeo(*words):
    done = subprocess.run(["skopeo", *words], capture_output=True, text=True, timeout=120)
    return done.stdout if done.returncode == 0 else "failed: " + done.stderr


def write(path, text, mode=0o644):
    path = os.path.join(WORK, path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as out:
        out.write(text)
    os.chmod(path, mode)


def tar_file(path, entries):
    with tarfile.open(os.path.join(WORK, path), "w:gz") as out:
        for name, text in entries:
            info = tarfile.TarInfo(name)
            info.size, info.uid, info.gid, info.mtime = len(text), 12, 34, 1_600_000_000
            out.addfile(info, io.BytesIO(text.encode()))


def layers_of(reference):
    return data("inspect", reference)["layers"]


def names(path):
    with tarfile.open(path) as archive:
        return {member.name: member for member in archive.getmembers()}


def basics(far):
    check("help lists the verbs", all(word in image("help") for word in ("ls", "copy", "rebase", "gc")))
    check("help of one", "--build-arg" in image("help", "build"))
    check("an unknown verb", "there is no 'frob'" in image("frob", status=2))
    check("a word too few", "usage: mlhost image ls" in image("ls", status=2))
    check("an unknown option", "--json" in image("ls", "x", "--frob", status=2))
    write("ctx/Dockerfile", 'FROM scratch\nARG WHAT=nothing\nLABEL what=$WHAT\nCOPY a /data/a\nCOPY b /data/b\nCMD ["/data/a"]\n')
    write("ctx/a", "first\n", 0o755)
    write("ctx/b", "second\n")
    built = data("build", "ctx", "--tag", "app:1", "--push", "--build-arg", "WHAT=this", "--label", "by=test")
    check("build and push", built.get("pushed", {}).get("blobs") == 3, built)
    check("digest", image("digest", "app:1").strip() == built["digest"])
    check("digest of what is not there", "there is no" in image("digest", "app:none", status=1))
    config = data("config", "app:1")
    check("labels of the file and of the option", config.get("Labels") == {"what": "this", "by": "test"}, config)
    check("a manifest", data("manifest", "app:1")["digest"] == built["digest"])
    image("tag", "app:1", "stable")
    check("ls", data("ls", "app") == ["1", "stable"])
    copied = data("copy", "app:1", far + "/team/app:1")
    check("copied as it is", copied["digest"] == built["digest"])
    check("copied twice", data("copy", "app:1", far + "/team/app:1")["skipped"] is True)
    seen = skopeo("inspect", "--tls-verify=false", f"docker://{far}/team/app:1")
    check("skopeo sees it", json.loads(seen).get("Digest") == built["digest"] if seen.startswith("{") else False, seen)
    check("pull", data("pull", far + "/team/app:1")["digest"] == built["digest"])
    image("unpack", "app:1", "unpacked")
    with open(os.path.join(WORK, "unpacked/data/b")) as got:
        check("unpacked", got.read() == "second\n")
    return built


def edits(far, built):
    write("models/deep/m.bin", "weights\n")
    tar_file("extra.tgz", [("etc/extra", "text\n")])
    added = data("append", "app:1", "models", "extra.tgz", "--to", "/models", "--tag", far + "/app:2")
    check("append keeps the layers below", layers_of(far + "/app:2")[:2] == layers_of("app:1")[:2])
    check("one layer each", len(layers_of(far + "/app:2")) == 4, added)
    image("export", far + "/app:2", "flat.tar")
    files = names(os.path.join(WORK, "flat.tar"))
    check("the files of both are there", {"models/deep/m.bin", "etc/extra", "data/a"} <= set(files), sorted(files))
    check("an archive keeps its owners and times", (files["etc/extra"].uid, files["etc/extra"].mtime) == (12, 1_600_000_000))
    image("append", "scratch", "models", "--tag", "empty:1")
    check("append to nothing", len(layers_of("empty:1")) == 1)
    check("append what is not there", "nowhere" in image("append", "app:1", "nowhere", "--tag", "x:1", status=1))

    image("mutate", far + "/app:2", "--env", "A=1", "--env", "B=x=y", "--label", "what=else", "--user", "1000", "--workdir", "/data",
          "--entrypoint", '["/data/a"]', "--cmd", "echo hi", "--port", "8080/tcp", "--volume", "/data", "--annotation", "k=v",
          "--tag", far + "/app:3")
    seen = json.loads(skopeo("inspect", "--config", "--tls-verify=false", f"docker://{far}/app:3") or "{}").get("config", {})
    check("what mutate changed", seen.get("Labels") == {"what": "else", "by": "test"} and "B=x=y" in seen.get("Env", []) and
          seen.get("User") == "1000" and seen.get("WorkingDir") == "/data" and seen.get("Entrypoint") == ["/data/a"] and
          seen.get("Cmd") == ["/bin/sh", "-c", "echo hi"] and seen.get("ExposedPorts") == {"8080/tcp": {}} and
          seen.get("Volumes") == {"/data": {}}, seen)
    check("an annotation", data("manifest", far + "/app:3")["manifest"].get("annotations") == {"k": "v"})
    check("mutate keeps the layers", layers_of(far + "/app:3") == layers_of(far + "/app:2"))
    check("mutate wants NAME=VALUE", "NAME=VALUE" in image("mutate", "app:1", "--env", "A", status=2))

    write("ctx/b", "second, mended\n")
    image("build", "ctx", "--tag", "app:1b", "--push")
    image("rebase", far + "/app:3", "--from", "app:1", "--to", "app:1b", "--tag", far + "/app:4")
    image("export", far + "/app:4", "rebased.tar")
    with tarfile.open(os.path.join(WORK, "rebased.tar")) as archive:
        check("rebase takes the new base", archive.extractfile("data/b").read() == b"second, mended\n")
    check("and keeps what was above", "models/deep/m.bin" in names(os.path.join(WORK, "rebased.tar")))
    check("a base that is none", "is not built on" in image("rebase", far + "/app:3", "--from", "empty:1", "--to", "app:1b", status=1))
    check("no base known", "does not say its base" in image("rebase", far + "/app:3", status=1))

    image("flatten", far + "/app:4", "--tag", far + "/app:5")
    check("flatten", len(layers_of(far + "/app:5")) == 1)
    image("export", far + "/app:5", "flattened.tar")
    files = names(os.path.join(WORK, "flattened.tar"))
    check("with the same files", set(files) == set(names(os.path.join(WORK, "rebased.tar"))), sorted(files))
    where = os.path.join(WORK, "layout")
    check("skopeo copies it whole", "failed" not in skopeo("copy", "--src-tls-verify=false", f"docker://{far}/app:5", f"oci:{where}:5"))


def hiding():
    """What export shows of layers that hide each other: whiteouts, opaque folders, files in a folder's place, hard links."""
    def layer(name, entries):
        with tarfile.open(os.path.join(WORK, name), "w") as out:
            for path, what in entries:
                info = tarfile.TarInfo(path)
                if what is None:
                    info.type, info.mode = tarfile.DIRTYPE, 0o755
                elif what.startswith("="):
                    info.type, info.linkname = tarfile.LNKTYPE, what[1:]
                else:
                    info.size = len(what)
                out.addfile(info, io.BytesIO(what.encode()) if what and not what.startswith("=") else None)
    layer("low.tar", [("d", None), ("d/gone", "x"), ("d/stays", "y"), ("o", None), ("o/old", "x"), ("f", None), ("f/inside", "x"),
                      ("one", "linked"), ("two", "=one"), ("three", "=one"), ("k1", "pair"), ("k2", "=k1")])
    layer("high.tar", [("d/.wh.gone", ""), ("o", None), ("o/.wh..wh..opq", ""), ("o/new", "n"), ("f", "a file now"),
                       (".wh.one", "")])
    image("append", "scratch", "low.tar", "high.tar", "--tag", "hide:1")
    image("export", "hide:1", "hide.tar")
    path = os.path.join(WORK, "hide.tar")
    files = names(path)
    check("what is hidden is not there", set(files) == {"d", "d/stays", "o", "o/new", "f", "two", "three", "k1", "k2"}, sorted(files))
    with tarfile.open(path) as archive:
        check("links whose file is gone have its content", archive.extractfile("two").read() == b"linked" and
              archive.extractfile("three").read() == b"linked")
        check("a link that has its file stays one", archive.getmember("k2").islnk())
    subprocess.run(["rm", "-rf", os.path.join(WORK, "un")])
    image("unpack", "hide:1", "un")
    there = {os.path.relpath(os.path.join(folder, name), os.path.join(WORK, "un"))
             for folder, folders, plain in os.walk(os.path.join(WORK, "un")) for name in folders + plain}
    check("unpack says the same", there == set(files), sorted(there))


def transports(far, built):
    """Layouts and archives in both directions; skopeo reads what we write, and writes what we read."""
    digest = built["digest"]
    for place, theirs in (("oci:lay:1", "oci:lay:1"), ("oci-archive:lay.tar:1", "oci-archive:lay.tar:1"),
                          ("docker-archive:dock.tar:app:1", "docker-archive:dock.tar:app:1")):
        image("copy", "app:1", place)
        kind = place.split(":")[0]
        seen = skopeo_in("inspect", "--config", theirs)
        check(f"skopeo reads our {kind}", '"what": "this"' in seen or '"what":"this"' in seen, seen)
        back = data("copy", place, f"{far}/back-{kind}:1")
        same = back.get("digest") == digest
        check(f"{kind} keeps the digest" if kind != "docker-archive" else "a docker archive keeps the config",
              same if kind != "docker-archive" else data("config", f"{far}/back-{kind}:1") == data("config", "app:1"), back)
        check(f"{kind} keeps the files", skopeo_in("copy", "--src-tls-verify=false", f"docker://{far}/back-{kind}:1", f"dir:d-{kind}") is not None)
    for kind, text in (("oci", "oci:theirs:x"), ("oci-archive", "oci-archive:theirs.tar:x"), ("docker-archive", "docker-archive:theirs-d.tar:app:x")):
        out = skopeo_in("copy", "--src-tls-verify=false", f"docker://{far}/team/app:1", text)
        check(f"skopeo writes its {kind}", "failed" not in out, out)
        data("copy", text, f"{far}/from-{kind}:1")
        check(f"which we read: {kind}", data("config", f"{far}/from-{kind}:1") == data("config", "app:1"))
    image("copy", "app:1b", "oci:lay:2")
    with open(os.path.join(WORK, "lay/index.json")) as index:
        check("two images in one layout", len(json.load(index)["manifests"]) == 2)
    check("which one?", "say which" in image("copy", "oci:lay", far + "/no:1", status=1))
    check("not this one", "it has: 1, 2" in image("copy", "oci:lay:7", far + "/no:1", status=1))
    check("no layout", "index.json" in image("copy", "oci:ctx", far + "/no:1", status=1))
    check("no archive", "tar archive" in image("copy", "oci-archive:ctx/a", far + "/no:1", status=2))


def hostile(far):
    """Layouts that lie: another digest, a missing blob, a link out of the folder, names that lead out."""
    for lie in ("flip", "missing", "link"):
        shutil.rmtree(os.path.join(WORK, "lie"), ignore_errors=True)
        shutil.copytree(os.path.join(WORK, "theirs"), os.path.join(WORK, "lie"))
        blobs = os.path.join(WORK, "lie/blobs/sha256")
        with open(os.path.join(WORK, "lie/index.json")) as index:
            manifest = json.load(index)["manifests"][0]["digest"][7:]
        with open(os.path.join(blobs, manifest)) as text:
            layer = os.path.join(blobs, json.load(text)["layers"][0]["digest"][7:])
        with open(layer, "rb") as source:
            content = source.read()
        os.unlink(layer)
        if lie == "flip":
            with open(layer, "wb") as out:
                out.write(content[:20] + bytes([content[20] ^ 1]) + content[21:])
        elif lie == "link":
            with open(os.path.join(WORK, "elsewhere"), "wb") as out:
                out.write(content)
            os.symlink(os.path.join(WORK, "elsewhere"), layer)
        subprocess.run(["rm", "-rf", os.path.join(WORK, ".mlhost/cache")], check=True)
        image("copy", "oci:lie:x", far + "/lie:1", status=1)
    check("nothing of it arrived", "NAME_UNKNOWN" in image("ls", far + "/lie", status=1))
    with tarfile.open(os.path.join(WORK, "evil.tar"), "w") as out:
        for name in ("../../evil", "/etc/evil", "blobs/sha256/../../../evil", "blobs/sha256/" + "0" * 64):
            info = tarfile.TarInfo(name)
            info.size = 4
            out.addfile(info, io.BytesIO(b"evil"))
    image("copy", "oci-archive:evil.tar:1", far + "/evil:1", status=1)
    image("copy", "docker-archive:evil.tar", far + "/evil:1", status=2)
    # What is there twice counts once: a reader that collects all of it has no bound. The same for names.
    layers = b'[{"Config":"c.json","RepoTags":["twice:1"],"Layers":[]}]'
    for archive, name in (("twice.tar", "c.json"), ("long.tar", "n" * 5000)):
        with tarfile.open(os.path.join(WORK, archive), "w") as out:
            for path, text in (("manifest.json", layers), (name, b'{"config":{"User":"first"}}'),
                               ("c.json", b'{"config":{"User":"last"},"rootfs":{"diff_ids":[]}}')):
                info = tarfile.TarInfo(path)
                info.size = len(text)
                out.addfile(info, io.BytesIO(text))
    image("copy", "docker-archive:twice.tar", far + "/twice:1")
    check("the last of two counts", data("config", far + "/twice:1") == {"User": "last"})
    check("a name without end", "4096 bytes" in image("copy", "docker-archive:long.tar", far + "/long:1", status=1))
    check("no file outside", not os.path.exists(os.path.join(WORK, "evil")) and not os.path.exists("/etc/evil"))


def platforms(far):
    """An index of two architectures, copied whole and in part."""
    where = os.path.join(WORK, "arm")
    skopeo_in("copy", "--src-tls-verify=false", f"docker://{far}/team/app:1", "oci:arm:1")
    with open(os.path.join(where, "index.json")) as text:
        index = json.load(text)
    blobs = os.path.join(where, "blobs/sha256")
    with open(os.path.join(blobs, index["manifests"][0]["digest"][7:])) as text:
        manifest = json.load(text)
    with open(os.path.join(blobs, manifest["config"]["digest"][7:])) as text:
        config = json.load(text)
    config["architecture"], config["variant"] = "arm64", "v8"
    manifest["config"].update(put(blobs, config))
    index["manifests"][0].update(put(blobs, manifest))
    with open(os.path.join(where, "index.json"), "w") as out:
        json.dump(index, out)
    arm = data("copy", "oci:arm:1", far + "/arm:1", "--all")
    index = data("index", "app:1", far + "/arm:1", "--tag", far + "/both:1")
    reply = data("manifest", far + "/both:1")
    check("an index of both", [entry["platform"]["architecture"] for entry in reply["manifest"]["manifests"]] == ["amd64", "arm64"] and
          reply["manifest"]["manifests"][1]["digest"] == arm["digest"], reply)
    check("all of it is copied", data("copy", far + "/both:1", "both:1", "--all")["digest"] == index["digest"])
    image("copy", far + "/both:1", "oci:both:1", "--all")
    raw = skopeo_in("inspect", "--raw", "oci:both:1")
    check("into a layout, too", "arm64" in raw, raw)
    check("back", data("copy", "oci:both:1", far + "/again:1", "--all")["digest"] == index["digest"])
    check("without --all the one for this machine", data("copy", far + "/both:1", far + "/one:1")["digest"] != index["digest"])


def more(far, built):
    check("validate", data("validate", far + "/app:2")["layers"] == 4)
    check("catalog", "app" in data("catalog", far))
    write("note.txt", "seen\n")
    there = far + "/team/app@" + built["digest"]
    attached = data("attach", there, "note.txt", "--type", "application/vnd.test.note")["digest"]
    listed = data("referrers", there)
    check("referrers", [one["digest"] for one in listed] == [attached], listed)
    check("none of another type", data("referrers", there, "--type", "application/other") == [])
    image("files", far + "/team/app@" + attached, "taken")
    with open(os.path.join(WORK, "taken/note.txt")) as got:
        check("the file comes back", got.read() == "seen\n")
    check("attach wants a type", "--type" in image("attach", there, "note.txt", status=2))
    check("sbom", data("sbom", "app:1b")["spdxVersion"] == "SPDX-2.3")
    image("copy", "app:1", far + "/gone:1")
    image("delete", far + "/gone:1")
    image("digest", far + "/gone:1", status=1)
    image("tag", "app:1", "spare")
    image("untag", "app:spare")
    check("untag", "spare" not in data("ls", "app"))
    folder = os.path.join(WORK, "registry/docker/registry/v2/blobs/sha256")
    image("copy", far + "/app:2", far + "/broken:1")
    layer = layers_of(far + "/broken:1")[-1]["digest"][7:]
    subprocess.run(["rm", "-rf", os.path.join(WORK, ".mlhost/cache")], check=True)
    with open(os.path.join(folder, layer[:2], layer, "data"), "r+b") as blob:
        blob.seek(30)
        byte = blob.read(1)
        blob.seek(30)
        blob.write(bytes([byte[0] ^ 1]))
    check("validate finds damage", layer in image("validate", far + "/broken:1", status=1))


def put(blobs, document):
    text = json.dumps(document).encode()
    name = hashlib.sha256(text).hexdigest()
    with open(os.path.join(blobs, name), "wb") as out:
        out.write(text)
    return {"digest": "sha256:" + name, "size": len(text)}


def skopeo_in(*words):
    done = subprocess.run(["skopeo", *words], cwd=WORK, capture_output=True, text=True, timeout=120)
    return done.stdout if done.returncode == 0 else "failed: " + done.stderr


def main():
    for tool in ("docker-registry", "skopeo"):
        if not shutil.which(tool):
            print(f"SKIPPED image_verbs: no {tool}\n0 passed, 0 failed")
            return 0
    process, far = registry()
    try:
        built = basics(far)
        edits(far, built)
        hiding()
        transports(far, built)
        platforms(far)
        hostile(far)
        more(far, built)
        check("gc", "bytes" in data("gc", "--dry-run"))
        check("gc wants seconds", "whole seconds" in image("gc", "--grace", "soon", status=2))
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(WORK, ignore_errors=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
