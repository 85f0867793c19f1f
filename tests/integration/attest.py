"""The checks of attest.sh; the argument is oras, or "" when there is none."""
import functools
import hashlib
import http.server
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import traceback
import urllib.error

from spdx_tools.spdx.parser.parse_anything import parse_file
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

from image_builds import PROGRAM, Machine, Registry, check, finish

ORAS = sys.argv[1]
SPDX, IN_TOTO = "application/spdx+json", "application/vnd.in-toto+json"
FILES = {
    "etc/os-release": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nNAME="Debian"\nVERSION_ID="12"\nID=debian\n',
    "lib/apk/db/installed": "C:Q1abc\nP:musl\nV:1.2.4-r2\nA:x86_64\nL:MIT\nU:https://musl.libc.org/\nm:Ada Lovelace <ada@example.org>\n"
                            "p:so:libc.musl-x86_64.so.1=1\nF:lib\nR:ld-musl-x86_64.so.1\n\nP:busybox\nV:1.36.1-r5\nA:x86_64\n"
                            "L:GPL-2.0-only\n\nP:odd\nV:1\nL:Custom License v3\n",
    "usr/lib/python3/dist-packages/Foo_Bar-1.0.dist-info/METADATA":
        "Metadata-Version: 2.1\nName: Foo_.Bar\nVersion: 1.0\nLicense-Expression: MIT OR Apache-2.0\nHome-page: https://example.org/x\n"
        "Author-email: Ada <ada@example.org>\n\nName: in-the-description\nVersion: 9\n",
    "opt/app/old.egg-info/PKG-INFO": "Name: old\nVersion: 0.1\nLicense: BSD\n",
    "app/node_modules/left-pad/package.json": '{"name":"left-pad","version":"1.3.0","license":"WTFPL","author":{"name":"x"}}',
    "app/node_modules/@scope/pkg/package.json": '{"name":"@scope/pkg","version":"2.0.0","license":{"type":"ISC"}}',
    "app/node_modules/left-pad/test/package.json": '{"name":"no-package","version":"1"}',
    "app/node_modules/broken/package.json": "{",
    "app/node_modules/deep/package.json": "[" * 5000,
    "app/package.json": '{"name":"app","version":"1"}',
    "var/lib/rpm/rpmdb.sqlite": "not read",
    "usr/local/bin/mlhost": "another program",
}
DOCKERFILE = 'FROM scratch\nCOPY root /\nARG V=1\nLABEL a="$V"\n'


def debian():
    """The packages of this machine, as dpkg itself says: the oracle."""
    out = subprocess.run(["dpkg-query", "-W", "-f", "${Package}\t${Version}\t${Architecture}\t${db:Status-Status}\n"],
                         capture_output=True, text=True, check=True).stdout
    return {tuple(line.split("\t")[:3]) for line in out.splitlines() if line.endswith("\tinstalled")}


def purls(document):
    return {ref["referenceLocator"] for package in document["packages"] for ref in package.get("externalRefs", [])}


def valid(folder, name, document):
    path = os.path.join(folder, name + ".spdx.json")
    with open(path, "w") as out:
        json.dump(document, out)
    try:
        problems = validate_full_spdx_document(parse_file(path))
    except Exception as problem:  # what spdx-tools says of a document that it cannot read
        problems = [problem]
    check(f"{name}: spdx-tools finds nothing wrong", not problems, *[str(getattr(p, "validation_message", p)) for p in problems[:5]])


def write(machine, path, data):
    path = os.path.join(machine.context, "root", path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as out:
        out.write(data if isinstance(data, bytes) else data.encode())


def sboms(machine):
    for path, text in FILES.items():
        write(machine, path, text)
    with open("/var/lib/dpkg/status", "rb") as file:
        status = file.read()
    write(machine, "var/lib/dpkg/status", status + b"\nPackage: gone\nStatus: deinstall ok config-files\nVersion: 1\nArchitecture: all\n")
    built = machine.build(DOCKERFILE, name="team/app", after='show("a", registry.sbom(image))\nshow("b", registry.sbom(image))')
    check("sbom", built.status == 0 and "a" in built.shown, built.log)
    document = built.shown["a"]
    valid(machine.folder, "everything", document)
    check("the same twice", document == built.shown["b"])
    packages = {p["SPDXID"]: p for p in document["packages"]}
    found = purls(document)
    deb = {(p["name"], p["versionInfo"], ref["referenceLocator"].split("arch=")[1].split("&")[0]) for p in document["packages"]
           for ref in p.get("externalRefs", []) if ref["referenceLocator"].startswith("pkg:deb/")}
    check("dpkg's packages, as dpkg-query has them", deb == debian(), deb ^ debian())
    for purl in ["pkg:apk/debian/musl@1.2.4-r2?arch=x86_64&distro=debian-12", "pkg:pypi/foo-bar@1.0", "pkg:pypi/old@0.1",
                 "pkg:npm/left-pad@1.3.0", "pkg:npm/%40scope/pkg@2.0.0", "pkg:generic/mlhost"]:
        check(purl, purl in found, sorted(f for f in found if "deb" not in f))
    names = {p["name"] for p in document["packages"]}
    check("nothing else", not names & {"no-package", "app", "in-the-description", "gone"} and
          sum(not f.startswith("pkg:deb/") for f in found) == 9, sorted(f for f in found if "pkg:deb" not in f))
    by_name = {p["name"]: p for p in document["packages"]}
    check("licenses that SPDX knows", by_name["musl"]["licenseDeclared"] == "MIT" and
          by_name["Foo_.Bar"]["licenseDeclared"] == "MIT OR Apache-2.0" and by_name["@scope/pkg"]["licenseDeclared"] == "ISC")
    check("and others in words", by_name["odd"]["licenseDeclared"] == "NOASSERTION" and
          by_name["odd"]["licenseComments"] == "declared as: Custom License v3", by_name["odd"])
    check("who made it", by_name["musl"]["originator"] == "Person: Ada Lovelace (ada@example.org)", by_name["musl"])
    check("where it is recorded", by_name["musl"]["sourceInfo"] == "recorded in /lib/apk/db/installed")
    check("the system", by_name["debian"]["versionInfo"] == "12" and by_name["debian"]["primaryPackagePurpose"] == "OPERATING-SYSTEM")
    check("a foreign program has no version, but a digest", "versionInfo" not in by_name["mlhost"] and by_name["mlhost"]["checksums"] ==
          [{"algorithm": "SHA256", "checksumValue": hashlib.sha256(b"another program").hexdigest()}], by_name["mlhost"])
    check("what is not listed is named", "/var/lib/rpm/rpmdb.sqlite: packages of rpm are not read" in document["comment"])
    check("the image itself", packages["SPDXRef-Image"]["versionInfo"] == built.digest and packages["SPDXRef-Image"]["name"] == "team/app")
    check("all are in it", {r["relatedSpdxElement"] for r in document["relationships"] if r["spdxElementId"] == "SPDXRef-Image"} ==
          set(packages) - {"SPDXRef-Image"})

    shutil.copy(PROGRAM, os.path.join(machine.context, "root/usr/local/bin/mlhost"))
    os.remove(os.path.join(machine.context, "root/app/node_modules/left-pad/package.json"))
    again = machine.build(DOCKERFILE, name="team/app", after='show("a", registry.sbom(image))',
                          env={"SOURCE_DATE_EPOCH": "1700000000"}).shown["a"]
    own = [p for p in again["packages"] if p["name"] == "mlhost"][0]
    version = subprocess.run([PROGRAM, "version"], capture_output=True, text=True).stdout.split()[1]
    check("this program has its version", own["versionInfo"] == version, own)
    check("another image, another namespace", again["documentNamespace"] != document["documentNamespace"])
    check("the time is the image's", again["creationInfo"]["created"] == "2023-11-14T22:13:20Z", again["creationInfo"])
    check("a package that went is gone", "pkg:npm/left-pad@1.3.0" not in purls(again))


def strange(machine):
    """Texts that no package manager wrote."""
    write(machine, "var/lib/dpkg/status.d/base", b"Package: b\xff\xfe\x00\x07se\nVersion: 1:2~3+\xc3\xa4\nArchitecture: am d64\n"
          b"Maintainer: Ev(il) <a@b> <c@d>\nHomepage: https://x y/\"\n")
    write(machine, "var/lib/dpkg/status.d/base.md5sums", "Package: md5\nVersion: 1\n")
    write(machine, "var/lib/dpkg/status.d/long", b"Package: " + b"l" * 100000 + b"\nVersion: 1\nMaintainer: <>\n")
    write(machine, "var/lib/dpkg/status.d/same", b"Package: s\nVersion: 1\n\nPackage: s\nVersion: 1\n\nPackage: half\n")
    write(machine, "x/A.dist-info/METADATA", b"Name: " + b"\x1b[31mred\r\nVersion: \xe2\x82\r\nLicense: ((MIT\r\n")
    write(machine, "x/B.dist-info/METADATA", b"Name: b\nVersion: 1\nLicense: " + b"(" * 2000 + b"MIT" + b")" * 2000 + b"\n")
    write(machine, "x/C.dist-info/METADATA", b"Name: c\nVersion: 1\n" + b"x" * (1 << 20))
    write(machine, "x/node_modules/n/package.json", b'{"name":{"a":1},"version":1}')
    write(machine, "x/node_modules/m/package.json", json.dumps({"name": "../../e?a#b", "version": "1 2\n3", "license": ["MIT"],
                                                               "homepage": "javascript:alert(1)"}).encode())
    write(machine, "etc/os-release", b"ID=\"o/..?s\"\nVERSION_ID='\xff'\n")
    built = machine.build(DOCKERFILE, after='show("a", registry.sbom(image))')
    check("strange texts are no error", built.status == 0, built.log)
    document = built.shown["a"]
    valid(machine.folder, "strange", document)
    names = [p["name"] for p in document["packages"]]
    check("twice the same is there once", names.count("s") == 1 and "half" not in names and "md5" not in names, names)
    check("a name of 100000 letters is cut", max(map(len, names)) <= 520)
    check("a file that is too large is named", "/x/C.dist-info/METADATA: too large" in document["comment"], document["comment"])
    empty = machine.build("FROM scratch\nLABEL a=b\n", after='show("a", registry.sbom(image))')
    check("an image without files", empty.status == 0 and len(empty.shown["a"]["packages"]) == 1, empty.log)
    valid(machine.folder, "empty", empty.shown["a"])


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


def dir_hash(folder):
    """golang.org/x/mod/sumdb/dirhash, Hash1, in hexadecimal."""
    paths = sorted(os.path.relpath(os.path.join(base, name), folder) for base, _, names in os.walk(folder) for name in names)
    text = "".join("%s  %s\n" % (hashlib.sha256(open(os.path.join(folder, path), "rb").read()).hexdigest(), path) for path in paths)
    return hashlib.sha256(text.encode()).hexdigest()


def provenances(machine):
    write(machine, "a", "x")
    options = dict(args={"V": "2", "NPM_TOKEN": "hush", "HTTP_PROXY": "http://u:hush@127.0.0.1:9"}, name="team/app", labels={"l": "m"})
    show = 'show("p", registry.provenance(image))'
    base = machine.build("FROM scratch\nCOPY root/a /base\n", name="127.0.0.1:1/base/image", tag="7")
    from_base = DOCKERFILE.replace("scratch", "127.0.0.1:1/base/image:7")
    built = machine.build(from_base, after=show, **options)
    check("provenance", built.status == 0 and "p" in built.shown, built.log)
    statement = built.shown["p"]
    definition = statement["predicate"]["buildDefinition"]
    check("its subject is the image", statement["subject"] == [{"name": "team/app", "digest": {"sha256": built.digest[7:]}}])
    check("in-toto and SLSA v1", statement["_type"] == "https://in-toto.io/Statement/v1" and
          statement["predicateType"] == "https://slsa.dev/provenance/v1" and definition["buildType"] and
          statement["predicate"]["runDetails"]["builder"]["id"])
    dependencies = {d.get("name") or d["uri"]: d["digest"] for d in definition["resolvedDependencies"]}
    check("what it was made of", dependencies == {
        "dockerfile": {"sha256": hashlib.sha256(from_base.encode()).hexdigest()},
        "context": {"dirHash": dir_hash(machine.context)},
        "pkg:docker/127.0.0.1:1/base/image@7?platform=linux%2Famd64": {"sha256": base.digest[7:]},
    }, dependencies)
    check("arguments, without secrets", definition["externalParameters"]["args"] == {"V": "2", "NPM_TOKEN": "<withheld>"} and
          "hush" not in json.dumps(statement), definition)
    check("context and labels", definition["externalParameters"]["context"] == "ctx" and
          definition["externalParameters"]["labels"] == {"l": "m"} and
          definition["externalParameters"]["dockerfile"] == "ctx/Dockerfile", definition)
    check("when", statement["predicate"]["runDetails"]["metadata"]["startedOn"] <=
          statement["predicate"]["runDetails"]["metadata"]["finishedOn"])
    handler = functools.partial(Quiet, directory=machine.context)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/root/a"
        fetched = machine.build(f"FROM scratch\nADD {url}?sig=hush /a\n", after=show)
        server.shutdown()
    definition = fetched.shown.get("p", {}).get("predicate", {}).get("buildDefinition", {})
    check("what was fetched, without keys", {"uri": url, "digest": {"sha256": hashlib.sha256(b"x").hexdigest()}} in
          definition.get("resolvedDependencies", []) and "hush" not in json.dumps(definition), fetched.log, definition)
    env = {"SOURCE_DATE_EPOCH": "5"}
    first = machine.build(DOCKERFILE, after=show, env=env, **options).shown["p"]
    check("with SOURCE_DATE_EPOCH it is the same twice", first == machine.build(DOCKERFILE, after=show, env=env, **options).shown["p"])
    named = machine.build(DOCKERFILE, after=show, provenance={"builder": "https://ci.example/1", "invocation": "42"}).shown["p"]
    details = named["predicate"]["runDetails"]
    check("who builds can be said", details["builder"]["id"] == "https://ci.example/1" and details["metadata"]["invocationId"] == "42")

    with open(os.path.join(machine.context, "large"), "wb") as out:
        out.truncate(80 << 20)
    small = DOCKERFILE.replace("root", "root/a")
    built = machine.build(small, after=show)
    check("no provenance is better than half of one", built.status != 0 and "provenance = true" in built.log, built.log)
    built = machine.build(small, after=show, provenance=True)
    check("a large context is read when it is asked for", built.status == 0 and "dirHash" in json.dumps(built.shown["p"]), built.log)
    built = machine.run('registry.provenance({})')
    check("an image of elsewhere has none", "this image has no provenance" in built.log, built.log)


PUSH = """local p = image:push { to = "%s", sbom = true, provenance = true }
  show("pushed", { digest = p.digest, sbom = p.sbom, provenance = p.provenance })"""


def command_line(machine, host, where):
    def image(*words):
        return subprocess.run([PROGRAM, "image", *words], cwd=machine.folder, capture_output=True, text=True, timeout=60)

    done = image("build", "ctx", "--tag", f"{host}/team/cli:1", "--push", "--sbom", "--provenance", "--json")
    value = json.loads(done.stdout or "{}")
    check(f"{where}: mlhost image build", done.returncode == 0 and value["pushed"]["sbom"] and value["pushed"]["provenance"], done)
    done = image("sbom", f"{host}/team/cli:1", "--json")
    check(f"{where}: mlhost image sbom", done.returncode == 0, done)
    valid(machine.folder, where.replace(" ", "-") + "-cli", json.loads(done.stdout))
    done = image("attach", f"{host}/team/cli:1", "ctx/Dockerfile", "--type", "text/x-dockerfile", "--annotation", "a=b")
    check(f"{where}: mlhost image attach", done.returncode == 0 and done.stdout.startswith("sha256:"), done)
    done = image("attach", f"{host}/team/cli:1", "ctx/Dockerfile")
    check(f"{where}: mlhost image attach without a type", done.returncode == 2 and "--type is needed" in done.stderr, done)
    done = image("build", "ctx", "--sbom")
    check(f"{where}: --sbom without --push", done.returncode == 2 and "need --push" in done.stderr, done)


def attached(machine, registry, host, fallback):
    """Both documents beside the image; twice is once."""
    name, ref = "team/x", host + "/team/x:1"
    where = "docker-registry" if fallback else "mlhost serve"
    env = {"SOURCE_DATE_EPOCH": "5"}
    built = machine.build(DOCKERFILE, after=PUSH % ref, env=env)
    check(f"{where}: push with both", built.status == 0 and "pushed" in built.shown, built.log)
    pushed = built.shown["pushed"]

    def index():
        path = f"/v2/{name}/manifests/{built.digest.replace(':', '-')}" if fallback else f"/v2/{name}/referrers/{built.digest}"
        return json.loads(registry.request("GET", path, Accept="application/vnd.oci.image.index.v1+json")[0])["manifests"]

    listed = {entry["artifactType"]: entry for entry in index()}
    check(f"{where}: both are listed", {kind: entry["digest"] for kind, entry in listed.items()} ==
          {SPDX: pushed["sbom"], IN_TOTO: pushed["provenance"]}, listed)
    check(f"{where}: with the annotations", listed[IN_TOTO]["annotations"] == {"in-toto.io/predicate-type":
                                                                               "https://slsa.dev/provenance/v1"}, listed)
    for kind, entry in listed.items():
        text = registry.request("GET", f"/v2/{name}/manifests/{entry['digest']}", Accept=entry["mediaType"])[0]
        manifest = json.loads(text)
        document = registry.blob(name, manifest["layers"][0]["digest"])
        check(f"{where}: {kind} refers to the image", manifest["subject"]["digest"] == built.digest and len(text) == entry["size"] and
              manifest["artifactType"] == kind and manifest["layers"][0]["mediaType"] == kind and
              manifest["config"]["digest"] == "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a", manifest)
        if kind == SPDX:
            valid(machine.folder, where.replace(" ", "-"), json.loads(document))
        else:
            check(f"{where}: its subject is the image", json.loads(document)["subject"][0]["digest"] == {"sha256": built.digest[7:]})
    again = machine.build(DOCKERFILE, after=PUSH % ref, env=env)
    check(f"{where}: again changes nothing", again.shown.get("pushed") == pushed and len(index()) == 2, again.log)
    ensure = (f'registry.ensure {{ context = "ctx", name = "{host}/team/z", sbom = true, provenance = true }}')
    first = machine.run(f'show("a", {ensure})\nshow("b", {ensure})')
    listed = machine.run(f'show("m", registry.manifest("{host}/team/z@" .. {ensure}.digest).digest)')
    check(f"{where}: ensure", first.status == 0 and first.shown["a"]["built"] and not first.shown["b"]["built"] and
          listed.shown.get("m") == first.shown["a"]["digest"], first.log, listed.log)
    name_of = f"/v2/team/z/manifests/{listed.shown['m'].replace(':', '-')}" if fallback else f"/v2/team/z/referrers/{listed.shown['m']}"
    entries = json.loads(registry.request("GET", name_of, Accept="application/vnd.oci.image.index.v1+json")[0])["manifests"]
    check(f"{where}: ensure puts both beside it", {e["artifactType"] for e in entries} == {SPDX, IN_TOTO}, entries)
    own = machine.run(f'show("d", registry.attach("{ref}", {{ type = "application/x.test+json", document = {{ a = 1 }}, '
                      'annotations = { k = "v" } }))')
    check(f"{where}: one's own document", own.status == 0 and {e["digest"] for e in index() if e["artifactType"] ==
                                                              "application/x.test+json"} == {own.shown["d"]}, own.log)
    for text, wanted in [('{ type = "x", document = "y" }', "no media type"), ('{ type = "a/b" }', "document is missing")]:
        wrong = machine.run(f'registry.attach("{ref}", {text})')
        check(f"{where}: {wanted}", wrong.status != 0 and wanted in wrong.log, wrong.log)
    wrong = machine.run(f'registry.attach("{host}/team/none:1", {{ type = "a/b", document = "y" }})')
    check(f"{where}: an image that is not there", wrong.status != 0 and "team/none" in wrong.log, wrong.log)
    command_line(machine, host, where)
    if ORAS:
        out = subprocess.run([ORAS, "discover", "--plain-http", "--format", "json", ref], capture_output=True, text=True)
        found = json.loads(out.stdout or "{}")
        found = found.get("referrers") or found.get("manifests") or []
        check(f"{where}: oras sees them", {e["artifactType"] for e in found} == {SPDX, IN_TOTO, "application/x.test+json"}, out.stdout,
              out.stderr)
    if fallback:
        other = machine.build("FROM scratch\nLABEL taken=0\n", after=f'image:push {{ to = "{host}/team/y:1" }}')
        after = f'image:push {{ to = "{host}/team/y:{other.digest.replace(":", "-")}" }}'
        machine.build("FROM scratch\nLABEL taken=1\n", after=after)
        taken = machine.run(f'registry.attach("{host}/team/y:1", {{ type = "a/b", document = "y" }})')
        check("a tag that something else has is an error", taken.status != 0 and "is no index" in taken.log, taken.log)


class Serve:
    """`mlhost serve`; requests as to docker-registry."""

    def __init__(self, folder):
        self.process = subprocess.Popen([PROGRAM, "serve", "--port", "0", "--workspace", folder], stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL, text=True)
        for line in self.process.stdout:
            if line.startswith("mlhost: serving "):
                self.port = int(line.rstrip().rstrip("/").rsplit(":", 1)[1])
                return
        raise SystemExit("mlhost serve did not start")

    request, blob = Registry.request, Registry.blob

    def stop(self):
        self.process.terminate()
        self.process.wait()


def main():
    work = tempfile.mkdtemp(prefix="mlhost-attest-")
    started = []
    try:
        def fresh(name):
            return Machine(os.path.join(work, name))

        sboms(fresh("sboms"))
        strange(fresh("strange"))
        provenances(fresh("provenances"))
        machine = fresh("push")
        for path, text in FILES.items():
            write(machine, path, text)
        started.append(Registry(work))
        attached(machine, started[-1], f"127.0.0.1:{started[-1].port}", True)
        os.makedirs(os.path.join(work, "serve"))
        started.append(Serve(os.path.join(work, "serve")))
        attached(machine, started[-1], f"127.0.0.1:{started[-1].port}", False)
    except Exception as problem:
        traceback.print_exc(file=sys.stdout)
        if isinstance(problem, urllib.error.HTTPError):
            print(problem.read())
        check("no exception", False)
    finally:
        for server in started:
            server.stop()
        shutil.rmtree(work, ignore_errors=True)
    finish()


main()
