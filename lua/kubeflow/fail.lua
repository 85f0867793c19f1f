-- Errors of the DSL: each begins with the place in the script that caused it, and names the near miss.
local fail = {}

--- Files of this folder; a frame of theirs is never the place that an author wants to see.
local OWN = {}
for _, name in ipairs {
  "init", "fail", "types", "channel", "placeholder", "component", "loader", "task", "platform", "dsl", "topology",
  "compiler", "merge", "condition", "emit", "package", "volume", "session", "importer",
} do
  OWN[name] = true
end

local function is_own(place)
  local name = place:match "kubeflow[/\\]([%w_]+)%.lua:%d+: $"
  return name ~= nil and OWN[name] == true
end

--- where() -> "file:line: " of the nearest caller outside this folder, or "". There is no debug library in a script's
--- environment, so the frames are read from the positions that `error` puts before its message.
function fail.where()
  for level = 3, 40 do
    local _, place = pcall(error, "", level)
    if place ~= "" and not is_own(place) then return place end
  end
  return ""
end

--- raise(message, ...): raise at the script's line.
function fail.raise(message, ...)
  error(fail.where() .. "kubeflow: " .. message:format(...), 0)
end

--- raise_at(place, message, ...): raise at a place that `where` gave earlier.
function fail.raise_at(place, message, ...)
  error(place .. "kubeflow: " .. message:format(...), 0)
end

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

--- sorted_keys(map) -> list of its keys as text, sorted
function fail.sorted_keys(map)
  local keys = {}
  for key in pairs(map) do keys[#keys + 1] = tostring(key) end
  table.sort(keys)
  return keys
end

--- near(name, candidates) -> "; did you mean 'x'?", or what there is: "; there is: a, b"
function fail.near(name, candidates)
  name = tostring(name)
  local best, least = nil, math.max(1, #name // 3) + 1
  for _, candidate in ipairs(candidates) do
    local d = distance(name:lower(), candidate:lower(), least)
    if d < least then best, least = candidate, d end
  end
  if best then return ("; did you mean '%s'?"):format(best) end
  if #candidates == 0 then return "; there is none" end
  return "; there is: " .. table.concat(candidates, ", ")
end

--- check_keys(what, spec, known): every key of `spec` must be one of `known` (a set).
function fail.check_keys(what, spec, known)
  for key in pairs(spec) do
    if not known[key] then
      fail.raise("%s: unknown key '%s'%s", what, tostring(key), fail.near(key, fail.sorted_keys(known)))
    end
  end
end

return fail
