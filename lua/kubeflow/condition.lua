-- Conditions on channels, and their text in the Common Expression Language (https://github.com/google/cel-spec).
local channel = require "kubeflow.channel"
local emit = require "kubeflow.emit"
local fail = require "kubeflow.fail"
local types = require "kubeflow.types"

local condition = {}

local Condition = {}
Condition.__index = Condition

local COMPARABLE = { STRING = true, NUMBER_INTEGER = true, NUMBER_DOUBLE = true, BOOLEAN = true }

local function operand(value, name)
  local c = channel.of(value)
  if not c then
    local t = types.of_constant(value)
    if type(value) == "table" then fail.raise("%s: a list or map cannot be compared", name) end
    return { value = value, type = t.param }
  end
  if not COMPARABLE[c.type.param] then
    fail.raise("%s: %s is of type %s; text, numbers and booleans can be compared", name, channel.describe(c),
      types.show(c.type))
  end
  return { channel = c, type = c.type.param }
end

local function show(side)
  if side.channel then return ("%s (%s)"):format(channel.describe(side.channel), types.short_parameter(side.type)) end
  return ("%s (%s)"):format(tostring(side.value), types.short_parameter(side.type))
end

--- The type both sides are compared as; raises where a reader of the expression would fail or compare wrongly.
local function common_type(left, right, name)
  if left.type == right.type then return left.type end
  local pair = { [left.type] = left, [right.type] = right }
  if pair.NUMBER_INTEGER and pair.NUMBER_DOUBLE then return "NUMBER_DOUBLE" end
  if pair.STRING and pair.STRING.channel and not (left.channel and right.channel) then return "STRING" end
  fail.raise("%s: %s cannot be compared with %s", name, show(left), show(right))
end

--- compare("==", a, b, name) -> condition. At least one side is a reference.
function condition.compare(operator, a, b, name)
  if not channel.of(a) and not channel.of(b) then
    fail.raise("%s needs a parameter of the pipeline or an output of a task on one side; "
      .. "two constants are compared with Lua's own operators", name)
  end
  local left, right = operand(a, name), operand(b, name)
  return setmetatable({
    operator = operator, left = left, right = right, type = common_type(left, right, name),
  }, Condition)
end

function condition.is(value) return getmetatable(value) == Condition end

--- negated(condition) -> its opposite
function condition.negated(c)
  return setmetatable({ operator = c.operator, left = c.left, right = c.right, type = c.type, negate = not c.negate },
    Condition)
end

--- channels(conditions) -> list of the channels that they read
function condition.channels(conditions)
  local list = {}
  for _, c in ipairs(conditions or {}) do
    if c.left.channel then list[#list + 1] = c.left.channel end
    if c.right.channel then list[#list + 1] = c.right.channel end
  end
  return list
end

local CEL_ESCAPES = { ["\\"] = "\\\\", ["'"] = "\\'", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t" }

local function cel_string(text) return "'" .. text:gsub("[\\'\n\r\t]", CEL_ESCAPES) .. "'" end

local function cel_operand(side, wanted)
  local text
  if side.channel then
    text = ("inputs.parameter_values['%s']"):format(channel.injected_name(side.channel))
    if side.type == "NUMBER_INTEGER" then text = ("int(%s)"):format(text) end
  elseif wanted == "STRING" then
    return cel_string(type(side.value) == "string" and side.value
      or math.type(side.value) == "float" and emit.float_text(side.value) or tostring(side.value))
  elseif math.type(side.value) == "float" then
    text = emit.float_text(side.value)
  else
    text = tostring(side.value)
  end
  if wanted == "NUMBER_DOUBLE" and side.type == "NUMBER_INTEGER" then text = ("double(%s)"):format(text) end
  return text
end

--- cel(conditions) -> expression that is true when all of them are
function condition.cel(conditions)
  local parts = {}
  for i, c in ipairs(conditions) do
    local text = ("%s %s %s"):format(cel_operand(c.left, c.type), c.operator, cel_operand(c.right, c.type))
    parts[i] = c.negate and ("!(%s)"):format(text) or text
  end
  return table.concat(parts, " && ")
end

return condition
