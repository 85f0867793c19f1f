-- Every way out of a stage that has a secret. The way is the stage; each prints "way <name>", so that it is known to have run.
local exec, secret, env, json, yaml, fs, http = require "exec", require "secret", require "env", require "json", require "yaml",
  require "fs", require "http"
local host = require "host"
local python = "python3"

pipeline "leaks" {
  params = { control = false, junit = "" },
  permissions = { exec = { python, "cat", "sh" }, write = { "scratch" }, net = { "*.invalid" } },
}

-- What the control run has is the text, which nothing masks: all of it must be found there.
local function have(cx)
  if cx.params.control then return env.CANARY end
  return secret.get "CANARY"
end

local function leak(cx, way, ...)
  return exec { python, cx.workspace .. "/leak.py", way, ..., env = { SECRET = have(cx) }, check = false }
end

local function text_of(cx) return exec { "cat", input = have(cx), quiet = true }.out end

local function way(name, run, always)
  stage(name) { timeout = "60s", allow_failure = true, permissions = { env = { "CANARY" } }, run = function(cx)
    print("way " .. name)
    return run(cx)
  end, always = always }
end

for _, name in ipairs { "encodings", "pieces", "long", "half" } do
  way(name, function(cx) leak(cx, name) end)
end

way("handles", function(cx)
  local h = have(cx)
  print(h, tostring(h), ("%s"):format(h), json.encode { h = h }, yaml.encode { h = h })
  log.warning("%s", h)
  for _, use in ipairs {
    function() return "x" .. h end, function() return h.value end, function() return #h end, function() return h < h end,
    function() return h() end, function() return h + 1 end, function() return json.encode { [h] = 1 } end,
    function() return h:upper() end, function() return fs.write("scratch/x", h) end, function() error(h) end,
    function() error { code = "failed", message = h } end, function() return require(h) end,
    function() return exec { "sh", "-c", h } end, function() return exec { "cat", cwd = h } end,
    function() return host.event.log { level = "info", text = h } end,
    function() return host.event.effect { key = h, value = h } end, function() return progress(h, 1, 2, h) end,
  } do
    if not cx.params.control then print(select(2, pcall(use))) end
  end
end)

way("derived", function(cx)
  local h = have(cx)
  local all = cx.params.control and { h, h, h } or
    { secret.concat("user:", h), secret.base64(secret.concat("u:", h)), secret.format("Bearer %s%%", h) }
  for _, one in ipairs(all) do exec { "cat", input = one } print() end
end)

way("text", function(cx)
  local text = text_of(cx)
  print(text)
  print(text:sub(1, -2) .. text:sub(-1), #text, json.encode { text })
  log.info("%s", text)
  log.error("%s", text)
  progress(text, 1, 2, text)
  report.summary("# " .. text .. "\n\n```\n" .. text, text)
  report.link(text, "https://example.com/" .. text)
  set_variable("TEXT", text)
  set_variable("KEY " .. text, text, { output = true })
  host.event.issue { level = "warning", message = text, file = text, line = 3, rule = text, hint = text }
  host.event.effect { key = "made " .. text, value = { [text] = { text } } }
  if not cx.params.control then set_variable("TOKEN", have(cx)) end
end)

way("requests", function(cx)
  local text = text_of(cx)
  for _, ask in ipairs {
    function() return fs.read("scratch/" .. text) end, function() return fs.write("/" .. text, text) end,
    function() return exec { text } end, function() return exec { "cat", "scratch/" .. text } end,
    function() return http.get("https://" .. text .. "@x.invalid/" .. text, { timeout = "2s", retry = false }) end,
    function() return http.get("ftp://" .. text) end,
    function()
      return http.get("https://x.invalid/?token=" .. text, { headers = { [text] = text }, timeout = "2s", retry = false })
    end,
    function() return require(text) end, function() return json.decode("{" .. text) end,
    function() return yaml.decode("a: [" .. text) end, function() return load(text)() end,
    function() return host.event.log { level = text, text = text } end, function() return text.x.y end,
  } do print(select(2, pcall(ask))) end
end)

way("errors", function(cx) error("broken: " .. text_of(cx)) end, function(cx) error("always: " .. text_of(cx)) end)
way("error_values", function(cx) error { code = "failed", message = text_of(cx), hint = text_of(cx) } end)
way("failing_command", function(cx)
  local h = have(cx)
  exec { python, cx.workspace .. "/leak.py", "fail", env = { SECRET = h } }
end)
way("output", function(cx) local text = text_of(cx) return { text = text, [text] = { text, { text } } } end)
way("output_of_a_handle", function(cx) return { deep = { { have(cx) } } } end)
stage "next" { needs = { "output" }, run = function(cx) print("way next", json.encode(cx.needs.output)) end }
way("junit", function(cx)
  leak(cx, "junit", "scratch/results.xml")
  report.junit("scratch/results.xml")
end)
way("timeout", function(cx)
  exec { "sh", "-c", "printf '%s and on ' \"$T\"; sleep 30", env = { T = have(cx) }, timeout = "300ms", check = false }
end)
way("arguments", function(cx)
  if cx.params.control then return end
  local h, text = have(cx), text_of(cx)
  for _, argument in ipairs { h, text, "--token=" .. text } do
    print(select(2, pcall(exec, { "sh", "-c", "sleep 1", argument })))
  end
  exec { "sh", "-c", "ulimit -c; sleep 1", env = { T = h } }
end)

-- Another stage's command, which was given nothing: what it can read, it prints.
local spy = [[
import glob, os
for place in ("environ", "cmdline", "mem", "maps", "fd/0", "task/*/environ", "cwd", "root/proc/self/environ"):
    for path in glob.glob("/proc/[0-9]*/" + place) + glob.glob("/proc/self/" + place):
        try:
            print(path, open(path, "rb").read(1 << 20).replace(b"\0", b" "))
        except OSError as problem:
            pass
for folder in ("/tmp", "/dev/shm", "/dev/mqueue", "/run", "/var/tmp", os.environ.get("HOME", "/")):
    for name in os.listdir(folder) if os.path.isdir(folder) else []:
        print(folder, name)
print(dict(os.environ))
]]
stage "spy" { timeout = "60s", run = function()
  print "way spy"
  for _ = 1, 4 do exec { python, "-c", spy } sleep(0.2) end
end }
