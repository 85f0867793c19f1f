-- Base64 (RFC 4648, section 4): how SeldonMessage carries bytes.
local base64 = {}

local ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
local value_of = {}
for i = 1, #ALPHABET do value_of[ALPHABET:byte(i)] = i - 1 end

function base64.encode(text)
  local out = {}
  for i = 1, #text, 3 do
    local a, b, c = text:byte(i, i + 2)
    local n = a << 16 | (b or 0) << 8 | (c or 0)
    local function digit(shift) return ALPHABET:sub((n >> shift & 63) + 1, (n >> shift & 63) + 1) end
    out[#out + 1] = digit(18) .. digit(12) .. (b and digit(6) or "=") .. (c and digit(0) or "=")
  end
  return table.concat(out)
end

--- The bytes, or nil when the text is no base64.
function base64.decode(text)
  text = text:gsub("%s", "")
  if #text % 4 ~= 0 then return nil end
  local out = {}
  for i = 1, #text, 4 do
    local group = text:sub(i, i + 3)
    local data, padding = group:match "^([%w+/]+)(=*)$"
    if not data or #data < 2 or padding ~= "" and i + 3 < #text then return nil end
    local n = 0
    for k = 1, 4 do n = n << 6 | (k <= #data and value_of[data:byte(k)] or 0) end
    out[#out + 1] = string.char(n >> 16 & 255, n >> 8 & 255, n & 255):sub(1, #data - 1)
  end
  return table.concat(out)
end

return base64
