-- Objects over the store: reading, creating, replacing, patching, with the conventions of the Kubernetes API.
local defaults = require "local.kubernetes.defaults"
local json = require "json"
local k8s = require "k8s"
local managers = require "local.kubernetes.managers"
local patch = require "local.kubernetes.patch"
local removal = require "local.kubernetes.removal"
local scale = require "local.kubernetes.scale"
local status = require "local.kubernetes.status"
local sys = require "sys"
local tree = require "local.kubernetes.tree"
local yaml = require "yaml"

local objects = {}

-- A patch that names no resourceVersion is made again when somebody else has written meanwhile.
local ATTEMPTS = 100

-- ---- requests ----

local function body_of(request, resource)
  local kind = (request.headers["content-type"] or "application/json"):match("^%s*([^;%s]*)"):lower()
  if kind == "" or kind == "*/*" then
    kind = "application/json"
  end
  if kind ~= "application/json" and kind ~= "application/yaml" then
    status.unsupported_media(resource, kind, { "application/json", "application/yaml" })
  end
  return objects.read(request.body, kind == "application/yaml")
end

--- The value of a body; YAML when it says so, or does not look like JSON.
function objects.read(body, as_yaml)
  if as_yaml and not body:find("^%s*[%[{]") then
    local documents, why = yaml.decode(body, "the body of the request")
    if not documents then
      status.bad_request("%s", why)
    elseif #documents ~= 1 then
      status.bad_request("the body of the request is one document")
    end
    return documents[1]
  end
  local value, why = json.decode(body, "the body of the request")
  if value == nil then
    status.bad_request("%s", why)
  end
  return value
end

local function check_dry(values)
  for _, value in ipairs(values) do
    if value ~= "All" then
      status.bad_request("dryRun: Unsupported value: %q: supported values: \"All\"", tostring(value))
    end
  end
  return #values > 0
end

local function dry(request)
  return check_dry(request.list.dryRun or {})
end

local function manager_of(request)
  local name = request.query.fieldManager
  if not name or name == "" then
    name = (request.headers["user-agent"] or ""):match("^([^/%s]+)") or "unknown"
  end
  return name:sub(1, 128)
end

--- Checks that the object is what the path says, and fills in what the path knows.
local function settle(path, resource, object)
  if not tree.is_map(object) then
    status.bad_request("the body of the request is a map: an object of kind %s", resource.kind)
  end
  if object.apiVersion == nil or object.apiVersion == json.null or object.apiVersion == "" then
    object.apiVersion = resource.api_version
  end
  if object.kind == nil or object.kind == json.null or object.kind == "" then
    object.kind = resource.kind
  end
  if object.apiVersion ~= resource.api_version then
    status.bad_request("the API version in the data (%s) does not match the expected API version (%s)",
      tostring(object.apiVersion), resource.api_version)
  elseif object.kind ~= resource.kind then
    status.bad_request("%s in the data does not match the expected kind %s", tostring(object.kind), resource.kind)
  end
  if object.metadata == nil or object.metadata == json.null then
    object.metadata = {}
  elseif not tree.is_map(object.metadata) then
    status.bad_request("metadata is a map")
  end
  local metadata = object.metadata
  for key, value in pairs(metadata) do
    if value == json.null then
      metadata[key] = nil
    end
  end
  if resource.namespaced then
    metadata.namespace = metadata.namespace or path.namespace
    if metadata.namespace ~= path.namespace then
      status.bad_request("the namespace of the provided object does not match the namespace sent on the request")
    end
  else
    metadata.namespace = nil
  end
  if path.name ~= "" then
    metadata.name = metadata.name or path.name
    if metadata.name ~= path.name then
      status.bad_request("the name of the object (%s) does not match the name on the URL (%s)", tostring(metadata.name),
        path.name)
    end
  end
end

local function raise_store(resource, name, code, message)
  if code == "exists" then
    status.already_exists(resource, name)
  elseif code == "conflict" then
    status.conflict(resource, name)
  elseif code == "invalid" then
    status.bad_request("%s", message)
  end
  status.raise(500, "InternalError", message)
end

--- A namespace exists from its first use on.
local function need_namespace(resource, namespace, name)
  if not resource.namespaced then
    return
  elseif namespace == "" then
    status.bad_request("an empty namespace may not be set during creation")
  end
  local there = k8s.get("namespaces", "", namespace)
  if not there then
    local object = { apiVersion = "v1", kind = "Namespace", metadata = { name = namespace } }
    defaults.fill("namespaces", object)
    k8s.put("namespaces", object, "absent")
  elseif there.metadata.deletionTimestamp then
    status.forbidden(resource, name, ("unable to create new content in namespace %s because it is being terminated")
      :format(namespace))
  end
end

-- ---- reading ----

local function encode_token(token)
  return (json.encode(token):gsub(".", function(c) return ("%02x"):format(c:byte()) end))
end

local function decode_token(text)
  if not text:find("^%x+$") or #text % 2 == 1 then
    status.bad_request("continue key is not valid")
  end
  local token = json.decode((text:gsub("%x%x", function(hex) return string.char(tonumber(hex, 16)) end)))
  if not tree.is_map(token) or type(token.start) ~= "string" or type(token.version) ~= "string" then
    status.bad_request("continue key is not valid")
  end
  return token
end

-- What kubectl asks for when it shows objects.
local function wants_table(request)
  return request.method == "GET" and (request.headers.accept or ""):find("as=Table", 1, true) ~= nil
end

function objects.list(request, path, resource)
  local query = request.query
  local limit = query.limit and math.tointeger(tonumber(query.limit)) or 0
  if limit < 0 then
    status.bad_request("limit is a number of zero or more")
  end
  local token
  if query.continue and query.continue ~= "" then
    token = decode_token(query.continue)
    if not k8s.remembers(token.version) then
      status.raise(410, "Expired", "The provided continue parameter is too old to display a consistent list result. "
        .. "You must start a new list without the continue parameter.")
    end
  end
  local fields = query.fieldSelector
  if path.name ~= "" then
    fields = "metadata.name=" .. path.name
  end
  local items, version, remaining, last = k8s.list(resource.store, {
    namespace = path.namespace ~= "" and path.namespace or nil, labels = query.labelSelector, fields = fields,
    limit = limit, after = token and token.start })
  if not items then
    status.bad_request("%s", version)
  end
  local metadata = { resourceVersion = token and token.version or version }
  if remaining > 0 then
    metadata.continue = encode_token({ version = metadata.resourceVersion, start = last })
    if not query.labelSelector and not query.fieldSelector then
      metadata.remainingItemCount = remaining
    end
  end
  if wants_table(request) then
    return 200, k8s.table(resource.store, items, metadata, query.includeObject)
  end
  return 200, { kind = resource.kind .. "List", apiVersion = resource.api_version, metadata = metadata, items = items }
end

local function need(path, resource)
  return k8s.get(resource.store, path.namespace, path.name) or status.not_found(resource, path.name)
end

function objects.get(request, path, resource)
  local object = need(path, resource)
  if path.subresource == "" and wants_table(request) then
    return 200, k8s.table(resource.store, object, nil, request.query.includeObject)
  end
  return 200, path.subresource == "scale" and scale.of(resource, object) or object
end

-- ---- writing ----

local function random_suffix()
  local letters = "bcdfghjklmnpqrstvwxz2456789"
  return (sys.random_hex(5):gsub("%x%x", function(hex)
    local n = tonumber(hex, 16) % #letters + 1
    return letters:sub(n, n)
  end))
end

local function create(request, path, resource, object, made)
  local metadata = object.metadata
  if metadata.resourceVersion and metadata.resourceVersion ~= "" then
    status.bad_request("resourceVersion should not be set on objects to be created")
  end
  metadata.deletionTimestamp, metadata.deletionGracePeriodSeconds, metadata.selfLink = nil, nil, nil
  if not metadata.name and type(metadata.generateName) == "string" then
    metadata.name = metadata.generateName:sub(1, 58) .. random_suffix()
  end
  if resource.status then
    object.status = nil
  end
  defaults.fill(resource.store, object)
  defaults.check(resource, object)
  if not made then
    managers.update(nil, object, manager_of(request))
  end
  if dry(request) then
    if k8s.get(resource.store, path.namespace, metadata.name) then
      status.already_exists(resource, metadata.name)
    end
    metadata.uid = metadata.uid or ""
    metadata.creationTimestamp = k8s.now()
    return 201, object
  end
  need_namespace(resource, metadata.namespace or "", metadata.name)
  local stored, code, message = k8s.put(resource.store, object, "absent")
  if not stored then
    raise_store(resource, metadata.name, code, message)
  end
  return 201, stored
end

function objects.create(request, path, resource)
  local object = body_of(request, resource)
  settle(path, resource, object)
  return create(request, path, resource, object)
end

--- What a write through a path may change: the object but its status, or the status alone.
local function confine(path, resource, live, object)
  if path.subresource == "status" then
    local changed = tree.copy(live)
    changed.status = object.status
    changed.metadata.resourceVersion = object.metadata.resourceVersion
    return changed
  elseif resource.status then
    object.status = tree.copy(live.status)
  end
  for _, name in ipairs { "deletionTimestamp", "deletionGracePeriodSeconds", "creationTimestamp", "generation", "uid",
                          "generateName" } do
    object.metadata[name] = live.metadata[name]
  end
  return object
end

--- Stores what has become of `live`; nil when somebody else has written meanwhile and the caller named no version.
local function store(request, resource, live, object, applied)
  local metadata = object.metadata
  local version, name = metadata.resourceVersion, live.metadata.name
  if version and version ~= "" and version ~= live.metadata.resourceVersion then
    status.conflict(resource, name)
  end
  metadata.resourceVersion = live.metadata.resourceVersion
  defaults.fill(resource.store, object)
  defaults.check(resource, object, live)
  if not applied then
    managers.update(live, object, manager_of(request), applied == nil and request.subresource or nil)
  end
  if dry(request) then
    return object
  end
  local stored, code, message = k8s.put(resource.store, object, live.metadata.resourceVersion)
  if stored then
    return removal.finish(resource, stored)
  elseif code == "conflict" and k8s.get(resource.store, metadata.namespace, name) then
    if version and version ~= "" and request.strict then
      status.conflict(resource, name)
    end
    return nil
  elseif code == "conflict" then
    status.not_found(resource, name)
  end
  raise_store(resource, name, code, message)
end

--- Runs `change(live)` -> object until it could be stored.
local function attempt(request, path, resource, change, applied)
  request.subresource = path.subresource ~= "" and path.subresource or nil
  for _ = 1, ATTEMPTS do
    local live = need(path, resource)
    local stored = store(request, resource, live, change(live), applied)
    if stored then
      return stored
    end
  end
  status.conflict(resource, path.name)
end

local function check_uid(resource, live, object)
  local uid = object.metadata.uid
  if uid and uid ~= "" and uid ~= live.metadata.uid then
    status.conflict(resource, live.metadata.name, ("Precondition failed: UID in precondition: %s, UID in object meta: %s")
      :format(tostring(uid), live.metadata.uid))
  end
end

function objects.replace(request, path, resource)
  local given = body_of(request, resource)
  if path.subresource == "scale" then
    return 200, scale.of(resource, attempt(request, path, resource, function(live)
      return scale.set(resource, live, given)
    end))
  end
  settle(path, resource, given)
  request.strict = true
  return 200, attempt(request, path, resource, function(live)
    check_uid(resource, live, given)
    return confine(path, resource, live, tree.copy(given))
  end)
end

-- ---- patches ----

local function apply(request, path, resource)
  local manager = request.query.fieldManager
  if not manager or manager == "" then
    status.bad_request("PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch")
  end
  local config = objects.read(request.body, true)
  settle(path, resource, config)
  if config.metadata.managedFields then
    status.bad_request("metadata.managedFields must be nil")
  end
  local force = request.query.force == "true" or request.query.force == "1"
  local wanted = tree.copy(config)
  if path.subresource == "status" then
    wanted = { apiVersion = config.apiVersion, kind = config.kind, metadata = { name = config.metadata.name,
      namespace = config.metadata.namespace, resourceVersion = config.metadata.resourceVersion }, status = config.status }
  elseif resource.status then
    wanted.status = nil
  end
  if not k8s.get(resource.store, path.namespace, path.name) and path.subresource == "" then
    if wanted.metadata.uid then
      status.conflict(resource, path.name, "uid mismatch: the provided object specified uid "
        .. tostring(wanted.metadata.uid) .. ", and no existing object was found")
    end
    return create(request, path, resource, managers.apply({}, wanted, manager, force), true)
  end
  return 200, attempt(request, path, resource, function(live)
    check_uid(resource, live, wanted)
    local base = tree.copy(live)
    base.metadata.resourceVersion = nil
    local object = managers.apply(base, wanted, manager, force, path.subresource ~= "" and path.subresource or nil)
    object.metadata.resourceVersion = config.metadata.resourceVersion
    local managed = object.metadata.managedFields
    object = confine(path, resource, live, object)
    object.metadata.managedFields = managed
    return object
  end, true)
end

local kinds = {
  ["application/json-patch+json"] = patch.json,
  ["application/merge-patch+json"] = patch.merge,
  ["application/strategic-merge-patch+json"] = patch.strategic,
}

function objects.patch(request, path, resource)
  local kind = (request.headers["content-type"] or ""):match("^%s*([^;%s]*)"):lower()
  if kind == "application/apply-patch+yaml" then
    return apply(request, path, resource)
  end
  local change = kinds[kind]
  if not change or change == patch.strategic and resource.custom and path.subresource ~= "scale" then
    status.unsupported_media(resource, kind, { "application/json-patch+json", "application/merge-patch+json",
      "application/apply-patch+yaml", not resource.custom and "application/strategic-merge-patch+json" or nil })
  end
  local given = objects.read(request.body, false)
  local function patched(live)
    if path.subresource == "scale" then
      return scale.set(resource, live, change(scale.of(resource, live), given))
    end
    local object = change(live, given)
    settle(path, resource, object)
    check_uid(resource, live, object)
    return confine(path, resource, live, object)
  end
  local stored = attempt(request, path, resource, patched)
  return 200, path.subresource == "scale" and scale.of(resource, stored) or stored
end

-- ---- deleting ----

local function options_of(request, resource)
  local options = request.body ~= "" and body_of(request, resource) or {}
  if not tree.is_map(options) then
    status.bad_request("the body of a DELETE is DeleteOptions")
  end
  options.propagationPolicy = tree.get(options, "propagationPolicy") or request.query.propagationPolicy
    or ((tree.get(options, "orphanDependents") or request.query.orphanDependents == "true") and "Orphan") or nil
  local policy = options.propagationPolicy
  if policy and policy ~= "Background" and policy ~= "Foreground" and policy ~= "Orphan" then
    status.bad_request("propagationPolicy: Unsupported value: %q: supported values: \"Background\", \"Foreground\", \"Orphan\"",
      tostring(policy))
  end
  options.dry = dry(request) or check_dry(tree.get(options, "dryRun") or {})
  return options
end

function objects.delete(request, path, resource)
  local options = options_of(request, resource)
  local live = need(path, resource)
  return 200, removal.delete(resource, live, options)
end

function objects.delete_all(request, path, resource)
  local options = options_of(request, resource)
  request.query.limit, request.query.continue = nil, nil
  local _, list = objects.list(request, path, resource)
  for _, object in ipairs(list.items) do
    removal.delete(resource, object, options)
  end
  return 200, list
end

return objects
