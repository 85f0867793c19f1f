--- azdo.builds: pipelines queued from here, their artifacts and approvals. Methods of the client.
--- https://learn.microsoft.com/rest/api/azure/devops/pipelines/ and .../build/
local connection = require "azdo.connection"
local host = require "host"
local time = require "time"

local Client, Run = connection.Client, {}
Run.__index = Run
local call = connection.call
local FIRST_PAUSE, PAUSE = 1, 10 -- seconds between two looks at a run

local function fill(run, reply)
  run.id, run.state, run.result = reply.id or run.id, reply.state, reply.result
  run.url = reply._links and reply._links.web and reply._links.web.href or reply.url or run.url
  run.final_yaml = reply.finalYaml
  return run
end

--- client:run_pipeline(id, { branch?, version?, parameters?, variables?, skip?, preview?, yaml? }) -> run
---   parameters  table    of the template
---   variables   table    by name
---   skip        list     names of stages that do not run
---   preview     boolean  nothing is run; run.final_yaml is the expanded YAML
---   yaml        string   with preview: instead of the file in the repository
--- run: { id, state, result, url, final_yaml }
function Client:run_pipeline(id, options)
  options = options or {}
  local variables
  for name, value in pairs(options.variables or {}) do
    variables = variables or {}
    variables[name] = { value = tostring(value) }
  end
  local source = (options.branch or options.version) and { refName = options.branch, version = options.version }
  local reply = call(self, "run_pipeline", {
    pipeline_id = id,
    run = {
      resources = source and { repositories = { self = source } } or nil,
      templateParameters = options.parameters, variables = variables, previewRun = options.preview,
      stagesToSkip = options.skip, yamlOverride = options.yaml,
    },
  })
  return fill(setmetatable({ of = self, pipeline = id }, Run), reply)
end

--- client:pipeline_run(pipeline, id) -> run as it is now; state: inProgress, canceling, completed
function Client:pipeline_run(pipeline, id)
  return setmetatable({ of = self, pipeline = pipeline, id = id }, Run):get()
end

--- run:get() -> the run, read anew
function Run:get()
  return fill(self, call(self.of, "get_pipeline_run", { pipeline_id = self.pipeline, run_id = self.id }))
end

--- run:cancel(): asks the service to end it
function Run:cancel()
  call(self.of, "update_build", { build_id = self.id, status = "cancelling" })
end

--- What went wrong: the errors that its tasks reported.
local function complaints(run)
  local timeline, said = try(call, run.of, "get_timeline", { build_id = run.id }), {}
  for _, record in ipairs(timeline and timeline.records or {}) do
    for _, issue in ipairs(record.result == "failed" and record.issues or {}) do
      if issue.type == "error" and #said < 10 then said[#said + 1] = ("%s: %s"):format(record.name, issue.message) end
    end
  end
  return said
end

--- run:wait{ timeout?, every?, keep? } -> run, succeeded (or partially: result "partiallySucceeded")
---   timeout  duration  raises code "timeout" when it has passed
---   every    duration  between two looks, default "10s"; it begins quicker
---   keep     boolean   the run goes on when this stage ends before it; default: it is cancelled
--- Raises when the run ends otherwise, with the errors of its tasks.
function Run:wait(options)
  options = options or {}
  local function seconds(value) return type(value) == "number" and value or time.duration(value) end
  local deadline = options.timeout and time.now() + seconds(options.timeout)
  local every = options.every and seconds(options.every) or PAUSE
  local pause, ended = math.min(FIRST_PAUSE, every), false
  if not options.keep then
    defer(function()
      if not ended then try(self.cancel, self) end
    end)
  end
  while true do
    self:get()
    if self.state == "completed" then break end
    local left = deadline and deadline - time.now()
    if left and left <= 0 then
      error({
        service = "azdo", code = "timeout", message = ("run %d is still %s after %s"):format(self.id, self.state, options.timeout),
        hint = self.url,
      }, 2)
    end
    sleep(left and math.min(pause, left) or pause)
    pause = math.min(pause * 1.5, every)
  end
  ended = true
  if self.result ~= "succeeded" and self.result ~= "partiallySucceeded" then
    error({
      service = "azdo", code = self.result == "canceled" and "cancelled" or "failed",
      message = table.concat({ ("run %d ended as %s"):format(self.id, self.result), table.unpack(complaints(self)) }, "\n"),
      hint = self.url,
    }, 2)
  end
  return self
end

--- client:artifacts(build, name?) -> list of { name, id, type, url }; url: of a zip file
function Client:artifacts(build, name)
  local reply, list = call(self, "list_artifacts", { build_id = build, name = name }), {}
  for _, found in ipairs(reply.value or { reply }) do
    local resource = found.resource or {}
    list[#list + 1] = { name = found.name, id = found.id, type = resource.type, url = resource.downloadUrl }
  end
  return list
end

--- client:download_artifact(build, name, to) -> bytes: the artifact as a zip file. Permission: write
function Client:download_artifact(build, name, to)
  local found = self:artifacts(build, name)[1]
  if not found or not found.url then
    error({ service = "azdo", code = "not_found", message = ("build %d has no artifact '%s' to download"):format(build, name) }, 2)
  end
  return host.azdo.download { client = self.client, url = found.url, to = to }.bytes
end

--- client:approvals{ state?, user? } -> list of { id, status, instructions, ... } as the service tells them
---   state  string  default "pending"
function Client:approvals(options)
  options = options or {}
  return call(self, "list_approvals", { state = options.state or "pending", user = options.user }).value or {}
end

--- client:approve(id, comment?), client:reject(id, comment?) -> the approval as it is now
local function decide(client, id, status, comment)
  local approvals = { { approvalId = id, status = status, comment = comment or "" } }
  return call(client, "update_approvals", { approvals = approvals }).value[1]
end
function Client:approve(id, comment) return decide(self, id, "approved", comment) end
function Client:reject(id, comment) return decide(self, id, "rejected", comment) end

return {}
