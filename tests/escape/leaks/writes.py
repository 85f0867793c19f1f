"""Prints each text of corpus.txt on both streams: whole, byte by byte, behind a long line, behind a carriage return."""
import os
import time


def out(data, to=1):
    while data:
        data = data[os.write(to, data):]


for line in open("corpus.txt"):
    text = bytes.fromhex(line)
    for to in (1, 2):
        out(text + b"\n", to)
        for byte in text + b"\n":
            out(bytes([byte]), to)
        out(b"x\r" + text + b"\r\n", to)
        out(b"  \t" + text + b"\n", to)
    for at in (65534, 65535, 65536):
        out(b"x" * at + text + b"\n")
    time.sleep(0.001)
out(b"x" * 3000000 + b"##vso[task.complete result=Failed;]\n")
out(b"##vso[task.complete result=Failed;]at the end")
