#!/usr/bin/env python3
"""A server that misbehaves on request, for the tests of the HTTP client and the service engine.

Prints "PORT OTHER_PORT\n" when it listens (two loopback ports: two origins). Each path is one fault:

  /ok /echo                     200; echo answers with JSON of what it saw
  /status/CODE                  that status with a JSON body in the manner of ?style=mlflow|kfp|azdo|html|none
  /flaky/NAME/N/CODE            CODE for the first N requests to NAME, then 200 (?retry_after=TEXT)
  /seen/NAME                    {"count": how often /flaky/NAME or /truncated/NAME was asked}
  /slow/SECONDS                 answers after that long; /trickle/SECONDS: headers, then silence
  /truncated/NAME               announces 1000 bytes, sends 10, closes
  /close                        accepts, closes without a byte
  /cross /same /loop            redirects: to the other port's /echo, to /echo here, for ever
  /large/BYTES /error-large     bodies of that size; a 500 with 5 MB
  /token                        an OAuth2 token end point: client credentials in, "token-<n>" out (?expires=SECONDS); the secret
                                is "right", the assertion of a federated workload "right-jwt"
  /bearer                       200 when the bearer token is "token-<last n>", else 401
"""
import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

counts = {}
lock = threading.Lock()
tokens = 0
other = {}


def count(name):
    with lock:
        counts[name] = counts.get(name, 0) + 1
        return counts[name]


def error_body(style, code):
    if style == "mlflow":
        return "application/json", json.dumps({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no such run"})
    if style == "kfp":
        return "application/json", json.dumps(
            {"code": 5, "message": "ResourceNotFoundError: internal text",
             "details": [{"@type": "type.googleapis.com/google.rpc.Status", "code": 5,
                          "message": "Pipeline not found: x"}]})
    if style == "azdo":
        return "application/json", json.dumps(
            {"$id": "1", "message": "TF400813: not authorized", "typeKey": "UnauthorizedRequestException"})
    if style == "html":
        return "text/html", "<html><head><title>Gateway</title></head><body><h1>Sorry</h1>come back</body></html>"
    return "text/plain", ""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def reply(self, code, body=b"{}", kind="application/json", headers=()):
        if isinstance(body, str):
            body = body.encode()
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def body(self):
        if self.headers.get("Transfer-Encoding", "") == "chunked":
            data = b""
            while True:
                size = int(self.rfile.readline().strip() or b"0", 16)
                data += self.rfile.read(size)
                self.rfile.readline()
                if size == 0:
                    return data
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def handle_any(self):
        global tokens
        url = urlsplit(self.path)
        query = {k: v[-1] for k, v in parse_qs(url.query).items()}
        part = url.path.strip("/").split("/")
        data = self.body()
        if part[0] == "ok":
            self.reply(200, '{"ok": true}')
        elif part[0] == "echo":
            self.reply(200, json.dumps({"method": self.command, "path": self.path, "size": len(data),
                                        "body": data[:4096].decode("utf-8", "replace"),
                                        "headers": {k.lower(): v for k, v in self.headers.items()}}))
        elif part[0] == "status":
            kind, text = error_body(query.get("style"), int(part[1]))
            self.reply(int(part[1]), text, kind)
        elif part[0] == "flaky":
            seen = count(part[1])
            if seen <= int(part[2]):
                after = [("Retry-After", query["retry_after"])] if "retry_after" in query else []
                self.reply(int(part[3]), '{"message": "try later"}', headers=after)
            else:
                self.reply(200, json.dumps({"seen": seen}))
        elif part[0] == "seen":
            self.reply(200, json.dumps({"count": counts.get(part[1], 0)}))
        elif part[0] == "slow":
            time.sleep(float(part[1]))
            self.reply(200)
        elif part[0] == "trickle":
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(b"x")
            self.wfile.flush()
            time.sleep(float(part[1]))
            self.close_connection = True
        elif part[0] == "truncated":
            count(part[1])
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"0123456789")
            self.close_connection = True
        elif part[0] == "close":
            self.close_connection = True
        elif part[0] == "cross":
            self.reply(307, "", headers=[("Location", "http://127.0.0.1:%d/echo" % other[self.server.server_port])])
        elif part[0] == "same":
            self.reply(302, "", headers=[("Location", "/echo?from=same")])
        elif part[0] == "loop":
            self.reply(302, "", headers=[("Location", "/loop")])
        elif part[0] == "large":
            self.reply(200, b"z" * int(part[1]), "application/octet-stream")
        elif part[0] == "error-large":
            self.reply(500, b"e" * 5_000_000, "text/plain")
        elif part[0] == "token":
            form = {k: v[-1] for k, v in parse_qs(data.decode()).items()}
            federated = form.get("client_assertion_type") == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
            good = form.get("client_assertion") == "right-jwt" and "client_secret" not in form if federated else (
                form.get("client_secret") == "right")
            if form.get("grant_type") != "client_credentials" or not good:
                self.reply(401, json.dumps({"error": "invalid_client",
                                            "error_description": "AADSTS7000215: Invalid client secret provided."}))
                return
            with lock:
                tokens += 1
            self.reply(200, json.dumps({"token_type": "Bearer", "expires_in": int(query.get("expires", "3600")),
                                        "access_token": "token-%d" % tokens}))
        elif part[0] == "bearer":
            good = self.headers.get("Authorization") == "Bearer token-%d" % tokens
            self.reply(200 if good else 401, json.dumps({"tokens": tokens}))
        else:
            self.reply(404, '{"message": "no such fault"}')

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = handle_any


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        kind = sys.exc_info()[0]
        if not issubclass(kind, ConnectionError):  # clients that hang up are what the tests are about
            super().handle_error(request, client_address)


def main():
    first = Server(("127.0.0.1", 0), Handler)
    second = Server(("127.0.0.1", 0), Handler)
    other[first.server_port] = second.server_port
    other[second.server_port] = first.server_port
    threading.Thread(target=second.serve_forever, daemon=True).start()
    threading.Thread(target=first.serve_forever, daemon=True).start()
    print(first.server_port, second.server_port, flush=True)
    sys.stdin.read()  # the parent closing its end ends this server, however the parent ends


main()
