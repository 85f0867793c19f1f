-- The exit handler: tells the Azure DevOps task that waits for this run how it ended, until the server has answered.
-- AZDO_PAT comes from the secret "azdopat"; KFP_HOST, for a link to the run, from "kfp-host-secret".
local azdo = require "azdo"
local env = require "env"
local json = require "json"

local FIELDS = { "PlanUri", "ProjectId", "HubName", "PlanId", "JobId", "TaskInstanceId" }

--- What failed, in a sentence for the log of the waiting task.
local function verdict(status)
  if status.state == "SUCCEEDED" then return "succeeded", "the run succeeded" end
  local reason = status.error and status.error.message or ""
  return "failed", ("the run ended as %s%s%s"):format(status.state, reason ~= "" and ": " or "", reason)
end

component "azdocallback" {
  inputs = { info = { "string", default = "" }, status = "json", run_id = "string" },
  permissions = { env = { "AZDO_PAT", "KFP_HOST" }, net = { "*" } },
  run = function(cx)
    local result, text = verdict(cx.inputs.status)
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
    task:log(("Kubeflow run %s: %s"):format(cx.inputs.run_id, text))
    if env.KFP_HOST then task:log(("%s/#/runs/details/%s"):format(env.KFP_HOST, cx.inputs.run_id)) end
    task:complete(result)
  end,
}
