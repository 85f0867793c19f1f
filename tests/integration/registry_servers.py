#!/usr/bin/env python3
"""Servers for registry.sh: `token PORT KEY CERT USER PASSWORD` is a token service for docker-registry (its tokens are signed by
openssl, docker-registry checks them); `faults PORT` is a registry that answers what the repository's name says."""
import base64
import hashlib
import http.server
import json
import socketserver
import subprocess
import sys
import time
import urllib.parse

PORT = int(sys.argv[2])


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def reply(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format, *args):
        sys.stderr.write("%s %s %s\n" % (self.command, self.path, args[1] if len(args) > 1 else ""))
        sys.stderr.flush()


class Token(Handler):
    def do_GET(self):
        key, cert, user, password = sys.argv[3:7]
        query = urllib.parse.parse_qs(urllib.parse.urlparse(self.path).query)
        basic = base64.b64encode(f"{user}:{password}".encode()).decode()
        known = self.headers.get("Authorization") == "Basic " + basic
        if self.headers.get("Authorization") and not known:
            return self.reply(401, b'{"errors":[{"code":"UNAUTHORIZED","message":"wrong password"}]}')
        access = []
        for scope in query.get("scope", []):
            kind, name, actions = scope.split(":")
            granted = [a for a in actions.split(",") if known or (a == "pull" and name.startswith("public/"))]
            access.append({"type": kind, "name": name, "actions": granted})
        der = subprocess.run(["openssl", "x509", "-in", cert, "-outform", "DER"], capture_output=True, check=True).stdout
        now = int(time.time())
        header = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(der).decode()]}
        claims = {"iss": "mlhost-test", "sub": user if known else "", "aud": query["service"][0], "exp": now + 300,
                  "nbf": now - 10, "iat": now, "jti": str(now), "access": access}
        text = b64(json.dumps(header).encode()) + "." + b64(json.dumps(claims).encode())
        signature = subprocess.run(["openssl", "dgst", "-sha256", "-sign", key], input=text.encode(), capture_output=True,
                                   check=True).stdout
        self.reply(200, json.dumps({"token": text + "." + b64(signature), "expires_in": 300}).encode())


class Faults(Handler):
    def do_GET(self):
        part = self.path.split("/")[2] if self.path.count("/") > 2 else ""
        body = {
            "denied": b'{"errors":[{"code":"DENIED","message":"requested access is denied"}]}',
            "broken": b"<html>the backend is on fire</html>",
            "busy": b'{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}',
        }.get(part, b"")
        if part == "unauthorized":
            self.reply(401, b'{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}',
                       WWW_Authenticate='Basic realm="x"')
        elif part == "denied":
            self.reply(403, body)
        elif part == "busy":
            self.reply(429, body, Retry_After="0")
        elif part == "broken":
            self.reply(500, body)
        elif part == "cleartext":
            self.reply(401, b"", WWW_Authenticate='Bearer realm="gopher://elsewhere/token",service="x"')
        elif part == "garbage":
            self.reply(200, b'{"schemaVersion": 2, "layers": 7}')
        elif part == "wrong":
            body = b'{"schemaVersion": 2}'
            self.reply(200, body, Docker_Content_Digest="sha256:" + hashlib.sha256(b"another").hexdigest())
        else:
            self.reply(404, b'{"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known"}]}')

    do_HEAD = do_GET


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True


Server(("127.0.0.1", PORT), Token if sys.argv[1] == "token" else Faults).serve_forever()
