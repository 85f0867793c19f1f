--- Tests, run by `mlhost test PATH`: cases with names, and assertions that say what they saw.
local _, vm = ...
local json = require "json"

local test = {}
local cases = {}

--- case(name, fn): registers a test. Cases run in order; a failing one does not stop the others.
function test.case(name, fn)
  if type(name) ~= "string" or type(fn) ~= "function" then error("test.case: a name and a function are needed", 2) end
  cases[#cases + 1] = { name = name, fn = fn }
end

local function show(value)
  if type(value) == "string" then return ("%q"):format(value) end
  if type(value) == "table" and getmetatable(value) ~= "error" then
    local ok, text = pcall(json.encode, value)
    if ok then return text end
  end
  return tostring(value)
end

local function same(a, b, seen)
  if a == b then return true end
  if type(a) ~= "table" or type(b) ~= "table" then return false end
  seen = seen or {}
  if seen[a] == b then return true end
  seen[a] = b
  for key, value in next, a do
    if not same(value, b[key], seen) then return false end
  end
  for key in next, b do
    if a[key] == nil then return false end
  end
  return true
end

local function fail(message, note) error(note and (note .. ": " .. message) or message, 3) end

--- eq(got, wanted, note): equal, tables by content.
function test.eq(got, wanted, note)
  if not same(got, wanted) then fail(("got %s, wanted %s"):format(show(got), show(wanted)), note) end
end

--- ne(got, unwanted, note)
function test.ne(got, unwanted, note)
  if same(got, unwanted) then fail("got " .. show(got), note) end
end

--- ok(value, note): neither nil nor false.
function test.ok(value, note)
  if not value then fail("got " .. show(value), note) end
  return value
end

--- near(got, wanted, tolerance, note): numbers
function test.near(got, wanted, tolerance, note)
  if type(got) ~= "number" or math.abs(got - wanted) > (tolerance or 1e-9) then
    fail(("got %s, wanted %s within %s"):format(show(got), show(wanted), tolerance or 1e-9), note)
  end
end

--- holds(text, part, note): part occurs in text, as it is.
function test.holds(text, part, note)
  if type(text) ~= "string" or not text:find(part, 1, true) then fail(("%s does not hold %q"):format(show(text), part), note) end
end

--- match(text, pattern, note): a Lua pattern
function test.match(text, pattern, note)
  if type(text) ~= "string" or not text:find(pattern) then fail(("%s does not match %q"):format(show(text), pattern), note) end
end

--- raises(pattern, fn, ...) -> the error object. The pattern is tried on the message and on its plain text.
function test.raises(pattern, fn, ...)
  local ok, err = xpcall(fn, vm.handler, ...)
  if ok then fail(("no error; one that matches %q was wanted"):format(pattern)) end
  local text = tostring(err)
  if not (text:find(pattern) or text:find(pattern, 1, true)) then
    fail(("the error %q does not match %q"):format(text, pattern))
  end
  return err
end

--- skip(reason): ends the case; it counts neither as passed nor as failed.
local Skip = {}
function test.skip(reason) error(setmetatable({ reason = reason }, Skip), 0) end

---@private
function test.run_all(filter)
  local results = vm.array {}
  for _, case in ipairs(cases) do
    if not filter or case.name:find(filter, 1, true) then
      local skipped
      local ok, err = xpcall(case.fn, function(e)
        if getmetatable(e) == Skip then
          skipped = e.reason or ""
          return e
        end
        return vm.handler(e)
      end)
      local result = { name = case.name, ok = ok }
      if skipped then
        result.skipped = skipped
      elseif not ok then
        result.message, result.file, result.line = err.message, err.file, err.line
        result.hint, result.traceback = err.hint, err.traceback
      end
      results[#results + 1] = result
    end
  end
  return results
end

return test
