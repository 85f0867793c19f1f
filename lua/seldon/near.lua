-- The nearest of some names, for messages about words that are not known. Pure Lua: the embedded API uses it, too.

--- Edit distance, given up above `limit`.
local function distance(a, b, limit)
  if math.abs(#a - #b) > limit then return limit + 1 end
  local row = {}
  for j = 0, #b do row[j] = j end
  for i = 1, #a do
    local diagonal, best = row[0], i
    row[0] = i
    for j = 1, #b do
      local cost = a:byte(i) == b:byte(j) and 0 or 1
      local value = math.min(row[j] + 1, row[j - 1] + 1, diagonal + cost)
      diagonal, row[j] = row[j], value
      if value < best then best = value end
    end
    if best > limit then return limit + 1 end
  end
  return row[#b]
end

--- near(word, names) -> "; did you mean 'x'?", or "; there is: a, b"
---@param word any
---@param names string[] | table<string, any> # a list, or a map whose keys are the names
---@return string
return function(word, names)
  word = tostring(word)
  local list = {}
  if names[1] ~= nil then
    table.move(names, 1, #names, 1, list)
  else
    for name in pairs(names) do list[#list + 1] = tostring(name) end
  end
  table.sort(list)
  local best, least = nil, (#word < 4 and 1 or math.max(2, #word // 3)) + 1
  for _, name in ipairs(list) do
    local d = distance(word:lower(), name:lower(), least)
    if d < least then best, least = name, d end
  end
  if best then return ("; did you mean '%s'?"):format(best) end
  return #list == 0 and "" or "; there is: " .. table.concat(list, ", ")
end
