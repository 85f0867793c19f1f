-- Channels: what flows between tasks of a graph (a pipeline's parameters, tasks' outputs, loop items), and conditions.
--
-- The compiler works on channels:
--   { kind = "param" | "artifact", name, type, task = producing task or group, or nil: an input of the pipeline }
--   loop = "argument" (items: a channel or a list of values) or "variable" (argument, key): items of a loop
--   collected = the channel of one iteration; one_of = list of the branches' channels, with group
-- A script holds references to them: a loop item's fields are references too (item.name), so a reference has no other
-- fields. Its text (tostring, .., %s) is a pattern which the compiler finds again inside constants.
local fail = require "kubeflow.fail"
local session = require "kubeflow.session"
local types = require "kubeflow.types"

local channel = {}

local KEY = {} -- of the channel in a reference
local Reference = {}
local Channel = {}

local PATTERN = "{{channel:[^}]*}}"

--- full_name(channel) -> its name in the graph: producer and output
function channel.full_name(c)
  return c.task and c.task.name .. "-" .. c.name or c.name
end

--- injected_name(channel or name) -> name of the input that the compiler adds for it to what lies between
function channel.injected_name(c)
  return "pipelinechannel--" .. (type(c) == "string" and c or channel.full_name(c))
end

--- pattern(channel) -> text that is equal for channels that are the same
function channel.pattern(c)
  local t = c.type
  return ("{{channel:%s;%s;%s}}"):format(c.task and c.task.name or "", c.name,
    t.param or (t.list and "list " or "") .. t.artifact)
end

--- new{ name, type, task } -> channel
function channel.new(c)
  c.kind = c.type.param and "param" or "artifact"
  return setmetatable(c, Channel)
end

--- is(value) -> is it a channel?
function channel.is(value) return getmetatable(value) == Channel end

--- copy(channel) -> another channel of the same content
function channel.copy(c)
  local other = {}
  for key, value in pairs(c) do other[key] = value end
  return setmetatable(other, Channel)
end

--- reference(channel) -> what a script gets to hold
function channel.reference(c) return setmetatable({ [KEY] = c }, Reference) end

--- of(value) -> the channel behind a reference, or nil
function channel.of(value)
  return getmetatable(value) == Reference and rawget(value, KEY) or nil
end

--- describe(channel) -> text for messages
function channel.describe(c)
  if c.loop then return "the loop item '" .. c.name .. "'" end
  if not c.task then return "the parameter '" .. c.name .. "'" end
  return ("the output '%s' of '%s'"):format(c.name, c.task.name)
end

function Reference.__index(reference, key)
  local c = rawget(reference, KEY)
  if c.loop == "argument" and c.kind == "param" and type(key) == "string" then
    return channel.reference(channel.loop_variable(c, key))
  end
  fail.raise("%s has no field '%s'", channel.describe(c), tostring(key))
end

function Reference.__newindex(reference)
  fail.raise("%s cannot be changed", channel.describe(rawget(reference, KEY)))
end

function Reference.__tostring(reference)
  local c = rawget(reference, KEY)
  if c.kind == "artifact" then
    fail.raise("%s is an artifact, and no part of a text", channel.describe(c))
  end
  if c.one_of or c.collected then fail.raise("one_of and collected cannot be parts of a text") end
  local pattern = channel.pattern(c)
  session.needed("a parameter or an output as part of a text").patterns[pattern] = c
  return pattern
end

function Reference.__concat(a, b) return tostring(a) .. tostring(b) end

local function no_comparison()
  fail.raise("what a task computes is not known while the pipeline is built: "
    .. "compare with kubeflow.lt, le, gt, ge, eq or ne inside kubeflow.when")
end
Reference.__lt, Reference.__le = no_comparison, no_comparison
function Reference.__call(reference) fail.raise("%s is not a function", channel.describe(rawget(reference, KEY))) end

-- ---- in constants ----

local function collect(value, found, seen, patterns)
  if type(value) == "string" then
    if not value:find("{{channel:", 1, true) then return end
    for pattern in value:gmatch(PATTERN) do
      if patterns[pattern] and not seen[pattern] then
        seen[pattern] = true
        found[#found + 1] = { pattern = pattern, channel = patterns[pattern] }
      end
    end
  elseif type(value) == "table" then
    local c = channel.of(value)
    if c then
      collect(tostring(value), found, seen, patterns)
      return
    end
    for key, item in pairs(value) do
      if type(key) == "string" then collect(key, found, seen, patterns) end
      collect(item, found, seen, patterns)
    end
  end
end

--- embedded(value) -> list of { pattern, channel } of all channels inside a constant, by pattern
function channel.embedded(value)
  local found = {}
  collect(value, found, {}, session.needed("a task").patterns)
  table.sort(found, function(a, b) return a.pattern < b.pattern end)
  return found
end

local function plain_replace(text, from, to)
  return (text:gsub(from:gsub("%p", "%%%0"), (to:gsub("%%", "%%%%"))))
end

--- replace(value, embedded, fn) -> copy of a constant with each channel's pattern replaced by fn(channel)
function channel.replace(value, embedded, fn)
  if type(value) == "string" then
    for _, entry in ipairs(embedded) do value = plain_replace(value, entry.pattern, fn(entry.channel)) end
    return value
  end
  if type(value) ~= "table" then return value end
  if channel.of(value) then return channel.replace(tostring(value), embedded, fn) end
  local copy = setmetatable({}, getmetatable(value))
  for key, item in pairs(value) do
    if type(key) == "string" then key = channel.replace(key, embedded, fn) end
    copy[key] = channel.replace(item, embedded, fn)
  end
  return copy
end

-- ---- loop items ----

--- loop_argument(items, id) -> channel of one item of a channel or of a list of values
function channel.loop_argument(items, id)
  if not channel.is(items) then
    local first = items[1]
    return channel.new {
      loop = "argument", items = items, raw = true, name = "loop-item-param-" .. id,
      type = types.of_constant(first),
    }
  end
  if items.kind == "artifact" then
    if not items.type.list then fail.raise("%s is no list of artifacts to loop over", channel.describe(items)) end
    return channel.new {
      loop = "argument", items = items, name = items.name .. "-loop-item", task = items.task,
      type = types.artifact(items.type.artifact, items.type.version),
    }
  end
  if items.loop ~= "variable" and items.type.param ~= "LIST" then
    fail.raise("%s is no list to loop over, but %s", channel.describe(items), types.show(items.type))
  end
  return channel.new {
    loop = "argument", items = items, name = items.name .. "-loop-item", task = items.task,
    type = items.type.of or types.of_parameter "STRING", untyped = items.type.of == nil,
  }
end

--- loop_variable(argument, key) -> channel of one field of a loop's item
function channel.loop_variable(argument, key)
  if not key:find "^[%a_][%w_]*$" then
    fail.raise("'%s' is no field of a loop item: letters, digits and _ only", key)
  end
  local t
  if argument.raw then
    local first = argument.items[1]
    if type(first) ~= "table" or first[key] == nil then
      fail.raise("the loop's items have no field '%s'%s", key,
        fail.near(key, type(first) == "table" and fail.sorted_keys(first) or {}))
    end
    t = types.of_constant(first[key])
  else
    t = argument.type.of
  end
  return channel.new {
    loop = "variable", argument = argument, key = key, raw = argument.raw, items = argument.items,
    name = argument.name .. "-subvar-" .. key, task = argument.task,
    type = t or types.of_parameter "STRING", untyped = t == nil,
  }
end

return channel
