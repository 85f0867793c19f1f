-- What the real API fills in when an object is written, as far as somebody here reads it, and what it refuses.
local json = require "json"
local status = require "local.kubernetes.status"
local validate = require "seldon.validate"
local tree = require "local.kubernetes.tree"

local defaults = {}

-- ---- filling in ----

local function put(map, key, value)
  if map[key] == nil or map[key] == json.null then
    map[key] = value
  end
end

local function spec_of(object)
  if not tree.is_map(object.spec) then
    object.spec = {}
  end
  return object.spec
end

local function base64(text)
  local letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
  return (text:gsub("..?.?", function(part)
    local a, b, c = part:byte(1, 3)
    local n = a << 16 | (b or 0) << 8 | (c or 0)
    local out = ""
    for i = 3, 0, -1 do
      local at = n >> (6 * i) & 63
      out = out .. letters:sub(at + 1, at + 1)
    end
    return out:sub(1, #part + 1) .. ("="):rep(3 - #part)
  end))
end

local fill = {
  namespaces = function(object)
    local spec = spec_of(object)
    put(spec, "finalizers", json.array({ "kubernetes" }))
    put(object, "status", { phase = "Active" })
    put(object.metadata, "labels", {})
    object.metadata.labels["kubernetes.io/metadata.name"] = object.metadata.name
  end,
  secrets = function(object)
    put(object, "type", "Opaque")
    if tree.is_map(object.stringData) then
      put(object, "data", {})
      for name, text in pairs(object.stringData) do
        object.data[name] = base64(tostring(text))
      end
      object.stringData = nil
    end
  end,
  services = function(object)
    local spec = spec_of(object)
    put(spec, "type", "ClusterIP")
    put(spec, "sessionAffinity", "None")
    for _, port in ipairs(tree.is_list(spec.ports) and spec.ports or {}) do
      if tree.is_map(port) then
        put(port, "protocol", "TCP")
        put(port, "targetPort", port.port)
      end
    end
  end,
  pods = function(object)
    put(spec_of(object), "restartPolicy", "Always")
    put(object, "status", { phase = "Pending" })
  end,
  ["deployments.apps"] = function(object)
    local spec = spec_of(object)
    put(spec, "replicas", 1)
    put(spec, "progressDeadlineSeconds", 600)
    put(spec, "revisionHistoryLimit", 10)
    put(spec, "strategy", { type = "RollingUpdate", rollingUpdate = { maxSurge = "25%", maxUnavailable = "25%" } })
  end,
}

--- Fills in what is missing.
function defaults.fill(store, object)
  if fill[store] then
    fill[store](object)
  end
end

-- ---- refusing ----

local LABEL = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and "
  .. "end with an alphanumeric character"
local SUBDOMAIN = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must "
  .. "start and end with an alphanumeric character"

local function is_label(text)
  return #text <= 63 and text:find("^[a-z0-9][a-z0-9-]*$") ~= nil and text:sub(-1) ~= "-"
end

local function is_subdomain(text)
  if #text > 253 or text == "" then
    return false
  end
  for part in (text .. "."):gmatch("([^.]*)%.") do
    if not (part:find("^[a-z0-9][a-z0-9-]*$") and part:sub(-1) ~= "-") then
      return false
    end
  end
  return true
end

local function check_name(resource, metadata, problems)
  local name = metadata.name
  if type(name) ~= "string" or name == "" then
    problems[#problems + 1] = { field = "metadata.name", reason = "FieldValueRequired",
                                message = "Required value: name or generateName is required" }
    return
  end
  local label = resource.store == "namespaces" or resource.store == "services"
  if not (label and is_label or is_subdomain)(name) then
    problems[#problems + 1] = { field = "metadata.name", message = ("Invalid value: %q: %s"):format(name,
      label and LABEL or SUBDOMAIN) }
  end
  if metadata.namespace and not is_label(metadata.namespace) then
    problems[#problems + 1] = { field = "metadata.namespace", message = ("Invalid value: %q: %s"):format(
      metadata.namespace, LABEL) }
  end
end

local function qualified(key)
  local prefix, name = key:match("^([^/]*)/(.*)$")
  name = name or key
  return (not prefix or is_subdomain(prefix)) and #name >= 1 and #name <= 63
    and name:find("^[%w][%w_.-]*$") ~= nil and name:find("%w$") ~= nil
end

local function check_maps(metadata, problems)
  for _, field in ipairs { "labels", "annotations" } do
    local map = metadata[field]
    if map ~= nil and not tree.is_map(map) then
      status.bad_request("metadata.%s is a map of texts", field)
    end
    for key, value in pairs(map or {}) do
      if type(value) ~= "string" then
        status.bad_request("metadata.%s.%s is a text; numbers and booleans go in quotes", field, key)
      elseif not qualified(field == "annotations" and key:lower() or key) then
        problems[#problems + 1] = { field = "metadata." .. field, message = ("Invalid value: %q: name part must consist of "
          .. "alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"):format(key) }
      elseif field == "labels" and value ~= ""
        and not (#value <= 63 and value:find("^%w[%w_.-]*$") and value:find("%w$")) then
        problems[#problems + 1] = { field = "metadata.labels", message = ("Invalid value: %q: a valid label must be an empty "
          .. "string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
          .. "character, at most 63"):format(value) }
      end
    end
  end
end

local function required(problems, field)
  problems[#problems + 1] = { field = field, reason = "FieldValueRequired", message = "Required value" }
end

local checks = {
  pods = function(object, problems)
    local containers = tree.get(object, "spec", "containers")
    if not tree.is_list(containers) or #containers == 0 then
      required(problems, "spec.containers")
    end
  end,
  ["deployments.apps"] = function(object, problems, live)
    local selector = tree.get(object, "spec", "selector")
    if not tree.is_map(selector) then
      required(problems, "spec.selector")
    elseif live and not tree.equal(selector, tree.get(live, "spec", "selector")) then
      problems[#problems + 1] = { field = "spec.selector", message = "Invalid value: field is immutable" }
    end
    if not tree.is_map(tree.get(object, "spec", "template")) then
      required(problems, "spec.template")
    end
    local replicas = tree.get(object, "spec", "replicas")
    if math.type(replicas) ~= "integer" or replicas < 0 then
      problems[#problems + 1] = { field = "spec.replicas", message = "Invalid value: must be greater than or equal to 0" }
    end
  end,
  ["seldondeployments.machinelearning.seldon.io"] = function(object, problems)
    for _, problem in ipairs(validate(object)) do
      problems[#problems + 1] = { field = problem.field, message = problem.message }
    end
  end,
  secrets = function(object, problems)
    for name, value in pairs(tree.is_map(object.data) and object.data or {}) do
      if type(value) ~= "string" or not value:find("^[%w+/%s]*=*%s*$") then
        problems[#problems + 1] = { field = "data." .. name, message = "Invalid value: must be base64" }
      end
    end
  end,
}

--- Raises 422 when the object cannot be. live: what it was before, or nil.
function defaults.check(resource, object, live)
  local problems = {}
  check_name(resource, object.metadata, problems)
  check_maps(object.metadata, problems)
  local check = checks[resource.store]
  if check then
    check(object, problems, live)
  end
  if #problems > 0 then
    status.invalid(resource, tostring(object.metadata.name or ""), problems)
  end
end

return defaults
