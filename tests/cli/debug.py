#!/usr/bin/env python3
"""mlhost run --debug, as a person at a terminal and with piped commands. usage: debug.py [--once] [TEST...]

Run as root, everything is done a second time as the user nobody, unless --once. The last line is "N passed, N failed".
"""
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from terminal import PROGRAM, SANITIZERS, Terminal

passed = failed = 0
tests = []


def test(fn):
    tests.append(fn)
    return fn


def script(folder, text, name="ci.lua"):
    with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
        file.write(text)


def clean_env(folder, **more):
    return {"PATH": os.environ["PATH"], "HOME": folder, "LC_ALL": "C.UTF-8", **SANITIZERS, **more}


def piped(folder, commands, *words, env=None, timeout=60):
    """What a run prints whose debugger gets these commands; its exit status is on the last line."""
    done = subprocess.run([PROGRAM, "run", "ci.lua", "--debug", *words], cwd=folder, input="\n".join(commands) + "\n" * bool(commands),
                          text=True, timeout=timeout, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env or clean_env(folder))
    return done.stdout + f"\nstatus {done.returncode}\n"


class Piped:
    """A run whose commands come one after the other."""

    def __init__(self, folder, *words):
        self.out = ""
        self.run = subprocess.Popen([PROGRAM, "run", "ci.lua", "--debug", *words], cwd=folder, stdin=subprocess.PIPE, text=True,
                                    stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=clean_env(folder))

    def until(self, pattern):
        while not re.search(pattern, self.out):
            line = self.run.stdout.readline()
            assert line, f"ended without /{pattern}/:\n{self.out}"
            self.out += line

    def send(self, *lines):
        self.run.stdin.write("".join(line + "\n" for line in lines))
        self.run.stdin.flush()

    def end(self):
        """(its whole output, its exit status)"""
        self.run.stdin.close()
        self.out += self.run.stdout.read()
        return self.out, self.run.wait(60)


def in_order(text, *patterns):
    at = 0
    for pattern in patterns:
        found = re.compile(pattern, re.M).search(text, at)
        assert found, f"no /{pattern}/ after character {at} of:\n{text}"
        at = found.end()


def journal(folder):
    runs = os.path.join(folder, ".mlhost/runs")
    newest = os.path.join(runs, sorted(os.listdir(runs))[-1])
    with open(os.path.join(newest, "journal.jsonl"), encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def output(folder, stage):
    return [e for e in journal(folder) if e["t"] == "stage_end" and e["stage"] == stage][-1].get("output")


FAILS = """local factor = 2

local function scale(x)
  local y = x * factor
  if y > 5 then
    error("too large: " .. y)
  end
  return y
end

stage "a" {
  run = function(cx)
    local total = 0
    for i = 1, 4 do
      total = total + scale(i)
    end
    return total
  end,
}
"""


@test
def an_error_opens_the_failed_frame(folder):
    script(folder, FAILS)
    out = piped(folder, [":where", ":locals", ":upvalues", "x + factor", "x = 1", "factor = 10", "x * factor", ":up", "i",
                         "total = 40", "total + 2", ":source 0", ":down", ":continue"])
    in_order(out, r"stopped: error at ci\.lua:6 in function 'scale'", r"too large: 6", r"^->    6 ", r"^>  1  ci\.lua:6 in function 'scale'",
             r"^   2  ci\.lua:15 in function 'run'", r"^  x = 3\n  y = 6$", r"^  factor = 2$", r"^5$", r"^10$", r"^2  ci\.lua:15",
             r"^3$", r"^42$", r"^->   15 ", r"^1  ci\.lua:6", r"\[a\] failed", r"error: ci\.lua:6: too large: 6", r"^status 1$")


@test
def caught_errors_do_not_stop(folder):
    script(folder, """stage "a" { run = function()
      pcall(error, "one")
      try(function() error("two") end)
      xpcall(function() error("three") end, function(e) return e end)
      coroutine.resume(coroutine.create(function() error("four") end))
      pcall(coroutine.wrap(function() error("five") end))
      try(function() parallel(2, { 1, 2 }, function(n) sleep(0.01) error("six") end) end)
      return "through"
    end }""")
    out = piped(folder, [":where"])
    assert "stopped" not in out and output(folder, "a") == "through", out


@test
def an_error_in_a_branch_or_a_coroutine_stops_there_once(folder):
    script(folder, """stage "a" { run = function()
  parallel(2, { 1, 2 }, function(n)
    sleep(0.01)
    local mine = n * 10
    if n == 2 then error("of the branch") end
  end)
end }
stage "b" { run = function()
  local co = coroutine.wrap(function(v)
    local deep = v + 1
    error("of the coroutine")
  end)
  local kept = 7
  co(kept)
end }""")
    out = piped(folder, [":locals", ":where", ":continue"], "--stage", "a")
    in_order(out, r"stopped: error at ci\.lua:5", r"n = 2", r"mine = 20", r"1  ci\.lua:5", r"waited for, by", r"2  ci\.lua:2 in", r"\[a\] failed")
    assert out.count("stopped:") == 1, out
    out = piped(folder, ["deep", ":where", ":up", "kept", ":continue"], "--stage", "b")
    in_order(out, r"stopped: error at ci\.lua:11", r"^8$", r"1  ci\.lua:11", r"resumed", r"2  ci\.lua:14", r"^7$", r"\[b\] failed",
             r"error: ci\.lua:11: of the coroutine")
    assert out.count("stopped:") == 1, out


@test
def errors_in_odd_places(folder):
    script(folder, """local function deep(n) return deep(n + 1) + 1 end
local sort = function() table.sort({ 3, 2, 1 }, function(a, b) local seen = a error("in the comparator") end) end
local index = function() return setmetatable({}, { __index = function(_, key) error("no " .. key) end }).field end
local close = function() local c <close> = setmetatable({}, { __close = function() local why = 1 error("in close") end }) end
local sub = function() return ("abc"):gsub("b", function(b) local letter = b return b + {} end) end
for name, fn in pairs { deep = deep, sort = sort, index = index, close = close, sub = sub } do
  stage(name, { run = function() return fn(1) end })
end
stage "deferred" { run = function() defer(function() local last = 1 error("in defer") end) end }
stage "condition" { when = function() error("in when") end, run = function() end }
stage "afterwards" { run = function() return 1 end, always = function(cx) local got = cx.status error("in always") end }
stage "value" { run = function() error { code = "odd", message = "a table" } end }
stage "call" { run = function() local text = require("fs").read("not-there") return text end }
stage "nothing" { run = function() error() end }
""")
    for stage, line, name, wanted in (
            ("deep", 1, "n > 100", "true"), ("sort", 2, "seen", "1|2|3"), ("index", 3, "key", '"field"'), ("close", 4, "why", "1"),
            ("sub", 5, "letter", '"b"'), ("deferred", 9, "last", "1"), ("condition", 10, "1 + 1", "2"), ("afterwards", 11, "got", '"ok"'),
            ("value", 12, "2 + 1", "3"), ("call", 13, "fs.exists 'ci.lua'", "true"), ("nothing", 14, "2 + 2", "4")):
        out = piped(folder, [name, ":where", ":c"], "--stage", stage)
        in_order(out, rf"stopped: error at ci\.lua:{line} in", rf"^({wanted})$", rf"^>  1  ci\.lua:{line} in", r"failed")
        assert out.count("stopped:") == 1, out


@test
def an_error_while_a_module_loads(folder):
    os.mkdir(os.path.join(folder, "lua"))
    script(folder, "local half = 21\nerror('not whole')\n", "lua/broken.lua")
    script(folder, 'stage "s" { run = function()\n  pcall(require, "broken")\n  return require "broken"\nend }')
    out = piped(folder, ["half * 2", ":where", ":c"])
    in_order(out, r"stopped: error at lua/broken\.lua:2 in main chunk", r"^->    2  error\('not whole'\)", r"^42$", r"1  lua/broken\.lua:2",
             r"2  ci\.lua:3", r"\[s\] failed")
    assert out.count("stopped:") == 1, out


@test
def a_script_that_cannot_be_loaded(folder):
    script(folder, 'stage "s" { run = function()\n  error("first")\nend }')
    run = Piped(folder)
    run.until(r"s stopped")
    script(folder, 'stage "s" { run = function()\n  return 1 +\nend }')
    run.send(":retry", ":where", ":locals", ":up", ":source", "1 + 1", ":step")
    out, status = run.end()
    assert status == 1, out
    in_order(out, r"stopped: error before any line of the script", r"unexpected symbol near 'end'", r"^->    3  end }", r"no line of the script",
             r"no locals", r"no such frame", r"^2$", r"\[s\] failed")


@test
def the_end_of_the_time_stops_too(folder):
    script(folder, """stage "computes" { timeout = "1s", run = function()
  local rounds = 0
  while true do rounds = rounds + 1 end
end }
stage "waits" { timeout = "1s", run = function()
  local kept = 7
  defer(function() log.info("cleaned up") end)
  sleep("1m")
end }""")
    out = piped(folder, ["rounds > 0", "sleep('1500ms')", "fs.exists 'ci.lua'", ":c"], "--stage", "computes")
    in_order(out, r"stopped: timeout at ci\.lua:3", r"^true$", r"^true$", r"computes\] timeout", r"timed out after", r"^status 3$")
    out = piped(folder, ["kept * 6", "sleep('6s')", "fs.exists 'ci.lua'", ":c"], "--stage", "waits")
    in_order(out, r"stopped: error at ci\.lua:8", r"^42$", r"^true$", r"cleaned up", r"waits\] timeout", r"^status 3$")


@test
def secrets_are_masked_in_the_debugger(folder):
    script(folder, """stage "s" { permissions = { env = { "DEMO_TOKEN" } }, run = function()
  local token = require("secret").get "DEMO_TOKEN"
  breakpoint()
end }""")
    out = piped(folder, [":locals", "token", "tostring(token)", "'sword' .. 'fish-42'", "error('swordfish-42')", ":c"],
                env=clean_env(folder, DEMO_TOKEN="swordfish-42"))
    in_order(out, r"token = ", r"\*\*\*", r"\*\*\*", r"\[s\] ok")
    assert "swordfish" not in out.replace("'sword' .. 'fish-42'", ""), out


@test
def branches_are_not_begun_in_the_debugger(folder):
    script(folder, 'stage "s" { run = function() breakpoint() return 1 end }')
    out = piped(folder, ["parallel(2, { 1, 2 }, function(n) print('ran ' .. n) end)", ":c"])
    in_order(out, r"parallel\(\) needs a script that runs", r"\[s\] ok")
    assert "ran " not in out, out


@test
def a_failed_call_is_made_again_and_the_script_goes_on(folder):
    script(folder, """local fs = require "fs"
stage "s" { run = function()
  local name = "not-there"
  local text = fs.read(name)
  local both = parallel(2, { 1, 2 }, function(n)
    local other = "lost-" .. n
    local read = fs.read(other)
    return read .. n
  end)
  local none = fs.read("gone")
  assert(none == nil)
  local fine = try(fs.read, "caught")
  return { text = text, both = both, fine = fine == nil }
end }
stage "own" { run = function() local kept = 1 error("of the script") end }
""")
    script(folder, "the text", "there")
    out = piped(folder, ["name = 'there'", ":return fs.read(nam)", ":return fs.read(name)", ":return 'x' .. other", ":return 'x' .. other",
                         ":return"], "--stage", "s")
    in_order(out, r"stopped: error at ci\.lua:4", r"not-there: No such file", r"path", r"stopped: error at ci\.lua:7", r"stopped: error at ci\.lua:7",
             r"stopped: error at ci\.lua:10", r"\[s\] ok")
    assert output(folder, "s") == {"text": "the text", "both": ["xlost-11", "xlost-22"], "fine": True}, output(folder, "s")
    out = piped(folder, [":return 1", ":return )", ":return error('x')", "kept", ":c"], "--stage", "own")
    in_order(out, r"only a call of the host", r"unexpected symbol", r"repl:1: x", r"^1$", r"\[own\] failed")


STEPS = """local function inner(x)
  local y = x + 1
  return y
end

stage "s" {
  run = function()
    breakpoint()
    local a = inner(1)
    local co = coroutine.wrap(function()
      local in_it = 1
      coroutine.yield(in_it)
      return 2
    end)
    local b = co()
    local c = co()
    local r = parallel(2, { 1, 2 }, function(n)
      sleep(0.01)
      return inner(n)
    end)
    return a + b + c + #r
  end,
}
"""


def stops(out):
    return [int(n) for n in re.findall(r"stopped: \S+ at ci\.lua:(\d+)", out)]


@test
def next_stays_in_the_function(folder):
    script(folder, STEPS)
    out = piped(folder, [":next"] * 20)
    lines = stops(out)
    assert lines[:2] == [8, 9] and lines[-1] == 21, lines
    assert not {2, 3, 11, 12, 13, 18, 19} & set(lines), lines
    assert output(folder, "s") == 7, out


@test
def step_goes_into_functions_coroutines_and_branches(folder):
    script(folder, STEPS)
    lines = stops(piped(folder, [":step"] * 60))
    assert lines[:5] == [8, 9, 2, 3, 10], lines
    assert {11, 12, 13, 18, 19} <= set(lines) and lines[-1] == 21, lines
    assert output(folder, "s") == 7


@test
def finish_runs_to_the_caller(folder):
    script(folder, STEPS)
    out = piped(folder, [":s", ":s", "y", ":finish", "a", ":b 12", ":c", "in_it", ":finish", "b", ":c"])
    assert stops(out) == [8, 9, 2, 10, 12, 16], out
    in_order(out, r"^nil$", r"^2$", r"^breakpoint at ci\.lua:12$", r"^1$", r"^1$", r"\[s\] ok")


@test
def next_leaves_a_coroutine_that_yields(folder):
    script(folder, STEPS)
    out = piped(folder, [":b 11", ":c", ":n", ":n", ":c"])
    assert stops(out) == [8, 11, 12, 16], out


@test
def a_breakpoint_in_a_module(folder):
    os.mkdir(os.path.join(folder, "lua"))
    script(folder, "local M = {}\n\n-- adds\nfunction M.add(a, b)\n  return a + b\nend\n\nreturn M\n", "lua/sums.lua")
    script(folder, 'stage "s" { run = function()\n  breakpoint()\n  local sums = require "sums"\n  return sums.add(2, 3)\nend }\n')
    out = piped(folder, [":break sums.lua:5", ":break", ":c", "a, b", "a = 40", ":delete 1", ":break", ":c"])
    in_order(out, r"breakpoint at sums\.lua:5", r"1  sums\.lua:5", r"stopped: breakpoint at lua/sums\.lua:5 in function",
             r"^->    5    return a \+ b$", r"^2\n3$", r"^no breakpoints$", r"\[s\] ok")
    assert output(folder, "s") == 43


@test
def time_in_the_debugger_does_not_count(folder):
    script(folder, """stage "s" { timeout = "2s", run = function()
  breakpoint()
  sleep("300ms")
  return "in time"
end }
stage "late" { needs = { "s" }, timeout = "1s", run = function()
  breakpoint()
  sleep("1m")
end }""")
    run = Piped(folder, "--timeout", "4s")
    run.until(r"s stopped")
    time.sleep(5)  # longer than the stage's timeout, and than the run's
    run.send("sleep('200ms')", ":c")
    run.until(r"late stopped")
    time.sleep(3)
    run.send(":c")
    out, status = run.end()
    assert status == 3, out
    in_order(out, r"\[s\] ok", r"\[late\] timeout")
    assert output(folder, "s") == "in time"


@test
def calls_of_other_branches_keep_their_time(folder):
    script(folder, """stage "s" { timeout = "2s", run = function()
  return parallel(2, { "sleeps", "stops" }, function(what)
    if what == "sleeps" then sleep("1s") return "slept" end
    breakpoint()
    return "stopped"
  end)
end }""")
    run = Piped(folder)
    run.until(r"s stopped")
    time.sleep(4)
    run.send("error('typed')", ":c")
    out, status = run.end()
    assert status == 0 and output(folder, "s") == ["slept", "stopped"], out


@test
def the_sandbox_holds_in_the_debugger(folder):
    script(folder, 'stage "s" { run = function() local mine = 1 breakpoint() return mine end }')
    out = piped(folder, ["io, os.execute, debug, package, loadfile, dofile", "require('debug')", "require('fs').read('/etc/passwd')",
                         "exec { 'id' }", "http.get 'http://169.254.169.254/'", "require('prelude.debug')({}, 'x')",
                         "load('\\27Lua')", "setmetatable({}, { __gc = print })", "require 'vm'", "fs.exists 'ci.lua'",
                         "getmetatable(_ENV)", ":c"])
    in_order(out, r"^nil\nnil\nnil\nnil\nnil\nnil$", r"module 'debug' not found", r"may not read '/etc/passwd'", r"may not run the command 'id'",
             r"may not connect to", r"module 'prelude.debug' not found", r"attempt to load a binary chunk", r"__gc is not allowed", r"module 'vm' not found", r"^true$", r"the frame's variables", r"\[s\] ok")
    assert "getlocal" not in out and "setlocal" not in out, out


@test
def what_cannot_be_shown_does_not_end_the_session(folder):
    script(folder, 'stage "s" { run = function() breakpoint() return 1 end }')
    out = piped(folder, ["t = {} t.t = t", "t", "setmetatable({}, { __tostring = function() while true do end end })",
                         "setmetatable({}, { __tostring = function() error('no text') end })",
                         "error(setmetatable({}, { __tostring = function() while true do pcall(error) end end }))",
                         "big = {} for i = 1, 1e5 do big[i] = { { i } } end", "big", "('x'):rep(1e7)", "(", ")", "error(nil)", "1 +", "1",
                         "nil + 1", "string.rep('x', 1 << 40)", "local function f() return f() + 1 end return f()", "40 + 2", ":c"])
    in_order(out, r"again", r"took too long", r"no text", r"more", r"bytes", r"unexpected symbol near", r"error object is nil", r"^2$", r"attempt to perform arithmetic",
             r"stack overflow", r"^42$", r"\[s\] ok")


@test
def the_end_of_the_input_goes_on_without_it(folder):
    script(folder, 'stage "s" { run = function() for i = 1, 3 do breakpoint() end return 1 end }')
    out = piped(folder, ["i"])
    in_order(out, r"stopped: breakpoint\(\)", r"^1$", r"\[s\] ok")
    assert out.count("stopped:") == 1, out


@test
def a_stage_is_run_again(folder):
    script(folder, 'stage "s" { run = function(cx)\n  defer(function() log.info("cleaned %d", cx.attempt) end)\n  error("first")\nend }')
    changed = 'stage "s" { run = function(cx)\n  return "second " .. cx.attempt\nend }'
    out = piped(folder, ["fs.write('note', '')", ":retry"])
    in_order(out, r"may not write")
    run = Piped(folder)
    run.until(r"s stopped")
    script(folder, changed)
    run.send(":retry")
    out, status = run.end()
    assert status == 0 and output(folder, "s") == "second 2", out
    in_order(out, r"stopped: error", r"cleaned 1", r"\[s\] ok")


@test
def abort_and_quit(folder):
    script(folder, """stage "s" { run = function()
  defer(function() log.info "cleaned up" end)
  breakpoint()
  log.info("past" .. " it")
end }
stage "other" { run = function() return 1 end }
stage "after" { needs = { "s" }, run = function() log.info("past" .. " it") end }""")
    out = piped(folder, [":abort"])
    in_order(out, r"cleaned up", r"\[s\] cancelled")
    assert "past it" not in out and output(folder, "other") == 1, out
    out = piped(folder, [":quit"])
    in_order(out, r"cleaned up", r"^status 130$")
    assert "past it" not in out, out


@test
def an_always_block_is_retried_and_quit(folder):
    script(folder, """stage "s" { run = function() return 1 end, always = function(cx)
  log.info("cleaning after " .. cx.status)
  breakpoint()
  log.info("cleaned" .. " up")
end }""")
    out = piped(folder, [":retry", "1 + 1", ":c"])
    in_order(out, r"cleaning after ok", r"stopped: breakpoint", r"cleaning after ok", r"stopped: breakpoint", r"^2$", r"cleaned up", r"\[s\] ok")
    out = piped(folder, [":quit"])
    in_order(out, r"stopped: breakpoint", r"\[s\] cancelled", r"^status 130$")
    assert "cleaned up" not in out, out


@test
def without_it_a_breakpoint_is_a_debug_line(folder):
    script(folder, 'stage "s" { run = function()\n  breakpoint()\nend }')
    done = subprocess.run([PROGRAM, "run", "ci.lua", "--verbose"], cwd=folder, text=True, timeout=60, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, env=clean_env(folder), stdin=subprocess.PIPE)
    in_order(done.stdout, r"debug: breakpoint\(\) at ci\.lua:2: this run has no --debug", r"\[s\] ok")


LUA = os.environ.get("DEBUG_LUA", os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../lua"))


@test
def a_vm_cannot_stop_its_own_deadline(folder):
    """One that says it was stopped, as a script could that has broken into its interpreter."""
    modules = os.path.join(folder, "modules")
    shutil.copytree(LUA, modules)
    boot = os.path.join(modules, "boot.lua")
    with open(boot, encoding="utf-8") as file:
        text = file.read()
    lie = 'function breakpoint()\n  vm.emit { t = "break", reason = "step", text = "not true" }\n  do return end\n'
    assert "function breakpoint()\n" in text
    with open(boot, "w", encoding="utf-8") as file:
        file.write(text.replace("function breakpoint()\n", lie))
    script(folder, """stage "s" { timeout = "1s", run = function()
  breakpoint()
  while true do end
end }
stage "waits" { timeout = "1s", run = function()
  breakpoint()
  sleep("1m")
end }""")
    done = subprocess.run([PROGRAM, "run", "ci.lua"], cwd=folder, text=True, timeout=60, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, env=clean_env(folder, MLHOST_LUA_PATH=modules), stdin=subprocess.PIPE)
    assert done.returncode == 3 and "not true" not in done.stdout, done.stdout
    in_order(done.stdout, r"\[s\] timeout")
    in_order(done.stdout, r"\[waits\] timeout")
    # with --debug it is believed: that the lie was told at all
    out = piped(folder, [":c"], "--stage", "waits", env=clean_env(folder, MLHOST_LUA_PATH=modules))
    in_order(out, r"not true")


@test
def commands_of_the_stage_do_not_read_the_debuggers_input(folder):
    script(folder, """stage "s" { permissions = { exec = { "cat" } }, run = function()
  breakpoint()
  local read = require "exec" { "cat" }
  breakpoint()
  return read.out
end }""")
    out = piped(folder, [":c", "'it read ' .. #read.out", ":c"])
    in_order(out, r"it read 0", r"\[s\] ok")
    assert output(folder, "s") == "", out


@test
def much_output_while_somebody_sits_there(folder):
    script(folder, 'stage "s" { run = function() breakpoint() return 1 end }')
    out = piped(folder, ["for i = 1, 50000 do print('line ' .. i) end", "'that was it'", ":c"], timeout=120)
    in_order(out, r"line 50000$", r"that was it", r"\[s\] ok")


@test
def nobody_to_ask_is_refused(folder):
    script(folder, 'stage "s" { run = function() end }')
    done = subprocess.run([PROGRAM, "run", "ci.lua", "--debug"], cwd=folder, text=True, timeout=60, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=clean_env(folder))
    assert done.returncode == 2 and "no terminal" in done.stdout and "hint:" in done.stdout, done
    out = piped(folder, [":c"], "--json")
    in_order(out, r"--debug goes with --output tty or plain", r"^status 2$")
    out = piped(folder, [":c"], env=clean_env(folder, TF_BUILD="True"))
    in_order(out, r"build agent", r"^status 2$")


# ---- at a terminal ----


def at_debug(t, stage):
    """Until the stage's prompt is the editor's."""
    t.until(rf"debug {re.escape(stage)}> ")
    t.echo_is_off()


@test
def a_terminal_session(folder):
    script(folder, FAILS)
    t = Terminal(folder, "run", "ci.lua", "--debug")
    t.until(r"stopped: error at ci\.lua:6")
    at_debug(t, "a")
    t.type("x + fac\t\n")  # completed: an upvalue
    t.until(r"\b5\b")
    at_debug(t, "a")
    t.type(":loc\t\n")
    t.until(r"x = 3")
    at_debug(t, "a")
    t.type("for i = 1, 2 do\n")
    t.until(r"\.\.\. ")
    t.type("print('line ' .. i)\nend\n")
    t.until(r"line 2")
    at_debug(t, "a")
    t.type("40 + 1\n")
    t.until(r"\b41\b")
    at_debug(t, "a")
    t.type("\x1b[A\x7f2\n")  # up, backspace, 2: the last entry, changed
    t.until(r"\b42\b")
    at_debug(t, "a")
    t.type("half a line\x03")  # forgotten
    at_debug(t, "a")
    t.type(":c\n")
    t.until(r"\[?a\]?.*failed")
    assert t.ended() == 1
    assert output(folder, "a") is None


@test
def an_empty_line_steps_again(folder):
    script(folder, STEPS)
    t = Terminal(folder, "run", "ci.lua", "--debug")
    at_debug(t, "s")
    t.type(":n\n")
    t.until(r"step at ci\.lua:9")
    at_debug(t, "s")
    t.type("\n")
    t.until(r"step at ci\.lua:1\d")
    at_debug(t, "s")
    t.type(":c\n")
    assert t.ended() == 0 and output(folder, "s") == 7


@test
def ctrl_c_is_for_what_is_evaluated(folder):
    script(folder, 'stage "s" { run = function()\n  local kept = 1\n  breakpoint()\n  return kept\nend }')
    t = Terminal(folder, "run", "ci.lua", "--debug")
    at_debug(t, "s")
    for endless in ("while true do end", "coroutine.wrap(function() while true do end end)()", "sleep(600)",
                    "while true do pcall(function() while true do end end) end", "kept = 2 repeat until false"):
        t.type(endless + "\n")
        time.sleep(0.5)
        t.type("\x03")
        t.until(r"interrupted|cancelled")
        at_debug(t, "s")
    t.type(":c\n")
    assert t.ended() == 0 and output(folder, "s") == 2


@test
def ctrl_c_leaves_the_others_alone(folder):
    script(folder, """stage "s" { run = function()
  return parallel(2, { 1, 2 }, function(n)
    if n == 1 then sleep("3s") return "slept" end
    breakpoint()
    return "stopped"
  end)
end }
stage "other" { run = function() for i = 1, 15 do sleep "200ms" log.info("tick %d", i) end return "done" end }""")
    t = Terminal(folder, "run", "ci.lua", "--debug")
    at_debug(t, "s")
    t.type("sleep(600)\n")
    time.sleep(0.5)
    t.type("\x03")
    t.until(r"interrupted|cancelled")
    at_debug(t, "s")
    t.type(":c\n")
    t.until(r"tick 15")
    assert t.ended() == 0
    assert output(folder, "s") == ["slept", "stopped"] and output(folder, "other") == "done"


@test
def a_library_function_ends_with_the_stage(folder):
    script(folder, 'stage "s" { run = function()\n  breakpoint()\nend }\nstage "next" { needs = { "s" }, run = function() end }')
    t = Terminal(folder, "run", "ci.lua", "--debug")
    at_debug(t, "s")
    t.type("(('a'):rep(40)):find(('a*'):rep(40) .. 'b')\n")
    time.sleep(0.5)
    t.type("\x03")
    time.sleep(0.5)
    t.type("\x03")
    t.until(r"only the end of the stage can end")
    assert t.ended() == 130


@test
def stages_that_stop_wait_for_the_terminal(folder):
    script(folder, """for _, name in ipairs { "one", "two", "three" } do
  stage(name, { run = function() local me = name breakpoint() return me end })
end""")
    t = Terminal(folder, "run", "ci.lua", "--debug", "--jobs", "3")
    seen = set()
    for _ in range(3):
        t.until(r"debug \w+> ")
        t.echo_is_off()
        t.type("'this is ' .. me\n")
        name = t.until(r"this is (\w+)\"")[1]
        seen.add(name)
        at_debug(t, name)
        t.type(":c\n")
    assert t.ended() == 0 and seen == {"one", "two", "three"}, seen


@test
def an_approval_waits_for_the_terminal(folder):
    script(folder, """stage "s" { run = function() breakpoint() sleep "300ms" return 1 end }
stage "ask" { run = function() sleep "300ms" return require("approval").ask { name = "go", question = "Really?" } end }""")
    t = Terminal(folder, "run", "ci.lua", "--debug", "--jobs", "2")
    at_debug(t, "s")
    time.sleep(1)
    t.type("1 + 1\n")
    t.until(r"^2$|\n2")
    assert "Really?" not in t.shown
    at_debug(t, "s")
    t.type(":c\n")
    t.until(r"Really\? \[y/N\]")
    t.type("y\n")
    assert t.ended() == 0, t.shown


@test
def a_signal_at_the_prompt_leaves_the_terminal_as_it_was(folder):
    script(folder, 'stage "s" { run = function()\n  defer(function() log.info("cleaned") end)\n  breakpoint()\nend }')
    t = Terminal(folder, "run", "ci.lua", "--debug")
    at_debug(t, "s")
    os.kill(t.pid, signal.SIGTERM)
    t.until(r"cleaned")
    t.until(r"cancelled")
    assert t.echoes()
    assert t.ended() == 130


@test
def a_signal_ends_what_is_evaluated(folder):
    script(folder, 'stage "s" { run = function()\n  defer(function() log.info("cleaned") end)\n  breakpoint()\n  log.info("past" .. " it")\nend }')
    for endless in ("while true do end", "while true do pcall(function() while true do end end) end", "sleep(600)"):
        t = Terminal(folder, "run", "ci.lua", "--debug")
        at_debug(t, "s")
        t.type(endless + "\n")
        time.sleep(0.5)
        os.kill(t.pid, signal.SIGTERM)
        assert "past it" not in t.until(r"(?s).*cleaned")[0]
        assert t.ended() == 130 and "past it" not in t.shown, t.shown


def processes():
    """{ pid: (parent, time of its start) } of all that live."""
    found = {}
    for pid in os.listdir("/proc"):
        try:
            if pid.isdigit():
                with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
                    fields = file.read().rsplit(") ", 1)[1].split()
                if fields[0] != "Z":
                    found[int(pid)] = (int(fields[1]), fields[19])
        except OSError:
            continue
    return found


def below(pid):
    """What has been started by it, and by that, as { pid: time of its start }."""
    alive, found = processes(), {}
    more = [pid]
    while more:
        parent = more.pop()
        for child, (its, start) in alive.items():
            if its == parent:
                found[child] = start
                more.append(child)
    return found


@test
def a_host_that_is_killed_leaves_nothing(folder):
    script(folder, 'stage "s" { run = function()\n  breakpoint()\nend }')
    t = Terminal(folder, "run", "ci.lua", "--debug", under=("/bin/sh", "-c", '"$@"; read answer', "sh"))
    at_debug(t, "s")
    started = below(t.pid)
    assert len(started) >= 4, started  # supervisor, prompt, broker, VM
    host = next(pid for pid, (parent, _) in processes().items() if parent == t.pid)  # numbers may have begun anew
    os.kill(host, signal.SIGKILL)
    end = time.monotonic() + 20

    def left():
        alive = processes()
        return [pid for pid, start in started.items() if alive.get(pid, (0, ""))[1] == start]

    while time.monotonic() < end and (not t.echoes() or left()):
        time.sleep(0.05)
    assert t.echoes() and not left(), left()
    t.type("\n")
    t.ended()


def as_nobody():
    """The same without privileges: (passed, failed)."""
    home = tempfile.mkdtemp(prefix="mlhost-nobody-")
    here = os.path.dirname(os.path.abspath(__file__))
    try:
        os.chmod(home, 0o755)
        program = shutil.copy(PROGRAM, os.path.join(home, "mlhost"))
        for name in ("debug.py", "terminal.py"):
            shutil.copy(os.path.join(here, name), home)
        for module in os.listdir(os.path.dirname(PROGRAM)):
            if module.endswith(".so"):
                shutil.copy(os.path.join(os.path.dirname(PROGRAM), module), home)
        shutil.copytree(LUA, os.path.join(home, "lua"))
        done = subprocess.run(["/usr/bin/python3", "-B", os.path.join(home, "debug.py"), *sys.argv[1:]],
                              env={"PATH": os.environ["PATH"], "MLHOST": program, "HOME": "/nonexistent",
                                   "DEBUG_LUA": os.path.join(home, "lua"), **SANITIZERS}, cwd="/",
                              user="nobody", group="nogroup", extra_groups=[], stdout=subprocess.PIPE, text=True, timeout=600)
        print(re.sub("^", "  nobody: ", done.stdout.rstrip(), flags=re.M))
        line = re.search(r"^(\d+) passed, (\d+) failed$", done.stdout, re.M)
        return (int(line[1]), int(line[2])) if line else (0, 1)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def main():
    global passed, failed
    names = [word for word in sys.argv[1:] if word != "--once"]
    for fn in tests:
        if names and fn.__name__ not in names:
            continue
        with tempfile.TemporaryDirectory() as folder:
            with open(os.path.join(folder, "mlhost.yaml"), "w", encoding="utf-8"):
                pass
            try:
                fn(folder)
                passed += 1
                print(f"ok    {fn.__name__}", flush=True)
            except Exception as error:  # the report is the point
                failed += 1
                print(f"FAIL  {fn.__name__}: {error!r}\n{error}", flush=True)
    if os.geteuid() == 0 and "--once" not in sys.argv:
        more = as_nobody()
        passed, failed = passed + more[0], failed + more[1]
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed != 0)


main()
