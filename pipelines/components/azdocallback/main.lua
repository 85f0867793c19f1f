-- The exit handler: tells the Azure DevOps task that waits for this run how it ended, until the server has answered.
-- AZDO_PAT comes from the secret "azdopat"; KFP_HOST, for the run's tasks and a link to it, from "kfp-host-secret".
local azdo = require "azdo"
local env = require "env"
local json = require "json"
local kubeflow = require "kubeflow"

local FIELDS = { "PlanUri", "ProjectId", "HubName", "PlanId", "JobId", "TaskInstanceId" }

--- The run's tasks that failed, where the Kubeflow API can be asked: "'train' failed: reason".
local function failures(run_id)
  if not env.KFP_HOST and not env.KF_PIPELINES_ENDPOINT then return {} end
  local run, err = try(function()
    return kubeflow.connect({ endpoint = not env.KF_PIPELINES_ENDPOINT and env.KFP_HOST or nil }):run(run_id)
  end)
  if not run then
    log.warning("the run's tasks are not known: %s", err.message)
    return {}
  end
  local found = {}
  for _, task in ipairs(run:tasks()) do
    if task.state == "FAILED" and not task.group and task.name ~= "root" and not task.name:match "%-driver$" then
      found[#found + 1] = ("step '%s' failed%s"):format(task.name, task.error and ": " .. task.error or "")
    end
  end
  return found
end

--- The result, and what failed in a sentence for the log of the waiting task. What did not succeed has failed.
local function verdict(status, run_id)
  if status.state == "SUCCEEDED" then return "succeeded", "the run succeeded" end
  local found = failures(run_id)
  local reason = status.error and status.error.message or ""
  if #found == 0 and reason ~= "" then found = { reason } end
  if #found == 0 and status.pipelineTaskName then found = { ("below '%s'"):format(status.pipelineTaskName) } end
  return "failed", table.concat({ ("the run ended as %s"):format(status.state or "unknown"), table.unpack(found) }, "\n")
end

component "azdocallback" {
  inputs = { info = { "string", default = "" }, status = "json", run_id = "string" },
  permissions = { env = { "AZDO_PAT", "KFP_HOST", "KF_PIPELINES_ENDPOINT" }, net = { "*" } },
  run = function(cx)
    local result, text = verdict(cx.inputs.status, cx.inputs.run_id)
    log.info("Kubeflow run %s: %s", cx.inputs.run_id, text)
    if cx.inputs.info == "" then
      log.info("no callback was asked for")
      return
    end
    local info = json.decode(cx.inputs.info)
    for _, field in ipairs(FIELDS) do
      if type(info[field]) ~= "string" or info[field] == "" then
        error(("azdocallbackinfo has no '%s'; it needs %s"):format(field, table.concat(FIELDS, ", ")))
      end
    end
    local task = azdo.task(info)
    task:start()
    if info.TimelineId then task:set_variable("KF_RUN_ID", cx.inputs.run_id) end
    task:log(("Kubeflow run %s: %s"):format(cx.inputs.run_id, text))
    if env.KFP_HOST then task:log(("%s/#/runs/details/%s"):format(env.KFP_HOST, cx.inputs.run_id)) end
    task:complete(result)
    log.info("Azure DevOps has been told: %s", result)
  end,
}
