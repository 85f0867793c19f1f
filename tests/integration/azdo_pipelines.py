#!/usr/bin/env python3
"""The pipelines in .azdo/, with their template expressions worked out for each choice of parameters: they hold no secret, and the
scripts of their steps are run. `exec` must hand over to the program, which checks flags, script and parameters with --dry-run; CD
must find the run that CI, in either of its forms, has published. usage: azdo_pipelines.py [MLHOST]"""
import json
import os
import re
import subprocess
import sys
import tempfile

import yaml

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "../.."))
PROGRAM = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("MLHOST", "build/mlhost"))
RUN = "6b1f9a52-0000-4000-8000-000000000001"
passed = failed = 0


def check(name, good, why=""):
    global passed, failed
    passed, failed = passed + bool(good), failed + (not good)
    if not good:
        print("not ok %s: %s" % (name, why))


def term(text, parameters):
    """The part of the template language that the files use."""
    text = text.strip()
    call = re.fullmatch(r"(eq|not)\((.*)\)", text)
    if call:
        values = [term(one, parameters) for one in re.findall(r"(?:'[^']*'|[^,'])+", call[2])]
        return values[0] == values[1] if call[1] == "eq" else not values[0]
    if re.fullmatch(r"'[^']*'", text):
        return text[1:-1]
    return parameters[re.fullmatch(r"parameters\.(\w+)", text)[1]]


def expand(node, parameters, folder):
    if isinstance(node, dict):
        return {name: expand(value, parameters, folder) for name, value in node.items()}
    if isinstance(node, list):
        return expand_list(node, parameters, folder)
    if isinstance(node, str):
        return re.sub(r"\$\{\{(.*?)\}\}", lambda m: str(term(m[1], parameters)), node)
    return node


def expand_list(items, parameters, folder):
    found, taken = [], True
    for item in items:
        only = next(iter(item)) if isinstance(item, dict) and len(item) == 1 else ""
        control = re.fullmatch(r"\$\{\{\s*(if|else)\b(.*?)\}\}", only)
        if control:
            taken = term(control[2], parameters) if control[1] == "if" else not taken
            found += expand(item[only], parameters, folder) if taken else []
        elif isinstance(item, dict) and "template" in item:
            found += load(os.path.join(folder, item["template"]), expand(item.get("parameters", {}), parameters, folder))["steps"]
        else:
            found.append(expand(item, parameters, folder))
    return found


def load(path, given):
    with open(path) as f:
        pipeline = yaml.safe_load(f)
    parameters = {one["name"]: one.get("default") for one in pipeline.pop("parameters", [])}
    unknown = set(given) - set(parameters)
    if unknown:
        raise KeyError("%s has no parameter %s" % (path, unknown))
    parameters.update(given)
    check("%s: parameters" % path, None not in parameters.values(), parameters)
    return expand(pipeline, parameters, os.path.dirname(path))


def jobs(node):
    """Every list of steps with the job that has it, in order."""
    if isinstance(node, dict):
        if "steps" in node:
            yield node
        for value in node.values():
            yield from jobs(value)
    elif isinstance(node, list):
        for value in node:
            yield from jobs(value)


class Agent:
    """A job's workspace and its bash steps; the program is asked with --dry-run, and what it was asked is kept."""

    def __init__(self, folder):
        self.folder, self.asked = folder, os.path.join(folder, "asked")
        self.program = os.path.join(folder, "mlhost")
        with open(self.program, "w") as f:
            f.write("#!/bin/bash\nprintf '%%s\\n' \"$@\" >'%s'\nexec '%s' \"$@\" --dry-run\n" % (self.asked, PROGRAM))
        os.chmod(self.program, 0o755)

    def macros(self, text, variables):
        return re.sub(r"\$\(([\w.]+)\)", lambda m: variables.get(m[1], m[0]), text)

    def bash(self, step, variables):
        """-> exit status, output, the program's arguments"""
        if os.path.exists(self.asked):
            os.unlink(self.asked)
        variables = {"MLHOST": self.program, "Pipeline.Workspace": self.folder, **variables}
        env = {name: self.macros(value, variables) for name, value in step.get("env", {}).items()}
        env["PROFILE"] = "local"  # the profile of a team is in its mlhost.yaml
        done = subprocess.run(["bash", "-c", self.macros(step["bash"], variables)], cwd=ROOT, capture_output=True, text=True,
                              timeout=120, stdin=subprocess.DEVNULL,
                              env={**os.environ, "MLHOST_STATE": self.folder + "/state", "PIPELINE_WORKSPACE": self.folder, **env})
        asked = open(self.asked).read().splitlines() if os.path.exists(self.asked) else None
        return done.returncode, done.stdout + done.stderr, asked


def calls(step):
    return "run pipelines/" in step.get("bash", "")


def common(name, pipeline):
    for job in jobs(pipeline):
        for step in job["steps"]:
            check(name + " publishes results by the program", "PublishTestResults" not in json.dumps(step), step)
            if calls(step):
                last = step["bash"].replace("\\\n", " ").strip().splitlines()[-1]
                check(name + ": exec", last.startswith('exec "$(MLHOST)" run '), last)
            for variable, value in step.get("env", {}).items():
                secret = re.search("TOKEN|SECRET|PASSWORD", variable)
                check(name + " " + variable, not secret or re.fullmatch(r"\$\([\w.]+\)", value), "a secret is mapped as $(NAME)")
                check(name + " has no secrets", not name.startswith("pr") or not secret, variable)


def called(agent, name, pipeline, variables, *wanted):
    """Runs each step that calls the program; it must have been asked with the wanted arguments."""
    steps = [step for job in jobs(pipeline) for step in job["steps"] if calls(step)]
    check(name + " calls the program", len(steps) == len(wanted), len(steps))
    for step, words in zip(steps, wanted):
        status, output, asked = agent.bash(step, variables)
        check("%s: %s" % (name, step["displayName"]), status == 0, output)
        check("%s: %s: arguments" % (name, step["displayName"]), asked and set(words) <= set(asked), asked)


def published(agent, name, pipeline, variables):
    """The artifacts of the pipeline, after the steps that make them were run: name -> text of its file `id`."""
    found = {}
    for job in jobs(pipeline):
        for at, step in enumerate(job["steps"]):
            if "publish" not in step:
                continue
            maker = job["steps"][at - 1]
            status, output, _ = agent.bash(maker, {})
            check(name + ": no run, no artifact", status == 1 and "##vso[task.logissue type=error]" in output, output)
            given = {**{k: variables[v] for k, v in job.get("variables", {}).items()}, **variables}
            status, output, _ = agent.bash(maker, given)
            check(name + ": " + maker["displayName"], status == 0, output)
            folder = step["publish"].replace("$(Pipeline.Workspace)", agent.folder)
            check(name + ": one artifact of a name", step["artifact"] not in found, step["artifact"])
            found[step["artifact"]] = open(folder + "/id").read()
    return found


def main(folder):
    agent = Agent(folder)
    azdo = os.path.join(ROOT, ".azdo")
    pr = load(azdo + "/pr.yml", {})
    common("pr", pr)
    called(agent, "pr", pr, {}, ["run", "pipelines/pr.lua"])

    artifacts = None
    for wait, source in ((True, "mlhost.KF_RUN_ID"), (False, "$[ dependencies.handover.outputs['kubeflow.KF_RUN_ID'] ]")):
        name = "ci, waitForRun %s" % wait
        ci = load(azdo + "/ci.yml", {"waitForRun": wait})
        common(name, ci)
        called(agent, name, ci, {}, ["pipelines/ci.lua"] if wait else ["pipelines/ci.lua", "train=false"])
        artifacts = published(agent, name, ci, {source: RUN})
        check(name + ": the artifact", artifacts == {"kubeflow_run": RUN + "\n"}, artifacts)
        names = {job.get("job"): job for job in jobs(ci)}
        if not wait:
            server = names["handover"]["steps"][0]
            check(name + ": the server job waits", server["inputs"]["waitForCompletion"] == "true" and server["name"] == "kubeflow")
            body = json.loads(server["inputs"]["body"])
            info = json.loads(body["runtime_config"]["parameters"]["azdocallbackinfo"])
            wanted = {"PlanUri", "ProjectId", "HubName", "PlanId", "JobId", "TimelineId", "TaskInstanceId"}
            check(name + ": what the callback needs", set(info) == wanted, info)
            check(name + ": the order", names["handover"]["dependsOn"] == "ci" and names["note"]["dependsOn"] == "handover")

    for run_id in (" ", "by-hand-7"):
        name = "cd, runId '%s'" % run_id
        cd = load(azdo + "/cd.yml", {"runId": run_id})
        common(name, cd)
        downloads = [step for job in jobs(cd) for step in job["steps"] if "download" in step]
        check(name + ": what it downloads", [d["artifact"] for d in downloads] == (2 * list(artifacts) if run_id == " " else []),
              downloads)
        place = folder + "/ci/kubeflow_run"  # where `download: ci` puts it
        if run_id == " ":
            os.makedirs(place)
            with open(place + "/id", "w") as f:
                f.write(artifacts["kubeflow_run"])
        wanted = "run_id=" + (RUN if run_id == " " else run_id)
        called(agent, name, cd, {}, ["pipelines/cd.lua", "to=qa", wanted], ["to=prod", "approval=environment", wanted])
        if run_id == " ":
            os.unlink(place + "/id")


with tempfile.TemporaryDirectory() as work:
    main(work)
print("%d passed, %d failed" % (passed, failed))
sys.exit(failed > 0)
