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


def piped(folder, text):
    done = subprocess.run([PROGRAM, "repl"], cwd=folder, input=text, text=True, timeout=60, stdout=subprocess.PIPE,
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


print(f"{passed} passed, {failed} failed")
sys.exit(failed != 0)
