#!/usr/bin/env python3
"""Where requests go: names that resolve to addresses of this machine or its link, answers that change, redirects, spellings of
addresses. Real servers and a real name server, in a network namespace of their own. Ends with "N passed, N failed"."""
import http.server
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading

MLHOST = os.path.abspath(os.environ.get("MLHOST") or sys.exit("MLHOST: the program to try"))
GOOD, OTHER, OWN, LINK = "198.18.0.1", "198.18.0.2", "127.0.0.1", "169.254.169.254"
NAMES = {"good.test": [GOOD], "other.test": [OTHER], "own.test": [OWN], "link.test": [LINK], "zero.test": ["0.0.0.0"],
         "both.test": [GOOD, OWN], "localhost": [OWN]}
passed = failed = 0
hits = []
asked = {}

SCRIPT = """
local http, json, fs = require "http", require "json", require "fs"
pipeline "addresses" { permissions = { net = json.decode(fs.read "net.json") } }
stage "s" { timeout = "2m", run = function()
  local results = {}
  for i, url in ipairs(json.decode(fs.read "urls.json")) do
    local reply, err = try(http.get, url, { timeout = "5s" })
    results[i] = err and { code = err.code, message = err.message, hint = err.hint } or { status = reply.status, body = reply.body }
  end
  return results
end }
"""


def check(what, ok, seen=""):
    global passed, failed
    if ok:
        passed += 1
    else:
        failed += 1
        print(f"FAILED {what}\n    {str(seen)[:600]}", flush=True)


class Page(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        here = self.server.server_address[0]
        hits.append((here, self.path))
        target = self.path[len("/to/"):] if self.path.startswith("/to/") else None
        body = f"page of {here}".encode()
        self.send_response(302 if target else 200)
        if target:
            self.send_header("Location", target)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def names(server):
    """Answers A queries from NAMES; "turns.test" has another address each time; AAAA: none."""
    while True:
        query, sender = server.recvfrom(512)
        at, labels = 12, []
        while query[at]:
            labels.append(query[at + 1:at + 1 + query[at]].decode().lower())
            at += 1 + query[at]
        kind = struct.unpack(">H", query[at + 1:at + 3])[0]
        name = ".".join(labels)
        answers = []
        if kind == 1:
            asked[name] = asked.get(name, 0) + 1
            answers = [(GOOD, OWN)[asked[name] % 2]] if name == "turns.test" else NAMES.get(name, [])
        flags = 0x8180 if name in NAMES or name == "turns.test" else 0x8183
        reply = query[:2] + struct.pack(">HHHHH", flags, 1, len(answers), 0, 0) + query[12:at + 5]
        for address in answers:
            reply += struct.pack(">HHHIH", 0xC00C, 1, 1, 0, 4) + socket.inet_aton(address)
        server.sendto(reply, sender)


class Place:
    def __init__(self, folder):
        self.folder = folder

    def ask(self, net, urls, *options, env=None):
        for name, value in (("net.json", net), ("urls.json", urls)):
            with open(f"{self.folder}/{name}", "w") as file:
                json.dump(value, file)
        with open(self.folder + "/p.lua", "w") as file:
            # The plan is made without files: permissions stand in the text.
            file.write(SCRIPT.replace('json.decode(fs.read "net.json")', "{ " + ", ".join(json.dumps(p) for p in net) + " }"))
        hits.clear()
        clean = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
        done = subprocess.run([MLHOST, "run", "p.lua", "--json", *options], cwd=self.folder, stdin=subprocess.DEVNULL, text=True,
                              timeout=180, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**clean, **(env or {})})
        for line in done.stdout.splitlines():
            event = json.loads(line) if line.startswith("{") else {}
            if event.get("t") == "stage_end" and event.get("output") is not None:
                return event["output"]
        print(done.stdout)
        return [{} for _ in urls]

    def one(self, net, url, *options, env=None):
        return self.ask(net, [url], *options, env=env)[0]


def reached(address):
    return [hit for hit in hits if hit[0] == address]


def resolved(place):
    out = place.one(["good.test"], "http://good.test/")
    check("a granted name", out.get("body") == f"page of {GOOD}", out)
    out = place.one(["good.test"], "http://GOOD.Test./")
    check("its case and its last dot do not matter", out.get("status") == 200, out)
    for name, address, word in (("own.test", OWN, "machine"), ("link.test", LINK, "link"), ("zero.test", "0.0.0.0", "machine")):
        out = place.one([name], f"http://{name}/")
        check(f"{name} leads to {address}: denied", out.get("code") == "denied" and address in out["message"] and word in out["message"]
              and not hits, (out, hits))
        check(f"{name}: the grant that is missing is named", address in (out.get("hint") or ""), out)
    out = place.one(["own.test", OWN], "http://own.test/")
    check("unless that address is granted, too", out.get("body") == f"page of {OWN}", out)
    out = place.one(["link.test", "169.254.0.0/16"], "http://link.test/")
    check("or its network", out.get("body") == f"page of {LINK}", out)
    out = place.one(["localhost"], "http://localhost/")
    check("localhost is this machine by its meaning", out.get("status") == 200, out)
    out = place.ask(["*"], ["http://own.test/", f"http://{OWN}/", "http://link.test/", f"http://{LINK}/"])
    check('"*" is every host, but not the link and its metadata service', [r.get("status") for r in out] == [200, 200, None, None]
          and [r.get("code") for r in out[2:]] == ["denied", "denied"] and not reached(LINK), (out, hits))
    out = place.ask(["198.18.0.0/15"], [f"http://{GOOD}/", f"http://{OTHER}/", "http://good.test/", f"http://{OWN}/"])
    check("a network is one of addresses", [r.get("status") for r in out] == [200, 200, None, None] and not reached(OWN), out)
    out = place.ask(["*"], ["http://good.test/", "http://other.test/", f"http://{OTHER}/"], "--deny-net", OTHER)
    check("a denied address is denied by every name", [r.get("status") for r in out] == [200, None, None] and not reached(OTHER), out)
    out = place.ask(["good.test:8080", "good.test:81"], ["http://good.test/"])
    check("a port is granted with its host", out[0].get("code") == "denied" and not hits, out)


def answers_that_change(place):
    asked.clear()
    seen, leaked = set(), []
    for _ in range(6):  # runs of their own: within one the name server is not asked again
        for reply in place.ask(["turns.test"], ["http://turns.test/"] * 2):
            seen.add(reply.get("status", reply.get("code")))
        leaked += reached(OWN)
    check("an answer that changes leads nowhere else", not leaked and asked["turns.test"] > 1, (leaked, asked))
    check("some were answered, some denied", seen == {200, "denied"}, seen)
    place.one(["both.test"], "http://both.test/")
    check("of several addresses only the plain one is used", not reached(OWN), hits)


def spellings(place):
    own = ["0x7f.1", "2130706433", "127.1", "0177.0.0.1", "127.0.0.1.", "127.0.0.1", "[::ffff:127.0.0.1]", "[::1]", "0", "0.0.0.0",
           "[::]", "017700000001", "0x7f000001", "localhost", "127.255.255.254"]
    out = place.ask(["good.test"], [f"http://{host}/" for host in own])
    for host, reply in zip(own, out):
        check(f"{host} is not granted", reply.get("code") in ("denied", "usage"), reply)
    check("none of them was reached", not hits, hits)
    link = ["2852039166", "0xa9fea9fe", "[::ffff:169.254.169.254]", "0251.0376.0251.0376", "169.254.43518", LINK]
    out = place.ask(["*"], [f"http://{host}/" for host in link])
    check("nor is the metadata service, whatever its spelling", all(r.get("code") in ("denied", "usage") for r in out) and not hits,
          (out, hits))
    tricks = ["http://good.test@other.test/", f"http://good.test:80@{OWN}/", "http://good.test#@other.test/",
              "http://other.test/?good.test", "http://good.test.other.test/", f"http://{OWN}\\@good.test/", "file:///etc/passwd",
              "ftp://good.test/", "gopher://good.test/", "http://good.test%00.other.test/", "http://good.test\r\nHost: other.test/",
              "dict://127.0.0.1:80/", "http://[good.test]/", "http:///etc/passwd", "//other.test/"]
    out = place.ask(["good.test"], tricks)
    for url, reply in zip(tricks, out):
        check(f"{url!r} goes to good.test or nowhere", reply.get("code") or reply.get("body") == f"page of {GOOD}", reply)
    check("no trick reached another", not [hit for hit in hits if hit[0] != GOOD], hits)


def redirects(place):
    targets = {"http://other.test/": "denied", f"http://{OWN}/": "denied", f"http://{LINK}/latest": "denied", "http://own.test/": "denied",
               "http://good.test:81/": "denied", "http://0x7f.1/": "denied", "file:///etc/passwd": None, "ftp://good.test/": None,
               "http://good.test@other.test/": "denied", "http://user:word@good.test/end": "any", "/end": "any"}
    for target, code in targets.items():
        out = place.one(["good.test:80"], f"http://good.test/to/{target}")
        if code == "any":
            check(f"a redirect to {target} is followed", out.get("status") == 200, out)
        else:
            check(f"a redirect to {target} is not followed", out.get("code") and (code is None or out["code"] == code)
                  and not [hit for hit in hits if hit[0] != GOOD], (out, hits))
    out = place.one(["good.test", "other.test"], "http://good.test/to/http://other.test/to/http://own.test/")
    check("nor one behind another", out.get("code") == "denied" and not reached(OWN), (out, hits))


class Proxy(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        hits.append(("proxy", self.path))
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"proxy")

    def log_message(self, *_):
        pass


def proxies(place):
    env = {"http_proxy": "http://198.18.0.3:3128"}
    out = place.ask(["good.test"], ["http://good.test/", "http://other.test/", f"http://{LINK}/"], env=env)
    check("the operator's proxy is used for what is granted", out[0].get("body") == "proxy" and hits == [("proxy", "http://good.test/")],
          (out, hits))
    check("and not for what is not", [r.get("code") for r in out[1:]] == ["denied", "denied"], out)
    out = place.one(["*"], f"http://{LINK}/", env=env)
    check("nor to ask the metadata service", out.get("code") == "denied" and not hits, (out, hits))


def inside():
    for command in (["ip", "link", "set", "lo", "up"], *(["ip", "addr", "add", address + "/32", "dev", "lo"]
                                                           for address in (GOOD, OTHER, "198.18.0.3", LINK))):
        subprocess.run(command, check=True)
    with tempfile.TemporaryDirectory(prefix="mlhost-addresses-") as folder:
        for name, text in (("resolv.conf", "nameserver 127.0.0.77\noptions timeout:2 attempts:1\n"),
                           ("nsswitch.conf", "hosts: dns\n"), ("hosts", "")):
            with open(f"{folder}/{name}", "w") as file:
                file.write(text)
            subprocess.run(["mount", "--bind", "-o", "ro", f"{folder}/{name}", os.path.realpath(f"/etc/{name}")], check=True)
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.bind(("127.0.0.77", 53))
        threading.Thread(target=names, args=(server,), daemon=True).start()
        for address, port, page in ((GOOD, 80, Page), (OTHER, 80, Page), (OWN, 80, Page), (LINK, 80, Page), (GOOD, 81, Page),
                                    ("198.18.0.3", 3128, Proxy)):
            web = http.server.ThreadingHTTPServer((address, port), page)
            threading.Thread(target=web.serve_forever, daemon=True).start()
        os.mkdir(folder + "/work")
        place = Place(folder + "/work")
        for part in (resolved, answers_that_change, spellings, redirects, proxies):
            try:
                part(place)
            except Exception as error:  # the others are to be tried
                check(f"{part.__name__}: {type(error).__name__}: {error}", False)


if len(sys.argv) > 1 and sys.argv[1] == "--inside":
    inside()
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed > 0)
if not shutil.which("ip") or not shutil.which("unshare"):
    print("SKIPPED network namespaces need ip(8) and unshare(1)\n0 passed, 0 failed")
    sys.exit(0)
options = ["-n", "-m"] if os.geteuid() == 0 else ["-U", "-r", "-n", "-m"]
sys.exit(subprocess.run(["unshare", *options, sys.executable, os.path.abspath(__file__), "--inside"]).returncode)
