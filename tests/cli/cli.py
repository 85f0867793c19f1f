#!/usr/bin/env python3
"""The program from outside: exit codes, messages, files, signals. usage: cli.py [MLHOST] [NAME...]

Every test runs the real program in a fresh workspace. The last line is "N passed, N failed".
"""
import glob, json, os, re, shutil, signal, subprocess, sys, tempfile, time, traceback
import xml.etree.ElementTree as ElementTree

PROGRAM = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("MLHOST", "build/mlhost"))
ONLY = sys.argv[2:]
TESTS = []


def test(fn):
    TESTS.append(fn)
    return fn


class Workspace:
    """A folder with an mlhost.yaml, so that the program takes it for the workspace."""

    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="mlhost-cli-")
        self.write("mlhost.yaml", "profile: local\n")

    def write(self, name, text):
        path = os.path.join(self.dir, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as f:
            f.write(text)
        return path

    def read(self, name):
        with open(os.path.join(self.dir, name)) as f:
            return f.read()

    def env(self, extra):
        keep = {k: v for k, v in os.environ.items() if not k.startswith(("MLHOST", "TF_BUILD", "MLFLOW", "KF_"))}
        return {**keep, "LC_ALL": "C.UTF-8", **extra}

    def run(self, *args, env={}, timeout=60):
        """-> (exit status, stdout, stderr)"""
        done = subprocess.run([PROGRAM, *args], cwd=self.dir, env=self.env(env), timeout=timeout,
                              stdin=subprocess.DEVNULL, capture_output=True)
        return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")

    def start(self, *args, env={}):
        return subprocess.Popen([PROGRAM, *args], cwd=self.dir, env=self.env(env), stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def newest(self):
        runs = sorted(glob.glob(self.dir + "/.mlhost/runs/*"))
        return runs[-1] if runs else None

    def journal(self, run=None):
        with open((run or self.newest()) + "/journal.jsonl") as f:
            return [json.loads(line) for line in f if line.endswith("\n")]

    def ends(self, run=None):
        """{ cell: its last stage_end event }"""
        return {e["stage"]: e for e in self.journal(run) if e["t"] == "stage_end"}

    def wait_for(self, what, seconds=20):
        """Waits until what() is true; polls, since the condition is another process's doing."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                if what():
                    return
            except (OSError, ValueError, TypeError):
                pass
            time.sleep(0.01)
        raise AssertionError("waited in vain")

    def close(self):
        shutil.rmtree(self.dir, ignore_errors=True)


def equal(got, want, context=""):
    assert got == want, f"got {got!r}, wanted {want!r}\n{context}"


def has(text, *parts):
    for part in parts:
        assert part in text, f"{part!r} is not in:\n{text}"


def lacks(text, *parts):
    for part in parts:
        assert part not in text, f"{part!r} is in:\n{text}"


def no_process_left(marker):
    """No process of this test's workspace is left. The kernel may need a moment to take them away."""
    def gone():
        for cwd in glob.glob("/proc/[0-9]*/cwd"):
            try:
                if os.readlink(cwd).startswith(marker):
                    return False
            except OSError:
                pass
        return True
    end = time.monotonic() + 5
    while not gone():
        assert time.monotonic() < end, "a process of the run is left"
        time.sleep(0.02)


# ---- runs that end well ----

@test
def an_empty_stage_is_done(w):
    w.write("a.lua", 'stage "hello" { run = function(cx) print "hello from a stage" end }\n')
    status, out, err = w.run("run", "a.lua")
    equal(status, 0, out + err)
    has(out, "hello from a stage", "run:", "report:", "1 ok")
    run = w.newest()
    for name in ("journal.jsonl", "plan.json", "report.md", "junit.xml", "stages/hello/log.txt"):
        assert os.path.exists(f"{run}/{name}"), name
    has(open(run + "/stages/hello/log.txt").read(), "hello from a stage")
    equal([e["seq"] for e in w.journal()], list(range(1, len(w.journal()) + 1)))
    no_process_left(w.dir)


@test
def outputs_reach_the_stages_that_need_them(w):
    w.write("a.lua", '''
stage "one" { run = function(cx) return { n = 41, list = { 1, 2 } } end }
stage "build" { needs = { "one" }, matrix = { component = { "training", "eval" } },
  run = function(cx) return { ref = cx.matrix.component .. ":" .. cx.needs.one.n } end }
stage "grid" { matrix = { a = { "x" }, b = { 1, 2 } }, run = function(cx) return cx.matrix.a .. cx.matrix.b end }
stage "use" { needs = { "build", "grid", "one" }, run = function(cx)
  return { a = cx.needs.build.training.ref, b = cx.needs.build["component=eval"].ref, c = cx.needs.grid["a=x,b=2"],
           d = #cx.needs.one.list, stage = cx.stage, attempt = cx.attempt, run = cx.run_id } end }
''')
    status, out, err = w.run("run", "a.lua", "--jobs", "4")
    equal(status, 0, out + err)
    ends = w.ends()
    equal(set(ends), {"one", "build[component=training]", "build[component=eval]", "grid[a=x,b=1]", "grid[a=x,b=2]", "use"})
    equal(ends["use"]["output"], {"a": "training:41", "b": "eval:41", "c": "x2", "d": 2, "stage": "use", "attempt": 1,
                                  "run": os.path.basename(w.newest())})
    order = [e["stage"] for e in w.journal() if e["t"] == "stage_end"]
    assert order.index("one") < order.index("build[component=eval]") < order.index("use")


@test
def stages_that_do_not_need_each_other_run_side_by_side(w):
    w.write("a.lua", '''
stage "s" { matrix = { n = { 1, 2, 3, 4 } }, run = function(cx) sleep "700ms" end }
''')
    status, out, err = w.run("run", "a.lua", "-j", "4")
    equal(status, 0, out + err)
    events = [e["t"] for e in w.journal() if e["t"] in ("stage_start", "stage_end")]
    equal(events[:4], ["stage_start"] * 4)
    status, out, err = w.run("run", "a.lua", "-j", "1")
    events = [e["t"] for e in w.journal() if e["t"] in ("stage_start", "stage_end")]
    equal(events, ["stage_start", "stage_end"] * 4)


@test
def parameters_have_types_defaults_and_choices(w):
    w.write("a.lua", '''
pipeline "p" { params = { upload = { default = "new", choices = { "new", "version" } }, epochs = 5, dry = false,
                          data = { type = "string", required = true } } }
stage "s" { run = function(cx) return cx.params end }
''')
    w.write("p.yaml", "epochs: 9\ndata: from-file\n")
    status, out, err = w.run("run", "a.lua", "-P", "data=x", "--param", "dry=true", "--params-file=p.yaml")
    equal(status, 0, out + err)
    equal(w.ends()["s"]["output"], {"upload": "new", "epochs": 9, "dry": True, "data": "x"})
    for args, parts in ((["-P", "data=x", "-P", "upload=versoin"], ["allowed: \"new\", \"version\"", "did you mean 'version'?"]),
                        ([], ["parameter 'data' (string) is required"]),
                        (["-P", "data=x", "-P", "epochs=ten"], ["'epochs' must be of type int, not 'ten'"]),
                        (["-P", "data=x", "-P", "epoch=1"], ["no parameter 'epoch'", "did you mean 'epochs'?"]),
                        (["-P", "data"], ["name=value"])):
        status, out, err = w.run("run", "a.lua", *args)
        equal(status, 2, out + err)
        has(err, *parts)


@test
def a_condition_that_does_not_hold_skips_the_stage(w):
    w.write("a.lua", '''
stage "a" { when = function(cx) return false end, run = function(cx) print "never" end }
stage "b" { needs = { "a" }, run = function(cx) return cx.needs.a == nil end }
stage "c" { when = function(cx) return true end, run = function(cx) end }
''')
    status, out, err = w.run("run", "a.lua")
    equal(status, 0, out + err)
    ends = w.ends()
    equal((ends["a"]["status"], ends["b"]["status"], ends["c"]["status"]), ("skipped", "ok", "ok"))
    equal(ends["b"]["output"], True)
    lacks(out, "never")


# ---- runs that do not ----

@test
def a_failing_stage_says_what_where_and_how_to_go_on(w):
    w.write("a.lua", '''stage "bad" { run = function(cx)
  print "about to fail"
  local t = nil
  error "the disk is on fire"
end }
stage "after" { needs = { "bad" }, run = function(cx) end }
''')
    status, out, err = w.run("run", "a.lua", "--quiet")
    equal(status, 1, out + err)
    has(out, "a.lua:4:", "the disk is on fire", "traceback", "about to fail", "--resume " + os.path.basename(w.newest()),
        "1 failed, 1 blocked")
    ends = w.ends()
    equal(ends["after"]["status"], "blocked")
    equal(ends["bad"]["error"]["line"], 4)
    no_process_left(w.dir)


@test
def after_a_failure_only_keep_going_starts_others(w):
    w.write("a.lua", '''
stage "a" { run = function(cx) error "no" end }
stage "b" { run = function(cx) end }
''')
    equal(w.run("run", "a.lua", "-j", "1")[0], 1)
    equal(w.ends()["b"]["status"], "blocked")
    equal(w.run("run", "a.lua", "-j", "1", "--keep-going")[0], 1)
    equal(w.ends()["b"]["status"], "ok")


@test
def an_allowed_failure_fails_nothing_else(w):
    w.write("a.lua", '''
stage "a" { allow_failure = true, run = function(cx) error "no" end }
stage "b" { needs = { "a" }, run = function(cx) end }
''')
    status, out, err = w.run("run", "a.lua")
    equal(status, 0, out + err)
    equal((w.ends()["a"]["status"], w.ends()["b"]["status"]), ("failed", "ok"))


@test
def a_stage_is_tried_again_with_growing_delays(w):
    w.write("a.lua", '''
stage "flaky" { retry = { max = 3, backoff = "100ms" }, run = function(cx)
  if cx.attempt < 3 then error("attempt " .. cx.attempt) end
  return cx.attempt
end }
stage "hopeless" { retry = 1, run = function(cx) error "always" end }
''')
    status, out, err = w.run("run", "a.lua", "--keep-going")
    equal(status, 1, out + err)
    equal(w.ends()["flaky"]["output"], 3)
    equal([e["delay_ms"] for e in w.journal() if e["t"] == "stage_retry" and e["stage"] == "flaky"], [100, 200])
    equal(w.ends()["hopeless"]["attempt"], 2)


@test
def a_stage_that_never_ends_is_ended(w):
    w.write("a.lua", '''
stage "loop" { timeout = "1s", run = function(cx) while true do end end }
''')
    begin = time.monotonic()
    status, out, err = w.run("run", "a.lua")
    took = time.monotonic() - begin
    equal(status, 3, out + err)
    assert 0.9 < took < 9, took
    equal(w.ends()["loop"]["status"], "timeout")
    no_process_left(w.dir)


@test
def the_whole_pipeline_has_a_deadline(w):
    w.write("a.lua", '''
pipeline "p" { timeout = "1s" }
stage "a" { run = function(cx) sleep "60s" end }
stage "b" { needs = { "a" }, run = function(cx) end }
''')
    begin = time.monotonic()
    status, out, err = w.run("run", "a.lua")
    equal(status, 3, out + err)
    assert time.monotonic() - begin < 15
    status, out, err = w.run("run", "a.lua", "--timeout", "soon")
    equal(status, 2, out + err)
    has(err, "--timeout", "soon")



def output(w, stage):
    """What the stage returned in the newest run."""
    with open(sorted(glob.glob(w.dir + "/.mlhost/runs/*/journal.jsonl"))[-1]) as journal:
        ends = [event for event in map(json.loads, journal) if event["t"] == "stage_end" and event["stage"] == stage]
    return ends[-1].get("output")

@test
def a_denied_stage_exits_with_4(w):
    w.write("a.lua", 'stage "s" { run = function(cx) require("exec") { "true" } end }\n')
    status, out, err = w.run("run", "a.lua")
    equal(status, 4, out + err)
    has(out, "exec", "permissions")


@test
def the_operator_bounds_what_a_script_may(w):
    w.write("a.lua", '''pipeline "p" { permissions = { exec = { "true" } } }
stage "s" { run = function(cx) require("exec") { "true" } end }
''')
    equal(w.run("run", "a.lua")[0], 0)
    equal(w.run("run", "a.lua", "--allow-net", "example.com")[0], 4)
    equal(w.run("run", "a.lua", "--allow-exec", "true")[0], 0)
    w.write("sub/policy.yaml", "permissions: { exec: [true] }\n")
    status, out, err = w.run("run", "a.lua", "--policy", "sub/policy.yaml")
    equal(status, 2)
    has(err, "lies in the workspace")
    outside = tempfile.mkdtemp(prefix="mlhost-policy-")
    policy = os.path.join(outside, "policy.yaml")
    w.write(policy, "permissions: { exec: [false] }\n")
    equal(w.run("run", "a.lua", "--policy", policy)[0], 2)  # a boolean is no pattern
    w.write(policy, "permissions: { exec: [other] }\n")
    equal(w.run("run", "a.lua", "--policy", policy)[0], 4)
    w.write(policy, "exce: [true]\n")
    status, out, err = w.run("run", "a.lua", "--policy", policy)
    equal(status, 2)
    has(err, "policy.yaml", "'exce'", "did you mean 'exec'?")
    w.write(policy, "exec: ['true']\nnet: ['https://example.com/']\n")
    status, out, err = w.run("run", "a.lua", "--policy", policy)
    equal(status, 2)
    has(err, "net", "not a host", 'write "example.com"')
    os.symlink(policy, os.path.join(w.dir, "link.yaml"))
    w.write(policy, "exec: ['true']\n")
    equal(w.run("run", "a.lua", "--policy", "link.yaml")[0], 0)  # what counts is where the file lies
    shutil.rmtree(outside)


@test
def arguments_of_a_command_can_be_bounded(w):
    w.write("a.lua", '''pipeline "p" { permissions = { exec = { "echo one *", "sh" } } }
stage "s" { run = function(cx)
  local exec = require "exec"
  local function may(...) return (try(exec, { ... })) ~= nil end
  return { may("echo", "one"), may("echo", "one", "two"), may("echo", "two"), may("echo"), may("sh", "-c", "true"),
           may("sh", "-c", "exit 0; rm -rf /") }
end }
''')
    w.run("run", "a.lua")
    equal(output(w, "s"), [True, True, False, False, True, True])
    w.run("run", "a.lua", "--allow-exec", "echo", "--allow-exec", "sh -c true")
    equal(output(w, "s"), [True, True, False, False, True, False])
    w.run("run", "a.lua", "--deny-exec", "sh")
    equal(output(w, "s"), [True, True, False, False, False, False])


@test
def the_plan_explains_permissions(w):
    w.write("mlhost.yaml", "permissions: { exec: ['git *'], net: [10.0.0.0/8], write: [out/x], deny: { env: [SECRET] } }\n")
    w.write("a.lua", '''pipeline "p" { permissions = { exec = { "git", "git log" }, env = { "SECRET" } } }
stage "s" { permissions = { net = { "10.1.2.3:80", "*" }, write = { "out" } }, run = function(cx) end }
''')
    status, out, err = w.run("plan", "a.lua", "--permissions", "--json", "--allow-env", "A_*")
    equal(status, 0)
    got = {(e["kind"], e["pattern"]): e for e in json.loads(out)}
    equal({k: (e["granted"], e["by"], e["asked"]) for k, e in got.items()}, {
        ("exec", "git"): (True, "mlhost.yaml", "pipeline"), ("exec", "git log"): (True, "mlhost.yaml", "pipeline"),
        ("env", "SECRET"): (False, "mlhost.yaml", "pipeline"), ("net", "10.1.2.3:80"): (True, "mlhost.yaml", "a.lua:2"),
        ("net", "*"): (False, "not in the operator's bound", "a.lua:2"), ("write", "out"): (True, "mlhost.yaml", "a.lua:2")})
    equal(got["write", "out"]["part"], "out/x")
    status, out, err = w.run("plan", "a.lua", "--permissions", "--strict")
    equal(status, 4)
    has(out, "denied", "part", "only out/x")


@test
def nothing_of_the_hosts_own_is_granted(w):
    w.write("mlhost.yaml", "permissions: { exec: [sh], write: ['/'], read: ['/'] }\n")
    w.write("a.lua", '''pipeline "p" { permissions = { exec = { "sh" }, write = { "/" }, read = { "/" } } }
local fs, exec = require "fs", require "exec"
stage "a" { run = function(cx) fs.write(cx.out "f", "of a") return cx.out "f" end }
stage "b" { needs = { "a" }, run = function(cx)
  local denied = {}
  for name, fn in pairs {
    journal = function() return fs.read(".mlhost/runs/" .. cx.run_id .. "/journal.jsonl") end,
    list = function() return fs.list ".mlhost" end, state = function() fs.write(".mlhost/x", "") end,
    config = function() fs.write("mlhost.yaml", "") end, above = function() fs.remove "." end,
    other = function() fs.write(cx.needs.a, "") end,
  } do local _, err = try(fn) denied[name] = err and err.code end
  local sh = function(text) return exec({ "sh", "-c", text, check = false, quiet = true }) end
  return { denied = denied, read = fs.read(cx.needs.a), cat = sh("cat " .. cx.needs.a).out,
    own = sh("echo mine > " .. cx.out "m" .. "; cat " .. cx.out "m").out, write = sh("echo > mlhost.yaml").status ~= 0,
    other = sh("echo > " .. cx.needs.a).status ~= 0, seen = sh("find .mlhost -type f | wc -l").out,
    made = sh("echo x > .mlhost/forged").status }
end }
''')
    status, out, err = w.run("run", "a.lua")
    equal(status, 0, out + err)
    got = output(w, "b")
    equal(got["denied"], {name: "denied" for name in ("journal", "list", "state", "config", "above", "other")})
    equal([got[k] for k in ("read", "cat", "own", "write", "other")], ["of a", "of a", "mine\n", True, True])
    equal(got["seen"].strip(), "2")
    equal(os.path.exists(os.path.join(w.dir, ".mlhost/forged")), False)


@test
def always_runs_after_success_failure_and_timeout(w):
    w.write("a.lua", '''
stage "good" { run = function(cx) return 1 end, always = function(cx) print("always good " .. cx.status) end }
stage "bad" { run = function(cx) error "x" end, always = function(cx) print("always bad " .. cx.status) end }
stage "slow" { timeout = "500ms", run = function(cx) while true do end end,
               always = function(cx) print("always slow " .. cx.status) end }
''')
    status, out, err = w.run("run", "a.lua", "-j", "3")
    has(out, "always good ok", "always bad failed", "always slow timeout")
    assert status in (1, 3), status


# ---- cancel ----

CANCEL = '''
stage "long" { run = function(cx)
  defer(function() print "deferred ran" end)
  print "running now"
  sleep "60s"
end, always = function(cx) print("always after " .. cx.status) end }
stage "next" { needs = { "long" }, run = function(cx) end }
'''


@test
def ctrl_c_lets_stages_clean_up(w):
    w.write("a.lua", CANCEL)
    for signo in (signal.SIGINT, signal.SIGTERM):
        before = w.newest()
        p = w.start("run", "a.lua")
        w.wait_for(lambda: w.newest() != before and "running now" in open(w.newest() + "/stages/long/log.txt").read())
        begin = time.monotonic()
        p.send_signal(signo)
        out = p.communicate(timeout=30)[0].decode()
        equal(p.returncode, 130, out)
        assert time.monotonic() - begin < 15
        has(out, "cancelling", "deferred ran", "always after cancelled")
        equal((w.ends()["long"]["status"], w.ends()["next"]["status"]), ("cancelled", "cancelled"))
        no_process_left(w.dir)


@test
def a_second_ctrl_c_kills_at_once(w):
    w.write("a.lua", '''stage "stubborn" { run = function(cx)
  defer(function() sleep "30s" end)
  print "running now"
  sleep "60s"
end }''')
    p = w.start("run", "a.lua")
    w.wait_for(lambda: "running now" in open(w.newest() + "/stages/stubborn/log.txt").read())
    p.send_signal(signal.SIGINT)
    time.sleep(0.5)
    begin = time.monotonic()
    p.send_signal(signal.SIGINT)
    out = p.communicate(timeout=30)[0].decode()
    equal(p.returncode, 130, out)
    assert time.monotonic() - begin < 3, out
    no_process_left(w.dir)


# ---- resume ----

RESUME = '''
pipeline "p" { params = { n = 1 } }
stage "first" { run = function(cx) return { n = cx.params.n, resumed = cx.resumed } end }
stage "second" { needs = { "first" }, run = function(cx)
  if not require("fs").exists "go" then error "not yet" end
  return cx.needs.first.n
end }
'''


@test
def resume_goes_on_where_it_failed(w):
    w.write("a.lua", RESUME)
    equal(w.run("run", "a.lua", "-P", "n=7")[0], 1)
    run = w.newest()
    w.write("go", "")
    status, out, err = w.run("run", "--resume")
    equal(status, 0, out + err)
    equal(w.newest(), run)
    starts = [e["stage"] for e in w.journal() if e["t"] == "stage_start"]
    equal(starts, ["first", "second", "second"])
    equal(w.ends()["second"]["output"], 7)
    has(out, "resumed")
    lacks(out, "has changed")
    seqs = [e["seq"] for e in w.journal()]
    equal(seqs, list(range(1, len(seqs) + 1)))


@test
def resume_says_when_the_script_has_changed_and_refuses_parameters(w):
    w.write("a.lua", RESUME)
    w.run("run", "a.lua")
    w.write("a.lua", RESUME + "-- changed\n")
    w.write("go", "")
    status, out, err = w.run("run", "a.lua", "--resume", os.path.basename(w.newest()))
    equal(status, 0, out + err)
    has(out, "the script has changed")
    status, out, err = w.run("run", "--resume", "-P", "n=2")
    equal(status, 2)
    has(err, "keeps its parameters")
    status, out, err = w.run("run", "--resume", "19990101-000000-000000")
    equal(status, 2)
    has(err, "there is no run '19990101-000000-000000'", "mlhost runs")


@test
def kill_9_at_any_instant_loses_nothing_that_was_done(w):
    w.write("a.lua", '''
stage "a" { run = function(cx) return "a" end }
stage "b" { needs = { "a" }, run = function(cx) sleep "200ms" return "b" end }
stage "c" { needs = { "b" }, run = function(cx) sleep "200ms" return cx.needs.a end }
stage "d" { needs = { "c", "a" }, run = function(cx) return cx.needs.a .. "d" end }
''')
    w.write("a.lua", w.read("a.lua").replace('needs = { "b" }', 'needs = { "b", "a" }'))
    for moment in (0.02, 0.08, 0.2, 0.35, 0.5):
        before = w.newest()
        p = w.start("run", "a.lua")
        w.wait_for(lambda: w.newest() != before and os.path.exists(w.newest() + "/journal.jsonl"))
        time.sleep(moment)
        p.kill()
        p.communicate()
        run = w.newest()
        no_process_left(w.dir)
        done = {e["stage"] for e in w.journal(run) if e["t"] == "stage_end"}
        if not w.journal(run):
            continue  # killed before its first event: there is nothing to go on with
        status, out, err = w.run("run", "--resume", os.path.basename(run))
        equal(status, 0, out + err)
        equal(w.ends(run)["d"]["output"], "ad")
        for name in done:
            equal(sum(e["t"] == "stage_start" and e["stage"] == name for e in w.journal(run)), 1, name)


@test
def two_hosts_cannot_have_one_run(w):
    w.write("a.lua", 'stage "s" { run = function(cx) print "up" sleep "20s" end }\n')
    p = w.start("run", "a.lua")
    try:
        w.wait_for(lambda: "up" in open(w.newest() + "/stages/s/log.txt").read())
        status, out, err = w.run("run", "--resume")
        has(err, "another mlhost is working on this run")
        assert status != 0
    finally:
        p.send_signal(signal.SIGTERM)
        p.communicate(timeout=30)


@test
def one_stage_runs_with_outputs_of_an_earlier_run(w):
    w.write("a.lua", RESUME)
    status, out, err = w.run("run", "a.lua", "--stage", "second")
    equal(status, 2)
    has(err, "no run of this script ended well", "--from RUN")
    w.write("go", "")
    equal(w.run("run", "a.lua", "-P", "n=3")[0], 0)
    first = os.path.basename(w.newest())
    equal(w.run("run", "a.lua", "-P", "n=4")[0], 0)
    status, out, err = w.run("run", "a.lua", "--stage", "second")
    equal(status, 0, out + err)
    equal({k: v["output"] for k, v in w.ends().items()}, {"second": 4})
    equal(w.run("run", "a.lua", "--stage", "second", "--from", first)[0], 0)
    equal(w.ends()["second"]["output"], 3)
    status, out, err = w.run("run", "a.lua", "--stage", "secnod")
    equal(status, 2)
    has(err, "no stage 'secnod'", "did you mean 'second'?")


# ---- scripts and command lines that are wrong ----

BROKEN = {
    "syntax": ('stage "a" {\n  run = function(cx) retrun 1 end }\n', ["a.lua:2:"]),
    "unknown need": ('stage "build" { run = function(cx) end }\nstage "t" { needs = { "biuld" }, run = function(cx) end }\n',
                     ["a.lua:2:", "biuld", "did you mean 'build'?"]),
    "cycle": ('stage "a" { needs = { "b" }, run = function(cx) end }\nstage "b" { needs = { "a" }, run = function(cx) end }\n',
              ["a.lua:", "a -> b -> a"]),
    "duration": ('stage "a" { timeout = "5 fortnights",\n run = function(cx) end }\n', ["a.lua:1", "timeout", "5 fortnights"]),
    "key": ('stage "a" { tiemout = "5m", run = function(cx) end }\n', ["a.lua:1", "unknown key 'tiemout'", "did you mean 'timeout'?"]),
    "twice": ('stage "a" { run = function(cx) end }\nstage "a" { run = function(cx) end }\n', ["a.lua:2", "'a'"]),
    "global": ('stagee "a" { run = function(cx) end }\n', ["a.lua:1", "stagee"]),
    "empty": ('local x = 1\n', ["a.lua", "no stage"]),
}


@test
def broken_scripts_are_named_with_file_and_line(w):
    for name, (text, parts) in BROKEN.items():
        w.write("a.lua", text)
        status, out, err = w.run("run", "a.lua")
        equal(status, 2, f"{name}: {out}{err}")
        has(err, *parts)
        assert w.newest() is None, "a run was made of a script that is not valid"
        status, out, err = w.run("check", "a.lua")
        equal(status, 2, f"check {name}: {out}{err}")
        assert re.search(r"^\S*a\.lua:\d+:\d+: error: ", out, re.M), out
        has(out, *[p for p in parts if not p.startswith("a.lua")])
        status, out, err = w.run("check", "--json", "a.lua")
        assert json.loads(out) and status == 2
    w.write("a.lua", 'stage "a" { run = function(cx) end }\n')
    equal(w.run("check", "a.lua"), (0, "", ""))


@test
def wrong_command_lines_say_what_is_right(w):
    w.write("a.lua", 'stage "a" { run = function(cx) end }\n')
    for args, parts in ((["run"], ["run needs a script", "mlhost run pipelines/ci.lua"]),
                        (["run", "none.lua"], ["none.lua: No such file"]),
                        (["run", "."], ["is a folder"]),
                        (["run", "a.lua", "--job", "2"], ["unknown option --job", "--jobs"]),
                        (["run", "a.lua", "--jobs", "many"], ["--jobs must be a number"]),
                        (["run", "a.lua", "--output", "html"], ["unknown output 'html'", "tty, plain, json, azdo"]),
                        (["run", "a.lua", "b.lua"], ["one script"]),
                        (["run", "a.lua", "--from", "x"], ["--from goes with --stage"]),
                        (["run", "a.lua", "--profile", "nowhere"], ["nowhere"]),
                        (["plan"], ["plan takes one script"]), (["check"], ["check needs a script"]),
                        (["runs", "--limit", "x"], ["--limit must be a number"]),
                        (["logs"], ["no run"])):
        status, out, err = w.run(*args)
        equal(status, 2, f"{args}: {out}{err}")
        has(err, *parts)
    w.write("mlhost.yaml", "profil: local\n")
    status, out, err = w.run("run", "a.lua")
    equal(status, 2)
    has(err, "mlhost.yaml:1", "profil", "profile")


@test
def every_help_has_an_example(w):
    for command in ("run", "plan", "check", "runs", "logs"):
        status, out, err = w.run(command, "--help")
        equal(status, 0)
        has(out, "usage: mlhost " + command, "example", "  mlhost " + command)


# ---- plan, dry run, runs, logs ----

@test
def plan_shows_stages_as_text_json_and_mermaid(w):
    w.write("a.lua", '''pipeline "shop" { timeout = "1h", permissions = { exec = { "flake8" } } }
stage "lint" { timeout = "5m", run = function(cx) end }
stage "build" { needs = { "lint" }, matrix = { c = { "x", "y" } }, retry = 2, run = function(cx) end }
''')
    status, out, err = w.run("plan", "a.lua")
    equal(status, 0, err)
    has(out, "shop", "build  <- lint", "build[c=x]", "flake8", "5 min", "up to 2 retries", "a.lua:2")
    plan = json.loads(w.run("plan", "a.lua", "--json")[1])
    equal([s["name"] for s in plan["stages"]], ["lint", "build"])
    equal(plan["stages"][1]["cells"], ["build[c=x]", "build[c=y]"])
    equal(plan["timeout_ms"], 3600000)
    has(w.run("plan", "a.lua", "--mermaid")[1], "flowchart", "s0 --> s1", 's1["build x 2"]')
    lacks(w.run("plan", "a.lua", "--allow-net", "h")[1], "flake8")
    status, out, err = w.run("run", "a.lua", "--dry-run")
    equal(status, 0, err)
    has(out, "would run:", "build[c=y]", "flake8")
    assert w.newest() is None


@test
def runs_and_logs_tell_what_was(w):
    w.write("a.lua", 'stage "s" { matrix = { n = { 1, 2 } }, run = function(cx) print("line " .. cx.matrix.n) end }\n')
    has(w.run("runs")[1], "no runs yet")
    w.run("run", "a.lua")
    run = os.path.basename(w.newest())
    has(w.run("runs")[1], run, "ok", "2/2")
    listed = json.loads(w.run("runs", "--json")[1])
    equal(listed[0]["stages"], {"s[n=1]": "ok", "s[n=2]": "ok"})
    has(w.run("logs")[1], "line 1", "line 2")
    one = w.run("logs", run[:18], "s[n=2]")[1]
    has(one, "line 2")
    lacks(one, "line 1")
    status, out, err = w.run("logs", run, "t")
    equal(status, 2)
    has(err, "no stage 't'", "s[n=1]")


# ---- renderers and reports ----

NOISY = '''
local secret = require "secret"
pipeline "noisy" { permissions = { env = { "PASSWORD" }, exec = { "cat" } } }
stage "s" { run = function(cx)
  local pw = secret.get "PASSWORD"
  log.warning "careful"
  progress("layers", 1, 2, "layers")
  set_variable("RUN_ID", "a;b]c", { output = true })
  print "##vso[task.complete result=Succeeded;]faked"
  print "  ::error::faked"
  print "\\27[31mred\\27[0m"
  print "the password is correct-horse-battery"
  require("exec") { "cat", input = "##[group]out correct-horse-battery\\n" }
  report.link("model", "https://example.com/model")
  report.summary("**all** is well", "quality")
end }
stage "fails" { run = function(cx)
  secret.get "PASSWORD"
  error "no correct-horse-battery here"
end }
'''
PASSWORD = {"PASSWORD": "correct-horse-battery"}


@test
def secrets_are_masked_and_output_is_data_in_every_renderer(w):
    w.write("a.lua", NOISY)
    for kind in ("plain", "tty", "json", "azdo"):
        status, out, err = w.run("run", "a.lua", "--keep-going", "--verbose", "--output", kind, env=PASSWORD)
        equal(status, 1, out + err)
        lacks(out + err, "correct-horse-battery")
        has(out, "***", "faked")
        lacks(out, "##vso[task.complete result=Succeeded;]faked", "\n##[group]out")
        if kind != "json":
            lacks(out, "::error::faked", "[31m" + "red")
            has(out, "**vso[task.complete result=Succeeded;]faked", "https://example.com/model")
        for folder, _, names in os.walk(w.newest()):
            for name in names:
                with open(os.path.join(folder, name), errors="replace") as f:
                    lacks(f.read(), "correct-horse-battery")


GRANTED = '''
pipeline "granted" { permissions = { exec = { "cat" } } }
local text = "##vso[build.addbuildtag]good\\n::notice::good\\n\\27[2Jgood\\n"
stage "may" { permissions = { ci = { "commands" } }, run = function() require "exec" { "cat", input = text } end }
stage "may_not" { run = function() require "exec" { "cat", input = text } end }
'''


@test
def commands_to_the_agent_pass_where_they_were_granted(w):
    w.write("a.lua", GRANTED)

    def printed(*args):
        status, out, err = w.run("run", "a.lua", *args)
        equal(status, 0, out + err)
        return "\n" + out

    for kind, may in (("plain", True), ("azdo", True), ("tty", False), ("json", False)):
        out = printed("--output", kind, "--stage", "may")
        (has if may else lacks)(out, "##vso[build.addbuildtag]good", "\n::notice::good")
        lacks(out, "\x1b[2J")
        lacks(printed("--output", kind, "--stage", "may_not"), "##vso[build.addbuildtag]good", "\n::notice::good")
    # The operator's bound holds it or does not.
    lacks(printed("--output", "azdo", "--allow-exec", "cat"), "##vso[build.addbuildtag]good")
    out = printed("--output", "azdo", "--allow-exec", "cat", "--allow-ci", "commands")
    equal(out.count("##vso[build.addbuildtag]good"), 1, out)
    status, out, err = w.run("logs")
    has(out, "**vso[build.addbuildtag]good")
    lacks(out, "##vso[build.addbuildtag]good")
    w.write("b.lua", GRANTED.replace('"commands"', '"comands"'))
    status, out, err = w.run("run", "b.lua")
    equal(status, 1, out + err)
    has(out + err, "ci can be \"commands\", not 'comands'")


@test
def azure_devops_is_noticed_and_spoken_to(w):
    w.write("a.lua", NOISY)
    status, out, err = w.run("run", "a.lua", "--keep-going", env={**PASSWORD, "TF_BUILD": "True"})
    equal(status, 1, out + err)
    lines = out.splitlines()
    assert "##[group]s" in lines and "##[endgroup]" in lines, out
    assert "##vso[task.setvariable variable=RUN_ID;isOutput=true;]a;b]c" in lines, out
    assert any(l.startswith("##vso[task.logissue type=error;sourcepath=") and "linenumber=19;" in l for l in lines), out
    assert "##vso[task.uploadsummary]" + w.newest() + "/report.md" in lines, out
    has(out, "##vso[results.publish type=JUnit;resultFiles=" + w.newest() + "/junit.xml;")
    assert "##vso[task.setprogress value=100;]2 of 2 stages" in lines, out
    equal(lines[-1], "##vso[task.complete result=Failed;]failed")
    for line in lines:
        if "##vso[" in line:
            assert re.match(r"##vso\[(task|results)\.[a-z]+( ([a-zA-Z]+=[^;\]\r\n]*;)+)?\][^\r\n]*$", line), line
    w.write("b.lua", 'stage "s" { run = function(cx) end }\n')
    out = w.run("run", "b.lua", "-o", "azdo")[1]
    equal(out.splitlines()[-1], "##vso[task.complete result=Succeeded;]ok")


@test
def a_secret_variable_goes_to_the_agent_only(w):
    w.write("a.lua", 'stage "s" { run = function(cx) set_variable("TOKEN", "tok-4711-x", { secret = true, output = true }) end }\n')
    out = w.run("run", "a.lua", "-o", "azdo")[1]
    has(out, "##vso[task.setvariable variable=TOKEN;isOutput=true;issecret=true;]tok-4711-x")
    for kind in ("plain", "json", "tty"):
        out = w.run("run", "a.lua", "-o", kind)[1]
        has(out, "TOKEN", "***")
        lacks(out, "tok-4711-x")
        lacks(open(w.newest() + "/journal.jsonl").read(), "tok-4711-x")


@test
def a_terminal_shows_running_stages_and_survives_a_resize(w):
    import fcntl, pty, struct, termios
    w.write("a.lua", '''
stage "short" { run = function(cx) print "a line of the short one" end }
stage "long" { run = function(cx) for i = 1, 12 do progress("some layers of an image with a long name", i, 12) sleep "100ms" end end }
''')
    pid, fd = pty.fork()
    if pid == 0:
        os.chdir(w.dir)
        os.execve(PROGRAM, [PROGRAM, "run", "a.lua"], w.env({"TERM": "xterm", "NO_COLOR": ""}))
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    out, resized = b"", False
    while True:
        try:
            piece = os.read(fd, 65536)
        except OSError:
            break
        if not piece:
            break
        out += piece
        if not resized and b"25%" in out:
            resized = True
            fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.close(fd)
    text = out.decode(errors="replace")
    equal(status, 0, text)
    has(text, "\x1b[J", "long  ", "%", "short | ", "a line of the short one", "2 ok", "report:")
    assert resized
    after = text[text.index("50%"):] if "50%" in text else text
    for line in re.split(r"\r?\n", after):
        if "\u25b8" in line:
            plain = re.sub(r"\x1b\[[0-9;]*[A-Za-z]|\r", "", line)
            assert len(plain) < 40, plain


@test
def json_output_is_the_stream_of_events(w):
    w.write("a.lua", 'stage "s" { run = function(cx) print "x" return { 1 } end }\n')
    status, out, err = w.run("run", "a.lua", "--json")
    events = [json.loads(line) for line in out.splitlines()]
    kinds = [e["t"] for e in events]
    equal(kinds[0], "run_start")
    assert "output" in kinds or "log" in kinds
    has(" ".join(kinds), "stage_start", "stage_end", "run_end")


@test
def reports_are_well_formed(w):
    w.write("a.lua", '''
local fs = require "fs"
stage "lint" { run = function(cx)
  fs.write(cx.out "lint.xml", '<testsuite name="lint" tests="1"><testcase name="a &amp; b"/></testsuite>')
  fs.write(cx.out "bad.xml", '<testsuite><oops></testsuite>')
  report.junit(cx.out "lint.xml")
  report.junit(cx.out "bad.xml")
end }
stage "bad|stage" { run = function(cx) error "<b>& \\"quoted\\" | 50%" end }
stage "after" { needs = { "bad|stage" }, run = function(cx) end }
''')
    status, out, err = w.run("run", "a.lua", "--keep-going", "--junit", "j.xml", "--summary", "s.md")
    equal(status, 1, out + err)
    equal(w.read("j.xml"), open(w.newest() + "/junit.xml").read())
    root = ElementTree.parse(w.dir + "/j.xml").getroot()
    suites = {s.get("name"): s for s in root.findall("testsuite")}
    equal(set(suites), {"a", "lint"})
    equal((suites["a"].get("tests"), suites["a"].get("failures"), suites["a"].get("skipped")), ("3", "1", "1"))
    has(suites["a"].find("testcase[@name='bad|stage']/failure").get("message"), '<b>& "quoted" | 50%')
    has(out, "left out of junit.xml", "bad.xml")
    summary = w.read("s.md")
    has(summary, "# a: failed", "bad\\|stage", "## What failed")
    table = [l for l in summary.splitlines() if l.startswith("|")]
    for line in table[:5]:
        equal(len(re.findall(r"(?<!\\)\|", line)), 6, line)


@test
def services_start_when_they_are_called_and_end_with_the_run(w):
    w.write("a.lua", 'stage "quiet" { run = function(cx) end }\n')
    equal(w.run("run", "a.lua")[0], 0)
    assert not os.path.exists(w.dir + "/.mlhost/local/serve.log"), "a run without services started them"
    w.write("b.lua", '''
stage "use" { run = function(cx)
  local experiment = require("mlflow").connect():experiment "digits"
  return experiment.name
end }
''')
    status, out, err = w.run("run", "b.lua")
    equal(status, 0, out + err)
    equal(w.ends()["use"]["output"], "digits")
    assert os.path.exists(w.dir + "/.mlhost/local/serve.log")
    no_process_left(w.dir)


@test
def a_killed_host_leaves_nothing_that_the_next_run_does_not_clear_away(w):
    sockets = tempfile.mkdtemp(prefix="mlhost-run-")
    env = {"XDG_RUNTIME_DIR": sockets}
    try:
        w.write("a.lua", 'stage "s" { run = function(cx) print "up" sleep "20s" end }\n')
        p = w.start("run", "a.lua", env=env)
        w.wait_for(lambda: "up" in open(w.newest() + "/stages/s/log.txt").read())
        equal(len(glob.glob(sockets + "/*.sock")), 1)
        w.write("b.lua", 'stage "s" { run = function(cx) end }\n')
        equal(w.run("run", "b.lua", env=env)[0], 0)
        equal(len(glob.glob(sockets + "/*.sock")), 1)  # of the run that lives
        p.kill()
        p.communicate()
        no_process_left(w.dir)
        equal(w.run("run", "b.lua", env=env)[0], 0)
        equal(os.listdir(sockets), [])
    finally:
        shutil.rmtree(sockets)


@test
def a_closed_pipe_does_not_end_the_run(w):
    w.write("a.lua", 'stage "s" { run = function(cx) for i = 1, 2000 do print("line " .. i) end end }\n')
    p = w.start("run", "a.lua")
    p.stdout.read(10)
    p.stdout.close()
    equal(p.wait(timeout=30), 0)
    equal(w.ends()["s"]["status"], "ok")
    has(open(w.newest() + "/stages/s/log.txt").read(), "line 2000")


def main():
    passed = failed = 0
    for fn in TESTS:
        if ONLY and not any(word in fn.__name__ for word in ONLY):
            continue
        w = Workspace()
        begin = time.monotonic()
        try:
            fn(w)
            passed += 1
            print(f"ok    {fn.__name__.replace('_', ' ')} ({time.monotonic() - begin:.1f} s)", flush=True)
        except Exception as problem:  # a test that breaks is a test that fails
            failed += 1
            text = str(problem) if isinstance(problem, AssertionError) else traceback.format_exc()
            print(f"FAIL  {fn.__name__.replace('_', ' ')}\n      " + text[:3000].replace("\n", "\n      "), flush=True)
        finally:
            w.close()
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
