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
local json = require "json"
local k8s = require "k8s"
local load = require "seldon.load"
local predict = require "seldon.predict"
local release = require "seldon.release"
local rollout = require "seldon.rollout"
local time = require "time"
local validate = require "seldon.validate"
local _, vm = ...
local wait = require "seldon.wait"
local wanted = require "seldon.wanted"

local seldon = {
  deployment = deployments.deployment, from_yaml = deployments.from_yaml, client = predict.client, load_test = load.load_test,
  model = core2.model, server = core2.server, pipeline = core2.pipeline, experiment = core2.experiment,
}

local Connection, Deployment = {}, {}
for _, class in ipairs { Connection, Deployment } do class.__index = class end

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
  return ("%s/%s/%s%s"):format(meta.uid, meta.generation, json.encode(meta.annotations or {}), json.encode(meta.labels or {}))
end

--- The Deployments of predictors whose pods a write has changed, and their generations: they are of the spec before until the
--- operator has been at them.
local function touched(before, after, there)
  local changed, stale = {}, {}
  for _, predictor in ipairs(after.spec.predictors) do
    local old = rollout.find(before, predictor.name)
    changed[predictor.name] = old ~= nil and not history.same(old.componentSpecs or {}, predictor.componentSpecs or {})
  end
  for _, deployment in ipairs(there) do
    if changed[wanted.owner(after, deployment)] then stale[deployment.metadata.name] = deployment.metadata.generation end
  end
  return stale
end

--- Applies, remembers what was sent, and tells whether that changed anything. What others had made is kept as a revision.
local function send(connection, object, options)
  local name, namespace = object.metadata.name, object.metadata.namespace or connection.namespace
  local cluster = connection.cluster
  object.metadata.namespace = namespace
  local problems, warnings = seldon.validate(object)
  refuse(object, problems)
  for _, one in ipairs(warnings or {}) do log.warning("%s/%s: %s %s", namespace, name, one.field, one.message) end
  local before = cluster:get("SeldonDeployment", name, { namespace = namespace })
  local there = before and cluster:list("Deployment", { namespace = namespace, labels = "seldon-deployment-id=" .. name })
  local after = cluster:apply(object, { force = options and options.force, namespace = namespace })
  history.update(cluster, after, function(state)
    if before and not state.applied then
      history.add(state, release.clean(before), before.status ~= nil and before.status.state == "Available")
    end
    state.applied = object
  end)
  local deployment = deployment_of(connection, after, mark(before) ~= mark(after))
  deployment.written = deployment.changed and after.metadata.resourceVersion or nil
  deployment.stale = deployment.changed and before and touched(before, after, there) or nil
  return deployment
end

--- connection:apply(object, { force? }) -> deployment: validated and sent, not waited for
function Connection:apply(object, options) return send(self, object, options) end

--- A call that a route which is not there yet may spoil; a few times.
local function smoke_test(deployment, smoke)
  for attempt = 1, 3 do
    local ok, err = try(function()
      smoke(deployment)
      return true
    end)
    if ok then return end
    if attempt == 3 or err.status ~= 404 and err.status ~= 503 then error(err, 0) end
    sleep "1s"
  end
end

--- connection:deploy(object, { timeout = "5m", smoke = 3, force? }) -> deployment, available
---
---   object   of seldon.deployment, seldon.from_yaml, or one of Core 2
---   timeout  duration
---   smoke    integer              how often in a row the ingress must say that it is ready; or
---            function(deployment) called once it has; what it raises fails the deployment
---   force    boolean              take fields over that another manager owns
---
--- deployment.changed is false when everything was as it should be. Raises with the pods' reasons and last log lines.
function Connection:deploy(object, options)
  options = options or {}
  if core2.is(object) then return self:deploy_core2(object, options) end
  object = rollout.copy(object)
  local deployment = send(self, object, options)
  local good, err = try(function()
    deployment:wait {
      timeout = options.timeout, object = object, answers = type(options.smoke) == "number" and options.smoke or nil,
    }
    if type(options.smoke) == "function" then smoke_test(deployment, options.smoke) end
    return true
  end)
  release.mark(deployment, object, good or false)
  if not good then error(err, 0) end
  return deployment
end

---@private
function Connection:deploy_core2(object, options)
  refuse(object, core2.validate(object))
  object = rollout.copy(object)
  object.metadata.namespace = object.metadata.namespace or self.namespace
  return core2.resource(self, core2.deploy(self.cluster, object, options))
end

--- connection:resource(kind, name) -> one of Core 2: "Model", "Server", "Pipeline", "Experiment"; or nil
function Connection:resource(kind, name) return core2.find(self, kind, name) end

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

--- deployment:refresh() -> itself, as it is now
function Deployment:refresh()
  local object = self.cluster:get("SeldonDeployment", self.name, { namespace = self.namespace })
  if not object then error(("%s/%s is not there"):format(self.namespace, self.name), 2) end
  self.object, self.status = object, object.status or {}
  return self
end

--- deployment:wait{ timeout = "5m", answers = 3 } -> itself, once what was sent last is available and the ingress answers
function Deployment:wait(options)
  options = options or {}
  local object = wait.available(self.cluster, options.object or release.sent(self), {
    timeout = options.timeout, client = self.connection.ingress and self:client() or nil, answers = options.answers,
    written = self.written, stale = self.stale,
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

release.extend(Deployment, send)

--- Until no pod of it is left, as far as the time suffices.
local function pods_end(self, timeout)
  local options = { namespace = self.namespace, labels = "seldon-deployment-id=" .. self.name }
  local deadline = time.now() + (type(timeout) == "number" and timeout or time.duration(timeout))
  while time.now() < deadline do
    local pods, version = self.cluster:list("Pod", options)
    if #pods == 0 then return end
    for event in self.cluster:watch("Pod", {
      namespace = options.namespace, labels = options.labels, resource_version = version, timeout = deadline - time.now(),
    }) do
      if event.type == "DELETED" then break end
    end
  end
  log.warning("%s/%s: pods of it are still there after %s", self.namespace, self.name, tostring(timeout))
end

--- deployment:delete{ wait = true, timeout = "2m" } -> was it there?
---   wait  boolean  until it and its pods are gone
--- Its revisions go, too.
function Deployment:delete(options)
  options = options or {}
  local gone = self.cluster:delete("SeldonDeployment", self.name, {
    namespace = self.namespace, wait = options.wait ~= false, timeout = options.timeout or "2m",
  })
  if options.wait ~= false then pods_end(self, options.timeout or "2m") end
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

return seldon
