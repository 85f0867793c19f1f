-- The three kinds of patch: JSON patch (RFC 6902), merge patch (RFC 7386), strategic merge patch.
--
-- Of the strategic merge patch there are: lists merged by key (tree.lua has which), finalizers as a set, "$patch": "replace",
-- "delete" and "merge", "$retainKeys", "$deleteFromPrimitiveList/<list>", and "$setElementOrder/<list>" for the order.
local json = require "json"
local status = require "local.kubernetes.status"
local tree = require "local.kubernetes.tree"

local patch = {}

-- ---- JSON patch ----

local function fail(format, ...)
  status.raise(422, "Invalid", "the JSON patch does not fit: " .. format:format(...))
end

local function pointer(text)
  if type(text) ~= "string" or text ~= "" and text:sub(1, 1) ~= "/" then
    fail("%s is no JSON pointer", json.encode(text))
  end
  local parts = {}
  for part in text:gmatch("/([^/]*)") do
    parts[#parts + 1] = part:gsub("~1", "/"):gsub("~0", "~")
  end
  return parts
end

local function index(list, part, more, text)
  if part == "-" and more then
    return #list + 1
  end
  local n = part:match("^%d+$") and math.tointeger(tonumber(part))
  if not n or (#part > 1 and part:sub(1, 1) == "0") or n > #list - (more and 0 or 1) then
    fail("%s: there is no item %s", text, part)
  end
  return n + 1
end

--- The table that holds the last part of the pointer, and its key there.
local function parent(document, text, more)
  local parts = pointer(text)
  local at = document
  for i = 1, #parts - 1 do
    if type(at) ~= "table" then
      fail("%s does not exist", text)
    end
    at = at[json.is_array(at) and index(at, parts[i], false, text) or parts[i]]
  end
  if type(at) ~= "table" then
    fail("%s does not exist", text)
  end
  local last = parts[#parts]
  return at, json.is_array(at) and last and index(at, last, more, text) or last
end

local function fetch(document, text)
  if text == "" then
    return document
  end
  local at, key = parent(document, text)
  if at[key] == nil then
    fail("%s does not exist", text)
  end
  return at[key]
end

local function add(document, text, value)
  if text == "" then
    return value
  end
  local at, key = parent(document, text, true)
  if json.is_array(at) then
    table.insert(at, key, value)
  else
    at[key] = value
  end
  return document
end

local function remove(document, text)
  fetch(document, text)
  if text == "" then
    fail("the whole object cannot be removed")
  end
  local at, key = parent(document, text)
  if json.is_array(at) then
    table.remove(at, key)
  else
    at[key] = nil
  end
  return document
end

local operations = {
  add = function(document, op) return add(document, op.path, tree.copy(op.value)) end,
  remove = function(document, op) return remove(document, op.path) end,
  replace = function(document, op)
    fetch(document, op.path)
    if op.path == "" then
      return tree.copy(op.value)
    end
    local at, key = parent(document, op.path)
    at[key] = tree.copy(op.value)
    return document
  end,
  move = function(document, op)
    local value = fetch(document, op.from)
    if (op.path .. "/"):sub(1, #op.from + 1) == op.from .. "/" and op.path ~= op.from then
      fail("%s cannot be moved into itself", op.from)
    end
    return add(remove(document, op.from), op.path, value)
  end,
  copy = function(document, op) return add(document, op.path, tree.copy(fetch(document, op.from))) end,
  test = function(document, op)
    if not tree.equal(fetch(document, op.path), op.value) then
      fail("testing path %s failed", op.path)
    end
    return document
  end,
}

function patch.json(live, list)
  if not tree.is_list(list) then
    status.bad_request("a JSON patch is a list of operations")
  end
  local document = tree.copy(live)
  for _, op in ipairs(list) do
    local run = tree.is_map(op) and operations[op.op]
    if not run or (op.op == "move" or op.op == "copy") and type(op.from) ~= "string" or type(op.path) ~= "string" then
      fail("%s is no operation", json.encode(op))
    end
    if op.value == nil and (op.op == "add" or op.op == "replace" or op.op == "test") then
      fail("%s of %s has no value", op.op, op.path)
    end
    document = run(document, op)
  end
  return document
end

-- ---- merge patch ----

function patch.merge(live, change)
  if not tree.is_map(change) then
    return tree.copy(change)
  end
  local out = tree.is_map(live) and tree.copy(live) or {}
  for key, value in pairs(change) do
    if value == json.null then
      out[key] = nil
    else
      out[key] = patch.merge(out[key], value)
    end
  end
  return out
end

-- ---- strategic merge patch ----

local merge_maps

local function bare(item)
  local out = {}
  for key, value in pairs(item) do
    if key ~= "$patch" and key ~= "$retainKeys" then
      out[key] = value
    end
  end
  return out
end

--- The items in the order that the patch wants; those that it does not name follow the one before them.
local function ordered(list, wanted, identity)
  local place, last = {}, 0
  for i, item in ipairs(wanted) do
    place[identity(item)] = i
  end
  local marked = {}
  for i, item in ipairs(list) do
    last = place[identity(item)] or last
    marked[i] = { item = item, place = last, known = place[identity(item)] ~= nil, i = i }
  end
  table.sort(marked, function(a, b)
    if a.place ~= b.place then
      return a.place < b.place
    elseif a.known ~= b.known then
      return a.known
    end
    return a.i < b.i
  end)
  local out = json.array({})
  for i, entry in ipairs(marked) do
    out[i] = entry.item
  end
  return out
end

--- What "$patch" says: nil, "merge", "replace" or "delete".
local function directive(item)
  local what = item["$patch"]
  if what ~= nil and what ~= "merge" and what ~= "replace" and what ~= "delete" then
    status.bad_request("unknown patch type: " .. json.encode(what))
  end
  return what
end

local function merge_lists(live, change, key)
  local out, places, gone = json.array({}), {}, {}
  local function put(item)
    out[#out + 1] = item
    if item[key] == nil then -- null in the patch
      status.bad_request(("an item of the patch has no %s"):format(key))
    end
    places[item[key]] = #out
  end
  for _, item in ipairs(live) do
    put(item)
  end
  for _, item in ipairs(change) do
    local at = places[item[key]]
    local what = directive(item)
    if what == "delete" then
      if at then
        gone[at] = true
        places[item[key]] = nil
      end
    elseif at and what ~= "replace" then
      out[at] = merge_maps(out[at], item)
    elseif at then
      out[at] = tree.copy(bare(item))
    else
      put(merge_maps({}, item))
    end
  end
  local left = json.array({})
  for i, item in ipairs(out) do
    if not gone[i] then
      left[#left + 1] = item
    end
  end
  return left
end

--- The key that merges this list, or nil: it is replaced.
local function merge_key(name, live, change)
  local deleted, rest = false, json.array({})
  for _, item in ipairs(change) do
    if tree.is_map(item) and item["$patch"] then
      deleted = true
    end
    rest[#rest + 1] = item
  end
  local names = tree.list_keys(name, live, rest)
  -- A service's ports and a container's are told apart by their items alone, which a deletion may not show.
  if not names and deleted and #rest > 0 then
    names = tree.list_keys(name, rest)
  end
  return names and names[1]
end

local function merge_list(name, live, change)
  for _, item in ipairs(change) do
    if tree.is_map(item) and item["$patch"] == "replace" and next(bare(item)) == nil then
      local out = json.array({})
      for _, other in ipairs(change) do
        if other ~= item then
          out[#out + 1] = tree.copy(other)
        end
      end
      return out
    end
  end
  live = tree.is_list(live) and live or json.array({})
  if tree.is_set(name) then
    local out, seen = tree.copy(live), {}
    for _, item in ipairs(live) do
      seen[item] = true
    end
    for _, item in ipairs(change) do
      if not seen[item] then
        out[#out + 1] = item
      end
    end
    return out
  end
  local key = merge_key(name, live, change)
  if key then
    return merge_lists(live, change, key)
  end
  return tree.copy(change)
end

local function without(list, values)
  if not tree.is_list(values) then
    status.bad_request("$deleteFromPrimitiveList wants a list")
  end
  local drop, out = {}, json.array({})
  for _, value in ipairs(values) do
    drop[value] = true
  end
  for _, value in ipairs(tree.is_list(list) and list or {}) do
    if not drop[value] then
      out[#out + 1] = value
    end
  end
  return out
end

function merge_maps(live, change)
  local what = directive(change)
  if what == "replace" then
    return tree.copy(bare(change))
  elseif what == "delete" then
    return {}
  end
  local out = tree.copy(live)
  if tree.is_list(change["$retainKeys"]) then
    local keep = {}
    for _, key in ipairs(change["$retainKeys"]) do
      keep[key] = true
    end
    for key in pairs(live) do
      if not keep[key] then
        out[key] = nil
      end
    end
  end
  for key, value in pairs(change) do
    local listed = key:match("^%$deleteFromPrimitiveList/(.+)$")
    if listed then
      out[listed] = without(out[listed], value)
    end
  end
  for key, value in pairs(change) do
    if key:sub(1, 1) == "$" then
      goto continue
    elseif value == json.null then
      out[key] = nil
    elseif tree.is_list(value) then
      out[key] = merge_list(key, out[key], value)
    elseif tree.is_map(value) then
      out[key] = merge_maps(tree.is_map(out[key]) and out[key] or {}, value)
    else
      out[key] = value
    end
    ::continue::
  end
  for key, value in pairs(change) do
    local listed = key:match("^%$setElementOrder/(.+)$")
    if listed and tree.is_list(out[listed]) and tree.is_list(value) then
      local names = tree.list_keys(listed, out[listed])
      out[listed] = ordered(out[listed], value, function(item)
        return tree.is_map(item) and names and item[names[1]] or item
      end)
    end
  end
  return out
end

function patch.strategic(live, change)
  if not tree.is_map(change) then
    status.bad_request("a strategic merge patch is a map")
  end
  return merge_maps(live, change)
end

return patch
