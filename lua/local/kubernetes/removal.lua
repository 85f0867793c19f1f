-- How objects end: preconditions, finalizers, what happens to those that they own. The garbage collector
-- (host/local/k8s_gc.c) deletes what an object owned once it is gone.
local json = require "json"
local k8s = require "k8s"
local status = require "local.kubernetes.status"
local tree = require "local.kubernetes.tree"

local removal = {}

local FOREGROUND = "foregroundDeletion"

-- Whose deletion is answered with the object itself, as typed clients expect it.
local returned = { pods = true, services = true, serviceaccounts = true }

local function has_finalizers(object)
  local list = tree.get(object, "metadata", "finalizers")
  return tree.is_list(list) and #list > 0
end

local function remove(resource, object)
  local done, _, message = k8s.delete(resource.store, object.metadata.namespace, object.metadata.name)
  if done == nil then
    status.raise(500, "InternalError", message)
  end
end

--- An object that waits for its end goes when its last finalizer does. Returns the object.
function removal.finish(resource, object)
  if object.metadata.deletionTimestamp and not has_finalizers(object) and resource.store ~= "namespaces" then
    remove(resource, object)
  end
  return object
end

-- Takes the owner out of what it owns.
local function orphan(owner)
  for _, resource in ipairs(k8s.resources) do
    for _, object in ipairs((k8s.list(resource.store, { namespace = owner.metadata.namespace }))) do
      local kept, found = json.array({}), false
      for _, reference in ipairs(tree.get(object, "metadata", "ownerReferences") or {}) do
        if reference.uid == owner.metadata.uid then
          found = true
        else
          kept[#kept + 1] = reference
        end
      end
      if found then
        object.metadata.ownerReferences = #kept > 0 and kept or nil
        k8s.put(resource.store, object)
      end
    end
  end
end

local function check_preconditions(resource, live, wanted)
  local metadata = live.metadata
  if tree.get(wanted, "uid") and wanted.uid ~= metadata.uid then
    status.conflict(resource, metadata.name, ("Precondition failed: UID in precondition: %s, UID in object meta: %s")
      :format(tostring(wanted.uid), metadata.uid))
  elseif tree.get(wanted, "resourceVersion") and wanted.resourceVersion ~= metadata.resourceVersion then
    status.conflict(resource, metadata.name,
      ("Precondition failed: ResourceVersion in precondition: %s, ResourceVersion in object meta: %s")
      :format(tostring(wanted.resourceVersion), metadata.resourceVersion))
  end
end

-- Marks an object as to be deleted. Its finalizers, or the garbage collector, end it.
local function mark(resource, live)
  local object = tree.copy(live)
  object.metadata.deletionTimestamp = k8s.now()
  object.metadata.deletionGracePeriodSeconds = 0
  if resource.store == "namespaces" then
    object.status = { phase = "Terminating" }
  end
  return k8s.put(resource.store, object) or object
end

--- Deletes an object. options: propagationPolicy, preconditions, dry. Returns a Status when it is gone, the object when it
--- waits for its finalizers or dependents.
function removal.delete(resource, live, options)
  local metadata = live.metadata
  check_preconditions(resource, live, options.preconditions)
  if resource.store == "namespaces" and metadata.name == "default" then
    status.forbidden(resource, metadata.name, "this namespace may not be deleted")
  end
  local done = { kind = "Status", apiVersion = "v1", metadata = {}, status = "Success",
                 details = { name = metadata.name, kind = resource.plural, uid = metadata.uid,
                             group = resource.group ~= "" and resource.group or nil } }
  if options.dry then
    return done
  end
  if options.propagationPolicy == "Orphan" then
    orphan(live)
  elseif options.propagationPolicy == "Foreground" and not metadata.deletionTimestamp then
    metadata.finalizers = tree.is_list(metadata.finalizers) and metadata.finalizers or json.array({})
    table.insert(metadata.finalizers, FOREGROUND)
  end
  if resource.store == "namespaces" or has_finalizers(live) then
    return metadata.deletionTimestamp and live or mark(resource, live)
  end
  remove(resource, live)
  return returned[resource.store] and live or done
end

return removal
