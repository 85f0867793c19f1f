--- azdo.task: an agentless task that waits for its callback. Events, the live feed, the log that stays, output variables.
--- https://learn.microsoft.com/rest/api/azure/devops/distributedtask/
local connection = require "azdo.connection"
local host = require "host"
local secret = require "secret"
local time = require "time"

local Task = {}
Task.__index = Task
local M = {}

local FEED_LINES = 100 -- in one post, as the service's own agent does
local FEED_PAUSE = 1 -- seconds between two posts
local PAUSE, LONGEST_PAUSE = 2, 60 -- seconds between two tries, at first and at most
local NEEDED = { "PlanUri", "ProjectId", "HubName", "PlanId", "JobId", "TaskInstanceId" }
-- What another try does not heal. 408 and 429 pass by themselves.
local FINAL = {
  unauthorized = true, forbidden = true, denied = true, not_found = true, invalid = true, usage = true, conflict = true,
  unsupported = true, cancelled = true,
}

--- azdo.task(info, { auth?, token?, pat?, timeout? }) -> task: an agentless task that waits for its callback
---   info     table     PlanUri, ProjectId, HubName, PlanId, JobId, TaskInstanceId, and TimelineId for live lines
---   timeout  duration  how long a call is repeated while the server does not answer or says 408, 429 or 5xx; default "30m"
function M.task(info, options)
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
  local client = connection.open { endpoint = info.PlanUri, auth = options.auth, token = options.token, pat = pat }
  local limit = options.timeout or "30m"
  return setmetatable({
    client = client.client,
    plan = { project_id = info.ProjectId, hub = info.HubName, plan_id = info.PlanId },
    timeline_id = info.TimelineId ~= "" and info.TimelineId or nil,
    job_id = info.JobId,
    task_id = info.TaskInstanceId,
    deadline = time.now() + (type(limit) == "number" and limit or time.duration(limit)),
    lines = {},
  }, Task)
end

local function call(task, name, args)
  args.client = task.client
  for key, value in pairs(task.plan) do args[key] = value end
  return host.azdo[name](args)
end

--- Until the server has answered: the host's own tries (which honour Retry-After) come first, then longer pauses.
local function insist(task, name, args)
  local pause = PAUSE
  while true do
    local reply, err = try(call, task, name, args)
    if reply then return reply end
    local status = type(err) == "table" and math.tointeger(err.status)
    if type(err) ~= "table" or FINAL[err.code] or status and status < 500 and status ~= 408 and status ~= 429 then
      error(err, 0)
    end
    local left = task.deadline - time.now()
    if left <= 0 then
      err.message = ("%s (given up: the time for the callback is over)"):format(err.message)
      error(err, 0)
    end
    local wait = math.max(0.05, math.min(pause, left))
    log.warning("%s; next try in %.0f s", err.message, wait)
    sleep(wait)
    pause = math.min(pause * 2, LONGEST_PAUSE)
  end
end

local function event(task, name, result)
  insist(task, "plan_event", { name = name, task_id = task.task_id, job_id = task.job_id, result = result })
end

--- task:assign(): tells the service that the task has been taken over; optional, before start
function Task:assign() event(self, "TaskAssigned") end

--- task:start(): the service shows the task as running
function Task:start() event(self, "TaskStarted") end

--- task:log(text): lines for the live view (when TimelineId is known) and for the log that stays. At most 100 lines a post
--- and a post a second. Live lines that the server does not take are not repeated: they are in the log that stays.
function Task:log(text)
  local lines = {}
  for line in (text:gsub("\n$", "") .. "\n"):gmatch "(.-)\r?\n" do lines[#lines + 1] = line end
  for _, line in ipairs(lines) do self.lines[#self.lines + 1] = line end
  if not self.timeline_id then return end
  for first = 1, #lines, FEED_LINES do
    local part = table.move(lines, first, math.min(first + FEED_LINES - 1, #lines), 1, {})
    local wait = self.fed and self.fed + FEED_PAUSE - time.now() or 0
    if wait > 0 then sleep(wait) end
    local _, err = try(call, self, "plan_feed", {
      timeline_id = self.timeline_id, record_id = self.job_id, count = #part, value = part,
    })
    self.fed = time.now()
    if err then
      log.warning("the live log did not take %d lines: %s", #part, err.message)
      return
    end
  end
end

--- task:set_variable(name, value, { secret? }): an output variable of the task, sent with its record when it completes
function Task:set_variable(name, value, options)
  self.variables = self.variables or {}
  self.variables[name] = { value = tostring(value), isSecret = options and options.secret or false }
end

--- The log that stays, and the task's record with it. A log that cannot be stored must not keep the task waiting.
local function store(task)
  local record = { id = task.task_id, variables = task.variables }
  if #task.lines > 0 then
    local made, err = try(call, task, "plan_create_log", { path = "logs\\" .. task.task_id })
    if made then
      local _
      _, err = try(call, task, "plan_append_log", { log_id = made.id, text = table.concat(task.lines, "\n") .. "\n" })
      record.log = { id = made.id }
    end
    if err then log.warning("the task's log could not be stored: %s", err.message) end
  end
  if task.timeline_id and (record.log or record.variables) then
    local args = { timeline_id = task.timeline_id, count = 1, value = { record } }
    -- variables are results: later jobs read them
    if record.variables then
      insist(task, "plan_update_records", args)
    else
      local _, err = try(call, task, "plan_update_records", args)
      if err then log.warning("the task's log could not be attached: %s", err.message) end
    end
  elseif record.variables then
    error("azdo: output variables need TimelineId", 0)
  end
end

--- task:complete(result): "succeeded" or "failed". The log is stored first: writes after the end of a plan are lost.
--- Repeated until the server has answered, or the task's timeout has passed; 401, 403 and 404 raise at once. Output
--- variables that the server refused are raised too, but not before the task has ended.
function Task:complete(result)
  if result ~= "succeeded" and result ~= "failed" then
    error(("azdo: a task ends as 'succeeded' or 'failed', not '%s'"):format(tostring(result)), 2)
  end
  local _, err = try(store, self)
  event(self, "TaskCompleted", result)
  if err then error(err, 0) end
end

return M
