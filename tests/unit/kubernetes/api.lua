-- Calls of the API over a real store: what the official clients do not send (tests/integration/serve_kubernetes.py has
-- what they do).
local json = require "json"
local service = (require "local.kubernetes")({})

local function call(method, path, body, headers)
  local at, text = path:match("^([^?]*)%??(.*)$")
  local query, list = {}, {}
  for name, value in text:gmatch("([^&=]+)=([^&]*)") do
    query[name] = query[name] or value
    list[name] = list[name] or {}
    table.insert(list[name], value)
  end
  local response = service.handle({ method = method, path = at, query = query, list = list, headers = headers or {},
    origin = "http://127.0.0.1:1", body = type(body) == "table" and json.encode(body) or body or "" })
  return response.status, json.decode(response.body)
end

local function expect(status, reason, ...)
  local got, body = call(...)
  assert(got == status and (body.reason == reason or not reason), json.encode(body))
  return body
end

local MAPS = "/api/v1/namespaces/n/configmaps"
local merge = { ["content-type"] = "application/merge-patch+json" }
local apply = { ["content-type"] = "application/apply-patch+yaml" }

return {
  { "what is missing is filled in", function()
    local made = expect(201, nil, "POST", MAPS, { metadata = { name = "a", labels = json.null }, data = { k = "v" } })
    assert(made.kind == "ConfigMap" and made.apiVersion == "v1" and made.metadata.namespace == "n", json.encode(made))
    expect(200, nil, "GET", "/api/v1/namespaces/n")
    expect(404, "NotFound", "GET", "/api/v1/namespaces/unused")
    local port = expect(201, nil, "POST", "/api/v1/namespaces/n/services",
      { metadata = { name = "s" }, spec = { ports = json.array({ { port = 80 } }) } }).spec.ports[1]
    assert(port.protocol == "TCP" and port.targetPort == 80)
    local secret = expect(201, nil, "POST", "/api/v1/namespaces/n/secrets",
      { metadata = { name = "s" }, stringData = { a = "", b = "M", c = "Ma", d = "Man" } })
    assert(json.encode(secret.data) == '{"a":"","b":"TQ==","c":"TWE=","d":"TWFu"}', json.encode(secret.data))
  end },
  { "names and versions that do not fit", function()
    expect(400, "BadRequest", "PUT", MAPS .. "/a", { metadata = { name = "b" } })
    expect(400, "BadRequest", "PUT", MAPS .. "/a", { apiVersion = "v2" })
    expect(400, "BadRequest", "POST", MAPS, { metadata = { name = "x", resourceVersion = "1" } })
    expect(404, "NotFound", "PUT", MAPS .. "/nobody", {})
    expect(409, "Conflict", "PUT", MAPS .. "/a", { metadata = { uid = "other" } })
    expect(422, "Invalid", "POST", MAPS, { metadata = {} })
    for _, name in ipairs { "UPPER", "-a", "a-", "a..b", ("x"):rep(254) } do
      expect(422, "Invalid", "POST", MAPS, { metadata = { name = name } })
    end
    expect(422, "Invalid", "POST", "/api/v1/namespaces", { metadata = { name = "a.b" } })
    expect(422, "Invalid", "POST", MAPS, { metadata = { name = "l", labels = { a = "no spaces" } } })
    expect(422, "Invalid", "POST", MAPS, { metadata = { name = "l", annotations = { ["/a"] = "" } } })
    expect(404, "NotFound", "GET", "/api/v1/configmaps/a")
    expect(404, "NotFound", "GET", "/api/v1/namespaces/n/namespaces/a")
    expect(404, "NotFound", "GET", MAPS .. "/a/status")
    expect(404, "NotFound", "GET", "/apis/none/v1")
    expect(405, "MethodNotAllowed", "POST", "/apis")
  end },
  { "what the server keeps cannot be written", function()
    local before = expect(200, nil, "GET", MAPS .. "/a")
    local after = expect(200, nil, "PATCH", MAPS .. "/a", { metadata = { creationTimestamp = "2000-01-01T00:00:00Z",
      generation = 7, deletionTimestamp = "2000-01-01T00:00:00Z" }, data = { n = "1" } }, merge)
    assert(after.metadata.creationTimestamp == before.metadata.creationTimestamp and not after.metadata.generation
      and not after.metadata.deletionTimestamp, json.encode(after))
  end },
  { "dry runs change nothing", function()
    expect(201, nil, "POST", MAPS .. "?dryRun=All", { metadata = { name = "dry" } })
    expect(404, "NotFound", "GET", MAPS .. "/dry")
    local dry = expect(200, nil, "PATCH", MAPS .. "/a?dryRun=All", { data = { k = "dry" } }, merge)
    assert(dry.data.k == "dry")
    assert(expect(200, nil, "GET", MAPS .. "/a").data.k == "v")
    expect(200, nil, "DELETE", MAPS .. "/a", { dryRun = json.array({ "All" }) })
    expect(400, "BadRequest", "DELETE", MAPS .. "/a?dryRun=maybe")
    expect(200, nil, "GET", MAPS .. "/a")
    expect(400, "BadRequest", "DELETE", MAPS .. "/a?propagationPolicy=Sideways")
  end },
  { "apply", function()
    local body = { metadata = { name = "ssa" }, data = { k = "v" } }
    expect(400, "BadRequest", "PATCH", MAPS .. "/ssa", body, apply)
    local made = expect(201, nil, "PATCH", MAPS .. "/ssa?fieldManager=m", body, apply)
    local again = expect(200, nil, "PATCH", MAPS .. "/ssa?fieldManager=m", "metadata: {name: ssa}\ndata: {k: v}\n", apply)
    assert(json.encode(made) == json.encode(again))
    expect(400, "BadRequest", "PATCH", MAPS .. "/ssa?fieldManager=m", "a: [", apply)
    expect(400, "BadRequest", "PATCH", MAPS .. "/ssa?fieldManager=m", "a: 1\n---\nb: 1\n", apply)
    expect(409, "Conflict", "PATCH", MAPS .. "/new?fieldManager=m", { metadata = { uid = "x" } }, apply)
    expect(404, "NotFound", "PATCH", "/apis/apps/v1/namespaces/n/deployments/none/status?fieldManager=m", {}, apply)
  end },
}
