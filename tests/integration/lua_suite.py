#!/usr/bin/env python3
"""The official test suite of Lua 5.4 in a script's VM, and in plain lua5.4 beside it: each file ends alike in both, or fails
at the same line (the suite is that of a later bug-fix release than Debian's Lua). What a script does not have is left out there,
line by line, with its reason. The suite comes with the source package of lupa, a Python binding, which is not built."""
import glob
import os
import re
import subprocess
import sys
import tarfile
import tempfile

MLHOST = os.path.abspath(os.environ["MLHOST"])
PACKAGE, FOLDER = "lupa==2.8", "third-party/lua54/testes/"
VENVS = os.environ.get("MLHOST_VENVS", os.path.expanduser("~/.cache/mlhost"))
FLAGS = "_port, _soft, _nomsg, arg = true, true, true, {}"  # the suite's own: no locales, no hour-long tests

DEBUG = "no debug library: see docs/lua.md"
DUMP = "no string.dump, no byte code"
BASIC = "the metatables of basic types are out of reach"
IO = "no io library, so no userdata of Lua's own"
LOCALE = "no os.setlocale"
PACKAGE_TABLE = "no package table"

# file: { (first line, last line): (why it is left out, what stands there instead) }
LEFT_OUT = {
    "bitwise": {(6, 6): (BASIC, ""), (26, 26): (BASIC, "a = 0xF0; b = 0xCC; c = 0xAA; d = 0xFD"), (72, 97): (BASIC, ""),
                (102, 102): (PACKAGE_TABLE, "local module = function ()"), (210, 210): (PACKAGE_TABLE, "local bit32 = module()")},
    "calls": {(6, 6): (DEBUG, ""), (314, 314): (DEBUG, ""), (331, 332): (DUMP, ""), (335, 342): (DUMP, ""), (345, 352): (DUMP, ""),
              (368, 372): (DUMP, ""), (391, 393): (DUMP, ""), (396, 411): (DUMP, ""), (428, 434): (DUMP, ""), (454, 494): (DUMP, "")},
    "closure": {(239, 280): (DEBUG, "")},
    "constructs": {(6, 6): (DEBUG, "")},
    "coroutine": {(6, 6): (DEBUG, ""), (230, 230): (DEBUG, ""), (238, 238): (DEBUG, "assert(X == 43)"), (349, 355): (DEBUG, ""),
                  (360, 361): (DEBUG, "")},
    "errors": {(6, 6): (DEBUG, "")},
    "events": {(6, 6): (DEBUG, ""), (196, 196): (IO, ""), (452, 479): (BASIC, "")},
    "goto": {(157, 157): (DEBUG, ""), (186, 218): (DEBUG, "")},
    "literals": {(6, 6): (DEBUG, ""), (36, 36): (DEBUG, "', ' .. n, ''))"), (247, 247): (DEBUG, "return"),
                 (252, 252): (DEBUG, "dostring(prog:gsub('return.*', ''))"), (297, 316): (LOCALE, "if false then")},
    "locals": {(6, 6): (DEBUG, ""), (8, 8): (IO, "local tracegc = { start = print, stop = print }"), (72, 80): (DEBUG, ""),
               (82, 82): (DEBUG, ""), (165, 165): (DEBUG, ""), (262, 262): (DEBUG, "")},
    "math": {},
    "nextvar": {(297, 297): (PACKAGE_TABLE, "if not _G[n] and type(v) ~= 'function' and"),
                (364, 364): (IO, "[coroutine.create(print)] = 9,")},
    "pm": {},
    "sort": {},
    "strings": {(171, 172): (IO, "")},
    "tpack": {},
    "utf8": {},
    "vararg": {},
}


def suite():
    """The folder of the suite; fetched once."""
    place = os.path.join(VENVS, "lua-suite", PACKAGE)
    if os.path.exists(os.path.join(place, "all.lua")):
        return place
    with tempfile.TemporaryDirectory() as temp:
        tools = os.path.join(temp, "tools")
        # pip asks a package about itself before it keeps it: this one wants Cython for that, and no LuaJIT to compile.
        for command in (["/usr/bin/python3", "-m", "venv", tools],
                        [tools + "/bin/pip", "install", "-q", "setuptools==80.9.0", "wheel==0.45.1", "Cython==3.1.4"],
                        [tools + "/bin/pip", "download", "-q", "--no-deps", "--no-build-isolation", "--no-binary", ":all:",
                         "-d", temp, PACKAGE]):
            done = subprocess.run(command, env=dict(os.environ, LUPA_NO_LUAJIT="true"), stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, text=True, timeout=400)
            if done.returncode != 0:
                return None
        os.makedirs(place, exist_ok=True)
        with tarfile.open(glob.glob(temp + "/lupa-*.tar.gz")[0]) as archive:
            for member in archive.getmembers():
                _, _, name = member.name.partition(FOLDER)
                if name.endswith(".lua") and "/" not in name:
                    with open(os.path.join(place, name + ".part"), "wb") as out:
                        out.write(archive.extractfile(member).read())
                    os.rename(os.path.join(place, name + ".part"), os.path.join(place, name))
    return place


def edited(path, name):
    """The file without what a script does not have; lines keep their numbers."""
    lines = open(path, "rb").read().split(b"\n")
    for (first, last), (_, instead) in LEFT_OUT[name].items():
        lines[first - 1:last] = [instead.encode()] + [b""] * (last - first)
    return b"\n".join(lines)


def outcome(text, name):
    """ "passed", or the place in the file where it failed. """
    place = re.search(r"(?m)^(?:lua5\.4|  error): (.*)$", text)
    if not place:
        return "passed"
    # where a helper failed, the statement of the main chunk counts: it is the last place in the traceback
    chunk = rf"(?:main chunk|upvalue 'chunk'|local 'chunk'|function <{name}\.lua:0>)"
    lines = re.findall(rf"(?m)^\s+{name}\.lua:(\d+): in {chunk}", text)
    return f"{name}.lua:{lines[-1]}: {place.group(1)}" if lines else place.group(1)


def main():
    place = suite()
    if not place:
        print(f"SKIPPED the Lua suite: {PACKAGE} cannot be had from the package index")
        print("0 passed, 0 failed")
        return
    passed = failed = 0
    with tempfile.TemporaryDirectory() as work:
        script = ['local fs = require "fs"\npipeline "suite" {}']
        for name in LEFT_OUT:
            with open(os.path.join(work, name + ".lua"), "wb") as out:
                out.write(edited(os.path.join(place, name + ".lua"), name))
            script.append(f'stage "{name}" {{ timeout = "120s", run = function() {FLAGS} '
                          f'local chunk, why = load(fs.read "{name}.lua", "@{name}.lua") assert(chunk, why) chunk() end }}')
        with open(os.path.join(work, "ci.lua"), "w", encoding="utf-8") as out:
            out.write("\n".join(script) + "\n")
        run = subprocess.run([MLHOST, "run", "--keep-going", "--output", "plain", "ci.lua"], cwd=work, stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=600)
        blocks = re.split(r"(?m)^stage (\w+): ", run.stdout.decode("utf-8", "replace"))
        ours = {name: "passed" for name in LEFT_OUT}
        ours.update({name: outcome(text, name) for name, text in zip(blocks[1::2], blocks[2::2])})
        for name in LEFT_OUT:
            plain = subprocess.run(["lua5.4", "-e", FLAGS, name + ".lua"], cwd=place, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, timeout=300)
            theirs = outcome(plain.stdout.decode("utf-8", "replace"), name)
            if ours[name] == theirs:
                passed += 1
            else:
                failed += 1
                print(f"FAILED {name}: plain Lua: {theirs}; here: {ours[name]}")
            if os.environ.get("SHOW"):
                print(f"{name}: {theirs} | {ours[name]}")
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed != 0)


if __name__ == "__main__":
    main()
