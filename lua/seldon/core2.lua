-- Seldon Core 2 (mlops.seldon.io/v1alpha1): Model, Server, Pipeline, Experiment.
-- https://docs.seldon.ai/seldon-core-2/resources
local time = require "time"
local vm = require "vm"

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
      local near = vm.near(tostring(key), names)
      error(("%s: unknown key '%s'%s"):format(what, tostring(key),
        near and (" (did you mean '%s'?)"):format(near) or "; known: " .. table.concat(names, ", ")), 0)
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

function rules.Pipeline(spec, add)
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
    local step = tostring(source):match "^([^.]+)"
    if step ~= nil and not known[step] and not (spec.input and tostring(source):find("%.inputs") or step == spec.name) then
      add(field, ("'%s' names no step"):format(tostring(source)))
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
    rules[object.kind](object.spec, add)
  end
  return list
end

-- ---- waiting: observedGeneration is not set here either ----

local function condition(object, kind)
  for _, one in ipairs(type(object.status) == "table" and object.status.conditions or {}) do
    if one.type == kind then return one end
  end
end

local FINAL = { ScheduleFailed = true, ModelFailed = true, PipelineFailed = true, ExperimentFailed = true }

--- Why it is not ready yet; nil when it is. Second result: no waiting will help.
---@private
function core2.missing(object, written)
  local ready = condition(object, "Ready")
  if not ready then return "no condition Ready yet" end
  if written and ready.lastTransitionTime and ready.lastTransitionTime < written and ready.status ~= "True" then
    return "its conditions are older than the last write"
  end
  if ready.status ~= "True" then
    for _, one in ipairs(object.status.conditions) do
      if one.status == "False" and FINAL[one.reason] then
        return ("%s: %s"):format(one.reason, one.message or one.type), true
      end
    end
    return ("Ready is %s%s%s"):format(tostring(ready.status), ready.reason and ", " .. ready.reason or "",
      ready.message and ": " .. ready.message or "")
  end
  local wanted, available = object.spec.replicas, object.status.availableReplicas
  if object.kind == "Model" and wanted and available and available < (object.spec.minReplicas or wanted) then
    return ("%d of %d replicas are available"):format(available, wanted)
  end
end

--- core2.available(cluster, object, { timeout }) -> the object as it is then
---@private
function core2.available(cluster, object, options)
  local meta, written = object.metadata, time.iso()
  local why
  local found, err = try(cluster.wait, cluster, { apiVersion = VERSION, kind = object.kind }, meta.name, function(current)
    if not current then return false end
    local final
    why, final = core2.missing(current, written)
    if final then
      error(("%s %s is not available: %s"):format(object.kind, meta.name, why), 0)
    end
    return why == nil
  end, { timeout = options.timeout or "5m", namespace = meta.namespace })
  if found then return found end
  if err.code == "timeout" then
    error(("%s %s is not available in time: %s"):format(object.kind, meta.name, why or "nothing was heard"), 0)
  end
  error(err, 0)
end

return core2
