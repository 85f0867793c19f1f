-- The training pipeline, for Kubeflow: project, preprocess, train, evaluate, register; whatever happens, the
-- callback runs last.
-- A service that is not configured is skipped by a condition on its parameter. ci.lua compiles this with its images'
-- references.
local kf = require "kubeflow"

local function component(path) return kf.load_component("pipelines/components/" .. path) end

local azdocallback = component "azdocallback/component.yaml"
local mlflow_project = component "mlflow-project/component.yaml"
local preprocess = component "preprocess/component.yaml"
local training = component "training/component.yaml"
local evaluate = component "training/evaluate.yaml"
local register_artifacts = component "register-artifacts/component.yaml"
local register = component "register/component.yaml"
local databricks = component "databricks/component.yaml"
local register_mlflow = component "register-mlflow/component.yaml"

--- What every task of this project has: images that never change under their tag, a Linux node, tolerated virtual
--- nodes.
local function placed(task, memory)
  return task
    :memory { request = memory[1], limit = memory[2] }
    :image_pull_policy "IfNotPresent"
    :node_selector { ["kubernetes.io/os"] = "linux" }
    :toleration { key = "virtual-kubelet.io/provider", operator = "Exists", effect = "NoSchedule" }
end

local SMALL = { "100M", "200M" }
local SHARED = { claim = "mlops-shared", path = "/mnt/shared" }

--- The exit task: tells Azure DevOps how the run ended, if something there waits for it.
local notify = kf.pipeline "notify" {
  params = { info = "string", status = kf.final_status },
  build = function(p, params)
    kf.when(kf.ne(params.info, ""), function()
      placed(azdocallback { info = params.info, status = params.status, run_id = p.run.id }, SMALL)
        :secret_env("azdopat", { azdopat = "AZDO_PAT" })
        :secret_env("kfp-host-secret", { ["kfp-host"] = "KFP_HOST" }, { optional = true })
        :cache(false)
    end, { name = "Azure DevOps waits" })
  end,
}

return kf.pipeline "digits-training" {
  description = "Train, evaluate and register a classifier of handwritten digits",
  params = {
    resource_group = { "string", default = "" },
    azureml_workspace = { "string", default = "" },
    databricks_cluster = { "string", default = "" },
    dataset = { "string", default = "digits" },
    epochs = { "int", default = 40 },
    threshold = { "float", default = 0.94 },
    model_name = { "string", default = "digits" },
    mlflow_experiment = { "string", default = "mexicanfood" },
    azdocallbackinfo = { "string", default = "" },
  },
  build = function(p, params)
    local run_id = p.run.id

    kf.exit_handler(notify { info = params.azdocallbackinfo, status = kf.final_status }:cache(false), function()
      local project = placed(mlflow_project {
        mlflow_experiment = params.mlflow_experiment, run_id = run_id,
      }, SMALL):cache(false)

      local data = placed(preprocess { dataset = params.dataset }, { "500M", "750M" })
        :mount_pvc(SHARED)
        :after(project)

      local model = placed(training {
        train = data.outputs.train, validation = data.outputs.validation, epochs = params.epochs,
        mlflow_experiment = params.mlflow_experiment, run_id = run_id,
      }, { "5G", "6G" }):mount_pvc(SHARED):cache(false)

      local measured = placed(evaluate {
        model = model.outputs.model, test = data.outputs.test, mlflow_run_id = model.outputs.mlflow_run_id,
        threshold = params.threshold,
      }, SMALL):cache(false)

      placed(register_artifacts {
        train = data.outputs.train, test = data.outputs.test, model = model.outputs.model, dataset = params.dataset,
        dataset_digest = data.outputs.digest, mlflow_run_id = model.outputs.mlflow_run_id, run_id = run_id,
      }, SMALL):after(measured):cache(false)

      kf.when(kf.ne(params.azureml_workspace, ""), function()
        placed(register {
          model = model.outputs.model, model_name = params.model_name, resource_group = params.resource_group,
          workspace = params.azureml_workspace, mlflow_run_id = model.outputs.mlflow_run_id, run_id = run_id,
        }, SMALL)
          :secret_env("azcreds", {
            AZ_SUBSCRIPTION_ID = "AZ_SUBSCRIPTION_ID", AZ_TENANT_ID = "AZ_TENANT_ID", AZ_CLIENT_ID = "AZ_CLIENT_ID",
            AZ_CLIENT_SECRET = "AZ_CLIENT_SECRET",
          })
          :after(measured):cache(false)
      end, { name = "Azure ML is configured" })

      kf.when(kf.ne(params.databricks_cluster, ""), function()
        placed(databricks { cluster_id = params.databricks_cluster, run_id = run_id }, SMALL)
          :secret_env("databricks-secret", { host = "DATABRICKS_HOST", token = "DATABRICKS_TOKEN" })
          :after(measured):cache(false)
      end, { name = "Databricks is configured" })

      placed(register_mlflow {
        model_name = params.model_name, mlflow_run_id = model.outputs.mlflow_run_id, run_id = run_id,
      }, SMALL):after(measured):cache(false)
    end, { name = "training" })
  end,
}
