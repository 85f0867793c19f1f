-- Base64 of RFC 4648, for page tokens and artifacts.
local base64 = {}

local alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
local digit, value = {}, {}
for i = 1, 64 do
  digit[i - 1] = alphabet:sub(i, i)
  value[alphabet:byte(i)] = i - 1
end

function base64.encode(bytes)
  local out = {}
  for i = 1, #bytes, 3 do
    local a, b, c = bytes:byte(i, i + 2)
    local n = a << 16 | (b or 0) << 8 | (c or 0)
    out[#out + 1] = digit[n >> 18] .. digit[n >> 12 & 63] .. (b and digit[n >> 6 & 63] or "=") .. (c
      and digit[n & 63] or "=")
  end
  return table.concat(out)
end

--- The bytes, or an error when the text is no base64.
function base64.decode(text)
  local clean = text:gsub("[\r\n]", ""):gsub("-", "+"):gsub("_", "/"):gsub("=+$", "")
  local out = {}
  for i = 1, #clean, 4 do
    local a, b, c, d = clean:byte(i, i + 3)
    a, b = value[a], value[b or 0]
    if not a or not b or (c and not value[c]) or (d and not value[d]) then
      error("not base64", 0)
    end
    local n = a << 18 | b << 12 | (c and value[c] or 0) << 6 | (d and value[d] or 0)
    out[#out + 1] = string.char(n >> 16) .. (c and string.char(n >> 8 & 255) or "") .. (d and string.char(n & 255)
      or "")
  end
  return table.concat(out)
end

return base64
