-- The VM's side of `mlhost repl`: evaluates what it is sent, completes names. The terminal is the host's.
local vm = require "vm"
local pretty = require "prelude.pretty"

local M = {}

local MODULES = {}
local LOADED = [[fs exec env secret time json yaml http hash host registry kubeflow mlflow azdo azureml databricks lint test]]
for name in LOADED:gmatch "%S+" do
  MODULES[name] = true
end

--- Modules are there without require; nil stays nil, so that a name can be tried.
local function autoload(_, name)
  if not MODULES[name] then return nil end
  local ok, module = pcall(require, name)
  if not ok then return nil end
  rawset(_G, name, module)
  return module
end

local function compile(text)
  local fn = vm.load("return " .. text, "=repl")
  if fn then return fn end
  local err
  fn, err = vm.load(text, "=repl")
  if fn then return fn end
  return nil, err, err.message:find "<eof>$" ~= nil
end

local function globals()
  local names = {}
  for name in next, _G do names[#names + 1] = tostring(name) end
  for name in pairs(MODULES) do
    if rawget(_G, name) == nil then names[#names + 1] = name end
  end
  table.sort(names)
  return table.concat(names, "  ")
end

local function show_results(marks, ...)
  local parts = {}
  for i = 1, select("#", ...) do parts[i] = pretty((select(i, ...)), marks) end
  return table.concat(parts, "\n")
end

local function report(err)
  local text = tostring(err)
  local trace = type(err) == "table" and err.traceback
  if trace and trace:find "[^%s]" and select(2, trace:gsub("\n", "\n")) > 0 then text = text .. "\n" .. trace end
  return text
end

local function evaluate(text, marks)
  if text == ":globals" then return "done", globals() end
  local fn, err, incomplete = compile(text)
  if incomplete then return "incomplete", "" end
  if not fn then return "error", report(err) end
  local results = table.pack(xpcall(fn, vm.handler))
  if not results[1] then return "error", report(results[2]) end
  if results.n == 1 then return "done", "" end
  _G._ = results[2]
  local ok, shown = xpcall(show_results, vm.handler, marks, table.unpack(results, 2, results.n))
  return ok and "done" or "error", ok and shown or report(shown)
end

local KEYWORDS = "and break do else elseif end false for function if in local nil not or repeat return then true until while"

--- Names that the text before the cursor may go on with: whole words from the last blank or operator.
local function complete(text)
  local word = text:match "[%w_%.:]*$"
  local path, last = word:match "^(.-)([%w_]*)$"
  local items, container = {}
  if path == "" then
    container = _G
  else
    container = _G
    for name in path:gmatch "([%w_]+)[%.:]" do
      local ok, value = pcall(function() return container[name] end)
      container = ok and value or nil
      if type(container) ~= "table" and type(container) ~= "string" then return items end
    end
  end
  local seen = {}
  local function add(name)
    if type(name) == "string" and name:sub(1, #last) == last and name:find "^[%a_]" and not seen[name] then
      seen[name] = true
      items[#items + 1] = path .. name
    end
  end
  if path == "" then
    for name in pairs(MODULES) do add(name) end
    for name in KEYWORDS:gmatch "%a+" do add(name) end
  end
  local prefix = path:match "^host%.(.*)$"
  if prefix then
    for _, name in ipairs(vm.signatures(prefix)) do add(name:sub(#prefix + 1):match "^[^%.]*") end
  end
  for _ = 1, 4 do
    if type(container) == "string" then container = string end
    if type(container) ~= "table" then break end
    for name in next, container do add(name) end
    local meta = getmetatable(container)
    container = type(meta) == "table" and rawget(meta, "__index") or nil
  end
  table.sort(items)
  return items
end

function M.repl(start)
  setmetatable(_G, { __index = autoload })
  local marks = start.context and start.context.colour
  if start.script then
    function pipeline() return function() end end
    function stage() return function() end end
    local chunk, err = vm.load(start.script.text, "@" .. start.script.name)
    local ok = chunk
    if chunk then ok, err = xpcall(chunk, vm.handler) end
    if not ok then log.error("%s", report(err)) end
  end
  vm.emit { t = "evaled", status = "ready", output = "" }
  while true do
    local frame = vm.receive()
    if frame.t == "eval" then
      local status, output = evaluate(frame.text, marks)
      vm.emit { t = "evaled", status = status, output = output }
    elseif frame.t == "complete" then
      local ok, items = pcall(complete, frame.text)
      vm.emit { t = "completions", items = vm.array(ok and items or {}) }
    end
  end
end

return M
