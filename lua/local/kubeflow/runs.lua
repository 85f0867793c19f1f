-- Runs: created here, done by a runner process each (lua/local/runner), read back from what the runner writes.
local base64 = require "local.kubeflow.base64"
local errors = require "local.kubeflow.errors"
local experiments = require "local.kubeflow.experiments"
local ir = require "local.runner.ir"
local json = require "local.json"
local list = require "local.kubeflow.list"
local message = require "local.kubeflow.message"
local pipelines = require "local.kubeflow.pipelines"

local runs = {}

local DEFAULT_ROOT = "minio://mlpipeline/v2/artifacts"
local terminal = { SUCCEEDED = true, SKIPPED = true, FAILED = true, CANCELED = true }

local fields = {
  id = "id", run_id = "id", name = "display_name", display_name = "display_name", created_at = "created_at",
  finished_at = "finished_at", scheduled_at = "scheduled_at", description = "description",
    storage_state = "storage_state",
  status = "state", state = "state", namespace = "namespace", experiment_id = "experiment_id",
  recurring_run_id = "recurring_run_id", service_account = "service_account", pipeline_version_id = "version_id",
}

local function folder(service, id)
  return service.dir .. "/runs/" .. id
end

local function read_state(service, id)
  local text = service.sys.read(folder(service, id) .. "/state.json", 256 << 20)
  local ok, state = pcall(json.decode, text or "")
  return ok and state or nil
end

local function set_state(service, row, state, err, finished_at)
  local history = json.decode(row.history)
  history[#history + 1] = { update_time = list.print_time(finished_at or service.now()), state = state, error = err }
  row.state, row.error, row.finished_at = state, err and json.encode(err) or nil, finished_at or 0
  row.history = json.encode(history)
  service.db:run("UPDATE runs SET state = ?, error = ?, finished_at = ?, history = ? WHERE id = ?", row.state,
    row.error,
                 row.finished_at, row.history, row.id)
end

-- Brings a row in step with what its runner has written. A runner that is gone without a last word has failed.
local function sync(service, row)
  if terminal[row.state] then
    return row
  end
  local alive = service.runner.alive(folder(service, row.id)) -- before the reading: a runner that ends now has written
  local state = read_state(service, row.id)
  if state and terminal[state.state] then
    set_state(service, row, state.state, state.error, state.finished_at)
  elseif not alive then
    set_state(service, row, "FAILED", { code = 13,
      message = "the run's process ended before the run did (the serve process "
      .. "ended, or it was killed); retry the run to go on from the tasks that had succeeded" }, service.now())
  elseif state and row.state == "PENDING" then
    set_state(service, row, "RUNNING")
  end
  return row
end

--- Brings all runs that had not ended in step.
function runs.sync_all(service)
  local going = "SELECT * FROM runs WHERE state NOT IN ('SUCCEEDED', 'SKIPPED', 'FAILED', 'CANCELED')"
  for _, row in ipairs(service.db:all(going)) do
    sync(service, row)
  end
end

local function find(service, id)
  return sync(service, service.db:one("SELECT * FROM runs WHERE id = ?", id)
              or errors.raise(errors.NOT_FOUND, "run %s not found", id))
end

local function shown_error(err)
  return err and { code = err.code, message = err.message } or nil
end

local function task_details(service, row)
  local state = read_state(service, row.id)
  local items = json.array({})
  for i, task in ipairs(state and state.tasks or {}) do
    local history = json.array({})
    for j, one in ipairs(task.state_history) do
      history[j] = { update_time = list.print_time(one.update_time), state = one.state, error = shown_error(one.error) }
    end
    local ended = terminal[row.state] and not terminal[task.state] -- its runner was killed
    items[i] = {
      run_id = row.id, task_id = task.task_id, display_name = task.display_name, parent_task_id = task.parent_task_id,
      create_time = list.print_time(task.create_time), start_time = list.print_time(task.start_time),
      end_time = list.print_time(task.end_time), state = ended and "FAILED" or task.state,
        error = shown_error(task.error),
      state_history = history, pod_name = task.pod_name,
      child_tasks = task.child_tasks and #task.child_tasks > 0 and task.child_tasks or nil,
    }
  end
  return { task_details = #items > 0 and items or nil }
end

local function shown(service, row, with_tasks)
  local history = json.decode(row.history)
  local result = {
    run_id = row.id, experiment_id = row.experiment_id, display_name = row.display_name,
    description = message.text(row.description), storage_state = row.storage_state,
    service_account = message.text(row.service_account), created_at = list.print_time(row.created_at),
    scheduled_at = list.print_time(row.scheduled_at), finished_at = list.print_time(row.finished_at), state = row.state,
    error = row.error and json.decode(row.error) or nil, state_history = history,
    runtime_config = { parameters = json.object(json.decode(row.parameters)),
      pipeline_root = message.text(row.pipeline_root) },
  }
  if row.version_id then
    result.pipeline_version_reference = { pipeline_id = row.pipeline_id, pipeline_version_id = row.version_id }
  else
    result.pipeline_spec = pipelines.spec_shown(row.spec)
  end
  if with_tasks then
    result.run_details = task_details(service, row)
  end
  return result
end

-- What the service replaces in string parameters when a run is created.
local function expand_marks(value, id, now)
  if type(value) ~= "string" then
    return value
  end
  local time = os.date("!%Y%m%d%H%M%S", now // 1000)
  return (value:gsub("%[%[CurrentTime%]%]", time):gsub("%[%[ScheduledTime%]%]", time):gsub("%[%[RunUUID%]%]", id)
               :gsub("%[%[Index%]%]", "1"))
end

local function spec_of(service, given)
  local reference = given.pipeline_version_reference
  local sources = (given.pipeline_spec and 1 or 0) + (reference and 1 or 0) + (given.pipeline_version_id and 1 or 0)
  if sources ~= 1 then
    errors.raise(errors.INVALID, "a run needs exactly one of pipeline_spec, pipeline_version_reference and "
                 .. "pipeline_version_id; there are %d", sources)
  elseif given.pipeline_spec then
    return pipelines.checked(given.pipeline_spec)
  end
  reference = reference or { pipeline_version_id = given.pipeline_version_id }
  local version = pipelines.version(service, reference.pipeline_id, reference.pipeline_version_id)
  return json.decode(version.spec), version
end

local function start(service, row, spec, parameters, retry)
  local dir = folder(service, row.id)
  service.sys.mkdir(dir)
  service.sys.write(dir .. "/spec.json", json.encode({
    run_id = row.id, display_name = row.display_name, created_at = row.created_at, retry = retry or false,
    pipeline_spec = spec.pipeline_spec, platform_spec = spec.platform_spec, parameters = parameters,
    pipeline_root = message.text(row.pipeline_root) or message.text(spec.pipeline_spec.defaultPipelineRoot)
      or DEFAULT_ROOT,
    serve_url = service.url, workspace = service.workspace,
  }))
  local ok, why = service.runner.start(dir, row.id)
  if not ok then
    set_state(service, row, "FAILED", { code = 13, message = "the runner could not be started: " .. tostring(why) },
              service.now())
  end
end

function runs.create(service, request)
  local given = message.read(request.body, "Run")
  if not given.display_name or given.display_name == "" then
    errors.raise(errors.INVALID, "run.display_name must not be empty")
  elseif given.plugins_output then
    errors.raise(errors.INVALID, "plugins_output is set by the service only")
  end
  local spec, version = spec_of(service, given)
  local config = given.runtime_config or {}
  local id, now = service.new_id(), service.now()
  local parameters, why = ir.parameters(spec.pipeline_spec.root, config.parameters or {})
  if not parameters then
    errors.raise(errors.INVALID, "invalid runtime parameters: %s", why)
  end
  for name, value in pairs(parameters) do
    parameters[name] = expand_marks(value, id, now)
  end
  local experiment_id = given.experiment_id or request.query.experiment_id
  local experiment = experiment_id and experiment_id ~= "" and experiments.find(service, experiment_id)
                     or experiments.default(service)
  if experiment.storage_state == "ARCHIVED" then
    errors.raise(errors.PRECONDITION, "experiment '%s' is archived: unarchive it, or choose another", experiment.name)
  end
  service.db:transaction(function()
    service.db:run("INSERT INTO runs (id, experiment_id, display_name, description, service_account, created_at, "
      .. "scheduled_at, state, history, pipeline_id, version_id, spec, parameters, pipeline_root, namespace) "
      .. "VALUES (?, ?, ?, ?, ?, ?, ?, 'PENDING', ?, ?, ?, ?, ?, ?, ?)",
      id, experiment.id, given.display_name, given.description or "", given.service_account or "", now, now,
      json.encode(json.array({ { update_time = list.print_time(now), state = "PENDING" } })), version
        and version.pipeline_id,
      version and version.id, json.encode(spec), json.encode(config.parameters or {}), config.pipeline_root or "",
      experiment.namespace)
    service.db:run("UPDATE experiments SET last_run_created_at = ? WHERE id = ?", now, experiment.id)
  end)
  local row = service.db:one("SELECT * FROM runs WHERE id = ?", id)
  start(service, row, spec, parameters)
  return shown(service, row)
end

function runs.list(service, request)
  runs.sync_all(service)
  local where, arguments = {}, {}
  if request.query.experiment_id and request.query.experiment_id ~= "" then
    where[1], arguments[1] = "experiment_id = ?", request.query.experiment_id
  end
  local rows, token, total = list.rows({ db = service.db, from = "runs", fields = fields, query = request.query,
    where = where,
                                         arguments = arguments })
  local items = json.array({})
  for i, row in ipairs(rows) do
    items[i] = shown(service, row)
  end
  return { runs = #items > 0 and items or nil, next_page_token = token, total_size = total }
end

function runs.get(service, _, id)
  return shown(service, find(service, id), true)
end

function runs.terminate(service, _, id)
  local row = find(service, id)
  if terminal[row.state] then
    errors.raise(errors.PRECONDITION, "run %s has ended already (%s)", id, row.state)
  end
  set_state(service, row, "CANCELING")
  service.runner.stop(folder(service, id), false)
  return {}
end

function runs.retry(service, _, id)
  local row = find(service, id)
  if row.state ~= "FAILED" and row.state ~= "CANCELED" then
    errors.raise(errors.PRECONDITION, "only a run that failed can be retried; %s is %s", id, row.state)
  end
  local spec = json.decode(row.spec)
  local parameters, why = ir.parameters(spec.pipeline_spec.root, json.decode(row.parameters))
  if not parameters then
    errors.raise(errors.INVALID, "invalid runtime parameters: %s", why)
  end
  for name, value in pairs(parameters) do
    parameters[name] = expand_marks(value, row.id, row.created_at)
  end
  service.sys.remove(folder(service, id) .. "/state.json")
  set_state(service, row, "PENDING")
  start(service, row, spec, parameters, true)
  return {}
end

local function store_as(state)
  return function(service, _, id)
    find(service, id)
    service.db:run("UPDATE runs SET storage_state = ? WHERE id = ?", state, id)
    return {}
  end
end
runs.archive, runs.unarchive = store_as("ARCHIVED"), store_as("AVAILABLE")

function runs.delete(service, _, id)
  local row = find(service, id)
  if not terminal[row.state] then
    service.runner.stop(folder(service, id), true)
  end
  service.db:run("DELETE FROM runs WHERE id = ?", id)
  service.sys.remove(folder(service, id))
  return {}
end

-- The task of a run that a path names: by its pod name, its id, or a name that only one task has.
local function find_task(service, id, name)
  local state = read_state(service, find(service, id).id) or { tasks = {} }
  local by_name, count
  for _, task in ipairs(state.tasks) do
    if task.pod_name == name or task.task_id == name then
      return task
    elseif task.name == name or task.display_name == name then
      by_name, count = task, (count or 0) + 1
    end
  end
  if count == 1 then
    return by_name
  end
  errors.raise(errors.NOT_FOUND, count and "run %s has more than one task named '%s': name it by its pod_name"
               or "run %s has no task '%s'", id, name)
end

--- The log of a task as text, as far as it has come.
function runs.log(service, _, id, name)
  local task = find_task(service, id, name)
  local path = ("%s/tasks/%s/log.txt"):format(folder(service, id), task.key)
  if not service.sys.stat(path) then
    return nil, { status = 200, headers = { ["Content-Type"] = "text/plain; charset=utf-8" }, body = "" }
  end
  return nil, { status = 200, headers = { ["Content-Type"] = "text/plain; charset=utf-8" }, file = path }
end

--- An output artifact that is a file, as {"data": base64}.
function runs.artifact(service, _, id, node, name)
  local task = find_task(service, id, node)
  local text = service.sys.read(("%s/tasks/%s/result.json"):format(folder(service, id), task.key), 16 << 20)
  local ok, kept = pcall(json.decode, text or "")
  local artifact = ok and ((kept.result.artifacts or {})[name] or {})[1]
  if not artifact or not artifact.host then
    errors.raise(errors.NOT_FOUND, "task '%s' of run %s has no artifact '%s' here", node, id, name)
  end
  local stat = service.sys.stat(artifact.host)
  if not stat or stat.dir then
    errors.raise(errors.NOT_FOUND, "artifact '%s' of task '%s' is %s", name, node, stat and "a folder" or "gone")
  end
  local data, why = service.sys.read(artifact.host, 64 << 20)
  return { data = base64.encode(data or errors.raise(errors.INTERNAL, "artifact '%s': %s", name, why)) }
end

return runs
