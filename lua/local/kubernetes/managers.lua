-- metadata.managedFields: who owns which fields. Server-side apply, and what other writes change in it.
local fields = require "local.kubernetes.fields"
local json = require "json"
local k8s = require "k8s"
local status = require "local.kubernetes.status"
local tree = require "local.kubernetes.tree"

local managers = {}

local function read(object)
  local list = {}
  local entries = tree.get(object, "metadata", "managedFields")
  for _, entry in ipairs(tree.is_list(entries) and entries or {}) do
    if tree.is_map(entry) then
      local copy = tree.copy(entry)
      copy.set = fields.from_v1(copy.fieldsV1 or {})
      list[#list + 1] = copy
    end
  end
  return list
end

local function write(object, list)
  local out = json.array({})
  for _, entry in ipairs(list) do
    if next(entry.set) ~= nil then
      out[#out + 1] = { manager = entry.manager, operation = entry.operation, apiVersion = entry.apiVersion,
                        time = entry.time, fieldsType = "FieldsV1", fieldsV1 = fields.to_v1(entry.set),
                        subresource = entry.subresource }
    end
  end
  object.metadata.managedFields = #out > 0 and out or nil
end

local function same(a, b)
  for text in pairs(a) do
    if not b[text] then
      return false
    end
  end
  for text in pairs(b) do
    if not a[text] then
      return false
    end
  end
  return true
end

local function entry_of(list, manager, operation, api_version, subresource)
  for _, entry in ipairs(list) do
    if entry.manager == manager and entry.operation == operation and entry.apiVersion == api_version
      and entry.subresource == subresource then
      return entry
    end
  end
  local entry = { manager = manager, operation = operation, apiVersion = api_version, subresource = subresource, set = {} }
  list[#list + 1] = entry
  return entry
end

--- Notes in `new` that `manager` made it of `live` (nil: it is new) by a write that was no apply.
function managers.update(live, new, manager, subresource)
  -- An empty list asks to forget who owns what.
  local given = tree.get(new, "metadata", "managedFields")
  if live and not (tree.is_list(given) and (#given == 0 or #given == 1 and next(given[1]) == nil)) then
    new.metadata.managedFields = tree.copy(live.metadata.managedFields)
  else
    new.metadata.managedFields = nil
    if live and given then
      return
    end
  end
  local changed, removed = fields.changes(live or {}, new)
  if next(changed) == nil and next(removed) == nil then
    return
  end
  local list = read(new)
  local own = entry_of(list, manager, "Update", new.apiVersion, subresource)
  for _, entry in ipairs(list) do
    for text, parts in pairs(entry.set) do
      if removed[text] or entry ~= own and changed[text] and parts[#parts]:sub(1, 2) == "f:" then
        entry.set[text] = nil
      end
    end
  end
  if next(changed) ~= nil then
    for text, parts in pairs(changed) do
      own.set[text] = parts
    end
    own.time = k8s.now()
  end
  write(new, list)
end

-- ---- apply ----

local merge

local function merge_list(name, live, config)
  local names = tree.list_keys(name, live, config)
  if tree.is_set(name) then
    local out, seen = json.array({}), {}
    for _, list in ipairs { live, config } do
      for _, item in ipairs(list) do
        if not seen[item] then
          seen[item] = true
          out[#out + 1] = item
        end
      end
    end
    return out
  elseif not names then
    return tree.copy(config)
  end
  local out, places = json.array({}), {}
  for i, item in ipairs(live) do
    out[i] = item
    places[tree.item_key(item, names)] = i
  end
  for _, item in ipairs(config) do
    local place = places[tree.item_key(item, names)]
    if place then
      out[place] = merge(out[place], item)
    else
      out[#out + 1] = tree.copy(item)
    end
  end
  return out
end

function merge(live, config)
  local out = {}
  for key, value in pairs(live) do
    out[key] = value
  end
  for key, value in pairs(config) do
    local old = out[key]
    if value == json.null then
      goto continue
    elseif tree.is_map(value) and tree.is_map(old) then
      out[key] = merge(old, value)
    elseif tree.is_list(value) and tree.is_list(old) then
      out[key] = merge_list(key, old, value)
    else
      out[key] = tree.copy(value)
    end
    ::continue::
  end
  return out
end

local function drop_nulls(value)
  if type(value) == "table" and not json.is_array(value) then
    for key, item in pairs(value) do
      if item == json.null then
        value[key] = nil
      else
        drop_nulls(item)
      end
    end
  end
end

-- Whether anybody's set has this path, or one below it.
local function owned_within(sets, parts)
  local text = table.concat(parts, "\0")
  local below = text .. "\0"
  for _, set in ipairs(sets) do
    if set[text] then
      return true
    end
    for other in pairs(set) do
      if other:sub(1, #below) == below then
        return true
      end
    end
  end
  return false
end

-- Whether the path is a field that an item is known by: it goes with its item only.
local function is_key(parts)
  local item, last = parts[#parts - 1] or "", parts[#parts]
  return item:sub(1, 2) == "k:" and json.decode(item:sub(3))[last:sub(3)] ~= nil
end

local function find_conflicts(list, own, live, config, set)
  local conflicts = {}
  for _, entry in ipairs(list) do
    for text, parts in pairs(entry ~= own and set or {}) do
      -- Two may own one value; a leaf that one owns as such cannot be a map of the other's.
      if entry.set[text] and parts[#parts]:sub(1, 2) == "f:"
        and not tree.equal(fields.value(live, parts), fields.value(config, parts)) then
        conflicts[#conflicts + 1] = { entry = entry, text = text, manager = entry.manager, field = fields.name(parts),
          message = ("conflict with %q%s using %s%s"):format(entry.manager,
            entry.subresource and (" with subresource %q"):format(entry.subresource) or "", entry.apiVersion,
            entry.operation == "Update" and entry.time and " at " .. entry.time or "") }
      end
    end
  end
  table.sort(conflicts, function(a, b)
    return a.field == b.field and a.manager < b.manager or a.field < b.field
  end)
  return conflicts
end

--- What `live` (a copy; {} when it is not there) becomes when `manager` applies `config`. Raises 409 when another manager
--- owns a field that would change, unless `force`.
function managers.apply(live, config, manager, force, subresource)
  config = tree.copy(config)
  drop_nulls(config)
  local list = read(live)
  local set = fields.of(config)
  local own = entry_of(list, manager, "Apply", config.apiVersion, subresource)
  local conflicts = find_conflicts(list, own, live, config, set)
  if #conflicts > 0 and not force then
    status.apply_conflict(conflicts)
  end
  for _, conflict in ipairs(conflicts) do
    conflict.entry.set[conflict.text] = nil
  end

  local new = merge(tree.copy(live), config)
  local others = { set }
  for _, entry in ipairs(list) do
    if entry ~= own then
      others[#others + 1] = entry.set
    end
  end
  local dropped = {}
  for text, parts in pairs(own.set) do
    if not set[text] and not is_key(parts) and not owned_within(others, parts) then
      dropped[#dropped + 1] = parts
    end
  end
  table.sort(dropped, function(a, b)
    if #a ~= #b then
      return #a < #b
    end
    return table.concat(a, "\0") < table.concat(b, "\0")
  end)
  for _, parts in ipairs(dropped) do
    fields.remove(new, parts)
  end
  if not same(set, own.set) or not own.time then
    own.set, own.time = set, k8s.now()
  end
  new.metadata = new.metadata or {}
  write(new, list)
  return new
end

return managers
