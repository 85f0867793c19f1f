-- What every script has: parallel, try, defer, modules over the core primitives.
local t = require "test"
local env = require "env"
local exec = require "exec"
local fs = require "fs"
local host = require "host"
local json = require "json"
local secret = require "secret"
local time = require "time"
local yaml = require "yaml"

t.case("parallel keeps the order and bounds the branches", function()
  local running, most = 0, 0
  local results = parallel(3, { 5, 4, 3, 2, 1 }, function(x, i)
    running = running + 1
    most = math.max(most, running)
    sleep(x / 100)
    running = running - 1
    return x * 10 + i
  end)
  t.eq(results, { 51, 42, 33, 24, 15 })
  t.eq(most, 3)
  t.eq(parallel(2, {}, print), {})
end)

t.case("the first error of parallel is raised when the others have ended", function()
  local done = {}
  local err = t.raises("no 2", function()
    parallel(4, { 1, 2, 3 }, function(x)
      sleep(x == 2 and "5ms" or "30ms")
      if x == 2 then error "no 2" end
      done[#done + 1] = x
    end)
  end)
  t.eq(#done, 2)
  t.eq(err.file:match "[^/]+$", "test_script.lua")
  t.raises("number of branches", parallel, 0, {}, print)
end)

t.case("parallel in parallel", function()
  local sums = parallel(2, { 1, 2 }, function(x)
    local inner = parallel(2, { x, x }, function(y) sleep "1ms" return y end)
    return inner[1] + inner[2]
  end)
  t.eq(sums, { 2, 4 })
end)

t.case("parallel inside a coroutine of one's own says why not", function()
  t.raises("coroutine of your own", function()
    local ok, err = coroutine.resume(coroutine.create(function() parallel(1, { 1 }, print) end))
    if not ok then error(err, 0) end
  end)
end)

t.case("lua-cjson is there under its own name", function()
  local cjson = require "cjson"
  t.eq(cjson.decode('{"a":[1,null,"x"]}').a[3], "x")
  t.eq(cjson.encode { 1, 2 }, "[1,2]")
  t.eq((require "cjson.safe".decode "{"), nil)
end)

t.case("try returns values or an error object", function()
  t.eq({ try(function(a, b) return b, a end, 1, 2) }, { 2, 1 })
  local value, err = try(error, "plain")
  t.eq(value, nil)
  t.eq({ err.code, err.message }, { "failed", "plain" })
  err = select(2, try(fs.read, "no/such/file"))
  t.eq(err.code, "not_found")
  t.holds(tostring(err), "test_script.lua:")
  t.eq("x: " .. err, "x: " .. tostring(err))
end)

t.case("coroutines behave as Lua's", function()
  local co = coroutine.create(function(a)
    local b = coroutine.yield(a + 1)
    error("e" .. b, 0)
  end)
  t.eq({ coroutine.resume(co, 1) }, { true, 2 })
  t.eq(coroutine.status(co), "suspended")
  t.eq({ coroutine.resume(co, "x") }, { false, "ex" })
  t.eq(coroutine.status(co), "dead")
  t.eq({ coroutine.resume(co) }, { false, "cannot resume dead coroutine" })
  local _, main = coroutine.running()
  t.eq(main, true)
  t.eq(coroutine.isyieldable(), false)
  t.raises("outside a coroutine", coroutine.yield)
  local closed = false
  local pending = coroutine.create(function()
    local _ <close> = setmetatable({}, { __close = function() closed = true end })
    coroutine.yield()
  end)
  coroutine.resume(pending)
  t.eq(coroutine.close(pending), true)
  t.ok(closed)
end)

t.case("files below the output folder", function()
  local workspace = fs.list "."
  t.ok(#workspace > 0)
  t.raises("may not write", fs.write, "made-by-a-test", "x")
  t.raises("may not read", fs.read, "/etc/hostname")
end)

t.case("commands are denied unless granted", function()
  local err = t.raises("may not run the command 'true'", exec, { "true" })
  t.eq(err.code, "denied")
  t.holds(err.hint, 'permissions = { exec = { "true" } }')
  t.raises("did you mean 'timeout'", exec, { "true", timeot = 1 })
end)

t.case("the environment is denied unless granted", function()
  t.eq(t.raises("may not see the variable 'HOME'", function() return env.HOME end).code, "denied")
  t.raises("cannot be changed", function() env.X = 1 end)
end)

t.case("secrets cannot be read", function()
  local s = secret.format("a%sb%%", "12345")
  t.ok(secret.is(s))
  t.eq(tostring(s), "<secret>")
  t.raises("never enters the script", function() return "x" .. s end)
  t.eq(getmetatable(s), false)
  t.raises("fewer values", secret.format, "%s")
end)

t.case("time", function()
  local before = time.now()
  sleep(0.02)
  t.ok(time.now() - before >= 0.019)
  t.eq(time.iso(0), "1970-01-01T00:00:00Z")
  t.eq(time.duration "1h30m", 5400)
  t.raises("soon", time.duration, "soon")
end)

t.case("host stubs take arguments in order or by name", function()
  t.eq(host.fs.exists ".", true)
  t.eq(host.fs.exists { path = "." }, true)
  t.raises("takes 1 argument", host.fs.exists, ".", 2)
  t.raises("did you mean 'fs.exists'", function() return host.fs.exist "." end)
  t.raises("argument 'path'.*missing", host.fs.exists)
  t.raises("must be path, not integer", host.fs.exists, 1)
end)

t.case("JSON keeps whole numbers, nulls and empty lists", function()
  t.eq(json.encode { b = 1, a = { 1.5, true, json.null }, c = json.array() }, '{"a":[1.5,true,null],"b":1,"c":[]}')
  t.eq(math.type(json.decode "1"), "integer")
  t.eq(json.encode(json.decode '{"x":[],"y":{}}'), '{"x":[],"y":{}}')
  t.raises("f.json:2:", json.decode, "{\n,}", "f.json")
  t.raises("a.b: a function", json.encode, { a = { b = print } })
  t.raises("both numbered and named", json.encode, { 1, x = 2 })
  local loop = {}
  loop.loop = loop
  t.raises("contains itself", json.encode, loop)
end)

t.case("YAML", function()
  local doc = yaml.decode "a: 1\nb: [x, 'yes', yes, null]\n"
  t.eq(doc.a, 1)
  t.eq({ doc.b[1], doc.b[2], doc.b[4] == yaml.null }, { "x", "yes", true })
  t.eq(yaml.decode(yaml.encode(doc)).b[2], "yes")
  t.raises("f.yaml:2:", yaml.decode, "a: 1\n  b: : 2", "f.yaml")
  t.eq(#yaml.decode_all "--- 1\n--- 2\n", 2)
end)

t.case("what the environment does not have", function()
  for _, name in ipairs { "io", "debug", "package", "dofile", "loadfile", "warn" } do t.eq(_G[name], nil, name) end
  t.eq(os.execute, nil)
  t.eq(string.dump, nil)
  t.raises("is not allowed here", collectgarbage, "stop")
  t.raises("__gc is not allowed", setmetatable, {}, { __gc = print })
  t.eq(load "\27Lua", nil)
  t.eq(load("return x", "c", "t", { x = 3 })(), 3)
  t.eq((load("return x", "c", "b")), nil, "no text where only byte code is asked for")
  t.eq(getmetatable "", false)
end)
