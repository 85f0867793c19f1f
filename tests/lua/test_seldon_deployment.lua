-- Building SeldonDeployments, changing their traffic, remembering revisions: all before anything is sent.
local t = require "test"
local history = require "seldon.history"
local rollout = require "seldon.rollout"
local seldon = require "seldon.deployment"
local validate = require "seldon.validate"

local function main_of(options)
  local object = seldon.deployment(options)
  t.eq((validate(object)), {})
  return object.spec.predictors[1], object
end

t.case("one model from a few lines", function()
  local main, object = main_of {
    name = "digits", namespace = "prod", image = "m:1", replicas = 2, env = { B = 2, A = "x" }, secrets = { KEY = "store/key" },
    resources = { memory = "1Gi" }, parameters = { threshold = 0.5, steps = 3, fast = true, model_version = "7" },
    annotations = { note = "n" }, labels = { team = "t" }, protocol = "v2", service_account = "sa",
  }
  t.eq({ object.apiVersion, object.kind, object.metadata.name, object.metadata.namespace, object.spec.protocol },
    { "machinelearning.seldon.io/v1", "SeldonDeployment", "digits", "prod", "v2" })
  t.eq({ object.metadata.annotations, object.metadata.labels }, { { note = "n" }, { team = "t" } })
  t.eq({ main.name, main.replicas, main.graph.name, main.graph.type, main.graph.serviceAccountName },
    { "main", 2, "model", "MODEL", "sa" })
  local container = main.componentSpecs[1].spec.containers[1]
  t.eq({ container.name, container.image }, { "model", "m:1" })
  t.eq(container.env, { { name = "A", value = "x" }, { name = "B", value = "2" },
    { name = "KEY", valueFrom = { secretKeyRef = { name = "store", key = "key" } } } })
  t.eq(container.resources, { limits = { memory = "1Gi" }, requests = { memory = "1Gi" } })
  t.eq(main.graph.parameters, {
    { name = "fast", type = "BOOL", value = "true" }, { name = "model_version", type = "STRING", value = "7" },
    { name = "steps", type = "INT", value = "3" }, { name = "threshold", type = "DOUBLE", value = "0.5" },
  })
end)

t.case("graphs: routers, combiners, transformers", function()
  local main = main_of { name = "g", graph = {
    name = "in", image = "t:1", type = "transformer", children = {
      { name = "ab", implementation = "RANDOM_ABTEST", parameters = { ratioA = 0.5 }, children = {
        { name = "a", image = "a:1" }, { name = "b", image = "b:1", env = { X = "1" } } } } },
  } }
  t.eq(main.graph.type, "TRANSFORMER")
  t.eq(main.graph.children[1].implementation, "RANDOM_ABTEST")
  t.eq(main.graph.children[1].type, nil)
  local names = {}
  for i, container in ipairs(main.componentSpecs[1].spec.containers) do names[i] = container.name end
  t.eq(names, { "in", "a", "b" })
end)

t.case("prepackaged servers, explainers, autoscaling", function()
  local main = main_of {
    name = "iris", implementation = "SKLEARN_SERVER", model_uri = "s3://m/iris", env_secret = "rclone",
    explainer = { type = "AnchorTabular", model_uri = "s3://e" }, hpa = { min = 1, max = 4, cpu = 60 },
  }
  t.eq({ main.graph.modelUri, main.graph.envSecretRefName, main.explainer.modelUri }, { "s3://m/iris", "rclone", "s3://e" })
  t.eq(main.componentSpecs[1].hpaSpec.maxReplicas, 4)
  t.eq(main.componentSpecs[1].hpaSpec.metricsv2[1].resource.target.averageUtilization, 60)
end)

t.case("unknown keys raise with the near miss", function()
  t.raises("unknown key 'replica' %(did you mean 'replicas'%?%)", seldon.deployment, { name = "x", image = "m", replica = 2 })
  t.raises("predictors%[2%].*'imgae'.*'image'", seldon.deployment,
    { name = "x", predictors = { { name = "a", image = "m" }, { name = "b", imgae = "m" } } })
  t.raises("children%[1%].*'parameter'", seldon.deployment,
    { name = "x", graph = { name = "a", image = "m", children = { { name = "b", parameter = {} } } } })
  t.raises("secret/key", seldon.deployment, { name = "x", image = "m", secrets = { A = "nokey" } })
  t.raises("name is missing", seldon.deployment, { image = "m" })
  local object = seldon.deployment { name = "x", image = "m" }
  t.raises("unknown key 'trafic' %(did you mean 'traffic'%?%)", rollout.with, object, "canary", { image = "m", trafic = 10 })
end)

t.case("from YAML", function()
  local object = seldon.from_yaml [[
apiVersion: machinelearning.seldon.io/v1
kind: SeldonDeployment
metadata: { name: iris }
spec:
  predictors:
  - name: main
    graph: { name: classifier, implementation: SKLEARN_SERVER, modelUri: "s3://m/iris/6" }
]]
  t.eq((validate(object)), {})
  t.raises("apiVersion and kind", seldon.from_yaml, "a: 1")
end)

local function weights(object)
  local out = {}
  for _, predictor in ipairs(object.spec.predictors) do out[predictor.name] = predictor.traffic or "-" end
  return out
end

t.case("a canary beside main", function()
  local before = seldon.deployment { name = "x", image = "m:1", node = "classifier" }
  local object = rollout.with(before, "canary", { image = "m:2", traffic = 25 })
  t.eq(weights(object), { main = 75, canary = 25 })
  t.eq((validate(object)), {})
  t.eq(object.spec.predictors[2].graph.name, "classifier", "v2 requests by the node's name fit both")
  t.eq(weights(before), { main = "-" }, "what was given stays")
  t.eq(weights(rollout.with(object, "canary", { image = "m:3" })), { main = 90, canary = 10 }, "replaced")
  t.eq(weights(rollout.with(object, "b", { image = "m:3", traffic = 50 })), { main = 25, canary = 25, b = 50 })
  t.raises("nothing is left", rollout.with, object, "b", { image = "m:3", traffic = 80 })
  t.raises("'main' is the main predictor", rollout.with, object, "main", { image = "m:3" })
end)

t.case("weights", function()
  local object = rollout.with(seldon.deployment { name = "x", image = "m:1" }, "canary", { image = "m:2" })
  t.eq(weights(rollout.weighted(object, { canary = 100 })), { main = 0, canary = 100 })
  t.raises("did you mean 'canary'", rollout.weighted, object, { canry = 5 })
  t.raises("takes what the others leave", rollout.weighted, object, { main = 5 })
  t.raises("0 to 100", rollout.weighted, object, { canary = 5.5 })
  t.raises("0 to 100", rollout.weighted, object, { canary = 101 })
end)

t.case("a shadow has no part of the traffic", function()
  local before = seldon.deployment { name = "x", image = "m:1" }
  local object = rollout.with(before, "shadow", { image = "m:2", shadow = true, traffic = 30 })
  t.eq(weights(object), { main = 100, shadow = 30 })
  t.eq((validate(object)), {})
  t.eq(weights(rollout.without(object, "shadow")), { main = 100 })
end)

t.case("promotion keeps the weights, and no fewer replicas", function()
  local before = seldon.deployment { name = "x", image = "m:1", replicas = 3 }
  local object = rollout.replaced(rollout.with(before, "canary", { image = "m:2", replicas = 1, traffic = 40 }), "canary")
  local main, canary = object.spec.predictors[1], object.spec.predictors[2]
  t.eq({ main.name, main.replicas, main.traffic, canary.traffic }, { "main", 3, 60, 40 })
  t.eq(main.componentSpecs, canary.componentSpecs)
  t.eq(rollout.replaced(rollout.with(before, "c", { image = "m:2", replicas = 5 }), "c").spec.predictors[1].replicas, 5)
  t.eq(rollout.replaced(rollout.with(before, "c", { image = "m:2", replicas = 5 }), "c", 2).spec.predictors[1].replicas, 2)
  t.eq(weights(rollout.without(object, "canary")), { main = 100 })
  t.eq(rollout.main_of(object, before).spec.predictors[1].componentSpecs, before.spec.predictors[1].componentSpecs)
  t.eq(weights(rollout.main_of(object, before)), { main = 60, canary = 40 })
  t.raises("no predictor 'canry'; did you mean 'canary'", rollout.replaced, object, "canry")
end)

local function state(...)
  local out = { revisions = {} }
  for i, one in ipairs { ... } do out.revisions[i] = { number = i, good = one.good, object = { v = one.v } } end
  return out
end

t.case("the revision to go back to", function()
  local function back(applied, ...)
    local all = state(...)
    all.applied = { v = applied }
    local found = history.before(all)
    return found and found.object.v
  end
  local good, bad = { v = 1, good = true }, { v = 2, good = false }
  t.eq(back(1, good), nil, "there is no other")
  t.eq(back(2, good, bad), 1)
  t.eq(back(2, good, { v = 2, good = true }), 1)
  t.eq(back(9, good), 1, "in the middle of a rollout: what was there before it")
  t.eq(back(1, good, { v = 2, good = true }, { v = 1, good = true }), 2, "back and forth")
  t.eq(back(3, good, bad, { v = 3, good = false }), 1)
end)

t.case("revisions are bounded, and the last good one is kept", function()
  local all = state { v = 1, good = true }
  for i = 2, 30 do
    history.add(all, { v = i }, false)
    history.trim(all.revisions, 10, 1 << 20)
  end
  t.eq(#all.revisions, 10)
  t.eq({ all.revisions[1].number, all.revisions[1].good, all.revisions[2].number, all.revisions[10].number }, { 1, true, 22, 30 })
  history.trim(all.revisions, 10, 1)
  t.eq({ #all.revisions, all.revisions[1].number }, { 1, 1 })
end)

t.case("the same again is the same revision", function()
  local all = state()
  t.eq(history.add(all, { v = 1 }, false).number, 1)
  t.eq(history.add(all, { v = 1 }, true).number, 1)
  t.eq({ #all.revisions, all.revisions[1].good }, { 1, true })
  history.add(all, { v = 1 }, false)
  t.eq(all.revisions[1].good, true, "what was good once stays so")
end)
