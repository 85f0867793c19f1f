--- kubeflow.client: Kubeflow Pipelines, upload to result. `kubeflow.connect` is this module's connect.
---
---   local kfp = kubeflow.connect()
---   local version = kfp:upload(package, { name = "training", mode = "auto" })
---   local run = kfp:experiment "digits":run { version = version, params = { epochs = 20 } }
---   run:wait { timeout = "90m" }
---
--- Where: connect{ endpoint = }, else KF_PIPELINES_ENDPOINT, else the active profile, else the embedded service.
--- API: https://www.kubeflow.org/docs/components/pipelines/reference/api/kubeflow-pipeline-api-spec/ (v2beta1)
local host = require "host"
local pages = require "pages"
local time = require "time"

local api = host.kubeflow
local client = {}

local Client, Pipeline, Experiment, Run = {}, {}, {}, {}
for _, class in ipairs { Client, Pipeline, Experiment, Run } do class.__index = class end

local TERMINAL = { SUCCEEDED = true, SKIPPED = true, FAILED = true, CANCELED = true }
local ambiguous, collect = pages.ambiguous, pages.collect
local PAGE = 100

--- "90m", 5400 -> seconds
local function seconds(value) return type(value) == "number" and value or time.duration(value) end

local function equals(key, value) return { operation = "EQUALS", key = key, string_value = value } end

--- Items of all pages, one after another, up to `limit`.
local function each(endpoint, args, limit)
  return pages.each(endpoint, args, { size_key = "page_size", largest = PAGE, limit = limit })
end

--- client.connect{ endpoint?, namespace?, auth?, token? } -> client
---   endpoint   string   base URL, without /apis: "https://host/pipeline"
---   namespace  string   of a multi-user installation; default: the profile's
---   auth       table    { type = "bearer" | "azure_ad" | "basic" | "header" | "none", ... }
---   token      secret   short for auth of type bearer
function client.connect(options)
  options = options or {}
  local found = api.connect { endpoint = options.endpoint, auth = options.auth, token = options.token }
  return setmetatable({
    client = found.client,
    url = found.url,
    embedded = found.embedded,
    namespace = options.namespace or found.namespace,
    default_experiment = found.experiment or "Default",
  }, Client)
end

--- client:token() -> secret: the bearer token that requests carry, fetched when needed. For handing to other programs.
function Client:token() return api.token({ client = self.client }).token end

-- ---- pipelines ----

local function pipeline_of(kfp, found)
  return setmetatable({
    kfp = kfp, id = found.pipeline_id, name = found.name or found.display_name, description = found.description or "",
    created_at = found.created_at,
  }, Pipeline)
end

--- client:pipeline(name) -> pipeline, or nil when there is none of that name
function Client:pipeline(name)
  for _, key in ipairs { "display_name", "name" } do
    local found = api.list_pipelines({
      client = self.client, namespace = self.namespace, filter = { predicates = { equals(key, name) } },
    }).items[1]
    if found then return pipeline_of(self, found) end
  end
  return nil
end

--- client:pipelines{ filter?, sort_by?, limit? } -> list; filter: { predicates = { { operation, key, string_value } } }
function Client:pipelines(options)
  options = options or {}
  return collect(each(api.list_pipelines, {
    client = self.client, namespace = self.namespace, filter = options.filter, sort_by = options.sort_by,
  }, options.limit), function(found) return pipeline_of(self, found) end)
end

--- pipeline:versions{ sort_by?, filter?, limit? } -> list of { pipeline_version_id, name, ... }, newest first
function Pipeline:versions(options)
  options = options or {}
  return collect(each(api.list_versions, {
    client = self.kfp.client, pipeline_id = self.id, sort_by = options.sort_by or "created_at desc",
    filter = options.filter,
  }, options.limit), function(found)
    found.name = found.name or found.display_name
    return found
  end)
end

--- pipeline:delete(): with all its versions
function Pipeline:delete()
  for _, version in ipairs(self:versions()) do
    api.delete_version { client = self.kfp.client, pipeline_id = self.id, version_id = version.pipeline_version_id }
  end
  api.delete_pipeline { client = self.kfp.client, pipeline_id = self.id }
end

--- What an upload holds: its text and the file name that tells the server its format.
local function content_of(package)
  if type(package) == "string" then
    return require("fs").read(package), package:match "[^/]+$"
  end
  if type(package) == "table" and type(package.yaml) == "function" then return package:yaml(), "pipeline.yaml" end
  error("kubeflow: upload takes a compiled package or the path of one, not " .. type(package), 3)
end

--- The content's digest travels in the description, which every server version keeps and shows.
local function mark(digest) return "mlhost-digest: sha256:" .. digest end

local function described(text, digest)
  return (text and text ~= "" and text .. "\n\n" or "") .. mark(digest)
end

local function version_of(pipeline, found, existing)
  return {
    pipeline_id = pipeline.id, pipeline_version_id = found.pipeline_version_id, pipeline = pipeline.name,
    name = found.display_name or found.name, existing = existing or nil,
  }
end

--- The version of this pipeline that was uploaded from the same content.
local function same_content(pipeline, digest)
  local wanted = mark(digest)
  local versions = pipeline:versions()
  for _, version in ipairs(versions) do
    if (version.description or ""):find(wanted, 1, true) then return version_of(pipeline, version, true) end
  end
  -- some servers keep the first upload's description with the pipeline alone
  if pipeline.description:find(wanted, 1, true) and #versions > 0 then
    return version_of(pipeline, versions[#versions], true)
  end
  return nil
end

local function upload_version(kfp, pipeline, content, filename, digest, options)
  local made, err = try(api.upload, {
    client = kfp.client, content = content, filename = filename, pipeline_id = pipeline.id,
    name = options.version or ("%s-%s"):format(pipeline.name, digest:sub(1, 12)),
    description = described(options.description, digest),
  })
  if not made then
    -- a name that is taken, or a lost reply: perhaps by this very content
    local there = (err.code == "exists" or err.code == "conflict" or ambiguous(err)) and same_content(pipeline, digest)
    if there then return there end
    error(err, 0)
  end
  return version_of(pipeline, made)
end

local function upload_new(kfp, content, filename, digest, options)
  local made, err = try(api.upload, {
    client = kfp.client, content = content, filename = filename, name = options.name, namespace = kfp.namespace,
    description = described(options.description, digest),
  })
  local pipeline = made and pipeline_of(kfp, made)
  if not made then
    pipeline = (err.code == "exists" or err.code == "conflict" or ambiguous(err)) and kfp:pipeline(options.name)
    local there = pipeline and same_content(pipeline, digest)
    if there then return there end
    error(err, 0)
  end
  pipeline.name = options.name
  local first = assert(pipeline:versions { limit = 1 }[1], "the new pipeline has no version")
  return version_of(pipeline, first)
end

--- client:upload(package, { name, mode?, version?, description? }) -> version
---   package      a compiled package, or the path of a .yaml, .json, .zip or .tar.gz file
---   name         string   of the pipeline
---   mode         string   "new": the pipeline must not be there; "version": it must; "auto" (default): either
---   version      string   name of the version; default: pipeline and digest
---   returns { pipeline_id, pipeline_version_id, name, existing }: when the same content is there already, that
---   version, with existing = true, whatever the mode
function Client:upload(package, options)
  if type(options) ~= "table" or type(options.name) ~= "string" then
    error("kubeflow: upload needs { name = \"pipeline\" }", 2)
  end
  local mode = options.mode or "auto"
  if mode ~= "new" and mode ~= "version" and mode ~= "auto" then
    error(("kubeflow: unknown upload mode '%s': new, version or auto"):format(mode), 2)
  end
  local content, filename = content_of(package)
  local digest = require("hash").sha256(content)
  local pipeline = self:pipeline(options.name)
  if not pipeline and mode == "version" then
    error({
      service = "kubeflow", code = "not_found",
      message = ("there is no pipeline '%s' to add a version to"):format(options.name),
      hint = "upload it with mode = \"new\" or \"auto\"",
    }, 2)
  end
  if not pipeline then return upload_new(self, content, filename, digest, options) end
  local there = same_content(pipeline, digest)
  if there then return there end
  if mode == "new" then
    error({
      service = "kubeflow", code = "exists",
      message = ("the pipeline '%s' is there, with other content"):format(options.name),
      hint = "upload with mode = \"version\" or \"auto\", or under another name",
    }, 2)
  end
  return upload_version(self, pipeline, content, filename, digest, options)
end

-- ---- experiments ----

local function experiment_of(kfp, found)
  return setmetatable({ kfp = kfp, id = found.experiment_id, name = found.display_name }, Experiment)
end

--- client:experiment(name?) -> experiment, made when it is not there
function Client:experiment(name)
  name = name or self.default_experiment
  local function find()
    return api.list_experiments({
      client = self.client, namespace = self.namespace, filter = { predicates = { equals("display_name", name) } },
    }).items[1]
  end
  local found = find()
  if not found then
    local err
    found, err = try(api.create_experiment, { client = self.client, display_name = name, namespace = self.namespace })
    if not found then
      found = (err.code == "exists" or err.code == "conflict" or ambiguous(err)) and find() -- just made meanwhile
      if not found then error(err, 0) end
    end
  end
  if found.storage_state == "ARCHIVED" then
    api.unarchive_experiment { client = self.client, experiment_id = found.experiment_id }
  end
  return experiment_of(self, found)
end

--- client:experiments{ filter?, sort_by?, limit? } -> list
function Client:experiments(options)
  options = options or {}
  return collect(each(api.list_experiments, {
    client = self.client, namespace = self.namespace, filter = options.filter, sort_by = options.sort_by,
  }, options.limit), function(found) return experiment_of(self, found) end)
end

-- ---- runs ----

local function fill(run, found)
  run.id, run.name, run.state = found.run_id, found.display_name, found.state or "PENDING"
  run.experiment_id, run.created_at, run.finished_at = found.experiment_id, found.created_at, found.finished_at
  run.error = found.error and found.error.message
  run.data = found
  return run
end

local function run_of(kfp, found)
  local run = fill(setmetatable({ kfp = kfp }, Run), found)
  if not kfp.embedded then run.url = ("%s/#/runs/details/%s"):format(kfp.url, run.id) end
  return run
end

--- client:run(id) -> run
function Client:run(id) return run_of(self, api.get_run { client = self.client, run_id = id }) end

--- client:runs{ experiment?, filter?, sort_by?, limit? } -> list of runs, newest first
---   experiment  an experiment object or its id
function Client:runs(options)
  options = options or {}
  local experiment = options.experiment
  return collect(each(api.list_runs, {
    client = self.client, namespace = self.namespace, filter = options.filter,
    experiment_id = type(experiment) == "table" and experiment.id or experiment,
    sort_by = options.sort_by or "created_at desc",
  }, options.limit), function(found) return run_of(self, found) end)
end

--- experiment:runs{ filter?, sort_by?, limit? } -> list
function Experiment:runs(options)
  local all = { experiment = self }
  for key, value in pairs(options or {}) do all[key] = value end
  return self.kfp:runs(all)
end

--- The run of this experiment that an earlier call with the same key made.
local function run_by_key(experiment, name, key)
  local wanted = "mlhost-key: " .. key
  for _, run in ipairs(experiment:runs { filter = { predicates = { equals("display_name", name) } } }) do
    if (run.data.description or ""):find(wanted, 1, true) then return run end
  end
  return nil
end

--- experiment:run{ version, name?, params?, description?, key?, pipeline_root?, service_account? } -> run
---   version  table   what upload gave: { pipeline_id, pipeline_version_id }
---   params   table   by name; what the pipeline has no default for must be there
---   key      string  makes the call repeatable: the run that an earlier call with this key and name made is taken up
function Experiment:run(options)
  local kfp, version = self.kfp, options.version
  if type(version) ~= "table" or not version.pipeline_id then
    error("kubeflow: run needs version = { pipeline_id, pipeline_version_id }, as upload returns it", 2)
  end
  local key = options.key or ("%x-%x"):format(math.random(0), os.time())
  local name = options.name or ("%s %s"):format(version.pipeline or self.name, os.date("!%Y-%m-%d %H:%M:%S"))
  if options.key then
    local there = run_by_key(self, name, key)
    if there then
      there.existing = true
      return there
    end
  end
  local params = options.params
  local runtime = {
    parameters = params and next(params) ~= nil and params or nil, pipeline_root = options.pipeline_root,
  }
  local spec = {
    display_name = name,
    description = (options.description and options.description .. "\n\n" or "") .. "mlhost-key: " .. key,
    experiment_id = self.id,
    pipeline_version_reference = {
      pipeline_id = version.pipeline_id, pipeline_version_id = version.pipeline_version_id,
    },
    runtime_config = next(runtime) ~= nil and runtime or nil,
    service_account = options.service_account,
  }
  local function create() return try(api.create_run, { client = kfp.client, run = spec }) end
  local found, err = create()
  if not found and ambiguous(err) then
    local made = run_by_key(self, name, key)
    if made then return made end
    found, err = create()
  end
  if not found then error(err, 0) end
  return run_of(kfp, found)
end

--- run:get() -> the run's data as the server tells it, read anew; run.state, run.error follow it
function Run:get()
  fill(self, api.get_run { client = self.kfp.client, run_id = self.id })
  return self.data
end

--- run:tasks() -> list of { id, name, state, error, start_time, end_time, pod, parent_id, group }, as last read
---   group  boolean  it only holds other tasks: the whole run, a loop, a condition
function Run:tasks()
  local list = {}
  for _, task in ipairs(self.data.run_details and self.data.run_details.task_details or {}) do
    list[#list + 1] = {
      id = task.task_id, name = task.display_name or task.task_id, state = task.state or "PENDING",
      error = task.error and task.error.message, start_time = task.start_time, end_time = task.end_time,
      pod = task.pod_name, parent_id = task.parent_task_id, group = #(task.child_tasks or {}) > 0,
    }
  end
  return list
end

function Run:terminate() api.terminate_run { client = self.kfp.client, run_id = self.id } end
function Run:retry() api.retry_run { client = self.kfp.client, run_id = self.id } end
function Run:archive() api.archive_run { client = self.kfp.client, run_id = self.id } end
function Run:delete() api.delete_run { client = self.kfp.client, run_id = self.id } end

--- client:logs(run or id, task) -> what a task printed, where the server offers it
function Client:logs(run, task)
  local node = type(task) == "table" and (task.pod or task.id) or task
  return api.node_log { client = self.client, run_id = type(run) == "table" and run.id or run, node = node }
end

--- run:logs(task) -> text; task: an item of run:tasks(), its name, or a node id
function Run:logs(task)
  if type(task) == "string" then
    for _, item in ipairs(self:tasks()) do
      if item.name == task then task = item break end
    end
  end
  return self.kfp:logs(self, task)
end

--- The last lines of a text.
local function tail(text, count)
  local lines = {}
  for line in text:gmatch "[^\n]+" do lines[#lines + 1] = line end
  return table.concat(lines, "\n", math.max(1, #lines - count + 1))
end

--- The error of a run that did not succeed: which tasks failed, what they said.
local function failure(run)
  local parts, names = {}, {}
  for _, task in ipairs(run:tasks()) do
    if task.state == "FAILED" and not task.group and task.name ~= "root" and not task.name:match "%-driver$" then
      names[#names + 1] = task.name
      local text = ("task '%s' failed%s"):format(task.name, task.error and ": " .. task.error or "")
      local log = try(run.kfp.logs, run.kfp, run, task)
      if type(log) == "string" and log ~= "" then text = text .. "\n" .. tail(log, 10) end
      parts[#parts + 1] = text
    end
  end
  if #parts == 0 and run.error then parts[1] = run.error end
  return {
    service = "kubeflow", code = run.state == "CANCELED" and "cancelled" or "failed",
    message = table.concat({ ("run %s ended as %s"):format(run.id, run.state), table.unpack(parts) }, "\n"),
    hint = #names > 0 and "the tasks' logs: run:logs(\"" .. names[1] .. "\")" or nil,
  }
end

--- Tells each change of a task's state, and how many are done.
local function report(run, seen)
  local tasks, done = {}, 0
  for _, task in ipairs(run:tasks()) do
    if not task.group then tasks[#tasks + 1] = task end
  end
  for _, task in ipairs(tasks) do
    if TERMINAL[task.state] then done = done + 1 end
    if seen[task.id] ~= task.state then
      seen[task.id] = task.state
      if task.state ~= "PENDING" then log.info("%s: %s", task.name, task.state:lower()) end
    end
  end
  if #tasks > 0 then progress(run.name or run.id, done, #tasks, "tasks") end
end

--- run:wait{ timeout?, every?, on_progress? } -> run, succeeded
---   timeout      duration  raises code "timeout" when it has passed; the run goes on
---   every        duration  between two looks, default "5s" (embedded "500ms"); it begins quicker
---   on_progress  function  called with the run after each look
--- Raises when the run ends otherwise, naming the tasks that failed, with their errors and the end of their logs.
function Run:wait(options)
  options = options or {}
  local limit = options.timeout and seconds(options.timeout)
  local every = options.every and seconds(options.every) or self.kfp.embedded and 0.5 or 5
  local pause, started, seen = math.min(0.2, every), os.time(), {}
  while true do
    self:get()
    report(self, seen)
    if options.on_progress then options.on_progress(self) end
    if TERMINAL[self.state] then break end
    if limit and os.time() - started >= limit then
      error({
        service = "kubeflow", code = "timeout",
        message = ("run %s is still %s after %s"):format(self.id, self.state:lower(), options.timeout),
        hint = "the run goes on; wait longer, or end it with run:terminate()",
      }, 2)
    end
    sleep(pause)
    pause = math.min(pause * 1.5, every)
  end
  if self.state ~= "SUCCEEDED" and self.state ~= "SKIPPED" then error(failure(self), 2) end
  return self
end

return client
