-- What Seldon Core's admission webhook asks of a SeldonDeployment, asked before it is sent; the embedded Kubernetes API asks
-- the same. Pure: no call leaves this file.
-- https://docs.seldon.io/projects/seldon-core/en/latest/reference/seldon-deployment.html (v1); rules of
-- operator/apis/machinelearning.seldon.io/v1/seldondeployment_webhook.go.

local PROTOCOLS = { seldon = true, v2 = true, kfserving = true, tensorflow = true }
local TRANSPORTS = { rest = true, grpc = true }
local SERVERS = { rpc = true, kafka = true }
local TYPES = { MODEL = true, ROUTER = true, COMBINER = true, TRANSFORMER = true, OUTPUT_TRANSFORMER = true, UNKNOWN_TYPE = true }
local METHODS = {
  TRANSFORM_INPUT = true, TRANSFORM_OUTPUT = true, ROUTE = true, AGGREGATE = true, SEND_FEEDBACK = true,
}
local BUILT_IN = { SIMPLE_MODEL = true, SIMPLE_ROUTER = true, RANDOM_ABTEST = true, AVERAGE_COMBINER = true }
-- Servers that fetch a model themselves, and whether they must be told where it is.
local PREPACKAGED = {
  SKLEARN_SERVER = true, XGBOOST_SERVER = true, MLFLOW_SERVER = true, TENSORFLOW_SERVER = true, TRITON_SERVER = true,
  TEMPO_SERVER = true, HUGGINGFACE_SERVER = false,
}
local NO_TENSORFLOW = { SKLEARN_SERVER = true, XGBOOST_SERVER = true, MLFLOW_SERVER = true, HUGGINGFACE_SERVER = true }
local PARAMETER_TYPES = { INT = true, FLOAT = true, DOUBLE = true, STRING = true, BOOL = true }
local LOGGER_MODES = { all = true, request = true, response = true }

local function words(set)
  local list = {}
  for word in pairs(set) do list[#list + 1] = word end
  table.sort(list)
  return table.concat(list, ", ")
end

local function list_of(value) return type(value) == "table" and value or {} end

local Checker = {}
Checker.__index = Checker

function Checker:add(field, format, ...)
  self.list[#self.list + 1] = { field = field, message = select("#", ...) > 0 and format:format(...) or format }
end

function Checker:one_of(field, value, set)
  if value ~= nil and value ~= "" and not set[value] then
    self:add(field, "'%s' is none of %s", tostring(value), words(set))
  end
end

--- RFC 1123: what a Kubernetes name may be.
function Checker:name(field, value, longest)
  if type(value) ~= "string" or value == "" then
    self:add(field, "is required")
  elseif #value > longest or not value:match "^[a-z0-9][a-z0-9%-]*$" or value:sub(-1) == "-" then
    self:add(field, "'%s' is no DNS-1123 name: at most %d of a-z, 0-9 and '-', a letter or digit at both ends", value, longest)
  end
end

--- The containers of a predictor, by name.
local function containers_of(predictor)
  local found = {}
  for _, spec in ipairs(list_of(predictor.componentSpecs)) do
    for _, container in ipairs(list_of(type(spec) == "table" and list_of(spec.spec).containers)) do
      if type(container) == "table" and container.name then found[container.name] = container end
    end
  end
  return found
end

function Checker:parameters(field, parameters)
  for i, one in ipairs(list_of(parameters)) do
    local at = ("%s[%d]"):format(field, i - 1)
    if type(one) ~= "table" or type(one.name) ~= "string" then
      self:add(at, "needs name, value and type")
    else
      self:one_of(at .. ".type", one.type, PARAMETER_TYPES)
      if type(one.value) ~= "string" then self:add(at .. ".value", "must be a text, not a %s", type(one.value)) end
    end
  end
end

function Checker:implementation(field, node, protocol, container)
  local name = node.implementation
  if BUILT_IN[name] then return end
  if PREPACKAGED[name] == nil then
    -- Installations may know more of them (ConfigMap seldon-config); a container with an image needs none of it.
    if not (container and container.image) and not name:match "_SERVER$" then
      self:add(field .. ".implementation", "'%s' is none of %s, %s", name, words(BUILT_IN), words(PREPACKAGED))
    end
    return
  end
  if PREPACKAGED[name] and (node.modelUri == nil or node.modelUri == "") then
    self:add(field .. ".modelUri", "is required by %s", name)
  end
  if NO_TENSORFLOW[name] and protocol == "tensorflow" then
    self:add(field .. ".implementation", "%s does not speak the protocol tensorflow", name)
  end
end

--- One node and those below it. `seen`: names of the graph; `kinds`: endpoint types.
function Checker:node(field, node, context)
  if type(node) ~= "table" then
    self:add(field, "is required: the graph of the predictor")
    return
  end
  self:name(field .. ".name", node.name, 63)
  local container = context.containers[node.name]
  if context.seen[node.name] then self:add(field .. ".name", "'%s' occurs twice in the graph", tostring(node.name)) end
  context.seen[node.name or ""] = true
  context.count = context.count + 1
  self:one_of(field .. ".type", node.type, TYPES)
  for i, method in ipairs(list_of(node.methods)) do self:one_of(("%s.methods[%d]"):format(field, i - 1), method, METHODS) end
  if node.type == "UNKNOWN_TYPE" and #list_of(node.methods) == 0 then
    self:add(field .. ".methods", "is required where the type is UNKNOWN_TYPE")
  end
  if node.implementation and node.implementation ~= "" and node.implementation ~= "UNKNOWN_IMPLEMENTATION" then
    self:implementation(field, node, context.protocol, container)
  elseif not container then
    self:add(field .. ".name", "no container '%s' in componentSpecs, and no implementation", tostring(node.name))
  elseif not container.image or container.image == "" then
    self:add(field .. ".name", "the container '%s' has no image", tostring(node.name))
  end
  self:parameters(field .. ".parameters", node.parameters)
  if type(node.logger) == "table" then
    if node.logger.mode == nil then
      self:add(field .. ".logger.mode", "is required: %s", words(LOGGER_MODES))
    else
      self:one_of(field .. ".logger.mode", node.logger.mode, LOGGER_MODES)
    end
  end
  local endpoint = type(node.endpoint) == "table" and node.endpoint.type
  if endpoint then
    self:one_of(field .. ".endpoint.type", endpoint, { REST = true, GRPC = true })
    context.endpoints[endpoint] = true
  end
  for i, child in ipairs(list_of(node.children)) do self:node(("%s.children[%d]"):format(field, i - 1), child, context) end
end

function Checker:predictor(index, predictor, spec)
  local field = ("spec.predictors[%d]"):format(index - 1)
  if type(predictor) ~= "table" then
    self:add(field, "must be an object")
    return
  end
  self:name(field .. ".name", predictor.name, 63)
  if self.names[predictor.name] then self:add(field .. ".name", "'%s' occurs twice", tostring(predictor.name)) end
  self.names[predictor.name or ""] = true
  for _, key in ipairs { "replicas", "traffic" } do
    local n = predictor[key]
    if n ~= nil and (math.type(n) ~= "integer" or n < 0 or key == "traffic" and n > 100) then
      self:add(field .. "." .. key, key == "traffic" and "must be a whole number from 0 to 100" or "must be a whole number from 0")
    end
  end
  local context = {
    containers = containers_of(predictor), seen = {}, count = 0, endpoints = {}, protocol = spec.protocol,
  }
  self:node(field .. ".graph", predictor.graph, context)
  local annotations = list_of(predictor.annotations)
  if annotations["seldon.io/no-engine"] == "true" and context.count > 1 then
    self:add(field .. ".annotations", "seldon.io/no-engine goes with a graph of one node, this one has %d", context.count)
  end
  local service = annotations["seldon.io/svc-name"]
  if service then
    if self.services[service] then self:add(field .. ".annotations", "seldon.io/svc-name '%s' occurs twice", service) end
    self.services[service] = true
  end
  if context.endpoints.REST and context.endpoints.GRPC then
    self:add(field .. ".graph", "REST and GRPC endpoints in one graph")
  end
  local transport = spec.transport
  if transport == "rest" and context.endpoints.GRPC or transport == "grpc" and context.endpoints.REST then
    self:add(field .. ".graph", "its endpoints do not fit spec.transport '%s'", transport)
  end
  for i, component in ipairs(list_of(predictor.componentSpecs)) do
    local hpa = type(component) == "table" and component.hpaSpec
    if type(hpa) == "table" and math.type(hpa.maxReplicas) ~= "integer" then
      self:add(("%s.componentSpecs[%d].hpaSpec.maxReplicas"):format(field, i - 1), "is required, a whole number")
    end
  end
end

function Checker:traffic(predictors)
  local live, shadows, sum, shown = 0, 0, 0, {}
  for _, predictor in ipairs(predictors) do
    if type(predictor) == "table" and predictor.shadow == true then
      shadows = shadows + 1
    elseif type(predictor) == "table" then
      live = live + 1
      sum = sum + (math.tointeger(predictor.traffic) or 0)
      shown[#shown + 1] = ("%s=%s"):format(tostring(predictor.name), tostring(predictor.traffic or 0))
    end
  end
  if shadows > 1 then self:add("spec.predictors", "%d shadows, one at most is possible", shadows) end
  if live == 0 and shadows > 0 then self:add("spec.predictors", "a shadow cannot be the only predictor") end
  if live > 1 and sum ~= 100 then
    self:add("spec.predictors", "traffic adds up to %d (%s), it must be 100", sum, table.concat(shown, ", "))
  elseif live == 1 and sum ~= 0 and sum ~= 100 then
    self:add("spec.predictors", "a single predictor has traffic 0 or 100, not %d", sum)
  end
end

--- validate(object) -> list of { field, message }; empty when Seldon would take it
---@param object table # a SeldonDeployment (v1)
---@return { field: string, message: string }[]
local function validate(object)
  local checker = setmetatable({ list = {}, names = {}, services = {} }, Checker)
  local meta, spec = list_of(object.metadata), object.spec
  if meta.generateName == nil then checker:name("metadata.name", meta.name, 63) end
  if type(spec) ~= "table" then
    checker:add("spec", "is required")
    return checker.list
  end
  checker:one_of("spec.protocol", spec.protocol, PROTOCOLS)
  checker:one_of("spec.transport", spec.transport, TRANSPORTS)
  checker:one_of("spec.serverType", spec.serverType, SERVERS)
  local predictors = list_of(spec.predictors)
  if #predictors == 0 then
    checker:add("spec.predictors", "at least one predictor is needed")
    return checker.list
  end
  for i, predictor in ipairs(predictors) do checker:predictor(i, predictor, spec) end
  checker:traffic(predictors)
  return checker.list
end

return validate
