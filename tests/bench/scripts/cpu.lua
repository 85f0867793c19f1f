-- The same programs in a stage and in plain Lua: what each one costs in processor time, as "BENCH name seconds".
local programs = {}

function programs.calls()
  local function fib(n) if n < 2 then return n end return fib(n - 1) + fib(n - 2) end
  return fib(32)
end

function programs.strings()
  local n = 0
  for round = 1, 40 do
    local parts = {}
    for i = 1, 20000 do parts[i] = ("%d:%s"):format(i, "x" .. i + round) end
    n = n + #table.concat(parts, ","):upper()
  end
  return n
end

function programs.tables()
  local n = 0
  for round = 1, 6 do
    local list, map = {}, {}
    for i = 1, 200000 do list[i] = (i * 7919 + round) % 100003 end
    table.sort(list)
    for _, v in ipairs(list) do map[v] = { v } end
    for k in pairs(map) do n = n + k end
  end
  return n
end

function programs.nbody()
  local bodies = {}
  for i = 1, 5 do bodies[i] = { x = i * 1.5, y = i * 0.3 - 1, z = 2 - i * 0.7, vx = 0, vy = i * 0.01, vz = 0, mass = 1 / i } end
  for _ = 1, 120000 do
    for i = 1, #bodies do
      local a = bodies[i]
      for j = i + 1, #bodies do
        local b = bodies[j]
        local dx, dy, dz = a.x - b.x, a.y - b.y, a.z - b.z
        local square = dx * dx + dy * dy + dz * dz
        local mag = 0.001 / (square * math.sqrt(square))
        a.vx, a.vy, a.vz = a.vx - dx * b.mass * mag, a.vy - dy * b.mass * mag, a.vz - dz * b.mass * mag
        b.vx, b.vy, b.vz = b.vx + dx * a.mass * mag, b.vy + dy * a.mass * mag, b.vz + dz * a.mass * mag
      end
    end
    for i = 1, #bodies do
      local a = bodies[i]
      a.x, a.y, a.z = a.x + 0.001 * a.vx, a.y + 0.001 * a.vy, a.z + 0.001 * a.vz
    end
  end
  return bodies[1].x
end

function programs.mandelbrot()
  local inside, size = 0, 400
  for py = 1, size do
    for px = 1, size do
      local cx, cy, x, y, i = px / size * 3 - 2, py / size * 2 - 1, 0.0, 0.0, 0
      while i < 50 and x * x + y * y < 4 do
        x, y, i = x * x - y * y + cx, 2 * x * y + cy, i + 1
      end
      if i == 50 then inside = inside + 1 end
    end
  end
  return inside
end

function programs.patterns()
  local line, n = "2026-11-23T08:00:00Z host=web-1 status=200 path=/v2/models/digits/infer time=12.5ms", 0
  for _ = 1, 40000 do
    for k, v in line:gmatch "(%w+)=(%S+)" do n = n + #k + #v end
    n = n + #line:gsub("%d+", "#") + (line:find("infer", 1, true) or 0)
  end
  return n
end

function programs.closures()
  local n = 0
  for _ = 1, 400000 do
    local methods = { add = function(self, x) self.value = self.value + x return self end }
    local object = setmetatable({ value = 1 }, { __index = methods })
    n = n + object:add(1):add(2).value
  end
  return n
end

local function work()
  for _, name in ipairs { "calls", "strings", "tables", "nbody", "mandelbrot", "patterns", "closures" } do
    local start = os.clock()
    programs[name]()
    print(("BENCH %s %.4f"):format(name, os.clock() - start))
  end
end

if not stage then
  work()
  return
end
pipeline "cpu" {}
stage "work" { timeout = "5m", run = work }
