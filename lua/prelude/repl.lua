-- The VM's side of `mlhost repl`: evaluates what it is sent, completes names. The terminal is the host's.
local _, vm = ...
local evaluate = vm.require "prelude.evaluate"

local M = {}

--- Modules are there without require; nil stays nil, so that a name can be tried.
local function autoload(_, name)
  local module = evaluate.module(name)
  if module ~= nil then rawset(_G, name, module) end
  return module
end

local function globals()
  local names = {}
  for name in next, _G do names[#names + 1] = tostring(name) end
  for name in pairs(evaluate.modules) do
    if rawget(_G, name) == nil then names[#names + 1] = name end
  end
  table.sort(names)
  return table.concat(names, "  ")
end

local function answer(text, marks)
  if text == ":globals" then return "done", globals() end
  local status, output, value = evaluate.evaluate(text, _G, marks)
  if value ~= nil then _G._ = value end
  return status, output
end

local function complete(text)
  return evaluate.complete(text, function(name) return _G[name] end, function(add)
    for name in next, _G do add(name) end
  end)
end

function M.repl(start)
  setmetatable(_G, { __index = autoload })
  local marks = start.context and start.context.colour
  if start.script then
    --- What the script declares can be looked at: stages.NAME is its table, stages.NAME.run its function.
    local stages = {}
    rawset(_G, "stages", stages)
    function pipeline(_, spec) return spec == nil and function() end or nil end
    function stage(name, spec)
      local function take(body) stages[name] = body end
      if spec == nil then return take end
      take(spec)
    end
    local chunk, err = vm.load(start.script.text, "@" .. start.script.name)
    local ok = chunk
    if chunk then ok, err = xpcall(chunk, vm.handler) end
    if not ok then log.error("%s", evaluate.report(err)) end
  end
  vm.emit { t = "evaled", status = "ready", output = "" }
  while true do
    local frame = vm.receive()
    if frame.t == "eval" then
      local status, output = answer(frame.text, marks)
      vm.emit { t = "evaled", status = status, output = output }
    elseif frame.t == "set" then
      rawset(_G, frame.name, frame.value)
    elseif frame.t == "complete" then
      local ok, items = pcall(complete, frame.text)
      vm.emit { t = "completions", items = vm.array(ok and items or {}) }
    end
  end
end

return M
