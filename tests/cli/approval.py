#!/usr/bin/env python3
"""Approvals: given beforehand, at the terminal, or not at all; and what a script learns of earlier runs."""
import glob
import json
import os
import subprocess
import sys
import tempfile

from terminal import PROGRAM, Terminal

SCRIPT = """
local approval, runs = require "approval", require "runs"
pipeline "asks" {}
stage "prod" { run = function()
  local before = runs.latest "asks"
  local answer = approval.ask { name = "prod", question = "Deploy to PROD?" }
  return { by = answer.by, before = before and before.id, earlier = before and before.outputs.prod.by }
end }
"""
passed = failed = 0


def test(fn):
    global passed, failed
    with tempfile.TemporaryDirectory() as folder:
        open(os.path.join(folder, "mlhost.yaml"), "w", encoding="utf-8").close()
        with open(os.path.join(folder, "asks.lua"), "w", encoding="utf-8") as script:
            script.write(SCRIPT)
        try:
            fn(folder)
            passed += 1
            print(f"ok    {fn.__name__}")
        except Exception as error:  # the report is the point
            failed += 1
            print(f"FAIL  {fn.__name__}: {error}")
    return fn


def run(folder, *options):
    done = subprocess.run([PROGRAM, "run", "asks.lua", *options], cwd=folder, stdin=subprocess.DEVNULL, text=True, timeout=60,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    return done.returncode, done.stdout


def journals(folder):
    for path in sorted(glob.glob(folder + "/.mlhost/runs/*/journal.jsonl")):
        with open(path, encoding="utf-8") as lines:
            yield [json.loads(line) for line in lines]


@test
def without_terminal_and_flag_the_answer_is_no_at_once(folder):
    status, out = run(folder)
    assert status == 4 and "--approve prod" in out, (status, out)


@test
def a_flag_approves_its_own_name_and_stands_in_the_journal(folder):
    status, out = run(folder, "--approve", "qa")
    assert status == 4, (status, out)
    status, out = run(folder, "--approve", "qa", "--approve", "prod")
    assert status == 0, (status, out)
    asked = [event for event in list(journals(folder))[-1] if event["t"] == "approval"]
    assert len(asked) == 1 and asked[0]["yes"] and asked[0]["by"] == "--approve" and asked[0]["stage"] == "prod", asked


@test
def a_later_run_sees_the_newest_one_that_ended_well(folder):
    assert run(folder, "--approve", "all")[0] == 0
    assert run(folder)[0] == 4
    assert run(folder, "--approve", "all")[0] == 0
    first, refused, third = journals(folder)
    output = [event["output"] for event in third if event["t"] == "stage_end"][0]
    assert output["before"] == first[0]["run"] != refused[0]["run"], output
    assert output["earlier"] == "--approve", output


@test
def at_the_terminal_yes_goes_on_and_nonsense_is_asked_again(folder):
    t = Terminal(folder, "run", "asks.lua")
    t.until(r"Deploy to PROD\? \[y/N\] ")
    t.type("perhaps\n")
    t.until(r"Deploy to PROD\? \[y/N\] ")
    t.type("yes\n")
    t.until(r"approved: Deploy to PROD\? \(the terminal\)")
    assert t.ended() == 0


@test
def at_the_terminal_just_enter_means_no(folder):
    t = Terminal(folder, "run", "asks.lua")
    t.until(r"\[y/N\] ")
    t.type("\n")
    t.until("refused at the terminal")
    assert t.ended() == 4


@test
def ctrl_c_at_the_question_ends_the_run(folder):
    t = Terminal(folder, "run", "asks.lua")
    t.until(r"\[y/N\] ")
    t.type("\x03")
    assert t.ended() == 130


print(f"{passed} passed, {failed} failed")
sys.exit(failed != 0)
