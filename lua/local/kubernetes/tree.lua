-- Trees of JSON values: copies, comparison, and which lists are maps by a key. There is no schema here, so the well-known
-- names of Kubernetes' and Seldon's types say it; every other list is one value.
local json = require "json"

local tree = {}

function tree.is_map(value)
  return type(value) == "table" and not json.is_array(value)
end

function tree.is_list(value)
  return type(value) == "table" and json.is_array(value)
end

function tree.copy(value)
  if type(value) ~= "table" then
    return value
  end
  local out = {}
  for key, item in pairs(value) do
    out[key] = tree.copy(item)
  end
  return json.is_array(value) and json.array(out) or out
end

function tree.equal(a, b)
  if type(a) ~= "table" or type(b) ~= "table" then
    return a == b
  end
  if json.is_array(a) ~= json.is_array(b) then
    return false
  end
  for key, item in pairs(a) do
    if not tree.equal(item, b[key]) then
      return false
    end
  end
  for key in pairs(b) do
    if a[key] == nil then
      return false
    end
  end
  return true
end

--- The item at a list of names, or nil.
function tree.get(value, ...)
  for i = 1, select("#", ...) do
    if type(value) ~= "table" then
      return nil
    end
    value = value[(select(i, ...))]
  end
  if value == json.null then
    return nil
  end
  return value
end

local keys = {
  containers = { "name" }, initContainers = { "name" }, ephemeralContainers = { "name" }, env = { "name" },
  volumes = { "name" }, volumeMounts = { "mountPath" }, volumeDevices = { "devicePath" },
  imagePullSecrets = { "name" }, secrets = { "name" }, hostAliases = { "ip" }, conditions = { "type" },
  ownerReferences = { "uid" }, topologySpreadConstraints = { "topologyKey", "whenUnsatisfiable" },
  predictors = { "name" }, children = { "name" }, parameters = { "name" },
}
local ports = { { "containerPort", "protocol" }, { "port", "protocol" } }
local defaults = { protocol = "TCP" }
local sets = { finalizers = true }

local function usable(list, names)
  local seen = {}
  for _, item in ipairs(list) do
    if not tree.is_map(item) then
      return false
    end
    local text = tree.item_key(item, names)
    if not text or seen[text] then
      return false
    end
    seen[text] = true
  end
  return true
end

--- 'k:{"name":"x"}', as FieldsV1 has it; nil when a key is not there.
function tree.item_key(item, names)
  local key = {}
  for _, name in ipairs(names) do
    local value = item[name]
    if value == nil then
      value = defaults[name]
    end
    if value == nil or type(value) == "table" or value == json.null then
      return nil
    end
    key[name] = value
  end
  return "k:" .. json.encode(key)
end

--- The keys that tell the items of the list called `name` apart; nil when the list is one value. Several lists of that
--- name: what holds for all of them.
function tree.list_keys(name, ...)
  local candidates = name == "ports" and ports or { keys[name] }
  for _, names in ipairs(candidates) do
    local all, items = true, 0
    for i = 1, select("#", ...) do
      local list = select(i, ...)
      if type(list) == "table" then
        all = all and json.is_array(list) and usable(list, names)
        items = items + #list
      end
    end
    if all and items > 0 then
      return names
    end
  end
end

--- Whether the list called `name` is a set of plain values.
function tree.is_set(name)
  return sets[name] or false
end

return tree
