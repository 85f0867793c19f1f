-- What tests/integration/seldon_graph.sh lets mlhost run: models in Lua as the parts of a graph, deployed and asked through
-- the library, and the errors of models that cannot start. One stage after the other, on one daemon.
local registry = require "registry"
local seldon = require "seldon"
local t = require "test"

pipeline "graph" { permissions = { read = { "parts" } } }

local function connect() return seldon.connect { namespace = "parts" } end

local function image() return registry.ensure { context = "parts", name = "part" }.ref end

--- stage, after the one before it
local before
local function act(name, fn)
  stage(name) { needs = before and { before } or nil, timeout = "5m", run = fn }
  before = name
end

act("graph", function()
  local ref = image()
  local function node(name, kind, parameters, children)
    return { name = name, image = ref, type = kind, parameters = parameters, children = children }
  end
  local deployment = connect():deploy(seldon.deployment {
    name = "graph", explainer = { type = "Custom", image = ref },
    graph = node("plus", "transformer", { add = 1 }, {
      node("sum", "combiner", nil, {
        node("pick", "router", nil, { node("double", "model", { times = 2 }), node("triple", "model", { times = 3 }) }),
        node("ten", "model", { times = 10 }),
      }),
    }),
  })
  local client = deployment:client()
  local low, high = client:predict { { 3 } }, client:predict { { 20 } }
  t.eq(low.values, { { (3 + 1) * 2 + (3 + 1) * 10 } })
  t.eq(high.values, { { (20 + 1) * 3 + (20 + 1) * 10 } })
  t.eq({ low.meta.routing.pick, high.meta.routing.pick }, { 0, 1 })
  t.eq({ low.meta.requestPath.triple, high.meta.requestPath.double }, {})
  t.eq(client:predict({ { 3 } }, { kind = "tensor" }).values, { { 48 } })
  local err = t.raises("13 is no number", client.predict, client, { { 12 } })
  t.eq(err.status, 400)

  client:feedback { request = { { 20 } }, response = high, reward = 0.25 }
  local cluster = deployment.cluster
  local pods = cluster:list("Pod", { namespace = "parts", labels = "seldon-deployment-id=graph" })
  local function rewarded(name)
    for _, pod in ipairs(pods) do
      for _, container in ipairs(pod.spec.containers) do
        if container.name == name then
          local text = cluster:logs(pod.metadata.name, { namespace = "parts", container = name })
          return text:find("rewarded with 0.25", 1, true) ~= nil
        end
      end
    end
    error("no container " .. name)
  end
  for _ = 1, 100 do -- what a container writes is read by another process
    if rewarded "triple" and rewarded "pick" then break end
    sleep "100ms"
  end
  t.eq({ rewarded "triple", rewarded "pick", rewarded "double" }, { true, true, false })

  local models = client:metadata().models
  for _, name in ipairs { "plus", "sum", "pick", "double", "triple", "ten" } do t.eq(models[name].platform, "mlhost", name) end
  t.eq(deployment:explainer():explain({ { 5 } }).because, 5)
end)

act("load", function()
  local ref = image()
  local s = connect()
  local deployment = s:deploy(seldon.deployment { name = "versions", image = ref, parameters = { version = "a", times = 2 } })
  deployment:ab({ name = "other", image = ref, parameters = { version = "b", times = 2 } }, 50)
  local got = seldon.load_test {
    client = deployment:client(), data = { { { 1 } }, { { 2 } } }, count = 400, concurrency = 4, group_by = "meta.tags.version",
  }
  t.eq({ got.count, got.errors, got.status }, { 400, 0, { ["200"] = 400 } })
  local a, b = got.groups.a.count, got.groups.b.count
  t.eq(a + b, 400)
  t.ok(a >= 100 and b >= 100, ("split %d to %d"):format(a, b))
  local bad = seldon.load_test { client = deployment:client(), data = { { { 13 } } }, count = 10 }
  t.eq({ bad.errors, bad.status }, { 10, { ["400"] = 10 } })
  local names = {}
  for i, one in ipairs(s:list()) do names[i] = one.name end
  table.sort(names)
  t.eq(names, { "graph", "versions" })
  t.eq(s:get "nobody", nil)
end)

act("errors", function()
  local s, ref = connect(), image()
  local crash = t.raises("crashing will not come: .*CrashLoopBackOff", s.deploy, s,
    seldon.deployment { name = "crashing", image = ref, parameters = { weights = "w.bin" } }, { timeout = "60s" })
  t.match(crash.message, "ended with status %d+")
  t.match(crash.message, "%d+ restarts")
  t.match(crash.message, "  | [^\n]*the weights w.bin are not there")
  local missing = t.raises("missing will not come", s.deploy, s,
    seldon.deployment { name = "missing", image = "mlhost.local/nothing:1" }, { timeout = "60s" })
  t.ok(missing.message:find "ErrImagePull" or missing.message:find "ImagePullBackOff", missing.message)
  t.holds(missing.message, "mlhost.local/nothing:1")
  t.holds(missing.message, "it is not in the local registry")
  for _, name in ipairs { "crashing", "missing", "graph", "versions" } do t.ok(s:get(name):delete {}, name) end
  t.eq(s:list(), {})
end)
