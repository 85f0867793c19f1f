"""A registry for registry_client.py that does what docker-registry does not: what hosted registries answer, by switches. It keeps all in
memory and writes down each request. Digests of what it is given are checked; nothing else about images is known here."""
import base64
import hashlib
import http.server
import json
import re
import socket
import socketserver
import sys
import threading
import time
import urllib.parse

INDEX = "application/vnd.oci.image.index.v1+json"


class Request:
    def __init__(self, handler, size):
        self.method, self.path, self.size, self.at = handler.command, handler.path, size, time.monotonic()
        self.headers = {name.lower(): value for name, value in handler.headers.items()}

    @property
    def authorization(self):
        return self.headers.get("authorization")

    def __repr__(self):
        return f"{self.method} {self.path} {self.size}"


class Cut(Exception):
    """The connection ends here."""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format, *args):
        pass

    def reply(self, status, body=b"", headers=None, typ=None):
        self.send_response(status)
        for name, value in (headers or {}).items():
            for one in value if isinstance(value, list) else [value]:
                self.send_header(name, one)
        if self.server.q.warning:
            self.send_header("Warning", f'299 - "{self.server.q.warning}"')
        if typ:
            self.send_header("Content-Type", typ)
        if not (self.command == "HEAD" and headers and "Content-Length" in headers):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def error(self, status, code, message="no", headers=None):
        self.reply(status, json.dumps({"errors": [{"code": code, "message": message}]}).encode(), headers, "application/json")

    def pieces(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            while True:
                size = int(self.rfile.readline().split(b";")[0], 16)
                piece = self.rfile.read(size)
                self.rfile.readline()
                if not size:
                    return
                yield piece
        left = int(self.headers.get("Content-Length") or 0)
        while left:
            piece = self.rfile.read(min(left, 65536))
            if not piece:
                raise Cut()
            left -= len(piece)
            yield piece

    def body(self):
        return b"".join(self.pieces())

    def handle_any(self):
        q = self.server.q
        request = Request(self, int(self.headers.get("Content-Length") or 0))
        with q.lock:
            q.requests.append(request)
        try:
            q.serve(self, request)
        except Cut:
            self.close_connection = True
            self.connection.shutdown(2)

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = handle_any


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True

    def handle_error(self, request, address):
        if not isinstance(sys.exc_info()[1], ConnectionError):  # clients come and go
            super().handle_error(request, address)


class Proxy:
    """A forward proxy: absolute URLs and CONNECT, to `routes` ("name:port" -> port on loopback). It writes down what it was asked for."""

    def __init__(self, routes, password=None):
        self.routes, self.password, self.seen = routes, password, []
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        with client:
            head = b""
            while b"\r\n\r\n" not in head:
                piece = client.recv(65536)
                if not piece:
                    return
                head += piece
            lines, rest = head.split(b"\r\n\r\n", 1)
            first, *fields = lines.decode().split("\r\n")
            method, target, version = first.split(" ")
            self.seen.append(f"{method} {target}")
            if self.password and not any(f.lower().startswith("proxy-authorization:") and f.endswith(self.password) for f in fields):
                return client.sendall(b"HTTP/1.1 407 Who\r\nProxy-Authenticate: Basic realm=p\r\nContent-Length: 0\r\n\r\n")
            url = urllib.parse.urlparse(target if method != "CONNECT" else "//" + target)
            port = self.routes.get(f"{url.hostname}:{url.port or 80}")
            if not port:
                return client.sendall(b"HTTP/1.1 502 Unknown\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            with socket.create_connection(("127.0.0.1", port)) as server:
                if method == "CONNECT":
                    client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                else:  # one request by connection
                    path = url._replace(scheme="", netloc="").geturl()
                    fields = [f for f in fields if not f.lower().startswith(("proxy-", "connection:"))]
                    server.sendall("\r\n".join([f"{method} {path} {version}", *fields, "Connection: close", "", ""]).encode() + rest)
                back = threading.Thread(target=self.copy, args=(server, client), daemon=True)
                back.start()
                self.copy(client, server)
                back.join()

    @staticmethod
    def copy(source, sink):
        try:
            while piece := source.recv(65536):
                sink.sendall(piece)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def close(self):
        self.socket.close()


class Quirky:
    def __init__(self, **switches):
        self.lock = threading.Lock()
        self.requests, self.blobs, self.manifests, self.tags, self.uploads = [], {}, {}, {}, {}
        self.sequence = self.begun = 0  # begun: upload sessions
        # switches
        self.min_chunk = 0          # OCI-Chunk-Min-Length
        self.max_chunk = 0          # a piece with Content-Range that is larger gets 416
        self.patch_status = 202
        self.cut_after = []         # bodies that are longer break off after so many bytes, which are kept; each once
        self.relative = False       # Locations: paths relative to the request, a new query each time
        self.referrers = False
        self.says_digest = True     # Docker-Content-Digest
        self.auth = None            # "basic", "bearer", "azure"
        self.revoke = False         # the first bytes of an upload find that all tokens are over
        self.first_scope_only = False
        self.lifetime = 300
        self.gives_refresh = False
        self.storage = None         # base URL of where blobs are
        self.warning = None
        self.pages = {}             # path -> list of pages of /tags/list and /_catalog, with an empty one as it likes
        self.busy = 0               # so many requests get 429 with Retry-After: 1
        self.busy_tokens = []       # Retry-After of so many answers of the token service
        self.ranges = True          # of blobs
        self.cut_blobs = []         # replies with a blob break off after so many bytes; each once
        self.etags = False          # tags are written with If-Match only, when they are there
        self.races = []             # functions to call before a PUT of a manifest by tag; each once
        self.digest_tags = False    # a tag sha256-... is the digest
        self.answers = {}           # path -> (status, body, headers)
        self.deletes_tags = True
        self.deletes = True
        self.credentials = ("ann", "secret-word")
        self.mounts = True
        for name, value in switches.items():
            assert hasattr(self, name), name
            setattr(self, name, value)
        self.tokens = {}            # text -> scopes
        self.refresh = set()
        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.q = self
        self.port = self.server.server_address[1]
        self.host = f"127.0.0.1:{self.port}"
        self.url = f"http://{self.host}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def seen(self, method=None, pattern=""):
        with self.lock:
            return [r for r in self.requests if (not method or r.method == method) and re.search(pattern, r.path)]

    def number(self):
        with self.lock:
            self.sequence += 1
            return self.sequence

    # ---- who asks ----

    def token_for(self, scopes):
        text = f"token-number-{self.number()}-of-{self.port}"
        self.tokens[text] = scopes[:1] if self.first_scope_only else scopes
        answer = {"access_token": text, "expires_in": self.lifetime}
        if self.gives_refresh or self.auth == "azure":
            refresh = f"refresh-number-{self.number()}-of-{self.port}"
            self.refresh.add(refresh)
            answer["refresh_token"] = refresh
        return json.dumps(answer).encode()

    def basic(self):
        return "Basic " + base64.b64encode(":".join(self.credentials).encode()).decode()

    def serve_token(self, h, request, parts):
        if self.busy_tokens:
            list(h.pieces())
            after = self.busy_tokens.pop(0)
            return h.error(429, "TOOMANYREQUESTS", "slow down", {"Retry-After": after})
        if h.command == "GET" and parts.path == "/token":
            if request.authorization not in (None, self.basic()):
                return h.error(401, "UNAUTHORIZED", "wrong password")
            return h.reply(200, self.token_for(urllib.parse.parse_qs(parts.query).get("scope", [])))
        form = {k: v[0] for k, v in urllib.parse.parse_qs(h.body().decode()).items()}
        request.form = form
        if parts.path == "/aad/T/oauth2/v2.0/token":
            good = form.get("client_id") == "C" and (form.get("client_secret"), form.get("client_assertion")) in (
                ("secret-word", None), (None, "the-assertion"))
            return h.reply(200 if good else 401, b'{"access_token":"the-aad-token","expires_in":3600}' if good else b"{}")
        if parts.path == "/oauth2/exchange" and self.auth == "azure":
            if (form.get("grant_type"), form.get("access_token"), form.get("tenant")) != ("access_token", "the-aad-token", "T"):
                return h.error(401, "UNAUTHORIZED", "no such token")
            text = f"exchanged-number-{self.number()}-of-{self.port}"
            self.refresh.add(text)
            return h.reply(200, json.dumps({"refresh_token": text}).encode())
        if form.get("grant_type") != "refresh_token" or form.get("refresh_token") not in self.refresh:
            return h.error(401, "UNAUTHORIZED", "no such refresh token")
        return h.reply(200, self.token_for(form.get("scope", "").split(" ")))

    def allowed(self, h, request, scopes):
        """Whether the request may go on; it has its answer otherwise."""
        if not self.auth:
            return True
        if self.auth == "basic":
            if request.authorization == self.basic():
                return True
            h.error(401, "UNAUTHORIZED", headers={"WWW-Authenticate": ["Negotiate", 'Basic realm="a, b"']})
            return False
        text = (request.authorization or "").removeprefix("Bearer ")
        missing = scopes
        with self.lock:
            token = self.tokens.get(text)
            if self.revoke and h.command == "PUT" and "/uploaded/" in h.path:
                self.revoke, token = False, None
                self.tokens.clear()
            if token:
                have = set()
                for scope in token:
                    kind, name, actions = scope.split(":")
                    have |= {(name, action) for action in actions.split(",")}
                missing = [s for s in scopes if (s.split(":")[1], s.split(":")[2]) not in have]
                if not missing:
                    return True
        list(h.pieces())
        realm = f"{self.url}/oauth2/token" if self.auth == "azure" else f"{self.url}/token"
        names = {}
        for scope in missing:
            names.setdefault(scope.split(":")[1], []).append(scope.split(":")[2])
        wanted = " ".join(f"{'registry' if n == 'catalog' else 'repository'}:{n}:{','.join(a)}" for n, a in names.items())
        challenge = f'Negotiate, Basic realm="x", Bearer realm="{realm}",service="{self.host}",scope="{wanted}"'
        h.error(401, "UNAUTHORIZED", "authentication required", {"WWW-Authenticate": challenge})
        return False

    # ---- the API ----

    def serve(self, h, request):
        parts = urllib.parse.urlparse(h.path)
        query = urllib.parse.parse_qs(parts.query)
        if parts.path in ("/token", "/oauth2/exchange", "/oauth2/token", "/aad/T/oauth2/v2.0/token"):
            return self.serve_token(h, request, parts)
        if parts.path in self.answers:
            list(h.pieces())
            status, body, headers = self.answers[parts.path]
            return h.reply(status, body, headers)
        if parts.path.startswith("/acr/v1/") and h.command == "DELETE":
            name, tag = re.fullmatch(r"/acr/v1/(.+)/_tags/(.+)", parts.path).groups()
            return h.reply(202 if self.tags.pop((name, tag), None) else 404)
        with self.lock:
            busy, self.busy = self.busy > 0, max(0, self.busy - 1)
        if busy:
            list(h.pieces())
            return h.error(429, "TOOMANYREQUESTS", "slow down", {"Retry-After": "1"})
        if parts.path == "/v2/_catalog":
            if self.allowed(h, request, ["registry:catalog:*"]):
                self.serve_pages(h, parts.path, "repositories", query)
            return None
        found = re.fullmatch(r"/v2/(.+)/(manifests|blobs|tags|referrers|uploaded)/(.*)", parts.path)
        if not found:
            return h.error(404, "NAME_UNKNOWN")
        name, kind, rest = found.groups()
        action = {"GET": "pull", "HEAD": "pull", "DELETE": "delete"}.get(h.command, "push")
        if kind == "uploaded" or rest.startswith("uploads/"):
            action = "push"
        scopes = [f"repository:{name}:{action}"]
        if "from" in query:
            scopes.append(f"repository:{query['from'][0]}:pull")
        if not self.allowed(h, request, scopes):
            return None
        serve = {"manifests": self.serve_manifest, "blobs": self.serve_blob, "tags": self.serve_tags,
                 "referrers": self.serve_referrers, "uploaded": self.serve_upload}[kind]
        return serve(h, name, rest, query)

    def serve_pages(self, h, path, key, query):
        pages = self.pages.get(path)
        if pages is None:
            return h.error(404, "NAME_UNKNOWN")
        number = int(query.get("page", ["0"])[0])
        headers = {}
        if number + 1 < len(pages):  # relative to the request, behind another link
            headers["Link"] = f'<list>; rel="help", <{path.rsplit("/", 1)[1]}?page={number + 1}>; rel="next"'
        return h.reply(200, json.dumps({"name": "x", key: pages[number]}).encode(), headers, "application/json")

    def serve_tags(self, h, name, rest, query):
        path = f"/v2/{name}/tags/list"
        if path not in self.pages:
            self.pages[path] = [[tag for (n, tag) in self.tags if n == name]]
        return self.serve_pages(h, path, "tags", query)

    def serve_manifest(self, h, name, ref, query):
        digest = ref if ref.startswith("sha256:") else self.tags.get((name, ref))
        if self.digest_tags and ref.startswith("sha256-"):
            digest = ref.replace("-", ":", 1)
        if h.command == "PUT":
            text = h.body()
            if self.races and not ref.startswith("sha256:"):
                self.races.pop(0)()
            if self.etags and (name, ref) in self.tags and h.headers.get("If-Match") != f'"{self.tags[name, ref]}"':
                return h.error(412, "UNKNOWN", "changed meanwhile")
            digest = "sha256:" + hashlib.sha256(text).hexdigest()
            self.manifests[name, digest] = (h.headers["Content-Type"], text)
            if not ref.startswith("sha256:"):
                self.tags[name, ref] = digest
            headers = {"Location": f"/v2/{name}/manifests/{digest}"}
            subject = json.loads(text).get("subject")
            if subject and self.referrers:
                headers["OCI-Subject"] = subject["digest"]
            return h.reply(201, b"", headers)
        if h.command == "DELETE":
            if not self.deletes or (not self.deletes_tags and not ref.startswith("sha256:")):
                return h.error(405, "UNSUPPORTED", "the operation is unsupported")
            if ref.startswith("sha256:"):
                self.manifests.pop((name, digest), None)
                self.tags = {k: v for k, v in self.tags.items() if v != digest or k[0] != name}
            else:
                self.tags.pop((name, ref), None)
            return h.reply(202)
        if (name, digest) not in self.manifests:
            return h.error(404, "MANIFEST_UNKNOWN", "no such manifest")
        typ, text = self.manifests[name, digest]
        headers = {"Docker-Content-Digest": digest} if self.says_digest else {}
        if self.etags:
            headers["ETag"] = f'"{digest}"'
        return h.reply(200, text, headers, typ + "; charset=utf-8")

    def serve_referrers(self, h, name, digest, query):
        if not self.referrers:
            return h.error(404, "NOT_FOUND")
        found = []
        for (n, own), (typ, text) in self.manifests.items():
            manifest = json.loads(text)
            if n == name and manifest.get("subject", {}).get("digest") == digest:
                found.append({"mediaType": typ, "digest": own, "size": len(text), "artifactType": manifest.get("artifactType"),
                              "annotations": manifest.get("annotations", {})})
        # one by page, unfiltered
        page = int(query.get("page", ["0"])[0])
        headers = {"Link": f'<{h.path.split("?")[0]}?page={page + 1}>; rel="next"'} if page + 1 < len(found) else {}
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": found[page:page + 1]}
        return h.reply(200, json.dumps(index).encode(), headers, INDEX)

    def serve_blob(self, h, name, rest, query):
        if rest.startswith("uploads/"):
            return self.begin_upload(h, name, query)
        if h.command == "DELETE":
            if not self.deletes:
                return h.error(405, "UNSUPPORTED", "the operation is unsupported")
            return h.reply(202) if self.blobs.pop((name, rest), None) is not None else h.error(404, "BLOB_UNKNOWN")
        if self.storage and h.command == "GET":
            return h.reply(307, b"", {"Location": f"{self.storage}/v2/{name}/blobs/{rest}"})
        blob = self.blobs.get((name, rest))
        if blob is None:
            return h.error(404, "BLOB_UNKNOWN")
        found = re.fullmatch(r"bytes=(\d+)-", h.headers.get("Range", ""))
        first, status, headers = 0, 200, {}
        if found and self.ranges:
            first, status = int(found.group(1)), 206
            headers["Content-Range"] = f"bytes {first}-{len(blob) - 1}/{len(blob)}"
        with self.lock:
            cut = self.cut_blobs.pop(0) if self.cut_blobs and h.command == "GET" and len(blob) - first > self.cut_blobs[0] else None
        if cut is None:
            return h.reply(status, blob[first:], headers)
        h.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(blob) - first)}.items():
            h.send_header(key, value)
        h.end_headers()
        h.wfile.write(blob[first:first + cut])
        h.wfile.flush()
        raise Cut()

    def begin_upload(self, h, name, query):
        list(h.pieces())
        if "mount" in query:
            blob = self.blobs.get((query.get("from", [""])[0], query["mount"][0]))
            if not self.mounts:
                return h.error(400, "UNSUPPORTED", "no mounts")
            if blob is not None:
                self.blobs[name, query["mount"][0]] = blob
                return h.reply(201)
        number = str(self.number())
        self.uploads[number] = bytearray()
        with self.lock:
            self.begun += 1
        return h.reply(202, b"", self.where(name, number, first=True))

    def where(self, name, number, first=False):
        """The only Location that works from now on."""
        state = str(self.number())
        self.uploads[number + "?"] = state
        path = f"/v2/{name}/uploaded/{number}?state={state}&x=%2F"
        if self.relative:
            path = f"../../uploaded/{number}?state={state}&x=%2F" if first else f"{number}?state={state}&x=%2F"
        headers = {"Location": path if self.relative else self.url + path}
        if self.min_chunk:
            headers["OCI-Chunk-Min-Length"] = str(self.min_chunk)
        return headers

    def serve_upload(self, h, name, number, query):
        data = self.uploads.get(number)
        if data is None or query.get("state", [""])[0] != self.uploads[number + "?"]:
            list(h.pieces())
            return h.error(404, "BLOB_UPLOAD_UNKNOWN", "an old Location, or no session")
        if h.command == "GET":
            return h.reply(204, b"", {**self.where(name, number), "Range": f"0-{max(0, len(data) - 1)}"})
        if h.command == "DELETE":
            del self.uploads[number]
            return h.reply(204)
        place, length = h.headers.get("Content-Range"), int(h.headers.get("Content-Length") or 0)
        if place:
            first, last = map(int, place.split("-"))
            if first != len(data) or last + 1 - first != length or (self.max_chunk and length > self.max_chunk):
                list(h.pieces())
                return h.error(416, "BLOB_UPLOAD_INVALID", "this piece does not fit")
        taken, cut = 0, None
        with self.lock:
            if self.cut_after and length > self.cut_after[0]:
                cut = self.cut_after.pop(0)
        for piece in h.pieces():
            data += piece if cut is None else piece[:cut - taken]
            taken += len(piece)
            if cut is not None and taken >= cut:
                raise Cut()
        if h.command == "PATCH":
            return h.reply(self.patch_status, b"", {**self.where(name, number), "Range": f"0-{len(data) - 1}"})
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        if query["digest"][0] != digest:
            return h.error(400, "DIGEST_INVALID", f"the bytes are {digest}")
        self.blobs[name, digest] = bytes(data)
        del self.uploads[number]
        return h.reply(201, b"", {"Docker-Content-Digest": digest})
