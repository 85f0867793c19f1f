-- JSON for the services' logic: the C module `json`, with errors raised, and with one text for one value where asked.
local base = require "json"

local json = { null = base.null, array = base.array, is_array = base.is_array }

--- The value of a text; raises { message } when it is no JSON.
function json.decode(text, source)
  local value, why = base.decode(text, source)
  if value == nil then
    error({ message = why or "no JSON" }, 0)
  end
  return value
end

function json.is_object(value)
  return type(value) == "table" and value ~= base.null and not base.is_array(value)
end

--- Says that a table is a map; an empty table that is not marked as a list is one anyway.
function json.object(value)
  return value
end

local function sorted(value, out)
  if type(value) ~= "table" or value == base.null then
    out[#out + 1] = base.encode(math.type(value) == "float" and math.tointeger(value) or value)
  elseif base.is_array(value) or #value > 0 then
    out[#out + 1] = "["
    for i, item in ipairs(value) do
      out[#out + 1] = i > 1 and "," or nil
      sorted(item, out)
    end
    out[#out + 1] = "]"
  else
    local names = {}
    for name in pairs(value) do
      names[#names + 1] = tostring(name)
    end
    table.sort(names)
    out[#out + 1] = "{"
    for i, name in ipairs(names) do
      out[#out + 1] = (i > 1 and "," or "") .. base.encode(name) .. ":"
      sorted(value[name], out)
    end
    out[#out + 1] = "}"
  end
end

--- The text of a value. options.sorted: keys in order and 1.0 as 1, so that equal values have equal texts.
function json.encode(value, options)
  if not (options and options.sorted) then
    return base.encode(value)
  end
  local out = {}
  sorted(value, out)
  return table.concat(out)
end

return json
