-- `host.<area>.<name>`: a stub for every primitive. Called with the arguments in order, or with one table by name.
local _, vm = ...
local call, signature = vm.call, vm.signature

local takes_table = {}

--- Names of a row's arguments, and whether the first may itself be a table.
local function parse(name, args)
  local names = {}
  for word in args:gmatch "%S+" do
    local argument, type_name = word:match "^([%w_]+):?([%w_]*)"
    names[#names + 1] = argument
    names[argument] = true
    if #names == 1 then takes_table[name] = type_name == "map" or type_name == "array" or type_name == "any" end
  end
  return names
end

local function named(name, names, value)
  if type(value) ~= "table" or getmetatable(value) == "array" then return false end
  local known, count = true, 0
  for key in next, value do
    count = count + 1
    if not names[key] then known = false end
  end
  if not takes_table[name] then return true end
  return known and count > 0
end

local function stub(name, args)
  local names = parse(name, args)
  return function(...)
    local count = select("#", ...)
    if count == 1 and named(name, names, (...)) then return call(name, (...)) end
    if count > #names then
      error(("%s: takes %d argument%s (%s), not %d"):format(name, #names, #names == 1 and "" or "s", args, count), 2)
    end
    local map = {}
    for i = 1, count do map[names[i]] = (select(i, ...)) end
    return call(name, map)
  end
end

local function area(prefix)
  return setmetatable({}, {
    __index = function(self, key)
      local name = prefix .. tostring(key)
      local args = signature(name)
      local found
      if args then
        found = stub(name, args)
      else
        local inside = vm.signatures(name .. ".")
        if #inside == 0 then
          local all, siblings = vm.signatures(prefix), {}
          for i, full in ipairs(all) do siblings[i] = full:sub(#prefix + 1):match "^[^.]+" end
          local near = vm.near(tostring(key), siblings)
          local hint = near and (" (did you mean '%s%s'?)"):format(prefix, near) or ""
          error(("host: there is no primitive '%s'%s"):format(name, hint), 2)
        end
        found = area(name .. ".")
      end
      rawset(self, key, found)
      return found
    end,
  })
end

return area ""
