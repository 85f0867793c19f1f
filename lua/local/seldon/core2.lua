-- Seldon Core 2 has no scheduler and no Kafka here: its objects say so, instead of waiting for ever.
local json = require "local.json"
local names = require "local.seldon.names"
local tree = require "local.seldon.tree"

local map = tree.map
local core2 = {}

local kinds = {
  { resource = "models.mlops.seldon.io", condition = "ModelReady", reason = "ScheduleFailed" },
  { resource = "servers.mlops.seldon.io", condition = "StatefulSetOrDeploymentReady", reason = "NotSupported" },
  { resource = "pipelines.mlops.seldon.io", condition = "PipelineReady", reason = "NotSupported" },
  { resource = "experiments.mlops.seldon.io", condition = "ExperimentReady", reason = "NotSupported" },
}

local MESSAGE = "Seldon Core 2 needs a cluster: choose a profile with k8s.kubeconfig; the embedded Seldon runs " ..
  "SeldonDeployments (seldon.deployment)"

local function condition(kind, now, reason)
  return { type = kind, status = "False", reason = reason, message = MESSAGE, lastTransitionTime = now }
end

--- Writes the status of objects that have none of this generation yet.
function core2.reconcile(operator)
  for _, kind in ipairs(kinds) do
    for _, object in ipairs((operator.host.list(kind.resource))) do
      local first = map(map(object.status).conditions)[1]
      if not first or first.type ~= kind.condition then
        local now = names.time()
        operator.host.put_status(kind.resource, object.metadata.namespace, object.metadata.name, {
          conditions = json.array { condition(kind.condition, now, kind.reason), condition("Ready", now, kind.reason) } })
      end
    end
  end
end

return core2
