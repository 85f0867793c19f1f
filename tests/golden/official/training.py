"""The official twin of pipelines/training.lua: the same pipeline in the Python DSL of Kubeflow Pipelines.

    python training.py OUTPUT.yaml
"""
import pathlib
import sys

from kfp import compiler, components, dsl, kubernetes

COMPONENTS = pathlib.Path(__file__).resolve().parents[3] / "pipelines" / "components"
SMALL = ("100M", "200M")


def component(path):
    return components.load_component_from_file(str(COMPONENTS / path))


azdocallback = component("azdocallback/component.yaml")
mlflow_project = component("mlflow-project/component.yaml")
preprocess = component("preprocess/component.yaml")
training = component("training/component.yaml")
evaluate = component("training/evaluate.yaml")
register_artifacts = component("register-artifacts/component.yaml")
register = component("register/component.yaml")
databricks = component("databricks/component.yaml")
register_mlflow = component("register-mlflow/component.yaml")


def placed(task, memory, cached=False):
    task.set_memory_request(memory[0]).set_memory_limit(memory[1]).set_caching_options(cached)
    kubernetes.set_image_pull_policy(task, "IfNotPresent")
    kubernetes.add_node_selector(task, "kubernetes.io/os", "linux")
    kubernetes.add_toleration(task, key="virtual-kubelet.io/provider", operator="Exists", effect="NoSchedule")
    return task


def shared(task):
    return kubernetes.mount_pvc(task, pvc_name="mlops-shared", mount_path="/mnt/shared")


def define():
    """Runs the DSL from the start and returns the pipeline."""

    @dsl.pipeline(name="notify")
    def notify(info: str, status: dsl.PipelineTaskFinalStatus):
        with dsl.If(info != "", name="Azure DevOps waits"):
            task = placed(azdocallback(info=info, status=status, run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER), SMALL)
            kubernetes.use_secret_as_env(task, "azdopat", {"azdopat": "AZDO_PAT"})
            kubernetes.use_secret_as_env(task, "kfp-host-secret", {"kfp-host": "KFP_HOST"}, optional=True)

    @dsl.pipeline(name="digits-training", description="Train, evaluate and register a classifier of handwritten digits")
    def training_pipeline(
        resource_group: str = "",
        azureml_workspace: str = "",
        databricks_cluster: str = "",
        dataset: str = "digits",
        epochs: int = 40,
        threshold: float = 0.94,
        model_name: str = "digits",
        mlflow_experiment: str = "mexicanfood",
        azdocallbackinfo: str = "",
    ):
        run_id = dsl.PIPELINE_JOB_ID_PLACEHOLDER
        exit_task = notify(info=azdocallbackinfo).set_caching_options(False)
        with dsl.ExitHandler(exit_task, name="training"):
            project = placed(mlflow_project(mlflow_experiment=mlflow_experiment, run_id=run_id), SMALL)
            data = shared(placed(preprocess(dataset=dataset), ("500M", "750M"), cached=True)).after(project)
            model = shared(placed(training(
                train=data.outputs["train"], validation=data.outputs["validation"], epochs=epochs,
                mlflow_experiment=mlflow_experiment, run_id=run_id), ("5G", "6G")))
            mlflow_run_id = model.outputs["mlflow_run_id"]
            measured = placed(evaluate(
                model=model.outputs["model"], test=data.outputs["test"], mlflow_run_id=mlflow_run_id,
                threshold=threshold), SMALL)
            placed(register_artifacts(
                train=data.outputs["train"], test=data.outputs["test"], model=model.outputs["model"], dataset=dataset,
                dataset_digest=data.outputs["digest"], mlflow_run_id=mlflow_run_id, run_id=run_id), SMALL).after(measured)
            with dsl.If(azureml_workspace != "", name="Azure ML is configured"):
                task = placed(register(
                    model=model.outputs["model"], model_name=model_name, resource_group=resource_group,
                    workspace=azureml_workspace, mlflow_run_id=mlflow_run_id, run_id=run_id), SMALL).after(measured)
                kubernetes.use_secret_as_env(task, "azcreds", {
                    "AZ_CLIENT_ID": "AZ_CLIENT_ID", "AZ_CLIENT_SECRET": "AZ_CLIENT_SECRET",
                    "AZ_SUBSCRIPTION_ID": "AZ_SUBSCRIPTION_ID", "AZ_TENANT_ID": "AZ_TENANT_ID"})
            with dsl.If(databricks_cluster != "", name="Databricks is configured"):
                task = placed(databricks(cluster_id=databricks_cluster, run_id=run_id), SMALL).after(measured)
                kubernetes.use_secret_as_env(task, "databricks-secret", {
                    "host": "DATABRICKS_HOST", "token": "DATABRICKS_TOKEN"})
            placed(register_mlflow(model_name=model_name, mlflow_run_id=mlflow_run_id, run_id=run_id), SMALL).after(measured)

    return training_pipeline


training_pipeline = define()

if __name__ == "__main__":
    compiler.Compiler().compile(training_pipeline, sys.argv[1])
