-- One task: its image, its cache, its attempts, its outputs. Runs in a coroutine of the scheduler.
local artifacts = require "local.runner.artifacts"
local container = require "local.runner.container"
local dag = require "local.runner.dag"
local ir = require "local.runner.ir"
local json = require "local.json"
local placeholder = require "local.runner.placeholder"
local platform = require "local.runner.platform"

local map, failure = ir.map, dag.failure

local task = {}
local runner = {}
runner.__index = runner

local LOG_LIMIT = 16 << 20
local OUTPUT_LIMIT = 16 << 20

--- options: host, scheduler, store (artifacts), cache, run (the run's spec), folder (of the run), state
--- (kubeflow folder), platform (deploymentSpec of platforms.kubernetes), cancelled(), deadline (ms of the
--- clock, or nil), jobs (set of cancellable).
function task.new(options)
  return setmetatable(options, runner)
end

local function log_of(self, leaf)
  local folder = ("%s/tasks/%s"):format(self.folder, leaf.node.key)
  return folder, folder .. "/log.txt"
end

-- ---- executors that are no container ----

function runner:import(leaf)
  local importer = leaf.executor.importer
  local context = { parameters = leaf.parameters, artifacts = leaf.artifacts, job = leaf.job, warn = leaf.warn,
                    keep_kind = true }
  local uri = map(importer.artifactUri)
  local address = uri.constant or (uri.runtimeParameter and leaf.parameters[uri.runtimeParameter])
  if type(address) ~= "string" or address == "" then
    return failure(3, "the importer has no address: artifactUri gives none")
  end
  address = placeholder.expand(address, context)
  local here, why = self.store:locate(address)
  if why then
    return failure(7, "cannot import: %s", why)
  end
  local record = self.store:record("artifact", { artifactType = importer.typeSchema }, address,
                                   placeholder.tree(map(importer.metadata), context))
  record.host = here
  record.digest = here and self.scheduler:job("digest", { path = here }).digest or nil
  if not here then
    leaf.warn(("%s is not on this machine; the task that reads it must fetch it"):format(address))
  end
  return { state = "SUCCEEDED", parameters = {}, artifacts = { artifact = { record } } }
end

-- Volume claims are folders.
function runner:claim(leaf, image)
  local given = leaf.parameters
  local folder = self.state .. "/volumes"
  local name = given.pvc_name
  if (not name or name == "") and given.pvc_name_suffix then
    name = (self.run.run_id:sub(1, 8) .. given.pvc_name_suffix):lower()
  end
  if type(name) ~= "string" or not name:match("^[a-z0-9][a-z0-9.-]*$") or #name > 253 or name:find("..", 1, true) then
    return failure(3, "'%s' cannot be the name of a volume claim", tostring(name))
  end
  if image:find("deletepvc", 1, true) then
    self.host.fs.remove(folder .. "/" .. name)
    return { state = "SUCCEEDED", parameters = {}, artifacts = {} }
  end
  self.host.fs.mkdir(folder .. "/" .. name)
  return { state = "SUCCEEDED", parameters = { name = name }, artifacts = {} }
end

-- ---- outputs ----

-- Where the records of output_metadata.json lie here.
function runner:adopt(record)
  record.path = record.uri and artifacts.path_of(record.uri) or nil
  record.host = record.uri and self.store:locate(record.uri) or nil
  record.digest = record.host and self.scheduler:job("digest", { path = record.host }).digest or nil
  return record
end

function runner:read_outputs(leaf, outputs, tmp)
  local read = self.host.fs.read_inside
  local result = { state = "SUCCEEDED", parameters = {}, artifacts = {} }
  local metadata = read(tmp, "kfp_outputs/output_metadata.json", OUTPUT_LIMIT)
  local written = {}
  if metadata and metadata:find("%S") then
    local ok, tree = pcall(json.decode, metadata)
    if not ok or not json.is_object(tree) then
      return failure(3, "the task wrote an output_metadata.json that is no JSON map")
    end
    written = tree
  end
  local definitions = map(leaf.component.outputDefinitions)
  for name, definition in pairs(map(definitions.parameters)) do
    local value = map(written.parameterValues)[name]
    if value == nil then
      local text, why = read(tmp, "kfp/outputs/" .. name, OUTPUT_LIMIT)
      if text then
        value, why = ir.parse_output(name, text, definition)
      elseif not definition.isOptional then
        why = ("the task wrote no output parameter '%s' (expected in the file %s: %s)"):format(
          name, outputs.parameters[name], why or "missing")
      else
        why = nil
      end
      if why then
        return failure(3, "%s", why)
      end
    else
      local misfit = ir.misfit(name, value, definition)
      if misfit then
        return failure(3, "output_metadata.json: %s", misfit)
      end
    end
    result.parameters[name] = value
  end
  for name, list in pairs(outputs.artifacts) do
    local said = map(map(map(written.artifacts)[name]).artifacts)
    local kept = {}
    for i, artifact in ipairs(#said > 0 and said or list) do
      local record = self.store:record(artifact.name or name, map(definitions.artifacts)[name], artifact.uri
        or list[1].uri,
                                       map(artifact.metadata))
      record.type = json.is_object(artifact.type) and artifact.type or record.type
      kept[i] = self:adopt(record)
    end
    result.artifacts[name] = kept
  end
  return result
end

-- ---- containers ----

local function sorted_mounts(mounts)
  table.sort(mounts, function(a, b) return a.target < b.target end)
  return mounts
end

-- A writable layer above the shared image; what a task writes to it ends with the task.
function runner:layer(root, folder)
  local upper, work = folder .. "/layer/upper", folder .. "/layer/work"
  self.host.fs.mkdir(upper)
  self.host.fs.mkdir(work)
  return { kind = "overlay", source = root, target = "/", upper = upper, work = work }
end

function runner:mounts(leaf, root, folder, extra)
  local fs = self.host.fs
  local mounts = self.host.overlays and { self:layer(root, folder) } or {}
  local own = { { kind = "bind_rw", source = folder .. "/tmp", target = "/tmp" }, { kind = "tmpfs", target = "/run" } }
  for _, name in ipairs { "/etc/resolv.conf", "/etc/hosts" } do
    if fs.real(name) then
      own[#own + 1] = { kind = "bind_ro", source = fs.real(name), target = name }
    end
  end
  local seen = {}
  for _, list in pairs(leaf.artifacts) do
    for _, artifact in ipairs(list) do
      if artifact.host and artifact.path and not seen[artifact.path] and fs.real(artifact.host) == artifact.host then
        seen[artifact.path] = true
        own[#own + 1] = { kind = "bind_ro", source = artifact.host, target = artifact.path }
      end
    end
  end
  if next(map(map(leaf.component.outputDefinitions).artifacts)) then
    local here, there = self.store:place(leaf.node.key)
    fs.mkdir_shared(here)
    own[#own + 1] = { kind = "bind_rw", source = here, target = there }
  end
  if self.workspace then
    own[#own + 1] = { kind = "bind_rw", source = self.workspace, target = "/kfp-workspace" }
  end
  table.move(extra, 1, #extra, #own + 1, own)
  table.move(sorted_mounts(own), 1, #own, #mounts + 1, mounts)
  table.move({ { kind = "proc", target = "/proc" }, { kind = "dev", target = "/dev" } }, 1, 2, #mounts + 1, mounts)
  return mounts
end

function runner:service_environment(leaf)
  local url = self.run.serve_url
  return {
    MLFLOW_TRACKING_URI = url, KF_PIPELINES_ENDPOINT = url, MLHOST_SERVE_URL = url, MLHOST_RUN_ID = self.run.run_id,
    KFP_RUN_ID = self.run.run_id, KFP_POD_NAME = leaf.node.key, KFP_POD_UID = leaf.node.id, POD_NAME = leaf.node.key,
  }
end

-- Everything that stays the same over the attempts of a task, or nil and a failure.
function runner:prepare(leaf)
  local spec = leaf.executor.container
  local folder = log_of(self, leaf)
  local plan = { folder = folder, outputs = container.outputs(leaf, self.store) }
  local context = container.context(leaf, plan.outputs, leaf.warn)
  local why
  plan.platform, why = platform.apply(map(map(self.platform.executors)[leaf.executor_label]), leaf, {
    fs = self.host.fs, state = self.state, folder = folder, memory = container.bytes })
  if not plan.platform then
    return nil, failure(9, "%s", why)
  end
  for _, note in ipairs(plan.platform.notes) do
    leaf.warn(note)
  end
  plan.memory, why = container.memory_limit(map(spec.resources), context)
  if why then
    return nil, failure(3, "%s", why)
  end
  local reference = placeholder.expand(spec.image, context)
  plan.image, why = self.host.image(reference, self.run.serve_url)
  if not plan.image then
    return nil, failure(5, "the image %s cannot be used: %s", reference, why)
  end
  plan.words = container.words(spec, plan.image.config, context)
  if #plan.words == 0 then
    return nil, failure(3, "nothing to run: neither the task nor the image %s has a command", reference)
  end
  plan.env = {}
  for _, variable in ipairs(map(spec.env)) do
    plan.env[variable.name] = placeholder.expand(placeholder.text_of(variable.value), context)
  end
  plan.cached = map(leaf.task.cachingOptions).enableCache == true
  if plan.cached then
    plan.cache_key = self.cache:key(leaf, plan.image.digest, { claims = json.array(plan.platform.claims) })
  end
  return plan
end

function runner:timeout_ms(plan)
  local timeout = plan.platform.timeout and plan.platform.timeout * 1000
  if self.deadline then
    local left = math.max(1, self.deadline - self.host.now())
    timeout = timeout and math.min(timeout, left) or left
  end
  return timeout
end

-- The job of one attempt; after a root with writable layers was refused by the kernel, without them.
function runner:attempt(leaf, plan)
  local fs = self.host.fs
  local unpacked = self.scheduler:job("unpack", { digest = plan.image.digest, store = plan.image.store,
                                                folder = self.state .. "/rootfs" })
  if unpacked.error then
    return failure(13, "the image %s cannot be unpacked: %s", plan.image.name, unpacked.error)
  end
  local user, why = container.user(plan.image.config.User, function(path) return fs.read_inside(unpacked.path, path,
    1 << 20) end)
  if not user then
    return failure(3, "%s", why)
  end
  fs.remove(plan.folder .. "/tmp")
  fs.remove(plan.folder .. "/layer")
  for _, name in ipairs { "", "/kfp", "/kfp/outputs", "/kfp_outputs" } do
    fs.mkdir_shared(plan.folder .. "/tmp" .. name)
  end
  local place = self.store:place(leaf.node.key)
  fs.remove(place)
  local function job()
    return {
      argv = plan.words, root = unpacked.path, read_only = not self.host.overlays,
      mounts = self:mounts(leaf, unpacked.path, plan.folder, plan.platform.mounts),
      env = container.environment(plan.image.config, user, self:service_environment(leaf), plan.env, plan.platform.env),
      cwd = map(plan.image.config).WorkingDir ~= "" and plan.image.config.WorkingDir or "/",
      uid = plan.platform.uid or user.uid, gid = plan.platform.gid or user.gid, memory = plan.memory,
      timeout_ms = self:timeout_ms(plan), log = plan.folder .. "/log.txt", log_limit = LOG_LIMIT,
      mask = json.array(plan.platform.secrets),
    }
  end
  local function run()
    local number
    local ended = self.scheduler:job("exec", job(), function(id)
      number = id
      self.jobs[id] = true
    end)
    self.jobs[number] = nil
    return ended
  end
  local ended = run()
  if ended.error and ended.code ~= "not_found" and self.host.overlays then
    -- Some kernels and file systems refuse overlays. Then the image is read-only, as it is for all tasks after
    -- this one.
    self.host.overlays = false
    local again = run()
    self.host.overlays = again.error ~= nil
    ended = again.error and ended or again
  end
  fs.remove(plan.folder .. "/layer")
  if ended.error then
    return failure(ended.code == "not_found" and 5 or 13, "cannot start %s: %s%s", plan.words[1], ended.error,
                   ended.hint and "; " .. ended.hint or "")
  elseif ended.timed_out then
    return failure(4, "the task did not end in time and was stopped after %.0f s", ended.elapsed_ms / 1000)
  elseif ended.cancelled then
    return { state = "CANCELED", parameters = {}, artifacts = {} }
  elseif ended.out_of_memory then
    return failure(8, "the task used more than its memory limit of %.0f MiB", plan.memory / (1 << 20))
  elseif ended.status ~= 0 then
    local last = ended.tail and ended.tail ~= "" and "; its last lines:\n" .. ended.tail or ""
    return failure(2, "the task ended with exit status %d%s", ended.status, last)
  end
  return self:read_outputs(leaf, plan.outputs, plan.folder .. "/tmp")
end

local function seconds(duration)
  return tonumber((tostring(duration or "0"):gsub("s$", ""))) or 0
end

function runner:with_retries(leaf, plan)
  local policy = map(leaf.task.retryPolicy)
  local most = math.min(math.tointeger(tonumber(policy.maxRetryCount) or 0) or 0, 100)
  local pause = seconds(policy.backoffDuration)
  local factor, longest = tonumber(policy.backoffFactor) or 2, seconds(policy.backoffMaxDuration or "3600s")
  local attempt = 0
  while true do
    local result = self.scheduler:with_slot(function()
      if self.cancelled() and not leaf.always then
        return { state = "CANCELED", parameters = {}, artifacts = {} }
      end
      leaf.node:set("RUNNING")
      return self:attempt(leaf, plan)
    end)
    if result.state ~= "FAILED" or attempt >= most or self.cancelled() then
      return result
    end
    attempt = attempt + 1
    leaf.warn(("attempt %d of %d failed: %s"):format(attempt, most + 1, result.error.message))
    leaf.node:set("PENDING", result.error)
    if pause > 0 then
      self.scheduler:job("timer", { ms = math.floor(math.min(pause * factor ^ (attempt - 1), longest) * 1000) },
                         function(id) self.jobs[id] = true end)
    end
  end
end

function runner:run_container(leaf)
  local image = leaf.executor.container.image or ""
  if image:match("^argostub/[a-z]+pvc") then
    return self:claim(leaf, image)
  end
  local plan, failed = self:prepare(leaf)
  if not plan then
    return failed
  end
  -- A retried run keeps what had succeeded, cached or not.
  local key = plan.cache_key or self.cache:key(leaf, plan.image.digest, { claims = json.array(plan.platform.claims) })
  local kept_name = plan.folder .. "/result.json"
  local kept = self.run.retry and self.host.fs.read(kept_name, OUTPUT_LIMIT)
  if kept then
    local ok, tree = pcall(json.decode, kept)
    if ok and tree.key == key and tree.result.state == "SUCCEEDED" then
      leaf.warn("done in an earlier attempt of this run; its outputs are used")
      return tree.result
    end
  end
  local entry = plan.cached and self.cache:get(plan.cache_key)
  if entry then
    leaf.warn(("cached: the outputs of %s are used"):format(entry.from or "an earlier run"))
    return { state = "SUCCEEDED", parameters = entry.parameters, artifacts = entry.artifacts, cached = true }
  end
  local result = self:with_retries(leaf, plan)
  if result.state == "SUCCEEDED" then
    self.host.fs.write(kept_name, json.encode({ key = key, result = result }))
    if plan.cached then
      self.cache:put(plan.cache_key, result, ("run %s, task %s"):format(self.run.run_id, leaf.node.key))
    end
  end
  return result
end

--- Runs a leaf of the dag (see dag.lua) and returns its result. What goes wrong inside of mlhost becomes the
--- task's error.
function runner:execute(leaf)
  local folder, log = log_of(self, leaf)
  self.host.fs.mkdir(folder)
  if not self.run.retry then
    self.host.fs.remove(log)
  end
  leaf.warn = function(text) self.host.fs.append(log, ("[mlhost] %s\n"):format(text)) end
  leaf.always = map(leaf.task.triggerPolicy).strategy == "ALL_UPSTREAM_TASKS_COMPLETED"
  local run = leaf.executor.importer and self.import or leaf.executor.container and self.run_container
  if not run then
    return failure(12, "executor '%s' is neither a container nor an importer", tostring(leaf.executor_label))
  end
  local ok, result = pcall(run, self, leaf)
  if not ok then
    result = failure(13, "inside of mlhost: %s", tostring(result))
  end
  if result.state == "FAILED" then
    leaf.warn("failed: " .. result.error.message)
  end
  return result
end

return task
