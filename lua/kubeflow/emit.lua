-- Text of compiled pipelines: YAML and JSON, deterministic (keys sorted), ASCII only.
--
-- A text is written plain only when no reader of any YAML dialect could take it for something else; all others are
-- quoted. Format: https://yaml.org/spec/1.2.2/ and the rules of YAML 1.1 readers (PyYAML, libyaml).
local fail = require "kubeflow.fail"
local json = require "json"

local emit = {}

local concat, format, find, rep = table.concat, string.format, string.find, string.rep

local WORDS = {}
for word in ("y n yes no on off true false null nil none nan inf infinity undefined"):gmatch "%a+" do
  WORDS[word] = true
end

local ESCAPES = {
  ["\n"] = "\\n", ["\t"] = "\\t", ["\r"] = "\\r", ["\\"] = "\\\\", ["\""] = "\\\"", ["\0"] = "\\0", ["\27"] = "\\e",
}

local function no_text(text)
  local _, at = utf8.len(text)
  fail.raise("a text is not UTF-8 (byte %d), and can be written neither as YAML nor as JSON", at or 0)
end

--- Characters beyond ASCII by their code.
local function beyond_ascii(text, escape)
  if not utf8.len(text) then no_text(text) end
  return (text:gsub(utf8.charpattern, function(char)
    if #char > 1 then return escape(utf8.codepoint(char)) end
  end))
end

local function yaml_escape(code) return format(code < 0x10000 and "\\u%04X" or "\\U%08X", code) end

local function json_escape(code)
  if code < 0x10000 then return format("\\u%04x", code) end
  code = code - 0x10000
  return format("\\u%04x\\u%04x", 0xD800 + (code >> 10), 0xDC00 + (code & 0x3FF))
end

local function double_quoted(text)
  local escaped = text:gsub("[%c\\\"\127]", function(char)
    return ESCAPES[char] or format("\\x%02X", char:byte())
  end)
  if find(escaped, "[\128-\255]") then escaped = beyond_ascii(escaped, yaml_escape) end
  return '"' .. escaped .. '"'
end

local function scalar_text(text)
  if find(text, "^[%a_/][%w_./-]*$") and not WORDS[text:lower()] then return text end
  if find(text, "[^\32-\126]") then return double_quoted(text) end
  return "'" .. text:gsub("'", "''") .. "'"
end

--- A cache of what was made of short texts, since names repeat much: cache[text].
local function cached(make)
  local count = 0
  return setmetatable({}, { __index = function(cache, text)
    local made = make(text)
    if #text < 128 and count < 4096 then
      rawset(cache, text, made)
      count = count + 1
    end
    return made
  end })
end

--- The shortest decimal that reads back as the same number.
local function float_text(number)
  if number ~= number or number == math.huge or number == -math.huge then
    fail.raise("%s cannot be written: JSON has no such number", tostring(number))
  end
  for digits = 15, 17 do
    local text = format("%." .. digits .. "g", number)
    if tonumber(text) == number then
      local mantissa, exponent = text:match "^(.-)e(.*)$"
      if mantissa then return (find(mantissa, ".", 1, true) and mantissa or mantissa .. ".0") .. "e" .. exponent end
      return find(text, ".", 1, true) and text or text .. ".0"
    end
  end
end

emit.float_text = float_text

local function number_text(number)
  return math.type(number) == "integer" and format("%d", number) or float_text(number)
end

local function checked_key(key)
  if type(key) == "string" then return key end
  fail.raise("a map has the key %s; only texts can be keys", tostring(key))
end

--- Sorted keys of a map; each must be a text.
local function keys_of(map)
  local keys, count = {}, 0
  for key in next, map do
    count = count + 1
    keys[count] = checked_key(key)
  end
  if count > 8 then
    table.sort(keys)
    return keys
  end
  for i = 2, count do -- quicker than table.sort for the few keys that most maps have
    local key, at = keys[i], i
    while at > 1 and key < keys[at - 1] do
      keys[at] = keys[at - 1]
      at = at - 1
    end
    keys[at] = key
  end
  return keys
end

local function is_list(value) return #value > 0 or json.is_array(value) end

--- " value" with the end of the line, for texts
local text_tails = cached(function(text) return " " .. scalar_text(text) .. "\n" end)

local function tail(value)
  local kind = type(value)
  if kind == "string" then return text_tails[value] end
  if kind == "number" then return " " .. number_text(value) .. "\n" end
  if kind == "boolean" then return value and " true\n" or " false\n" end
  if value == json.null then return " null\n" end
  fail.raise("a %s cannot be written", kind)
end

--- Readers limit how long a key may be before its colon.
local LONG_KEY = 120

--- leads[depth][key]: the indentation, the key and its colon
local leads = setmetatable({}, { __index = function(all, depth)
  local indent = rep("  ", depth)
  all[depth] = cached(function(key)
    local written = scalar_text(key)
    if #written > LONG_KEY then return indent .. "? " .. written .. "\n" .. indent .. ":" end
    return indent .. written .. ":"
  end)
  return all[depth]
end })

local write_map, write_list

--- Writes what follows "key:" or "-"; returns the number of pieces.
local function write_value(out, n, value, depth)
  if type(value) ~= "table" or value == json.null then
    out[n + 1] = tail(value)
    return n + 1
  end
  local key = next(value)
  if key == nil then
    out[n + 1] = json.is_array(value) and " []\n" or " {}\n"
    return n + 1
  end
  out[n + 1] = "\n"
  if type(key) == "number" or #value > 0 then return write_list(out, n + 1, value, depth) end
  return write_map(out, n + 1, value, depth + 1)
end

--- One entry of a map; most values are texts.
local function write_entry(out, n, lead, key, value, depth)
  out[n + 1] = lead[key]
  if type(value) == "string" then
    out[n + 2] = text_tails[value]
    return n + 2
  end
  return write_value(out, n + 1, value, depth)
end

function write_map(out, n, map, depth)
  local lead = leads[depth]
  local a, value_a = next(map)
  local b, value_b = next(map, a)
  if b == nil then -- most maps have one entry or two
    return write_entry(out, n, lead, checked_key(a), value_a, depth)
  elseif next(map, b) == nil then
    if checked_key(b) < checked_key(a) then a, value_a, b, value_b = b, value_b, a, value_a end
    n = write_entry(out, n, lead, a, value_a, depth)
    return write_entry(out, n, lead, b, value_b, depth)
  end
  local keys = keys_of(map)
  for i = 1, #keys do
    local key = keys[i]
    n = write_entry(out, n, lead, key, map[key], depth)
  end
  return n
end

function write_list(out, n, list, depth)
  local indent = rep("  ", depth)
  for i = 1, #list do
    local item = list[i]
    if type(item) == "table" and item ~= json.null and next(item) ~= nil and not is_list(item) then
      local at = n + 1
      n = write_map(out, n, item, depth + 1)
      out[at] = indent .. "- " .. out[at]:sub(#indent + 3) -- the first key stands beside the dash
    else
      out[n + 1] = indent .. "-"
      n = write_value(out, n + 1, item, depth + 1)
    end
  end
  return n
end

local pieces = {} -- used again by each call, so that it does not grow each time

--- yaml(value) -> text of one document without a marker; the value is a map
function emit.yaml(value)
  if next(value) == nil then return "{}\n" end
  return concat(pieces, "", 1, write_map(pieces, 0, value, 0))
end

local function json_string(text)
  local escaped = text:gsub("[%c\\\"\127]", function(char)
    local short = char == "\n" and "\\n" or char == "\t" and "\\t" or char == "\r" and "\\r" or char == "\\" and "\\\\"
      or char == "\"" and "\\\"" or char == "\b" and "\\b" or char == "\f" and "\\f" or nil
    return short or char == "\127" and char or format("\\u%04x", char:byte())
  end)
  if find(escaped, "[\128-\255]") then
    escaped = beyond_ascii(escaped, json_escape)
  end
  return '"' .. escaped .. '"'
end

local function json_value(out, value, style, depth)
  local kind = type(value)
  if kind == "string" then
    out[#out + 1] = json_string(value)
  elseif kind == "number" then
    local whole = style.whole and math.type(value) == "float" and math.tointeger(value)
    out[#out + 1] = whole and format("%d", whole) or number_text(value)
  elseif kind == "boolean" then
    out[#out + 1] = value and "true" or "false"
  elseif value == json.null then
    out[#out + 1] = "null"
  elseif kind ~= "table" then
    fail.raise("a %s cannot be written", kind)
  else
    local list = is_list(value)
    local keys = list and value or keys_of(value)
    out[#out + 1] = list and "[" or "{"
    local inner = style.indent and #keys > 0 and "\n" .. rep(style.indent, depth + 1)
    for i = 1, #keys do
      if i > 1 then out[#out + 1] = style.comma end
      if inner then out[#out + 1] = inner end
      if not list then out[#out + 1] = json_string(keys[i]) .. style.colon end
      json_value(out, list and value[i] or value[keys[i]], style, depth + 1)
    end
    if inner then out[#out + 1] = "\n" .. rep(style.indent, depth) end
    out[#out + 1] = list and "]" or "}"
  end
end

local function json_text(value, style)
  local out = {}
  json_value(out, value, style, 0)
  return concat(out)
end

--- json(value) -> readable JSON, two spaces a level
function emit.json(value) return json_text(value, { comma = ",", colon = ": ", indent = "  " }) end

--- canonical(value) -> JSON that is equal for equal values: no spaces, whole numbers without a fraction
function emit.canonical(value) return json_text(value, { comma = ",", colon = ":", whole = true }) end

--- spaced(value) -> JSON with a blank after commas and colons, as loop items and placeholders inside the IR have it
function emit.spaced(value) return json_text(value, { comma = ", ", colon = ": " }) end

emit.json_string = json_string

return emit
