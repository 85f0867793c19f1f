-- The decision of seldon's waiter: is what runs what was asked for, and can it still come?
local t = require "test"
local json = require "json"
local seldon = require "seldon.deployment"
local wanted = require "seldon.wanted"

local function copy(value)
  if type(value) ~= "table" then return value end
  local out = {}
  for key, item in pairs(value) do out[key] = copy(item) end
  return out
end

local function object(options)
  local all = { name = "digits", image = "m:1", env = { LEVEL = "1" }, parameters = { model_version = "7" }, replicas = 2 }
  for key, value in pairs(options or {}) do all[key] = value end
  return seldon.deployment(all)
end

--- What Seldon's operator makes of a predictor: one Deployment, all of it there.
local function made(sdep, at, more)
  local predictor = sdep.spec.predictors[at or 1]
  local containers = copy(predictor.componentSpecs[1].spec.containers)
  for _, container in ipairs(containers) do
    container.env = container.env or {}
    table.insert(container.env, { name = "PREDICTOR_ID", value = predictor.name })
    table.insert(container.env, { name = "PREDICTIVE_UNIT_PARAMETERS", value = json.encode(predictor.graph.parameters or {}) })
  end
  containers[#containers + 1] = { name = "seldon-container-engine", image = "seldonio/executor" }
  local replicas = predictor.replicas or 1
  local out = {
    metadata = { name = ("digits-%s-0-model"):format(predictor.name), generation = 3 },
    spec = { replicas = replicas, template = { metadata = { labels = { version = predictor.name } },
      spec = { containers = containers } } },
    status = { observedGeneration = 3, replicas = replicas, updatedReplicas = replicas, availableReplicas = replicas },
  }
  for key, value in pairs(more or {}) do out.status[key] = value end
  return out
end

local AVAILABLE = { metadata = { resourceVersion = "9" }, status = { state = "Available" } }

local function missing(sdep, deployments, current) return wanted.missing(sdep, current or AVAILABLE, deployments) end

t.case("all there", function()
  local sdep = object()
  t.eq(missing(sdep, { made(sdep) }), nil)
  t.holds(wanted.missing(sdep, nil, {}), "not there")
  t.holds(missing(sdep, {}), "no Deployment with container model yet")
  t.holds(missing(sdep, { made(sdep) }, { status = { state = "Creating", description = "wait" } }), "Creating: wait")
  t.holds(missing(sdep, { made(sdep) }, { status = json.null }), "unknown")
end)

t.case("Available says nothing while the Deployment is that of the spec before", function()
  local before = made(object())
  t.holds(missing(object { image = "m:2" }, { before }), "image m:2")
  t.holds(missing(object { env = { LEVEL = "2" } }, { before }), "environment variable LEVEL")
  t.holds(missing(object { env = { LEVEL = "1", NEW = "x" } }, { before }), "environment variable NEW")
  t.holds(missing(object { secrets = { KEY = "store/key" } }, { before }), "environment variable KEY")
  t.holds(missing(object { parameters = { model_version = "8" } }, { before }), "parameter model_version")
  t.holds(missing(object { args = { "--fast" } }, { before }), "args")
  t.holds(missing(object { replicas = 3 }, { before }), "3 replicas")
end)

t.case("a secret by reference", function()
  local sdep = object { secrets = { KEY = "store/key" } }
  t.eq(missing(sdep, { made(sdep) }), nil)
  t.holds(missing(object { secrets = { KEY = "store/other" } }, { made(sdep) }), "KEY")
end)

t.case("a new model URI under the same container", function()
  local sdep = seldon.deployment { name = "digits", implementation = "SKLEARN_SERVER", model_uri = "s3://m/2" }
  local deployment = made(object { replicas = 1 })
  local spec = deployment.spec.template.spec
  spec.containers[1].env = { { name = "PREDICTOR_ID", value = "main" } }
  spec.initContainers = { { name = "model-model-initializer", args = { "s3://m/1", "/mnt/models" } } }
  t.holds(missing(sdep, { deployment }), "model s3://m/2")
  spec.initContainers[1].args[1] = "s3://m/2"
  t.eq(missing(sdep, { deployment }), nil)
end)

t.case("the numbers of a Deployment", function()
  local sdep = object()
  local function with(more) return missing(sdep, { made(sdep, 1, more) }) end
  t.holds(with { observedGeneration = 2 }, "not looked at")
  t.holds(with { updatedReplicas = 1 }, "1 of 2 replicas are of this version")
  t.holds(with { replicas = 3 }, "1 old replicas")
  t.holds(with { availableReplicas = 1 }, "1 of 2 replicas are available")
  local fresh = made(sdep)
  fresh.status = nil
  t.holds(missing(sdep, { fresh }), "not looked at")
end)

t.case("an autoscaler has the replicas", function()
  local sdep = object { hpa = { min = 1, max = 5 } }
  local deployment = made(sdep)
  deployment.spec.replicas = 4
  for _, key in ipairs { "replicas", "updatedReplicas", "availableReplicas" } do deployment.status[key] = 4 end
  t.eq(missing(sdep, { deployment }), nil)
end)

local function two()
  return seldon.deployment { name = "digits", predictors = {
    { name = "main", traffic = 90, image = "m:1" }, { name = "canary", traffic = 10, image = "m:2" },
  } }
end

t.case("each predictor has its own", function()
  local sdep = two()
  t.eq(missing(sdep, { made(sdep, 1), made(sdep, 2) }), nil)
  t.holds(missing(sdep, { made(sdep, 1) }), "predictor 'canary'")
  -- promoted: main is to be what the canary is; the canary's Deployment does not count for it
  local promoted = two()
  promoted.spec.predictors[1].componentSpecs[1].spec.containers[1].image = "m:2"
  t.holds(missing(promoted, { made(sdep, 1), made(sdep, 2) }), "predictor 'main': digits-main-0-model does not have image m:2")
  -- gone from the spec, not yet from the cluster
  local alone = object { env = {}, parameters = {}, replicas = 1 }
  t.holds(missing(alone, { made(alone), made(sdep, 2) }), "digits-canary-0-model: an old Deployment")
  local ended = made(sdep, 2)
  ended.metadata.deletionTimestamp = "2026-01-01T00:00:00Z"
  t.eq(missing(alone, { made(alone), ended }), nil)
end)

t.case("only one predictor matters", function()
  local sdep = two()
  local broken = made(sdep, 2, { availableReplicas = 0 })
  local failed = { metadata = {}, status = { state = "Failed" } }
  t.eq(wanted.missing(sdep, failed, { made(sdep, 1), broken }, "main"), nil)
  t.holds(wanted.missing(sdep, failed, { made(sdep, 1), broken }, "canary"), "0 of 1")
end)

t.case("executors and explainers of their own", function()
  local sdep = object { explainer = { type = "AnchorTabular", model_uri = "s3://e" } }
  local function extra(name, container, args)
    return {
      metadata = { name = name, generation = 1 }, status = { observedGeneration = 1, replicas = 1, updatedReplicas = 1,
        availableReplicas = 1 },
      spec = { replicas = 1, template = { metadata = { labels = { version = "main" } },
        spec = { containers = { { name = container, args = args } } } } },
    }
  end
  local explainer = extra("digits-main-explainer", "digits-main-explainer")
  local engine = extra("digits-main-svc-orch", "seldon-container-engine", { "--sdep", "digits", "--predictor", "main" })
  t.eq(missing(sdep, { made(sdep), explainer, engine }), nil)
  explainer.status.availableReplicas = 0
  t.holds(missing(sdep, { made(sdep), explainer, engine }), "digits-main-explainer: 0 of 1")
  t.holds(missing(object(), { made(object()), explainer }), "an old Deployment")
end)

t.case("a graph of built-in nodes has the executor alone", function()
  local sdep = seldon.deployment { name = "digits", implementation = "SIMPLE_MODEL" }
  t.holds(missing(sdep, {}), "no Deployment yet")
  local deployment = made(object { replicas = 1 })
  deployment.spec.template.spec.containers = { { name = "seldon-container-engine" } }
  t.eq(missing(sdep, { deployment }), nil)
end)

t.case("Failed counts when it speaks of what was written", function()
  local current = { metadata = { resourceVersion = "7" }, status = { state = "Failed", description = "no such server" } }
  t.eq(wanted.failed(current, "7", 1), nil, "the status is that of the spec before")
  t.eq(wanted.failed(current, "7", 16), "no such server")
  t.eq(wanted.failed(current, "6", 0), "no such server")
  t.eq(wanted.failed(current, nil, 0), "no such server")
  t.eq(wanted.failed(AVAILABLE, nil, 99), nil)
  t.eq(wanted.failed(nil, nil, 99), nil)
  current.status.description = "Operation cannot be fulfilled: the object has been modified; please apply your changes"
  t.eq(wanted.failed(current, nil, 99), nil, "the operator tries again")
end)

local function pod(sdep, reason, restarts)
  local template = made(sdep).spec.template
  return {
    metadata = { name = "digits-main-0-model-x", labels = template.metadata.labels }, spec = template.spec,
    status = { containerStatuses = {
      { name = "model", restartCount = restarts or 0, state = { waiting = { reason = reason } } } } },
  }
end

t.case("what no waiting heals", function()
  local sdep, since = object(), {}
  t.eq(wanted.hopeless(sdep, { pod(sdep, "ContainerCreating") }, since, 0), nil)
  t.eq(wanted.hopeless(sdep, { pod(sdep, "CrashLoopBackOff", 2) }, since, 0), nil)
  t.ok(wanted.hopeless(sdep, { pod(sdep, "CrashLoopBackOff", 3) }, since, 0))
  t.ok(wanted.hopeless(sdep, { pod(sdep, "ImagePullBackOff") }, since, 0))
  t.eq(wanted.hopeless(sdep, { pod(sdep, "ErrImagePull") }, since, 100), nil)
  t.eq(wanted.hopeless(sdep, { pod(sdep, "ErrImagePull") }, since, 129), nil)
  t.ok(wanted.hopeless(sdep, { pod(sdep, "ErrImagePull") }, since, 130))
end)

t.case("pods of an earlier spec, and those that end, are nobody's failure", function()
  local old = object { image = "m:0" }
  t.eq(wanted.hopeless(object(), { pod(old, "CrashLoopBackOff", 9) }, {}, 0), nil)
  local ending = pod(object(), "CrashLoopBackOff", 9)
  ending.metadata.deletionTimestamp = "2026-01-01T00:00:00Z"
  t.eq(wanted.hopeless(object(), { ending }, {}, 0), nil)
end)
