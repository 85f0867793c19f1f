-- The table of the ingress: who is ready to answer for each predictor, and the Services by name.
local json = require "local.json"
local names = require "local.seldon.names"
local resources = require "local.seldon.resources"
local tree = require "local.seldon.tree"

local map = tree.map
local routes = {}

local HASH_OF_PREDICTOR = "seldon-app"

-- Pods of the predictor that are ready, by name.
local function ready_pods(operator, namespace, app)
  local list = {}
  for _, pod in ipairs(operator.pods_of_app[namespace .. "/" .. app] or {}) do
    if operator.pods:is_ready(pod) then
      list[#list + 1] = pod
    end
  end
  table.sort(list, function(a, b) return a.metadata.name < b.metadata.name end)
  return list
end

local function has_container(pod, name)
  for _, container in ipairs(map(map(pod.spec).containers)) do
    if container.name == name then
      return true
    end
  end
  return false
end

-- The processes for a node: the pod's own first, then the same one in other pods; or any pod's when this pod has no
-- container of that name.
local function endpoints_of(operator, pod, ready, name)
  local list, own = json.array {}, has_container(pod, name)
  local first = own and operator.pods:endpoint(pod, name)
  if first then
    list[1] = first
  end
  for _, other in ipairs(ready) do
    local endpoint = other ~= pod and has_container(other, name) and operator.pods:endpoint(other, name)
    if endpoint then
      list[#list + 1] = endpoint
    end
  end
  return list, own
end

-- A name of a Service here, or a host elsewhere.
local function external(operator, namespace, node)
  local host = node.service_host
  local name, within = host:match("^([%w-]+)%.?([%w-]*)")
  local service = operator.service_index[("%s/%s"):format(within ~= "" and within or namespace, name or "")]
  if service then
    return nil, service
  end
  return ("http://%s:%s"):format(host, math.tointeger(node.service_port) or node.service_port or 9000)
end

local function node_of(operator, pod, ready, node)
  local children = json.array {}
  for i, child in ipairs(map(node.children)) do
    children[i] = node_of(operator, pod, ready, child)
  end
  local out = { name = node.name, type = node.type, implementation = node.implementation, methods = node.methods,
    parameters = node.parameters, image = node.image, children = children }
  if node.service_host then
    local service
    out.url, service = external(operator, pod.metadata.namespace, node)
    out.endpoints = service and routes.endpoints_of_service(operator, service) or nil
  elseif not node.implementation then
    out.endpoints, out.own = endpoints_of(operator, pod, ready, node.name)
  end
  return out
end

-- The nodes of a graph that nobody can answer for.
local function complete(node)
  if not node.implementation and not node.url and #map(node.endpoints) == 0 then
    return false
  end
  for _, child in ipairs(node.children) do
    if not complete(child) then
      return false
    end
  end
  return true
end

local function replicas_of(operator, sdep, predictor)
  local ready = ready_pods(operator, sdep.metadata.namespace, names.service(sdep.metadata.name, predictor))
  local list = json.array {}
  for _, pod in ipairs(ready) do
    local graph = map(pod.metadata.annotations)[resources.GRAPH]
    local root = graph and node_of(operator, pod, ready, json.decode(graph, "the pod's graph"))
    if root and complete(root) then
      list[#list + 1] = root
    end
  end
  return list
end

local function explainer_of(operator, sdep, predictor)
  local list = json.array {}
  if not tree.text(map(map(predictor.explainer).containerSpec).image) then
    return list
  end
  for _, pod in ipairs(ready_pods(operator, sdep.metadata.namespace, names.explainer(sdep.metadata.name, predictor.name))) do
    list[#list + 1] = operator.pods:endpoint(pod, map(map(pod.spec).containers)[1].name)
  end
  return list
end

-- The declared weights; a predictor that is alone gets all.
local function traffic_of(predictors, predictor)
  if predictor.shadow == true then
    local percent = tree.number(predictor.traffic, 0)
    return percent > 0 and percent or 100
  end
  local open = 0
  for _, one in ipairs(predictors) do
    open = open + (one.shadow == true and 0 or 1)
  end
  return open == 1 and 100 or tree.number(predictor.traffic, 0)
end

local function timeout_of(sdep, predictor)
  local annotations = tree.merge(tree.merge({}, sdep.spec.annotations), map(predictor).annotations)
  return math.tointeger(tonumber(annotations["seldon.io/rest-timeout"] or "") or 60000) or 60000
end

local function deployment_of(operator, sdep)
  local predictors = json.array {}
  for i, predictor in ipairs(map(sdep.spec.predictors)) do
    predictors[i] = {
      name = predictor.name, traffic = traffic_of(sdep.spec.predictors, predictor), shadow = predictor.shadow == true,
      replicas = replicas_of(operator, sdep, predictor), explainer = explainer_of(operator, sdep, predictor),
    }
  end
  return { namespace = sdep.metadata.namespace, name = sdep.metadata.name, protocol = sdep.spec.protocol or "seldon",
    timeout_ms = timeout_of(sdep, map(sdep.spec.predictors)[1]), predictors = predictors,
    reason = tree.text(map(sdep.status).description) or "it is being started" }
end

local function matches(pod, selector)
  local labels = map(pod.metadata.labels)
  for name, value in pairs(selector) do
    if labels[name] ~= value then
      return false
    end
  end
  return next(selector) ~= nil
end

--- The ready processes behind a Service: of the container that it names, or each pod's first.
function routes.endpoints_of_service(operator, service)
  local list = json.array {}
  local name = map(service.metadata.labels)["mlhost.io/container"]
  for _, pod in ipairs(operator.all_pods) do
    if pod.metadata.namespace == service.metadata.namespace and matches(pod, map(map(service.spec).selector))
      and operator.pods:is_ready(pod) then
      list[#list + 1] = operator.pods:endpoint(pod, name or map(map(pod.spec).containers)[1].name)
    end
  end
  return list
end

local function predictor_index(deployments, service, app)
  local sdep = map(service.metadata.labels)["seldon-deployment-id"]
  for i, one in ipairs(deployments) do
    if one.name == sdep and one.namespace == service.metadata.namespace then
      for k, predictor in ipairs(one.predictors) do
        if predictor.name == app then
          return i - 1, k - 1
        end
      end
    end
  end
end

--- What host.routes takes, and the set of the processes in it.
function routes.make(operator)
  -- the first one is nobody's: Services that belong to no SeldonDeployment answer in its name
  local deployments = json.array { { namespace = "", name = "", protocol = "v2", predictors = json.array {} } }
  local services = json.array {}
  for _, sdep in ipairs(operator.served) do
    deployments[#deployments + 1] = deployment_of(operator, sdep)
  end
  for _, service in ipairs(operator.services) do
    local labels = map(service.metadata.labels)
    local out = { namespace = service.metadata.namespace, name = service.metadata.name, deployment = 0 }
    if labels["mlhost.io/predictor"] then
      out.deployment, out.predictor = predictor_index(deployments, service, labels["mlhost.io/predictor"])
    else
      out.endpoints = routes.endpoints_of_service(operator, service)
    end
    if out.deployment then
      services[#services + 1] = out
    end
  end
  return { deployments = deployments, services = services }
end

--- The ids in a table of routes.
function routes.ids(value, into)
  into = into or {}
  if type(value) == "table" and value ~= json.null then
    if value.id and value.port then
      into[value.id] = true
    end
    for _, item in pairs(value) do
      routes.ids(item, into)
    end
  end
  return into
end

routes.APP = HASH_OF_PREDICTOR
return routes
