-- Settings of tasks and pipelines that only Kubernetes knows: the second document of a compiled pipeline.
--
-- Field names: KubernetesExecutorConfig of kubernetes_platform/proto/kubernetes_executor_config.proto.
local channel = require "kubeflow.channel"
local fail = require "kubeflow.fail"
local task = require "kubeflow.task"

local platform = {}
local methods = task.methods

local function settings(self, method)
  local t = task.container_of(self, method)
  return t, t.platform
end

local function append(map, key, item)
  map[key] = map[key] or {}
  table.insert(map[key], item)
end

--- A value as an input parameter of the platform: a constant, a parameter of the pipeline, an output of a task.
local function parameter(t, value, what)
  local c = channel.of(value)
  if not c then
    if type(value) ~= "string" and type(value) ~= "table" then
      fail.raise("task '%s': %s is a text or a reference, not a %s", t.name, what, type(value))
    end
    return { runtimeValue = { constant = value } }
  end
  if c.kind ~= "param" then fail.raise("task '%s': %s cannot be an artifact", t.name, what) end
  if c.loop == "variable" then
    fail.raise("task '%s': %s cannot be a field of a loop item; loop over plain values", t.name, what)
  end
  task.register(t, c)
  return { channel = c } -- the compiler knows by which name the task's surroundings have it
end

local function text(t, value, what)
  if type(value) ~= "string" then fail.raise("task '%s': %s is a text, not a %s", t.name, what, type(value)) end
  return value
end

local function named(t, entry, field, value, what)
  entry[field .. "Parameter"] = parameter(t, value, what)
  if type(value) == "string" then entry[field] = value end
  return entry
end

local function key_to_env(t, map, key_field, what)
  if type(map) ~= "table" or next(map) == nil then
    fail.raise("task '%s': %s needs { key = \"ENVIRONMENT_VARIABLE\" }", t.name, what)
  end
  local list = {}
  for _, key in ipairs(fail.sorted_keys(map)) do
    list[#list + 1] = { [key_field] = key, envVar = text(t, map[key], what .. " variable") }
  end
  return list
end

local function optional(options) return options ~= nil and options.optional == true end

--- task:secret_env("secret", { key = "VARIABLE" }, { optional = true }): keys of a secret as environment
function methods.secret_env(self, name, map, options)
  local t, p = settings(self, "secret_env")
  append(p, "secretAsEnv", named(t, {
    keyToEnv = key_to_env(t, map, "secretKey", "secret_env"), optional = optional(options),
  }, "secretName", name, "secret_env"))
  return self
end

--- task:secret_volume("secret", "/mount/path", { optional = true }): a secret's keys as files
function methods.secret_volume(self, name, path, options)
  local t, p = settings(self, "secret_volume")
  append(p, "secretAsVolume", named(t, {
    mountPath = text(t, path, "secret_volume path"), optional = optional(options),
  }, "secretName", name, "secret_volume"))
  return self
end

--- task:config_map_env("map", { key = "VARIABLE" }, { optional = true })
function methods.config_map_env(self, name, map, options)
  local t, p = settings(self, "config_map_env")
  append(p, "configMapAsEnv", named(t, {
    keyToEnv = key_to_env(t, map, "configMapKey", "config_map_env"), optional = optional(options),
  }, "configMapName", name, "config_map_env"))
  return self
end

--- task:config_map_volume("map", "/mount/path", { optional = true })
function methods.config_map_volume(self, name, path, options)
  local t, p = settings(self, "config_map_volume")
  append(p, "configMapAsVolume", named(t, {
    mountPath = text(t, path, "config_map_volume path"), optional = optional(options),
  }, "configMapName", name, "config_map_volume"))
  return self
end

--- task:mount_pvc{ claim = "name" or a reference, path = "/data", sub_path? }
function methods.mount_pvc(self, spec)
  local t, p = settings(self, "mount_pvc")
  fail.check_keys(("task '%s': mount_pvc"):format(t.name), spec, { claim = true, path = true, sub_path = true })
  local entry = {
    mountPath = text(t, spec.path, "mount_pvc path"), subPath = spec.sub_path,
    pvcNameParameter = parameter(t, spec.claim, "mount_pvc claim"),
  }
  local c = channel.of(spec.claim)
  if c then
    entry.deprecated_name = c
    if c.task then t.waits_for[#t.waits_for + 1] = c.task end
  else
    entry.constant = spec.claim
  end
  append(p, "pvcMount", entry)
  return self
end

--- task:node_selector{ ["kubernetes.io/arch"] = "amd64" }, or a reference to a dict
function methods.node_selector(self, labels)
  local t, p = settings(self, "node_selector")
  p.nodeSelector = p.nodeSelector or {}
  if channel.of(labels) then
    p.nodeSelector.nodeSelectorJson = parameter(t, labels, "node_selector")
    return self
  end
  p.nodeSelector.labels = p.nodeSelector.labels or {}
  for key, value in pairs(labels) do
    p.nodeSelector.labels[text(t, key, "node_selector label")] = text(t, value, "node_selector label")
  end
  return self
end

local OPERATORS = { Equal = true, Exists = true }
local EFFECTS = { NoExecute = true, NoSchedule = true, PreferNoSchedule = true }

--- task:toleration{ key =, operator = "Equal" | "Exists", value =, effect = "NoSchedule" | "PreferNoSchedule" |
--- "NoExecute", seconds = }, or a reference to a dict or list of such
function methods.toleration(self, spec)
  local t, p = settings(self, "toleration")
  if channel.of(spec) then
    append(p, "tolerations", { tolerationJson = parameter(t, spec, "toleration") })
    return self
  end
  local what = ("task '%s': toleration"):format(t.name)
  fail.check_keys(what, spec, { key = true, operator = true, value = true, effect = true, seconds = true })
  if spec.operator and not OPERATORS[spec.operator] then
    fail.raise("%s: operator '%s' is neither Equal nor Exists", what, tostring(spec.operator))
  end
  if spec.effect and not EFFECTS[spec.effect] then
    fail.raise("%s: unknown effect '%s'%s", what, tostring(spec.effect),
      fail.near(spec.effect, fail.sorted_keys(EFFECTS)))
  end
  append(p, "tolerations", {
    key = spec.key, operator = spec.operator, value = spec.value, effect = spec.effect,
    tolerationSeconds = spec.seconds and ("%d"):format(spec.seconds) or nil,
  })
  return self
end

--- task:node_affinity{ ... }: a Kubernetes nodeAffinity as data, or a reference to a dict
function methods.node_affinity(self, affinity)
  local t, p = settings(self, "node_affinity")
  append(p, "nodeAffinity", { nodeAffinityJson = parameter(t, affinity, "node_affinity") })
  return self
end

local POLICIES = { Always = true, Never = true, IfNotPresent = true }

--- task:image_pull_policy "Always" | "IfNotPresent" | "Never"
function methods.image_pull_policy(self, policy)
  local t, p = settings(self, "image_pull_policy")
  if not POLICIES[policy] then
    fail.raise("task '%s': unknown image pull policy '%s'%s", t.name, tostring(policy),
      fail.near(policy, fail.sorted_keys(POLICIES)))
  end
  p.imagePullPolicy = policy
  return self
end

--- task:image_pull_secrets("name", ...): texts or references
function methods.image_pull_secrets(self, ...)
  local t, p = settings(self, "image_pull_secrets")
  for i = 1, select("#", ...) do
    append(p, "imagePullSecret", named(t, {}, "secretName", (select(i, ...)), "image_pull_secrets"))
  end
  return self
end

--- task:timeout "20m" (or seconds): the task's pod is ended after this time
function methods.timeout(self, duration)
  local t, p = settings(self, "timeout")
  local seconds = task.seconds(duration, ("task '%s': timeout"):format(t.name))
  p.activeDeadlineSeconds = seconds > 0 and ("%d"):format(seconds) or nil
  return self
end

local function metadata(method, field)
  methods[method] = function(self, key, value)
    local t, p = settings(self, method)
    p.podMetadata = p.podMetadata or {}
    p.podMetadata[field] = p.podMetadata[field] or {}
    local map = type(key) == "table" and key or { [key] = value }
    for k, v in pairs(map) do p.podMetadata[field][text(t, k, method)] = text(t, v, method) end
    return self
  end
end

--- task:pod_label("key", "value"), or a map
metadata("pod_label", "labels")
--- task:pod_annotation("key", "value"), or a map
metadata("pod_annotation", "annotations")

--- task:field_env("VARIABLE", "metadata.name"): a field of the pod as environment
function methods.field_env(self, name, path)
  local t, p = settings(self, "field_env")
  append(p, "fieldPathAsEnv", { name = text(t, name, "field_env"), fieldPath = text(t, path, "field_env path") })
  return self
end

--- task:empty_dir{ name =, path =, medium = "Memory"?, size = "1Gi"? }
function methods.empty_dir(self, spec)
  local t, p = settings(self, "empty_dir")
  fail.check_keys(("task '%s': empty_dir"):format(t.name), spec,
    { name = true, path = true, medium = true, size = true })
  append(p, "emptyDirMounts", {
    volumeName = text(t, spec.name, "empty_dir name"), mountPath = text(t, spec.path, "empty_dir path"),
    medium = spec.medium, sizeLimit = spec.size,
  })
  return self
end

--- task:ephemeral_volume{ name =, path =, size =, access_modes = { ... }, storage_class?, labels?, annotations? }
function methods.ephemeral_volume(self, spec)
  local t, p = settings(self, "ephemeral_volume")
  fail.check_keys(("task '%s': ephemeral_volume"):format(t.name), spec, {
    name = true, path = true, size = true, access_modes = true, storage_class = true, labels = true, annotations = true,
  })
  append(p, "genericEphemeralVolume", {
    volumeName = text(t, spec.name, "ephemeral_volume name"), mountPath = text(t, spec.path, "ephemeral_volume path"),
    size = text(t, spec.size, "ephemeral_volume size"), accessModes = spec.access_modes,
    defaultStorageClass = spec.storage_class == nil or nil, storageClassName = spec.storage_class,
    metadata = (spec.labels or spec.annotations) and { labels = spec.labels, annotations = spec.annotations } or nil,
  })
  return self
end

--- task:security_context{ user = 1000, group = 1000, non_root = true }
function methods.security_context(self, spec)
  local t, p = settings(self, "security_context")
  fail.check_keys(("task '%s': security_context"):format(t.name), spec, { user = true, group = true, non_root = true })
  p.securityContext = {
    runAsUser = spec.user and ("%d"):format(spec.user) or nil,
    runAsGroup = spec.group and ("%d"):format(spec.group) or nil,
    runAsNonRoot = spec.non_root,
  }
  return self
end

--- task:init_container{ name =, image =, command?, args?, env?, mounts? = { volume = "/path" } }
function methods.init_container(self, spec)
  local t, p = settings(self, "init_container")
  fail.check_keys(("task '%s': init_container"):format(t.name), spec, {
    name = true, image = true, command = true, args = true, env = true, mounts = true,
  })
  local env, mounts = {}, {}
  for _, name in ipairs(fail.sorted_keys(spec.env or {})) do env[#env + 1] = { name = name, value = spec.env[name] } end
  for _, volume in ipairs(fail.sorted_keys(spec.mounts or {})) do
    mounts[#mounts + 1] = { volumeName = volume, mountPath = spec.mounts[volume] }
  end
  append(p, "initContainers", {
    name = text(t, spec.name, "init_container name"), image = text(t, spec.image, "init_container image"),
    command = spec.command, args = spec.args, env = #env > 0 and env or nil,
      volumeMounts = #mounts > 0 and mounts or nil,
  })
  return self
end

-- ---- in the compiled pipeline ----

--- Where the task's surroundings have a channel: an input of theirs, or an output of a neighbour.
local function located(c, parent_inputs, siblings)
  if c.task and siblings[c.task.name] then
    return { taskOutputParameter = { producerTask = c.task.name, outputParameterKey = c.name } }
  end
  local name = channel.full_name(c)
  if c.task or not parent_inputs[name] then name = channel.injected_name(c) end
  return { componentInputParameter = name }
end

local function resolved(value, parent_inputs, siblings)
  if type(value) ~= "table" then return value end
  if value.channel then return located(value.channel, parent_inputs, siblings) end
  local copy = setmetatable({}, getmetatable(value))
  for key, item in pairs(value) do
    if key == "deprecated_name" then -- what servers before version 2.5 read
      for k, v in pairs(located(item, parent_inputs, siblings)) do copy[k] = v end
    else
      copy[key] = resolved(item, parent_inputs, siblings)
    end
  end
  return copy
end

--- of_task(task, parent_inputs, siblings) -> its settings as the platform document has them, or nil
function platform.of_task(t, parent_inputs, siblings)
  if next(t.platform) == nil then return nil end
  return resolved(t.platform, parent_inputs, siblings)
end

local CONFIG = { workspace = true, ttl = true, ttl_success = true, ttl_failure = true, deadline = true }

--- of_pipeline(config, what) -> pipelineConfig of the platform document, or nil
---   config { workspace = { size = "10Gi", storage_class?, access_modes?, pvc? = { ... } }, ttl?, ttl_success?,
---   ttl_failure?, deadline? }: durations; how long finished runs are kept, how long a run may take
function platform.of_pipeline(config, what)
  if not config then return nil end
  fail.check_keys(what .. ": config", config, CONFIG)
  local out = {}
  local w = config.workspace
  if w then
    fail.check_keys(what .. ": workspace", w, { size = true, storage_class = true, access_modes = true, pvc = true })
    if type(w.size) ~= "string" or not w.size:find "^%d+%.?%d*[KMGTPE]?i?$" then
      fail.raise("%s: workspace needs a size such as \"10Gi\"", what)
    end
    local patch = {}
    for key, value in pairs(w.pvc or {}) do patch[key] = value end
    patch.storageClassName, patch.accessModes = w.storage_class or patch.storageClassName,
      w.access_modes or patch.accessModes
    out.workspace = { size = w.size, kubernetes = { pvcSpecPatch = patch } }
  end
  local fields = {
    ttl = "resourceTtlOnCompletion", ttl_success = "resourceTtlOnSuccess", ttl_failure = "resourceTtlOnFailure",
    deadline = "activeDeadlineSeconds",
  }
  for key, field in pairs(fields) do
    if config[key] then
      local seconds = task.seconds(config[key], what .. ": " .. key)
      if seconds > 0 then out[field] = seconds end
    end
  end
  return next(out) and out or nil
end

return platform
