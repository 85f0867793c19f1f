-- The CD pipeline: takes a registered model version to QA, measures it there, and brings it to PROD as a canary that has to
-- pass a gate at each step. What fails a gate is rolled back, and the registry says again what it said before.
-- On the embedded Seldon by default, on a cluster by profile: `mlhost run pipelines/cd.lua --profile azure`.
local approval = require "approval"
local fs = require "fs"
local gates = require "delivery.gates"
local hash = require "hash"
local json = require "json"
local measure = require "delivery.measure"
local mlflow = require "mlflow"
local promotion = require "delivery.promotion"
local registry = require "registry"
local runs = require "runs"
local seldon = require "seldon"

local VERSION = "mlhost.io/model-version" -- annotation of what is deployed

pipeline "mlhost-cd" {
  description = "Deploy a registered model to QA, test it, promote it, deploy it to PROD as a canary",
  params = {
    model_name = { default = "digits" },
    version = { default = "", description = "model version; default: the one that the run registered" },
    run_id = { default = "", description = "Kubeflow run (external_run_id); default: that of the newest CI run that ended well" },
    serving = { default = "pipelines/serving", description = "folder with Dockerfile and model.lua" },
    to = { default = "prod", choices = { "qa", "prod" }, description = "how far to go" },
    approval = {
      default = "auto", choices = { "auto", "ask", "yes", "environment" },
      description = "before PROD: auto asks, but not for the embedded Seldon; ask always asks (or takes --approve prod); yes and "
        .. "environment (it was given in Azure DevOps) do not ask",
    },
    min_accuracy = { type = "number", default = 0.94, description = "least accuracy on the held-out rows" },
    latency_ms = { type = "number", default = 250, description = "95 of 100 answers must come within this time" },
    requests = { type = "int", default = 400, description = "requests of each load test" },
    concurrency = { type = "int", default = 4 },
    replicas = { type = "int", default = 1, description = "in PROD" },
    qa_namespace = { default = "qa" },
    prod_namespace = { default = "prod" },
  },
  permissions = { env = { "BUILD_*", "SYSTEM_*", "TF_BUILD" } },
  timeout = "1h",
}

local function is_version(deployment, version)
  return deployment and deployment.object.metadata.annotations and deployment.object.metadata.annotations[VERSION] == version
end

--- Deployed, and nothing else beside it.
local function serves(cx, namespace, version)
  local deployment = seldon.connect { namespace = namespace }:get(cx.params.model_name)
  return is_version(deployment, version) and deployment.status.state == "Available" and #deployment:predictors() == 1
end

--- The version that was asked for: by number, else by the Kubeflow run that made it.
local function chosen(cx, ml, model)
  if cx.params.version ~= "" then return model:version(cx.params.version) end
  local run_id = cx.params.run_id
  if run_id == "" then
    local ci = runs.latest "mlhost-ci"
    run_id = ci and ci.outputs.train and ci.outputs.train.run_id
    if not run_id then
      error("no CI run has ended well in this workspace: mlhost run pipelines/ci.lua, or give -P run_id=ID or -P version=N")
    end
    log.info("CI run %s, Kubeflow run %s", ci.id, run_id)
  end
  -- in every experiment: CI may have been given another one
  local found = ml:search_runs {
    experiments = ml:experiments(), filter = ("tags.external_run_id = '%s'"):format(run_id),
  }
  if #found ~= 1 then error(("%d MLflow runs carry external_run_id %s, one is needed"):format(#found, run_id)) end
  local version = model:find_version { run_id = found[1].id }
  if not version then
    error(("MLflow run %s has no registered version of %s: did its evaluation pass?"):format(found[1].id, model.name))
  end
  return version
end

stage "find" {
  description = "The model version, its MLflow run, and what is in production now",
  timeout = "5m",
  run = function(cx)
    local ml = mlflow.connect()
    local model = ml:model(cx.params.model_name)
    local version = chosen(cx, ml, model)
    local run = ml:run(version.run_id)
    local accuracy = run.data.metrics.test_accuracy
    if not accuracy then error(("MLflow run %s has no metric test_accuracy: nothing to compare with"):format(run.id)) end
    local before = { staging = promotion.holder(model, "staging"), production = promotion.holder(model, "production") }
    local done = before.production == version.version and serves(cx, cx.params.qa_namespace, version.version)
      and serves(cx, cx.params.prod_namespace, version.version)
    log.info("%s version %s, test accuracy %.4f; in production: %s", model.name, version.version, accuracy,
      before.production and "version " .. before.production or "nothing yet")
    if done then log.info("version %s is in production already: nothing to change", version.version) end
    return {
      version = version.version, mlflow_run_id = run.id, accuracy = accuracy, before = before, done = done,
      sha256 = version.tags.model_sha256 or run.data.tags.model_sha256,
    }
  end,
}

--- What every later stage begins with: nothing to do when all is as it should be.
local function unless_done(cx)
  return not cx.needs.find.done, ("version %s is in production already"):format(cx.needs.find.version)
end

local function unless_done_to_prod(cx)
  if cx.params.to ~= "prod" then return false, "-P to=qa" end
  return unless_done(cx)
end

--- Downloads a version and its held-out rows below `folder`.
local function fetch(model, number, folder)
  local version = model:version(number)
  version:download(folder .. "/model")
  model.ml:run(version.run_id):download("evaluation/test.csv", folder .. "/test.csv")
  return version
end

stage "fetch" {
  description = "Download the model by its version and check its digest; the same of the version in production",
  needs = { "find" },
  when = unless_done,
  timeout = "10m",
  run = function(cx)
    local found = cx.needs.find
    local model = mlflow.connect():model(cx.params.model_name)
    local candidate, champion = cx.out "candidate", nil
    fetch(model, found.version, candidate)
    local digest = hash.sha256_file(candidate .. "/model/model.json")
    if not found.sha256 then error(("version %s has no tag model_sha256: register it with ci.lua"):format(found.version)) end
    if digest ~= found.sha256 then
      error(("model.json has SHA-256 %s, version %s says %s: the artifact was changed"):format(digest, found.version, found.sha256))
    end
    log.info("version %s, sha256 %s", found.version, digest)
    if found.before.production and found.before.production ~= found.version then
      champion = cx.out "champion"
      fetch(model, found.before.production, champion)
    end

    local context = cx.out "context"
    for _, path in ipairs(fs.glob(cx.params.serving .. "/**")) do
      if fs.stat(path).kind == "file" then fs.copy(path, context .. path:sub(#cx.params.serving + 1)) end
    end
    for _, path in ipairs(fs.glob(candidate .. "/model/**")) do
      if fs.stat(path).kind == "file" then fs.copy(path, context .. path:sub(#candidate + 1)) end
    end
    return { candidate = candidate, champion = champion, context = context }
  end,
}

stage "image" {
  description = "The serving image: the program, the model script, the model; nothing is built when the registry has it",
  needs = { "find", "fetch" },
  when = unless_done,
  timeout = "20m",
  run = function(cx)
    local base = registry.base_image()
    local image = registry.ensure {
      context = cx.needs.fetch.context, name = cx.params.model_name .. "-serving", args = { BASE = base.ref },
    }
    log.info("%s %s", image.built and "built" or "already there:", image.ref)
    return { ref = image.ref, digest = image.digest, built = image.built }
  end,
}

stage "compare" {
  description = "Candidate and production on the same held-out rows: the candidate may not be worse",
  needs = { "find", "fetch" },
  when = unless_done,
  timeout = "10m",
  run = function(cx)
    local candidate, champion = cx.needs.fetch.candidate, cx.needs.fetch.champion
    if not champion then
      log.info("nothing is in production yet: there is nothing to compare with")
      return {}
    end
    -- Rows that production was judged by: a candidate cannot bring its own, easier ones.
    local held_out = measure.rows(champion .. "/test.csv")
    local ours, theirs = measure.model(candidate .. "/model", held_out), measure.model(champion .. "/model", held_out)
    log.info("on the %d held-out rows of production: candidate %.4f, production %.4f", #held_out, ours, theirs)
    if ours < theirs - 0.01 then
      error(("version %s has accuracy %.4f on production's held-out rows, version %s has %.4f: it is not deployed")
        :format(cx.needs.find.version, ours, cx.needs.find.before.production, theirs))
    end
    return { candidate = ours, production = theirs }
  end,
}

--- What is deployed, but for its place and size.
local function spec_of(cx, environment)
  local version = cx.needs.find.version
  return {
    name = cx.params.model_name,
    image = cx.needs.image.ref,
    parameters = { model_version = version, environment = environment },
    annotations = { [VERSION] = version },
  }
end

--- What a deployment must show before anybody relies on it.
local function pass(cx, deployment, held_out, part)
  local found, client = cx.needs.find, deployment:client()
  if not part then gates.smoke(client, held_out, found.version) end
  gates.accuracy(client, held_out, {
    version = found.version, accuracy = found.accuracy, least = cx.params.min_accuracy, part = part,
  })
  gates.load(client, held_out, {
    version = found.version, count = cx.params.requests, concurrency = cx.params.concurrency, latency_ms = cx.params.latency_ms,
  })
end

--- Deploys in one step; what does not pass the gates is taken back: the version before it, or nothing.
local function deploy_whole(cx, namespace, environment, replicas)
  local s = seldon.connect { namespace = namespace }
  local before = s:get(cx.params.model_name)
  local spec = spec_of(cx, environment)
  spec.namespace, spec.replicas = namespace, replicas
  local deployment, err = try(s.deploy, s, seldon.deployment(spec), { timeout = "5m" })
  if deployment then
    log.info("%s/%s %s: %s", namespace, deployment.name, deployment.changed and "deployed" or "was there", deployment:url())
    local held_out = measure.rows(cx.needs.fetch.candidate .. "/test.csv")
    local ok
    ok, err = try(function()
      pass(cx, deployment, held_out)
      return true
    end)
    if ok then return deployment end
  end
  local made = s:get(cx.params.model_name)
  if before and made and not is_version(before, cx.needs.find.version) then
    log.warning("rolling %s/%s back: %s", namespace, cx.params.model_name, tostring(err))
    made:rollback()
  elseif not before and made then
    log.warning("removing %s/%s: %s", namespace, cx.params.model_name, tostring(err))
    made:delete()
  end
  error(err, 0)
end

stage "qa" {
  description = "Deploy to QA: smoke test, accuracy, load",
  needs = { "find", "fetch", "image", "compare" },
  when = unless_done,
  timeout = "15m",
  run = function(cx)
    local deployment = deploy_whole(cx, cx.params.qa_namespace, "qa", 1)
    report.link("QA", deployment:url())
    return { url = deployment:url() }
  end,
}

stage "staging" {
  description = "Only now is the version Staging",
  needs = { "find", "qa" },
  when = unless_done,
  timeout = "5m",
  run = function(cx)
    promotion.give(mlflow.connect():model(cx.params.model_name), "staging", cx.needs.find.version)
  end,
}

stage "approve" {
  description = "A person's yes before PROD",
  needs = { "find", "staging" },
  when = unless_done_to_prod,
  timeout = "30m",
  run = function(cx)
    local how = cx.params.approval
    if how == "auto" and cx.profile == "local" then
      log.info("the embedded Seldon needs no approval (-P approval=ask asks)")
      return { by = "local profile" }
    elseif how == "yes" or how == "environment" then
      return { by = "-P approval=" .. how }
    end
    return approval.ask {
      name = "prod", timeout = "25m",
      question = ("Deploy %s version %s to PROD (%s)?"):format(cx.params.model_name, cx.needs.find.version,
        cx.params.prod_namespace),
    }
  end,
}

--- As a canary beside what is there: 10, 50, 100 %, with a gate at each step.
local function deploy_canary(cx, deployment)
  local held_out = measure.rows(cx.needs.fetch.candidate .. "/test.csv")
  local spec = spec_of(cx, "prod")
  return deployment:rollout {
    spec = { image = spec.image, parameters = spec.parameters, replicas = cx.params.replicas },
    annotations = spec.annotations, steps = { 10, 50, 100 }, timeout = "5m",
    gate = function(step, current)
      log.info("canary at %d %%", step)
      pass(cx, current, held_out, true)
    end,
  }
end

stage "prod" {
  description = "Deploy to PROD: a canary with gates, rolled back by itself when one fails",
  needs = { "find", "fetch", "image", "staging", "approve" },
  when = unless_done_to_prod,
  timeout = "30m",
  run = function(cx)
    local namespace = cx.params.prod_namespace
    local deployment = seldon.connect { namespace = namespace }:get(cx.params.model_name)
    if deployment and not is_version(deployment, cx.needs.find.version) then
      deployment = deploy_canary(cx, deployment)
    else
      deployment = deploy_whole(cx, namespace, "prod", cx.params.replicas)
    end
    local url, request = deployment:url(), cx.out "request.json"
    fs.write(request, json.encode { data = { ndarray = { measure.rows(cx.needs.fetch.candidate .. "/test.csv")[1].x } } })
    report.link("PROD", url)
    report.summary(("`%s` version %s answers at <%s>:\n\n```\n%s\n```"):format(deployment.name, cx.needs.find.version, url,
      ("curl -s %s/api/v1.0/predictions -H 'Content-Type: application/json' -d @%s"):format(url, request)), "PROD")
    return { url = url }
  end,
  -- However it ended: what did not get through leaves neither a canary nor an alias behind.
  always = function(cx)
    if cx.status == "ok" or cx.status == "skipped" then return end
    local found = cx.needs.find
    local deployment = seldon.connect { namespace = cx.params.prod_namespace }:get(cx.params.model_name)
    for _, predictor in ipairs(deployment and deployment:predictors() or {}) do
      if predictor.name == "canary" then deployment:abort "canary" end
    end
    promotion.put_back(mlflow.connect():model(cx.params.model_name), "staging", found.version, found.before.staging)
  end,
}

stage "production" {
  description = "Only now is the version Production",
  needs = { "find", "prod" },
  when = unless_done_to_prod,
  timeout = "5m",
  run = function(cx)
    promotion.give(mlflow.connect():model(cx.params.model_name), "production", cx.needs.find.version)
    return { version = cx.needs.find.version, url = cx.needs.prod.url }
  end,
}
