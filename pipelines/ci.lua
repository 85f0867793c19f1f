-- The CI pipeline: lint; build and push eight images; compile, upload and run the training pipeline, which ends with a
-- registered model. On the embedded services by default, on a real platform by profile: `mlhost run ci.lua --profile azure`.
local env = require "env"
local fs = require "fs"
local json = require "json"
local kubeflow = require "kubeflow"
local lint = require "lint"
local mlflow = require "mlflow"
local registry = require "registry"

local COMPONENTS = {
  "mlflow-project", "azdocallback", "preprocess", "register-artifacts", "register-mlflow", "register", "training", "databricks",
}

pipeline "mlhost-ci" {
  description = "Lint, build and push the components, run the training pipeline, end with a registered model",
  params = {
    upload = { default = "auto", choices = { "auto", "new", "version" },
               description = "upload as a new pipeline, as a new version, or whichever is right" },
    pipeline_name = { default = "digits-training" },
    experiment = { default = "mexicanfood", description = "experiment in Kubeflow and in MLflow" },
    model_name = { default = "digits" },
    dataset = { default = "digits", description = "digits, or the URL of a CSV file of the same form" },
    epochs = { type = "int", default = 40 },
    threshold = { type = "number", default = 0.94, description = "least test accuracy of a model that is registered" },
    azureml_workspace = { default = "", description = "register in this Azure ML workspace too" },
    resource_group = { default = "" },
    databricks_cluster = { default = "", description = "run the Databricks notebook on this cluster" },
    train = { type = "bool", default = true, description = "false: end after the upload; somebody else creates the run" },
    wait = { type = "bool", default = true, description = "false: hand over to the callback and end" },
  },
  permissions = {
    exec = { "ruff", "flake8" },
    env = { "BUILD_*", "SYSTEM_*", "TF_BUILD" },
  },
  timeout = "3h",
}

stage "code_quality" {
  timeout = "5m",
  run = function(cx)
    local found = lint.all { paths = { "pipelines" }, junit = cx.out "lint.xml" }
    return { files = found.files, warnings = found.warnings }
  end,
}

stage "base_image" {
  description = "The image that holds the program; all components build on it",
  needs = { "code_quality" },
  timeout = "10m",
  run = function()
    local base = registry.base_image()
    return { ref = base.ref, built = base.pushed }
  end,
}

stage "build_images" {
  description = "A tag from the content of the context; nothing is built when the registry has it",
  needs = { "base_image" },
  matrix = { component = COMPONENTS },
  timeout = "20m",
  retry = { max = 2, backoff = "10s" },
  run = function(cx)
    local image = registry.ensure {
      context = "pipelines/components/" .. cx.matrix.component,
      name = cx.matrix.component,
      args = { BASE = cx.needs.base_image.ref },
    }
    log.info("%s %s", image.built and "built" or "already there:", image.ref)
    return { ref = image.ref, digest = image.digest, built = image.built }
  end,
}

--- What the run's description says of where it comes from.
local function origin()
  if not env.BUILD_BUILDNUMBER then return "started by hand" end
  return ("build %s of %s, branch %s, queued by %s"):format(env.BUILD_BUILDNUMBER, env.BUILD_REPOSITORY_NAME or "?",
    env.BUILD_SOURCEBRANCHNAME or "?", env.BUILD_QUEUEDBY or "?")
end

--- What the exit handler needs to end an agentless task; empty where nobody waits.
local function callback_info()
  if not env.SYSTEM_PLANID then return "" end
  return json.encode {
    PlanUri = env.SYSTEM_COLLECTIONURI, ProjectId = env.SYSTEM_TEAMPROJECTID, HubName = env.SYSTEM_HOSTTYPE or "build",
    PlanId = env.SYSTEM_PLANID, JobId = env.SYSTEM_JOBID, TaskInstanceId = env.SYSTEM_TASKINSTANCEID or "",
  }
end

stage "upload" {
  description = "Compile the training pipeline with the images' references and upload it",
  needs = { "build_images" },
  timeout = "10m",
  run = function(cx)
    local images = {}
    for _, name in ipairs(COMPONENTS) do images[name] = cx.needs.build_images[name].ref end
    local package = kubeflow.compile(require "training", { images = images })
    fs.write(cx.out "training.yaml", package:yaml())

    local version = kubeflow.connect():upload(package, { name = cx.params.pipeline_name, mode = cx.params.upload })
    set_variable("KF_PIPELINE_ID", version.pipeline_id, { output = true })
    set_variable("KF_PIPELINE_VERSION_ID", version.pipeline_version_id, { output = true })
    log.info("pipeline %s, version %s%s", version.pipeline_id, version.pipeline_version_id,
      version.existing and " (already there)" or "")
    return { pipeline_id = version.pipeline_id, pipeline_version_id = version.pipeline_version_id }
  end,
}

stage "train" {
  description = "Create the run, and wait for it or hand over",
  needs = { "upload" },
  when = function(cx) return cx.params.train, "-P train=false" end,
  timeout = "2h",
  run = function(cx)
    local kfp = kubeflow.connect()
    local experiment = kfp:experiment(cx.params.experiment)
    local run = experiment:run {
      name = ("%s %s"):format(cx.params.pipeline_name, cx.run_id),
      key = cx.run_id,
      version = cx.needs.upload,
      description = origin(),
      params = {
        dataset = cx.params.dataset,
        epochs = cx.params.epochs,
        threshold = cx.params.threshold,
        model_name = cx.params.model_name,
        mlflow_experiment = cx.params.experiment,
        resource_group = cx.params.resource_group,
        azureml_workspace = cx.params.azureml_workspace,
        databricks_cluster = cx.params.databricks_cluster,
        azdocallbackinfo = cx.params.wait and "" or callback_info(),
      },
    }
    set_variable("KF_EXPERIMENT_ID", experiment.id, { output = true })
    set_variable("KF_RUN_ID", run.id, { output = true })
    if run.url and run.url ~= "" then report.link("Kubeflow run", run.url) end
    if cx.params.wait then run:wait { timeout = "110m" } end
    return { run_id = run.id, waited = cx.params.wait }
  end,
}

--- Where a model version can be looked at: the embedded service's file, or the version's source on a server.
local function place_of(version, cx)
  local path = version.source:match "^mlflow%-artifacts:/+(.*)$"
  if path and cx.profile == "local" then return ".mlhost/local/mlflow/artifacts/" .. path .. "/model.json" end
  return version.source
end

stage "model" {
  description = "Find what the run registered",
  needs = { "train" },
  when = function(cx) return cx.params.train and cx.needs.train.waited, "the run was handed over to its callback" end,
  timeout = "5m",
  run = function(cx)
    local ml = mlflow.connect()
    local run_id = cx.needs.train.run_id
    local runs = ml:search_runs {
      experiments = { cx.params.experiment },
      filter = ("tags.external_run_id = '%s'"):format(run_id),
    }
    if #runs ~= 1 then error(("%d MLflow runs carry external_run_id %s, one is needed"):format(#runs, run_id)) end
    local version = ml:model(cx.params.model_name):find_version { run_id = runs[1].id }
    if not version then error(("MLflow run %s has no registered model version"):format(runs[1].id)) end
    local accuracy = runs[1].data.metrics.test_accuracy
    log.info("model %s version %s, test accuracy %.4f", cx.params.model_name, version.version, accuracy)
    report.link("Model", place_of(version, cx))
    report.summary(("`%s` version %s, test accuracy %.4f, MLflow run `%s`, Kubeflow run `%s`")
      :format(cx.params.model_name, version.version, accuracy, runs[1].id, run_id), "Model")
    return { model = cx.params.model_name, version = version.version, mlflow_run_id = runs[1].id, accuracy = accuracy }
  end,
}
