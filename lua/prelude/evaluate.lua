-- What is typed at a prompt, of the REPL or of the debugger: evaluated, shown, completed.
local _, vm = ...
local pretty = vm.require "prelude.pretty"
local load, xpcall, pcall, next, type, tostring, rawget = load, xpcall, pcall, next, type, tostring, rawget
local concat, sort, pack, unpack = table.concat, table.sort, table.pack, table.unpack

local M = {}

local SHOW_SECONDS = 2 -- for the __tostring of a result
local KEYWORDS = "and break do else elseif end false for function if in local nil not or repeat return then true until while"
local LOADED = [[
  fs exec env secret time json yaml http hash host registry kubeflow mlflow azdo azureml databricks k8s seldon lint test
]]

--- Modules that are there at a prompt without require.
M.modules = {}
for name in LOADED:gmatch "%S+" do M.modules[name] = true end

--- The module of that name, or nil.
function M.module(name)
  if not M.modules[name] then return nil end
  local ok, module = pcall(require, name)
  return ok and module or nil
end

--- compile(text, env) -> function; or nil, what is wrong, and whether more lines may mend it.
function M.compile(text, env)
  local fn, first = load("return " .. text, "=repl", "t", env)
  if fn then return fn end
  local err
  fn, err = load(text, "=repl", "t", env)
  if fn then return fn end
  return nil, err, err:find "<eof>$" ~= nil or first:find "<eof>$" ~= nil
end

--- An error for people, with the places in files that its traceback names beyond the first (unless brief).
function M.report(err, brief)
  local ok, text = vm.bounded(SHOW_SECONDS, tostring, err)
  if not ok or type(text) ~= "string" then text = ("(an error that cannot be shown: %s)"):format(type(err)) end
  local trace = type(err) == "table" and rawget(err, "traceback")
  if brief then return text end
  local places = {}
  for line in (type(trace) == "string" and trace or ""):gmatch "[^\n]+" do
    if line:find "^[^:]+:%d+: in " and not line:find "^repl:" then places[#places + 1] = "  " .. line end
  end
  if #places > 1 or #places == 1 and not text:find(places[1]:match "^  ([^:]+:%d+:)", 1, true) then
    text = text .. "\n" .. concat(places, "\n")
  end
  return text
end

--- The message handler of what is typed: an error object, whatever the error's own __tostring does.
function M.handler(err)
  local ok, object = vm.bounded(SHOW_SECONDS, vm.handler, err)
  return ok and object or ("(an error that cannot be shown: %s)"):format(type(err))
end

--- A value for people, whatever its metamethods do.
function M.show(value, marks)
  local ok, text = vm.bounded(SHOW_SECONDS, pretty, value, marks)
  if ok then return text end
  return ("(a %s that cannot be shown: %s)"):format(type(value), type(text) == "string" and text or "error")
end

--- evaluate(text, env, marks) -> "done" | "incomplete" | "error", what to show, the first value.
function M.evaluate(text, env, marks)
  local fn, err, incomplete = M.compile(text, env)
  if incomplete then return "incomplete", "" end
  if not fn then return "error", err end
  local results = pack(xpcall(fn, M.handler))
  if not results[1] then return "error", M.report(results[2]) end
  local parts = {}
  for i = 2, results.n do parts[#parts + 1] = M.show(results[i], marks) end
  return "done", concat(parts, "\n"), results[2]
end

local function names_of(container, add)
  for _ = 1, 4 do
    if type(container) == "string" then container = string end
    if type(container) ~= "table" then return end
    for name in next, container do add(name) end
    local meta = getmetatable(container)
    container = type(meta) == "table" and rawget(meta, "__index") or nil
  end
end

--- complete(text, look, names) -> list of whole words that may take the place of the text's last word. look(name) is
--- the value of a variable, names(add) calls add with each variable.
function M.complete(text, look, names)
  local word = text:match "[%w_%.:]*$"
  local path, last = word:match "^(.-)([%w_]*)$"
  local items, seen = {}, {}
  local function add(name)
    if type(name) == "string" and name:sub(1, #last) == last and name:find "^[%a_]" and not seen[name] then
      seen[name] = true
      items[#items + 1] = path .. name
    end
  end
  if path == "" then
    names(add)
    for name in pairs(M.modules) do add(name) end
    for name in KEYWORDS:gmatch "%a+" do add(name) end
  else
    local value, depth = nil, 0
    for name in path:gmatch "([%w_]+)[%.:]" do
      local ok, found
      if depth == 0 then ok, found = pcall(look, name) else ok, found = pcall(function() return value[name] end) end
      value, depth = ok and found or nil, depth + 1
      if type(value) ~= "table" and type(value) ~= "string" then return items end
    end
    names_of(value, add)
    local prefix = path:match "^host%.(.*)$"
    if prefix then
      for _, name in ipairs(vm.signatures(prefix)) do add(name:sub(#prefix + 1):match "^[^%.]*") end
    end
  end
  sort(items)
  return { unpack(items, 1, 500) }
end

return M
