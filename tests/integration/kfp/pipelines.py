"""Pipelines of containers, written with the official SDK."""
from kfp import dsl, kubernetes

IMAGE = "mlhost.local/tools:1"


def sh(script, *args):
    return dsl.ContainerSpec(image=IMAGE, command=["sh", "-ec", script], args=list(args))


@dsl.container_component
def flip(side: str, result: dsl.OutputPath(str)):
    return sh('mkdir -p "$(dirname "$1")"; printf %s "$0" >"$1"', side, result)


@dsl.container_component
def say(text: str, said: dsl.OutputPath(str)):
    return sh('echo "says $0"; printf %s "$0!" >"$1"', text, said)


@dsl.container_component
def number(n: int, out: dsl.OutputPath(int)):
    return sh('echo $(($0 * 2)) >"$1"', n, out)


@dsl.container_component
def show(what: str):
    return sh('echo "$0"', what)


@dsl.container_component
def join(parts: list, out: dsl.OutputPath(str)):
    return sh('printf %s "$0" >"$1"', parts, out)


@dsl.container_component
def train(epochs: int, model: dsl.Output[dsl.Model], accuracy: dsl.OutputPath(float)):
    return sh('echo "training $0"; mkdir -p "$1"; echo "weights $0" >"$1/weights"; echo 0.5 >"$2"; cat /etc/marker',
              epochs, model.path, accuracy)


@dsl.container_component
def evaluate(model: dsl.Input[dsl.Model], accuracy: float, report: dsl.Output[dsl.Artifact]):
    return sh('grep -q "weights 3" "$0/weights"; if touch "$0/x" 2>/dev/null; then echo "input is writable"; exit 9; fi; '
              'echo "$1 from $2" >"$3"', model.path, accuracy, model.uri, report.path)


@dsl.container_component
def fail(message: str):
    return sh('echo "$0" >&2; exit 3', message)


@dsl.container_component
def report_status(status: dsl.PipelineTaskFinalStatus):
    return sh('echo "status: $0"', status)


@dsl.container_component
def environment(out: dsl.OutputPath(dict)):
    return sh('printf \'{"home":"%s","image":"%s","cwd":"%s","secret":"%s","user":"%s","url":"%s","root":"%s","pid":"%s"}\' '
              '"$HOME" "$FROM_IMAGE" "$(pwd)" "$TOKEN" "$(id -u)" "$MLFLOW_TRACKING_URI" '
              '"$(echo x >/home/file && cat /home/file)" "$$" >"$0"; echo "the token is $TOKEN"', out)


@dsl.container_component
def flaky(counter: str):
    return sh('n=$(cat /shared/$0 2>/dev/null || echo 0); echo $((n + 1)) >/shared/$0; echo "try $n"; [ $n -ge 2 ]', counter)


@dsl.container_component
def stamp(text: str, when: dsl.OutputPath(str)):
    return sh('cat /proc/sys/kernel/random/uuid >"$1"; echo "$0"', text, when)


@dsl.container_component
def sleeper(seconds: int):
    return sh('echo begin; sleep $0; echo end', seconds)


@dsl.container_component
def words(first: str, second: str = None):
    return dsl.ContainerSpec(image=IMAGE, command=["echo"], args=[
        dsl.ConcatPlaceholder(["<", first, ">"]),
        dsl.IfPresentPlaceholder(input_name="second", then=["second:", second], else_=["no", "second"])])


@dsl.pipeline(name="training")
def training(epochs: int = 3) -> float:
    one = train(epochs=epochs)
    evaluate(model=one.outputs["model"], accuracy=one.outputs["accuracy"])
    return one.outputs["accuracy"]


@dsl.pipeline(name="branches")
def branches(side: str = "heads") -> str:
    coin = flip(side=side)
    with dsl.If(coin.outputs["result"] == "heads"):
        a = say(text="it was heads")
    with dsl.Elif(coin.outputs["result"] == "tails"):
        b = say(text="it was tails")
    with dsl.Else():
        c = say(text="it was neither")
    one = dsl.OneOf(a.outputs["said"], b.outputs["said"], c.outputs["said"])
    say(text=one).set_display_name("last word")
    return one


@dsl.pipeline(name="loops")
def loops(numbers: list = [1, 2, 3]) -> str:
    with dsl.ParallelFor(numbers, parallelism=2) as n:
        doubled = number(n=n)
    with dsl.ParallelFor([{"a": "x", "b": 1}, {"a": "y", "b": 2}]) as item:
        say(text=item.a)
        with dsl.If(item.b > 1):
            show(what="more than one").set_display_name("big")
    return join(parts=dsl.Collected(doubled.outputs["out"])).outputs["out"]


@dsl.pipeline(name="handled")
def handled(message: str = "boom"):
    done = report_status()
    with dsl.ExitHandler(done):
        bad = fail(message=message)
        show(what="never").after(bad)


@dsl.pipeline(name="environments")
def environments():
    task = environment()
    kubernetes.use_secret_as_env(task, secret_name="api", secret_key_to_env={"token": "TOKEN"})
    kubernetes.add_node_selector(task, "kind", "gpu")
    task.set_caching_options(False)


@dsl.pipeline(name="volumes")
def volumes(claim: str = "tries"):
    made = kubernetes.CreatePVC(pvc_name=claim, access_modes=["ReadWriteOnce"], size="1Gi", storage_class_name="standard")
    tried = flaky(counter="a").set_retry(num_retries=3, backoff_duration="1s", backoff_factor=1.0)
    tried.set_caching_options(False)
    kubernetes.mount_pvc(tried, pvc_name=made.outputs["name"], mount_path="/shared")
    kubernetes.DeletePVC(pvc_name=made.outputs["name"]).after(tried)


@dsl.pipeline(name="stamps")
def stamps(text: str = "a") -> str:
    first = stamp(text=text)
    return stamp(text=first.outputs["when"]).outputs["when"]


@dsl.pipeline(name="sleepers")
def sleepers(seconds: int = 300):
    done = report_status()
    with dsl.ExitHandler(done):
        sleeper(seconds=seconds).set_caching_options(False)


@dsl.pipeline(name="timeouts")
def timeouts():
    task = sleeper(seconds=300)
    kubernetes.set_timeout(task, 1)


@dsl.pipeline(name="placeholders")
def placeholders(second: str = None):
    words(first="a b")
    words(first=f"run {dsl.PIPELINE_JOB_ID_PLACEHOLDER}", second="two").set_display_name("both")


@dsl.pipeline(name="importing")
def importing(uri: str):
    got = dsl.importer(artifact_uri=uri, artifact_class=dsl.Model, reimport=False)
    evaluate(model=got.output, accuracy=1.0)


@dsl.container_component
def missing():
    return dsl.ContainerSpec(image="registry.example.com/team/none:7", command=["true"])


@dsl.pipeline(name="unknown-image")
def unknown_image():
    missing()


@dsl.container_component
def limited(out: dsl.OutputPath(str)):
    return sh('ulimit -d >"$0"', out)


@dsl.pipeline(name="limits")
def limits() -> str:
    return limited().set_memory_limit("256Mi").outputs["out"]


@dsl.container_component
def whoami(out: dsl.OutputPath(str), kept: dsl.Output[dsl.Artifact]):
    return dsl.ContainerSpec(image="mlhost.local/as-app:1", args=["-c", 'echo x >"$1"; printf "%s %s" "$(id -un)" "$HOME" >"$0"',
                                                                  out, kept.path])


@dsl.pipeline(name="users")
def users() -> str:
    return whoami().outputs["out"]


@dsl.container_component
def link_parameter(target: str, out: dsl.OutputPath(str)):
    return sh('mkdir -p "$(dirname "$1")"; ln -s "$0" "$1"', target, out)


@dsl.container_component
def link_artifact(target: str, out: dsl.Output[dsl.Artifact]):
    return sh('ln -s "$0" "$1"', target, out.path)


@dsl.container_component
def read(what: dsl.Input[dsl.Artifact]):
    return sh('cat "$0"', what.path)


@dsl.pipeline(name="linked-parameter")
def linked_parameter(target: str):
    link_parameter(target=target)


@dsl.pipeline(name="linked-artifact")
def linked_artifact(target: str):
    read(what=link_artifact(target=target).outputs["out"])
