-- The status of a SeldonDeployment, as Seldon Core 1's operator writes it.
local deployments = require "local.seldon.deployments"
local json = require "local.json"
local names = require "local.seldon.names"
local tree = require "local.seldon.tree"

local map = tree.map
local status = {}

local function condition(old, kind, holds, reason, message)
  local value = holds and "True" or "False"
  local out = { type = kind, status = value, reason = not holds and reason or nil, message = not holds and message or nil,
    lastTransitionTime = names.time() }
  for _, one in ipairs(map(old)) do
    if one.type == kind and one.status == value then
      out.lastTransitionTime = one.lastTransitionTime
    end
  end
  return out
end

local function has_condition(deployment, kind, value)
  for _, one in ipairs(map(map(deployment.status).conditions)) do
    if one.type == kind then
      return one.status == value
    end
  end
  return false
end

local function deployment_status(list)
  local out = {}
  for _, one in ipairs(list) do
    local available = has_condition(one, "Available", "True")
    local now = map(one.status)
    out[one.metadata.name] = {
      replicas = now.replicas or 0, availableReplicas = now.availableReplicas or 0,
      status = available and "Available" or "Creating",
      explainerFor = map(one.metadata.annotations)["mlhost.io/explainer"],
      description = deployments.is_complete(one) and "Deployment is available" or "Deployment is being rolled out",
    }
  end
  return out
end

local function service_status(sdep, services)
  local out = {}
  for _, service in ipairs(services) do
    local meta = service.metadata
    local port = map(map(service.spec).ports)[1]
    out[meta.name] = { svcName = meta.name, explainerFor = map(meta.labels)["mlhost.io/explainer"],
      httpEndpoint = ("%s.%s:%d"):format(meta.name, sdep.metadata.namespace, port.port) }
  end
  return out
end

local function address(sdep)
  local first = sdep.spec.predictors[1]
  local protocol = sdep.spec.protocol or "seldon"
  local path = protocol == "seldon" and "/api/v1.0/predictions"
    or protocol == "tensorflow" and ("/v1/models/%s/:predict"):format(first.graph.name)
    or ("/v2/models/%s/infer"):format(first.graph.name)
  return { url = ("http://%s.%s.svc.cluster.local:8000%s"):format(names.service(sdep.metadata.name, first),
    sdep.metadata.namespace, path) }
end

--- found: { problem, list (its Deployments), services, ready (all Deployments are complete), trouble (text) }.
function status.make(sdep, found)
  local old = map(sdep.status).conditions
  local out = { description = found.problem or found.trouble }
  if found.problem then
    out.state = "Failed"
    out.conditions = json.array { condition(old, "Ready", false, "Failed", found.problem) }
    return out
  end
  local failed, replicas = false, 0
  for _, one in ipairs(found.list) do
    failed = failed or (has_condition(one, "Progressing", "False") and has_condition(one, "Available", "False"))
    if not map(one.metadata.annotations)["mlhost.io/explainer"] then
      replicas = replicas + (map(one.status).availableReplicas or 0)
    end
  end
  out.state = failed and "Failed" or found.ready and "Available" or "Creating"
  out.replicas = replicas
  out.deploymentStatus = deployment_status(found.list)
  out.serviceStatus = service_status(sdep, found.services)
  out.address = address(sdep)
  out.conditions = json.array {
    condition(old, "DeploymentsReady", found.ready, failed and "Failed" or "Creating", found.trouble),
    condition(old, "HpasReady", true), condition(old, "KedaReady", true), condition(old, "PdbsReady", true),
    condition(old, "Ready", found.ready, failed and "Failed" or "Creating", found.trouble),
    condition(old, "ServicesReady", true), condition(old, "istioVirtualServicesReady", true),
  }
  return out
end

return status
