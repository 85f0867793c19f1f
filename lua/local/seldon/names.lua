-- Names, labels and times of what the operator makes, as Seldon Core 1's operator forms them.
local sys = require "sys"

local names = {}

--- Names of Deployments and Services are at most 63 characters; longer ones become a digest, as in Seldon.
function names.bounded(name)
  if #name <= 63 then
    return name
  end
  return "seldon-" .. sys.sha256(name):sub(1, 32)
end

function names.deployment(sdep, predictor, index, containers)
  local parts = {}
  for i, container in ipairs(containers) do
    parts[i] = container.name
  end
  return names.bounded(("%s-%s-%d-%s"):format(sdep, predictor, index, table.concat(parts, "-")))
end

--- The Service of a predictor. The annotation seldon.io/svc-name chooses another name.
function names.service(sdep, predictor)
  local chosen = type(predictor.annotations) == "table" and predictor.annotations["seldon.io/svc-name"]
  return names.bounded(chosen or ("%s-%s"):format(sdep, predictor.name))
end

function names.container_service(sdep, predictor, container)
  return names.bounded(("%s-%s-%s"):format(sdep, predictor, container))
end

function names.explainer(sdep, predictor)
  return names.bounded(("%s-%s-explainer"):format(sdep, predictor))
end

--- Seconds as Kubernetes writes them; now when ms is absent.
function names.time(ms)
  return os.date("!%Y-%m-%dT%H:%M:%SZ", (ms or sys.now_ms()) // 1000)
end

return names
