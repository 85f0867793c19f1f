-- As much of /openapi/v2 and /openapi/v3 as kubectl asks for before it sends: which resources there are, and that PATCH
-- takes dryRun, fieldManager and force. There are no schemas in it, so kubectl leaves validation to the server.
local json = require "json"
local k8s = require "k8s"
local status = require "local.kubernetes.status"

local openapi = {}

local INFO = { title = "mlhost", version = "v1.29.0" }
local PARAMETERS = { "dryRun", "fieldManager", "force" }

local function base(resource)
  return (resource.group == "" and "/api/" or "/apis/") .. resource.api_version
end

local function object_path(resource)
  return base(resource) .. (resource.namespaced and "/namespaces/{namespace}/" or "/") .. resource.plural .. "/{name}"
end

local function gvk(resource)
  return { group = resource.group, version = resource.version, kind = resource.kind }
end

-- ---- version 3 ----

local function index()
  local paths = {}
  for _, resource in ipairs(k8s.resources) do
    local name = base(resource):sub(2)
    paths[name] = { serverRelativeURL = "/openapi/v3/" .. name }
  end
  return { paths = paths }
end

local function document(name)
  local paths = {}
  for _, resource in ipairs(k8s.resources) do
    if base(resource) == "/" .. name then
      local parameters = json.array({})
      for i, parameter in ipairs(PARAMETERS) do
        parameters[i] = { name = parameter, ["in"] = "query", schema = { type = parameter == "force" and "boolean"
          or "string", uniqueItems = true } }
      end
      paths[object_path(resource)] = { patch = { parameters = parameters, ["x-kubernetes-action"] = "patch",
        ["x-kubernetes-group-version-kind"] = gvk(resource), responses = { ["200"] = { description = "OK" } } } }
    end
  end
  if not next(paths) then
    status.no_such_path()
  end
  return { openapi = "3.0.0", info = INFO, paths = paths, components = { schemas = {} } }
end

-- ---- version 2, which kubectl reads as a protobuf message of gnostic's openapi.v2.Document ----

local function varint(n)
  local out = {}
  while n >= 128 do
    out[#out + 1] = string.char(n & 127 | 128)
    n = n >> 7
  end
  out[#out + 1] = string.char(n)
  return table.concat(out)
end

--- A field of a message: its number, and a text or another message.
local function field(number, bytes)
  return varint(number << 3 | 2) .. varint(#bytes) .. bytes
end

local function protobuf()
  local paths = {}
  for _, resource in ipairs(k8s.resources) do
    local operation = {}
    for _, parameter in ipairs(PARAMETERS) do
      local schema = field(2, "query") .. field(4, parameter) .. field(6, "string")
      operation[#operation + 1] = field(8, field(1, field(2, field(3, schema))))
    end
    operation[#operation + 1] = field(13, field(1, "x-kubernetes-group-version-kind")
      .. field(2, field(2, json.encode(gvk(resource)) .. "\n")))
    paths[#paths + 1] = field(2, field(1, object_path(resource)) .. field(2, field(8, table.concat(operation))))
  end
  return field(1, "2.0") .. field(2, field(1, INFO.title) .. field(2, INFO.version)) .. field(8, table.concat(paths))
end

local function version_2()
  local paths = {}
  for _, resource in ipairs(k8s.resources) do
    local parameters = json.array({})
    for i, parameter in ipairs(PARAMETERS) do
      parameters[i] = { name = parameter, ["in"] = "query", type = "string" }
    end
    paths[object_path(resource)] = { patch = { parameters = parameters,
      ["x-kubernetes-group-version-kind"] = gvk(resource), responses = { ["200"] = { description = "OK" } } } }
  end
  return { swagger = "2.0", info = INFO, paths = paths, definitions = {} }
end

function openapi.answer(request, path)
  if path == "/openapi/v3" then
    return 200, index()
  elseif path == "/openapi/v2" then
    local accept = request.headers.accept or ""
    if accept:find("application/com.github.proto-openapi.spec.v2@v1.0+protobuf", 1, true)
      or accept:find("application/com.github.proto-openapi.spec.v2.v1.0+protobuf", 1, true) then
      return 200, { bytes = protobuf(), type = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf" }
    end
    return 200, version_2()
  end
  return 200, document(path:match("^/openapi/v3/(.+)$") or "")
end

return openapi
