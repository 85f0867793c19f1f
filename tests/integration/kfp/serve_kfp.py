"""The official kfp SDK client, unmodified, against `mlhost serve`: uploads, runs that really run, and what goes wrong."""
import base64
import json
import os
import signal
import sys
import tempfile
import time
import traceback
import urllib.error
import urllib.request
import warnings

warnings.filterwarnings("ignore")
sys.path.insert(0, os.path.dirname(__file__))

import kfp  # noqa: E402
import kfp_server_api  # noqa: E402
from kfp import compiler  # noqa: E402

import pipelines  # noqa: E402
from server import Server  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
TIMEOUT = 120


class World:
    """The server, the client, and short words for what the tests do with them."""

    def __init__(self, server):
        self.server, self.folder = server, tempfile.mkdtemp(dir=server.workspace)
        self.client = kfp.Client(host=server.url)

    def package(self, function):
        path = os.path.join(self.folder, function.name + ".yaml")
        compiler.Compiler().compile(function, path)
        return path

    def start(self, what, arguments=None, **more):
        path = what if isinstance(what, str) else self.package(what)
        return self.client.create_run_from_pipeline_package(path, arguments=arguments or {}, **more).run_id

    def wait(self, run_id):
        return self.client.wait_for_run_completion(run_id, timeout=TIMEOUT, sleep_duration=0.2)

    def run(self, what, arguments=None, expect="SUCCEEDED", **more):
        run = self.wait(self.start(what, arguments, **more))
        told = "%s: %s\n%s" % (run.state, run.error and run.error.message,
                               "\n".join("  %s %s %s" % (t.display_name, t.state, t.error and t.error.message)
                                         for t in run.run_details.task_details or []))
        assert run.state == expect, told
        return run

    def get(self, path):
        with urllib.request.urlopen(self.server.url + path) as reply:
            return reply.read().decode()

    def log(self, run, task):
        return self.get("/apis/v1alpha1/runs/%s/nodes/%s/log" % (run.run_id, urllib.request.quote(task)))

    def result(self, run, key):
        with open(os.path.join(self.server.state, "runs", run.run_id, "tasks", key, "result.json")) as text:
            return json.load(text)["result"]


def states(run):
    return {t.display_name: t.state for t in run.run_details.task_details}


def golden(name):
    return os.path.join(HERE, "golden", name + ".yaml")


def test_upload_run_wait(w):
    path = w.package(pipelines.training)
    pipeline = w.client.upload_pipeline(path, pipeline_name="training", description="d")
    version = w.client.upload_pipeline_version(path, pipeline_version_name="v2", pipeline_id=pipeline.pipeline_id)
    experiment = w.client.create_experiment("digits")
    assert w.client.create_experiment("digits").experiment_id == experiment.experiment_id
    run = w.client.run_pipeline(experiment.experiment_id, "first", pipeline_id=pipeline.pipeline_id,
                                version_id=version.pipeline_version_id, params={"epochs": 3})
    done = w.wait(run.run_id)
    assert done.state == "SUCCEEDED", done.error
    assert done.experiment_id == experiment.experiment_id
    assert done.pipeline_version_reference.pipeline_version_id == version.pipeline_version_id
    assert states(done) == {"training": "SUCCEEDED", "train": "SUCCEEDED", "evaluate": "SUCCEEDED"}, states(done)
    assert done.finished_at >= done.created_at
    assert "training 3" in w.log(done, "train") and "from the image" in w.log(done, "train")
    data = json.loads(w.get("/apis/v2beta1/runs/%s/nodes/root.evaluate/artifacts/report:read" % run.run_id))["data"]
    text = base64.b64decode(data).decode()
    assert text.startswith("0.5 from minio://mlpipeline/v2/artifacts/training/%s/" % run.run_id), text


def test_lists_and_gets(w):
    path = w.package(pipelines.stamps)
    made = w.client.upload_pipeline(path, pipeline_name="listed")
    assert w.client.get_pipeline_id("listed") == made.pipeline_id
    assert w.client.get_pipeline(made.pipeline_id).display_name == "listed"
    version = w.client.list_pipeline_versions(made.pipeline_id).pipeline_versions[0]
    assert version.pipeline_spec["pipelineInfo"]["name"] == "stamps"
    assert w.client.get_pipeline_version(made.pipeline_id, version.pipeline_version_id).display_name == "listed"
    first = w.client.list_pipelines(page_size=1)
    second = w.client.list_pipelines(page_size=1, page_token=first.next_page_token)
    assert first.pipelines[0].pipeline_id != second.pipelines[0].pipeline_id
    found = w.client.list_pipelines(filter=json.dumps({"predicates": [
        {"operation": "EQUALS", "key": "display_name", "string_value": "listed"}]}))
    assert found.total_size == 1
    names = [e.display_name for e in w.client.list_experiments(sort_by="created_at asc").experiments]
    assert names[0] == "Default"
    assert w.client.get_experiment(experiment_name="Default").storage_state == "AVAILABLE"
    assert w.client.list_runs(page_size=1).runs
    w.client.delete_pipeline_version(made.pipeline_id, version.pipeline_version_id)
    w.client.delete_pipeline(made.pipeline_id)
    try:
        w.client.get_pipeline(made.pipeline_id)
        raise AssertionError("still there")
    except kfp_server_api.ApiException as err:
        assert err.status == 404 and "not found" in err.body


def test_errors_are_said_to_the_client(w):
    cases = [
        (lambda: w.client.upload_pipeline(golden("no_name"), pipeline_name="x"), 400, "pipelineInfo.name"),
        (lambda: w.client.get_run("none"), 404, "run none not found"),
        (lambda: w.start(pipelines.training, {"epochs": "three"}), 400, "'epochs' must be an integer"),
        (lambda: w.start(pipelines.training, {"epoch": 3}), 400, "has no parameter 'epoch'; it has: epochs"),
        (lambda: w.start(pipelines.importing), 400, "'uri' (STRING) is missing"),
    ]
    for call, status, text in cases:
        try:
            call()
        except kfp_server_api.ApiException as err:
            assert err.status == status and text in err.body, (err.status, err.body)
        else:
            raise AssertionError("no error: " + text)


def test_conditions(w):
    for side, text in (("heads", "it was heads"), ("tails", "it was tails"), ("edge", "it was neither")):
        run = w.run(pipelines.branches, {"side": side})
        assert "says %s!" % text in w.log(run, "root.say-4"), w.log(run, "root.say-4")
        ran = [t for t in run.run_details.task_details if t.display_name.startswith("condition-") and t.state == "SKIPPED"]
        assert len(ran) == 2, states(run)


def test_loops(w):
    run = w.run(pipelines.loops, {"numbers": [5, 6, 7]})
    assert w.result(run, "root.join")["parameters"]["out"] == "[10,12,14]"
    tasks = run.run_details.task_details
    assert len([t for t in tasks if t.display_name == "number"]) == 3
    assert len([t for t in tasks if t.display_name == "big"]) == 1
    assert all(t.parent_task_id for t in tasks if t.display_name != "loops")


def test_exit_handler_and_failure(w):
    run = w.run(pipelines.handled, {"message": "it broke"}, expect="FAILED")
    got = states(run)
    assert got["fail"] == "FAILED" and got["show"] == "SKIPPED" and got["report-status"] == "SUCCEEDED", got
    assert "exit status 3" in run.error.message and "it broke" in run.error.message, run.error.message
    status = json.loads(w.log(run, "report-status").split("status: ", 1)[1])
    assert status["state"] == "FAILED" and status["pipelineTaskName"] == "exit-handler-1"
    assert "it broke" in status["error"]["message"]
    again = w.client.get_run(run.run_id)
    assert again.state_history[-1].state == "FAILED"


def test_environment_of_a_task(w):
    os.makedirs(os.path.join(w.server.state, "secrets", "api"), exist_ok=True)
    secret = os.path.join(w.server.state, "secrets", "api", "token")
    run = w.run(pipelines.environments, expect="FAILED")
    assert "secrets/api/token" in run.error.message, run.error.message
    with open(secret, "w") as out:
        out.write("s3cr3t-token")
    run = w.run(pipelines.environments)
    out = w.result(run, "root.environment")["parameters"]["out"]
    assert out["image"] == "yes" and out["cwd"] == "/data" and out["home"] == "/root" and out["user"] == "0", out
    assert out["secret"] == "s3cr3t-token" and out["url"] == w.server.url and out["root"] == "x", out
    log = w.log(run, "environment")
    assert "the token is ***" in log and "s3cr3t-token" not in log, log
    assert "nodeSelector" in log


def test_volumes_and_retries(w):
    run = w.run(pipelines.volumes)
    tried = [t for t in run.run_details.task_details if t.display_name == "flaky"][0]
    assert [h.state for h in tried.state_history].count("RUNNING") == 3, tried.state_history
    log = w.log(run, "flaky")
    assert "try 0" in log and "try 2" in log and "attempt 2 of 4 failed" in log, log
    assert not os.path.exists(os.path.join(w.server.state, "volumes", "tries"))


def test_cache(w):
    def outputs(run):
        return [w.result(run, "root." + name)["parameters"]["when"] for name in ("stamp", "stamp-2")]
    first = w.run(pipelines.stamps, {"text": "cache me"})
    one = outputs(first)
    second = w.run(pipelines.stamps, {"text": "cache me"})
    assert "cached: the outputs of run %s" % first.run_id in w.log(second, "root.stamp-2")
    assert outputs(w.run(pipelines.stamps, {"text": "cache me"}, enable_caching=False)) != one
    assert outputs(w.run(pipelines.stamps, {"text": "another"})) != one
    third = w.run(pipelines.training)
    with open(os.path.join(w.server.state, "runs", third.run_id, "tasks", "root.train", "log.txt")) as log:
        assert "cached" in log.read()


def test_terminate(w):
    run_id = w.start(pipelines.sleepers)
    deadline = time.time() + 60
    while "begin" not in (w.log(w.client.get_run(run_id), "sleeper") if task_named(w, run_id, "sleeper") else ""):
        assert time.time() < deadline
        time.sleep(0.1)
    began = time.time()
    w.client.terminate_run(run_id)
    run = w.wait(run_id)
    assert run.state == "FAILED" and "terminated" in run.error.message, run
    assert time.time() - began < 20
    got = states(run)
    assert got["sleeper"] == "CANCELED" and got["report-status"] == "SUCCEEDED", got
    assert [h.state for h in run.state_history] == ["PENDING", "RUNNING", "CANCELING", "FAILED"], run.state_history


def task_named(w, run_id, name):
    return [t for t in w.client.get_run(run_id).run_details.task_details or [] if t.display_name == name]


def test_timeout(w):
    run = w.run(pipelines.timeouts, expect="FAILED")
    assert "did not end in time" in run.error.message, run.error.message


def test_retry_of_a_run(w):
    secret = os.path.join(w.server.state, "secrets", "api", "token")
    os.remove(secret)
    run = w.run(pipelines.environments, expect="FAILED")
    with open(secret, "w") as out:
        out.write("back")
    w.client._run_api.run_service_retry_run(run_id=run.run_id)
    run = w.wait(run.run_id)
    assert run.state == "SUCCEEDED", run
    w.client.archive_run(run.run_id)
    assert w.client.get_run(run.run_id).storage_state == "ARCHIVED"
    w.client.delete_run(run.run_id)
    assert not os.path.exists(os.path.join(w.server.state, "runs", run.run_id))


def test_placeholders(w):
    run = w.run(pipelines.placeholders)
    assert "<a b> no second" in w.log(run, "root.words"), w.log(run, "root.words")
    assert "<run %s> second: two" % run.run_id in w.log(run, "both"), w.log(run, "both")


def test_importer(w):
    model = os.path.join(w.server.workspace, "models")
    os.makedirs(model)
    with open(os.path.join(model, "weights"), "w") as out:
        out.write("weights 3\n")
    w.run(pipelines.importing, {"uri": "file://" + model})
    run = w.run(pipelines.importing, {"uri": "file:///etc"}, expect="FAILED")
    assert "outside of the workspace" in run.error.message, run.error.message


def test_unknown_image(w):
    run = w.run(pipelines.unknown_image, expect="FAILED")
    assert "registry.example.com/team/none:7" in run.error.message and "skopeo copy" in run.error.message, run.error


def test_memory_limit(w):
    run = w.run(pipelines.limits)
    assert int(w.result(run, "root.limited")["parameters"]["out"]) <= 262144


def test_user_and_entrypoint_of_the_image(w):
    w.server.push(["as-app:1"], {"Env": ["PATH=/bin"], "User": "app", "Entrypoint": ["sh"], "Cmd": ["-c", "exit 8"]})
    run = w.run(pipelines.users)
    assert w.result(run, "root.whoami")["parameters"]["out"] == "app /home"


def test_links_of_a_task_lead_nowhere(w):
    """What a task leaves where the runner, or the next task, will read may be a link to any file of this machine."""
    secret = os.path.join(w.server.workspace, "host-file")
    with open(secret, "w") as out:
        out.write("not for tasks")
    run = w.run(pipelines.linked_parameter, {"target": secret}, expect="FAILED")
    assert "wrote no output parameter 'out'" in run.error.message, run.error.message
    run = w.run(pipelines.linked_artifact, {"target": secret}, expect="FAILED")
    assert "not for tasks" not in w.log(run, "read"), w.log(run, "read")
    assert task_named(w, run.run_id, "link-artifact")[0].state == "SUCCEEDED"


def test_goldens_of_the_sdk(w):
    cases = [
        ("hello_world", {}, "echo", "hello world"),
        ("sequential_v1", {"param1": "one", "param2": "two"}, "root.echo-2", "two"),
        ("arguments_parameters", {"param2": "you"}, "echo", "hello-you"),
        ("placeholder_with_if_placeholder_none_input_value", {}, "component-with-optional-inputs", "--arg0 input0"),
        ("pipeline_with_task_final_status_yaml", {"message": "from a golden"}, "my-pipeline", "pipeline status:"),
    ]
    for name, arguments, task, text in cases:
        run = w.run(golden(name), arguments)
        logs = "".join(w.log(run, t.pod_name) for t in run.run_details.task_details)
        assert text in logs, (name, logs)


def test_nothing_of_a_run_outlives_the_server(w):
    """The serve process is killed; its runs end with it, and the next one says so and can retry them."""
    with Server() as server:
        server.push(["tools:1"])
        other = World(server)
        run_id = other.start(pipelines.sleepers, {"seconds": 4242})
        deadline = time.time() + 60
        while not sleeping():
            assert time.time() < deadline
            time.sleep(0.1)
        server.stop(signal.SIGKILL)
        deadline = time.time() + 20
        while sleeping():
            assert time.time() < deadline, "the task still runs"
            time.sleep(0.1)
        with Server(server.workspace) as again:
            run = World(again).client.get_run(run_id)
            assert run.state == "FAILED" and run.error.message, run


def sleeping():
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/cmdline" % pid, "rb") as words:
                if words.read() == b"sleep\0" b"4242\0":
                    return True
        except OSError:
            pass
    return False


def main():
    passed = failed = 0
    chosen = sys.argv[1:]
    with Server() as server:
        server.push(["tools:1", "ubi9/python-311:latest", "containerd/busybox:latest"])
        world = World(server)
        for name, test in list(globals().items()):
            if not name.startswith("test_") or (chosen and name not in chosen):
                continue
            began = time.time()
            try:
                test(world)
                passed += 1
                print("ok   %s (%.1f s)" % (name, time.time() - began), flush=True)
            except Exception:
                failed += 1
                print("FAIL %s" % name)
                traceback.print_exc(file=sys.stdout)
        if failed:
            print(open(os.path.join(server.workspace, "serve.log")).read()[-4000:])
    print("%d passed, %d failed" % (passed, failed))
    return 1 if failed else 0


sys.exit(main())
