-- Sets of fields, as managedFields has them (FieldsV1), and who owns which.
--
-- A set is a map from a path's text to its parts: "f:<name>" for a key of a map, 'k:{"name":"x"}' for an item of a list
-- that is a map by keys (tree.lua), "v:<value>" for an item of a set. Leaves are in it, and the items themselves.
local json = require "json"
local tree = require "local.kubernetes.tree"

local fields = {}

local function text_of(parts)
  return table.concat(parts, "\0")
end

local function with(parts, part)
  local out = table.move(parts, 1, #parts, 1, {})
  out[#out + 1] = part
  return out
end

-- ---- of an object ----

-- What nobody owns: an object's name and what the server keeps.
local unowned = { apiVersion = true, kind = true }
local unowned_metadata = { name = true, namespace = true, uid = true, resourceVersion = true, generation = true,
                           creationTimestamp = true, deletionTimestamp = true, deletionGracePeriodSeconds = true,
                           selfLink = true, managedFields = true }

local collect

local function collect_list(set, parts, name, list, other)
  local names = tree.list_keys(name, list, other)
  if names then
    for _, item in ipairs(list) do
      local at = with(parts, tree.item_key(item, names))
      set[text_of(at)] = at
      collect(set, at, item, nil, 2)
    end
  elseif tree.is_set(name) then
    for _, item in ipairs(list) do
      local at = with(parts, "v:" .. json.encode(item))
      set[text_of(at)] = at
    end
  else
    set[text_of(parts)] = parts
  end
end

function collect(set, parts, value, name, depth)
  if tree.is_list(value) then
    return collect_list(set, parts, name, value)
  elseif not tree.is_map(value) or next(value) == nil and #parts > 0 then
    set[text_of(parts)] = parts
    return
  end
  for key, item in pairs(value) do
    local skip = depth == 0 and unowned[key]
      or depth == 1 and parts[1] == "f:metadata" and (unowned_metadata[key])
    if not skip and not (depth == 0 and key == "metadata" and type(item) == "table" and next(item) == nil) then
      collect(set, with(parts, "f:" .. key), item, key, depth + 1)
    end
  end
end

--- All fields of an object.
function fields.of(object)
  local set = {}
  collect(set, {}, object, nil, 0)
  return set
end

-- ---- looking up ----

--- The keys in 'k:{...}'; managedFields come from clients too, so it may be anything.
local function keys_of(text)
  local keys = json.decode(text)
  return tree.is_map(keys) and keys or {}
end

local function step(value, part, name)
  local kind, rest = part:sub(1, 2), part:sub(3)
  if type(value) ~= "table" or value == json.null then
    return nil
  elseif kind == "f:" then
    return not json.is_array(value) and value[rest] or nil, rest
  elseif kind == "v:" then
    for i, item in ipairs(value) do
      if json.encode(item) == rest then
        return item, name, i
      end
    end
  else
    local names = {}
    for key in pairs(keys_of(rest)) do
      names[#names + 1] = key
    end
    for i, item in ipairs(value) do
      if tree.is_map(item) and tree.item_key(item, names) == part then
        return item, name, i
      end
    end
  end
end

--- The value at a path, or nil.
function fields.value(object, parts)
  local name
  for i, part in ipairs(parts) do
    if part:sub(1, 2) == "f:" then
      if type(object) ~= "table" or object == json.null or json.is_array(object) then
        return nil
      end
      name = part:sub(3)
      object = object[name]
    else
      object = step(object, part, name)
    end
    if object == nil then
      return nil, i
    end
  end
  return object
end

--- Takes what is at a path out of the object, and the maps and lists that this leaves empty.
function fields.remove(object, parts)
  local chain, at = { object }, object
  for i = 1, #parts - 1 do
    at = fields.value(at, { parts[i] })
    if at == nil then
      return
    end
    chain[#chain + 1] = at
  end
  for i = #parts, 1, -1 do
    local holder, part = chain[i], parts[i]
    if type(holder) ~= "table" then -- what had fields once is a plain value now
      return
    elseif part:sub(1, 2) == "f:" then
      holder[part:sub(3)] = nil
    else
      local _, _, place = step(holder, part)
      if place then
        table.remove(holder, place)
      end
    end
    if next(holder) ~= nil or i > 1 and parts[i - 1]:sub(1, 2) ~= "f:" then
      return
    end
  end
end

--- ".spec.template.spec.containers[name=\"x\"].image", as messages have it.
function fields.name(parts)
  local out = {}
  for _, part in ipairs(parts) do
    local kind, rest = part:sub(1, 2), part:sub(3)
    if kind == "f:" then
      out[#out + 1] = "." .. rest
    elseif kind == "v:" then
      out[#out + 1] = "[=" .. rest .. "]"
    else
      local keys = {}
      for key, value in pairs(keys_of(rest)) do
        keys[#keys + 1] = key .. "=" .. json.encode(value)
      end
      table.sort(keys)
      out[#out + 1] = "[" .. table.concat(keys, ",") .. "]"
    end
  end
  return table.concat(out)
end

-- ---- FieldsV1 ----

function fields.to_v1(set)
  local root = {}
  for _, parts in pairs(set) do
    local at = root
    for _, part in ipairs(parts) do
      at[part] = at[part] or {}
      at = at[part]
    end
    at["."] = at["."] or {}
  end
  local function tidy(node)
    local only = next(node) == "." and next(node, ".") == nil
    if only then
      node["."] = nil
    end
    for _, child in pairs(node) do
      tidy(child)
    end
  end
  tidy(root)
  return root
end

function fields.from_v1(root)
  local set = {}
  local function walk(node, parts)
    if next(node) == nil then
      set[text_of(parts)] = parts
    end
    for part, child in pairs(node) do
      if part == "." then
        set[text_of(parts)] = parts
      elseif type(child) == "table" then
        walk(child, with(parts, part))
      end
    end
  end
  if tree.is_map(root) and next(root) ~= nil then
    walk(root, {})
  end
  return set
end

-- ---- comparison ----

--- The fields of `new` that are not in `old` or have another value there, and those of `old` that are gone.
function fields.changes(old, new)
  local before, after = fields.of(old), fields.of(new)
  local changed, removed = {}, {}
  for text, parts in pairs(after) do
    if parts[#parts]:sub(1, 2) == "f:" then
      local was = before[text] and fields.value(old, parts)
      if was == nil or not tree.equal(was, fields.value(new, parts)) then
        changed[text] = parts
      end
    elseif not before[text] then
      changed[text] = parts
    end
  end
  for text, parts in pairs(before) do
    if not after[text] and fields.value(new, parts) == nil then
      removed[text] = parts
    end
  end
  return changed, removed
end

return fields
