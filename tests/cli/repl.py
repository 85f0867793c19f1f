#!/usr/bin/env python3
"""The REPL as a person uses it, on a pseudo-terminal and with piped input."""
import os
import subprocess
import sys
import tempfile
import time

from terminal import PROGRAM, Terminal

passed = failed = 0


def test(fn):
    global passed, failed
    with tempfile.TemporaryDirectory() as folder:
        open(os.path.join(folder, "mlhost.yaml"), "w", encoding="utf-8").close()
        try:
            fn(folder)
            passed += 1
            print(f"ok    {fn.__name__}")
        except Exception as error:  # the report is the point
            failed += 1
            print(f"FAIL  {fn.__name__}: {error}")
    return fn


def piped(folder, text, *words):
    done = subprocess.run([PROGRAM, "repl", *words], cwd=folder, input=text, text=True, timeout=60, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)
    return done.stdout


@test
def piped_input_prints_values_and_goes_on_after_an_error(folder):
    out = piped(folder, "1 + 1\nfor i = 1, 2 do\nprint('round', i)\nend\nerror('boom')\n{ a = { 1, 2 }, b = 'x' }\n")
    for wanted in ("2", "round\t1", "round\t2", "boom", "a = ", "b = "):
        assert wanted in out, (wanted, out)


@test
def the_sandbox_is_the_one_of_a_stage(folder):
    out = piped(folder, "os.execute\nio\nrequire('exec') { 'ls' }\nrequire('fs').write('/etc/mlhost-was-here', 'x')\n")
    assert "nil" in out and "permission" in out, out
    assert not os.path.exists("/etc/mlhost-was-here")


@test
def a_terminal_has_editing_history_completion_and_more_lines(folder):
    t = Terminal(folder, "repl")
    t.at_prompt()
    t.type("20 + 2\n")
    t.until(r"\b22\b")
    t.at_prompt()
    t.type("\x1b[A\x7f3\n")  # up, backspace, 3: the last entry, changed
    t.until(r"\b23\b")
    t.at_prompt()
    t.type("string.for\t")
    t.until(r"string\.format")
    t.type("\x15")
    t.type("function twice(x)\n")
    t.type("return 2 * x\n")
    t.type("end\n")
    t.at_prompt()
    t.type("twice(21)\n")
    t.until(r"\b42\b")
    t.at_prompt()
    t.type("\x04")
    assert t.ended() == 0
    history = [os.path.join(root, name) for root, _, names in os.walk(folder) for name in names if "history" in name]
    assert history and os.stat(history[0]).st_mode & 0o077 == 0, history


@test
def ctrl_c_ends_an_evaluation_and_not_the_session(folder):
    t = Terminal(folder, "repl")
    t.at_prompt()
    t.type("while true do end\n")
    time.sleep(0.5)
    t.type("\x03")
    t.until(r"interrupt|cancel")
    t.at_prompt()
    t.type("6 * 7\n")
    t.until(r"\b42\b")
    t.at_prompt()
    t.type("\x04")
    assert t.ended() == 0


@test
def ctrl_c_in_coroutines_and_library_functions(folder):
    t = Terminal(folder, "repl")
    t.at_prompt()
    t.type("kept = 1\n")
    t.at_prompt()
    t.type("coroutine.wrap(function() while true do end end)()\n")
    time.sleep(0.5)
    t.type("\x03")
    t.until(r"interrupt|cancel")
    t.at_prompt()
    t.type("sleep(600)\n")
    time.sleep(0.5)
    t.type("\x03")
    t.until(r"interrupt|cancel")
    t.at_prompt()
    t.type("kept + 40\n")
    t.until(r"\b41\b")
    t.at_prompt()
    t.type("(('a'):rep(40)):find(('a*'):rep(40) .. 'b')\n")  # nothing in Lua can end it: the second Ctrl-C restarts
    time.sleep(0.5)
    t.type("\x03")
    time.sleep(0.5)
    t.type("\x03")
    t.until(r"restarted")
    t.at_prompt()
    t.type("6 * 7, kept\n")
    t.until(r"\b42\b\s+nil")
    t.at_prompt()
    t.type("\x04")
    assert t.ended() == 0


@test
def results_that_are_hard_to_show(folder):
    out = piped(folder, "\n".join([
        "t = {} t.t = t", "t", "setmetatable({}, { __tostring = function() while true do end end })",
        "setmetatable({}, { __tostring = function() error('no text') end })", "setmetatable({}, { __len = function() while true do end end })",
        "error(setmetatable({}, { __tostring = function() while true do end end }))",
        "big = {} for i = 1, 300 do big[i] = {} for k = 1, 300 do big[i][k] = { k } end end", "#big", "big", "('x'):rep(1e7)",
        "coroutine.wrap(function() error('inside') end)()", "1 +", "41", ""]))
    for wanted in ("the same table again", "took too long", "no text", "cannot be shown", "300", "more", "bytes", "inside", "42"):
        assert wanted in out, (wanted, out[-3000:])
    assert len(out) < 500000, len(out)


PIPELINE = """pipeline "demo" { params = { n = 2 } }
function helper(x) return x * 2 end
stage "first" { run = function(cx) print("n is", cx.params.n) return { n = cx.params.n } end }
stage "cells" { needs = { "first" }, matrix = { k = { "a", "b" } }, run = function(cx) return cx.matrix.k .. cx.needs.first.n end }
stage "last" { needs = { "cells" }, run = function(cx) return cx.needs.cells end }
"""


def write(folder, text):
    with open(os.path.join(folder, "ci.lua"), "w", encoding="utf-8") as file:
        file.write(text)


def in_order(out, *texts):
    at = 0
    for text in texts:
        found = out.find(text, at)
        assert found >= 0, (text, out)
        at = found + len(text)


@test
def stages_of_a_pipeline_one_at_a_time(folder):
    write(folder, PIPELINE)
    out = piped(folder, "\n".join([
        ":stages", ":run cells", ":run first", "outputs.first", ":run cells[k=b]", ":run last", ":run cells", ":run last", ":stages",
        "outputs.last.a .. outputs.cells.b", "helper(21)", "stages.last.needs[1]", ":run lst", ":run", ":rn", ":plan", ""]), "ci.lua", "-P", "n=5")
    in_order(out, "first\n", "cells[k=a]  needs first\n", "stage 'cells' needs 'first', which has no output yet", "hint: :run first",
             "n is\t5", "{ n = 5 }", "[cells[k=b]] ok", "stage 'last' needs 'cells[k=a]'", "[cells[k=a]] started", "[last] ok",
             "last  needs cells  ok\n", '"a5b5"', "42", '"cells"', "has no stage 'lst'", "did you mean 'last'?", "usage: :run STAGE",
             "did you mean ':run'?", "last  <- cells")
    # a new session knows them from the newest runs
    out = piped(folder, ":stages\noutputs.first.n\n:run last\n", "ci.lua")
    in_order(out, "first  ok in run 2", "cells[k=a]  needs first  ok in run 2", "5", "[last] ok")


@test
def reload_after_an_edit(folder):
    write(folder, PIPELINE)
    t = Terminal(folder, "repl", "ci.lua")
    t.at_prompt()
    t.type(":run fi\t\n")  # completed
    t.until(r"first.* ok")
    t.at_prompt()
    t.type("mine = 1 return helper(4)\n")
    t.until(r"\b8\b")
    t.at_prompt()
    write(folder, PIPELINE.replace("x * 2", "x * 100").replace('stage "last"', 'stage "final"'))
    t.type(":reload\n")
    t.at_prompt()
    t.type("helper(4), outputs.first.n, mine\n")
    t.until(r"\b400\b\s+2\s+nil")
    t.at_prompt()
    t.type(":stages\n")
    t.until(r"final  needs cells")
    t.at_prompt()
    write(folder, "stage 'x' { run = function( }\n")
    t.type(":reload\n")
    t.until(r"ci\.lua:1: .*expected")
    t.at_prompt()
    write(folder, "stage 'x' { run = function() local inner = 5 breakpoint() return inner end }\n")
    t.type(":reload\n")
    t.at_prompt()
    t.type(":debug x\n")
    t.until(r"debug x> ")
    t.echo_is_off()
    t.type("inner = 6\n")
    t.until(r"debug x> ")
    t.echo_is_off()
    t.type(":c\n")
    t.until(r"x.* ok")
    t.at_prompt()
    t.type("outputs.x + 70\n")
    t.until(r"\b76\b")
    t.at_prompt()
    t.type("\x04")
    assert t.ended() == 0


@test
def a_file_without_stages_has_functions(folder):
    with open(os.path.join(folder, "lib.lua"), "w", encoding="utf-8") as file:
        file.write("function triple(x) return 3 * x end\n")
    out = piped(folder, "triple(14)\n:run x\n", "lib.lua")
    in_order(out, "declares no stage", "42", "has no pipeline")


print(f"{passed} passed, {failed} failed")
sys.exit(failed != 0)
