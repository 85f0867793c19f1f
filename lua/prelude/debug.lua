-- The debugger's commands. A session begins where the script has stopped (host/vm/debug.c) and ends when it goes on;
-- what is typed comes as `eval` frames from the terminal (host/run/debug.h).
local _, vm = ...
local evaluate = vm.require "prelude.evaluate"
local _G, setmetatable, tonumber, type, xpcall = _G, setmetatable, tonumber, type, xpcall
local concat, min, max, tointeger = table.concat, math.min, math.max, math.tointeger

local AROUND, AROUND_MAX, VALUE_BYTES = 3, 200, 400

local HELP = [[
:where, :bt          the stack; > marks the frame that is looked at
:up, :down, :frame N look at another frame
:locals, :upvalues   the frame's variables
:source [N]          N lines around the place where it stands
EXPRESSION           its value; locals and upvalues of the frame can be read and assigned
:next, :n            run to the next line of this function
:step, :s            ... or into what the line calls
:finish, :f          run until this function has returned
:continue, :c        go on to the next stop
:return EXPRESSION   where a call of the host has failed: it gives this value instead, and the script goes on
:break FILE:LINE, :b a breakpoint; :break alone lists them, :delete N removes one
:retry               run the stage again from its beginning, with the script as it is now
:abort               end this stage (its deferred functions run)
:quit, :q            end the whole run
Ctrl-C interrupts what is evaluated; Ctrl-D goes on without the debugger.]]

local function shown_file(source) return source:match "^[@=](.*)" or "(text)" end

--- The lines of what a frame runs: of a file that was loaded, or of a text given to load().
local function lines_of(session, source)
  local text = session.d.sources[shown_file(source)]
  if not source:find "^[@=]" then text = source end
  if not text then return nil end
  local lines = {}
  for line in (text:sub(-1) == "\n" and text or text .. "\n"):gmatch "(.-)\r?\n" do lines[#lines + 1] = line end
  return lines
end

local function place(info) return ("%s:%d"):format(shown_file(info.source), info.line) end

local function called(info)
  if info.what == "main" then return "main chunk" end
  if info.name then return "function '" .. info.name .. "'" end
  return ("function at line %d"):format(info.defined)
end

local function window(session, source, at, around)
  local lines = lines_of(session, source)
  if not lines or #lines == 0 then return nil end
  local parts = {}
  for i = max(1, at - around), min(#lines, at + around) do
    local text = #lines[i] > 300 and lines[i]:sub(1, 300) .. " ..." or lines[i]
    parts[#parts + 1] = ("%s %4d  %s"):format(i == at and "->" or "  ", i, text)
  end
  return concat(parts, "\n")
end

local function source_of(session, around)
  local info = session.d.info(session.frame)
  if info then
    return window(session, info.source, info.line, around)
      or place(info) .. ": its source is not at hand"
  end
  local err = session.err
  if type(err) == "table" and type(err.file) == "string" and tointeger(err.line) then
    return window(session, "@" .. err.file, err.line, around) or ""
  end
  return "no line of the script runs"
end

--- One line of text: what a value looks like in a list.
local function brief(value)
  local text = evaluate.show(value, true)
  if #text > VALUE_BYTES or text:find "\n" then
    text = evaluate.show(value):gsub("%s+", " ")
    if #text > VALUE_BYTES then text = text:sub(1, VALUE_BYTES) .. " ..." end
  end
  return text
end

local function variables(list, none)
  local parts = {}
  for i, item in ipairs(list) do parts[i] = ("  %s = %s"):format(item.name, brief(item.value)) end
  return #parts > 0 and concat(parts, "\n") or none
end

local function stack(session)
  local parts, i = {}, 1
  while true do
    local info = session.d.info(i)
    if not info then break end
    if info.outer then parts[#parts + 1] = "     -- resumed, or waited for, by" end
    parts[#parts + 1] = ("%s %2d  %s in %s"):format(i == session.frame and ">" or " ", i, place(info), called(info))
    i = i + 1
  end
  return #parts > 0 and concat(parts, "\n") or "no line of the script runs"
end

--- What names mean in the frame: its locals, its upvalues, then the globals that it sees.
local function scope(session)
  local frame, d = session.frame, session.d
  local function globals()
    if session.live and d.info(frame) then
      local found, env = d.get(frame, "_ENV")
      if found and type(env) == "table" then return env end
    end
    return _G
  end
  return setmetatable({}, {
    __index = function(_, name)
      if session.live and type(name) == "string" and d.info(frame) then
        local found, value = d.get(frame, name)
        if found then return value end
      end
      local value = globals()[name]
      if value == nil and name == "_" then return session.last end
      if value == nil then return evaluate.module(name) end
      return value
    end,
    __newindex = function(_, name, value)
      if session.live and type(name) == "string" and d.info(frame) and d.set(frame, name, value) then return end
      globals()[name] = value
    end,
    __metatable = "the frame's variables",
  })
end

local function look_at(session, frame)
  if not session.d.info(frame) then return "error", "there is no such frame; :where lists them" end
  session.frame = frame
  local info = session.d.info(frame)
  return "done", ("%d  %s in %s\n%s"):format(frame, place(info), called(info), source_of(session, 0))
end

--- The first line from `line` on that can be stopped at: not empty, no comment.
local function line_with_code(session, file, line)
  for name in pairs(session.d.sources) do
    if name == file or name:sub(-#file - 1) == "/" .. file then
      local lines = lines_of(session, "@" .. name)
      if line > #lines then return nil, ("%s has %d lines"):format(name, #lines) end
      for i = line, #lines do
        if lines[i]:find "%S" and not lines[i]:find "^%s*%-%-" then return i end
      end
      return nil, ("%s: no code from line %d on"):format(name, line)
    end
  end
  return line -- of a module that is not loaded yet
end

local function set_break(session, argument)
  local d = session.d
  if argument == "" then
    local parts = {}
    for i, text in ipairs(d.point()) do parts[i] = ("%2d  %s"):format(i, text) end
    return "done", #parts > 0 and concat(parts, "\n") or "no breakpoints"
  end
  local file, line = argument:match "^(.-):?(%d+)$"
  local info = d.info(session.frame)
  if file == "" and info then file = shown_file(info.source) end
  if not file or file == "" then return "error", "usage: :break FILE:LINE, or :break LINE of the file that is shown" end
  local at, why = line_with_code(session, file, tointeger(tonumber(line)) or 1)
  if not at then return "error", why end
  if not d.point(file, at) then return "error", "too many breakpoints, or too long a name; :delete N removes one" end
  return "done", ("breakpoint at %s:%d"):format(file, at)
end

local function delete(session, argument)
  local index = tointeger(tonumber(argument))
  if not index or not session.d.point()[index] then return "error", "usage: :delete N, a number that :break lists" end
  session.d.point(index)
  return "done", ""
end

local function leave(pace)
  return function(session)
    session.d.go(pace, session.frame)
    return "done", "", pace
  end
end

--- The only error that can be taken back: it comes from outside, and nothing has been unwound.
local function answer(session, argument)
  local fn, why = evaluate.compile(argument == "" and "nil" or argument, scope(session))
  if not fn then return "error", why end
  local ok, value = xpcall(fn, evaluate.handler)
  if not ok then return "error", evaluate.report(value) end
  if not session.d.answer(value) then
    return "error", "only a call of the host that has failed can be given a result; :retry runs the stage again"
  end
  session.d.go("continue", session.frame)
  return "done", "", "continue"
end

--- What the supervisor does: the session waits until it is told to end.
local function above(what)
  return function() return "done", "", what end
end

local commands = {
  help = function() return "done", HELP end,
  where = function(session) return "done", stack(session) end,
  up = function(session) return look_at(session, session.frame + 1) end,
  down = function(session) return look_at(session, session.frame - 1) end,
  frame = function(session, argument) return look_at(session, tointeger(tonumber(argument)) or session.frame) end,
  locals = function(session)
    if not session.d.info(session.frame) then return "done", "no locals" end
    return "done", variables(session.d.locals(session.frame), "no locals")
  end,
  upvalues = function(session)
    if not session.d.info(session.frame) then return "done", "no upvalues" end
    local list = {}
    for _, item in ipairs(session.d.upvalues(session.frame)) do
      if item.name ~= "_ENV" then list[#list + 1] = item end
    end
    return "done", variables(list, "no upvalues")
  end,
  source = function(session, argument)
    return "done", source_of(session, min(tointeger(tonumber(argument)) or 10, AROUND_MAX))
  end,
  step = leave "step", next = leave "next", finish = leave "finish", continue = leave "continue",
  ["break"] = set_break, delete = delete, ["return"] = answer,
  retry = above "retry", abort = above "abort", quit = above "quit",
}
local short = { h = "help", ["?"] = "help", bt = "where", w = "where", u = "up", d = "down", l = "locals", src = "source",
  s = "step", n = "next", f = "finish", c = "continue", b = "break", q = "quit" }

local function names_of(map)
  local names = {}
  for name in pairs(map) do names[#names + 1] = name end
  table.sort(names)
  return names
end
local command_names = names_of(commands)

local function command(session, text)
  local word, argument = text:match "^:(%S*)%s*(.-)%s*$"
  local run = commands[short[word] or word]
  if run then return run(session, argument) end
  local near = vm.near(word, command_names)
  return "error", ("no command ':%s'%s; :help lists them"):format(word, near and (" (did you mean ':" .. near .. "'?)") or "")
end

local function complete(session, text)
  local word = text:match "^:(%a*)$"
  if word then
    local items = {}
    for _, name in ipairs(command_names) do
      if name:sub(1, #word) == word then items[#items + 1] = ":" .. name end
    end
    return items
  end
  local variables_here = scope(session)
  return evaluate.complete(text, function(name) return variables_here[name] end, function(add)
    if session.d.info(session.frame) then
      for _, item in ipairs(session.d.locals(session.frame)) do add(item.name) end
      for _, item in ipairs(session.d.upvalues(session.frame)) do add(item.name) end
    end
    for name in next, _G do add(name) end
  end)
end

local function banner(session, reason)
  local info = session.d.info(1)
  local where = info and ("at %s in %s"):format(place(info), called(info)) or "before any line of the script"
  local text = ("stopped: %s %s"):format(reason, where)
  if reason == "error" then text = text .. "\n" .. evaluate.report(session.err, true) end
  return text .. "\n" .. source_of(session, AROUND)
end

local function emit_break(session, reason)
  local info = session.d.info(1)
  local err = session.err
  vm.emit {
    t = "break", reason = reason, file = info and shown_file(info.source) or nil, line = info and info.line or nil,
    error = err and evaluate.report(err, true) or nil, text = banner(session, reason), stage = session.d.stage,
  }
end

--- session(d, reason, err): talks until it goes on. d: host/vm/debug.c, push_session.
return function(d, reason, err)
  local session = { d = d, frame = 1, live = true, err = err }
  emit_break(session, reason)
  while true do
    local frame = d.receive()
    if frame.t == "leave" then
      d.go(frame.off and "off" or "continue")
      break
    elseif frame.t == "complete" then
      local ok, items = xpcall(complete, vm.handler, session, frame.text)
      vm.emit { t = "completions", items = vm.array(ok and items or {}) }
    elseif frame.t == "eval" then
      local ok, status, output, left
      if frame.text:find "^:" then
        ok, status, output, left = xpcall(command, vm.handler, session, frame.text)
      else
        ok, status, output, left = xpcall(evaluate.evaluate, vm.handler, frame.text, scope(session), true)
        if ok and left ~= nil then session.last = left end
        left = nil
      end
      if not ok then status, output, left = "error", evaluate.report(status), nil end
      vm.emit { t = "evaled", status = status, output = output, leave = left }
      if left and left ~= "retry" and left ~= "abort" and left ~= "quit" then break end
    end
  end
  session.live = false
end
