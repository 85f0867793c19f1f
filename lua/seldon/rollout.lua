-- Traffic between predictors: canary, shadow, A/B, promotion, and a rollout in steps with gates.
--
-- The order of the writes is what keeps requests from failing, on Istio and Ambassador alike:
--   * a canary is added with weight above 0 (Ambassador drops a weight of 0 and splits evenly: seldon-core issue 4067);
--   * main, the first predictor, always takes the rest;
--   * at promotion the canary serves everything while main is replaced, and goes only when main is there.
local deployments = require "seldon.deployment"
local vm = require "vm"

local rollout = {}

local function copy(value)
  if type(value) ~= "table" or value == vm.null then return value end
  local out = {}
  for key, item in pairs(value) do out[key] = copy(item) end
  return vm.is_array(value) and vm.array(out) or out
end
rollout.copy = copy

local function find(object, name)
  for i, predictor in ipairs(object.spec.predictors) do
    if predictor.name == name then return predictor, i end
  end
end

--- Weights: what is named gets its part, main (the first that is no shadow) the rest.
local function weigh(object, weights)
  local main, rest = nil, 100
  for _, predictor in ipairs(object.spec.predictors) do
    if not predictor.shadow then
      if not main then
        main = predictor
      else
        predictor.traffic = weights[predictor.name] or predictor.traffic or 0
        rest = rest - predictor.traffic
      end
    end
  end
  for name in pairs(weights) do
    if not find(object, name) then error(("traffic: there is no predictor '%s'"):format(name), 0) end
    if main and name == main.name then error(("traffic: '%s' takes the rest; name the others"):format(name), 0) end
  end
  if rest < 0 then error(("traffic adds up to %d"):format(100 - rest), 0) end
  main.traffic = rest
end

--- rollout.with(object, name, options) -> the object with a predictor of that name added or replaced
function rollout.with(object, name, options)
  local out, given = copy(object), copy(options)
  given.name = nil
  local predictor = deployments.predictor(name, given)
  local _, at = find(out, name)
  if at == 1 then error(("'%s' is the main predictor: deploy it, or promote another"):format(name), 0) end
  out.spec.predictors[at or #out.spec.predictors + 1] = predictor
  weigh(out, not predictor.shadow and { [name] = options.traffic or predictor.traffic or 10 } or {})
  if predictor.shadow then predictor.traffic = options.traffic end
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
  local _, at = find(out, name)
  if not at then return out end
  if at == 1 then error(("'%s' is the main predictor"):format(name), 0) end
  table.remove(out.spec.predictors, at)
  weigh(out, {})
  return out
end

--- rollout.replaced(object, name) -> the object whose main predictor is what the canary is; the canary keeps serving
function rollout.replaced(object, name)
  local out = copy(object)
  local canary = find(out, name)
  if not canary then error(("there is no predictor '%s' to promote"):format(name), 0) end
  local main = out.spec.predictors[1]
  for _, key in ipairs { "graph", "componentSpecs", "replicas", "explainer", "svcOrchSpec", "annotations", "labels" } do
    main[key] = copy(canary[key])
  end
  return out
end

rollout.find = find

return rollout
