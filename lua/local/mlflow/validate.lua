--- The rules for names and values, and the limits, that the real server enforces, in its words.
local core = require "local.mlflow.core"

local validate = {}

local bad_characters = "Names may only contain alphanumerics, underscores (_), dashes (-), periods (.), spaces ( ), "
  .. "colon(:) and slashes (/)."

-- posixpath.normpath.
local function normal(path)
  if path == "" then return "." end
  local parts, root = {}, path:match "^/*"
  root = #root == 2 and "//" or root ~= "" and "/" or ""
  for part in path:gmatch "[^/]+" do
    if part == ".." and (#parts > 0 and parts[#parts] ~= ".." or root ~= "") then
      parts[#parts] = nil
    elseif part ~= "." then
      parts[#parts + 1] = part
    end
  end
  local out = root .. table.concat(parts, "/")
  return out == "" and "." or out
end

local function name(value, path)
  if type(value) ~= "string" or value == "" then
    core.invalid_value(path, value or "", "Missing value for required parameter '" .. path .. "'.")
  end
  -- \w of the real server takes letters of any script: so bytes above ASCII are fine.
  if value:find "[^/%w_%.%- :\x80-\xff]" then core.invalid_value(path, value, bad_characters) end
  local norm = normal(value)
  if norm ~= value or norm == "." or norm:sub(1, 2) == ".." or norm:sub(1, 1) == "/" then
    core.invalid_value(path, value,
      "Names may be treated as files in certain cases, and must not resolve to other names"
      .. " when treated as such. This name would resolve to '" .. norm .. "'")
  end
end

local function length(what, limit, value, truncate)
  local n = utf8.len(value) or #value
  if n <= limit then return value end
  if truncate then return value:sub(1, (utf8.offset(value, limit + 1) or limit + 1) - 1) end
  core.invalid("%s '%s' had length %d, which exceeded length limit of %d", what, value:sub(1, 250), n, limit)
end

local function text(value, path)
  if type(value) == "number" or type(value) == "boolean" then return tostring(value) end
  if value == nil then return "" end
  if type(value) ~= "string" then core.invalid_value(path, value, "a string is needed") end
  return value
end

function validate.run_id(id)
  if not id:find "^[%w][%w_%-]*$" or #id > 256 then core.invalid_value("run_id", id) end
end

function validate.experiment_id(id)
  local n = tostring(id):find "^%d+$" and math.tointeger(tonumber(id))
  if not n then core.invalid("Invalid experiment ID '%s'. Experiment ID must be a valid integer.", tostring(id)) end
  return n
end

--- -> key, value
function validate.param(p, path)
  name(p.key, path .. "key")
  return length("Param key", 250, p.key), length("Param value", 6000, text(p.value, path .. "value"), true)
end

function validate.tag(t, path)
  name(t.key, path .. "key")
  return length(path .. "key", 250, t.key), length(path .. "value", 8000, text(t.value, path .. "value"), true)
end

--- Tags of experiments, models and versions.
function validate.other_tag(t, limit)
  name(t.key, "key")
  return length("key", 250, t.key), length("value", limit, text(t.value, "value"))
end

local specials = { NaN = 0 / 0, Infinity = math.huge, ["-Infinity"] = -math.huge }

--- -> { key, value, is_nan, timestamp, step }: NaN and the infinities as the database has them.
function validate.metric(m, path)
  name(m.key, path .. "name")
  if m.value == nil then core.invalid("Missing value for required parameter '%svalue'.", path) end
  local value = m.value
  if type(value) == "string" then value = specials[value] or tonumber(value) end
  if type(value) ~= "number" then
    core.invalid_value(path .. "value", m.value, "(timestamp=" .. tostring(m.timestamp)
      .. "). Please specify value as a valid double (64-bit floating point)")
  end
  local timestamp, step = math.tointeger(tonumber(m.timestamp)), math.tointeger(tonumber(m.step or 0))
  if m.timestamp == nil then core.missing(path .. "timestamp") end
  if not timestamp or timestamp < 0 then
    core.invalid_value(path .. "timestamp", m.timestamp,
      ("metric '%s' (value=%s). Timestamp must be a nonnegative long "
      .. "(64-bit integer) "):format(m.key, tostring(value)))
  end
  if not step then
    core.invalid_value(path .. "step", m.step,
      ("metric '%s' (value=%s). Step must be a valid long (64-bit integer)."):format(
      m.key, tostring(value)))
  end
  length("Metric name", 250, m.key)
  local nan = value ~= value
  if nan then value = 0 end
  value = math.max(-1.7976931348623157e308, math.min(1.7976931348623157e308, value))
  return { key = m.key, value = value + 0.0, is_nan = nan, timestamp = timestamp, step = step, model_id = m.model_id,
    dataset_name = m.dataset_name, dataset_digest = m.dataset_digest }
end

local function at_most(what, limit, count)
  if count > limit then
    core.invalid("A batch logging request can contain at most %d %s. Got %d %s. Please split up %s across multiple "
      .. "requests and try again.", limit, what, count, what, what)
  end
end

function validate.batch(metrics, params, tags)
  at_most("metrics", 1000, #metrics)
  at_most("params", 100, #params)
  at_most("tags", 100, #tags)
  at_most("metrics, params, and tags", 1000, #metrics + #params + #tags)
  local seen = {}
  for _, p in ipairs(params) do
    if p.key and seen[p.key] then
      core.invalid("Duplicate parameter keys have been submitted: ['%s']. Please ensure the request contains only one "
        .. "param value per param key.", p.key)
    end
    seen[p.key or ""] = true
  end
end

function validate.experiment_name(value)
  if not value or value == "" then core.invalid "Invalid experiment name: ''" end
  length("Experiment name", 500, value)
end

function validate.artifact_location(uri)
  length("artifact_location", 2048, uri)
  if uri:find "[?#]" then core.invalid("Artifact URIs and paths may not have a query or a fragment: '%s'", uri) end
end

function validate.model_name(value)
  if not value or not value:find "%S" then core.missing "name" end
  if value:find "[/:]" then core.invalid("Invalid model name '%s'. Names cannot contain '/' or ':'.", value) end
  if value == "." or value == ".." then core.invalid_value("name", value, "this name would resolve to another one") end
  length("name", 256, value)
end

function validate.version(value)
  local n = tostring(value):find "^%d+$" and math.tointeger(tonumber(value))
  if not n then core.invalid("Parameter 'version' must be an integer, got '%s'.", tostring(value)) end
  return n
end

function validate.alias(value)
  if not value or value == "" then core.invalid "Registered model alias name cannot be empty." end
  if value:find "[^%w_%-]" then
    core.invalid("Invalid alias name: '%s'. Names may only contain alphanumerics, underscores (_), and dashes (-).",
      value)
  end
  length("Registered model alias name", 255, value)
  if value:lower() == "latest" then core.invalid "'latest' alias name (case insensitive) is reserved." end
  if value:find "^[vV]%d+$" then
    core.invalid("Version alias name '%s' is reserved.", value)
  end
end

local stages = { none = "None", staging = "Staging", production = "Production", archived = "Archived" }

function validate.stage(value)
  return stages[tostring(value):lower()]
    or core.invalid("Invalid Model Version stage: %s. Value must be one of None, Staging, Production, Archived.", value)
end

validate.length = length
return validate
