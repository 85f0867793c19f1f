-- What a SeldonDeployment stands for: Deployments and Services, as Seldon Core 1's operator makes them.
local json = require "local.json"
local names = require "local.seldon.names"
local tree = require "local.seldon.tree"

local map, text = tree.map, tree.text
local resources = {}

--- The container of a predictor whose graph has none of its own: only the executor works there, and that is
--- part of the server.
resources.ENGINE = "seldon-container-engine"
resources.GRAPH = "mlhost.io/graph"

local builtin = { SIMPLE_MODEL = true, SIMPLE_ROUTER = true, RANDOM_ABTEST = true, AVERAGE_COMBINER = true }

--- Calls fn(node) for the node and all below it.
function resources.each_node(node, fn)
  fn(node)
  for _, child in ipairs(map(node.children)) do
    resources.each_node(child, fn)
  end
end

local function implementation(node)
  local name = text(node.implementation)
  return name ~= "UNKNOWN_IMPLEMENTATION" and name or nil
end

function resources.is_builtin(node)
  return builtin[implementation(node) or ""] == true
end

local function containers_of(predictor)
  local found = {}
  for _, component in ipairs(map(predictor.componentSpecs)) do
    for _, container in ipairs(map(map(component.spec).containers)) do
      found[container.name] = container
    end
  end
  return found
end

local ADVICE = "give the model an image of its own (image = ..., see registry.build and `mlhost model`), " ..
  "or deploy to a cluster (k8s.kubeconfig of a profile)"

local function node_problem(node, containers)
  local container = containers[node.name]
  local what = implementation(node)
  if text(node.modelUri) then
    return ("node '%s': modelUri %s is fetched by Seldon's storage initializer, which does not run here: %s"):format(
      node.name, node.modelUri, ADVICE)
  elseif what and not builtin[what] and not (container and text(container.image)) then
    return ("node '%s': the prepackaged server %s does not run here: %s"):format(node.name, what, ADVICE)
  elseif map(node.endpoint).type == "GRPC" then
    return ("node '%s': gRPC is not served here: use endpoint.type REST, or a cluster"):format(node.name)
  elseif not what and not container and not text(map(node.endpoint).service_host) then
    return ("node '%s' has neither a container of that name nor an endpoint.service_host"):format(node.name)
  end
end

--- What of it cannot run here, and what to do then; nil when all can.
function resources.problem(sdep)
  local spec = map(sdep.spec)
  if spec.transport == "grpc" then
    return "spec.transport grpc is not served here: use rest, or a cluster"
  elseif spec.serverType == "kafka" then
    return "spec.serverType kafka is not served here: use rpc, or a cluster"
  end
  for _, predictor in ipairs(map(spec.predictors)) do
    local containers, found = containers_of(predictor), nil
    resources.each_node(map(predictor.graph), function(node) found = found or node_problem(node, containers) end)
    local explainer = map(predictor.explainer)
    if not found and (text(explainer.type) or text(explainer.modelUri))
      and not text(map(explainer.containerSpec).image) then
      found = ("explainer of '%s': Seldon's explainer servers do not run here: give explainer.containerSpec " ..
        "with an image, or use a cluster"):format(predictor.name)
    end
    if found then
      return ("predictor '%s': %s"):format(predictor.name, found)
    end
  end
end

local function add_env(container, values)
  local have, env = {}, container.env and tree.copy(container.env) or json.array {}
  for _, entry in ipairs(env) do
    have[entry.name] = true
  end
  for _, pair in ipairs(values) do
    if not have[pair[1]] then
      env[#env + 1] = { name = pair[1], value = pair[2] }
    end
  end
  container.env = env
end

local function unit_env(sdep, predictor, container, node, index)
  local parameters = json.array(tree.copy(map(node.parameters)))
  return {
    { "PREDICTIVE_UNIT_SERVICE_PORT", tostring(9000 + index) },
    { "PREDICTIVE_UNIT_HTTP_SERVICE_PORT", tostring(9000 + index) },
    { "PREDICTIVE_UNIT_GRPC_SERVICE_PORT", tostring(9500 + index) },
    { "PREDICTIVE_UNIT_METRICS_SERVICE_PORT", tostring(6000 + index) },
    { "PREDICTIVE_UNIT_METRICS_ENDPOINT", "/prometheus" },
    { "PREDICTIVE_UNIT_ID", container.name },
    { "PREDICTIVE_UNIT_IMAGE", container.image or "" },
    { "PREDICTIVE_UNIT_PARAMETERS", json.encode(parameters, { sorted = true }) },
    { "PREDICTOR_ID", predictor.name },
    { "PREDICTOR_LABELS", json.encode({ version = predictor.name }) },
    { "SELDON_DEPLOYMENT_ID", sdep.metadata.name },
    { "SELDON_EXECUTOR_ENABLED", "true" },
    { "MLSERVER_MODEL_NAME", node.name or container.name },
  }
end

-- The graph as the executor needs it: names, kinds, images.
local function executor_graph(node, containers)
  local children = json.array {}
  for i, child in ipairs(map(node.children)) do
    children[i] = executor_graph(child, containers)
  end
  local endpoint = map(node.endpoint)
  local what = implementation(node)
  local kind = text(node.type)
  if not kind and not what and #map(node.methods) == 0 then
    kind = "MODEL"
  end
  return {
    name = node.name, type = kind, implementation = builtin[what or ""] and what or nil, methods = node.methods,
    parameters = node.parameters, image = map(containers[node.name]).image, children = children,
    service_host = not containers[node.name] and text(endpoint.service_host) or nil,
    service_port = not containers[node.name] and (endpoint.httpPort or endpoint.service_port) or nil,
  }
end

local function labels_of(sdep, predictor, app)
  local labels = {
    app = app, ["seldon-app"] = names.service(sdep.metadata.name, predictor), version = predictor.name,
    ["seldon-deployment-id"] = sdep.metadata.name, ["app.kubernetes.io/managed-by"] = "seldon-core",
  }
  return tree.merge(labels, predictor.labels)
end

local function workload(sdep, predictor, name, pod_spec, replicas, extra)
  local labels = tree.merge(labels_of(sdep, predictor, name), extra.labels)
  pod_spec.terminationGracePeriodSeconds = pod_spec.terminationGracePeriodSeconds or 20
  return {
    apiVersion = "apps/v1", kind = "Deployment",
    metadata = { name = name, namespace = sdep.metadata.namespace, labels = labels,
      annotations = extra.explainer and { ["mlhost.io/explainer"] = predictor.name } or nil,
      ownerReferences = tree.reference(sdep) },
    spec = {
      replicas = replicas, selector = { matchLabels = { app = name } },
      progressDeadlineSeconds = predictor.progressDeadlineSeconds or 600,
      strategy = { type = "RollingUpdate", rollingUpdate = { maxUnavailable = "10%", maxSurge = "25%" } },
      template = { metadata = { labels = labels, annotations = extra.annotations }, spec = pod_spec },
    },
  }
end

local function replicas_of(sdep, predictor, component)
  local count = map(component).replicas or predictor.replicas or sdep.spec.replicas or 1
  local least = map(map(component).hpaSpec).minReplicas or map(map(component).kedaSpec).minReplicaCount
  return math.max(tree.number(count, 1), tree.number(least, 0))
end

local function annotations_of(sdep, predictor, component, graph)
  local all = tree.merge({}, sdep.spec.annotations)
  tree.merge(all, predictor.annotations)
  tree.merge(all, map(map(component).metadata).annotations)
  all[resources.GRAPH] = graph
  return all
end

-- One Deployment per componentSpec; the first one's pods carry the graph, as they carry the executor.
local function of_predictor(sdep, predictor, out)
  local nodes, containers, index = {}, containers_of(predictor), 0
  resources.each_node(map(predictor.graph), function(node) nodes[node.name] = node end)
  local graph = json.encode(executor_graph(predictor.graph, containers), { sorted = true })
  for i, component in ipairs(map(predictor.componentSpecs)) do
    local pod_spec = tree.copy(map(component.spec))
    for _, container in ipairs(map(pod_spec.containers)) do
      add_env(container, unit_env(sdep, predictor, container, nodes[container.name] or {}, index))
      index = index + 1
    end
    if #map(pod_spec.containers) > 0 then
      local name = names.deployment(sdep.metadata.name, predictor.name, i - 1, pod_spec.containers)
      out[#out + 1] = workload(sdep, predictor, name, pod_spec, replicas_of(sdep, predictor, component), {
        annotations = annotations_of(sdep, predictor, component, graph), labels = map(component.metadata).labels })
      graph = nil
    end
  end
  if graph then
    local pod_spec = { containers = json.array { { name = resources.ENGINE, image = "mlhost" } } }
    local name = names.deployment(sdep.metadata.name, predictor.name, 0, pod_spec.containers)
    out[#out + 1] = workload(sdep, predictor, name, pod_spec, replicas_of(sdep, predictor), {
      annotations = annotations_of(sdep, predictor, nil, graph) })
  end
end

local function of_explainer(sdep, predictor, out)
  local explainer = map(predictor.explainer)
  if not text(map(explainer.containerSpec).image) then
    return
  end
  local container = tree.copy(explainer.containerSpec)
  container.name = text(container.name) or names.explainer(sdep.metadata.name, predictor.name)
  add_env(container, unit_env(sdep, predictor, container, { name = container.name }, 0))
  add_env(container, { { "SELDON_PREDICTOR_HOST", names.service(sdep.metadata.name, predictor) } })
  local pod_spec = { containers = json.array { container } }
  out[#out + 1] = workload(sdep, predictor, names.explainer(sdep.metadata.name, predictor.name), pod_spec,
    tree.number(explainer.replicas, 1), { explainer = true,
      labels = { ["seldon-app"] = names.explainer(sdep.metadata.name, predictor.name) } })
end

--- The Deployments, in order.
function resources.deployments(sdep)
  local out = {}
  for _, predictor in ipairs(map(sdep.spec.predictors)) do
    of_predictor(sdep, predictor, out)
    of_explainer(sdep, predictor, out)
  end
  return out
end

local function service(sdep, name, selector, ports, labels)
  return {
    apiVersion = "v1", kind = "Service",
    metadata = { name = name, namespace = sdep.metadata.namespace, ownerReferences = tree.reference(sdep),
      labels = tree.merge({ ["seldon-deployment-id"] = sdep.metadata.name, ["seldon-app"] = name,
        ["app.kubernetes.io/managed-by"] = "seldon-core" }, labels) },
    spec = { type = "ClusterIP", clusterIP = "127.0.0.1", selector = selector, ports = ports },
  }
end

--- The Services: one per predictor, one per container of it, one per explainer.
function resources.services(sdep)
  local out = {}
  for _, predictor in ipairs(map(sdep.spec.predictors)) do
    local name = names.service(sdep.metadata.name, predictor)
    out[#out + 1] = service(sdep, name, { ["seldon-app"] = name }, json.array {
      { name = "http", port = 8000, targetPort = 8000, protocol = "TCP" } }, { ["mlhost.io/predictor"] = predictor.name })
    for _, component in ipairs(map(predictor.componentSpecs)) do
      for _, container in ipairs(map(map(component.spec).containers)) do
        out[#out + 1] = service(sdep, names.container_service(sdep.metadata.name, predictor.name, container.name),
          { ["seldon-app"] = name }, json.array { { name = "http", port = 9000, targetPort = "http",
            protocol = "TCP" } }, { ["mlhost.io/container"] = container.name })
      end
    end
    if text(map(map(predictor.explainer).containerSpec).image) then
      local explainer = names.explainer(sdep.metadata.name, predictor.name)
      out[#out + 1] = service(sdep, explainer, { ["seldon-app"] = explainer }, json.array {
        { name = "http", port = 9000, targetPort = "http", protocol = "TCP" } },
        { ["mlhost.io/explainer"] = predictor.name })
    end
  end
  return out
end

return resources
