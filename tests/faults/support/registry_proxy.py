"""A proxy in front of a registry that does one wrong thing at one request.

Proxy(upstream_port, fault, at, always) listens on a loopback port of its own (`port`); the request number `at` (from 0, in the order
of their arrival), or with `always` every one from then on, meets the fault; `seen` holds (method, path, bytes asked, bytes answered) of
each, `hit` how often the fault was done. close() ends it.

Faults:
  refuse          the connection ends when the request's head has been read
  cut-request     half of the request's body goes on, then both connections end
  drop-reply      the registry does what was asked, its answer is lost
  cut-reply       half of the answer's body (of its head, when it has none) arrives, then the connection ends
  short-reply     half of the body, under a Content-Length that agrees with it
  corrupt-reply   one bit of the answer's body is another one
  corrupt-request one bit of the request's body is another one
  stall           the answer comes after a second
  silence         no answer ever comes
  429 429-late 500 503 408   that status without asking the registry; 429 says Retry-After: 0, 429-late a second; 500 is HTML
  401-bearer      a challenge; its token service is the proxy itself
  401-basic       a challenge that nobody has credentials for
"""
import json
import socket
import threading

FAULTS = ("refuse", "cut-request", "drop-reply", "cut-reply", "short-reply", "corrupt-reply", "corrupt-request", "stall",
          "429", "429-late", "500", "503", "408", "401-bearer", "401-basic")
STATUS = {"429": (429, "Too Many Requests", ["Retry-After: 0"]), "429-late": (429, "Too Many Requests", ["Retry-After: 1"]),
          "500": (500, "Internal Server Error", ["Content-Type: text/html"]), "503": (503, "Service Unavailable", []),
          "408": (408, "Request Timeout", [])}
IO_LIMIT = 60  # seconds, for every read and write


class End(Exception):
    """The peer is gone."""


class Reader:
    def __init__(self, sock):
        self.sock, self.data = sock, b""

    def more(self):
        piece = self.sock.recv(1 << 16)
        if not piece:
            raise End()
        self.data += piece

    def head(self):
        while b"\r\n\r\n" not in self.data:
            self.more()
        head, self.data = self.data.split(b"\r\n\r\n", 1)
        return head.decode("latin-1").split("\r\n")

    def take(self, size):
        while len(self.data) < size:
            self.more()
        piece, self.data = self.data[:size], self.data[size:]
        return piece

    def line(self):
        while b"\r\n" not in self.data:
            self.more()
        line, self.data = self.data.split(b"\r\n", 1)
        return line

    def body(self, headers, answer=False):
        if headers.get("transfer-encoding", "").lower() == "chunked":
            whole = b""
            while True:
                size = int(self.line().split(b";")[0], 16)
                whole += self.take(size)
                self.line()
                if not size:
                    return whole
        if "content-length" in headers:
            return self.take(int(headers["content-length"]))
        if not answer:
            return b""
        whole = b""
        try:
            while True:
                self.more()
        except End:
            whole, self.data = self.data, b""
        return whole


def headers_of(lines):
    return {name.strip().lower(): text.strip() for name, _, text in (line.partition(":") for line in lines[1:])}


def with_length(lines, size):
    kept = [line for line in lines if line.split(":")[0].lower() not in ("content-length", "transfer-encoding", "expect")]
    return ("\r\n".join(kept + ["Content-Length: %d" % size]) + "\r\n\r\n").encode("latin-1")


def flip(body):
    at = len(body) // 2
    return body[:at] + bytes([body[at] ^ 1]) + body[at + 1:]


class Proxy:
    def __init__(self, upstream, fault=None, at=0, always=False):
        self.upstream, self.fault, self.at, self.always = upstream, fault, at, always
        self.seen, self.hit, self.lock, self.open = [], 0, threading.Lock(), True
        self.ended = threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def close(self):
        self.open = False
        self.ended.set()
        self.listener.close()

    def accept(self):
        while self.open:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            sock.settimeout(IO_LIMIT)
            threading.Thread(target=self.serve, args=(sock,), daemon=True).start()

    def serve(self, sock):
        reader = Reader(sock)
        try:
            while self.one(sock, reader):
                pass
        except (End, OSError, ValueError):
            pass
        finally:
            sock.close()

    def number(self, method, path):
        """Which request this is, and the fault that it meets."""
        with self.lock:
            index = len(self.seen)
            self.seen.append([method, path, 0, 0])
            meets = self.fault if index == self.at or (self.always and index >= self.at) else None
            self.hit += meets is not None
        return index, meets

    def one(self, sock, reader):
        lines = reader.head()
        headers = headers_of(lines)
        method, path, _ = lines[0].split(" ", 2)
        if path.startswith("/proxy-token"):
            reader.body(headers)
            text = json.dumps({"token": "given-by-the-proxy", "expires_in": 300}).encode()
            sock.sendall(with_length(["HTTP/1.1 200 OK"], len(text)) + text)
            return True
        index, fault = self.number(method, path)
        if fault == "refuse":
            return False
        if headers.get("expect", "").lower() == "100-continue":
            sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = reader.body(headers)
        self.seen[index][2] = len(body)
        if fault == "silence":
            self.ended.wait(IO_LIMIT)
            return False
        if fault in STATUS or fault in ("401-bearer", "401-basic"):
            return self.answer_itself(sock, fault, method)
        if fault == "corrupt-request" and body:
            body = flip(body)
        with socket.create_connection(("127.0.0.1", self.upstream), timeout=IO_LIMIT) as on:
            head = with_length(lines, len(body))
            if fault == "cut-request":
                on.sendall(head + body[:len(body) // 2])
                return False
            on.sendall(head + body)
            answer = Reader(on)
            reply = answer.head()
            while reply[0].split(" ")[1] == "100":
                reply = answer.head()
            got = headers_of(reply)
            bare = method == "HEAD" or reply[0].split(" ")[1] in ("204", "304")
            text = b"" if bare else answer.body(got, answer=True)
        self.seen[index][3] = len(text)
        return self.pass_on(sock, fault, reply, got, text, bare)

    def answer_itself(self, sock, fault, method):
        if fault in STATUS:
            code, reason, more = STATUS[fault]
        else:
            code, reason = 401, "Unauthorized"
            more = ['WWW-Authenticate: Basic realm="somewhere"'] if fault == "401-basic" else [
                'WWW-Authenticate: Bearer realm="http://127.0.0.1:%d/proxy-token",service="proxy"' % self.port]
        text = b"<html><title>Sorry</title>the proxy says so</html>"
        sock.sendall(with_length(["HTTP/1.1 %d %s" % (code, reason)] + more, len(text)) + (b"" if method == "HEAD" else text))
        return True

    def pass_on(self, sock, fault, reply, got, text, bare):
        if fault == "drop-reply":
            return False
        if fault == "stall":
            self.ended.wait(1)
        if bare:  # its Content-Length is about a body that does not come
            head = ("\r\n".join(reply) + "\r\n\r\n").encode("latin-1")
            sock.sendall(head[:len(head) // 2] if fault == "cut-reply" else head)
            return fault != "cut-reply"
        head = with_length(reply, len(text))
        if fault == "cut-reply":
            sock.sendall(head + text[:len(text) // 2] if text else head[:len(head) // 2])
            return False
        if fault == "short-reply":
            text = text[:len(text) // 2]
            head = with_length(reply, len(text))
        elif fault == "corrupt-reply" and text:
            text = flip(text)
        sock.sendall(head + text)
        return got.get("connection", "").lower() != "close"
