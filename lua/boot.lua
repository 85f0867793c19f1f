-- The first Lua that runs in a VM: the globals of every script, then the mode's own module. Kept small, since it is
-- part of every stage's start.
--
-- `vm` holds the internals (host/vm/host.c, codec.c, vm.c), which only the program's own modules get, as their second
-- argument; `start` is the start frame of docs/architecture.md.
local _, vm = ...
local say, spawn, join, handler, catch = vm.say, vm.spawn, vm.join, vm.handler, vm.catch
local format, concat = string.format, table.concat

local function text_of(message, ...)
  if select("#", ...) == 0 then return tostring(message) end
  local ok, text = pcall(format, message, ...)
  return ok and text or concat({ tostring(message), ... }, " ")
end

--- Writes a line to the stage's output.
function print(...)
  local words = table.pack(...)
  for i = 1, words.n do words[i] = tostring(words[i]) end
  say("event.print", { text = concat(words, "\t") .. "\n" })
end

--- log.info(format, ...), and debug, warning, error: a line with a level in the run's log.
log = {}
for _, level in ipairs { "debug", "info", "warning", "error" } do
  log[level] = function(...) say("event.log", { level = level, text = text_of(...) }) end
end

--- progress(label, done, total, unit): how far something is; total nil: unknown.
function progress(label, done, total, unit)
  say("event.progress", { label = label, done = math.floor(done), total = total and math.floor(total) or -1, unit = unit or "" })
end

--- sleep(duration): "500ms", "2s", "1m", or seconds. Ends early when the stage does.
function sleep(duration) vm.call("time.sleep", { duration = duration }) end

--- set_variable(name, value, { output = true, secret = true }): for the CI system that runs mlhost.
function set_variable(name, value, options)
  options = options or {}
  if type(value) == "number" or type(value) == "boolean" then value = tostring(value) end
  say("event.variable", { name = name, value = value, output = options.output, secret = options.secret })
end

--- report.link(title, url), report.summary(markdown), report.junit(path, title): what the run's report shows.
report = {
  link = function(title, url) say("event.report", { kind = "link", title = title, url = url }) end,
  summary = function(text, title) say("event.report", { kind = "summary", text = text, title = title }) end,
  junit = function(path, title) say("event.report", { kind = "junit", path = path, title = title }) end,
}

local function value_or_error(ok, ...)
  if ok then return ... end
  return nil, (...)
end

--- try(fn, ...) -> what fn returns, or nil and the error object { code, message, hint, file, line ... }.
function try(fn, ...) return value_or_error(xpcall(fn, handler, ...)) end

local deferred = {}

--- defer(fn): run fn when the stage's function has ended, however it ended; the last one first. A deferred function may
--- defer another, which runs next.
function defer(fn)
  if type(fn) ~= "function" then error("defer: a function is needed, not " .. type(fn), 2) end
  deferred[#deferred + 1] = fn
end

--- parallel(n, items, fn) -> list of results in the order of items. Runs fn(item, index) for up to n items side by side.
--- After the first error no further item is started; it is raised when those that run have ended.
function parallel(n, items, fn)
  if math.type(n) ~= "integer" or n < 1 then error("parallel: the first argument is the number of branches, 1 or more", 2) end
  if type(items) ~= "table" then error("parallel: the second argument is a list, not " .. type(items), 2) end
  if type(fn) ~= "function" then error("parallel: the third argument is a function, not " .. type(fn), 2) end
  local results, tasks, at, count, failure = {}, {}, 0, #items, nil
  local function branch()
    while at < count and failure == nil do
      at = at + 1
      local index = at
      local ok, result = xpcall(fn, catch, items[index], index)
      if ok then
        results[index] = result
      elseif failure == nil then
        failure = result
      end
    end
  end
  for i = 1, math.min(n, count) do tasks[i] = spawn(branch) end
  for _, task in ipairs(tasks) do join(task) end
  if failure ~= nil then error(failure, 0) end
  return results
end

--- Runs what was deferred. Its errors do not hide the stage's own, but an otherwise good stage fails with the first.
local function clean_up()
  local failure
  while #deferred > 0 do
    local fn = deferred[#deferred]
    deferred[#deferred] = nil
    local ok, err = xpcall(fn, catch)
    if not ok then
      log.error("deferred function: %s", tostring(err))
      failure = failure or err
    end
  end
  return failure
end

--- breakpoint(): opens the debugger here, in a run with --debug; else nothing but a debug line in the log.
function breakpoint()
  if not vm.breakpoint() then log.debug("breakpoint() at %s: this run has no --debug", vm.where()) end
end

local modes = {
  plan = "prelude.pipeline", check = "prelude.check", stage = "prelude.pipeline", always = "prelude.pipeline",
  component = "component", model = "model", test = "prelude.suite", repl = "prelude.repl",
  image = "image",
}

return function(_, start)
  local module = modes[start.mode] or error("unknown mode " .. tostring(start.mode))
  local ok, result = xpcall(vm.require(module)[start.mode], catch, start)
  local failure = clean_up()
  if not ok then error(result, 0) end
  if failure then error(failure, 0) end
  return result
end
