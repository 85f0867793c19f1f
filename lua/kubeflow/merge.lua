-- Folding a compiled pipeline into the one that uses it as a component: its components and executors get names that
-- are free there. Names are taken in sorted order, so that the result is the same every time.
local fail = require "kubeflow.fail"
local types = require "kubeflow.types"

local merge = {}

local function copy(value)
  if type(value) ~= "table" then return value end
  local out = setmetatable({}, getmetatable(value))
  for key, item in pairs(value) do out[key] = copy(item) end
  return out
end

merge.copy = copy

--- Names for those of `inner` that are free in `outer`; no new name is an old one of another.
local function renamed(inner, outer, keep_clear)
  local taken = {}
  for name in pairs(outer) do taken[name] = true end
  local names = {}
  for _, name in ipairs(fail.sorted_keys(inner)) do
    local new = types.unique(name, taken)
    names[name], taken[new] = new, true
    if keep_clear then taken[name] = true end
  end
  return names
end

local function rename(component, components, labels)
  if component.executorLabel then component.executorLabel = labels[component.executorLabel] end
  for _, spec in pairs(component.dag and component.dag.tasks or {}) do
    spec.componentRef.name = components[spec.componentRef.name]
  end
  return component
end

--- pipeline(state, compiled) -> component: the root of the pipeline, whose parts are added to the state
function merge.pipeline(state, compiled)
  local labels = renamed(compiled.executors, state.executors)
  local components = renamed(compiled.components, state.components, true)
  for old, new in pairs(labels) do
    state.executors[new] = copy(compiled.executors[old])
    state.platform[new], state.image_of[new] = copy(compiled.platform[old]), compiled.image_of[old]
  end
  for old, new in pairs(components) do
    state.components[new] = rename(copy(compiled.components[old]), components, labels)
  end
  state.tasks = state.tasks + compiled.tasks - 1
  return rename(copy(compiled.root), components, labels)
end

return merge
