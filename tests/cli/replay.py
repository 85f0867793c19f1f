#!/usr/bin/env python3
"""mlhost replay, mlhost test --tape, and going on inside a stage that died."""
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

MLHOST = os.environ.get("MLHOST") or sys.exit("MLHOST: the program to try")
PATIENCE = 60
passed = failed = 0


def check(what, ok, seen=None):
    global passed, failed
    if ok:
        passed += 1
    else:
        failed += 1
        print(f"FAILED {what}" + ("" if seen is None else f"\n    seen: {seen}"), flush=True)
    return ok


class Place:
    """A folder with one script, in which the program is run."""

    def __init__(self, script, permissions="{}"):
        self.folder = tempfile.mkdtemp(prefix="mlhost-replay-")
        self.permissions = permissions
        self.write(script)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.folder, ignore_errors=True)

    def write(self, script):
        with open(os.path.join(self.folder, "p.lua"), "w") as out:
            out.write(f'pipeline "p" {{ permissions = {self.permissions} }}{script}')

    def popen(self, *words, env=None):
        return subprocess.Popen([MLHOST, *words], cwd=self.folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True, start_new_session=True, env={**os.environ, **(env or {})})

    def run(self, *words, env=None):
        process = self.popen(*words, env=env)
        out, _ = process.communicate(timeout=PATIENCE)
        return process.returncode, out

    def replay(self, *words):
        """Exit status, outcome and what was printed."""
        status, out = self.run("replay", "latest", *words, "--json")
        lines = [json.loads(line) for line in out.splitlines()]
        said = "".join(line["text"] + "\n" for line in lines if line["t"] in ("output", "log"))
        return status, lines[-1], said

    def newest(self):
        runs = os.path.join(self.folder, ".mlhost/runs")
        return os.path.join(runs, sorted(os.listdir(runs))[-1])

    def files(self):
        """Every byte that the newest run left."""
        return b"".join(open(os.path.join(root, name), "rb").read() for root, _, names in os.walk(self.newest()) for name in names)

    def lines(self, name):
        try:
            return open(os.path.join(self.folder, name)).read().split()
        except FileNotFoundError:
            return []


EVERYTHING = """
local fs, exec, time, json = require "fs", require "exec", require "time", require "json"
local helper = require "helper"
stage "one" {
  run = function(cx)
    local seen = { os.time(), os.date(), os.clock(), time.now() }
    math.randomseed()
    for i = 1, 5 do seen[#seen + 1] = math.random(1, 1 << 40) end
    local map, order = {}, {}
    for i = 1, 100 do map["key" .. math.random(1, 1 << 30)] = i end
    for key in pairs(map) do order[#order + 1] = key end
    seen[#seen + 1] = table.concat(order, " ")
    seen[#seen + 1] = exec({ "date", "+%N" }).out
    local results = parallel(4, { 4, 1, 3, 2, 5, 0 }, function(n)
      exec { "sleep", tostring(n / 20) }
      return exec({ "date", "+%N" }).out .. os.clock()
    end)
    for _, result in ipairs(results) do seen[#seen + 1] = result end
    local big = exec({ "seq", "60000" }).out
    seen[#seen + 1] = #big
    seen[#seen + 1] = helper.twice(21)
    local value, err = try(fs.read, "missing.txt")
    seen[#seen + 1] = err.code
    fs.write(cx.out "x.txt", big)
    local text = json.encode(seen)
    print(text)
    return { text = text, at = os.time() }
  end,
}
stage "two" { needs = { "one" }, run = function(cx) return { length = #cx.needs.one.text, attempt = cx.attempt } end,
  always = function(cx) print("always after " .. cx.status) end }
stage "skipped" { when = function() return false, "not today" end, run = function() end }
"""


def the_same_again():
    with Place(EVERYTHING, '{ exec = { "date", "sleep", "seq" } }') as place:
        with open(os.path.join(place.folder, "helper.lua"), "w") as out:
            out.write("return { twice = function(n) return 2 * n end }\n")
        status, out = place.run("run", "p.lua", "--quiet")
        check("it runs", status == 0, out)
        for name in ("one", "two", "skipped"):
            status, end, said = place.replay(name)
            check(f"{name} comes to the same", status == 0 and end["outcome"] == "same", end)
        status, end, said = place.replay("one")
        check("clock, random numbers, order of tables, commands, branches: the same text", end["now"]["ok"]["text"] in said)
        check("large answers stand apart, once", any(len(name) == 64 for name in os.listdir(place.newest() + "/blobs")))
        tape = place.newest() + "/stages/one/tape-1"
        check("the tape is its owner's", os.stat(tape).st_mode & 0o777 == 0o600)
        status, end, said = place.replay("two", "--try", "always")
        check("an always block too", status == 0 and "always after ok" in said, (end, said))
        os.remove(os.path.join(place.newest(), "stages/one/out/x.txt"))
        place.replay("one")
        check("nothing is done", not os.path.exists(os.path.join(place.newest(), "stages/one/out/x.txt")))
        status, out = place.run("replay", "latest", "one", "--list")
        check("--list shows the calls, with place and answer", status == 0 and re.search(r"p\.lua:\d+ +exec\.run", out)
              and "error not_found" in out, out)
        status, out = place.run("replay", "latest")
        check("several stages: it asks which", status == 2 and "one (try 1)" in out, out)
        status, out = place.run("replay", "latest", "tow")
        check("an unknown stage: what there is", status == 2 and "two (try 1)" in out, out)
        saved_and_tested(place)


def saved_and_tested(place):
    status, out = place.run("replay", "latest", "--save", "tapes/good")
    check("a run can be kept", status == 0, out)
    status, out = place.run("test", "--tape", "tapes/good")
    check("and is a test: a case for each stage and always block", status == 0 and "4 passed, 0 failed" in out, out)
    kept = b"".join(open(os.path.join(root, name), "rb").read() for root, _, names in os.walk(place.folder + "/tapes")
                    for name in names)
    check("without the paths of this machine", place.folder.encode() not in kept)
    elsewhere = place.folder + "-moved"
    os.rename(place.folder, elsewhere)
    place.folder = elsewhere
    status, out = place.run("test", "--tape", "tapes/good")
    check("and works in another folder", status == 0 and "4 passed, 0 failed" in out, out)
    status, out = place.run("replay", "latest", "--save", "tapes/good")
    check("an older one is not overwritten", status != 0 and "there already" in out, out)
    with open(os.path.join(place.folder, "helper.lua"), "w") as out:
        out.write("return { twice = function(n) return 3 * n end }\n")
    status, out = place.run("test", "--tape", "tapes/good", "--junit", "junit.xml")
    check("a changed module fails it", status == 1 and "FAILED" in out and "one" in out, out)
    check("in JUnit too", "<failure" in open(os.path.join(place.folder, "junit.xml")).read())


CHANGING = """
local fs, exec = require "fs", require "exec"
stage "s" { run = function(cx)
  print("hello")
  local a = exec { "echo", "a" }.out
  local b = exec { "echo", "b" }.out
  return a .. b
end }
"""


def changed_scripts():
    with Place(CHANGING, '{ exec = { "echo" } }') as place:
        check("it runs", place.run("run", "p.lua", "-q")[0] == 0)
        place.write(CHANGING.replace('print("hello")', 'print("hello") log.info("more")'))
        status, end, said = place.replay()
        check("another print is no difference", status == 0 and "more" in said, (end, said))
        place.write(CHANGING.replace('"echo", "b"', '"echo", "c"'))
        status, end, _ = place.replay()
        check("another argument is: both sides are shown", status == 1 and end["outcome"] == "diverged" and end["told"] == 1
              and end["where"]["asked"]["args"]["argv"] == ["echo", "c"] and end["where"]["held"]["args"]["argv"] == ["echo", "b"]
              and end["where"]["asked"]["at"] == "p.lua:6", end)
        place.write(CHANGING.replace("return a .. b", 'return exec { "echo", "d" }.out'))
        status, end, _ = place.replay()
        check("so is one call more", status == 1 and end["outcome"] == "diverged" and "held" not in end["where"], end)
        place.write(CHANGING.replace("return a .. b", "return b .. a"))
        status, end, _ = place.replay()
        check("so is another end", status == 1 and end["outcome"] == "differs", end)
        place.write(CHANGING.replace("local b", "while true do end local b"))
        status, end, _ = place.replay("--timeout", "300ms")
        check("a script that loops now is stuck, and where is said", status == 1 and end["outcome"] == "stuck"
              and end["now"]["error"]["line"] == 6, end)
        place.write(CHANGING.replace('local b = exec { "echo", "b" }.out', 'local b = require("fs").read "/etc/hostname"'))
        status, end, _ = place.replay()
        check("a changed script gets nothing from outside", status == 1 and end["outcome"] == "diverged", end)


FAILING = """
local exec = require "exec"
stage "s" { retry = 1, run = function(cx)
  local function inner(x) error("attempt " .. cx.attempt .. " of " .. x) end
  inner(exec { "echo", "thing" }.out)
end }
"""


def failed_stages():
    with Place(FAILING, '{ exec = { "echo" } }') as place:
        check("it fails", place.run("run", "p.lua", "-q")[0] == 1)
        status, end, _ = place.replay()
        check("as it did: same error, same line", status == 0 and "attempt 2 of thing" in end["now"]["error"]["message"]
              and end["now"]["error"]["line"] == 4, end)
        status, end, _ = place.replay("--try", "1")
        check("each try has its tape", status == 0 and "attempt 1 of thing" in end["now"]["error"]["message"], end)
    with Place('\nstage "s" { timeout = "300ms", run = function() require("time").now() while true do end end }') as place:
        check("it times out", place.run("run", "p.lua", "-q")[0] == 3)
        status, end, _ = place.replay("--timeout", "500ms")
        check("a stage that computed beyond its time is shown where it was", status == 0 and end["now"]["error"]["line"] == 2, end)
    with Place('\nstage "s" { run = function() end }') as place:
        check("it runs", place.run("run", "p.lua", "-q", "--no-tape")[0] == 0)
        status, out = place.run("replay", "latest", "s")
        check("--no-tape: it says so", status == 2 and "not recorded" in out, out)
    with Place('\nstage "s" { run = function() require("time").now() end }') as place:
        place.run("run", "p.lua", "-q")
        tape = place.newest() + "/stages/s/tape-1"
        whole = open(tape, "rb").read()
        for cut in range(len(whole)):
            open(tape, "wb").write(whole[:cut])
            status, out = place.run("replay", "latest", "s")
            if not status in (0, 1, 2) or "Sanitizer" in out:
                check(f"a tape cut at byte {cut}", False, (status, out))
                break
        else:
            check("a tape that is cut anywhere", True)
        for at in range(0, len(whole), 3):
            open(tape, "wb").write(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1:])
            status, out = place.run("replay", "latest", "s", "--timeout", "1s")
            if not status in (0, 1, 2, 3) or "Sanitizer" in out:
                check(f"a tape changed at byte {at}", False, (status, out))
                break
        else:
            check("a tape that is changed anywhere", True)


def stops_in_the_debugger():
    with Place(CHANGING, '{ exec = { "echo" } }') as place:
        check("it runs", place.run("run", "p.lua", "-q")[0] == 0)

        def session(commands, *words):
            done = subprocess.run([MLHOST, "replay", "latest", *words], cwd=place.folder, input=commands, text=True, timeout=PATIENCE,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, "CI": "", "TF_BUILD": ""})
            return done.returncode, done.stdout

        status, out = session("a\nb\n:continue\n", "--until", "p.lua:6")
        check("--until stops at a line, with what is known there", status == 0 and "p.lua:6" in out and "nil" in out
              and '"a\\n"' in out and "same: 2 calls" in out, (status, out))
        status, out = session('a\nrequire("exec") { "echo", "x" }\n:continue\n', "--at", "2")
        check("--at stops before a call", "call 2" in out and '"a\\n"' in out, out)
        check("what is typed there has no effects", "a replay has no effects" in out and status == 0, out)
        status, out = session('a = "other"\n:continue\n', "--at", "2")
        check("what is changed there changes the end", status == 1 and "differs" in out, out)
        for words, wanted in ((("--until", "p.lua"), "FILE:LINE"), (("--at", "x"), "number of a call")):
            status, out = session("", *words)
            check(f"{words} is refused", status == 2 and wanted in out, out)
        place.write(CHANGING.replace("return a .. b", "error(a)"))
        status, out = session(":locals\n:continue\n", "--debug")
        check("--debug stops at an error", "b = " in out and "error at p.lua:7" in out, out)


SECRETS = """
local secret, exec, json = require "secret", require "exec", require "json"
stage "s" { run = function()
  local h = secret.get "CANARY"
  local made = secret.format("Bearer %s", h)
  local out = exec { "sh", "-c", "printf %s \\"$T\\" | tee /dev/stderr | base64; echo done", env = { T = made } }
  return { #out.out > 0 }
end }
"""


def secrets_stay():
    canary = "k4n4ry-8f3a91c2d7"
    with Place(SECRETS, '{ exec = { "sh" }, env = { "CANARY" } }') as place:
        status, out = place.run("run", "p.lua", env={"CANARY": canary})
        check("it runs", status == 0, out)
        check("no secret on the tape", canary.encode() not in place.files() and b"Bearer" in place.files())
        status, end, _ = place.replay()
        check("and it replays without", status == 0, end)


# Each step leaves a line in the log of effects, which is outside of what is resumed.
STEPS = """
local exec, fs = require "exec", require "fs"
local function name(i) return "step" .. i end
stage "before" { run = function() exec { "sh", "-c", "echo before >> effects" } return 1 end }
stage "s" { needs = { "before" }, run = function(cx)
  local got, more = {}
  for i = 1, 6 do
    got[i] = exec({ "sh", "-c", "echo " .. name(i) .. " >> effects; echo " .. i .. "-$$" }).out
    if i == 3 then
      local both = parallel(2, { "x", "y" }, function(n)
        return exec({ "sh", "-c", "echo " .. n .. " >> effects; echo " .. n .. "-$$" }).out
      end)
      more = table.concat(both, ",")
      fs.write(cx.out "ready", "")
      while fs.exists "wait" do sleep "50ms" end
    end
  end
  print("random", math.random(1, 1 << 50))
  return { list = got, more = more }
end }
stage "after" { needs = { "s" }, run = function(cx) exec { "sh", "-c", "echo after >> effects" } return cx.needs.s end }
"""


def kill_tree(pid):
    """The host, its brokers, VMs and commands, at once, as a machine that stops does."""
    pids = [pid]
    for one in pids:
        try:
            for task in os.listdir(f"/proc/{one}/task"):
                pids += [int(p) for p in open(f"/proc/{one}/task/{task}/children").read().split()]
        except FileNotFoundError:
            pass
    for one in pids:
        try:
            os.kill(one, signal.SIGSTOP)
        except ProcessLookupError:
            pass
    for one in pids:
        try:
            os.kill(one, signal.SIGKILL)
        except ProcessLookupError:
            pass


def until(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("waited in vain")
        time.sleep(0.01)


def dies_in_the_middle(place, times=1, prepare=None):
    open(place.folder + "/wait", "w").close()
    for i in range(times):
        words = ("run", "p.lua") if i == 0 else ("run", "--resume")
        process = place.popen(*words)
        ready = lambda: os.path.exists(os.path.join(place.newest(), "stages/s/out/ready"))
        until(lambda: os.path.isdir(place.folder + "/.mlhost/runs") and os.listdir(place.folder + "/.mlhost/runs") and ready())
        time.sleep(0.3 if i else 0.05)
        kill_tree(process.pid)
        process.communicate()
    os.remove(place.folder + "/wait")
    if prepare:
        prepare()
    return place.run("run", "--resume")


def goes_on_inside():
    permissions = '{ exec = { "sh" }, write = { "." } }'
    whole = ["before", "step1", "step2", "step3", "x", "y", "step4", "step5", "step6", "after"]
    with Place(STEPS, permissions) as place:
        status, out = dies_in_the_middle(place)
        check("a run that was killed goes on", status == 0, out)
        check("no step is made twice", sorted(place.lines("effects")) == sorted(whole), place.lines("effects"))
        status, end, _ = place.replay("s")
        check("what went on is on a tape of its own, whole", status == 0 and end["outcome"] == "same", end)
    with Place(STEPS, permissions) as place:
        status, out = dies_in_the_middle(place, times=3)
        check("killed three times", status == 0, out)
        check("still no step is made twice", sorted(place.lines("effects")) == sorted(whole), place.lines("effects"))
    with Place(STEPS, permissions) as place:
        change = lambda: place.write(STEPS.replace('return "step" .. i', 'return i == 5 and "five" or "step" .. i'))
        status, out = dies_in_the_middle(place, prepare=change)
        check("a change after the place where it died", status == 0 and place.lines("effects").count("step1") == 1
              and "five" in place.lines("effects"), (out, place.lines("effects")))
    with Place(STEPS, permissions) as place:
        change = lambda: place.write(STEPS.replace('return "step" .. i', 'return i == 2 and "two" or "step" .. i'))
        status, out = dies_in_the_middle(place, prepare=change)
        effects = place.lines("effects")
        check("a change before it: from there on all is made", status == 0 and effects.count("step1") == 1
              and effects.count("two") == 1 and effects.count("step3") == 2, (out, effects))
    with Place(STEPS.replace("local got, more = {}", "local got, more = {} defer(function() exec { 'sh', '-c', 'echo tidy >> effects' } end)"),
               permissions) as place:
        # Only the host dies: its stage hears of that, and tidies up. It must then begin anew.
        open(place.folder + "/wait", "w").close()
        process = place.popen("run", "p.lua")
        until(lambda: "step3" in place.lines("effects") and os.path.exists(os.path.join(place.newest(), "stages/s/out/ready")))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        until(lambda: "tidy" in place.lines("effects"))
        os.remove(place.folder + "/wait")
        status, out = place.run("run", "--resume")
        check("a stage that had tidied up begins anew", status == 0 and place.lines("effects").count("step1") == 2
              and place.lines("effects").count("before") == 1, (out, place.lines("effects")))


HANDLES = """
local exec, secret = require "exec", require "secret"
stage "s" { run = function(cx)
  local h = secret.get "CANARY"
  exec { "sh", "-c", "echo one >> effects" }
  local fs = require "fs"
  fs.write(cx.out "ready", "")
  while fs.exists "wait" do sleep "50ms" end
  return exec({ "sh", "-c", "printf %s \\"$T\\" | wc -c; echo two >> effects", env = { T = h } }).out
end }
"""


def handles_are_made_again():
    with Place(HANDLES, '{ exec = { "sh" }, write = { "." }, env = { "CANARY" } }') as place:
        os.environ["CANARY"] = "k4n4ry-0123456789"
        status, out = dies_in_the_middle(place)
        check("a secret of the one who died is had again", status == 0 and place.lines("effects") == ["one", "two"],
              (out, place.lines("effects")))
        check("with its value", '"output":"17\\n"' in open(place.newest() + "/journal.jsonl").read())
        del os.environ["CANARY"]


for test in (the_same_again, changed_scripts, failed_stages, stops_in_the_debugger, secrets_stay, goes_on_inside, handles_are_made_again):
    if sys.argv[1:] and test.__name__ not in sys.argv[1:]:
        continue
    try:
        test()
    except Exception as error:  # the others are to be tried
        check(f"{test.__name__}: {type(error).__name__}: {error}", False)
print(f"{passed} passed, {failed} failed")
sys.exit(failed > 0)
