"""Loads compiled pipelines with the official SDK: each must become a component with the interface that its text declares.

    python load_with_sdk.py FILE.yaml...

It also reads each file with the SDK's protobuf messages, which know no unknown field, and with both YAML readers of PyYAML.
"""
import sys

import yaml
from google.protobuf import json_format
from kfp import components
from kfp.kubernetes import kubernetes_executor_config_pb2
from kfp.pipeline_spec import pipeline_spec_pb2


# fields of the proto that the pinned kfp-kubernetes does not have yet
NEWER = {"initContainers"}


def names(definitions):
    return {name for kind in ("parameters", "artifacts") for name in definitions.get(kind, {})}


def check(path):
    with open(path, encoding="ascii") as file:
        text = file.read()
    documents = list(yaml.safe_load_all(text))
    if hasattr(yaml, "CSafeLoader"):
        assert list(yaml.load_all(text, Loader=yaml.CSafeLoader)) == documents, "libyaml reads something else"
    spec = json_format.ParseDict(documents[0], pipeline_spec_pb2.PipelineSpec())
    deployment = json_format.ParseDict(documents[0]["deploymentSpec"], pipeline_spec_pb2.PipelineDeploymentConfig())
    for component in spec.components.values():
        if component.executor_label:
            assert component.executor_label in deployment.executors, f"no executor {component.executor_label}"
        for task in component.dag.tasks.values():
            assert task.component_ref.name in spec.components, f"no component {task.component_ref.name}"
    if len(documents) == 2:
        json_format.ParseDict(documents[1], pipeline_spec_pb2.PlatformSpec())
        kubernetes = documents[1]["platforms"]["kubernetes"]
        for label, executor in kubernetes.get("deploymentSpec", {}).get("executors", {}).items():
            assert label in deployment.executors, f"no executor {label} for the platform settings"
            executor = {key: value for key, value in executor.items() if key not in NEWER}
            json_format.ParseDict(executor, kubernetes_executor_config_pb2.KubernetesExecutorConfig())
    loaded = components.load_component_from_text(text)
    root = documents[0]["root"]
    # a component that was compiled alone is loaded as such: with its own interface, which is that of the root
    assert set(loaded.component_spec.inputs or {}) == names(root.get("inputDefinitions", {})), "other inputs"
    assert set(loaded.component_spec.outputs or {}) == names(root.get("outputDefinitions", {})), "other outputs"


def main():
    passed = failed = 0
    for path in sys.argv[1:]:
        try:
            check(path)
            passed += 1
        except Exception as error:  # any failure of the SDK is a finding
            failed += 1
            print(f"FAIL  {path}: {type(error).__name__}: {error}")
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
