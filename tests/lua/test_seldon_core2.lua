-- Seldon Core 2: what is built, what is refused, and when a condition counts.
local t = require "test"
local core2 = require "seldon.core2"

local function refused(object, field, part)
  local problems = core2.validate(object)
  t.eq(#problems, 1)
  t.eq(problems[1].field, field)
  t.holds(problems[1].message, part)
end

t.case("a Model", function()
  local model = core2.model {
    name = "iris", namespace = "prod", uri = "s3://m/7", requirements = { "sklearn" }, memory = "100Ki", replicas = 2,
    parameters = { b = 2, a = "x" },
  }
  t.eq({ model.apiVersion, model.kind }, { "mlops.seldon.io/v1alpha1", "Model" })
  t.eq(model.metadata, { name = "iris", namespace = "prod" })
  t.eq(model.spec, {
    storageUri = "s3://m/7", requirements = { "sklearn" }, memory = "100Ki", replicas = 2,
    parameters = { { name = "a", value = "x" }, { name = "b", value = "2" } },
  })
  t.eq(core2.validate(model), {})
  t.eq(core2.is(model), true)
  t.raises("unknown key 'storage_uri'", core2.model, { name = "iris", storage_uri = "s3://m" })
  t.raises("did you mean 'requirements'", core2.model, { name = "iris", requirement = {} })
  t.raises("name is missing", core2.model, { uri = "s3://m" })
  refused(core2.model { name = "iris" }, "spec.storageUri", "required")
  refused(core2.model { name = "iris", uri = "s3://m", replicas = 5, max_replicas = 3 }, "spec.replicas", "between")
  refused(core2.model { name = "iris", explainer = {}, llm = {} }, "spec", "exclude")
end)

t.case("a Pipeline", function()
  local function with(inputs, output)
    return core2.pipeline {
      name = "chain", output = { steps = { output or "two" } },
      steps = { { name = "one", inputs = inputs }, { name = "two", inputs = { "one.outputs.y" } } },
    }
  end
  t.eq(core2.validate(with { "chain.inputs.x" }), {})
  refused(with { "on.outputs.x" }, "spec.steps[0].inputs[0]", "did you mean 'one'?")
  refused(with(nil, "three"), "spec.output.steps[0]", "names no step")
  refused(core2.pipeline { name = "chain" }, "spec.steps", "at least one")
  refused(core2.pipeline { name = "chain", steps = { { name = "a" }, { name = "a" } } }, "spec.steps[1].name", "twice")
end)

t.case("an Experiment, a Server", function()
  local function with(candidates, default) return core2.experiment { name = "ab", candidates = candidates, default = default } end
  t.eq(core2.validate(with({ { name = "a", weight = 90 }, { name = "b", weight = 10 } }, "a")), {})
  refused(with({ { name = "a", weight = 90 } }, "c"), "spec.default", "none of the candidates")
  refused(with { { name = "a" } }, "spec.candidates[0].weight", "whole number")
  refused(with {}, "spec.candidates", "at least one")
  refused(core2.experiment { name = "ab", candidates = { { name = "a", weight = 1 } }, mirror = { name = "m", percent = 101 } },
    "spec.mirror.percent", "0 to 100")
  t.eq(core2.validate(core2.server { name = "ml", config = "mlserver" }), {})
  refused(core2.server { name = "ml" }, "spec.serverConfig", "required")
end)

local function model(ready, more)
  local out = {
    kind = "Model", spec = { replicas = 2 }, status = { availableReplicas = 2, conditions = {
      { type = "ModelReady", status = ready.status, reason = ready.reason, message = ready.message },
      { type = "Ready", status = ready.status, reason = ready.reason, lastTransitionTime = ready.at or "2026-01-01T00:00:00Z" },
    } },
  }
  for key, value in pairs(more or {}) do out.status[key] = value end
  return out
end

t.case("ready", function()
  t.eq(core2.missing(model { status = "True" }, nil, 0), nil)
  t.holds((core2.missing({ kind = "Model", spec = {} }, nil, 0)), "no condition Ready")
  t.holds((core2.missing(model { status = "False", reason = "ModelProgressing" }, nil, 0)), "ModelProgressing")
  t.holds((core2.missing(model({ status = "True" }, { availableReplicas = 1 }), nil, 0)), "1 of 2 replicas")
  local partly = model({ status = "True" }, { availableReplicas = 1 })
  partly.spec.minReplicas = 1
  t.eq(core2.missing(partly, nil, 0), nil, "scheduled partly, as it may be")
end)

t.case("what was true of the spec before does not count", function()
  local before = { status = "True", lastTransitionTime = "2026-01-01T00:00:00Z" }
  t.holds((core2.missing(model { status = "True" }, before, 1)), "the spec before")
  t.eq(core2.missing(model { status = "True", at = "2026-01-01T00:00:05Z" }, before, 1), nil)
  t.eq(core2.missing(model { status = "True" }, before, 31), nil, "the scheduler has seen it, and nothing had to change")
  local failed = { status = "False", reason = "ScheduleFailed", lastTransitionTime = "2026-01-01T00:00:00Z" }
  local _, final = core2.missing(model { status = "False", reason = "ScheduleFailed" }, failed, 1)
  t.eq(final, nil, "it may be scheduled now")
end)

t.case("no waiting helps", function()
  local why, final = core2.missing(model { status = "False", reason = "ScheduleFailed", message = "no server has 5Gi" }, nil, 0)
  t.eq({ why, final }, { "ScheduleFailed: no server has 5Gi", true })
end)
