-- The scale subresource: spec.replicas of an object as an autoscaling/v1 Scale.
local status = require "local.kubernetes.status"
local tree = require "local.kubernetes.tree"

local scale = {}

local function selector_of(object)
  local labels = {}
  for name, value in pairs(tree.get(object, "spec", "selector", "matchLabels") or {}) do
    labels[#labels + 1] = name .. "=" .. tostring(value)
  end
  table.sort(labels)
  return labels[1] and table.concat(labels, ",") or nil
end

--- The Scale of an object.
function scale.of(_, object)
  local metadata = object.metadata
  return {
    kind = "Scale", apiVersion = "autoscaling/v1",
    metadata = { name = metadata.name, namespace = metadata.namespace, uid = metadata.uid,
                 resourceVersion = metadata.resourceVersion, creationTimestamp = metadata.creationTimestamp },
    spec = { replicas = tree.get(object, "spec", "replicas") or 0 },
    status = { replicas = tree.get(object, "status", "replicas") or 0, selector = selector_of(object) },
  }
end

--- A copy of the object with the replicas of a Scale.
function scale.set(resource, live, given)
  local replicas = tree.get(given, "spec", "replicas") or 0
  if math.type(replicas) ~= "integer" or replicas < 0 then
    status.invalid(resource, live.metadata.name, { { field = "spec.replicas",
      message = "Invalid value: must be greater than or equal to 0" } })
  end
  local object = tree.copy(live)
  object.spec = tree.is_map(object.spec) and object.spec or {}
  object.spec.replicas = replicas
  object.metadata.resourceVersion = tree.get(given, "metadata", "resourceVersion")
  return object
end

return scale
