--- azdo: Azure DevOps, from inside a job (variables, summary) and from outside (the callback of an agentless task).
---
---   azdo.set_variable("KF_RUN_ID", run.id, { output = true })
---   azdo.summary "**42** images"
---   local task = azdo.task(json.decode(cx.inputs.azdocallbackinfo))
---   task:log "training has ended"
---   task:complete "succeeded"
---
--- Variables and summaries are events of the run: on an agent they become logging commands, elsewhere they are shown.
--- Credentials: SYSTEM_ACCESSTOKEN on an agent, AZURE_DEVOPS_EXT_PAT or AZDO_PAT elsewhere, or the profile's.
--- REST: https://learn.microsoft.com/rest/api/azure/devops/
local host = require "host"
local secret = require "secret"

local azdo = {}
local Client, Task = {}, {}
Client.__index, Task.__index = Client, Task

local FEED_LINES = 100 -- in one post, as the service's own agent does

--- azdo.connect{ endpoint?, auth?, token?, pat?, project? } -> client
---   endpoint  string  collection URL, "https://dev.azure.com/acme"; default SYSTEM_COLLECTIONURI or the profile's
---   pat       secret  a personal access token, short for basic authentication with an empty user
function azdo.connect(options)
  options = options or {}
  local auth = options.auth or options.pat and { type = "basic", username = "", password = options.pat } or nil
  local found = host.azdo.connect { endpoint = options.endpoint, auth = auth, token = options.token }
  return setmetatable({ client = found.client, url = found.url, project = options.project or found.project }, Client)
end

--- client:run_pipeline(id, { branch?, parameters?, variables?, preview? }) -> { id, state, url, final_yaml }
---   parameters  table    of the template
---   variables   table    by name
---   preview     boolean  nothing is run; the expanded YAML comes back
function Client:run_pipeline(id, options)
  options = options or {}
  local variables
  for name, value in pairs(options.variables or {}) do
    variables = variables or {}
    variables[name] = { value = tostring(value) }
  end
  local reply = host.azdo.run_pipeline {
    client = self.client, project = self.project, pipeline_id = id,
    run = {
      resources = options.branch and { repositories = { self = { refName = options.branch } } } or nil,
      templateParameters = options.parameters, variables = variables, previewRun = options.preview,
    },
  }
  return { id = reply.id, state = reply.state, url = reply.url, final_yaml = reply.finalYaml }
end

--- client:pipeline_run(pipeline, id) -> { state, result }; state: inProgress, canceling, completed
function Client:pipeline_run(pipeline, id)
  return host.azdo.get_pipeline_run {
    client = self.client, project = self.project, pipeline_id = pipeline, run_id = id,
  }
end

local NEEDED = { "PlanUri", "ProjectId", "HubName", "PlanId", "JobId", "TaskInstanceId" }

--- azdo.task(info, { auth?, token?, pat? }) -> task: an agentless task that waits for its callback
---   info  table  PlanUri, ProjectId, HubName, PlanId, JobId, TaskInstanceId, and TimelineId for live lines
function azdo.task(info, options)
  options = options or {}
  for _, field in ipairs(NEEDED) do
    if type(info[field]) ~= "string" or info[field] == "" then
      error(("azdo.task: '%s' is missing; it needs %s"):format(field, table.concat(NEEDED, ", ")), 2)
    end
  end
  local pat = options.pat
  if not pat and not options.auth and not options.token then
    -- the plan's address comes from the pipeline, so the host does not add the operator's credentials by itself
    pat = try(secret.get, "AZDO_PAT")
  end
  local client = azdo.connect { endpoint = info.PlanUri, auth = options.auth, token = options.token, pat = pat }
  return setmetatable({
    client = client.client,
    plan = { project_id = info.ProjectId, hub = info.HubName, plan_id = info.PlanId },
    timeline_id = info.TimelineId,
    job_id = info.JobId,
    task_id = info.TaskInstanceId,
    lines = {},
  }, Task)
end

local function call(task, name, args)
  args.client = task.client
  for key, value in pairs(task.plan) do args[key] = value end
  return host.azdo[name](args)
end

--- task:start(): the service shows the task as running
function Task:start()
  call(self, "plan_event", { name = "TaskStarted", task_id = self.task_id, job_id = self.job_id })
end

--- task:log(text): lines for the live view (when TimelineId is known) and for the log that stays
function Task:log(text)
  local lines = {}
  for line in (text .. "\n"):gmatch "(.-)\r?\n" do lines[#lines + 1] = line end
  for _, line in ipairs(lines) do self.lines[#self.lines + 1] = line end
  if not self.timeline_id then return end
  for first = 1, #lines, FEED_LINES do
    local part = table.move(lines, first, math.min(first + FEED_LINES - 1, #lines), 1, {})
    call(self, "plan_feed", { timeline_id = self.timeline_id, record_id = self.job_id, count = #part, value = part })
  end
end

--- task:complete(result): "succeeded" or "failed". The log is stored first: writes after the end of a plan are lost.
function Task:complete(result)
  if result ~= "succeeded" and result ~= "failed" then
    error(("azdo: a task ends as 'succeeded' or 'failed', not '%s'"):format(tostring(result)), 2)
  end
  if #self.lines > 0 then
    -- a log that cannot be stored must not keep the task waiting
    local stored, err = try(function()
      local made = call(self, "plan_create_log", { path = "logs\\" .. self.task_id })
      call(self, "plan_append_log", { log_id = made.id, text = table.concat(self.lines, "\n") .. "\n" })
      if self.timeline_id then
        local records = { { id = self.task_id, log = { id = made.id } } }
        call(self, "plan_update_records", { timeline_id = self.timeline_id, count = 1, value = records })
      end
      return true
    end)
    if not stored then log.warning("the task's log could not be stored: %s", tostring(err)) end
  end
  call(self, "plan_event", {
    name = "TaskCompleted", task_id = self.task_id, job_id = self.job_id, result = result,
  })
end

--- azdo.set_variable(name, value, { output?, secret? }): for later steps; output: for other jobs, too
function azdo.set_variable(name, value, options)
  set_variable(name, value, options)
end

--- azdo.summary(markdown, title?): for the run's summary page
function azdo.summary(text, title)
  report.summary(text, title)
end

return azdo
