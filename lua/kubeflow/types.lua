-- Types of inputs and outputs: parameters (values) and artifacts (files with metadata), and names made from them.
--
-- A type is { param = "STRING" ... } or { artifact = "system.Dataset", version = "0.0.1", list = bool }; `of` is the
-- item type of a list or the value type of a dict, where it is known.
local fail = require "kubeflow.fail"
local json = require "json"

local types = {}

local Type = {}
Type.__index = Type

local function param(name, of) return setmetatable({ param = name, of = of }, Type) end

local PARAMETERS = {
  string = "STRING", str = "STRING", text = "STRING",
  int = "NUMBER_INTEGER", integer = "NUMBER_INTEGER",
  float = "NUMBER_DOUBLE", double = "NUMBER_DOUBLE", number = "NUMBER_DOUBLE",
  bool = "BOOLEAN", boolean = "BOOLEAN",
  list = "LIST", jsonarray = "LIST", dict = "STRUCT", jsonobject = "STRUCT",
  pipelinetaskfinalstatus = "TASK_FINAL_STATUS", final_status = "TASK_FINAL_STATUS",
}

--- What people call a parameter type (headers, messages).
local SHORT = {
  STRING = "str", NUMBER_INTEGER = "int", NUMBER_DOUBLE = "float", BOOLEAN = "bool", LIST = "list", STRUCT = "dict",
  TASK_FINAL_STATUS = "PipelineTaskFinalStatus",
}

local ARTIFACTS = {
  "Artifact", "Dataset", "Model", "Metrics", "ClassificationMetrics", "SlicedClassificationMetrics", "HTML", "Markdown",
}

--- artifact(schema title, version) -> type: any artifact type by its schema title, "google.BQMLModel"
function types.artifact(title, version)
  if type(title) ~= "string" or not title:find "^[%a][%w_]*%.[%w_.]+$" then
    fail.raise("an artifact type is a schema title such as \"google.BQMLModel\", not %s", tostring(title))
  end
  return setmetatable({ artifact = title, version = version or "0.0.1", list = false }, Type)
end

--- The artifact types of the system namespace by their short names: types.system.Dataset
types.system = {}
local by_lower_name = {}
for _, name in ipairs(ARTIFACTS) do
  types.system[name] = types.artifact("system." .. name)
  by_lower_name[name:lower()] = types.system[name]
end

types.final_status = param "TASK_FINAL_STATUS"

function types.is_type(value) return getmetatable(value) == Type end

--- of_name(text) -> type of a name as scripts and component.yaml write it, or nil
function types.of_name(name)
  local found = PARAMETERS[name:lower()]
  if found then return param(found) end
  if name:find "^google%.%a+$" then return types.artifact(name) end
  return by_lower_name[name:lower():gsub("^system%.", "")]
end

--- from(value) -> type of "int", kf.Dataset and the like; raises with the near miss
function types.from(value, what)
  if types.is_type(value) then return value end
  if type(value) == "string" then
    local found = types.of_name(value)
    if found then return found end
    fail.raise("%s: unknown type '%s'%s", what, value,
      fail.near(value, { "string", "int", "integer", "float", "number", "bool", "boolean", "list", "dict",
        table.unpack(ARTIFACTS) }))
  end
  fail.raise("%s: a type is a name such as \"int\" or an artifact type such as kubeflow.Dataset, not %s", what,
    type(value))
end

--- list(item) -> type of a list: of artifacts (kf.list(kf.Model)) or of values (kf.list "string")
function types.list(item)
  local inner = types.from(item, "list")
  if inner.artifact then
    return setmetatable({ artifact = inner.artifact, version = inner.version, list = true }, Type)
  end
  return param("LIST", inner)
end

--- dict(value) -> type of a dict whose values have this type
function types.dict(value) return param("STRUCT", types.from(value, "dict")) end

function types.of_parameter(name) return param(name) end

--- of_constant(value) -> type of a value in a script
function types.of_constant(value)
  local kind = type(value)
  if kind == "string" then return param "STRING" end
  if kind == "boolean" then return param "BOOLEAN" end
  if kind == "number" then return param(math.type(value) == "integer" and "NUMBER_INTEGER" or "NUMBER_DOUBLE") end
  if kind == "table" then return param(json.is_array(value) and "LIST" or "STRUCT") end
  fail.raise("a %s cannot be passed to a task", kind)
end

--- show(type) -> text for messages: "int", "system.Dataset", "list of system.Model"
function types.show(t)
  if t.param then return SHORT[t.param] end
  return (t.list and "list of " or "") .. t.artifact
end

function types.short_parameter(name) return SHORT[name] or name end

local function major(version) return version:match "^[^.]*" end

--- fits(given, expected) -> can what has the one type be passed where the other is wanted?
function types.fits(given, expected)
  if (given.param ~= nil) ~= (expected.param ~= nil) then return false end
  if given.param then
    if given.param == expected.param then return true end
    if given.param == "TASK_FINAL_STATUS" then return expected.param == "STRUCT" end
    return given.param == "NUMBER_INTEGER" and expected.param == "NUMBER_DOUBLE"
  end
  if given.list ~= expected.list then return false end
  if given.artifact == "system.Artifact" or expected.artifact == "system.Artifact" then return true end
  return given.artifact == expected.artifact and major(given.version) == major(expected.version)
end

local INPUT_KEYS = { type = true, default = true, optional = true, description = true, [1] = true }

local function checked_default(value, t, what)
  if t.artifact then fail.raise("%s: an artifact has no default", what) end
  if t.param == "LIST" and type(value) == "table" then return #value == 0 and json.array {} or value end
  if t.param == "STRUCT" and type(value) == "table" and #value == 0 then return value end
  if not types.fits(types.of_constant(value), t) or type(value) == "table" then
    fail.raise("%s: the default %s is no %s", what, tostring(value), types.show(t))
  end
  return value
end

--- definition(value, what) -> { type, default, optional, description } of one entry of `inputs` or `outputs`:
---   a type, or { type, default =, optional =, description = }
function types.definition(value, what)
  if type(value) ~= "table" or types.is_type(value) then
    local t = types.from(value, what)
    return { type = t, optional = t.param == "TASK_FINAL_STATUS" }
  end
  fail.check_keys(what, value, INPUT_KEYS)
  local t = types.from(value[1] or value.type, what)
  local default = value.default
  if default ~= nil then default = checked_default(default, t, what) end
  return {
    type = t, default = default, description = value.description,
    optional = default ~= nil or value.optional == true or t.param == "TASK_FINAL_STATUS",
  }
end

--- definitions(map, what) -> map of definitions, and its names sorted
function types.definitions(map, what)
  local all = {}
  for name, value in pairs(map or {}) do
    if type(name) ~= "string" or not name:find "^[%a][%w_ -]*$" then
      fail.raise("%s: '%s' is no name: a letter, then letters, digits, - and _", what, tostring(name))
    end
    all[name] = types.definition(value, ("%s '%s'"):format(what, name))
  end
  return all, fail.sorted_keys(all)
end

-- ---- names ----

--- kubernetes_name("My task_1") -> "my-task-1"
function types.kubernetes_name(name)
  return (name:lower():gsub("[^%-0-9a-z]+", "-"):gsub("%-+", "-"):gsub("^%-+", ""):gsub("%-+$", ""))
end

--- input_name("Data Set") -> "data_set", as component.yaml's names become inputs
function types.input_name(name)
  return (name:lower():gsub("[^_0-9a-z]+", "_"):gsub("^_+", ""):gsub("_+$", ""))
end

--- unique(name, taken) -> name, or name-2, name-3 ...: the first that is no key of `taken`
function types.unique(name, taken)
  if not taken[name] then return name end
  local i = 2
  while taken[name .. "-" .. i] do i = i + 1 end
  return name .. "-" .. i
end

return types
