-- The Seldon microservice API (v1): SeldonMessage in, SeldonMessage out.
-- https://docs.seldon.io/projects/seldon-core/en/latest/reference/apis/internal-api.html; the forms of bodies, the choice of
-- the answer's data and the errors are those of the Python wrapper.
local base64 = require "model.base64"
local json = require "json"
local tensor = require "model.tensor"
local tftensor = require "model.tftensor"
local _, vm = ...

local seldon = {}

local function bad(format, ...)
  error(vm.new_error { code = "usage", status = 400, message = format:format(...) }, 0)
end

local REASONS = { [400] = "MICROSERVICE_BAD_DATA" }

--- The wrapper's form of an error.
function seldon.failure(status, text)
  return {
    status = status, type = "application/json",
    body = json.encode { status = {
      status = 1, info = text, code = -1, reason = REASONS[status] or "MICROSERVICE_INTERNAL_ERROR",
    } },
  }
end

-- ---- reading ----

local function decode(text, what)
  local ok, value = pcall(json.decode, text)
  if not ok then bad("%s is not JSON: %s", what, type(value) == "table" and value.message or tostring(value)) end
  return value
end

local function percent_decoded(text)
  return (text:gsub("+", " "):gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

local DATA_KEYS = { "data", "meta", "status", "binData", "strData", "jsonData", "customData" }

--- multipart/form-data: the keys of a SeldonMessage; files for strData and binData, JSON for the others.
local function multipart(body, content_type)
  local boundary = content_type:match 'boundary="([^"]+)"' or content_type:match "boundary=([^;%s]+)"
  if not boundary then bad "multipart/form-data without a boundary" end
  local message, mark, at = {}, "--" .. boundary, 1
  while true do
    local _, start = body:find(mark, at, true)
    if not start or body:sub(start + 1, start + 2) == "--" then break end
    local headers_end = body:find("\r\n\r\n", start, true)
    local stop = headers_end and body:find("\r\n" .. mark, headers_end, true)
    if not stop then bad "multipart/form-data that ends in the middle of a part" end
    local headers = body:sub(start + 1, headers_end)
    local name = headers:match '[; ]name="([^"]*)"'
    local content = body:sub(headers_end + 4, stop - 1)
    if name == "binData" then
      message.binData = base64.encode(content)
    elseif name == "strData" then
      message.strData = content
    elseif name then
      message[name] = decode(content, "the part " .. name)
    end
    at = stop
  end
  return message
end

--- The request's JSON, in any of the forms that the wrapper takes.
local function body_of(frame)
  local kind = (frame.type or ""):lower()
  if kind:find("multipart/form-data", 1, true) then return multipart(frame.body, frame.type) end
  if kind:find("application/x-www-form-urlencoded", 1, true) then
    for pair in frame.body:gmatch "[^&]+" do
      local key, value = pair:match "^([^=]*)=(.*)$"
      if key == "json" then return decode(percent_decoded(value), "the field json") end
    end
    -- curl -d without a content type sends JSON under this name
    if frame.body:match "^%s*[%[{]" then return decode(frame.body, "the body") end
    bad "the form has no field json"
  end
  if frame.json and frame.body == "" then return decode(frame.json, "the argument json") end
  if frame.body == "" then bad "the request has no body: a SeldonMessage is needed" end
  return decode(frame.body, "the body")
end

local function message_of(frame)
  local message = body_of(frame)
  if type(message) ~= "table" or tensor.is_list(message) and next(message) ~= nil then
    bad "a SeldonMessage is a JSON object with one of data, strData, binData, jsonData"
  end
  return message
end

--- What a message carries: x, the kind of its data, the names.
local function content(message)
  local data = message.data
  if type(data) == "table" then
    if data.ndarray ~= nil then return data.ndarray, "ndarray", data.names end
    if type(data.tensor) == "table" then
      local shape, values = data.tensor.shape or {}, data.tensor.values or {}
      if not tensor.is_list(values) then bad "data.tensor: values is no list" end
      local x, err = tensor.nest(values, shape)
      if not x then bad("data.tensor: %s", err) end
      return x, "tensor", data.names
    end
    if type(data.tftensor) == "table" then
      local values, shape = tftensor.decode(data.tftensor)
      if not values then bad("data.tftensor: %s", shape) end
      return tensor.nest(values, shape), "tftensor", data.names
    end
    bad "data holds none of ndarray, tensor, tftensor"
  end
  if message.strData ~= nil then return message.strData, "strData" end
  if message.binData ~= nil then
    local bytes = type(message.binData) == "string" and base64.decode(message.binData)
    if not bytes then bad "binData is not base64" end
    return bytes, "binData"
  end
  if message.jsonData ~= nil then return message.jsonData, "jsonData" end
  if message.customData ~= nil then return message.customData, "customData" end
  bad("a SeldonMessage holds one of %s", table.concat(DATA_KEYS, ", "))
end

-- ---- writing ----

local function class_names(server, y)
  local names = server.spec.class_names
  if type(names) == "function" then names = names(server.self) end
  if names then return names end
  local columns = type(y) == "table" and type(y[1]) == "table" and #y[1] or nil
  if not columns then return {} end
  local list = {}
  for i = 1, columns do list[i] = "t:" .. (i - 1) end
  return list
end

--- Puts y into a message, in the kind of data that the request had where that can hold it.
local function put(message, server, y, kind, names)
  if type(y) == "string" then
    if kind == "binData" then message.binData = base64.encode(y) else message.strData = y end
  elseif tensor.is_list(y) and kind ~= "jsonData" then
    local data = { names = vm.array(names or class_names(server, y)) }
    local numeric = tensor.numeric(y)
    if numeric and (kind == "tensor" or kind == "tftensor" or kind == "strData" or kind == "binData") then
      local values, shape = tensor.flatten(y)
      if not values then error("the model's answer is ragged: its rows are of different lengths", 0) end
      if kind == "tftensor" then
        data.tftensor = tftensor.encode(values, shape)
      else
        data.tensor = { shape = vm.array(shape), values = vm.array(values) }
      end
    else
      data.ndarray = vm.array(y)
    end
    message.data = data
  else
    message.jsonData = y
  end
end

--- What a client sent as a map: entries without a name are none.
local function copy_named(from, to)
  for key, value in pairs(type(from) == "table" and from or {}) do
    if type(key) == "string" then to[key] = value end
  end
  return to
end

--- meta of a reply: the request's puid and tags, ours, the path it went.
local function meta_of(server, request)
  local spec, meta = server.spec, { tags = {}, metrics = nil }
  local given = type(request.meta) == "table" and request.meta or {}
  copy_named(given.tags, meta.tags)
  local tags = spec.tags
  if type(tags) == "function" then tags = tags(server.self) end
  for key, value in pairs(tags or {}) do meta.tags[key] = value end
  meta.puid = given.puid
  meta.routing = given.routing
  meta.requestPath = copy_named(given.requestPath, {})
  meta.requestPath[server.name] = server.image
  local metrics = spec.metrics and spec.metrics(server.self)
  if metrics and #metrics > 0 then meta.metrics = vm.array(metrics) end
  return meta
end

local function reply(message)
  return { status = 200, type = "application/json", body = json.encode(message),
    metrics = message.meta and message.meta.metrics }
end

--- Calls one of the script's functions with what a message carries.
local function through(server, frame, fn)
  local request = message_of(frame)
  local x, kind, names = content(request)
  local meta_in = type(request.meta) == "table" and request.meta or {}
  local y, out_names = x, names
  if fn then
    y, out_names = fn(server.self, x, names or {}, meta_in)
    if y == nil then error("the model's function returned nothing", 0) end
  end
  local message = { meta = meta_of(server, request) }
  put(message, server, y, kind, out_names)
  return reply(message)
end

-- ---- the calls ----

local function need(server, name)
  return server.spec[name] or error(vm.new_error {
    code = "usage", status = 400, message = ("the model has no function %s"):format(name),
  }, 0)
end

function seldon.predict(server, frame) return through(server, frame, need(server, "predict")) end
-- Without a function of its own a transformer passes on what it got, as the wrapper does.
function seldon.transform_input(server, frame) return through(server, frame, server.spec.transform_input) end
function seldon.transform_output(server, frame) return through(server, frame, server.spec.transform_output) end

function seldon.route(server, frame)
  local request = message_of(frame)
  local x, _, names = content(request)
  local branch = need(server, "route")(server.self, x, names or {})
  if math.type(branch) == "float" then branch = math.tointeger(branch) end
  if math.type(branch) ~= "integer" then error("route must return a whole number: the index of a child, or -1 for all", 0) end
  local meta = meta_of(server, request)
  return reply { meta = meta, data = { ndarray = vm.array { vm.array { branch } }, names = vm.array {} } }
end

function seldon.aggregate(server, frame)
  local body = body_of(frame)
  local messages = type(body) == "table" and (body.seldonMessages or body) or {}
  if not tensor.is_list(messages) or #messages == 0 then bad "a list of SeldonMessages is needed" end
  local list, names, kind, merged = {}, nil, nil, { meta = { tags = {}, requestPath = {} } }
  for i, message in ipairs(messages) do
    local x, own_kind, own_names = content(message)
    list[i], kind, names = x, kind or own_kind, names or own_names
    local meta = type(message.meta) == "table" and message.meta or {}
    merged.meta.puid = merged.meta.puid or meta.puid
    for _, key in ipairs { "tags", "requestPath" } do
      copy_named(meta[key], merged.meta[key])
    end
  end
  local y, out_names = need(server, "aggregate")(server.self, list, names or {})
  local message = { meta = meta_of(server, merged) }
  put(message, server, y, kind, out_names)
  return reply(message)
end

--- A part of a feedback, or nothing when it is not there.
local function optional_content(message)
  if type(message) ~= "table" or next(message) == nil then return nil end
  return (content(message))
end

function seldon.feedback(server, frame)
  local body = message_of(frame)
  local fn = server.spec.feedback
  local reward = body.reward
  if reward ~= nil and type(reward) ~= "number" then bad("reward is a number, not a %s", type(reward)) end
  if fn then
    fn(server.self, optional_content(body.request), optional_content(body.response), reward, optional_content(body.truth))
  end
  return reply { meta = meta_of(server, type(body.request) == "table" and body.request or {}) }
end

function seldon.explain(server, frame)
  local request = message_of(frame)
  local x, _, names = content(request)
  return { status = 200, type = "application/json", body = json.encode(need(server, "explain")(server.self, x, names or {})) }
end

function seldon.metadata(server)
  local meta = { name = server.name, platform = "mlhost", versions = vm.array {}, inputs = vm.array {}, outputs = vm.array {} }
  for _, source in ipairs { server.spec.metadata or {}, server.declared_metadata or {} } do
    for key, value in pairs(source) do meta[key] = value end
  end
  return { status = 200, type = "application/json", body = json.encode(meta) }
end

function seldon.health(server)
  local told = server.spec.health and server.spec.health(server.self)
  local message = { meta = meta_of(server, {}) }
  if told ~= nil then put(message, server, told, "ndarray", {}) else message.strData = "ok" end
  return reply(message)
end

local CALLS = {
  ["/predict"] = "SeldonMessage", ["/transform-input"] = "SeldonMessage", ["/transform-output"] = "SeldonMessage",
  ["/route"] = "SeldonMessage", ["/aggregate"] = "SeldonMessageList", ["/send-feedback"] = "Feedback",
  ["/api/v1.0/predictions"] = "SeldonMessage", ["/api/v1.0/feedback"] = "Feedback",
}

function seldon.openapi(server)
  local paths = {}
  local function any(description)
    return { description = description, content = { ["application/json"] = { schema = { type = "object" } } } }
  end
  for path, takes in pairs(CALLS) do
    local body = any(takes)
    body.required = true
    paths[path] = { post = { requestBody = body, responses = { ["200"] = any "SeldonMessage" } } }
  end
  return { status = 200, type = "application/json", body = json.encode {
    openapi = "3.0.0", info = { title = server.name, version = "1.0" }, paths = paths,
  } }
end

seldon.bad = bad
seldon.decode = decode
seldon.class_names = class_names
seldon.meta_of = meta_of

return seldon
