-- Seldon Core 2 (mlops.seldon.io/v1alpha1): Model, Server, Pipeline, Experiment.
-- https://docs.seldon.ai/seldon-core-2/resources
local near = require "seldon.near"
local predict = require "seldon.predict"
local time = require "time"
local _, vm = ...

local core2 = {}

local VERSION = "mlops.seldon.io/v1alpha1"
local KINDS = { Model = true, Server = true, Pipeline = true, Experiment = true }

local function check_keys(what, options, allowed)
  if type(options) ~= "table" then error(("%s: a table is needed, not %s"):format(what, type(options)), 0) end
  if type(options.name) ~= "string" then error(what .. ": name is missing", 0) end
  local names = {}
  for name in pairs(allowed) do names[#names + 1] = name end
  table.sort(names)
  for key in pairs(options) do
    if not allowed[key] and key ~= "name" and key ~= "namespace" and key ~= "annotations" and key ~= "labels" then
      error(("%s: unknown key '%s'%s"):format(what, tostring(key), near(key, names)), 0)
    end
  end
end

local function build(kind, options, fields)
  check_keys("seldon." .. kind:lower(), options, fields)
  local spec = {}
  for key, wire in pairs(fields) do spec[wire] = options[key] end
  return {
    apiVersion = VERSION, kind = kind, spec = spec,
    metadata = {
      name = options.name, namespace = options.namespace, annotations = options.annotations, labels = options.labels,
    },
  }
end

--- seldon.model{ name, uri, requirements?, memory?, replicas?, min_replicas?, max_replicas?, server?, secret?, explainer?,
---   parameters? = { name = value }, logger?, type?, version?, schema?, dedicated?, preloaded?, llm? } -> Model
function core2.model(options)
  local object = build("Model", options, {
    uri = "storageUri", requirements = "requirements", memory = "memory", replicas = "replicas", min_replicas = "minReplicas",
    max_replicas = "maxReplicas", server = "server", secret = "secretName", explainer = "explainer", logger = "logger",
    type = "modelType", version = "artifactVersion", schema = "schemaUri", dedicated = "dedicated", preloaded = "preloaded",
    llm = "llm", parameters = "parameters", dataflow = "dataflow",
  })
  if type(options.parameters) == "table" and #options.parameters == 0 then
    local names, list = {}, {}
    for name in pairs(options.parameters) do names[#names + 1] = name end
    table.sort(names)
    for i, name in ipairs(names) do list[i] = { name = name, value = tostring(options.parameters[name]) } end
    object.spec.parameters = list
  end
  return object
end

--- seldon.server{ name, config = "mlserver" | "triton", capabilities?, extra_capabilities?, replicas?, pod? ... } -> Server
function core2.server(options)
  return build("Server", options, {
    config = "serverConfig", capabilities = "capabilities", extra_capabilities = "extraCapabilities", replicas = "replicas",
    min_replicas = "minReplicas", max_replicas = "maxReplicas", pod = "podSpec", images = "imageOverrides",
    strategy = "deploymentStrategy", disable_auto_update = "disableAutoUpdate",
  })
end

--- seldon.pipeline{ name, steps = { { name, inputs?, triggers? ... } }, output? = { steps = { ... } }, input? } -> Pipeline
function core2.pipeline(options)
  return build("Pipeline", options, {
    steps = "steps", output = "output", input = "input", dataflow = "dataflow", allow_cycles = "allowCycles",
    max_revisits = "maxStepRevisits",
  })
end

--- seldon.experiment{ name, candidates = { { name, weight } }, default?, mirror? = { name, percent }, resource_type? }
---   -> Experiment
function core2.experiment(options)
  return build("Experiment", options, {
    candidates = "candidates", default = "default", mirror = "mirror", resource_type = "resourceType",
  })
end

function core2.is(object) return object.apiVersion == VERSION and KINDS[object.kind] or false end

-- ---- what the CRDs and the scheduler refuse ----

local rules = {}

function rules.Model(spec, add)
  if spec.explainer and spec.llm then add("spec", "explainer and llm exclude each other") end
  if not spec.storageUri and not spec.explainer and not spec.llm then add("spec.storageUri", "is required") end
  for _, key in ipairs { "replicas", "minReplicas", "maxReplicas" } do
    if spec[key] ~= nil and (math.type(spec[key]) ~= "integer" or spec[key] < 0) then
      add("spec." .. key, "must be a whole number from 0")
    end
  end
  local least, most, now = spec.minReplicas or 0, spec.maxReplicas or math.huge, spec.replicas
  if now and (now < least or now > most) then add("spec.replicas", "must be between minReplicas and maxReplicas") end
  local explained = type(spec.explainer) == "table" and spec.explainer
  if explained and explained.modelRef and explained.pipelineRef then
    add("spec.explainer", "modelRef and pipelineRef exclude each other")
  end
end

function rules.Server(spec, add)
  if type(spec.serverConfig) ~= "string" then add("spec.serverConfig", "is required: mlserver, triton, or one of your own") end
end

function rules.Pipeline(spec, add, name)
  local steps = type(spec.steps) == "table" and spec.steps or {}
  if #steps == 0 then add("spec.steps", "at least one step is needed") end
  local known = {}
  for i, step in ipairs(steps) do
    local field = ("spec.steps[%d]"):format(i - 1)
    if type(step.name) ~= "string" then
      add(field .. ".name", "is required")
    elseif known[step.name] then
      add(field .. ".name", ("'%s' occurs twice"):format(step.name))
    end
    known[step.name or ""] = true
  end
  local function check_source(field, source)
    local step = tostring(source):match "^([^.]+)" -- of step.outputs.tensor, or of the pipeline itself: name.inputs.tensor
    if step ~= name and not known[step or ""] then
      add(field, ("'%s' names no step%s"):format(tostring(source), near(step, known)))
    end
  end
  for i, step in ipairs(steps) do
    for k, source in ipairs(step.inputs or {}) do check_source(("spec.steps[%d].inputs[%d]"):format(i - 1, k - 1), source) end
  end
  for i, source in ipairs(type(spec.output) == "table" and spec.output.steps or {}) do
    check_source(("spec.output.steps[%d]"):format(i - 1), source)
  end
end

function rules.Experiment(spec, add)
  local candidates = type(spec.candidates) == "table" and spec.candidates or {}
  if #candidates == 0 then add("spec.candidates", "at least one candidate is needed") end
  local default_there = spec.default == nil
  for i, candidate in ipairs(candidates) do
    local field = ("spec.candidates[%d]"):format(i - 1)
    if type(candidate.name) ~= "string" then add(field .. ".name", "is required") end
    if math.type(candidate.weight) ~= "integer" or candidate.weight < 0 then
      add(field .. ".weight", "must be a whole number from 0")
    end
    default_there = default_there or candidate.name == spec.default
  end
  if not default_there then add("spec.default", ("'%s' is none of the candidates"):format(spec.default)) end
  local mirror = type(spec.mirror) == "table" and spec.mirror
  if mirror and (math.type(mirror.percent) ~= "integer" or mirror.percent < 0 or mirror.percent > 100) then
    add("spec.mirror.percent", "must be a whole number from 0 to 100")
  end
end

--- core2.validate(object) -> list of { field, message }
---@private
function core2.validate(object)
  local list = {}
  local function add(field, text) list[#list + 1] = { field = field, message = text } end
  if type(object.spec) ~= "table" then
    add("spec", "is required")
  else
    rules[object.kind](object.spec, add, object.metadata and object.metadata.name)
  end
  return list
end

-- ---- waiting: observedGeneration is not set here either ----

local function map(value) return type(value) == "table" and value or {} end

local function condition(object, kind)
  for _, one in ipairs(map(map(object).status).conditions or {}) do
    if one.type == kind then return one end
  end
end

local FINAL = {
  ScheduleFailed = true, ModelFailed = true, ModelTerminateFailed = true, PipelineFailed = true, ExperimentFailed = true,
  NotSupported = true,
}
local SETTLED = 30 -- seconds in which a write that changes something shows in a condition

--- The condition that says why, before the one that only says so.
local function culprit(object)
  local found
  for _, one in ipairs(map(object.status).conditions or {}) do
    if one.status == "False" and FINAL[one.reason] and (not found or found.type == "Ready") then found = one end
  end
  return found
end

--- core2.missing(object, before, elapsed) -> why it is not ready yet, or nil when it is; second result: no waiting helps
---
--- A condition may still be that of the spec before: until it has changed, or for so long that the scheduler must have seen
--- both, it does not count.
---@param object table # as the server has it
---@param before table? # its condition Ready before the write; nil: the write has changed nothing, or there was none
---@param elapsed number # seconds since the write
---@return string?, boolean?
---@private
function core2.missing(object, before, elapsed)
  local ready = condition(object, "Ready")
  if not ready then return "no condition Ready yet" end
  if before and elapsed < SETTLED and ready.lastTransitionTime == before.lastTransitionTime and ready.status == before.status
    and ready.reason == before.reason then
    return "its conditions are those of the spec before"
  end
  if ready.status ~= "True" then
    local final = culprit(object)
    if final then return ("%s: %s"):format(final.reason, final.message or final.type), true end
    return ("Ready is %s%s%s"):format(tostring(ready.status), ready.reason and ", " .. ready.reason or "",
      ready.message and ": " .. ready.message or "")
  end
  local wanted, available = object.spec.replicas, map(object.status).availableReplicas
  if object.kind == "Model" and type(wanted) == "number" and type(available) == "number"
    and available < (tonumber(object.spec.minReplicas) or wanted) then
    return ("%d of %d replicas are available"):format(available, wanted)
  end
end

local function seconds(timeout)
  timeout = timeout or "5m"
  return type(timeout) == "number" and timeout or time.duration(timeout)
end

--- core2.available(cluster, object, { timeout, before? }) -> the object as it is then. Waits on a watch; what happens only
--- because time goes by is looked at every two seconds.
---@private
function core2.available(cluster, object, options)
  local meta, kind = object.metadata, { apiVersion = VERSION, kind = object.kind }
  local begun = time.now()
  local deadline = begun + seconds(options.timeout)
  local said
  while true do
    local current = cluster:get(kind, meta.name, { namespace = meta.namespace })
    local why, final = "it is not there", nil
    if current then why, final = core2.missing(current, options.before, time.now() - begun) end
    if not why then return current end
    if why ~= said then
      log.info("%s %s/%s: %s", object.kind, meta.namespace, meta.name, why)
      said = why
    end
    local now = time.now()
    if final or now >= deadline then
      error(vm.new_error {
        service = "seldon", code = final and "failed" or "timeout",
        message = ("%s %s/%s is not available%s: %s"):format(object.kind, meta.namespace, meta.name,
          final and "" or (" after %d s"):format(math.floor(now - begun)), why),
        hint = why:find("^ScheduleFailed") and "no server has the capability, the memory and the replicas that it asks for: see "
          .. "its requirements and memory, and the Servers" or nil,
      }, 0)
    end
    for _ in cluster:watch(kind, { -- luacheck: ignore 512
      namespace = meta.namespace, name = meta.name, resource_version = current and current.metadata.resourceVersion,
      timeout = math.max(0.1, math.min(2, deadline - now)),
    }) do
      break
    end
  end
end

--- core2.deploy(cluster, object, { timeout?, force? }) -> the object, ready; and whether anything was changed
---@private
function core2.deploy(cluster, object, options)
  local kind, meta = { apiVersion = VERSION, kind = object.kind }, object.metadata
  local before = cluster:get(kind, meta.name, { namespace = meta.namespace })
  local after = cluster:apply(object, { force = options.force, namespace = meta.namespace })
  local changed = not before or before.metadata.generation ~= after.metadata.generation
  return core2.available(cluster, object, {
    timeout = options.timeout, before = changed and before and condition(before, "Ready") or nil,
  }), changed
end

-- ---- what one does with them ----

local Resource = {}
Resource.__index = Resource

--- core2.resource(connection, object, changed, client) -> a resource: what s:deploy and s:resource give for Core 2
---@private
function core2.resource(connection, object, changed)
  return setmetatable({
    connection = connection, cluster = connection.cluster, kind = object.kind, name = object.metadata.name,
    namespace = object.metadata.namespace, object = object, status = map(object.status), changed = changed,
  }, Resource)
end

--- core2.find(connection, kind, name) -> resource, or nil
---@private
function core2.find(connection, kind, name)
  if not KINDS[kind] then error(("seldon: '%s' is none of Experiment, Model, Pipeline, Server"):format(tostring(kind)), 3) end
  local object = connection.cluster:get({ apiVersion = VERSION, kind = kind }, name, { namespace = connection.namespace })
  return object and core2.resource(connection, object, false)
end

--- resource:wait{ timeout = "5m" } -> itself, ready
function Resource:wait(options)
  self.object = core2.available(self.cluster, self.object, options or {})
  self.status = map(self.object.status)
  return self
end

--- resource:delete{ wait = true, timeout = "1m" } -> was it there?
function Resource:delete(options)
  options = options or {}
  return self.cluster:delete({ apiVersion = VERSION, kind = self.kind }, self.name, {
    namespace = self.namespace, wait = options.wait ~= false, timeout = options.timeout,
  })
end

--- What somebody has to send to get the spec of a Model under another name.
local function renamed(model, name, namespace)
  local spec = {}
  for key, value in pairs(model.spec) do
    if type(value) ~= "userdata" then spec[key] = value end
  end
  return { apiVersion = VERSION, kind = "Model", metadata = { name = name, namespace = namespace }, spec = spec }
end

--- experiment:promote(candidate, { timeout?, force?, keep = false }) -> resource: the experiment's default, which is now what
--- the candidate is
---
--- In this order, so that no request fails: the default Model gets the candidate's spec (Core 2 serves its old version until
--- the new one is available) while the experiment goes on; then the experiment goes, and all requests are the default's; then
--- the candidate, unless keep.
function Resource:promote(candidate, options)
  options = options or {}
  local spec = self.object.spec
  if self.kind ~= "Experiment" or spec.resourceType == "pipeline" then
    error("promote: of an Experiment of Models; deploy the Pipeline's new steps instead", 2)
  end
  if type(spec.default) ~= "string" then error(("promote: experiment %s has no default to replace"):format(self.name), 2) end
  local names = {}
  for i, one in ipairs(spec.candidates) do names[i] = one.name end
  local known = {}
  for _, name in ipairs(names) do known[name] = true end
  if not known[candidate] or candidate == spec.default then
    error(("promote: '%s' is no candidate beside the default%s"):format(tostring(candidate), near(candidate, names)), 2)
  end
  local kind = { apiVersion = VERSION, kind = "Model" }
  local model = self.cluster:get(kind, candidate, { namespace = self.namespace })
  if not model then error(("promote: there is no Model %s/%s"):format(self.namespace, candidate), 2) end
  local promoted = core2.deploy(self.cluster, renamed(model, spec.default, self.namespace), options)
  self:delete { timeout = options.timeout }
  if not options.keep then self.cluster:delete(kind, candidate, { namespace = self.namespace }) end
  return core2.resource(self.connection, promoted, true)
end

local ROUTES = { Model = "%s", Pipeline = "%s.pipeline", Experiment = "%s.experiment" }

--- resource:client(options?) -> a client that speaks v2 through the mesh, told apart by the header Seldon-Model
function Resource:client(options)
  local all, connection = {}, self.connection
  for key, value in pairs(options or {}) do all[key] = value end
  if not ROUTES[self.kind] then error(("a %s answers no requests"):format(self.kind), 2) end
  if not connection.ingress then
    error(vm.new_error { service = "seldon", code = "not_found", message = "no ingress is configured",
      hint = "add profiles.<profile>.seldon.ingress to mlhost.yaml (that of the service seldon-mesh), or set SELDON_INGRESS" }, 0)
  end
  all.client, all.url, all.protocol, all.model = connection.ingress, connection.url, "v2", all.model or self.name
  all.headers = { ["Seldon-Model"] = ROUTES[self.kind]:format(self.name) }
  if connection.host then all.headers.Host = connection.host end
  for key, value in pairs(options and options.headers or {}) do all.headers[key] = value end
  return predict.client(all)
end

return core2
