-- What Seldon's admission webhook refuses, found before anything is sent. No host calls and no state: the embedded API asks
-- the same function.
local fields = require "seldon.fields"
local near = require "seldon.near"

--- A table to read from: v itself, or an empty one for whatever else.
local function map(v) return type(v) == "table" and v or {} end

--- JSON's null is a userdata in each of the program's Lua states.
local function present(v) return v ~= nil and type(v) ~= "userdata" end

local function is_list(v) return type(v) == "table" and (next(v) == nil or v[1] ~= nil) end

local function is_map(v) return type(v) == "table" and v[1] == nil end

local function text(v) return type(v) == "string" and v ~= "" and v or nil end

local function whole(v) return type(v) == "number" and v % 1 == 0 end

local function shown(v) return type(v) == "string" and ("'%s'"):format(v) or present(v) and tostring(v) or "nothing" end

--- RFC 1123: what names of containers, Services and Istio subsets are made of.
local function is_label(v) return type(v) == "string" and #v <= 63 and v:find "^[a-z0-9][a-z0-9-]*$" and v:sub(-1) ~= "-" end

local function is_subdomain(v)
  if type(v) ~= "string" or v == "" or #v > 253 then return false end
  for part in (v .. "."):gmatch "([^.]*)%." do
    if not (part:find "^[a-z0-9][a-z0-9-]*$" and part:sub(-1) ~= "-") then return false end
  end
  return true
end

local LABEL = "is %s, which is no DNS label (RFC 1123): at most 63 lower case letters, digits and '-', with a letter or digit "
  .. "at both ends"

local Check = {}
Check.__index = Check

function Check:problem(field, message, ...)
  self.problems[#self.problems + 1] = { field = field, message = message:format(...) }
end

function Check:warning(field, message, ...)
  self.warnings[#self.warnings + 1] = { field = field, message = message:format(...) }
end

--- A list to walk; a problem when it is something else.
function Check:list(field, value, required)
  if present(value) and not is_list(value) then
    self:problem(field, "must be a list")
  elseif required and (not present(value) or #value == 0) then
    self:problem(field, "at least one is needed")
  end
  return is_list(value) and value or {}
end

function Check:map(field, value)
  if present(value) and not is_map(value) then self:problem(field, "must be a map") end
  return is_map(value) and value or {}
end

function Check:one_of(field, value, allowed)
  if present(value) and not (type(value) == "string" and allowed[value]) then
    self:problem(field, "is %s%s", shown(value), near(type(value) == "string" and value or "", allowed))
    return false
  end
  return true
end

function Check:count(field, value, most)
  if not present(value) then return end
  if not whole(value) or value < 0 or (most and value > most) then
    self:problem(field, "must be a whole number %s, not %s", most and ("from 0 to %d"):format(most) or "of 0 or more",
      shown(value))
  end
end

--- The API server drops fields that the resource does not have, without a word.
function Check:known(field, value, allowed)
  for key in pairs(value) do
    if type(key) == "string" and not allowed[key] then
      self:warning(field .. "." .. key, "is no field of it: the API server drops it%s", near(key, allowed))
    end
  end
end

local function implementation(node)
  local name = text(node.implementation)
  return name ~= "UNKNOWN_IMPLEMENTATION" and name or nil
end

-- ---- graph ----

function Check:parameters(field, node)
  for i, parameter in ipairs(self:list(field .. ".parameters", node.parameters)) do
    local at = ("%s.parameters[%d]"):format(field, i - 1)
    parameter = map(parameter)
    if not text(parameter.name) then self:problem(at .. ".name", "a name is needed") end
    if not present(parameter.value) then
      self:problem(at .. ".value", "a value is needed")
    elseif type(parameter.value) ~= "string" then
      self:problem(at .. ".value", "must be a text, not a %s: Seldon converts it by `type`", type(parameter.value))
    end
    self:one_of(at .. ".type", parameter.type, fields.parameter_types)
  end
end

function Check:server(field, node, at)
  local what, container = implementation(node), at.containers[node.name]
  if fields.builtin[what] then return end
  if not text(node.modelUri) and what ~= "HUGGINGFACE_SERVER" then
    self:problem(field .. ".modelUri", "%s needs the URI of a model", what)
  end
  if at.protocol == "tensorflow" and fields.not_tensorflow[what] then
    self:problem(field .. ".implementation", "%s does not speak protocol tensorflow: use seldon or v2", what)
  end
  if not fields.servers[what] and not text(map(container).image) then
    self:warning(field .. ".implementation", "%s is none of Seldon's own servers%s (an installation may have more, in the "
      .. "ConfigMap seldon-config)", what, near(what, fields.servers))
  elseif what == "TRITON_SERVER" and at.protocol ~= "v2" then
    self:warning(field .. ".implementation", "TRITON_SERVER speaks protocol v2 only")
  elseif what == "MLFLOW_SERVER" and at.protocol == "seldon" then
    self:warning(field .. ".implementation", "MLFLOW_SERVER with protocol seldon makes its conda environment when it starts, "
      .. "which takes minutes: protocol v2 does not, or give its container longer probes")
  end
  local scheme = (text(node.modelUri) or ""):match "^(%a[%w+.-]*):"
  if scheme == "models" or scheme == "runs" or scheme == "mlflow-artifacts" then
    self:warning(field .. ".modelUri", "Seldon's storage initializer does not know %s: URIs; give the place that they stand for",
      scheme)
  end
end

function Check:endpoint(field, node, at)
  local endpoint = self:map(field .. ".endpoint", node.endpoint)
  local kind = endpoint.type
  if not present(kind) or not self:one_of(field .. ".endpoint.type", kind, fields.endpoint_types) then return end
  if at.transport and kind:lower() ~= at.transport then
    self:problem(field .. ".endpoint.type", "is %s, but spec.transport is %s", kind, at.transport)
  elseif self.endpoint_type and self.endpoint_type ~= kind then
    self:problem(field .. ".endpoint.type", "is %s, another node has %s: one type for all", kind, self.endpoint_type)
  end
  self.endpoint_type = self.endpoint_type or kind
end

function Check:node(field, node, at)
  if not is_map(node) then return self:problem(field, "a graph node is a map with a name") end
  self:known(field, node, fields.graph)
  at.nodes = at.nodes + 1
  local name = text(node.name)
  if not name then
    self:problem(field .. ".name", "a name is needed")
  elseif not is_label(name) then
    self:problem(field .. ".name", LABEL, shown(name))
  elseif at.names[name] then
    self:warning(field .. ".name", "'%s' is the name of %s, too: metrics and routing cannot tell them apart", name, at.names[name])
  end
  if name then at.names[name] = at.names[name] or field end
  self:one_of(field .. ".type", node.type, fields.types)
  for i, method in ipairs(self:list(field .. ".methods", node.methods)) do
    self:one_of(("%s.methods[%d]"):format(field, i - 1), method, fields.methods)
  end
  if implementation(node) then
    self:server(field, node, at)
  elseif name and not at.containers[name] then
    if text(map(node.endpoint).service_host) then
      self:warning(field, "a node with endpoint.service_host and no container is refused by some versions of Seldon")
    else
      self:problem(field, "node '%s' needs an implementation, or a container of that name in componentSpecs%s", name,
        near(name, at.containers))
    end
  end
  if node.type == "UNKNOWN_TYPE" and not implementation(node) and #map(node.methods) == 0 then
    self:problem(field .. ".methods", "are needed with type UNKNOWN_TYPE")
  end
  self:parameters(field, node)
  self:endpoint(field, node, at)
  if present(node.logger) and not text(map(node.logger).mode) then
    self:problem(field .. ".logger.mode", "is needed with a logger: all, request or response")
  else
    self:one_of(field .. ".logger.mode", map(node.logger).mode, fields.logger_modes)
  end
  for i, child in ipairs(self:list(field .. ".children", node.children)) do
    self:node(("%s.children[%d]"):format(field, i - 1), child, at)
  end
end

-- ---- predictors ----

function Check:scaling(field, component)
  local hpa, pdb = component.hpaSpec, map(component.pdbSpec)
  if present(hpa) then
    hpa = self:map(field .. ".hpaSpec", hpa)
    self:count(field .. ".hpaSpec.minReplicas", hpa.minReplicas)
    if not whole(hpa.maxReplicas) or hpa.maxReplicas < 1 then
      self:problem(field .. ".hpaSpec.maxReplicas", "must be a whole number of 1 or more, not %s", shown(hpa.maxReplicas))
    elseif whole(hpa.minReplicas) and hpa.minReplicas > hpa.maxReplicas then
      self:problem(field .. ".hpaSpec.minReplicas", "is %d, more than maxReplicas (%d)", hpa.minReplicas, hpa.maxReplicas)
    end
  end
  if present(component.kedaSpec) then
    self:list(field .. ".kedaSpec.triggers", map(component.kedaSpec).triggers, true)
    if present(hpa) then self:problem(field .. ".kedaSpec", "and hpaSpec exclude each other: both set the replicas") end
  end
  if present(pdb.minAvailable) and present(pdb.maxUnavailable) then
    self:problem(field .. ".pdbSpec", "has minAvailable and maxUnavailable: one of them")
  end
end

--- The containers of a predictor by name.
function Check:components(field, predictor)
  local containers = {}
  for i, component in ipairs(self:list(field .. ".componentSpecs", predictor.componentSpecs)) do
    local at = ("%s.componentSpecs[%d]"):format(field, i - 1)
    component = self:map(at, component)
    self:known(at, component, fields.component)
    self:count(at .. ".replicas", component.replicas)
    self:scaling(at, component)
    for k, container in ipairs(self:list(at .. ".spec.containers", map(component.spec).containers)) do
      local place = ("%s.spec.containers[%d]"):format(at, k - 1)
      local name = map(container).name
      if not text(name) then
        self:problem(place .. ".name", "a name is needed: that of the graph node that it is")
      elseif not is_label(name) then
        self:problem(place .. ".name", LABEL, shown(name))
      elseif containers[name] then
        self:problem(place .. ".name", "there is another container '%s'", name)
      else
        containers[name] = container
      end
    end
  end
  return containers
end

--- Deployments whose names get too long are called by a digest.
function Check:derived_names(field, predictor)
  for i, component in ipairs(is_list(predictor.componentSpecs) and predictor.componentSpecs or {}) do
    local parts = { self.name or "", text(predictor.name) or "", tostring(i - 1) }
    for _, container in ipairs(map(map(map(component).spec).containers)) do
      parts[#parts + 1] = text(map(container).name) or ""
    end
    local name = table.concat(parts, "-")
    if #name > 63 then
      self:warning(field, "its Deployment would be called %s, which is over 63 characters: it gets a name of the form "
        .. "seldon-<digest>", name)
    end
  end
end

function Check:explainer(field, explainer)
  if not present(explainer) then return end
  explainer = self:map(field, explainer)
  self:known(field, explainer, fields.explainer)
  if present(explainer.type) and not fields.explainers[explainer.type] then
    self:warning(field .. ".type", "%s is none of Seldon's explainers%s", shown(explainer.type),
      near(tostring(explainer.type), fields.explainers))
  end
  self:count(field .. ".replicas", explainer.replicas)
end

local KAFKA = { "KAFKA_BROKER", "KAFKA_INPUT_TOPIC", "KAFKA_OUTPUT_TOPIC" }

function Check:kafka(field, predictor)
  local have = {}
  for _, entry in ipairs(map(map(predictor.svcOrchSpec).env)) do have[map(entry).name or ""] = true end
  for _, name in ipairs(KAFKA) do
    if not have[name] then self:problem(field .. ".svcOrchSpec.env", "serverType kafka needs %s", name) end
  end
end

function Check:predictor(field, predictor, spec)
  if not is_map(predictor) then return self:problem(field, "a predictor is a map with a name and a graph") end
  self:known(field, predictor, fields.predictor)
  local name = text(predictor.name)
  if not name then
    self:problem(field .. ".name", "a name is needed")
  elseif not is_label(name) then
    self:problem(field .. ".name", LABEL, shown(name))
  elseif self.predictors[name] then
    self:problem(field .. ".name", "'%s' is the name of %s, too", name, self.predictors[name])
  end
  if name then self.predictors[name] = self.predictors[name] or field end
  self:count(field .. ".replicas", predictor.replicas)
  self:count(field .. ".traffic", predictor.traffic, 100)
  if present(predictor.shadow) and type(predictor.shadow) ~= "boolean" then
    self:problem(field .. ".shadow", "must be true or false, not %s", shown(predictor.shadow))
  end
  self:count(field .. ".progressDeadlineSeconds", predictor.progressDeadlineSeconds)
  local annotations = self:map(field .. ".annotations", predictor.annotations)
  local service = annotations["seldon.io/svc-name"]
  if text(service) then
    if self.services[service] then
      self:problem(field .. ".annotations[seldon.io/svc-name]", "'%s' is that of %s, too", service, self.services[service])
    end
    self.services[service] = self.services[service] or field
  end
  local at = {
    containers = self:components(field, predictor), nodes = 0, names = {},
    protocol = text(spec.protocol) == "kfserving" and "v2" or text(spec.protocol) or "seldon", transport = text(spec.transport),
  }
  if not present(predictor.graph) then
    self:problem(field .. ".graph", "a graph is needed: a map with the name of its first node")
  else
    self:node(field .. ".graph", predictor.graph, at)
  end
  local no_engine = annotations["seldon.io/no-engine"] or map(spec.annotations)["seldon.io/no-engine"]
  if no_engine == "true" and at.nodes > 1 then
    self:problem(field .. ".annotations[seldon.io/no-engine]", "only a graph of one node can do without the engine; this one "
      .. "has %d", at.nodes)
  end
  if spec.serverType == "kafka" then self:kafka(field, predictor) end
  self:explainer(field .. ".explainer", predictor.explainer)
  self:derived_names(field, predictor)
end

function Check:traffic(predictors)
  local sum, shadows, ambassador_zero = 0, 0, nil
  for i, predictor in ipairs(predictors) do
    local traffic = whole(map(predictor).traffic) and predictor.traffic or 0
    if map(predictor).shadow == true then
      shadows = shadows + 1
    else
      sum = sum + traffic
      if i > 1 and traffic == 0 then ambassador_zero = ("spec.predictors[%d].traffic"):format(i - 1) end
    end
  end
  local others = #predictors - shadows
  if shadows > 1 then self:problem("spec.predictors", "%d of them are shadows: at most one can be", shadows) end
  if #predictors > 0 and others == 0 then
    self:problem("spec.predictors", "a shadow cannot be the only predictor: it answers nobody")
  elseif others > 1 and sum ~= 100 then
    self:problem("spec.predictors", "the traffic of those that are no shadow must add up to 100, not %d", sum)
  elseif #predictors == 1 and sum > 0 and sum < 100 then
    self:problem("spec.predictors[0].traffic", "is %d: the only predictor has 100 (or none is given)", sum)
  end
  if others > 1 and ambassador_zero then
    self:warning(ambassador_zero, "is 0: with Ambassador it gets an equal share in spite of that; leave the predictor out")
  end
end

--- validate(object) -> problems, warnings. Both are lists of { field, message }; no problems: Seldon's webhook takes it.
--- Fields are paths as the API writes them: "spec.predictors[0].graph.children[1].name".
---@param object table # a SeldonDeployment, decoded
---@return { field: string, message: string }[] problems
---@return { field: string, message: string }[] warnings
return function(object)
  local self = setmetatable({ problems = {}, warnings = {}, predictors = {}, services = {} }, Check)
  if not is_map(object) then
    self:problem("", "a SeldonDeployment is a map, not %s", shown(object))
    return self.problems, self.warnings
  end
  self.name = text(map(object.metadata).name)
  if not is_subdomain(self.name) then
    self:problem("metadata.name", "is %s, which is no DNS name (RFC 1123)", shown(map(object.metadata).name))
  elseif #self.name > 63 or self.name:find(".", 1, true) then
    self:warning("metadata.name", "is the first part of the names of Services: they take at most 63 characters and no dots")
  end
  local spec = self:map("spec", object.spec)
  self:known("spec", spec, fields.spec)
  self:one_of("spec.protocol", spec.protocol, fields.protocols)
  self:one_of("spec.transport", spec.transport, fields.transports)
  self:one_of("spec.serverType", spec.serverType, fields.server_types)
  self:count("spec.replicas", spec.replicas)
  self:map("spec.annotations", spec.annotations)
  local predictors = self:list("spec.predictors", spec.predictors, true)
  for i, predictor in ipairs(predictors) do self:predictor(("spec.predictors[%d]"):format(i - 1), predictor, spec) end
  self:traffic(predictors)
  return self.problems, self.warnings
end
