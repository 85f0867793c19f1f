-- The entry of a component: a step of a Kubeflow pipeline written in Lua, run by `mlhost component FILE.lua`.
--
--   component "training" {
--     inputs  = { data = "path", epochs = { "int", default = 20 } },
--     outputs = { model = "path", accuracy = "float" },
--     permissions = { net = { "data.example.com" } },
--     run = function(cx) ... cx.output("accuracy", 0.97) end,
--   }
--
-- Types: path string int float bool json. An output of another type than path is set by cx.output(name, value); the host
-- writes it where the caller wants it. `cx`: inputs, outputs (paths), folder (the script's), output(name, value),
-- metadata(output, map).
local _, vm = ...

local M = {}

local TYPES = { path = true, string = true, int = true, float = true, bool = true, json = true }
local KEYS = { inputs = "table", outputs = "table", permissions = "table", run = "function", description = "string" }

local declared

local function names(map)
  local list = {}
  for key in pairs(map) do list[#list + 1] = tostring(key) end
  table.sort(list)
  return list
end

local function near(name, map)
  local found = vm.near(tostring(name), names(map))
  return found and (" (did you mean '%s'?)"):format(found) or ""
end

--- "int" or { "int", default = 20, description = "" } -> { type, default, description, has_default }
local function read_type(what, spec, is_input)
  local kind = type(spec) == "table" and (spec[1] or spec.type) or spec
  if not TYPES[kind] then
    local known = table.concat(names(TYPES), ", ")
    error(("%s: unknown type '%s'%s; types: %s"):format(what, tostring(kind), near(kind, TYPES), known), 0)
  end
  if type(spec) ~= "table" then return { type = kind } end
  for key in pairs(spec) do
    if key ~= 1 and key ~= "type" and key ~= "description" and not (is_input and (key == "default" or key == "optional")) then
      error(("%s: unknown key '%s'"):format(what, tostring(key)), 0)
    end
  end
  return {
    type = kind, default = spec.default, optional = spec.optional or spec.default ~= nil or nil, description = spec.description,
  }
end

local function take(name, spec)
  local what = ("component '%s'"):format(name)
  if declared then error(what .. ": the file declares another component: " .. declared.name, 3) end
  if type(spec) ~= "table" then error(what .. ": { ... } must follow the name", 3) end
  for key, value in pairs(spec) do
    if not KEYS[key] then error(("%s: unknown key '%s'%s"):format(what, tostring(key), near(key, KEYS)), 3) end
    if type(value) ~= KEYS[key] then error(("%s: %s must be a %s, not a %s"):format(what, key, KEYS[key], type(value)), 3) end
  end
  if not spec.run then error(what .. ": no run = function(cx) ... end", 3) end
  declared = { name = name, spec = spec, inputs = {}, outputs = {} }
  for key, kind in pairs(spec.inputs or {}) do
    declared.inputs[key] = read_type(("%s: input '%s'"):format(what, tostring(key)), kind, true)
  end
  for key, kind in pairs(spec.outputs or {}) do
    declared.outputs[key] = read_type(("%s: output '%s'"):format(what, tostring(key)), kind, false)
  end
end

--- Defines the global `component`; what it is given is checked. `mlhost check` uses it too.
function M.install()
  declared = nil
  function component(name, spec)
    if type(name) ~= "string" then error('component: a name comes first: component "name" { ... }', 2) end
    if spec ~= nil then return take(name, spec) end
    return function(body) return take(name, body) end
  end
end

local function load_script(start)
  M.install()
  local chunk, err = vm.load(start.script.text, "@" .. start.script.name)
  if not chunk then error(err, 0) end
  chunk()
  if not declared then
    error(vm.new_error { code = "invalid", message = start.script.name .. " declares no component",
      hint = 'component "name" { inputs = {}, outputs = {}, run = function(cx) ... end }' }, 0)
  end
end

local function fits(kind, value)
  if kind == "int" then return math.type(value) == "integer" end
  if kind == "float" then return type(value) == "number" end
  if kind == "bool" then return type(value) == "boolean" end
  if kind == "string" then return type(value) == "string" end
  return kind == "json"
end

local function run(start)
  local given, results, metadata = start.context, {}, {}
  local cx = { inputs = given.inputs or {}, outputs = {}, folder = start.script.folder, name = declared.name }
  for name, input in pairs(declared.inputs) do
    if cx.inputs[name] == nil then cx.inputs[name] = input.default end
  end
  setmetatable(cx.inputs, { __index = function(_, name)
    if declared.inputs[name] then return nil end
    error(("component '%s' has no input '%s'%s"):format(declared.name, tostring(name), near(name, declared.inputs)), 2)
  end })
  for name, output in pairs(declared.outputs) do
    if output.type == "path" then cx.outputs[name] = given.outputs[name] end
  end
  setmetatable(cx.outputs, { __index = function(_, name)
    local output = declared.outputs[name]
    if not output then
      error(("component '%s' has no output '%s'%s"):format(declared.name, tostring(name), near(name, declared.outputs)), 2)
    elseif output.type ~= "path" then
      error(("output '%s' is a %s: set it with cx.output(%q, value)"):format(name, output.type, name), 2)
    end
    error(("output '%s' has no path; run with --%s PATH"):format(name, name), 2)
  end })

  --- output(name, value): the value of an output that is no path.
  function cx.output(name, value)
    local output = declared.outputs[name]
    if not output or output.type == "path" then
      local hint = near(name, declared.outputs)
      error(("component '%s' has no output '%s' that takes a value%s"):format(declared.name, tostring(name), hint), 2)
    end
    if output.type == "int" and math.type(value) == "float" then value = math.tointeger(value) or value end
    if not fits(output.type, value) then
      error(("output '%s' is a %s, not a %s"):format(name, output.type, math.type(value) or type(value)), 2)
    end
    results[name] = value
  end

  --- metadata(output, map): kept with an artifact where the platform takes it (KFP's executor output).
  function cx.metadata(name, map)
    if not declared.outputs[name] or declared.outputs[name].type ~= "path" then
      error(("component '%s' has no artifact '%s'%s"):format(declared.name, tostring(name), near(name, declared.outputs)), 2)
    end
    metadata[name] = map
  end

  declared.spec.run(cx)
  for _, name in ipairs(names(declared.outputs)) do
    if declared.outputs[name].type ~= "path" and results[name] == nil and given.outputs[name] then
      error(("component '%s' ended without setting its output '%s'"):format(declared.name, name), 0)
    end
  end
  return { value = { outputs = results, metadata = metadata } }
end

function M.component(start)
  load_script(start)
  if start.context.phase == "declare" then
    return { value = {
      name = declared.name, description = declared.spec.description, inputs = declared.inputs, outputs = declared.outputs,
      permissions = declared.spec.permissions or {},
    } }
  end
  return run(start)
end

return M
