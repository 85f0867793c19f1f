--- seldon: models on Seldon, from a few lines: deployed, watched until they answer, rolled out in steps, rolled back.
---
---   local s = seldon.connect { namespace = "prod" }
---   local d = s:deploy(seldon.deployment { name = "digits", image = ref, parameters = { model_version = "7" } })
---   log.info("%s answers %s", d:url(), d:client():predict({ row }).values)
---   d:rollout { spec = { image = new_ref }, steps = { 10, 50, 100 }, gate = function(step, d) ... end }
---   d:rollback()
---
--- Where: the Kubernetes cluster of the module k8s, and the ingress of the profile's `seldon` (SELDON_INGRESS); with the
--- profile `local` both are in the program. Seldon Core 1 (SeldonDeployment) and, by seldon.model and its like, Core 2.
local core2 = require "seldon.core2"
local deployments = require "seldon.deployment"
local history = require "seldon.history"
local host = require "host"
local k8s = require "k8s"
local load = require "seldon.load"
local predict = require "seldon.predict"
local rollout = require "seldon.rollout"
local validate = require "seldon.validate"
local vm = require "vm"
local wait = require "seldon.wait"

local seldon = {
  deployment = deployments.deployment, from_yaml = deployments.from_yaml, client = predict.client, load_test = load.load_test,
  model = core2.model, server = core2.server, pipeline = core2.pipeline, experiment = core2.experiment,
}

local Connection, Deployment, Resource = {}, {}, {}
for _, class in ipairs { Connection, Deployment, Resource } do class.__index = class end

--- seldon.validate(object) -> list of { field, message }: what Seldon would refuse; empty when it is good; and a second list:
--- what it takes, though it is hardly meant
function seldon.validate(object)
  if core2.is(object) then return core2.validate(object) end
  return validate(object)
end

--- seldon.connect{ namespace?, ingress?, gateway?, host?, auth?, cluster? } -> connection
---   namespace  string  default: the profile's, else the cluster's
---   ingress    string  base URL; default: the profile's, SELDON_INGRESS, or the embedded one
---   gateway    string  "istio" or "ambassador"
---   host       string  Host header for the ingress
---   cluster    table   of k8s.connect
function seldon.connect(options)
  options = options or {}
  local cluster = options.cluster or k8s.connect()
  local found, err = try(host.seldon.connect, { endpoint = options.ingress, auth = options.auth })
  if not found and err.code ~= "not_found" then error(err, 0) end
  found = found or {}
  local url = found.url and found.url:gsub("/+$", "")
  return setmetatable({
    cluster = cluster, namespace = options.namespace or found.namespace or cluster.namespace or "default",
    ingress = found.client, url = url, gateway = options.gateway or found.gateway, host = options.host or found.host,
    namespaces = found.namespaces or {},
  }, Connection)
end

local function refuse(object, problems)
  if #problems == 0 then return end
  local lines = {}
  for i, one in ipairs(problems) do lines[i] = ("%s: %s"):format(one.field, one.message) end
  error(vm.new_error {
    service = "seldon", code = "invalid",
    message = ("%s %s: %s"):format(object.kind, object.metadata and object.metadata.name or "?", table.concat(lines, "; ")),
    hint = "Seldon would refuse it, so it was not sent",
  }, 0)
end

local function deployment_of(connection, object, changed)
  return setmetatable({
    connection = connection, cluster = connection.cluster, name = object.metadata.name,
    namespace = object.metadata.namespace or connection.namespace, object = object, status = object.status or {},
    changed = changed,
  }, Deployment)
end

--- What says that two states of an object are the same to us.
local function mark(object)
  if not object then return "" end
  local meta = object.metadata
  local notes = {}
  for key, value in pairs(meta.annotations or {}) do notes[#notes + 1] = key .. "=" .. tostring(value) end
  table.sort(notes)
  return ("%s/%s/%s"):format(meta.uid, meta.generation, table.concat(notes, ";"))
end

--- Applies, remembers what was sent, and tells whether that changed anything.
local function send(connection, object, options)
  local name, namespace = object.metadata.name, object.metadata.namespace or connection.namespace
  object.metadata.namespace = namespace
  local problems, warnings = seldon.validate(object)
  refuse(object, problems)
  for _, one in ipairs(warnings or {}) do log.warning("%s/%s: %s %s", namespace, name, one.field, one.message) end
  local before = connection.cluster:get("SeldonDeployment", name, { namespace = namespace })
  local after = connection.cluster:apply(object, { force = options and options.force, namespace = namespace })
  history.applied(connection.cluster, namespace, name, object)
  return deployment_of(connection, after, mark(before) ~= mark(after))
end

--- connection:apply(object, { force? }) -> deployment: validated and sent, not waited for
function Connection:apply(object, options) return send(self, object, options) end

--- connection:deploy(object, { timeout = "5m", smoke?, force? }) -> deployment, available
---
---   object   of seldon.deployment, seldon.from_yaml, or one of Core 2
---   smoke    function(deployment)  called once it answers; what it raises fails the deployment
---   force    boolean               take fields over that another manager owns
---
--- deployment.changed is false when everything was as it should be. Raises with the pods' reasons and last log lines.
function Connection:deploy(object, options)
  options = options or {}
  if core2.is(object) then return self:deploy_core2(object, options) end
  object = rollout.copy(object)
  local deployment = send(self, object, options)
  local good, err = try(function()
    deployment:wait { timeout = options.timeout, object = object }
    if options.smoke then options.smoke(deployment) end
    return true
  end)
  history.settled(self.cluster, deployment.namespace, deployment.name, object, good or false)
  if not good then error(err, 0) end
  return deployment
end

---@private
function Connection:deploy_core2(object, options)
  refuse(object, core2.validate(object))
  object.metadata.namespace = object.metadata.namespace or self.namespace
  self.cluster:apply(object, { force = options.force, namespace = object.metadata.namespace })
  local current = core2.available(self.cluster, object, options)
  return setmetatable({
    connection = self, cluster = self.cluster, kind = object.kind, name = object.metadata.name,
    namespace = object.metadata.namespace, object = current, status = current.status or {},
  }, Resource)
end

--- connection:get(name) -> deployment, or nil
function Connection:get(name)
  local object = self.cluster:get("SeldonDeployment", name, { namespace = self.namespace })
  return object and deployment_of(self, object, false)
end

--- connection:list() -> list of deployments
function Connection:list()
  local list = {}
  for i, object in ipairs((self.cluster:list("SeldonDeployment", { namespace = self.namespace }))) do
    list[i] = deployment_of(self, object, false)
  end
  return list
end

-- ---- a deployment ----

--- What was sent last; of a deployment that others made, what is there.
local function sent(deployment)
  local applied = history.read(deployment.cluster, deployment.namespace, deployment.name).applied
  if applied then return applied end
  local live = deployment.cluster:get("SeldonDeployment", deployment.name, { namespace = deployment.namespace })
  if not live then error(("%s/%s is not there"):format(deployment.namespace, deployment.name), 0) end
  local meta = live.metadata
  return {
    apiVersion = live.apiVersion, kind = live.kind, spec = live.spec,
    metadata = { name = meta.name, namespace = meta.namespace, annotations = meta.annotations, labels = meta.labels },
  }
end

--- deployment:refresh() -> itself, as it is now
function Deployment:refresh()
  local object = self.cluster:get("SeldonDeployment", self.name, { namespace = self.namespace })
  if not object then error(("%s/%s is not there"):format(self.namespace, self.name), 2) end
  self.object, self.status = object, object.status or {}
  return self
end

--- deployment:wait{ timeout = "5m" } -> itself, once what was applied is available and the ingress answers
function Deployment:wait(options)
  options = options or {}
  local object = wait.available(self.cluster, options.object or sent(self), {
    timeout = options.timeout, client = self.connection.ingress and self:client() or nil,
  })
  self.object, self.status = object, object.status or {}
  return self
end

--- deployment:reasons() -> text: what pods, their last log lines and events say of why it is not available
function Deployment:reasons() return wait.reasons(self.cluster, self.namespace, self.name) end

--- deployment:predictors() -> list of { name, traffic, replicas, shadow, image }
function Deployment:predictors()
  local list = {}
  for i, predictor in ipairs(self.object.spec.predictors) do
    local specs = predictor.componentSpecs and predictor.componentSpecs[1]
    local containers = specs and specs.spec and specs.spec.containers or {}
    list[i] = {
      name = predictor.name, traffic = predictor.traffic, replicas = predictor.replicas or 1, shadow = predictor.shadow or false,
      image = containers[1] and containers[1].image,
    }
  end
  return list
end

--- Sends a changed spec and waits for it; `settled`: it is meant to stay.
local function change(self, object, options, settled)
  local sent_now = send(self.connection, object, options)
  self.object, self.changed = sent_now.object, sent_now.changed
  local good, err = try(self.wait, self, { timeout = options and options.timeout, object = object })
  if settled then history.settled(self.cluster, self.namespace, self.name, object, good and true or false) end
  if not good then error(err, 0) end
  return self
end

--- deployment:canary{ name = "canary", traffic = 10, image | graph ..., timeout? } -> itself: a predictor beside the main one
--- takes a part of the requests; a second call replaces it
function Deployment:canary(options)
  local spec = rollout.copy(options)
  local name, timeout = spec.name or "canary", spec.timeout
  spec.timeout = nil
  return change(self, rollout.with(sent(self), name, spec), { timeout = timeout })
end

--- deployment:ab{ name = "b", traffic = 50, ... } -> itself: a canary that is meant to stay
function Deployment:ab(options)
  local spec = rollout.copy(options)
  local name, timeout = spec.name or "b", spec.timeout
  spec.timeout, spec.traffic = nil, spec.traffic or 50
  return change(self, rollout.with(sent(self), name, spec), { timeout = timeout }, true)
end

--- deployment:shadow{ name = "shadow", traffic?, ... } -> itself: a predictor that gets copies of requests, its answers
--- dropped; traffic: percent that is mirrored
function Deployment:shadow(options)
  local spec = rollout.copy(options)
  local name, timeout = spec.name or "shadow", spec.timeout
  spec.timeout, spec.shadow = nil, true
  return change(self, rollout.with(sent(self), name, spec), { timeout = timeout })
end

--- deployment:traffic{ canary = 50 } -> itself: new weights; the main predictor takes the rest
function Deployment:traffic(weights, options) return change(self, rollout.weighted(sent(self), weights), options) end

--- deployment:promote(name = "canary", { timeout?, annotations? }) -> itself: the main predictor becomes what the canary is,
--- which serves everything until that is done, and goes then
function Deployment:promote(name, options)
  options, name = options or {}, name or "canary"
  local object = rollout.weighted(sent(self), { [name] = 100 })
  change(self, object, options)
  object = rollout.replaced(object, name)
  for key, value in pairs(options.annotations or {}) do
    object.metadata.annotations = object.metadata.annotations or {}
    object.metadata.annotations[key] = value
  end
  change(self, object, options)
  return change(self, rollout.without(object, name), options, true)
end

--- deployment:abort(name = "canary", options?) -> itself: the predictor goes, main takes everything
function Deployment:abort(name, options) return change(self, rollout.without(sent(self), name or "canary"), options) end

--- deployment:rollout{ spec, steps = { 10, 50, 100 }, gate?, annotations?, timeout = "5m", name = "canary" } -> itself
---
---   spec   table     of the new version: image, parameters ... as for seldon.deployment
---   steps  list      percent of the requests at each step
---   gate   function(step, deployment)   called at each step; what it raises takes the new version back
---
--- However it fails - a gate, a canary that does not start, the stage's deadline - the old version has all requests again.
function Deployment:rollout(options)
  local name, steps = options.name or "canary", options.steps or { 10, 50, 100 }
  local settings = { timeout = options.timeout }
  local ok, err = try(function()
    for i, step in ipairs(steps) do
      progress(("%s at %d %%"):format(name, step), i, #steps, "steps")
      if i == 1 then
        local spec = rollout.copy(options.spec)
        spec.traffic = step
        change(self, rollout.with(sent(self), name, spec), settings)
      else
        change(self, rollout.weighted(sent(self), { [name] = step }), settings)
      end
      if options.gate then options.gate(step, self) end
    end
    self:promote(name, { timeout = options.timeout, annotations = options.annotations })
    return true
  end)
  if ok then return self end
  log.warning("%s/%s: the rollout is taken back: %s", self.namespace, self.name, tostring(err))
  local back, why = try(self.abort, self, name, settings)
  if not back then log.error("%s/%s: taking it back failed: %s", self.namespace, self.name, tostring(why)) end
  error(err, 0)
end

--- deployment:history() -> list of { number, time, good, object }, oldest first
function Deployment:history() return history.read(self.cluster, self.namespace, self.name).revisions end

--- deployment:rollback({ timeout? }) -> itself: the last revision before this one that had become available
function Deployment:rollback(options)
  local before = history.before(history.read(self.cluster, self.namespace, self.name))
  if not before then
    error(("%s/%s has no earlier revision that was available"):format(self.namespace, self.name), 2)
  end
  log.info("%s/%s: back to revision %d of %s", self.namespace, self.name, before.number, before.time)
  return change(self, before.object, options, true)
end

--- deployment:delete{ wait = true, timeout? }
function Deployment:delete(options)
  options = options or {}
  local gone = self.cluster:delete("SeldonDeployment", self.name, {
    namespace = self.namespace, wait = options.wait ~= false, timeout = options.timeout, propagation = "Foreground",
  })
  history.forget(self.cluster, self.namespace, self.name)
  return gone
end

local function prefix(self, name) return ("/seldon/%s/%s"):format(self.namespace, name or self.name) end

--- deployment:url() -> address at the ingress; what follows is /api/v1.0/predictions, or /v2/...
function Deployment:url() return (self.connection.url or "") .. prefix(self) end

local function client_at(self, at, options)
  local connection, all = self.connection, {}
  for key, value in pairs(options or {}) do all[key] = value end
  if not connection.ingress then
    error(vm.new_error { service = "seldon", code = "not_found", message = "no ingress is configured",
      hint = "add profiles.<profile>.seldon.ingress to mlhost.yaml, or set SELDON_INGRESS" }, 0)
  end
  all.client, all.prefix, all.url = connection.ingress, at, connection.url
  all.protocol = all.protocol or self.object.spec.protocol
  if connection.host then
    local headers = { Host = connection.host }
    for key, value in pairs(all.headers or {}) do headers[key] = value end
    all.headers = headers
  end
  return predict.client(all)
end

--- deployment:client(options?) -> a client (as of seldon.client) through the ingress
function Deployment:client(options) return client_at(self, prefix(self), options) end

--- deployment:explainer(predictor = "main", options?) -> a client of the predictor's explainer
function Deployment:explainer(predictor, options)
  return client_at(self, prefix(self, self.name .. "-explainer") .. "/" .. (predictor or "main"), options)
end

-- ---- Core 2 ----

--- resource:delete{ wait = true }: of a Model, Server, Pipeline or Experiment
function Resource:delete(options)
  return self.cluster:delete({ apiVersion = self.object.apiVersion, kind = self.kind }, self.name, {
    namespace = self.namespace, wait = not options or options.wait ~= false,
  })
end

local ROUTES = { Model = "%s", Pipeline = "%s.pipeline", Experiment = "%s.experiment" }

--- resource:client(options?) -> a client that speaks v2 through the mesh, told apart by the header Seldon-Model
function Resource:client(options)
  local all, connection = {}, self.connection
  for key, value in pairs(options or {}) do all[key] = value end
  if not ROUTES[self.kind] then error(("a %s answers no requests"):format(self.kind), 2) end
  all.client, all.url, all.protocol, all.model = connection.ingress, connection.url, "v2", all.model or self.name
  all.headers = { ["Seldon-Model"] = ROUTES[self.kind]:format(self.name) }
  if connection.host then all.headers.Host = connection.host end
  for key, value in pairs(options and options.headers or {}) do all.headers[key] = value end
  return predict.client(all)
end

return seldon
