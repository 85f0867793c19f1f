-- What was deployed before: the last revisions of a SeldonDeployment, in a ConfigMap beside it that goes when it goes. Seldon
-- itself keeps none, and a rollback is applying an earlier spec again.
local json = require "json"
local time = require "time"
local _, vm = ...

local history = {}

local KEPT = 10
local MOST = 900 * 1024 -- bytes: the API takes 1 MiB

--- On a SeldonDeployment: the number of the revision that became available last.
history.LAST_GOOD = "mlhost.io/last-good"

local function place(name) return name .. "-mlhost-revisions" end

--- history.read(cluster, namespace, name) -> state
---   applied    object?  what was sent last, also in the middle of a rollout
---   rollout    table?   { name, original }: a rollout that has not ended, and what was there before it
---   revisions  list     { number, time, good, object }, oldest first: what was meant to stay
function history.read(cluster, namespace, name)
  local found = cluster:get("ConfigMap", place(name), { namespace = namespace })
  local data = found and type(found.data) == "table" and found.data or {}
  return {
    applied = data.applied and json.decode(data.applied) or nil,
    rollout = data.rollout and json.decode(data.rollout) or nil,
    revisions = data.revisions and json.decode(data.revisions) or {},
  }
end

--- The oldest revision that may be forgotten: not the last good one.
local function oldest(revisions)
  local last_good
  for i, one in ipairs(revisions) do
    if one.good then last_good = i end
  end
  return last_good == 1 and 2 or 1
end

--- history.trim(revisions, kept, most): forgets the oldest until so many are left, and so many bytes
---@private
function history.trim(revisions, kept, most)
  while #revisions > 1 and (#revisions > kept or #json.encode(vm.array(revisions)) > most) do
    table.remove(revisions, oldest(revisions))
  end
end

local function write(cluster, namespace, name, state)
  history.trim(state.revisions, KEPT, MOST)
  local owner = state.owner
  cluster:apply({
    apiVersion = "v1", kind = "ConfigMap",
    metadata = {
      name = place(name), namespace = namespace, labels = { ["app.kubernetes.io/managed-by"] = "mlhost" },
      ownerReferences = owner and vm.array { {
        apiVersion = owner.apiVersion, kind = owner.kind, name = owner.metadata.name, uid = owner.metadata.uid,
      } } or nil,
    },
    data = {
      applied = state.applied and json.encode(state.applied) or nil,
      rollout = state.rollout and json.encode(state.rollout) or nil,
      revisions = json.encode(vm.array(state.revisions)),
    },
  }, { force = true, namespace = namespace })
end

--- history.update(cluster, live, fn): fn changes the state of a SeldonDeployment's history, which is written then
---@param live table # the SeldonDeployment as the server has it
---@param fn fun(state: table)
function history.update(cluster, live, fn)
  local meta = live.metadata
  local state = history.read(cluster, meta.namespace, meta.name)
  fn(state)
  state.owner = live
  write(cluster, meta.namespace, meta.name, state)
  return state
end

--- history.same(a, b): are they the same object as it was sent?
function history.same(a, b) return json.encode(a) == json.encode(b) end

--- history.add(state, object, good) -> revision: one that is meant to stay; good: it became available
function history.add(state, object, good)
  local last = state.revisions[#state.revisions]
  if last and history.same(last.object, object) then
    last.good = last.good or good
    return last
  end
  local revision = { number = last and last.number + 1 or 1, time = time.iso(), good = good, object = object }
  state.revisions[#state.revisions + 1] = revision
  return revision
end

--- history.before(state) -> the newest good revision that is not what was sent last, or nil
function history.before(state)
  for i = #state.revisions, 1, -1 do
    local one = state.revisions[i]
    if one.good and not history.same(one.object, state.applied) then return one end
  end
end

--- history.forget(cluster, namespace, name)
function history.forget(cluster, namespace, name)
  cluster:delete("ConfigMap", place(name), { namespace = namespace, wait = false })
end

return history
