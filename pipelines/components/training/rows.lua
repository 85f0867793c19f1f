-- Reads what preprocess wrote: lines of 64 pixels and a digit.
local fs = require "fs"

local rows = { CLASSES = 10, SCALE = 1 / 16 }

---@param path string
---@return { x: integer[], y: integer }[]
function rows.read(path)
  local out = {}
  for line in fs.read(path):gmatch "[^\n]+" do
    local x = {}
    for number in line:gmatch "%d+" do x[#x + 1] = math.tointeger(number) end
    out[#out + 1] = { y = table.remove(x), x = x }
  end
  return out
end

return rows
