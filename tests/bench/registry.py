"""Images to and from a registry: mlhost, and skopeo, buildah, crane and bare curl, on the same input and the same server, in turn.
Everything lies in memory (/dev/shm), caches and the server's storage are new in each try; each side's best of several tries counts.

The CPU limit is what the processors must do at least: reading the files, compressing, both SHA-256 (tests/bench/limit.c), and the
transfer with the server's part of it (curl's and the server's CPU time), spread over all processors."""
import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request

import serve

MLHOST = os.environ["MLHOST"]
SIZE, TRIES = 500 << 20, int(os.environ.get("BENCH_TRIES", "3"))
COMPONENTS, LAYERS = 8, 60
MANIFESTS = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"
ROOTS = ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib/python3", "/usr/lib/python3.11", "/usr/share/perl",
         "/usr/share/doc", "/usr/include", "/usr/bin", "/usr/share", "/usr/lib")


class Failed(Exception):
    pass


# ---- input ----

def make_tree(to):
    """Files of this machine's /usr, about 500 MB: half of them (by size) large ones, the rest of 256 KiB at most."""
    left = {True: SIZE // 2, False: SIZE - SIZE // 2}
    count = 0
    for root in ROOTS:
        for folder, names, files in os.walk(root):
            names.sort()
            for name in sorted(files):
                source = os.path.join(folder, name)
                with contextlib.suppress(OSError):
                    size = os.lstat(source).st_size
                    large = size > 256 << 10
                    target = to + source
                    if size > left[large] or size > 24 << 20 or os.path.lexists(target):
                        continue
                    os.makedirs(os.path.dirname(target), exist_ok=True)
                    shutil.copy2(source, target, follow_symlinks=False)
                    if not os.path.islink(target):
                        os.chmod(target, 0o755 if os.access(target, os.X_OK) else 0o644)
                    left[large] -= size
                    count += 1
    return count


def inputs(work):
    tree, layout = work + "/tree", work + "/input"
    os.makedirs(layout)
    files = make_tree(tree)
    with tarfile.open(layout + "/layer.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        tar.add(tree, ".")
    with open(tree + "/Dockerfile", "w", encoding="ascii") as file:
        file.write("FROM scratch\nCOPY usr /usr\n")
    size = os.path.getsize(layout + "/layer.tar")
    print(f"input: {files} files, {size} bytes as tar; {os.cpu_count()} processors, best of {TRIES}", flush=True)


# ---- running ----

class Run:
    """One command to its end: seconds on the clock, CPU seconds, the peak memory of its largest process in MiB."""

    def __init__(self, argv, env=None, cwd=None):
        with tempfile.TemporaryFile() as out:
            start = time.perf_counter()
            child = subprocess.Popen(argv, cwd=cwd, env=dict(os.environ, **(env or {})), stdin=subprocess.DEVNULL, stdout=out,
                                     stderr=subprocess.STDOUT)
            peak = 0
            while True:
                pid, status, usage = os.wait4(child.pid, os.WNOHANG)
                if pid:
                    break
                peak = max(peak, high_water(child.pid))
                time.sleep(0.002)
            self.seconds = time.perf_counter() - start
            child.returncode = os.waitstatus_to_exitcode(status)
            out.seek(0)
            self.text = out.read().decode(errors="replace")
        if child.returncode:
            raise Failed(f"{' '.join(argv)}: status {child.returncode}\n{self.text[-2000:]}")
        self.cpu = usage.ru_utime + usage.ru_stime
        self.peak = peak


def high_water(pid):
    """Of the process and its children, the largest."""
    peak = 0
    with contextlib.suppress(OSError):
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as status:
            found = re.search(r"VmHWM:\s+(\d+) kB", status.read())
            peak = int(found.group(1)) / 1024 if found else 0
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as children:
            for child in children.read().split():
                peak = max(peak, high_water(int(child)))
    return peak


class Bench:
    def __init__(self, work, row):
        self.work, self.row = work, row
        self.number = 0
        self.port, = serve.free_ports(1)
        self.host = f"127.0.0.1:{self.port}"
        self.state = work + "/state"
        self.scripts = work + "/scripts"
        os.makedirs(self.scripts)
        self.peers = {name: self.peer(name) for name in ("docker-registry", "crane", "skopeo", "buildah")}
        if not self.peers["docker-registry"]:
            sys.exit("bench: no docker-registry (apt-get install docker-registry)")
        self.limit = work + "/limit"
        subprocess.run(["cc", "-O2", "-o", self.limit, "tests/bench/limit.c", "-lisal", "-lcrypto"], check=True)

    @staticmethod
    def peer(name):
        found = subprocess.run(["tests/peers", name], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        return found.stdout.strip() if found.returncode == 0 else shutil.which(name)

    @contextlib.contextmanager
    def server(self):
        config = self.work + "/registry.yml"
        with open(config, "w", encoding="ascii") as file:
            file.write(f"version: 0.1\nlog: {{ level: error, accesslog: {{ disabled: true }} }}\n"
                       f"storage: {{ filesystem: {{ rootdirectory: {self.work}/registry }}, delete: {{ enabled: true }} }}\n"
                       f"http: {{ addr: '{self.host}' }}\n")
        with open(self.work + "/registry.log", "w", encoding="utf-8") as log:
            child = subprocess.Popen([self.peers["docker-registry"], "serve", config], stdin=subprocess.DEVNULL, stdout=log,
                                     stderr=subprocess.STDOUT)
        try:
            for _ in range(500):
                with contextlib.suppress(OSError):
                    urllib.request.urlopen(f"http://{self.host}/v2/", timeout=2).close()
                    break
                time.sleep(0.02)
            self.server_pid = child.pid
            yield
        finally:
            child.send_signal(signal.SIGTERM)
            child.wait()

    def fresh(self):
        """The name of a repository that nobody has seen, and an empty server."""
        shutil.rmtree(f"{self.work}/registry/docker", ignore_errors=True)
        return self.repository()

    def repository(self):
        self.number += 1
        return f"{self.host}/bench/r{self.number}"

    def mlhost(self, body, keep_state=False):
        """The body of a stage, in a state folder of its own."""
        if not keep_state:
            shutil.rmtree(self.state, ignore_errors=True)
            shutil.rmtree(self.scripts + "/.mlhost", ignore_errors=True)
        with open(self.scripts + "/bench.lua", "w", encoding="ascii") as file:
            file.write('local registry = require "registry"\n'
                       f'pipeline "bench" {{ permissions = {{ net = {{ "127.0.0.1" }}, read = {{ "{self.work}" }}, '
                       f'write = {{ "{self.work}" }} }} }}\n'
                       f'stage "s" {{ timeout = "10m", run = function()\n{body}\nend }}\n')
        return Run([MLHOST, "run", "bench.lua", "--output", "plain"], {"MLHOST_STATE": self.state}, self.scripts)

    def curl(self, *args, sink=None):
        argv = ["curl", "-sSf", *args]
        return Run(["bash", "-o", "pipefail", "-c", '"$@" ' + sink, "bench", *argv] if sink else argv)

    def best(self, sides):
        """{name: function that returns a Run}, in turn; {name: the quickest Run, with the highest peak of all}."""
        found, peaks, broken = {}, {}, set()
        for _ in range(TRIES):
            for name, run in sides.items():
                if name in broken:
                    continue
                try:
                    one = run()
                except Failed as problem:
                    if name == "mlhost":
                        raise SystemExit(f"bench: {problem}") from None
                    print(f"  {name} failed: {problem}", flush=True)
                    broken.add(name)
                    continue
                peaks[name] = max(one.peak, peaks.get(name, 0))
                if name not in found or one.seconds < found[name].seconds:
                    found[name] = one
        for name, one in found.items():
            one.peak = peaks[name]
        return found

    def report(self, title, found, floors=()):
        """A row for each peer, then one for the memory."""
        ours = found.pop("mlhost")
        for name, one in sorted(found.items(), key=lambda pair: pair[1].seconds):
            self.row(f"{title}", ours.seconds, name, one.seconds, invert=name not in floors and ours.seconds < one.seconds)
        for name, one in sorted(found.items(), key=lambda pair: pair[1].peak)[:1]:
            self.row(f"{title}: peak memory", ours.peak, name, one.peak, unit="MiB", scale=1)
        return ours

    # ---- what the rows have in common ----

    def manifest(self, reference):
        host, _, rest = reference.partition("/")
        name, _, tag = rest.rpartition(":")
        request = urllib.request.Request(f"http://{host}/v2/{name}/manifests/{tag}", headers={"Accept": MANIFESTS})
        with urllib.request.urlopen(request, timeout=10) as reply:
            return json.load(reply)

    def layer_size(self, reference):
        return sum(layer["size"] for layer in self.manifest(reference)["layers"])

    def begin_upload(self, name):
        request = urllib.request.Request(f"http://{self.host}/v2/{name}/blobs/uploads/", data=b"", method="POST")
        with urllib.request.urlopen(request, timeout=10) as reply:
            return reply.headers["Location"]

    def curl_push(self, path, beside="openssl dgst -sha256"):
        """One PUT of a file, and beside it, at the same time, what reads it too."""
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()

        def run():
            where = self.begin_upload(self.fresh().partition("/")[2])
            return Run(["bash", "-ec", beside + ' "$1" & curl -sSf -X PUT -T "$1" -H "Content-Type: application/octet-stream" '
                        '-o /dev/null "$2"; wait', "bench", path, f"{where}&digest=sha256:{digest}"])
        return run

    def transfer_cpu(self, path):
        push = self.curl_push(path, ":")
        before = serve.cpu_seconds(self.server_pid)
        client = push().cpu
        return client + serve.cpu_seconds(self.server_pid) - before


# ---- rows ----

def cpu_limit(bench, tree):
    """Seconds: { "tar": of the raw tar, "tree": of the folder }"""
    packed = bench.work + "/limit.gz"
    told = min((Run([bench.limit, bench.work + "/input/layer.tar", packed]).text for _ in range(TRIES)),
               key=lambda text: float(text.split()[0]))
    compute = float(told.split()[0])
    transfer = min(bench.transfer_cpu(packed) for _ in range(TRIES))
    reading = min(Run(["bash", "-c", 'tar -C "$1" -cf - . | cat >/dev/null', "bench", tree]).cpu for _ in range(TRIES))
    processors = len(os.sched_getaffinity(0))
    limits = {"tar": (compute + transfer) / processors, "tree": (compute + transfer + reading) / processors}
    print(f"CPU seconds: compress and hash {compute:.2f}, send and store {transfer:.2f}, read the folder {reading:.2f}", flush=True)
    return limits


def buildah(bench, *args):
    """It asks for a helper for networks although it starts nothing here."""
    storage, helpers = bench.work + "/buildah", bench.work + "/helpers"
    if not os.path.isdir(helpers):
        os.mkdir(helpers)
        with open(helpers + "/netavark", "w", opener=lambda path, flags: os.open(path, flags, 0o755), encoding="ascii") as file:
            file.write("#!/bin/sh\nexit 1\n")
        with open(bench.work + "/containers.conf", "w", encoding="ascii") as file:
            file.write(f'[engine]\nhelper_binaries_dir = ["{helpers}"]\n')
        with open(bench.work + "/policy.json", "w", encoding="ascii") as file:
            file.write('{"default": [{"type": "insecureAcceptAnything"}]}')
    return ["env", f"CONTAINERS_CONF={bench.work}/containers.conf", f"TMPDIR={bench.work}", bench.peers["buildah"], "--root", storage + "/root", "--runroot", storage + "/run", "--storage-driver", "vfs", *args]


def forget_buildah(bench):
    shutil.rmtree(bench.work + "/buildah", ignore_errors=True)


def folder(bench, limits):
    tree = bench.work + "/tree"

    def mlhost():
        return bench.mlhost(f"registry.build {{ context = '{tree}', name = 'x', push = '{bench.fresh()}:1' }}")

    def with_buildah():
        forget_buildah(bench)
        ref = bench.fresh() + ":1"
        return Run(["bash", "-ec", 'n=$1; shift; "${@:1:$n}" bud -q --isolation chroot --signature-policy '
                    '"$POLICY" -t bench "$TREE"; "${@:1:$n}" push -q --signature-policy "$POLICY" --tls-verify=false bench '
                    '"docker://$REF"', "bench", str(len(buildah(bench))), *buildah(bench)], {"TREE": tree, "REF": ref, "POLICY": bench.work + "/policy.json"})

    def with_crane():
        ref = bench.fresh() + ":1"
        return Run(["bash", "-ec", 'tar -C "$TREE" -cf "$TAR" usr; "$CRANE" append --insecure -f "$TAR" -t "$REF"; rm "$TAR"'],
                   {"TREE": tree, "REF": ref, "TAR": bench.work + "/crane.tar", "CRANE": bench.peers["crane"]})

    sides = {"mlhost": mlhost}
    if bench.peers["buildah"]:
        sides["buildah bud + push"] = with_buildah
    if bench.peers["crane"]:
        sides["tar + crane append"] = with_crane
    ours = bench.report("500 MB folder to registry", bench.best(sides))
    bench.row("500 MB folder to registry", ours.seconds, "the CPU limit", limits["tree"])


def raw_tar(bench, limits):
    """A tar archive as an image of one layer, packed by each side."""
    tar, sizes = bench.work + "/input/layer.tar", {}

    def mlhost():
        ref = bench.fresh() + ":1"
        one = bench.mlhost(f"registry.append('scratch', '{tar}', {{ push = '{ref}' }})")
        sizes["mlhost"] = bench.layer_size(ref)
        return one

    def with_crane():
        ref = bench.fresh() + ":1"
        one = Run([bench.peers["crane"], "append", "--insecure", "-f", tar, "-t", ref])
        sizes["crane"] = bench.layer_size(ref)
        return one

    def with_buildah():
        forget_buildah(bench)
        ref = bench.fresh() + ":1"
        return Run(["bash", "-ec", 'from=$("$@" from -q scratch); "$@" add -q $from "$TAR" /; "$@" commit -q --signature-policy '
                    '"$POLICY" --tls-verify=false $from "docker://$REF"', "bench", *buildah(bench)],
                   {"TAR": tar, "REF": ref, "POLICY": bench.work + "/policy.json"})

    sides = {"mlhost": mlhost}
    if bench.peers["crane"]:
        sides["crane append"] = with_crane
    if bench.peers["buildah"]:
        sides["buildah add + commit"] = with_buildah
    ours = bench.report("500 MB tar to registry", bench.best(sides))
    bench.row("500 MB tar to registry", ours.seconds, "the CPU limit", limits["tar"])
    if "crane" in sizes:
        bench.row("500 MB tar to registry: size of the layer", sizes["mlhost"] / (1 << 20), "crane", sizes["crane"] / (1 << 20), unit="MiB",
                  scale=1)


def no_op(bench, _):
    """Eight images of components whose contexts have not changed."""
    names, refs = [], []
    for i in range(COMPONENTS):
        context = f"{bench.work}/component{i}"
        os.makedirs(context + "/lib")
        source = random.Random(i)
        for k in range(20):
            with open(f"{context}/lib/part{k}.lua", "wb") as file:
                file.write(source.randbytes(4000))
        with open(context + "/Dockerfile", "w", encoding="ascii") as file:
            file.write("FROM scratch\nCOPY lib /lib\n")
        names.append(context)
    bench.fresh()
    body = f"""for i = 0, {COMPONENTS - 1} do
      local image = registry.ensure {{ context = '{bench.work}/component' .. i, name = '{bench.host}/components/c' .. i }}
      log.info("REF %s", image.ref)
    end"""
    refs = re.findall(r"REF (\S+)", bench.mlhost(body).text)
    if len(refs) != COMPONENTS:
        sys.exit(f"bench: {len(refs)} of {COMPONENTS} components were built")
    sides = {"mlhost": lambda: bench.mlhost(body, keep_state=True)}
    if bench.peers["crane"]:
        tars = []
        for i, ref in enumerate(refs):
            tars.append(f"{bench.work}/component{i}.tar")
            Run([bench.peers["crane"], "pull", "--insecure", ref, tars[-1]])
            Run([bench.peers["crane"], "push", "--insecure", tars[-1], ref])
        sides["crane push, 8 times"] = lambda: Run(
            ["bash", "-ec", "crane=$1; shift; while [ $# -gt 0 ]; do $crane push --insecure $1 $2 >/dev/null; shift 2; done", "bench",
             bench.peers["crane"], *(word for pair in zip(tars, refs) for word in pair)])
    bench.report("8 components, nothing changed", bench.best(sides))


def stored(bench, ref):
    """The image of a registry comes into our store, for pushes of what is packed already."""
    bench.mlhost(f"registry.pull '{ref}'")


def layout_of(bench, ref, name):
    path = f"{bench.work}/{name}"
    Run([bench.peers["skopeo"], "copy", "-q", "--src-tls-verify=false", f"docker://{ref}", f"oci:{path}:t"])
    return path


def push_rows(bench, title, layout, blob=None):
    """From an image that lies packed on this machine: in our store, in a layout for the others."""
    source = bench.repository() + ":1"
    Run([bench.peers["skopeo"], "copy", "-q", "--dest-tls-verify=false", f"oci:{layout}:t", f"docker://{source}"])
    stored(bench, source)
    digest = re.search(r"GOT (sha256:\w+)", bench.mlhost(f"log.info('GOT %s', registry.pull('{source}').digest)", True).text)[1]

    def mlhost():
        # The image is known by its digest: nothing is asked of the registry that has been emptied.
        source_name = source.rpartition(":")[0]
        bench_name = bench.fresh()
        return bench.mlhost(f"registry.pull('{source_name}@{digest}'):push {{ to = '{bench_name}:1' }}", keep_state=True)

    sides = {"mlhost": mlhost}
    if bench.peers["crane"]:
        sides["crane push"] = lambda: Run([bench.peers["crane"], "push", "--insecure", layout, bench.fresh() + ":1"])
    sides["skopeo copy"] = lambda: Run([bench.peers["skopeo"], "copy", "-q", "--dest-tls-verify=false", f"oci:{layout}:t",
                                        f"docker://{bench.fresh()}:1"])
    if blob:
        sides["bare curl + SHA-256"] = bench.curl_push(blob)
    bench.report(title, bench.best(sides), floors=("bare curl + SHA-256",))


def largest_blob(layout):
    folder_name = layout + "/blobs/sha256/"
    return max((folder_name + name for name in os.listdir(folder_name)), key=os.path.getsize)


def packed_image(bench):
    """The folder as an image of one gzip layer, in a layout; made once."""
    layout = bench.work + "/packed"
    if not os.path.isdir(layout):
        ref = bench.fresh() + ":1"
        bench.mlhost(f"registry.build {{ context = '{bench.work}/tree', name = 'x', tag = '1' }}:push {{ to = '{ref}' }}")
        layout_of(bench, ref, "packed")
    return layout


def packed_push(bench, _):
    layout = packed_image(bench)
    push_rows(bench, "pre-compressed push", layout, largest_blob(layout))


def serve_image(bench, layout):
    ref = bench.fresh() + ":1"
    Run([bench.peers["skopeo"], "copy", "-q", "--dest-tls-verify=false", f"oci:{layout}:t", f"docker://{ref}"])
    return ref


def pull(bench, _):
    layout = packed_image(bench)
    ref, out = serve_image(bench, layout), bench.work + "/pulled"
    digest = os.path.basename(largest_blob(layout))
    blob = f"http://{bench.host}/v2/{ref.partition('/')[2].rpartition(':')[0]}/blobs/sha256:{digest}"

    def cleared(run):
        def clear_and_run():
            shutil.rmtree(out, ignore_errors=True)
            return run()
        return clear_and_run

    floor = "bare curl to a file + SHA-256"
    sides = {"mlhost": lambda: bench.mlhost(f"registry.pull '{ref}'"),
             floor: cleared(lambda: bench.curl(blob, sink=f"| tee {bench.work}/curl.out | openssl dgst -sha256"))}
    if bench.peers["crane"]:
        sides["crane pull"] = cleared(lambda: Run([bench.peers["crane"], "pull", "--insecure", "--format", "oci", ref, out]))
    sides["skopeo copy to oci:"] = cleared(lambda: Run([bench.peers["skopeo"], "copy", "-q", "--src-tls-verify=false",
                                                        f"docker://{ref}", f"oci:{out}:t"]))
    bench.report("pull", bench.best(sides), floors=(floor,))

    def unpack_ours():
        shutil.rmtree(out, ignore_errors=True)
        return bench.mlhost(f"registry.unpack('{ref}', '{out}')")

    def unpack_buildah():
        forget_buildah(bench)
        return Run(buildah(bench, "pull", "-q", "--tls-verify=false", "--signature-policy", bench.work + "/policy.json",
                           f"docker://{ref}"))

    def unpack_crane():
        shutil.rmtree(out, ignore_errors=True)
        os.makedirs(out)
        return Run(["bash", "-o", "pipefail", "-ec", '"$1" export --insecure "$2" - | tar -C "$3" -x', "bench",
                    bench.peers["crane"], ref, out])

    sides = {"mlhost": unpack_ours}
    if bench.peers["buildah"]:
        sides["buildah pull"] = unpack_buildah
    if bench.peers["crane"]:
        sides["crane export | tar x"] = unpack_crane
    sides["curl | gzip -d | tar x"] = cleared(lambda: (os.makedirs(out), bench.curl(blob, sink=f"| gzip -d | tar -C {out} -x"))[1])
    bench.report("pull and unpack", bench.best(sides))


def many_layers(bench, _):
    """Sixty layers of 1 MB that cannot be compressed."""
    tree = bench.work + "/many"
    os.makedirs(tree)
    lines = ["FROM scratch"]
    for i in range(LAYERS):
        with open(f"{tree}/f{i}", "wb") as file:
            file.write(random.Random(i).randbytes(1_000_000))
        lines.append(f"COPY f{i} /f{i}")
    with open(tree + "/Dockerfile", "w", encoding="ascii") as file:
        file.write("\n".join(lines) + "\n")
    ref = bench.fresh() + ":1"
    bench.mlhost(f"registry.build {{ context = '{tree}', name = 'x', tag = '1' }}:push {{ to = '{ref}' }}")
    push_rows(bench, "60 layers of 1 MB, push", layout_of(bench, ref, "sixty"))


GROUPS = {"folder": folder, "tar": raw_tar, "packed": packed_push, "pull": pull, "many": many_layers, "noop": no_op}


def registry(row):
    chosen = os.environ.get("BENCH_ROWS", "").split() or list(GROUPS)
    memory = "/dev/shm" if shutil.disk_usage("/dev/shm").free > 8 << 30 else None
    with tempfile.TemporaryDirectory(prefix="mlhost-bench-", dir=memory) as work:
        inputs(work)
        bench = Bench(work, row)
        with bench.server():
            limits = cpu_limit(bench, work + "/tree")
            for name in chosen:
                GROUPS[name](bench, limits)
