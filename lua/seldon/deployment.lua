-- A SeldonDeployment (v1) from a few lines of Lua.
-- https://docs.seldon.io/projects/seldon-core/en/latest/reference/seldon-deployment.html
local _, vm = ...
local yaml = require "yaml"

local deployment = {}

local API_VERSION, KIND = "machinelearning.seldon.io/v1", "SeldonDeployment"

-- What a node of a graph may say; a predictor's own node is written beside the predictor's keys.
local NODE = {
  "name", "image", "implementation", "model_uri", "type", "methods", "parameters", "children", "endpoint", "logger", "env",
  "secrets", "resources", "service_account", "env_secret", "command", "args", "ports", "image_pull_policy", "volume_mounts",
}
local PREDICTOR = {
  "replicas", "traffic", "shadow", "annotations", "labels", "explainer", "hpa", "graph", "engine", "image_pull_secrets",
  "node_selector", "tolerations", "volumes", "ssl", "progress_deadline", "node",
}
local TOP = { "namespace", "protocol", "transport", "server_type", "predictors", "deployment_annotations", "deployment_labels" }

local function set_of(...)
  local set = {}
  for _, list in ipairs { ... } do
    for _, key in ipairs(list) do set[key] = true end
  end
  return set
end
local ALLOWED = { node = set_of(NODE), predictor = set_of(NODE, PREDICTOR), top = set_of(NODE, PREDICTOR, TOP) }

local function check_keys(what, options, allowed)
  if type(options) ~= "table" then error(("%s: a table is needed, not %s"):format(what, type(options)), 0) end
  for key in pairs(options) do
    if not allowed[key] then
      local names = {}
      for name in pairs(allowed) do names[#names + 1] = name end
      table.sort(names)
      local near = vm.near(tostring(key), names)
      error(("%s: unknown key '%s'%s"):format(what, tostring(key),
        near and (" (did you mean '%s'?)"):format(near) or "; known: " .. table.concat(names, ", ")), 0)
    end
  end
end

--- Seldon's types of parameters, from those of Lua.
local function parameter(name, value)
  local kind = "STRING"
  if math.type(value) == "integer" then
    kind = "INT"
  elseif type(value) == "number" then
    kind = "DOUBLE"
  elseif type(value) == "boolean" then
    kind = "BOOL"
  end
  return { name = name, value = tostring(value), type = kind }
end

--- { a = 1 } -> list by name; a list stays one.
local function sorted(map, make)
  if map == nil then return nil end
  if #map > 0 then return map end
  local names, list = {}, {}
  for name in pairs(map) do names[#names + 1] = name end
  table.sort(names)
  for i, name in ipairs(names) do list[i] = make(name, map[name]) end
  return #list > 0 and list or nil
end

--- { "a", "b" } -> { { name = "a" }, { name = "b" } }
local function named(names)
  if not names then return nil end
  local list = {}
  for i, name in ipairs(names) do list[i] = { name = name } end
  return list
end

local function environment(env, secrets)
  local list = {}
  for _, one in ipairs(sorted(env, function(name, value) return { name = name, value = tostring(value) } end) or {}) do
    list[#list + 1] = one
  end
  -- NAME = "secret/key"
  for _, one in ipairs(sorted(secrets, function(name, place)
    local secret, key = tostring(place):match "^([^/]+)/([^/]+)$"
    if not secret then error(("secrets.%s: 'secret/key' is needed, not '%s'"):format(name, tostring(place)), 0) end
    return { name = name, valueFrom = { secretKeyRef = { name = secret, key = key } } }
  end) or {}) do
    list[#list + 1] = one
  end
  return #list > 0 and list or nil
end

--- { memory = "1Gi", cpu = "500m" }: requests and limits alike; or { requests = {}, limits = {} }
local function resources_of(resources)
  if resources == nil or resources.requests or resources.limits then return resources end
  return { requests = resources, limits = resources }
end

local function container_of(node)
  if not node.image and not node.env and not node.secrets and not node.resources then return nil end
  return {
    name = node.name, image = node.image, imagePullPolicy = node.image_pull_policy, command = node.command, args = node.args,
    env = environment(node.env, node.secrets), resources = resources_of(node.resources), ports = node.ports,
    volumeMounts = node.volume_mounts,
  }
end

--- A node of Seldon's graph, its container put on `containers`.
local function graph_of(what, node, containers)
  if type(node.name) ~= "string" then error(what .. ": name is missing", 0) end
  local container = container_of(node)
  if container then containers[#containers + 1] = container end
  local children = {}
  for i, child in ipairs(node.children or {}) do
    local at = ("%s.children[%d]"):format(what, i)
    check_keys(at, child, ALLOWED.node)
    children[i] = graph_of(at, child, containers)
  end
  return {
    name = node.name, implementation = node.implementation, modelUri = node.model_uri, methods = node.methods,
    -- a node with a server of its own gets its type from there
    type = node.type and node.type:upper() or not node.implementation and "MODEL" or nil,
    parameters = sorted(node.parameters, parameter), endpoint = node.endpoint, logger = node.logger,
    serviceAccountName = node.service_account, envSecretRefName = node.env_secret, children = vm.array(children),
  }
end

local function explainer_of(explainer)
  if not explainer then return nil end
  return {
    type = explainer.type, modelUri = explainer.model_uri, replicas = explainer.replicas, config = explainer.config,
    serviceAccountName = explainer.service_account, envSecretRefName = explainer.env_secret,
    containerSpec = explainer.image and {
      name = "explainer", image = explainer.image, env = environment(explainer.env, explainer.secrets),
      resources = resources_of(explainer.resources),
    } or nil,
  }
end

local function hpa_of(hpa)
  if not hpa then return nil end
  return {
    minReplicas = hpa.min, maxReplicas = hpa.max,
    metricsv2 = hpa.metrics or { {
      type = "Resource", resource = { name = "cpu", target = { type = "Utilization", averageUtilization = hpa.cpu or 70 } },
    } },
  }
end

--- deployment.predictor(name, options) -> a predictor of a SeldonDeployment
---@private
function deployment.predictor(name, options, what)
  what = what or ("predictor '%s'"):format(name)
  check_keys(what, options, ALLOWED.predictor)
  local node = options.graph or options
  if options.graph then check_keys(what .. ".graph", options.graph, ALLOWED.node) end
  local containers, root = {}, {}
  for _, key in ipairs(NODE) do root[key] = node[key] end
  if not options.graph then root.name = options.node or "model" end
  local graph = graph_of(what .. ".graph", root, containers)
  local pod = {
    containers = vm.array(containers), nodeSelector = options.node_selector, tolerations = options.tolerations,
    volumes = options.volumes,
    imagePullSecrets = named(options.image_pull_secrets),
  }
  return {
    name = name, replicas = options.replicas, traffic = options.traffic, shadow = options.shadow, labels = options.labels,
    annotations = options.annotations, graph = graph, explainer = explainer_of(options.explainer), ssl = options.ssl,
    progressDeadlineSeconds = options.progress_deadline,
    svcOrchSpec = options.engine and { resources = resources_of(options.engine.resources), env = environment(options.engine.env) },
    componentSpecs = vm.array { { spec = pod, hpaSpec = hpa_of(options.hpa) } },
  }
end

--- seldon.deployment{ name, image | implementation + model_uri | graph | predictors, ... } -> SeldonDeployment
---
---   name         string   of the deployment
---   image        string   of the model's container; or
---   implementation, model_uri   a server of Seldon's own (SKLEARN_SERVER ...) and where its model is; or
---   graph        table    { name, image, type = "router" | "combiner" | "transformer" | ..., children = { ... } }; or
---   predictors   list     { { name, traffic, image | graph ... }, ... }; shadow = true mirrors
---   replicas     integer  default 1
---   protocol     string   "seldon" (default), "v2", "tensorflow"
---   parameters   table    { model_version = "7", threshold = 0.5 }: typed by their Lua types
---   env          table    { NAME = "value" }; secrets: { NAME = "secret/key" }
---   resources    table    { memory = "1Gi", cpu = "500m" }, or { requests = {}, limits = {} }
---   annotations, labels   of the deployment
---   explainer    table    { type, model_uri } or { image }; hpa: { min, max, cpu = 70 }
---   namespace, transport, server_type, service_account, env_secret, command, args, engine, node_selector, tolerations ...
function deployment.deployment(options)
  check_keys("seldon.deployment", options, ALLOWED.top)
  if type(options.name) ~= "string" then error("seldon.deployment: name is missing", 2) end
  local predictors = {}
  if options.predictors then
    for i, one in ipairs(options.predictors) do
      local what = ("seldon.deployment: predictors[%d]"):format(i)
      check_keys(what, one, ALLOWED.predictor)
      if type(one.name) ~= "string" then error(what .. ": name is missing", 2) end
      predictors[i] = deployment.predictor(one.name, one, what)
    end
  else
    local one = {}
    for key, value in pairs(options) do
      if ALLOWED.predictor[key] and key ~= "annotations" and key ~= "labels" and key ~= "name" then one[key] = value end
    end
    one.replicas = one.replicas or 1
    predictors[1] = deployment.predictor("main", one, "seldon.deployment")
  end
  return {
    apiVersion = API_VERSION, kind = KIND,
    metadata = {
      name = options.name, namespace = options.namespace, annotations = options.annotations, labels = options.labels,
    },
    spec = {
      protocol = options.protocol, transport = options.transport, serverType = options.server_type,
      predictors = vm.array(predictors),
    },
  }
end

--- seldon.from_yaml(text) -> object: the one document of the text
function deployment.from_yaml(text)
  local object = yaml.decode(text)
  if type(object) ~= "table" or type(object.kind) ~= "string" then
    error("seldon.from_yaml: a document with apiVersion and kind is needed", 2)
  end
  return object
end

return deployment
