-- Is what runs what was asked for? The decision of the waiter, over objects that somebody has fetched: no calls here.
--
-- Nothing in a SeldonDeployment's status says which spec it speaks of, so the Deployments are looked at: they must be those
-- of the predictors, carry what the spec says (images, environment, parameters, model URIs, replicas), be observed, and be
-- available to the last replica.
local json = require "json"

local wanted = {}

local ENGINE = "seldon-container-engine" -- the executor's own container: it is in no spec
local CRASHES = 3                        -- how often a container must have ended before it is given up

-- Waiting reasons, and after how many seconds of them nobody expects that they heal.
local HOPELESS = {
  ErrImageNeverPull = 0, InvalidImageName = 0, ImagePullBackOff = 0, ErrImagePull = 30, CreateContainerConfigError = 30,
  CreateContainerError = 30, RunContainerError = 30,
}

local function map(value) return type(value) == "table" and value or {} end

local function given(value) return value ~= nil and value ~= json.null end

local function containers_of(pod_spec, key)
  local out = {}
  for _, container in ipairs(map(map(pod_spec)[key or "containers"])) do out[container.name] = container end
  return out
end

local function nodes_of(predictor)
  local out = {}
  local function walk(node)
    if type(node) ~= "table" then return end
    out[#out + 1] = node
    for _, child in ipairs(map(node.children)) do walk(child) end
  end
  walk(predictor.graph)
  return out
end

local function env_of(container)
  local out = {}
  for _, entry in ipairs(map(container.env)) do out[entry.name] = entry end
  return out
end

--- The predictor that a pod template belongs to, as far as it says so.
local function predictor_of(object, template, name)
  local containers = map(map(template.spec).containers)
  for _, container in ipairs(containers) do
    local id = map(env_of(container).PREDICTOR_ID).value
    if id then return id end
    local args = map(container.args)
    for i = 1, #args - 1 do
      if args[i] == "--predictor" then return args[i + 1] end
    end
  end
  local label = map(map(template.metadata).labels).version
  if label then return label end
  for _, predictor in ipairs(object.spec.predictors) do
    local prefix = ("%s-%s-"):format(object.metadata.name, predictor.name)
    if name:sub(1, #prefix) == prefix then return predictor.name end
  end
end

local function is_explainer(template, name)
  if name:find("explainer", 1, true) then return true end
  for _, container in ipairs(map(map(template.spec).containers)) do
    if container.name:find("explainer", 1, true) then return true end
  end
  return false
end

local function is_engine(template)
  local containers = map(map(template.spec).containers)
  return #containers == 1 and containers[1].name == ENGINE
end

--- wanted.owner(object, deployment) -> name of the predictor that a Deployment belongs to, or nil
function wanted.owner(object, deployment)
  return predictor_of(object, deployment.spec.template, deployment.metadata.name)
end

-- ---- does a template carry what the spec says? ----

local function other_env(intended, actual)
  local have = env_of(actual)
  for name, entry in pairs(env_of(intended)) do
    local there = have[name]
    if not there then return "environment variable " .. name end
    if given(entry.value) and there.value ~= entry.value then return "environment variable " .. name end
    local wants, has = map(map(entry.valueFrom).secretKeyRef), map(map(there.valueFrom).secretKeyRef)
    if wants.name ~= has.name or wants.key ~= has.key then return "environment variable " .. name end
  end
end

--- The operator hands parameters over as JSON in the environment.
local function other_parameters(node, actual)
  local text = map(env_of(actual).PREDICTIVE_UNIT_PARAMETERS).value
  if not text then return nil end
  local ok, list = pcall(json.decode, text)
  local values = {}
  for _, one in ipairs(ok and map(list) or {}) do values[one.name] = tostring(one.value) end
  for _, one in ipairs(map(node.parameters)) do
    if values[one.name] ~= tostring(one.value) then return "parameter " .. one.name end
  end
end

local function same_list(a, b)
  if not given(a) then return true end
  b = map(b)
  if #a ~= #b then return false end
  for i, item in ipairs(a) do
    if b[i] ~= item then return false end
  end
  return true
end

local function other_container(intended, actual)
  if not actual then return "container " .. intended.name end
  if given(intended.image) and actual.image ~= intended.image then return "image " .. intended.image end
  for _, key in ipairs { "command", "args" } do
    if not same_list(intended[key], actual[key]) then return key .. " of container " .. intended.name end
  end
  return other_env(intended, actual)
end

--- The model URI is an argument of an init container; without one of that name nobody can tell.
local function other_model(node, pod_spec)
  if not given(node.modelUri) then return nil end
  local initializer = containers_of(pod_spec, "initContainers")[node.name .. "-model-initializer"]
  for _, argument in ipairs(initializer and map(initializer.args) or { node.modelUri }) do
    if argument == node.modelUri then return nil end
  end
  return "model " .. node.modelUri
end

--- What of a predictor's component is not in a pod's spec, or nil. component nil: the nodes without a container of ours.
local function lacking(predictor, component, pod_spec)
  local actual, own = containers_of(pod_spec), containers_of(map(component).spec)
  for _, container in ipairs(map(map(map(component).spec).containers)) do
    local other = other_container(container, actual[container.name])
    if other then return other end
  end
  for _, node in ipairs(nodes_of(predictor)) do
    if actual[node.name] and (not component or own[node.name]) then
      local other = other_parameters(node, actual[node.name]) or other_model(node, pod_spec)
      if other then return other end
    end
  end
end

--- wanted.components(predictor) -> what must be there: a list of { name (of a container), component, replicas }
---@private
function wanted.components(object, predictor)
  local out, covered = {}, {}
  for _, component in ipairs(map(predictor.componentSpecs)) do
    local first = map(map(map(component).spec).containers)[1]
    if first then
      local scaled = given(component.hpaSpec) or given(component.kedaSpec)
      local replicas = given(component.replicas) and component.replicas or given(predictor.replicas) and predictor.replicas
        or given(object.spec.replicas) and object.spec.replicas or 1
      out[#out + 1] = { name = first.name, component = component, replicas = not scaled and replicas or nil }
      for name in pairs(containers_of(component.spec)) do covered[name] = true end
    end
  end
  for _, node in ipairs(nodes_of(predictor)) do
    if given(node.modelUri) and not covered[node.name] then out[#out + 1] = { name = node.name } end
  end
  return out
end

-- ---- are they there? ----

--- Why a Deployment is not (yet) as its spec says, or nil.
local function behind(deployment)
  local name, status = deployment.metadata.name, map(deployment.status)
  local replicas = map(deployment.spec).replicas
  replicas = given(replicas) and replicas or 1
  local updated, available, all = status.updatedReplicas or 0, status.availableReplicas or 0, status.replicas or 0
  if (status.observedGeneration or 0) < (deployment.metadata.generation or 1) then return name .. ": not looked at yet" end
  if updated < replicas then return ("%s: %d of %d replicas are of this version"):format(name, updated, replicas) end
  if all > updated then return ("%s: %d old replicas are still there"):format(name, all - updated) end
  if available < replicas then return ("%s: %d of %d replicas are available"):format(name, available, replicas) end
end

--- One predictor: why it is not there yet. Takes its Deployments out of `left`.
local function predictor_missing(object, predictor, left)
  local who = ("predictor '%s'"):format(predictor.name)
  local parts = wanted.components(object, predictor)
  local function own(deployment) return wanted.owner(object, deployment) == predictor.name end
  for _, part in ipairs(parts) do
    local why = ("%s: there is no Deployment with container %s yet"):format(who, part.name)
    local found
    for _, deployment in pairs(left) do
      local pod_spec = map(deployment.spec.template.spec)
      if own(deployment) and containers_of(pod_spec)[part.name] then
        local other = lacking(predictor, part.component, pod_spec)
        if not other then
          found = deployment
          break
        end
        why = ("%s: %s does not have %s yet"):format(who, deployment.metadata.name, other)
      end
    end
    if not found then return why end
    if part.replicas and found.spec.replicas ~= part.replicas then
      return ("%s: %s is not told to have %d replicas yet"):format(who, found.metadata.name, part.replicas)
    end
    local late = behind(found)
    if late then return late end
    left[found.metadata.name] = nil
  end
  local some = #parts > 0
  for name, deployment in pairs(left) do
    local template = deployment.spec.template
    if own(deployment) and (is_engine(template) or given(predictor.explainer) and is_explainer(template, name)) then
      local late = behind(deployment)
      if late then return late end
      left[name], some = nil, true
    end
  end
  if not some then return who .. ": it has no Deployment yet" end
end

--- wanted.missing(object, current, deployments, only?) -> why it is not there yet, or nil when it is
---@param object table # the SeldonDeployment that was applied
---@param current table? # the SeldonDeployment as the server has it
---@param deployments table[] # those with its label
---@param only string? # name of the one predictor that matters; the others may be in any state
---@return string?
function wanted.missing(object, current, deployments, only)
  if not current then return "it is not there" end
  local left = {}
  for _, deployment in ipairs(deployments) do
    if not given(deployment.metadata.deletionTimestamp) then left[deployment.metadata.name] = deployment end
  end
  for _, predictor in ipairs(object.spec.predictors) do
    if not only or only == predictor.name then
      local why = predictor_missing(object, predictor, left)
      if why then return why end
    end
  end
  if only then return nil end
  for name, deployment in pairs(left) do
    if map(deployment.spec).replicas ~= 0 or (map(deployment.status).replicas or 0) > 0 then
      return name .. ": an old Deployment is still there"
    end
  end
  local status = map(current.status)
  if status.state ~= "Available" then
    local description = given(status.description) and status.description ~= "" and ": " .. status.description or ""
    return ("its state is %s%s"):format(given(status.state) and status.state or "unknown", description)
  end
end

--- wanted.replicas(deployments) -> available, wanted: over all of them, for a progress line
function wanted.replicas(deployments)
  local available, all = 0, 0
  for _, deployment in ipairs(deployments) do
    available = available + (map(deployment.status).availableReplicas or 0)
    local replicas = map(deployment.spec).replicas
    all = all + (given(replicas) and replicas or 1)
  end
  return math.min(available, all), all
end

-- ---- can it still come? ----

--- wanted.failed(current, written, elapsed) -> why the operator has given up, or nil
---
--- A state may still be that of the spec before: it counts when the status was written after the spec was, or has been left
--- as it is for so long that the operator must have seen both.
---@param current table? # the SeldonDeployment
---@param written string? # its resourceVersion when the spec had been written
---@param elapsed number # seconds since
---@return string?
function wanted.failed(current, written, elapsed)
  local status = map(map(current).status)
  if status.state ~= "Failed" then return nil end
  local description = given(status.description) and status.description or "Seldon says that it has failed"
  -- a write of the operator's own that came too late: it tries again
  if description:find("has been modified", 1, true) then return nil end
  if written and current.metadata.resourceVersion == written and elapsed < 15 then return nil end
  return description
end

--- wanted.owner_of_pod(object, pod) -> name of the predictor that a pod belongs to, or nil
function wanted.owner_of_pod(object, pod)
  return predictor_of(object, { metadata = pod.metadata, spec = pod.spec }, pod.metadata.name)
end

--- Is the pod one of what was asked for, and not of an earlier spec?
local function is_ours(object, pod)
  local id = wanted.owner_of_pod(object, pod)
  for _, predictor in ipairs(object.spec.predictors) do
    if predictor.name == id then
      for _, part in ipairs(wanted.components(object, predictor)) do
        if containers_of(pod.spec)[part.name] and not lacking(predictor, part.component, pod.spec) then return true end
      end
    end
  end
  return false
end

local KEYS = { "initContainerStatuses", "containerStatuses" }

--- wanted.statuses(pod) -> list of the states of its containers, init containers first
function wanted.statuses(pod)
  local list = {}
  for _, key in ipairs(KEYS) do
    for _, one in ipairs(map(map(pod.status)[key])) do list[#list + 1] = one end
  end
  return list
end

--- wanted.hopeless(object, pods, since, now) -> pod, container status: of one that no waiting heals; or nil
---   since  table   remembers from call to call when a reason was first seen
---   now    number  seconds
function wanted.hopeless(object, pods, since, now)
  for _, pod in ipairs(pods) do
    if not given(pod.metadata.deletionTimestamp) and is_ours(object, pod) then
      for _, status in ipairs(wanted.statuses(pod)) do
        local reason = map(map(status.state).waiting).reason
        local key = ("%s/%s/%s"):format(pod.metadata.name, status.name, tostring(reason))
        since[key] = since[key] or now
        if reason == "CrashLoopBackOff" and (status.restartCount or 0) >= CRASHES then return pod, status end
        if HOPELESS[reason] and now - since[key] >= HOPELESS[reason] then return pod, status end
      end
    end
  end
end

return wanted
