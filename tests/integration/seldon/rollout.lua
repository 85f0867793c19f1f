-- What tests/integration/seldon_rollout.py lets mlhost run: one act at a time, each with its own assertions.
local history = require "seldon.history"
local rollout = require "seldon.rollout"
local registry = require "registry"
local seldon = require "seldon"
local t = require "test"

local IMAGE = "mlhost.local/node:1"

pipeline "rollout" { params = { act = {} }, permissions = { read = { "node" } } }

local function connect() return seldon.connect { namespace = "shop" } end

local function digits() return t.ok(connect():get "digits") end

--- The i-th version, and more for its environment.
local function version(i, env)
  local all = { VERSION = tostring(i) }
  for key, value in pairs(env or {}) do all[key] = value end
  return { image = IMAGE, env = all }
end

local function whole(i, more)
  local options = version(i)
  options.name = "digits"
  for key, value in pairs(more or {}) do options[key] = value end
  return seldon.deployment(options)
end

--- How often which version answers.
local function answers(deployment, count)
  local client, counts = deployment:client(), {}
  for _ = 1, count do
    local by = client:predict({ { 1 } }).meta.tags.version
    counts[by] = (counts[by] or 0) + 1
  end
  return counts
end

local function only(deployment, i) t.eq(answers(deployment, 20), { [tostring(i)] = 20 }) end

local function names(deployment)
  local list = {}
  for i, predictor in ipairs(deployment:predictors()) do list[i] = predictor.name end
  return table.concat(list, " ")
end

local acts = {}

function acts.image() registry.build { context = "node", name = "node", tag = "1" }:push() end

function acts.deploy()
  local s = connect()
  local first = s:deploy(whole(1))
  t.eq(first.changed, true)
  only(first, 1)
  local again = s:deploy(whole(1))
  t.eq({ again.changed, again.object.metadata.generation }, { false, first.object.metadata.generation })
  t.eq(again.object.metadata.annotations, { ["mlhost.io/last-good"] = "1" })
end

-- It is there when deploy returns, not some time after.
function acts.changes()
  local s = connect()
  local scaled = s:deploy(whole(1, { replicas = 2 }))
  t.eq(scaled.changed, true)
  t.eq(#s.cluster:list("Pod", { namespace = "shop", labels = "seldon-deployment-id=digits" }), 2)
  for i = 2, 4 do only(s:deploy(whole(i, { replicas = 2 })), i) end
  local seen
  s:deploy(whole(5, { replicas = 2 }), { smoke = function(deployment) seen = answers(deployment, 3) end })
  t.eq(seen, { ["5"] = 3 })
end

function acts.canary()
  local d = digits()
  local spec = version(6)
  spec.traffic = 20
  d:canary(spec)
  t.eq(names(d), "main canary")
  local counts = answers(d, 100)
  t.ok(counts["6"] >= 10 and counts["6"] <= 30, "20 % of them")
  d:traffic { canary = 60 }
  counts = answers(d, 100)
  t.ok(counts["6"] >= 45 and counts["6"] <= 75, "60 % of them")
  d:promote()
  t.eq(names(d), "main")
  t.eq(d:predictors()[1].replicas, 2)
  only(d, 6)
end

function acts.gates()
  local d, steps = digits(), {}
  d:rollout {
    spec = version(7), steps = { 10, 50, 100 }, annotations = { note = "seven" },
    gate = function(step, deployment)
      steps[#steps + 1] = step
      t.eq(deployment:predictors()[2].traffic, step)
    end,
  }
  t.eq(steps, { 10, 50, 100 })
  t.eq({ names(d), d.object.metadata.annotations.note }, { "main", "seven" })
  only(d, 7)
  local revisions = d:history()
  t.eq({ revisions[#revisions].good, d.object.metadata.annotations["mlhost.io/last-good"] },
    { true, tostring(revisions[#revisions].number) })
end

function acts.failed_gate()
  local d = digits()
  local err = t.raises("latency is 900 ms", function()
    d:rollout { spec = version(8), steps = { 10, 50 }, gate = function(step)
      if step == 50 then error "latency is 900 ms" end
    end }
  end)
  t.holds(err.message, "900")
  t.eq(names(digits()), "main")
  only(d, 7)
end

function acts.crash()
  local d = digits()
  local err = t.raises("CrashLoopBackOff", function() d:rollout { spec = version(9, { CRASH = "3" }), timeout = "1m" } end)
  for _, part in ipairs { "predictor 'canary'", "ended with status 3", "| cannot load the model", "event BackOff" } do
    t.holds(err.message, part)
  end
  t.eq({ err.service, err.code, names(digits()) }, { "seldon", "failed", "main" })
  only(d, 7)
end

function acts.rollback()
  local d = digits()
  d:rollback()
  only(d, 6)
  d:rollback()
  only(d, 7)
end

-- Over an object that does not come up, the next one does: the first one's pods are not held against it.
function acts.broken_deploy()
  local s = connect()
  t.raises("ImagePullBackOff", function() s:deploy(whole(10, { image = "mlhost.local/none:1" }), { timeout = "1m" }) end)
  only(digits(), 7)
  s:deploy(whole(11))
  only(digits(), 11)
  t.raises("CrashLoopBackOff", function()
    s:deploy(whole(12, { env = { VERSION = "12", CRASH = "1" } }), { timeout = "1m" })
  end)
  local d = digits()
  local revisions = d:history()
  t.eq(revisions[#revisions].good, false)
  d:rollback()
  only(d, 11)
end

function acts.shadow()
  local d = digits()
  local spec = version(13)
  spec.traffic = 100
  d:shadow(spec)
  t.eq({ names(d), d:predictors()[2].shadow }, { "main shadow", true })
  only(d, 11)
  d:abort "shadow"
  d:ab(version(14))
  local counts = answers(d, 100)
  t.ok(counts["14"] >= 35 and counts["14"] <= 65, "half of them")
  d:abort "b"
  t.eq(names(d), "main")
  only(d, 11)
end

-- Ends by a signal, in the gate.
function acts.cut_off()
  digits():rollout { spec = version(15), steps = { 30 }, gate = function()
    print "at the gate"
    sleep "1h"
  end }
end

function acts.after_cancel()
  local d = digits()
  t.eq(names(d), "main")
  only(d, 11)
  t.eq(history.read(d.cluster, "shop", "digits").rollout, nil)
end

-- As far as promotion can get before a run is killed: main is the new version already, and nobody has waited for it.
function acts.abandoned()
  local d = digits()
  local original = history.read(d.cluster, "shop", "digits").applied
  history.update(d.cluster, d.object, function(state) state.rollout = { name = "canary", original = original } end)
  d:canary(version(15))
  connect():apply(rollout.replaced(history.read(d.cluster, "shop", "digits").applied, "canary"))
  t.raises("a predictor 'canary' already", function() digits():rollout { spec = version(16) } end)
  d = digits()
  d:abort()
  t.eq(names(d), "main")
  only(d, 11)
  t.eq(history.read(d.cluster, "shop", "digits").rollout, nil)
end

function acts.conflict()
  local s = connect()
  s.cluster:apply(whole(11, { namespace = "shop", replicas = 3 }), { field_manager = "somebody", force = true })
  local err = t.raises("somebody", function() s:deploy(whole(11, { replicas = 1 })) end)
  t.eq(err.code, "conflict")
  local d = s:deploy(whole(11, { replicas = 1 }), { force = true })
  t.eq(d:predictors()[1].replicas, 1)
end

-- What others have made is taken over as it is.
function acts.adopted()
  local s = connect()
  local object = whole(1, { namespace = "shop" })
  object.metadata.name = "theirs"
  object.spec.predictors[1].name = "default"
  s.cluster:create(object)
  local d = t.ok(s:get "theirs")
  d:wait()
  only(d, 1)
  t.eq(t.raises("conflict", function() d:rollout { spec = version(2), steps = { 50 } } end).code, "conflict")
  t.eq(names(s:get "theirs"), "default")
  only(d, 1)
  d:rollout { spec = version(2), steps = { 50 }, force = true }
  t.eq(names(d), "default")
  only(d, 2)
  d:rollback()
  only(d, 1)
  t.eq(#s:list(), 2)
  d:delete()
  t.eq(s:get "theirs", nil)
end

function acts.refused()
  local s = connect()
  local object = whole(1)
  object.spec.predictors[1].graph.name = "other"
  local err = t.raises("needs an implementation", function() s:deploy(object) end)
  t.holds(err.message, "spec.predictors[0].graph")
  t.eq(err.code, "invalid")
end

--- What Core 2's scheduler does: each new generation of an object becomes ready, `count` times.
local function schedule(cluster, kind, name, first, count)
  local done, seen = 0, first
  for event in cluster:watch(kind, { namespace = "shop", name = name, timeout = "30s" }) do
    local generation = event.object.metadata.generation
    if event.type ~= "DELETED" and generation > seen then
      seen, done = generation, done + 1
      local conditions = {}
      for i, condition in ipairs { kind .. "Ready", "Ready" } do
        conditions[i] = { type = condition, status = "True", reason = kind .. "Available",
          lastTransitionTime = ("2026-01-01T00:00:%02dZ"):format(generation) }
      end
      cluster:patch(kind, name, { status = { conditions = conditions, availableReplicas = 1 } },
        { subresource = "status", namespace = "shop" })
      if done == count then return end
    end
  end
  error(kind .. " " .. name .. ": nothing was written")
end

local function both(...)
  return parallel(2, { ... }, function(fn) return fn() end)
end

-- There is no scheduler here: the embedded Seldon says so, and where it is played, its conditions are waited for.
function acts.core2()
  local s = connect()
  local cluster = s.cluster
  local err = t.raises("ScheduleFailed", function()
    s:deploy(seldon.model { name = "iris", uri = "s3://m/1", requirements = { "sklearn" } })
  end)
  t.eq({ err.code, err.service }, { "failed", "seldon" })
  t.holds(err.message, "needs a cluster")
  local function deploy(object, first)
    local out = both(function() return s:deploy(object, { timeout = "30s" }) end,
      function() return schedule(cluster, object.kind, object.metadata.name, first, 1) end)
    return out[1]
  end
  local iris = deploy(seldon.model { name = "iris", uri = "s3://m/2" }, 1)
  t.eq({ iris.changed, iris.status.conditions[2].lastTransitionTime }, { true, "2026-01-01T00:00:02Z" })
  t.eq(s:deploy(seldon.model { name = "iris", uri = "s3://m/2" }).changed, false)
  for _, object in ipairs {
    seldon.model { name = "iris-7", uri = "s3://m/7", memory = "1Mi" },
    seldon.experiment {
      name = "ab", default = "iris", candidates = { { name = "iris", weight = 90 }, { name = "iris-7", weight = 10 } },
    },
  } do
    cluster:apply(object, { namespace = "shop" })
    cluster:wait({ apiVersion = object.apiVersion, kind = object.kind }, object.metadata.name, function(current)
      return current ~= nil and current.status ~= nil
    end, { namespace = "shop" })
  end
  local experiment = t.ok(s:resource("Experiment", "ab"))
  t.raises("did you mean 'iris%-7'", experiment.promote, experiment, "iris-8")
  local out = both(function() return experiment:promote("iris-7", { timeout = "30s" }) end,
    function() return schedule(cluster, "Model", "iris", 2, 1) end)
  t.eq({ out[1].name, out[1].object.spec.storageUri, out[1].object.spec.memory }, { "iris", "s3://m/7", "1Mi" })
  t.eq({ s:resource("Experiment", "ab"), s:resource("Model", "iris-7") }, {})
  t.eq(out[1]:delete(), true)
  t.eq(s:resource("Model", "iris"), nil)
end

function acts.delete()
  local d = digits()
  d:delete()
  t.eq(connect():get "digits", nil)
  t.eq(d.cluster:get("ConfigMap", "digits-mlhost-revisions", { namespace = "shop" }), nil)
  t.eq(d.cluster:list("Pod", { namespace = "shop", labels = "seldon-deployment-id=digits" }), {})
end

stage "act" { timeout = "5m", run = function(cx) acts[cx.params.act]() end }
