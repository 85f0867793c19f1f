-- Traffic between predictors, as changes of specs: nothing is sent from here. release.lua sends them, in the order that it
-- describes.
local deployments = require "seldon.deployment"
local near = require "seldon.near"
local _, vm = ...

local rollout = {}

local function copy(value)
  if type(value) ~= "table" then return value end
  local out = {}
  for key, item in pairs(value) do out[key] = copy(item) end
  return vm.is_array(value) and vm.array(out) or out
end
rollout.copy = copy

--- rollout.find(object, name) -> predictor, place; or nil
function rollout.find(object, name)
  for i, predictor in ipairs(object.spec.predictors) do
    if predictor.name == name then return predictor, i end
  end
end

--- rollout.main(object) -> the predictor that takes the rest: the first that is no shadow
function rollout.main(object)
  for i, predictor in ipairs(object.spec.predictors) do
    if predictor.shadow ~= true then return predictor, i end
  end
  error(("%s has no predictor that answers"):format(object.metadata.name), 0)
end

local function names_of(object)
  local names = {}
  for i, predictor in ipairs(object.spec.predictors) do names[i] = predictor.name end
  return names
end

local function other(object, name, what)
  local predictor, at = rollout.find(object, name)
  if not predictor then
    error(("%s: there is no predictor '%s'%s"):format(what, tostring(name), near(name, names_of(object))), 0)
  end
  local main = rollout.main(object)
  if predictor == main then
    error(("%s: '%s' is the main predictor, which takes what the others leave: name another one"):format(what, name), 0)
  end
  return predictor, at
end

--- Weights: what is named gets its part, main the rest.
local function weigh(object, weights)
  local main, rest = rollout.main(object), 100
  for name, weight in pairs(weights) do
    local predictor = other(object, name, "traffic")
    if math.type(weight) ~= "integer" or weight < 0 or weight > 100 then
      error(("traffic: '%s' gets a whole number from 0 to 100, not %s"):format(name, tostring(weight)), 0)
    end
    predictor.traffic = weight
  end
  for _, predictor in ipairs(object.spec.predictors) do
    if predictor ~= main and predictor.shadow ~= true then
      predictor.traffic = type(predictor.traffic) == "number" and predictor.traffic or 0
      rest = rest - predictor.traffic
    end
  end
  if rest < 0 then error(("traffic: the others have %d of 100: nothing is left for '%s'"):format(100 - rest, main.name), 0) end
  main.traffic = rest
end

--- rollout.with(object, name, options) -> the object with a predictor of that name added, or replaced where it is
---
--- Its graph's first node is called as main's, so that a request by the node's name (protocol v2) fits both.
function rollout.with(object, name, options)
  local out, given = copy(object), copy(options)
  local main = rollout.main(out)
  if main.name == name then
    error(("'%s' is the main predictor: deploy it, or promote another one"):format(name), 0)
  end
  given.name = nil
  if not given.graph and not given.node then given.node = main.graph.name end
  local predictor = deployments.predictor(name, given)
  local _, at = rollout.find(out, name)
  out.spec.predictors[at or #out.spec.predictors + 1] = predictor
  weigh(out, not predictor.shadow and { [name] = predictor.traffic or 10 } or {})
  return out
end

--- rollout.weighted(object, weights) -> the object with other weights
function rollout.weighted(object, weights)
  local out = copy(object)
  weigh(out, weights)
  return out
end

--- rollout.without(object, name) -> the object without that predictor, its part with main
function rollout.without(object, name)
  local out = copy(object)
  if not rollout.find(out, name) then return out end
  local _, at = other(out, name, "remove")
  table.remove(out.spec.predictors, at)
  weigh(out, {})
  return out
end

local TAKEN = { "graph", "componentSpecs", "explainer", "svcOrchSpec", "annotations", "labels", "progressDeadlineSeconds" }

--- rollout.replaced(object, name, replicas?) -> the object whose main predictor is what the other one is, weights as they are
---
--- Main keeps its replicas when it has more of them: a canary is often a small one. `replicas` overrides.
function rollout.replaced(object, name, replicas)
  local out = copy(object)
  local canary, main = other(out, name, "promote"), rollout.main(out)
  for _, key in ipairs(TAKEN) do main[key] = copy(canary[key]) end
  main.replicas = replicas or math.max(main.replicas or 1, canary.replicas or 1)
  return out
end

--- rollout.main_of(object, original) -> the object with the main predictor of another state of it, weights as they are
function rollout.main_of(object, original)
  local out = copy(object)
  local main, at = rollout.main(out)
  local restored = copy((rollout.main(original)))
  restored.traffic = main.traffic
  out.spec.predictors[at] = restored
  return out
end

return rollout
