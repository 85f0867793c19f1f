-- The intermediate representation of a pipeline (PipelineSpec, schema 2.1.0): reading, checking, typing of
-- parameters. Used by the API (before anything is stored) and by the runner (before anything runs).
local cel = require "local.runner.cel"
local json = require "local.json"

local ir = {}

local function present(value)
  return value ~= nil and value ~= json.null
end

local function map(value)
  return type(value) == "table" and value ~= json.null and value or {}
end
ir.map = map

-- Names become folders and files: no separators, no dot names.
local function good_name(name)
  return type(name) == "string" and #name > 0 and #name <= 200 and not name:find("[/%c\\]") and name ~= "."
         and name ~= ".."
end

--- Documents of an uploaded file -> { pipeline_spec, platform_spec? }, or nil and what is wrong. Accepts what
--- the SDK writes (one or two documents) and the joined form { pipeline_spec, platform_spec }.
function ir.from_documents(documents)
  local spec, platform
  for i, document in ipairs(documents) do
    if not json.is_object(document) then
      return nil, ("document %d of the file is not a map"):format(i)
    elseif document.pipeline_spec then
      spec, platform = document.pipeline_spec, document.platform_spec or platform
    elseif document.platforms and not document.pipelineInfo then
      platform = document
    elseif spec then
      return nil, ("document %d of the file is neither a pipeline (there is one already) nor `platforms:`"):format(i)
    else
      spec = document
    end
  end
  if not spec then
    return nil, "the file holds no pipeline: expected a PipelineSpec with pipelineInfo, root and schemaVersion"
  end
  return { pipeline_spec = spec, platform_spec = platform }
end

local problems = {}

function problems.head(spec)
  if not json.is_object(spec) then
    return "pipeline spec must be a map"
  elseif spec.schemaVersion ~= "2.1.0" then
    return ("unsupported schemaVersion %s: this server reads 2.1.0"):format(tostring(spec.schemaVersion or "(none)"))
  elseif type(map(spec.pipelineInfo).name) ~= "string" or spec.pipelineInfo.name == "" then
    return "pipelineInfo.name must not be empty"
  elseif not spec.pipelineInfo.name:match("^[a-z0-9][a-z0-9-]*$") or #spec.pipelineInfo.name > 128 then
    return ("pipelineInfo.name '%s': allowed are up to 128 of a-z 0-9 -, the first no dash"):format(
      spec.pipelineInfo.name)
  elseif not json.is_object(spec.root) then
    return "root must be a component"
  end
end

-- Names of inputs and outputs.
function problems.names(where, component)
  for _, section in ipairs { "inputDefinitions", "outputDefinitions" } do
    for _, kind in ipairs { "parameters", "artifacts" } do
      for name in pairs(map(map(component[section])[kind])) do
        if not good_name(name) then
          return ("%s.%s.%s: '%s' cannot be a name"):format(where, section, kind, tostring(name))
        end
      end
    end
  end
end

-- Every task that a task needs: the written list and the producers of its inputs.
function ir.needs(task)
  local needs = {}
  for _, name in ipairs(map(task.dependentTasks)) do
    needs[name] = true
  end
  local inputs = map(task.inputs)
  for _, input in pairs(map(inputs.parameters)) do
    local from = map(input).taskOutputParameter or map(input).taskFinalStatus
    if from then
      needs[from.producerTask] = true
    end
  end
  for _, input in pairs(map(inputs.artifacts)) do
    local from = map(input).taskOutputArtifact
    if from then
      needs[from.producerTask] = true
    end
  end
  return needs
end

local function find_cycle(tasks)
  local state, path = {}, {}
  local function visit(name)
    if state[name] == "done" then
      return nil
    end
    path[#path + 1] = name
    if state[name] == "open" then
      return table.concat(path, " -> ")
    end
    state[name] = "open"
    for needed in pairs(ir.needs(tasks[name])) do
      local cycle = visit(needed)
      if cycle then
        return cycle
      end
    end
    path[#path] = nil
    state[name] = "done"
  end
  local names = {}
  for name in pairs(tasks) do
    names[#names + 1] = name
  end
  table.sort(names)
  for _, name in ipairs(names) do
    local cycle = visit(name)
    if cycle then
      return cycle
    end
  end
end

function problems.task(where, name, task, tasks, spec)
  where = where .. ".dag.tasks." .. tostring(name)
  if not good_name(name) then
    return where .. ": cannot be a task's name"
  elseif not json.is_object(task) then
    return where .. " must be a map"
  end
  local component = map(task.componentRef).name
  if not component then
    return where .. ".componentRef.name is missing"
  elseif not map(spec.components)[component] then
    return ("%s.componentRef.name: there is no component '%s'"):format(where, tostring(component))
  end
  for needed in pairs(ir.needs(task)) do
    if not tasks[needed] then
      return ("%s needs the task '%s', which is not in the same dag"):format(where, tostring(needed))
    end
  end
  local condition = map(task.triggerPolicy).condition
  if present(condition) and condition ~= "" then
    local ok, why = cel.check(condition)
    if not ok then
      return where .. ".triggerPolicy.condition: " .. why
    end
  end
end

function problems.dag(where, dag, spec)
  local tasks = map(dag.tasks)
  if next(tasks) == nil then
    return where .. ".dag.tasks is empty"
  end
  for name, task in pairs(tasks) do
    local problem = problems.task(where, name, task, tasks, spec)
    if problem then
      return problem
    end
  end
  local cycle = find_cycle(tasks)
  if cycle then
    return ("%s.dag: tasks wait for each other: %s"):format(where, cycle)
  end
end

-- No component may contain itself: the runner would never end.
local function find_recursion(spec)
  local state = {}
  local function visit(name, component)
    if state[name] == "open" then
      return name
    elseif state[name] then
      return nil
    end
    state[name] = "open"
    for _, task in pairs(map(map(component.dag).tasks)) do
      local inner = task.componentRef.name
      local found = visit(inner, spec.components[inner])
      if found then
        return found
      end
    end
    state[name] = "done"
  end
  return visit("root", spec.root)
end

--- Checks a pipeline; nil when it can run, else what is wrong with the path of the field.
function ir.problem(spec)
  local problem = problems.head(spec)
  if problem then
    return problem
  end
  local components = { ["root"] = spec.root }
  for name, component in pairs(map(spec.components)) do
    components["components." .. name] = component
  end
  local executors = map(map(spec.deploymentSpec).executors)
  for where, component in pairs(components) do
    if not json.is_object(component) then
      return where .. " must be a map"
    end
    problem = problems.names(where, component)
    if problem then
      return problem
    elseif component.dag then
      problem = problems.dag(where, component.dag, spec)
    elseif component.executorLabel then
      if not executors[component.executorLabel] then
        problem = ("%s.executorLabel: there is no executor '%s'"):format(where, tostring(component.executorLabel))
      end
    else
      problem = where .. " has neither a dag nor an executorLabel"
    end
    if problem then
      return problem
    end
  end
  local recursive = find_recursion(spec)
  return recursive and ("the component '%s' contains itself"):format(recursive)
end

local type_names = {
  STRING = "a string", NUMBER_INTEGER = "an integer", NUMBER_DOUBLE = "a number", BOOLEAN = "true or false",
  LIST = "a list", STRUCT = "a map", TASK_FINAL_STATUS = "a map", TASK_CONFIG = "a map",
}
local legacy_types = { INT = "NUMBER_INTEGER", DOUBLE = "NUMBER_DOUBLE", STRING = "STRING" }

function ir.type_of(definition)
  return definition.parameterType or legacy_types[definition.type or ""]
end

local function fits(value, kind)
  if kind == "STRING" then
    return type(value) == "string"
  elseif kind == "NUMBER_INTEGER" then
    return type(value) == "number" and value == math.floor(value)
  elseif kind == "NUMBER_DOUBLE" then
    return type(value) == "number"
  elseif kind == "BOOLEAN" then
    return type(value) == "boolean"
  elseif kind == "LIST" then
    return json.is_array(value)
  elseif kind == "STRUCT" or kind == "TASK_FINAL_STATUS" or kind == "TASK_CONFIG" then
    return json.is_object(value)
  end
  return true
end

local function show(value)
  local text = json.encode(value)
  return #text > 60 and text:sub(1, 57) .. "..." or text
end

--- Does the value fit the definition? nil, or what is wrong.
function ir.misfit(name, value, definition)
  local kind = ir.type_of(definition)
  if not fits(value, kind) then
    return ("parameter '%s' must be %s (%s), not %s"):format(name, type_names[kind] or "?", kind, show(value))
  end
  local literals = map(definition.literals)
  if #literals > 0 then
    for _, literal in ipairs(literals) do
      if literal == value then
        return nil
      end
    end
    return ("parameter '%s' must be one of %s, not %s"):format(name, show(literals), show(value))
  end
end

--- Values of a component's inputs: those given, else the defaults. Returns the map, or nil and what is wrong: a
--- missing parameter, one that does not exist, a wrong type.
function ir.parameters(component, given)
  local definitions = map(map(component.inputDefinitions).parameters)
  local values = {}
  local names = {}
  for name in pairs(definitions) do
    names[#names + 1] = name
  end
  table.sort(names)
  for name in pairs(given) do
    if not definitions[name] then
      return nil, ("the pipeline has no parameter '%s'%s"):format(tostring(name), #names > 0 and
        "; it has: " .. table.concat(names, ", ") or " (it has none)")
    end
  end
  for _, name in ipairs(names) do
    local definition, value = definitions[name], given[name]
    if present(value) then
      local problem = ir.misfit(name, value, definition)
      if problem then
        return nil, problem
      end
      values[name] = value
    elseif present(definition.defaultValue) then
      values[name] = definition.defaultValue
    elseif not definition.isOptional then
      return nil, ("parameter '%s' (%s) is missing: it has no default"):format(name, ir.type_of(definition) or "?")
    end
  end
  return values
end

--- A text that a task wrote as an output parameter -> its value, or nil and what is wrong.
function ir.parse_output(name, text, definition)
  local kind = ir.type_of(definition)
  if kind == "STRING" then
    return text
  end
  local trimmed = text:match("^%s*(.-)%s*$")
  local value
  if kind == "NUMBER_INTEGER" then
    value = trimmed:match("^[+-]?%d+$") and math.tointeger(tonumber(trimmed))
  elseif kind == "NUMBER_DOUBLE" then
    value = not trimmed:find("[xX]") and tonumber(trimmed) or nil
  elseif kind == "BOOLEAN" then
    local lower = trimmed:lower()
    if lower == "true" or lower == "1" or lower == "t" then
      return true
    elseif lower == "false" or lower == "0" or lower == "f" then
      return false
    end
  else
    local ok, tree = pcall(json.decode, trimmed)
    value = ok and fits(tree, kind) and tree or nil
  end
  if value == nil or value == false then
    return nil, ("output parameter '%s' must be %s, the task wrote: %s"):format(name, type_names[kind] or "?",
      show(text))
  end
  return value
end

return ir
