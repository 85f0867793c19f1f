--- seldon.client: a client of one deployed model: predictions, feedback, explanations, metadata.
local host = require "host"
local json = require "json"
local message = require "seldon.message"
local oip = require "seldon.oip"
local _, vm = ...

local M = {}

local Client = {}
Client.__index = Client

local PROTOCOLS = { seldon = true, v2 = true, tensorflow = true }
local PATHS = {
  ingress = { predict = "/api/v1.0/predictions", feedback = "/api/v1.0/feedback", explain = "/api/v1.0/explain",
    metadata = "/api/v1.0/metadata", ready = "/api/v1.0/health/status", live = "/api/v1.0/health/status" },
  microservice = { predict = "/predict", feedback = "/send-feedback", explain = "/explain", metadata = "/metadata",
    ready = "/health/status", live = "/health/ping" },
}

--- M.client{ url | service | client + prefix, protocol?, model?, headers?, path_style?, auth?, timeout? } -> client
---
---   url         string  "http://127.0.0.1:9000", or the ingress's "https://host/seldon/ns/name"
---   service     table   of cluster:service(name, { port? }): through the proxy of the Kubernetes API, as the cluster's user
---   protocol    string  "seldon" (default), "v2", "tensorflow"
---   model       string  name in v2 paths; default: none, which Seldon's executor and mlhost take
---   path_style  string  "ingress" (default: /api/v1.0/...) or "microservice" (/predict ...)
---   headers     table   sent with each request
---   auth        table   as in connect of any service
---   timeout     duration of one request, default 30s
function M.client(options)
  if type(options) ~= "table" or not (options.url or options.client or options.service) then
    error('seldon.client needs url = "http://...", or service = cluster:service(name, { port = 8000 })', 2)
  end
  local protocol, style = options.protocol or "seldon", options.path_style or "ingress"
  if protocol == "kfserving" then protocol = "v2" end
  if not PROTOCOLS[protocol] then
    error(("seldon.client: unknown protocol '%s'; there are seldon, v2, tensorflow"):format(tostring(protocol)), 2)
  end
  if not PATHS[style] then error('seldon.client: path_style is "ingress" or "microservice"', 2) end
  local handle, prefix, url = options.client, options.prefix or "", options.url
  if options.service then
    local service = options.service
    handle, prefix, url = service.cluster.client, service.url_path, service.cluster.url
  elseif not handle then
    local found = host.seldon.connect { endpoint = options.url, auth = options.auth }
    handle, url = found.client, found.url
  end
  return setmetatable({
    client = handle, prefix = prefix, url = url and (url:gsub("/+$", "")),
    protocol = protocol, model = options.model, style = style, headers = options.headers or {}, timeout = options.timeout or "30s",
  }, Client)
end

local function lower(headers)
  local out = {}
  for key, value in pairs(headers or {}) do out[key:lower()] = value end
  return out
end

--- One request; nothing is raised for an HTTP status.
local function send(self, method, path, body, headers)
  local all = {}
  for key, value in pairs(self.headers) do all[key] = value end
  for key, value in pairs(headers or {}) do all[key] = value end
  local content_type = all["Content-Type"]
  all["Content-Type"] = nil
  local reply = host.seldon.request {
    client = self.client, method = method, path = self.prefix .. path, headers = all, body = body,
    content_type = content_type, timeout = self.timeout,
  }
  reply.headers = lower(reply.headers)
  return reply
end

local HINTS = {
  [404] = "is the deployment there, and its route? deployment:wait() and `mlhost serve --status` tell",
  [503] = "no replica is ready; deployment:reasons() tells why",
}

local function fail(self, what, status, text)
  error(vm.new_error {
    service = "seldon", code = status == 404 and "not_found" or status == 401 and "unauthorized" or status == 403 and "forbidden"
      or status >= 500 and "unavailable" or "invalid",
    status = status, message = ("%s %s%s: %s"):format(what, self.url or "", self.prefix, text), hint = HINTS[status],
  }, 0)
end

local function decoded(reply)
  local ok, body = pcall(json.decode, reply.body)
  return ok and body or reply.body
end

local function call(self, what, method, path, body)
  local reply = send(self, method, path, body and json.encode(body) or nil, body and { ["Content-Type"] = "application/json" })
  local told = decoded(reply)
  local failure = message.failure(reply.status, told)
  if not failure and type(told) ~= "table" and told ~= "" then failure = "the reply is no JSON: " .. tostring(told):sub(1, 200) end
  if failure then fail(self, what, reply.status, failure) end
  return told
end

local function v2_path(self, rest)
  if self.model then return "/v2/models/" .. self.model .. rest end
  return "/v2/models" .. rest
end

--- client:request_for(data, options?) -> { method, path, body, content_type, headers }: the request that predict would send
function Client:request_for(data, options)
  if self.protocol == "v2" then
    local body, headers = oip.encode(data, options)
    local content_type = headers["Content-Type"]
    headers["Content-Type"] = nil
    return { method = "POST", path = self.prefix .. v2_path(self, "/infer"), body = body, content_type = content_type,
      headers = headers }
  end
  local path, body
  if self.protocol == "tensorflow" then
    path = ("/v1/models/%s:predict"):format(self.model or "model")
    body = { instances = vm.array(data), signature_name = options and options.signature }
  else
    path, body = PATHS[self.style].predict, message.encode(data, options)
  end
  return { method = "POST", path = self.prefix .. path, body = json.encode(body), content_type = "application/json", headers = {} }
end

--- client:predict(data, options?) -> { values, names, shape, meta, raw }
---
---   data     rows (nested lists), text or any JSON; over v2 also a list of inputs { name, datatype?, shape?, data }
---   kind     "ndarray", "tensor", "tftensor", "strData", "binData", "jsonData" (Seldon's protocol)
---   names, meta   of the message
---   id, outputs, binary, parameters   over v2: outputs by name, tensors in binary form
---
--- Raises when the status of HTTP or that of the message is a failure.
function Client:predict(data, options)
  local request = self:request_for(data, options)
  request.headers["Content-Type"] = request.content_type
  local reply = send(self, "POST", request.path:sub(#self.prefix + 1), request.body, request.headers)
  if self.protocol == "v2" and reply.status == 200 then return oip.decode(reply.body, reply.headers) end
  local told = decoded(reply)
  local failure = message.failure(reply.status, told)
  if failure then fail(self, "predict", reply.status, failure) end
  if self.protocol == "tensorflow" then return { values = told.predictions or told.outputs, meta = {}, names = {}, raw = told } end
  return message.decode(told)
end

--- client:feedback{ request, response?, reward?, truth? }: messages as predict takes and gives them (values, or its result)
function Client:feedback(options)
  local function part(value)
    if value == nil then return nil end
    if type(value) == "table" and value.raw then return value.raw end
    return message.encode(value)
  end
  local path = self.protocol == "v2" and self.style == "ingress" and "/api/v1.0/feedback" or PATHS[self.style].feedback
  return call(self, "feedback", "POST", path, {
    request = part(options.request), response = part(options.response), reward = options.reward, truth = part(options.truth),
  })
end

--- client:explain(data, options?) -> what the explainer says; of a deployment use deployment:explainer()
function Client:explain(data, options)
  if self.protocol == "v2" then
    return call(self, "explain", "POST", v2_path(self, "/explain"), json.decode((oip.encode(data, options))))
  end
  return call(self, "explain", "POST", PATHS[self.style].explain, message.encode(data, options))
end

--- client:metadata() -> what the model, or the graph, says of itself
function Client:metadata()
  if self.protocol == "v2" then return call(self, "metadata", "GET", v2_path(self, "")) end
  return call(self, "metadata", "GET", PATHS[self.style].metadata)
end

--- client:ready() -> true; raises when it is not: over v2 the model, where one is named, else the server
function Client:ready()
  local v2 = self.model and v2_path(self, "/ready") or "/v2/health/ready"
  call(self, "ready", "GET", self.protocol == "v2" and v2 or PATHS[self.style].ready)
  return true
end

--- client:live() -> true; raises when the server does not say that it is up
function Client:live()
  local reply = send(self, "GET", self.protocol == "v2" and "/v2/health/live" or PATHS[self.style].live)
  if reply.status ~= 200 then fail(self, "live", reply.status, tostring(reply.body):sub(1, 200)) end
  return true
end

return M
