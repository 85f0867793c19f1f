-- The same work as a stage and as a plain script: calls, arithmetic, tables, strings.
local function fib(n) if n < 2 then return n end return fib(n - 1) + fib(n - 2) end

local function work()
  local total = 0
  for round = 1, 6 do
    total = total + fib(29)
    local list = {}
    for i = 1, 300000 do list[i] = (i * 7919 + round) % 100003 end
    table.sort(list)
    local text = {}
    for i = 1, 60000 do text[i] = tostring(list[i]) end
    total = total + #table.concat(text)
  end
  return total
end

if not stage then
  work()
  return
end
pipeline "cpu" {}
stage "work" { timeout = "5m", run = function() return { total = work() } end }
