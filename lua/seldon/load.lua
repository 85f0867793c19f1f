--- seldon.load_test: bounded load on a model, measured. Requests are sent and counted outside the VM.
local host = require "host"
local json = require "json"
local _, vm = ...

local M = {}

local OPTIONS = {
  client = "table", data = "table", requests = "table", kind = "string", names = "table", duration = true, count = "number",
  concurrency = "number", rate = "number", timeout = true, group_by = "string", max_reply = "number", max_errors = "number",
  -- of a client that is made here
  url = "string", protocol = "string", model = "string", headers = "table", path_style = "string", auth = "table",
}

local function check(options)
  if type(options) ~= "table" then error("seldon.load_test needs a table", 3) end
  local names = {}
  for name in pairs(OPTIONS) do names[#names + 1] = name end
  for name, value in pairs(options) do
    local wanted = OPTIONS[name]
    if not wanted then
      table.sort(names)
      local near = vm.near(tostring(name), names)
      error(("seldon.load_test: unknown option '%s'%s; there are %s"):format(tostring(name),
        near and (" (did you mean '%s'?)"):format(near) or "", table.concat(names, ", ")), 3)
    end
    if wanted ~= true and type(value) ~= wanted then
      error(("seldon.load_test: %s must be a %s, not a %s"):format(name, wanted, type(value)), 3)
    end
  end
  if not (options.client or options.url) then error('seldon.load_test needs `client` or url = "http://..."', 3) end
  if (options.data == nil) == (options.requests == nil) then
    error("seldon.load_test needs either `data` (payloads, as client:predict takes them) or `requests` (bodies)", 3)
  end
  if #(options.data or options.requests) == 0 then error("seldon.load_test: there is nothing to send", 3) end
  if not (options.duration or options.count) then error("seldon.load_test needs `duration` or `count`", 3) end
end

--- Whole requests for `data`, all to one path with the same headers.
local function of_data(client, options)
  local first, bodies = nil, {}
  for i, data in ipairs(options.data) do
    local request = client:request_for(data, { kind = options.kind, names = options.names })
    first = first or request
    for name, value in pairs(request.headers) do
      if first.headers[name] ~= value then
        error("seldon.load_test: binary payloads must be of one shape and datatype, since one load has one set of headers", 3)
      end
    end
    bodies[i] = request.body
  end
  return first, bodies
end

--- Bodies as they are: texts, or anything else as JSON; path and content type are those of a prediction.
local function of_requests(client, options)
  local bodies = {}
  for i, body in ipairs(options.requests) do bodies[i] = type(body) == "string" and body or json.encode(body) end
  return client:request_for({ { 0 } }, {}), bodies
end

--- load_test{ client | url, data | requests, duration | count, ... } -> result
---
---   client       a client of seldon.client, or deployment:client(); or `url`, `protocol`, `model`, `headers`, `path_style`,
---                `auth` as seldon.client takes them
---   data         list of payloads as client:predict takes them (`kind`, `names` likewise); sent in turn
---   requests     or whole bodies: texts, other values as JSON
---   duration     how long ("10s"), or `count`, how many requests; both: what ends first
---   concurrency  requests under way at once, default 4; each keeps its connection
---   rate         requests per second; latency then counts from when a request was due. Default: as fast as replies come
---   timeout      of one request, default "5s"
---   group_by     where in a JSON reply the group stands: "meta.tags.model_version"; at most 32 groups
---   max_reply    bytes of one reply, default 1 MiB
---   max_errors   end the load after so many
---
--- Result: count, errors, seconds, throughput (per second), status = { ["200"] = n, connect = n, timeout = n, ... },
--- latency = { min, mean, p50, p90, p95, p99, max } in ms of the good replies, groups = { [value] = { count, errors, latency } },
--- first_errors = up to five texts. Failed requests are counted, not raised.
function M.load_test(options)
  check(options)
  local client = options.client or require "seldon.predict".client(options)
  local request, bodies
  if options.data then
    request, bodies = of_data(client, options)
  else
    request, bodies = of_requests(client, options)
  end
  local headers = {}
  for _, some in ipairs { client.headers or {}, request.headers or {} } do
    for name, value in pairs(some) do headers[name] = value end
  end
  return host.seldon.load {
    client = client.client, path = request.path, method = request.method, content_type = request.content_type, headers = headers,
    bodies = bodies, count = options.count, duration = options.duration, concurrency = options.concurrency, rate = options.rate,
    request_timeout = options.timeout, group_by = options.group_by, max_reply = options.max_reply, max_errors = options.max_errors,
  }
end

return M
