-- Tasks: a component with its inputs at a place of the graph, and the settings of its container.
--
-- All settings return the task, so that they chain: train { ... }:memory { limit = "6G" }:after(prep).
local channel = require "kubeflow.channel"
local fail = require "kubeflow.fail"
local types = require "kubeflow.types"

local task = {}

local KEY = {} -- of the compiler's task in what a script holds
local Task = {}
local methods = {}
task.methods = methods -- platform.lua adds those for Kubernetes

--- of(value) -> the compiler's task behind what a script holds, or nil
function task.of(value)
  return getmetatable(value) == Task and rawget(value, KEY) or nil
end

--- The compiler's task of a method's first argument; raises for task.memory{} in place of task:memory{}.
local function own(self, method)
  local t = task.of(self)
  if not t then fail.raise("%s is called with a colon: task:%s(...)", method, method) end
  return t
end
task.own = own

local function container_of(self, method)
  local t = own(self, method)
  if not t.container then
    fail.raise("task '%s': %s is for tasks with a container, not for pipelines and importers", t.name, method)
  end
  return t
end
task.container_of = container_of

local Outputs = {}

function Outputs.__index(outputs, name)
  local t = rawget(outputs, KEY)
  fail.raise("task '%s' has no output '%s'%s", t.name, tostring(name), fail.near(name, t.definition.output_names))
end

local function outputs_of(t)
  local outputs = { [KEY] = t }
  for _, name in ipairs(t.definition.output_names) do
    outputs[name] = channel.reference(channel.new { name = name, type = t.definition.outputs[name].type, task = t })
  end
  return setmetatable(outputs, Outputs)
end

function Task.__index(self, key)
  local t = rawget(self, KEY)
  if methods[key] then return methods[key] end
  if key == "outputs" then return t.outputs end
  if key == "name" then return t.name end
  if key == "output" then
    local names = t.definition.output_names
    if #names == 1 then return t.outputs[names[1]] end
    fail.raise("task '%s' has %s; name one of them: task.outputs.name", t.name,
      #names == 0 and "no output" or "more than one output (" .. table.concat(names, ", ") .. ")")
  end
  local known = fail.sorted_keys(methods)
  table.move({ "name", "output", "outputs" }, 1, 3, #known + 1, known)
  fail.raise("a task has no '%s'%s", tostring(key), fail.near(key, known))
end

function Task.__newindex(_, key) fail.raise("a task's '%s' cannot be assigned", tostring(key)) end

function Task.__tostring(self) return ("task '%s'"):format(rawget(self, KEY).name) end

--- register(task, channel): the task reads this channel too, though by no input.
function task.register(t, c)
  local pattern = channel.pattern(c)
  for _, other in ipairs(t.channels) do
    if channel.pattern(other) == pattern then return end
  end
  t.channels[#t.channels + 1] = c
end

--- new(session, definition, inputs) -> task as a script holds it
function task.new(s, definition, inputs)
  local graph = s.graph
  local name = types.unique(definition.name ~= "" and definition.name or "task", graph.taken)
  graph.taken[name] = true
  local t = {
    name = name, definition = definition, inputs = inputs, channels = {}, waits_for = {}, at = fail.where(),
    caching = { enableCache = true }, platform = {}, parent = s.group,
  }
  if definition.container then
    local c = definition.container
    t.container = {
      image = c.image, command = c.command, args = c.args, env = table.move(c.env, 1, #c.env, 1, {}), resources = {},
    }
  end
  for _, input in ipairs(definition.input_names) do
    local value = inputs[input]
    if channel.is(value) then
      t.channels[#t.channels + 1] = value
    elseif value ~= nil then
      for _, entry in ipairs(channel.embedded(value)) do t.channels[#t.channels + 1] = entry.channel end
    end
  end
  t.outputs = outputs_of(t)
  graph.tasks[#graph.tasks + 1] = t
  s.group.tasks[#s.group.tasks + 1] = t
  return setmetatable({ [KEY] = t }, Task)
end

-- ---- settings ----

--- task:after(task, ...): runs after them, though it reads nothing of theirs. Also the handle of an exit handler.
function methods.after(self, ...)
  local t = own(self, "after")
  for i = 1, select("#", ...) do
    local other = select(i, ...)
    local node = task.of(other) or type(other) == "table" and rawget(other, "exit_handler_group") or nil
    if not node then fail.raise("task '%s': after takes tasks and exit handlers, not a %s", t.name, type(other)) end
    if node == t then fail.raise("task '%s' cannot run after itself", t.name) end
    t.waits_for[#t.waits_for + 1] = node
  end
  return self
end

--- A setting that may be a text or a reference to a parameter or output.
local function text_or_channel(t, value, what)
  local c = channel.of(value)
  if c then
    if c.kind ~= "param" then fail.raise("task '%s': %s cannot be an artifact", t.name, what) end
    task.register(t, c)
    return c
  end
  if type(value) == "number" then value = tostring(value) end
  if type(value) ~= "string" then fail.raise("task '%s': %s is a text, not a %s", t.name, what, type(value)) end
  return value
end
task.text_or_channel = text_or_channel

local MEMORY_UNITS = {
  [""] = 1, K = 1e3, Ki = 2 ^ 10, M = 1e6, Mi = 2 ^ 20, G = 1e9, Gi = 2 ^ 30, T = 1e12, Ti = 2 ^ 40, P = 1e15,
  Pi = 2 ^ 50, E = 1e18, Ei = 2 ^ 60,
}

local function memory_number(text)
  local number, unit = text:match "^(%d+)(%a*)$"
  if not number or not MEMORY_UNITS[unit] then return nil end
  return tonumber(number) * MEMORY_UNITS[unit] / 1e9
end

local function cpu_number(text)
  local number, milli = text:match "^(%d*%.?%d+)(m?)$"
  return number and tonumber(number) / (milli == "m" and 1000 or 1)
end

local function resource(method, kind, parse, form)
  methods[method] = function(self, spec)
    local t = container_of(self, method)
    if type(spec) ~= "table" or channel.of(spec) then spec = { limit = spec } end
    fail.check_keys(("task '%s': %s"):format(t.name, method), spec, { request = true, limit = true })
    for side, suffix in pairs { request = "Request", limit = "Limit" } do
      if spec[side] ~= nil then
        local value = text_or_channel(t, spec[side], method .. " " .. side)
        local number = type(value) == "string" and parse(value)
        if number == nil then
          fail.raise("task '%s': %s %s '%s' is no quantity: %s", t.name, method, side, value, form)
        end
        t.container.resources[kind .. suffix] = { value = value, number = number or nil, input = method .. "_" .. side }
      end
    end
    return self
  end
end

--- task:memory{ request = "5G", limit = "6G" }, or task:memory "6G" for the limit; texts, or references
resource("memory", "memory", memory_number, "a whole number with K, Ki, M, Mi, G, Gi, T, Ti, P, Pi, E or Ei")
--- task:cpu{ request = "500m", limit = "2" }, or task:cpu "2" for the limit
resource("cpu", "cpu", cpu_number, "a number of processors (0.5), or thousandths (500m)")

--- task:accelerator{ type = "nvidia.com/gpu", count = 1 }; texts and numbers, or references
function methods.accelerator(self, spec)
  local t = container_of(self, "accelerator")
  if type(spec) == "string" then spec = { type = spec } end
  fail.check_keys(("task '%s': accelerator"):format(t.name), spec, { type = true, count = true })
  if spec.type == nil then fail.raise("task '%s': accelerator needs a type", t.name) end
  local count = text_or_channel(t, spec.count or "1", "accelerator count")
  if type(count) == "string" and not count:find "^%d+$" then
    fail.raise("task '%s': accelerator count is a whole number, not '%s'", t.name, count)
  end
  t.container.accelerator = { type = text_or_channel(t, spec.type, "accelerator type"), count = count }
  return self
end

--- task:env("NAME", "value"), or task:env{ NAME = "value" }
function methods.env(self, name, value)
  local t = container_of(self, "env")
  local map = type(name) == "table" and name or { [name] = value }
  for _, key in ipairs(fail.sorted_keys(map)) do
    if type(map[key]) ~= "string" then
      fail.raise("task '%s': env '%s' is a text, not a %s; pass what is not known yet as an input", t.name, key,
        type(map[key]))
    end
    local env, found = t.container.env, false
    for i, entry in ipairs(env) do
      if entry.name == key then env[i], found = { name = key, value = map[key] }, true end
    end
    if not found then env[#env + 1] = { name = key, value = map[key] } end
  end
  return self
end

--- task:image(reference): another image than the component's; a text, or a reference to a parameter
function methods.image(self, image)
  local t = container_of(self, "image")
  t.container.image, t.container.image_set = text_or_channel(t, image, "image"), true
  return self
end

local UNITS = { s = 1, m = 60, h = 3600, d = 86400, w = 604800 }

--- seconds("90m", what) -> 5400; a number is seconds
function task.seconds(value, what)
  if math.type(value) == "integer" and value >= 0 then return value end
  local number, unit = tostring(value):match "^(%d+)%s*(%a)%a*$"
  if not number or not UNITS[unit] then
    fail.raise("%s: '%s' is no duration: a whole number with s, m, h, d or w", what, tostring(value))
  end
  return math.tointeger(tonumber(number)) * UNITS[unit]
end

--- task:retry(3), or task:retry{ count = 3, backoff = "30s", factor = 2, max = "1h" }
function methods.retry(self, spec)
  local t = own(self, "retry")
  if type(spec) ~= "table" then spec = { count = spec } end
  local what = ("task '%s': retry"):format(t.name)
  fail.check_keys(what, spec, { count = true, backoff = true, factor = true, max = true })
  if math.type(spec.count) ~= "integer" or spec.count < 0 then fail.raise("%s needs a count", what) end
  t.retry = {
    maxRetryCount = spec.count > 0 and spec.count or nil,
    backoffDuration = task.seconds(spec.backoff or 0, what) .. "s",
    backoffFactor = (spec.factor or 2) + 0.0,
    backoffMaxDuration = task.seconds(spec.max or 3600, what) .. "s",
  }
  return self
end

--- task:cache(false) always runs; task:cache{ key = "v2" } uses a key of its own
function methods.cache(self, value)
  local t = own(self, "cache")
  if type(value) == "table" then
    fail.check_keys(("task '%s': cache"):format(t.name), value, { key = true })
    t.caching = { enableCache = true, cacheKey = value.key }
  elseif type(value) == "boolean" then
    t.caching = value and { enableCache = true } or {}
  else
    fail.raise("task '%s': cache takes true, false or { key = \"text\" }", t.name)
  end
  return self
end

--- task:display_name "Train the model"
function methods.display_name(self, name)
  local t = own(self, "display_name")
  if type(name) ~= "string" then fail.raise("task '%s': display_name is a text", t.name) end
  t.display_name = name
  return self
end

--- task:ignore_upstream_failure(): runs when what it waits for has ended, however it ended
function methods.ignore_upstream_failure(self)
  local t = own(self, "ignore_upstream_failure")
  for name, value in pairs(t.inputs) do
    if channel.is(value) and value.task and not t.definition.inputs[name].optional then
      fail.raise("task '%s' ignores failures upstream, so its input '%s' (%s) may be missing: "
        .. "give that input a default",
        t.name, name, channel.describe(value))
    end
  end
  t.ignores_failure = true
  return self
end

return task
