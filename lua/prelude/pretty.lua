-- Values for people: sorted keys, cycles named, depth and length bounded. With `marks`, \1k before a key, \1s a string,
-- \1n a number, \1w a word, \1. at the end of each: the REPL turns them into colours.
local WIDTH, DEPTH, ITEMS, ALL, TEXT = 100, 6, 200, 5000, 2000

local function identifier(key) return type(key) == "string" and key:find "^[%a_][%w_]*$" end

local function quoted(text)
  local cut = #text > TEXT and ("... (%d bytes)"):format(#text) or ""
  local shown = text:sub(1, TEXT):gsub('[%c"\\\127]', function(c)
    local short = ({ ["\n"] = "\\n", ["\t"] = "\\t", ["\r"] = "\\r", ['"'] = '\\"', ["\\"] = "\\\\" })[c]
    return short or ("\\x%02x"):format(c:byte())
  end)
  return '"' .. shown .. '"' .. cut
end

local function by_kind(a, b)
  local ta, tb = type(a), type(b)
  if ta == tb and (ta == "number" or ta == "string") then return a < b end
  if ta ~= tb then return ta < tb end
  return tostring(a) < tostring(b)
end

local function printer(marks)
  local function mark(kind, text) return marks and ("\1" .. kind .. text .. "\1.") or text end
  local seen, left_in_all = {}, ALL
  local show

  local function entries(value, depth)
    local parts, count, length = {}, 0, rawlen(value)
    for i = 1, math.min(length, ITEMS) do parts[i] = show(rawget(value, i), depth + 1) end
    local keys = {}
    for key in next, value do
      if not (math.type(key) == "integer" and key >= 1 and key <= length) then keys[#keys + 1] = key end
    end
    table.sort(keys, by_kind)
    for _, key in ipairs(keys) do
      count = count + 1
      if count > ITEMS then break end
      local name = identifier(key) and key or "[" .. show(key, depth + 1) .. "]"
      parts[#parts + 1] = mark("k", name) .. " = " .. show(rawget(value, key), depth + 1)
    end
    local left = math.max(length - ITEMS, 0) + math.max(#keys - ITEMS, 0)
    if left > 0 then parts[#parts + 1] = ("... %d more"):format(left) end
    return parts
  end

  local function show_table(value, depth)
    local meta = getmetatable(value)
    if type(meta) == "table" and rawget(meta, "__tostring") or meta == "error" then return tostring(value):sub(1, 32 * TEXT) end
    if seen[value] then return mark("w", "(the same table again)") end
    left_in_all = left_in_all - 1
    if depth >= DEPTH or left_in_all < 0 then return next(value) == nil and "{}" or "{ ... }" end
    seen[value] = true
    local parts = entries(value, depth)
    seen[value] = nil
    if #parts == 0 then return meta == "array" and "{} --[[list]]" or "{}" end
    local line = "{ " .. table.concat(parts, ", ") .. " }"
    if #line <= WIDTH - 2 * depth and not line:find "\n" then return line end
    local indent = ("  "):rep(depth + 1)
    return "{\n" .. indent .. table.concat(parts, ",\n" .. indent) .. "\n" .. ("  "):rep(depth) .. "}"
  end

  function show(value, depth)
    local kind = type(value)
    if kind == "string" then return mark("s", quoted(value)) end
    if kind == "number" then return mark("n", tostring(value)) end
    if kind == "table" then return show_table(value, depth) end
    return mark("w", tostring(value))
  end

  return show
end

--- pretty(value, marks) -> text
return function(value, marks) return printer(marks)(value, 0) end
