--- duration: "500ms", "30s", "5m", "1h30m", "2d", or a number of seconds, as the host's options take them.
local duration = {}

local UNITS = { ms = 0.001, s = 1, m = 60, h = 3600, d = 86400 }

--- duration.seconds(value) -> number
function duration.seconds(value)
  if type(value) == "number" then return value end
  local text = tostring(value):gsub("%s", "")
  if tonumber(text) then return tonumber(text) end
  local total, last = 0, 1
  for at, number, unit, after in text:gmatch "()(%d+%.?%d*)(%a+)()" do
    if at ~= last or not UNITS[unit] then break end
    total, last = total + tonumber(number) * UNITS[unit], after
  end
  if last == 1 or last <= #text then
    error(("'%s' is no duration: write 500ms, 30s, 5m, 1h30m or 2d"):format(tostring(value)), 3)
  end
  return total
end

return duration
