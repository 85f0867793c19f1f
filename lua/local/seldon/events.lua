-- Events: what happened to an object, for people. One that happens again is counted, not repeated; the oldest of
-- all are dropped.
local names = require "local.seldon.names"
local sys = require "sys"

local events = {}
events.__index = events

local MOST = 500

function events.new(host)
  local self = setmetatable({ host = host, order = {} }, events)
  for _, event in ipairs((host.list("events"))) do
    self.order[#self.order + 1] = { event.metadata.namespace, event.metadata.name }
  end
  return self
end

--- kind: "Normal" or "Warning".
function events:tell(object, kind, reason, message)
  local meta = object.metadata
  local digest = sys.sha256(table.concat({ meta.uid or "", reason, message }, "\0")):sub(1, 16)
  local name = ("%s.%s"):format(meta.name:sub(1, 200), digest)
  local known = self.host.get("events", meta.namespace, name)
  local now = names.time()
  if known then
    known.count, known.lastTimestamp = (known.count or 1) + 1, now
    self.host.put("events", known)
    return
  end
  self.host.put("events", {
    apiVersion = "v1", kind = "Event", metadata = { name = name, namespace = meta.namespace },
    involvedObject = { apiVersion = object.apiVersion, kind = object.kind, name = meta.name, namespace = meta.namespace,
      uid = meta.uid, resourceVersion = meta.resourceVersion },
    type = kind, reason = reason, message = message:sub(1, 1024), count = 1, firstTimestamp = now, lastTimestamp = now,
    source = { component = object.kind == "Pod" and "kubelet" or "seldon-controller-manager", host = "mlhost" },
    reportingComponent = "", reportingInstance = "",
  })
  self.order[#self.order + 1] = { meta.namespace, name }
  while #self.order > MOST do
    local oldest = table.remove(self.order, 1)
    self.host.delete("events", oldest[1], oldest[2])
  end
end

return events
