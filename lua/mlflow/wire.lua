-- How MLflow's API spells things: pairs, numbers, texts in filters, pages.
local pages = require "pages"

local wire = {}

-- What the server takes in one value (longer ones it would cut without a word).
local LONGEST = { params = 6000, tags = 8000 }
local PAGE = 1000 -- the longest that the server gives

--- Tags and params travel as lists of { key, value }, sorted so that one table gives one request.
function wire.pairs_list(map, kind)
  local list = {}
  for key, value in pairs(map or {}) do
    local text = tostring(value)
    if kind and #text > LONGEST[kind] then
      error(("mlflow: the value of '%s' has %d bytes; %s take %d"):format(key, #text, kind, LONGEST[kind]), 3)
    end
    list[#list + 1] = { key = tostring(key), value = text }
  end
  table.sort(list, function(a, b) return a.key < b.key end)
  return list
end

function wire.to_map(list, convert)
  local map = {}
  for _, item in ipairs(list or {}) do map[item.key] = convert and convert(item.value) or item.value end
  return map
end

--- JSON has no name for these numbers; the API spells them as text.
function wire.number_out(value)
  if type(value) ~= "number" then error("mlflow: a metric must be a number, not " .. type(value), 3) end
  if value ~= value then return "NaN" end
  if value == math.huge then return "Infinity" end
  if value == -math.huge then return "-Infinity" end
  return value
end

local SPECIAL = { NaN = 0 / 0, Infinity = math.huge, ["-Infinity"] = -math.huge }
function wire.number_in(value)
  if type(value) == "string" then return SPECIAL[value] or tonumber(value) end
  return value
end

--- A text in a search filter.
function wire.quoted(text)
  text = tostring(text)
  if not text:find("'", 1, true) then return "'" .. text .. "'" end
  if not text:find('"', 1, true) then return '"' .. text .. '"' end
  error("mlflow: a search filter cannot hold a text with both kinds of quotes: " .. text, 3)
end

--- Items of all pages, up to `limit`.
function wire.each(endpoint, args, limit, wrap)
  return pages.each(endpoint, args, { size_key = "max_results", largest = PAGE, limit = limit, wrap = wrap })
end

return wire
