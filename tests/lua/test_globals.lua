-- lint.globals: what is a global, and what only looks like one.
local t = require "test"
local globals = require "lint.globals"

local function names(text, known)
  local list = {}
  for i, finding in ipairs(globals(text, "x.lua", known)) do list[i] = finding.message:match "'(.-)'" end
  return table.concat(list, " ")
end

t.case("reads and calls of unknown names are found", function()
  t.eq(names "local a = b", "b")
  t.eq(names "foo(bar)", "foo bar")
  t.eq(names "x.y = 1", "x")
  t.eq(names "return { [k] = v, n = w }", "k v w")
  t.eq(names "foo 'x' foo2 { } foo3:m()", "foo foo2 foo3")
end)

t.case("scopes are followed", function()
  t.eq(names "local a a = 1 return a", "")
  t.eq(names "do local a = 1 end return a", "a")
  t.eq(names "for i = 1, n do print(i) end return i", "n i")
  t.eq(names "for k, v in pairs {} do print(k, v) end", "")
  t.eq(names "repeat local x = 1 until x == 1", "")
  t.eq(names "local function f(a, ...) return f(a, ...) end return f, a", "a")
  t.eq(names "local f = function(q) return q end return q", "q")
  t.eq(names "local t = {} function t:m() return self end", "")
  t.eq(names "local x <const> = 1 return x", "")
  t.eq(names "local a = a", "a", "a local is not in scope in its own initialiser")
  t.eq(names "if c then local d = 1 elseif d then end", "c d")
  t.eq(names "while w do local z end return z", "w z")
end)

t.case("globals that the file assigns are known", function()
  t.eq(names "total = 1 print(total)", "")
  t.eq(names "function helper() end helper()", "")
end)

t.case("strings, comments, numbers and labels are no names", function()
  t.eq(names "-- foo\n--[[ bar\nbaz ]] local s = 'q' .. [==[ w ]] ]==] .. \"a\\\"b\"", "")
  t.eq(names "return 0x1F, 1e-3, 3.5, .5, 1-2, 0xA.8p1, 5//2", "")
  t.eq(names "goto done ::done:: return 1 ~= 2, not nil, -1, #{}", "")
  t.eq(names "#!/usr/bin/mlhost\nreturn a.b.c", "a")
end)

t.case("a finding has its place and the near miss", function()
  local finding = globals("local x = 1\n  prnt(x)", "f.lua")[1]
  t.eq({ finding.file, finding.line, finding.column, finding.rule }, { "f.lua", 2, 3, "unknown-global" })
  t.holds(finding.message, "did you mean 'print'?")
end)

t.case("names can be made known", function() t.eq(names("mine()", { mine = true }), "") end)

t.case("the script's own globals are known", function()
  t.eq(names [[pipeline "p" {} stage "s" {} parallel(1, {}, print) log.info "x" set_variable("a", "b") report.link("a", "b")]], "")
  t.eq(names "io.open 'x' debug.traceback()", "io debug", "what a script does not have is a finding")
end)
