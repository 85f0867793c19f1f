-- Components: what a task runs. Declared in Lua (kubeflow.component), read from a file (loader.lua), or a pipeline.
--
-- Calling a component inside a pipeline's build function makes a task of it: train { data = prep.outputs.data }.
local channel = require "kubeflow.channel"
local fail = require "kubeflow.fail"
local json = require "json"
local placeholder = require "kubeflow.placeholder"
local session = require "kubeflow.session"
local task = require "kubeflow.task"
local types = require "kubeflow.types"

local component = {}

local KEY = {} -- of the definition in what a script holds
local Component = {}

--- wrap(definition) -> component that a script can call
---   definition { name, description, inputs, input_names, outputs, output_names } and one of
---   container { image, command, args, env } | graph (a compiled pipeline) | importer
function component.wrap(definition)
  return setmetatable({ [KEY] = definition }, Component)
end

--- of(value) -> definition behind a component, or nil
function component.of(value)
  return getmetatable(value) == Component and rawget(value, KEY) or nil
end

function Component.__index(self, key)
  local definition = rawget(self, KEY)
  if key == "name" or key == "description" then return definition[key] end
  if key == "inputs" then return definition.input_names end
  if key == "outputs" then return definition.output_names end
  fail.raise("component '%s' has no field '%s'", definition.name, tostring(key))
end

function Component.__tostring(self) return ("component '%s'"):format(rawget(self, KEY).name) end

-- ---- arguments ----

local function mismatch(definition, name, given, wanted)
  fail.raise("task of '%s': input '%s' takes %s %s, not %s", definition.name, name,
    wanted.artifact and "an artifact," or "a", types.show(wanted), given)
end

local function checked_channel(definition, name, c, wanted)
  if c.untyped and wanted.param then return c end
  if not types.fits(c.type, wanted) then
    mismatch(definition, name, ("%s of type %s"):format(channel.describe(c), types.show(c.type)), wanted)
  end
  return c
end

local function checked_constant(definition, name, value, wanted)
  if wanted.artifact then mismatch(definition, name, "the value " .. tostring(value), wanted) end
  if type(value) == "table" and (wanted.param == "LIST" or wanted.param == "STRUCT") then
    local list = #value > 0 or json.is_array(value)
    if next(value) == nil then return wanted.param == "LIST" and json.array {} or value end
    if list == (wanted.param == "LIST") then return value end
    mismatch(definition, name, list and "a list" or "a map", wanted)
  end
  local given = types.of_constant(value)
  if wanted.param == "NUMBER_INTEGER" and math.type(value) == "float" and math.tointeger(value) then
    return math.tointeger(value)
  end
  if not types.fits(given, wanted) then
    mismatch(definition, name, ("the %s %s"):format(types.show(given), tostring(value)), wanted)
  end
  return value
end

local function bind(definition, arguments)
  if arguments == nil then arguments = {} end
  if type(arguments) ~= "table" or channel.of(arguments) then
    fail.raise("component '%s' takes its inputs by name: { input = value }", definition.name)
  end
  local bound = {}
  for name, value in pairs(arguments) do
    local input = definition.inputs[name]
    if not input then
      fail.raise("component '%s' has no input '%s'%s", definition.name, tostring(name),
        fail.near(name, definition.input_names))
    end
    if value == types.final_status then
      if input.type.param ~= "TASK_FINAL_STATUS" and input.type.param ~= "STRUCT" then
        mismatch(definition, name, "the final status", input.type)
      end
    else
      local c = channel.of(value)
      if c then
        if c.collected then c = channel.copy(c) end
        bound[name] = checked_channel(definition, name, c, input.type)
      elseif task.of(value) then
        fail.raise("task of '%s': input '%s' got a task; pass one of its outputs (task.outputs.name, or task.output)",
          definition.name, name)
      else
        bound[name] = checked_constant(definition, name, value, input.type)
      end
    end
  end
  local missing = {}
  for _, name in ipairs(definition.input_names) do
    if not definition.inputs[name].optional and bound[name] == nil then missing[#missing + 1] = name end
  end
  if #missing > 0 then
    fail.raise("task of '%s' lacks the input%s: %s", definition.name, #missing > 1 and "s" or "",
      table.concat(missing, ", "))
  end
  return bound
end

function Component.__call(self, arguments)
  local definition = rawget(self, KEY)
  local s = session.needed(("calling component '%s'"):format(definition.name))
  return task.new(s, definition, bind(definition, arguments))
end

-- ---- declared in Lua ----

local KEYS = {
  name = true, description = true, image = true, command = true, args = true, inputs = true, outputs = true, env = true,
}

local function words(value, what)
  if value == nil then return {} end
  if type(value) == "string" or placeholder.is(value) then value = { value } end
  if type(value) ~= "table" then fail.raise("%s is a list of texts and placeholders", what) end
  return value
end

--- Environment as a sorted list of { name, value }.
function component.environment(env, what)
  local list = {}
  for name, value in pairs(env or {}) do
    if type(name) ~= "string" or (type(value) ~= "string" and not placeholder.is(value)) then
      fail.raise("%s: env maps names to texts", what)
    end
    list[#list + 1] = { name = name, value = placeholder.text(value) }
  end
  table.sort(list, function(a, b) return a.name < b.name end)
  return list
end

--- finish(definition): checks names and placeholders of a container component, and turns its command line into text.
function component.finish(definition)
  local what = ("component '%s'"):format(definition.name)
  for _, name in ipairs(definition.input_names) do
    if definition.outputs[name] then fail.raise("%s: '%s' is the name of an input and of an output", what, name) end
  end
  local container = definition.container
  for _, part in ipairs { "command", "args" } do
    local list = {}
    for i, item in ipairs(container[part]) do
      placeholder.check(item, definition)
      list[i] = placeholder.text(item)
    end
    container[part] = list
  end
  return component.wrap(definition)
end

--- component{ name, image, command?, args?, inputs?, outputs?, env?, description? } -> component
---   name     string  becomes the name of its tasks, made fit for Kubernetes
---   image    string  container image
---   command  list    of texts and placeholders (kubeflow.input "x", kubeflow.output_path "model", ...)
---   args     list    likewise
---   inputs   map     name -> type ("int", kubeflow.Dataset), or { type, default =, optional =, description = }
---   outputs  map     name -> type, or { type, description = }
---   env      map     name -> text
function component.define(spec)
  if type(spec) ~= "table" then fail.raise("component takes a table: component { name =, image =, ... }") end
  fail.check_keys("component", spec, KEYS)
  if type(spec.name) ~= "string" or types.kubernetes_name(spec.name) == "" then
    fail.raise("component needs a name with letters or digits")
  end
  local what = ("component '%s'"):format(spec.name)
  if type(spec.image) ~= "string" or spec.image == "" then fail.raise("%s needs an image", what) end
  local inputs, input_names = types.definitions(spec.inputs, what .. ": input")
  local outputs, output_names = types.definitions(spec.outputs, what .. ": output")
  for _, name in ipairs(output_names) do
    if outputs[name].default ~= nil then fail.raise("%s: output '%s' cannot have a default", what, name) end
  end
  return component.finish {
    name = types.kubernetes_name(spec.name), description = spec.description,
    inputs = inputs, input_names = input_names, outputs = outputs, output_names = output_names,
    container = {
      image = spec.image, command = words(spec.command, what .. ": command"), args = words(spec.args, what .. ": args"),
      env = component.environment(spec.env, what),
    },
  }
end

return component
