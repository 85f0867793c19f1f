-- Reading request bodies as protobuf's JSON does: snake_case or camelCase, unknown fields are errors.
local errors = require "local.kubeflow.errors"
local json = require "local.json"

local message = {}

local fields = {
  Experiment = { experiment_id = "string", display_name = "string", description = "string", created_at = "any",
                 namespace = "string", storage_state = "any", last_run_created_at = "any" },
  Pipeline = { pipeline_id = "string", display_name = "string", name = "string", description = "string",
    created_at = "any",
               namespace = "string", error = "any", tags = "map" },
  PipelineVersion = { pipeline_id = "string", pipeline_version_id = "string", display_name = "string", name = "string",
                      description = "string", created_at = "any", package_url = "Url", code_source_url = "string",
                      pipeline_spec = "map", error = "any", tags = "map" },
  Url = { pipeline_url = "string" },
  CreatePipelineAndVersionRequest = { pipeline = "Pipeline", pipeline_version = "PipelineVersion" },
  Run = { experiment_id = "string", run_id = "string", display_name = "string", storage_state = "any",
    description = "string",
          pipeline_version_id = "string", pipeline_spec = "map",
            pipeline_version_reference = "PipelineVersionReference",
          runtime_config = "RuntimeConfig", service_account = "string", created_at = "any", scheduled_at = "any",
          finished_at = "any", state = "any", error = "any", run_details = "any", recurring_run_id = "string",
          state_history = "any", plugins_input = "any", plugins_output = "any" },
  PipelineVersionReference = { pipeline_id = "string", pipeline_version_id = "string" },
  RuntimeConfig = { parameters = "map", pipeline_root = "string" },
}

local function snake(name)
  return (name:gsub("%u", function(c) return "_" .. c:lower() end))
end

local read

local function convert(where, value, kind)
  if kind == "string" and type(value) ~= "string" then
    errors.raise(3, "%s must be a string", where)
  elseif kind == "map" and not json.is_object(value) then
    errors.raise(3, "%s must be a map", where)
  elseif fields[kind] then
    return read(where, value, kind)
  end
  return value
end

read = function(where, tree, kind)
  if not json.is_object(tree) then
    errors.raise(3, "%s must be a map", where)
  end
  local result = {}
  for name, value in pairs(tree) do
    local field = snake(name)
    local inner = fields[kind][field]
    if not inner then
      local known = {}
      for one in pairs(fields[kind]) do
        known[#known + 1] = one
      end
      table.sort(known)
      errors.raise(3, "unknown field '%s' in %s; known: %s", name, where, table.concat(known, " "))
    end
    if value ~= json.null then
      result[field] = convert(where .. "." .. field, value, inner)
    end
  end
  return result
end

--- The body of a request as a message of this kind; an empty body is an empty message.
function message.read(body, kind)
  if not body or not body:find("%S") then
    return {}
  end
  local ok, tree = pcall(json.decode, body)
  if not ok then
    errors.raise(3, "the body is no JSON: %s", type(tree) == "table" and tree.message or tostring(tree))
  end
  return read(kind, tree, kind)
end

--- A tag list or a text column that may be NULL: nil instead of an empty text, as protobuf leaves out what is unset.
function message.text(value)
  return value ~= "" and value ~= json.null and value or nil
end

return message
