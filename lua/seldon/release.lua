-- New versions beside old ones: canary, A/B, shadow, promotion, rollouts in steps, and the way back.
--
-- No request may fail because of the order of writes:
--   1. A new predictor comes with a weight above 0. Seldon writes routes when the pods are ready; Ambassador takes a weight of
--      0 for none given and splits evenly (seldon-core issue 4067), unless it is that of the first predictor.
--   2. To promote, main gets the canary's spec while both keep their weights: main's old pods serve until the new ones are
--      ready, and the canary goes on serving its part.
--   3. A predictor goes in two writes: first main has all the weight, which is waited for by main alone (the other one may be
--      the one that is broken), then it is removed. With Ambassador, in one: a weight of 0 would be the trap of 1; and with
--      the embedded Seldon, which changes its routes as a whole before any process is ended.
--   4. The way back restores main first (rolling, as 2), while the canary keeps its part, then removes the canary as 3.
-- What was there before a rollout is kept in the history, so that abort finds it after a run that was killed, too.
local history = require "seldon.history"
local rollout = require "seldon.rollout"
local wait = require "seldon.wait"

local release = {}

--- Options of the call itself, and what is left: those of the predictor.
local function split(options, name, what)
  if options ~= nil and type(options) ~= "table" then error(what .. ": a table is needed, not " .. type(options), 3) end
  local spec = rollout.copy(options or {})
  local own = { timeout = spec.timeout, force = spec.force, answers = spec.answers }
  local chosen = spec.name or name
  spec.timeout, spec.force, spec.answers, spec.name = nil, nil, nil, nil
  return spec, own, chosen
end

--- Seldon's object without what the server and others put there.
local NOT_OURS = { [history.LAST_GOOD] = true, ["kubectl.kubernetes.io/last-applied-configuration"] = true }

local function without_null(value)
  if type(value) ~= "table" then return value end
  for key, item in pairs(value) do
    if type(item) == "userdata" then value[key] = nil else without_null(item) end
  end
  return value
end

--- release.clean(live) -> what somebody would have to send to get it
---@private
function release.clean(live)
  local meta, annotations = live.metadata, {}
  for key, value in pairs(meta.annotations or {}) do
    if not NOT_OURS[key] then annotations[key] = value end
  end
  return without_null(rollout.copy {
    apiVersion = live.apiVersion, kind = live.kind, spec = live.spec,
    metadata = {
      name = meta.name, namespace = meta.namespace, labels = meta.labels,
      annotations = next(annotations) and annotations or nil,
    },
  })
end

--- release.sent(deployment) -> what was sent last; of a deployment that others made, what is there
---@private
function release.sent(deployment)
  local cluster, namespace, name = deployment.cluster, deployment.namespace, deployment.name
  local applied = history.read(cluster, namespace, name).applied
  if applied then return applied end
  local live = cluster:get("SeldonDeployment", name, { namespace = namespace })
  if not live then error(("%s/%s is not there"):format(namespace, name), 0) end
  return release.clean(live)
end

--- release.mark(deployment, object, good): a revision that is meant to stay, and the annotation that names the last good one
---@private
function release.mark(deployment, object, good)
  local cluster, revision = deployment.cluster, nil
  history.update(cluster, deployment.object, function(state)
    state.applied = object
    revision = history.add(state, object, good)
    if good then state.rollout = nil end
  end)
  local annotations = deployment.object.metadata.annotations or {}
  if good and annotations[history.LAST_GOOD] ~= tostring(revision.number) then
    deployment.object = cluster:patch("SeldonDeployment", deployment.name, {
      metadata = { annotations = { [history.LAST_GOOD] = tostring(revision.number) } },
    }, { type = "merge", namespace = deployment.namespace })
  end
end

--- Adds what changes a deployment's predictors to its class.
---@param Deployment table
---@param send fun(connection: table, object: table, options: table?): table # applies an object
---@private
function release.extend(Deployment, send)
  --- Sends a changed spec and waits for it. options: timeout, force, answers; only: the one predictor that is waited for;
  --- settled: it is meant to stay; quick: nobody waits.
  local function change(self, object, options)
    local now = send(self.connection, object, options)
    self.object, self.status, self.changed = now.object, now.status, now.changed
    if options.quick then return self end
    local good, err = try(function()
      local current = wait.available(self.cluster, object, {
        timeout = options.timeout, client = self.connection.ingress and self:client() or nil, written = now.written,
        stale = now.stale, only = options.only, answers = options.answers,
      })
      self.object, self.status = current, current.status or {}
      return true
    end)
    if options.settled then release.mark(self, object, good or false) end
    if not good then error(err, 0) end
    return self
  end

  --- Takes a predictor out (3. above). target: what is left; default: the same without it.
  local function leave(self, name, options, target)
    local object = release.sent(self)
    local predictor = rollout.find(object, name)
    local in_steps = predictor and predictor.shadow ~= true and not options.quick and not self.cluster.embedded
      and self.connection.gateway ~= "ambassador"
    if in_steps then
      change(self, rollout.weighted(object, { [name] = 0 }), {
        timeout = options.timeout, force = options.force, answers = options.answers, only = rollout.main(object).name,
      })
    end
    return change(self, target or rollout.without(object, name), {
      timeout = options.timeout, force = options.force, answers = options.answers, settled = true, quick = options.quick,
    })
  end

  --- The way back (4. above).
  local function restore(self, name, original, options)
    local object = release.sent(self)
    local main = rollout.main_of(object, original)
    if not options.quick and rollout.find(object, name) and not history.same(main, object) then
      change(self, main, { timeout = options.timeout, force = options.force, answers = options.answers,
        only = rollout.main(main).name })
    end
    leave(self, name, options, original)
    history.update(self.cluster, self.object, function(state) state.rollout = nil end)
    return self
  end

  --- deployment:canary{ name = "canary", traffic = 10, image | model_uri | graph ..., timeout = "5m", force? } -> itself
  ---
  --- A predictor beside the main one takes a part of the requests; a second call replaces it. Keys as of seldon.deployment.
  function Deployment:canary(options)
    local spec, own, name = split(options, "canary", "deployment:canary")
    return change(self, rollout.with(release.sent(self), name, spec), own)
  end

  --- deployment:ab{ name = "b", traffic = 50, ... } -> itself: a canary that is meant to stay
  function Deployment:ab(options)
    local spec, own, name = split(options, "b", "deployment:ab")
    spec.traffic, own.settled = spec.traffic or 50, true
    return change(self, rollout.with(release.sent(self), name, spec), own)
  end

  --- deployment:shadow{ name = "shadow", traffic?, ... } -> itself: a predictor that gets copies of requests, its answers
  --- dropped; traffic: percent that is mirrored
  function Deployment:shadow(options)
    local spec, own, name = split(options, "shadow", "deployment:shadow")
    spec.shadow = true
    return change(self, rollout.with(release.sent(self), name, spec), own)
  end

  --- deployment:traffic({ canary = 50 }, { timeout?, force? }) -> itself: new weights; the main predictor takes the rest
  function Deployment:traffic(weights, options)
    if type(weights) ~= "table" then error("deployment:traffic: weights by predictor are needed: { canary = 50 }", 2) end
    return change(self, rollout.weighted(release.sent(self), weights), options or {})
  end

  --- deployment:promote(name = "canary", { timeout?, annotations?, replicas?, force? }) -> itself
  ---
  --- The main predictor becomes what the other one is, which goes when main is there. Main keeps its replicas when it has more.
  ---   annotations  table    of the deployment, set with it
  ---   replicas     integer  of main
  function Deployment:promote(name, options)
    options, name = options or {}, name or "canary"
    local object = rollout.replaced(release.sent(self), name, options.replicas)
    local main = rollout.main(object)
    for key, value in pairs(options.annotations or {}) do
      object.metadata.annotations = object.metadata.annotations or {}
      object.metadata.annotations[key] = value
    end
    change(self, object, { timeout = options.timeout, force = options.force, answers = options.answers })
    leave(self, name, options)
    log.info("%s/%s: '%s' is what '%s' was", self.namespace, self.name, main.name, name)
    return self
  end

  --- deployment:abort(name = "canary", { timeout?, force? }) -> itself: the predictor goes, main has all requests. After a
  --- rollout that was cut off, main is again what it was before it.
  function Deployment:abort(name, options)
    name, options = name or "canary", options or {}
    local under_way = history.read(self.cluster, self.namespace, self.name).rollout
    if under_way and under_way.name == name then return restore(self, name, under_way.original, options) end
    return leave(self, name, options)
  end

  --- deployment:rollout{ spec, steps = { 10, 50, 100 }, gate?, annotations?, replicas?, timeout = "5m", name = "canary" }
  ---   -> itself
  ---
  ---   spec         table     of the new version: image, parameters, replicas ... as for seldon.deployment
  ---   steps        integer[] percent of the requests at each step
  ---   gate         function(step, deployment)   called at each step; what it raises takes the new version back
  ---   annotations  table     of the deployment, once the new version is promoted
  ---
  --- However it fails - a gate, a canary that does not start, a promotion, a cancelled run, the stage's deadline - the old
  --- version has all requests again.
  function Deployment:rollout(options)
    if type(options) ~= "table" or type(options.spec) ~= "table" then
      error("deployment:rollout needs spec = { image = ... }: the new version", 2)
    end
    local name, steps = options.name or "canary", options.steps or { 10, 50, 100 }
    local settings = { timeout = options.timeout, force = options.force, answers = options.answers }
    local original = release.sent(self)
    if rollout.find(original, name) then
      error(("%s/%s has a predictor '%s' already: promote it, or abort it"):format(self.namespace, self.name, name), 2)
    end
    history.update(self.cluster, self:refresh().object, function(state)
      state.rollout = { name = name, original = original }
    end)
    local ok, err = try(function()
      for i, step in ipairs(steps) do
        progress(("%s/%s: %s at %d %%"):format(self.namespace, self.name, name, step), i, #steps, "steps")
        local object
        if i == 1 then
          local spec = rollout.copy(options.spec)
          spec.traffic = step
          object = rollout.with(original, name, spec)
        else
          object = rollout.weighted(release.sent(self), { [name] = step })
        end
        change(self, object, settings)
        if options.gate then options.gate(step, self) end
      end
      return self:promote(name, {
        timeout = options.timeout, force = options.force, answers = options.answers, annotations = options.annotations,
        replicas = options.replicas,
      })
    end)
    if ok then return self end
    log.warning("%s/%s: the rollout is taken back: %s", self.namespace, self.name, tostring(err))
    -- A run that is cancelled has little time left: one write, nobody waits.
    settings.quick = err.code == "cancelled"
    local back, why = try(restore, self, name, original, settings)
    if not back and not settings.quick then
      -- it may be the stage's time that was over
      settings.quick = true
      back = try(restore, self, name, original, settings)
    end
    if not back then
      log.error("%s/%s: taking it back failed: %s; deployment:abort('%s') tries again", self.namespace, self.name, tostring(why),
        name)
    end
    error(err, 0)
  end

  --- deployment:history() -> list of { number, time, good, object }, oldest first; good: it had become available
  function Deployment:history() return history.read(self.cluster, self.namespace, self.name).revisions end

  --- deployment:rollback{ timeout?, force? } -> itself: the newest revision that had become available and is not what was sent
  --- last. In the middle of a rollout that is what was there before it.
  function Deployment:rollback(options)
    options = options or {}
    local state = history.read(self.cluster, self.namespace, self.name)
    local before = history.before(state)
    if not before then
      error(("%s/%s has no other revision that was available"):format(self.namespace, self.name), 2)
    end
    log.info("%s/%s: back to revision %d of %s", self.namespace, self.name, before.number, before.time)
    return change(self, before.object, {
      timeout = options.timeout, force = options.force, answers = options.answers, settled = true,
    })
  end
end

return release
