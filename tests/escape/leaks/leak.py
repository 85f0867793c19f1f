"""A command that has a secret and prints it in every way that occurs in practice. usage: leak.py WAY, the secret in SECRET."""
import base64
import html
import json
import os
import re
import shlex
import sys
import time
import urllib.parse

secret = os.environb[b"SECRET"]
text = secret.decode()


def out(data, to=1):
    while data:
        data = data[os.write(to, data):]


def line(label, data):
    out(label.encode() + b": " + (data if isinstance(data, bytes) else data.encode()) + b"\n")


def encodings():
    line("raw", secret)
    line("twice", secret + secret)
    line("inside", b"<a href=\"https://user:" + secret + b"@host/\">")
    for before in range(3):
        for code in (base64.b64encode, base64.urlsafe_b64encode):
            line("base64", code(b"abc"[:before] + secret + b"xyz"[:before]))
    line("base64 lines", base64.encodebytes(b"user:" + secret * 3))
    quoted = urllib.parse.quote(text, safe="")
    line("url", quoted)
    line("url lower", re.sub("%..", lambda m: m[0].lower(), quoted))
    line("url form", urllib.parse.quote_plus(text))
    line("url path", urllib.parse.quote(text))
    line("json", json.dumps({"k": text}))
    line("json utf-8", json.dumps({"k": text}, ensure_ascii=False).replace("/", "\\/"))
    line("json \\u", "".join("\\u%04x" % ord(c) if ord(c) < 0x10000 else c for c in text))
    line("json in json", json.dumps(json.dumps({"k": text})))
    line("python", repr(text))
    line("python bytes", repr(secret))
    line("shell", shlex.quote(text))
    line("html", html.escape(text))
    line("xml numbers", "".join("&#%d;" % ord(c) for c in text))
    line("hex", secret.hex())
    line("HEX", secret.hex(":").upper())
    line("hex words", secret.hex(" "))
    line("C", "".join("\\x%02x" % b for b in secret))
    line("octal", "".join("\\%03o" % b for b in secret))
    line("coloured", b"".join(b"\x1b[01;31m\x1b[K%c\x1b[m" % b for b in secret))


def pieces():
    for byte in b"one at a time " + secret + b" done\n":
        out(bytes([byte]))
        time.sleep(0.0005)
    for cut in range(1, len(secret), 3):
        out(b"cut " + secret[:cut])
        out(b"errors, between ", 2)
        time.sleep(0.0005)
        out(secret[cut:] + b" done\n")
        out(secret[:cut], 2)
        time.sleep(0.0005)
        out(secret[cut:] + b"\n", 2)


def long_line():
    for before in (65530, 65536 - len(secret) // 2, 262144 - 3):
        out(b"x" * before + secret + b"y" * 10 + b"\n")
    out(b"\0before " + secret + b"\0after\n")
    out(b"\r" + secret + b"\rback\n")


def half():
    out(b"it begins " + secret[:len(secret) * 2 // 3])


def fail():
    out(b"z" * 5000 + secret, 2)
    out(b"." * (1000 - len(secret) // 2), 2)
    sys.exit(3)


def junit():
    escaped = html.escape(text)
    with open(sys.argv[2], "w") as f:
        f.write(f"<testsuite name=\"{escaped}\"><testcase name=\"c\"><failure message=\"{escaped}\">{escaped}"
                f"</failure></testcase></testsuite>")


{"encodings": encodings, "pieces": pieces, "long": long_line, "half": half, "fail": fail, "junit": junit}[sys.argv[1]]()
