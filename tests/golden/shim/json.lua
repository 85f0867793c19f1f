-- The host's module `json` for plain lua5.4, where an empty list stays a list: what the compiler and its tests use.
local json = { null = setmetatable({}, { __tostring = function() return "null" end }) }

local Array = {}

function json.array(value) return getmetatable(value) and value or setmetatable(value, Array) end

function json.is_array(value)
  return type(value) == "table" and (getmetatable(value) == Array or rawlen(value) > 0)
end

local ESCAPES = {
  b = "\b", f = "\f", n = "\n", r = "\r", t = "\t", ["/"] = "/", ["\\"] = "\\", ["\""] = "\"",
}

local value_at

local function blank(text, at) return text:find("[^ \t\r\n]", at) or #text + 1 end

local function string_at(text, at)
  local parts = {}
  at = at + 1
  while true do
    local stop = text:find('["\\]', at) or error "JSON: a text does not end"
    parts[#parts + 1] = text:sub(at, stop - 1)
    if text:sub(stop, stop) == '"' then return table.concat(parts), stop + 1 end
    local kind = text:sub(stop + 1, stop + 1)
    at = stop + 2
    if kind == "u" then
      local code = tonumber(text:sub(at, at + 3), 16)
      at = at + 4
      if code >= 0xD800 and code < 0xDC00 then
        code = 0x10000 + ((code - 0xD800) << 10) + tonumber(text:sub(at + 2, at + 5), 16) - 0xDC00
        at = at + 6
      end
      parts[#parts + 1] = utf8.char(code)
    else
      parts[#parts + 1] = ESCAPES[kind] or error "JSON: unknown escape"
    end
  end
end

local function list_at(text, at)
  local list = json.array {}
  at = blank(text, at + 1)
  if text:sub(at, at) == "]" then return list, at + 1 end
  while true do
    list[#list + 1], at = value_at(text, at)
    at = blank(text, at)
    if text:sub(at, at) == "]" then return list, at + 1 end
    assert(text:sub(at, at) == ",", "JSON: , or ] is needed")
    at = at + 1
  end
end

local function map_at(text, at)
  local map = {}
  at = blank(text, at + 1)
  if text:sub(at, at) == "}" then return map, at + 1 end
  while true do
    local key, after = string_at(text, blank(text, at))
    at = blank(text, after)
    assert(text:sub(at, at) == ":", "JSON: : is needed")
    map[key], at = value_at(text, at + 1)
    at = blank(text, at)
    if text:sub(at, at) == "}" then return map, at + 1 end
    assert(text:sub(at, at) == ",", "JSON: , or } is needed")
    at = blank(text, at + 1)
  end
end

function value_at(text, at)
  at = blank(text, at)
  local first = text:sub(at, at)
  if first == "{" then return map_at(text, at) end
  if first == "[" then return list_at(text, at) end
  if first == '"' then return string_at(text, at) end
  local word = text:match("^[%w+.-]+", at) or error "JSON: a value is needed"
  local value
  if word == "true" then value = true
  elseif word == "false" then value = false
  elseif word == "null" then value = json.null
  else value = tonumber(word) or error("JSON: " .. word)
  end
  return value, at + #word
end

--- decode(text) -> value
function json.decode(text)
  local value, at = value_at(text, 1)
  assert(blank(text, at) > #text, "JSON: something follows the value")
  return value
end

return json
