-- Components from files: the component.yaml of KFP v1 (inputs, outputs, implementation), and compiled pipelines or
-- components of KFP v2 (the intermediate representation).
local component = require "kubeflow.component"
local fail = require "kubeflow.fail"
local json = require "json"
local placeholder = require "kubeflow.placeholder"
local types = require "kubeflow.types"

local loader = {}

local function raise_in(source, path, message, ...)
  fail.raise("%s: %s: %s", source, path, message:format(...))
end

local function checked_map(value, source, path)
  if type(value) ~= "table" or value == json.null or json.is_array(value) then
    raise_in(source, path, "a map is needed here")
  end
  return value
end

local function checked_list(value, source, path)
  if value == nil or value == json.null then return {} end
  if type(value) ~= "table" or (not json.is_array(value) and next(value) ~= nil) then
    raise_in(source, path, "a list is needed here")
  end
  return value
end

-- ---- v1 ----

local TRUE = { y = true, yes = true, t = true, ["true"] = true, on = true, ["1"] = true }
local FALSE = { n = true, no = true, f = true, ["false"] = true, off = true, ["0"] = true }

--- A v1 default, which is a text for any type.
local function v1_default(t, value, source, path)
  if value == nil or value == json.null then return nil end
  local kind = t.param
  local result = value
  if kind == "STRING" then
    if type(value) == "table" then raise_in(source, path, "the default is no text") end
    result = type(value) == "number" and math.type(value) == "integer" and ("%d"):format(value) or tostring(value)
  elseif kind == "NUMBER_INTEGER" then
    result = math.tointeger(tonumber(value))
  elseif kind == "NUMBER_DOUBLE" then
    result = tonumber(value)
    result = result and result + 0.0
  elseif kind == "BOOLEAN" and type(value) == "string" then
    local lower = value:lower()
    result = nil
    if TRUE[lower] then result = true elseif FALSE[lower] then result = false end
  elseif (kind == "LIST" or kind == "STRUCT") and type(value) == "string" then
    local ok, decoded = pcall(json.decode, value)
    result = ok and type(decoded) == "table" and decoded or nil
  end
  if result == nil then raise_in(source, path, "the default '%s' is no %s", tostring(value), types.show(t)) end
  return result
end

local INPUT_KEYS = { name = true, type = true, description = true, default = true, optional = true, annotations = true }

--- A v1 type: a name, with brackets perhaps (List[str]), or anything else for an artifact.
local function v1_type(value)
  if type(value) ~= "string" then return types.system.Artifact end
  return types.of_name((value:gsub("^typing%.", ""):gsub("%[.*$", ""))) or types.system.Artifact
end

local function v1_definitions(list, source, side)
  local all, original = {}, {}
  for i, entry in ipairs(checked_list(list, source, side)) do
    local path = ("%s[%d]"):format(side, i)
    checked_map(entry, source, path)
    for key in pairs(entry) do
      if not INPUT_KEYS[key] then
        raise_in(source, path, "unknown key '%s'%s", tostring(key), fail.near(key, fail.sorted_keys(INPUT_KEYS)))
      end
    end
    if type(entry.name) ~= "string" then raise_in(source, path, "a name is needed") end
    local name = types.input_name(entry.name)
    if all[name] then raise_in(source, path, "'%s' is there twice", entry.name) end
    local t = v1_type(entry.type)
    local default
    if side == "inputs" and t.param and t.param ~= "TASK_FINAL_STATUS" then
      default = v1_default(t, entry.default, source, ("%s '%s'"):format(side, entry.name))
    end
    all[name] = {
      type = t, default = default,
      optional = side == "inputs" and (entry.optional == true or entry.default ~= nil
        or t.param == "TASK_FINAL_STATUS"),
    }
    original[entry.name] = name
  end
  return all, original
end

local v1_part

local function v1_parts(value, cx, path)
  if type(value) == "table" and json.is_array(value) then
    local parts = {}
    for i, item in ipairs(value) do parts[i] = v1_part(item, cx, ("%s[%d]"):format(path, i)) end
    return parts
  end
  return v1_part(value, cx, path)
end

local function io_name(name, cx, side, path)
  local found = type(name) == "string" and cx[side][name]
  if not found then
    raise_in(cx.source, path, "there is no %s '%s'%s", side:sub(1, -2), tostring(name),
      fail.near(name, fail.sorted_keys(cx[side])))
  end
  return found
end

local V1 = {
  inputValue = function(name, cx, path) return placeholder.input(io_name(name, cx, "inputs", path)) end,
  inputPath = function(name, cx, path) return placeholder.input_path(io_name(name, cx, "inputs", path)) end,
  inputUri = function(name, cx, path) return placeholder.input_uri(io_name(name, cx, "inputs", path)) end,
  outputPath = function(name, cx, path)
    local found = io_name(name, cx, "outputs", path)
    return cx.definitions[found].type.param and placeholder.output_file(found) or placeholder.output_path(found)
  end,
  outputUri = function(name, cx, path) return placeholder.output_uri(io_name(name, cx, "outputs", path)) end,
  executorInput = function() return placeholder.executor_input end,
  concat = function(items, cx, path) return placeholder.concat(v1_parts(items, cx, path)) end,
  ["if"] = function(spec, cx, path)
    checked_map(spec, cx.source, path)
    local present = type(spec.cond) == "table" and spec.cond.isPresent
    if not present then raise_in(cx.source, path, "the only condition is cond: {isPresent: input}") end
    if spec["then"] == nil then raise_in(cx.source, path, "a `then` is needed") end
    return placeholder.if_present {
      io_name(present, cx, "inputs", path), then_ = v1_parts(spec["then"], cx, path .. ".then"),
      else_ = spec["else"] ~= nil and v1_parts(spec["else"], cx, path .. ".else") or nil,
    }
  end,
}

function v1_part(value, cx, path)
  if type(value) == "string" then return value end
  if type(value) ~= "table" then
    raise_in(cx.source, path, "%s must be quoted: a command line is made of texts", tostring(value))
  end
  local key, inner = next(value)
  if key == nil or next(value, key) ~= nil or not V1[key] then
    raise_in(cx.source, path, "'%s' is no placeholder%s", tostring(key), fail.near(key, fail.sorted_keys(V1)))
  end
  return V1[key](inner, cx, path .. "." .. key)
end

local V1_KEYS = { name = true, description = true, metadata = true, inputs = true, outputs = true,
  implementation = true }
local CONTAINER_KEYS = { image = true, command = true, args = true, env = true, fileOutputs = true, resources = true }

local function known_keys(map, known, source, path)
  for key in pairs(map) do
    if not known[key] then
      raise_in(source, path, "unknown key '%s'%s", tostring(key), fail.near(key, fail.sorted_keys(known)))
    end
  end
end

local function from_v1(spec, source)
  known_keys(spec, V1_KEYS, source, "the component")
  local implementation = checked_map(spec.implementation, source, "implementation")
  if implementation.container == nil then
    raise_in(source, "implementation", "only `container` is supported%s",
      implementation.graph and "; write a graph as kubeflow.pipeline" or "")
  end
  local container = checked_map(implementation.container, source, "implementation.container")
  known_keys(container, CONTAINER_KEYS, source, "implementation.container")
  if type(container.image) ~= "string" then raise_in(source, "implementation.container.image", "an image is needed") end

  local inputs, input_of = v1_definitions(spec.inputs, source, "inputs")
  local outputs, output_of = v1_definitions(spec.outputs, source, "outputs")
  local cx = { source = source, inputs = input_of, outputs = output_of, definitions = outputs }
  local env = {}
  for name, value in pairs(container.env or {}) do
    env[name] = v1_part(value, cx, "implementation.container.env." .. tostring(name))
  end
  local name = types.kubernetes_name(type(spec.name) == "string" and spec.name or "name")
  return component.finish {
    name = name, description = spec.description, inputs = inputs, input_names = fail.sorted_keys(inputs),
    outputs = outputs, output_names = fail.sorted_keys(outputs),
    container = {
      image = container.image,
      command = v1_parts(json.array(checked_list(container.command, source, "implementation.container.command")), cx,
        "implementation.container.command"),
      args = v1_parts(json.array(checked_list(container.args, source, "implementation.container.args")), cx,
        "implementation.container.args"),
      env = component.environment(env, source),
    },
  }
end

-- ---- v2 ----

local function ir_definitions(side, source)
  local all = {}
  side = side or {}
  for name, p in pairs(side.parameters or {}) do
    if type(p.parameterType) ~= "string" then raise_in(source, name, "a parameterType is needed (schema 2.1.0)") end
    local default = p.defaultValue
    all[name] = {
      type = types.of_parameter(p.parameterType), default = default, description = p.description,
      optional = p.isOptional == true or default ~= nil,
    }
  end
  for name, a in pairs(side.artifacts or {}) do
    local schema = a.artifactType or {}
    local t = types.artifact(schema.schemaTitle or "system.Artifact", schema.schemaVersion)
    if a.isArtifactList then t.list = true end
    all[name] = { type = t, description = a.description, optional = a.isOptional == true }
  end
  return all
end

local function from_ir(spec, platform_document, source)
  if spec.schemaVersion ~= "2.1.0" then
    raise_in(source, "schemaVersion", "2.1.0 is needed, not '%s'", tostring(spec.schemaVersion))
  end
  local info = checked_map(spec.pipelineInfo, source, "pipelineInfo")
  if type(info.name) ~= "string" then raise_in(source, "pipelineInfo.name", "a name is needed") end
  local components = checked_map(spec.components, source, "components")
  local executors = checked_map((spec.deploymentSpec or {}).executors, source, "deploymentSpec.executors")
  local name = types.kubernetes_name(info.name)
  local alone = components["comp-" .. name]
  local executor = executors["exec-" .. name]
  local root = alone or checked_map(spec.root, source, "root")
  local inputs = ir_definitions(root.inputDefinitions, source)
  local outputs = ir_definitions(root.outputDefinitions, source)
  local definition = {
    name = name, description = info.description, inputs = inputs, input_names = fail.sorted_keys(inputs),
    outputs = outputs, output_names = fail.sorted_keys(outputs),
  }
  if alone and executor and executor.container then
    local container = executor.container
    local env = {}
    for i, entry in ipairs(container.env or {}) do env[i] = { name = entry.name, value = entry.value } end
    definition.container = { image = container.image, command = container.command or {}, args = container.args or {},
      env = env }
    return component.wrap(definition)
  end
  local kubernetes = platform_document and platform_document.platforms and platform_document.platforms.kubernetes or {}
  local tasks, image_of = 0, {}
  for label in pairs(executors) do tasks, image_of[label] = tasks + 1, (label:gsub("^exec%-", "")) end
  definition.graph = {
    name = info.name, description = info.description, root = spec.root, components = components, executors = executors,
    platform = kubernetes.deploymentSpec and kubernetes.deploymentSpec.executors or {}, outputs = outputs,
    config = kubernetes.pipelineConfig, tasks = tasks, image_of = image_of,
  }
  return component.wrap(definition)
end

--- from_documents(documents, source) -> component of decoded YAML
function loader.from_documents(documents, source)
  local spec = checked_map(documents[1], source, "the file")
  if spec.implementation ~= nil then return from_v1(spec, source) end
  if spec.pipelineInfo ~= nil then return from_ir(spec, documents[2], source) end
  raise_in(source, "the file",
    "neither a component of KFP v1 (`implementation`) nor a compiled one of v2 (`pipelineInfo`)")
end

--- from_yaml_text(text, source) -> component; source names the text in messages
function loader.from_yaml_text(text, source)
  local documents = require("yaml").decode_all(text, source)
  return loader.from_documents(documents, source or "component.yaml")
end

--- load_component(path) -> component of a file; the permission `read` must cover it
function loader.load_component(path)
  if type(path) ~= "string" then fail.raise("load_component takes the path of a file") end
  return loader.from_yaml_text(require("fs").read(path), path)
end

return loader
