-- What was deployed before: the last revisions of a SeldonDeployment, in a ConfigMap beside it. Seldon itself keeps none, and
-- a rollback is applying an earlier spec again.
local json = require "json"
local time = require "time"
local vm = require "vm"

local history = {}

local KEPT = 10

local function place(name) return name .. "-mlhost-revisions" end

--- history.read(cluster, namespace, name) -> { applied = object or nil, revisions = { { number, time, good, object } } }
function history.read(cluster, namespace, name)
  local map = cluster:get("ConfigMap", place(name), { namespace = namespace })
  local data = map and map.data or {}
  return {
    applied = data.applied and json.decode(data.applied) or nil,
    revisions = data.revisions and json.decode(data.revisions) or {},
  }
end

local function write(cluster, namespace, name, state)
  while #state.revisions > KEPT do table.remove(state.revisions, 1) end
  cluster:apply({
    apiVersion = "v1", kind = "ConfigMap",
    metadata = { name = place(name), namespace = namespace, labels = { ["app.kubernetes.io/managed-by"] = "mlhost" } },
    data = {
      applied = state.applied and json.encode(state.applied) or nil,
      revisions = json.encode(vm.array(state.revisions)),
    },
  }, { force = true })
end

--- history.applied(cluster, namespace, name, object): what was sent last, also in the middle of a rollout
function history.applied(cluster, namespace, name, object)
  local state = history.read(cluster, namespace, name)
  state.applied = object
  write(cluster, namespace, name, state)
end

--- history.settled(cluster, namespace, name, object, good): a revision that is meant to stay; good: it became available
function history.settled(cluster, namespace, name, object, good)
  local state = history.read(cluster, namespace, name)
  local last = state.revisions[#state.revisions]
  state.applied = object
  if last and json.encode(last.object) == json.encode(object) then
    last.good = last.good or good
  else
    state.revisions[#state.revisions + 1] = {
      number = last and last.number + 1 or 1, time = time.iso(), good = good, object = object,
    }
  end
  write(cluster, namespace, name, state)
end

--- history.before(state) -> the last good revision that is not the newest one, or nil
function history.before(state)
  for i = #state.revisions - 1, 1, -1 do
    if state.revisions[i].good then return state.revisions[i] end
  end
end

--- history.forget(cluster, namespace, name)
function history.forget(cluster, namespace, name)
  cluster:delete("ConfigMap", place(name), { namespace = namespace, wait = false })
end

return history
