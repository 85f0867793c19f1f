--- databricks: notebooks into the workspace, one-time runs, their results.
---
---   local workspace = databricks.connect()
---   workspace:import { path = "/Shared/profile", file = "notebook.py", language = "PYTHON" }
---   local run = workspace:submit { name = "profile", notebook = "/Shared/profile", cluster_id = id }
---   local result = run:wait { timeout = "2h" }
---
--- Where: DATABRICKS_HOST with DATABRICKS_TOKEN, or the profile's. REST: https://docs.databricks.com/api/workspace/jobs
local host = require "host"
local time = require "time"

local api = host.databricks
local databricks = {}
local Workspace, Run = {}, {}
Workspace.__index, Run.__index = Workspace, Run

--- "90m", 5400 -> seconds
local function seconds(value) return type(value) == "number" and value or time.duration(value) end

-- life_cycle_state values after which nothing changes
local TERMINAL = { TERMINATED = true, SKIPPED = true, INTERNAL_ERROR = true }

--- databricks.configured() -> boolean: is there an address?
function databricks.configured() return host.service.configured { service = "databricks" } end

--- databricks.connect{ endpoint?, auth?, token? } -> workspace
function databricks.connect(options)
  local found = api.connect(options or {})
  return setmetatable({ client = found.client, url = found.url }, Workspace)
end

--- workspace:import{ path, file, language?, format?, overwrite? }: a local file as a notebook; its folder is made
---   path      string   in the workspace
---   file      path     here
---   language  string   "PYTHON", "SQL", "SCALA", "R"; needed for format "SOURCE" (default)
---   overwrite boolean  default true
function Workspace:import(options)
  local folder = options.path:match "^(.+)/[^/]+$"
  if folder then api.mkdirs { client = self.client, path = folder } end
  api.import {
    client = self.client, to = options.path, path = options.file, language = options.language,
    format = options.format or "SOURCE", overwrite = options.overwrite ~= false,
  }
end

--- workspace:submit{ notebook, cluster_id? | new_cluster?, name?, parameters?, ... } -> run
---   notebook           string  path in the workspace
---   cluster_id         string  a running cluster; or new_cluster, a table; neither: serverless
---   parameters         table   for the notebook's widgets
---   idempotency_token  string  at most 64 characters; the same token gives the same run
function Workspace:submit(options)
  local parameters
  for name, value in pairs(options.parameters or {}) do
    parameters = parameters or {}
    parameters[name] = tostring(value)
  end
  local name = options.idempotency_token and "submit_run_once" or "submit_run"
  local reply = api[name] {
    client = self.client,
    run = {
      run_name = options.name, idempotency_token = options.idempotency_token and options.idempotency_token:sub(1, 64),
      timeout_seconds = options.timeout_seconds,
      tasks = { {
        task_key = "main", existing_cluster_id = options.cluster_id, new_cluster = options.new_cluster,
        notebook_task = { notebook_path = options.notebook, base_parameters = parameters },
      } },
    },
  }
  local run = setmetatable({ workspace = self, id = reply.run_id }, Run)
  run:get()
  return run
end

--- run:get() -> { state = { life_cycle_state, result_state, state_message }, tasks, run_page_url, ... }
function Run:get()
  self.data = api.get_run { client = self.workspace.client, run_id = self.id }
  self.url = self.data.run_page_url
  return self.data
end

--- run:cancel(): ends it
function Run:cancel() api.cancel_run { client = self.workspace.client, run_id = self.id } end

--- run:output() -> { result, error, error_trace }: what the notebook gave to dbutils.notebook.exit, or why it failed
function Run:output()
  local task = self.data.tasks and self.data.tasks[1]
  local reply = api.get_run_output { client = self.workspace.client, run_id = task and task.run_id or self.id }
  return {
    result = reply.notebook_output and reply.notebook_output.result,
    error = reply.error, error_trace = reply.error_trace,
  }
end

--- run:wait{ timeout?, every? } -> what the notebook returned ("" for nothing); raises when the run failed
---   timeout  duration  raises code "timeout" after it, having cancelled the run
---   every    duration  between two looks, default "10s"
function Run:wait(options)
  options = options or {}
  local every, pause = seconds(options.every or 10), 1
  local stop = options.timeout and os.time() + seconds(options.timeout)
  while not TERMINAL[self:get().state.life_cycle_state] do
    if stop and os.time() >= stop then
      self:cancel()
      error({
        service = "databricks", code = "timeout", message = ("run %d was still %s after %s, and was cancelled")
          :format(self.id, self.data.state.life_cycle_state, options.timeout), hint = self.url,
      }, 2)
    end
    sleep(pause)
    pause = math.min(pause * 1.5, every)
  end
  local state = self.data.state
  if state.result_state == "SUCCESS" then return self:output().result or "" end
  local output = try(self.output, self)
  error({
    service = "databricks", code = state.result_state == "CANCELED" and "cancelled" or "failed",
    message = ("run %d ended as %s: %s"):format(self.id, state.result_state or state.life_cycle_state,
      output and output.error or state.state_message or "no message"),
    hint = self.url,
  }, 2)
end

return databricks
