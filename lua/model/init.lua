--- model: the entry of a model that `mlhost model FILE.lua` serves, as Seldon's language wrappers do for Python.
---
---   model "digits" {
---     permissions  = { net = { "features.example.com" } },     -- the script's own folder may be read
---     load         = function(cx) return json.decode(fs.read(cx.folder .. "/model.json")) end,
---     predict      = function(self, rows, names, meta) return probabilities, { "t:0", "t:1" } end,
---     class_names  = { "zero", "one" },
---     tags         = function(self) return { model_version = "7" } end,
---   }
---
--- `load` runs once per worker; what it returns is `self` everywhere else. Its cx: folder (the script's), name, parameters
--- (PREDICTIVE_UNIT_PARAMETERS and --parameter, by name and type).
---
--- Each of these is called with self first, and optional:
---   predict(self, x, names, meta) -> y [, names]      x: a list of rows, a text (strData, binData) or any JSON (jsonData)
---   predict_tensors(self, inputs) -> outputs          Open Inference only: lists of { name, datatype, shape, data (flat) }
---   transform_input, transform_output(self, x, names, meta) -> y [, names]
---   route(self, x, names) -> branch                   a whole number from 0; -1: all children
---   aggregate(self, list, names) -> y                 list: the children's x, in order
---   feedback(self, request, response, reward, truth)
---   explain(self, x, names) -> any JSON
---   health(self) -> any JSON                          raises when it is not well
---   metrics(self) -> list of { key, type = "COUNTER" | "GAUGE" | "TIMER" (ms), value }
---   tags(self) -> map, or a map                       goes into meta.tags of every reply
---
--- error(...) in one of them is a reply with status 500; `bad_request(text, ...)` raises one with status 400.
local seldon = require "model.seldon"
local oip = require "model.oip"
local _, vm = ...

local M = {}

local FUNCTIONS = {
  load = true, predict = true, predict_tensors = true, transform_input = true, transform_output = true, route = true,
  aggregate = true, feedback = true, explain = true, health = true, metrics = true,
}
local TABLES = { permissions = true, metadata = true }
local EITHER = { tags = true, class_names = true }

local declared

local function keys()
  local list = {}
  for _, set in ipairs { FUNCTIONS, TABLES, EITHER } do
    for key in pairs(set) do list[#list + 1] = key end
  end
  table.sort(list)
  return list
end

local function take(name, spec)
  local what = ("model '%s'"):format(name)
  if declared then error(what .. ": the file declares another model: " .. declared.name, 3) end
  if type(spec) ~= "table" then error(what .. ": { ... } must follow the name", 3) end
  for key, value in pairs(spec) do
    local kind = type(value)
    local fits = FUNCTIONS[key] and kind == "function" or TABLES[key] and kind == "table"
      or EITHER[key] and (kind == "function" or kind == "table")
    if not (FUNCTIONS[key] or TABLES[key] or EITHER[key]) then
      local near = vm.near(tostring(key), keys())
      local hint = near and (" (did you mean '%s'?)"):format(near) or "; known: " .. table.concat(keys(), ", ")
      error(("%s: unknown key '%s'%s"):format(what, tostring(key), hint), 3)
    elseif not fits then
      error(("%s: %s must not be a %s"):format(what, key, kind), 3)
    end
  end
  declared = { name = name, spec = spec }
end

--- Defines the globals `model` and `bad_request`. `mlhost check` uses it too.
---@private
function M.install()
  declared = nil
  function model(name, spec)
    if type(name) ~= "string" then error('model: a name comes first: model "name" { ... }', 2) end
    if spec ~= nil then return take(name, spec) end
    return function(body) return take(name, body) end
  end

  --- bad_request(format, ...): the request is not what the model takes; the reply has status 400.
  function bad_request(format, ...)
    error(vm.new_error { code = "usage", status = 400, message = format:format(...) }, 0)
  end
end

local function load_script(start)
  M.install()
  local chunk, err = vm.load(start.script.text, "@" .. start.script.name)
  if not chunk then error(err, 0) end
  chunk()
  if not declared then
    error(vm.new_error { code = "invalid", message = start.script.name .. " declares no model",
      hint = 'model "name" { load = function(cx) ... end, predict = function(self, rows) ... end }' }, 0)
  end
end

-- What a path does; {m} stands for a model's name.
local ROUTES = {}
local function route(methods, path, handler)
  local pattern = "^" .. path:gsub("[%-%.]", "%%%0"):gsub("{m}", "([^/]+)") .. "$"
  ROUTES[#ROUTES + 1] = { methods = methods, pattern = pattern, handler = handler }
end

for path, name in pairs {
  ["/predict"] = "predict", ["/api/v1.0/predictions"] = "predict", ["/api/v0.1/predictions"] = "predict",
  ["/transform-input"] = "transform_input", ["/transform-output"] = "transform_output", ["/route"] = "route",
  ["/aggregate"] = "aggregate", ["/send-feedback"] = "feedback", ["/api/v1.0/feedback"] = "feedback",
  ["/api/v0.1/feedback"] = "feedback", ["/explain"] = "explain", ["/api/v1.0/explain"] = "explain",
} do
  route("POST GET", path, seldon[name])
end
for _, path in ipairs { "/metadata", "/api/v1.0/metadata", "/api/v1.0/metadata/{m}" } do route("GET", path, seldon.metadata) end
for _, path in ipairs { "/health/status", "/api/v1.0/health/status", "/api/v1.0/status" } do
  route("GET", path, seldon.health)
end
for _, path in ipairs { "/seldon.json", "/api/v1.0/doc/seldon.json" } do route("GET", path, seldon.openapi) end

route("GET", "/v2", oip.server)
route("GET", "/v2/health/live", oip.live)
route("GET", "/v2/health/ready", oip.ready)
route("POST", "/v2/models/infer", oip.infer)
route("POST", "/v2/repository/index", oip.index)
route("POST", "/v2/repository/models/{m}/load", oip.load)
route("POST", "/v2/repository/models/{m}/unload", oip.unload)
for _, base in ipairs { "/v2/models/{m}", "/v2/models/{m}/versions/{m}" } do
  route("GET", base, oip.metadata)
  route("GET", base .. "/ready", oip.model_ready)
  route("POST", base .. "/infer", oip.infer)
  route("POST", base .. "/generate", oip.infer)
end

-- Exact paths are found at once; the patterns only when there is a model's name in the path.
local exact = {}
for _, one in ipairs(ROUTES) do
  local plain = one.pattern:sub(2, -2):gsub("%%", "")
  if not plain:find("(", 1, true) then exact[plain] = one end
end

local function find(path)
  if #path > 1 and path:sub(-1) == "/" then path = path:sub(1, -2) end
  local one = exact[path]
  if one then return one end
  for _, candidate in ipairs(ROUTES) do
    local name, version = path:match(candidate.pattern)
    if name then return candidate, name, version end
  end
end

local function answer(server, frame)
  local one, name, version = find(frame.path)
  if not one then return seldon.failure(404, "nothing is served at " .. frame.path) end
  if not one.methods:find(frame.method, 1, true) then
    return seldon.failure(405, ("%s takes %s"):format(frame.path, one.methods:gsub(" ", " or ")))
  end
  if frame.encoding and frame.encoding ~= "identity" then
    return seldon.failure(415, "bodies are taken without Content-Encoding")
  end
  return one.handler(server, frame, name, version)
end

--- What failed, for the client and for the log: the script's place stays here.
local function failed(frame, err)
  local status = err.status == 400 and 400 or err.code == "timeout" and 504 or 500
  if status ~= 400 then log.error("%s: %s", frame.path, tostring(err)) end
  local text = err.message or tostring(err)
  if frame.path:sub(1, 4) == "/v2/" then return oip.failure(status, text) end
  return seldon.failure(status, text)
end

local function respond(server, frame)
  local ok, reply = xpcall(answer, vm.handler, server, frame)
  if not ok then
    reply = failed(frame, type(reply) == "table" and reply or { message = tostring(reply) })
  end
  reply.t, reply.id = "response", frame.id
  local sent, err = pcall(vm.emit, reply)
  if sent then return end
  reply = failed(frame, err)
  reply.t, reply.id = "response", frame.id
  vm.emit(reply)
end

local function serve(start)
  local context, spec = start.context, declared.spec
  local server = {
    spec = spec, name = context.name ~= "" and context.name or declared.name, image = context.image or "",
    version = spec.metadata and spec.metadata.versions and tostring(spec.metadata.versions[1]) or nil,
    declared_metadata = context.metadata, program = context.program,
  }
  local cx = { folder = start.script.folder, name = server.name, parameters = context.parameters or {} }
  server.self = spec.load and spec.load(cx) or {}
  vm.emit { t = "loaded" }
  vm.serve(function(frame) respond(server, frame) end)
end

---@private
function M.model(start)
  load_script(start)
  if start.context.phase == "declare" then
    return { value = { name = declared.name, permissions = declared.spec.permissions or {} } }
  end
  return serve(start)
end

return M
