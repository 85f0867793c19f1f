-- Deployments: as many pods of the present template as it says, new ones ready before old ones go.
local json = require "local.json"
local names = require "local.seldon.names"
local sys = require "sys"
local tree = require "local.seldon.tree"

local map = tree.map
local deployments = {}

local HASH = "pod-template-hash"

function deployments.hash(deployment)
  return sys.sha256(json.encode(deployment.spec.template, { sorted = true })):sub(1, 10)
end

local function make_pod(operator, deployment, hash)
  local template = tree.copy(deployment.spec.template)
  local name = ("%s-%s-%s"):format(deployment.metadata.name:sub(1, 230), hash, sys.random_hex(3):sub(1, 5))
  local labels = tree.merge({}, map(template.metadata).labels)
  labels[HASH] = hash
  local spec = map(template.spec)
  spec.restartPolicy, spec.nodeName = "Always", "mlhost"
  local annotations = tree.merge({}, map(template.metadata).annotations)
  annotations["mlhost.io/log-dir"] = operator.pods:log_dir(deployment.metadata.namespace, name)
  local pod = operator.host.put("pods", {
    apiVersion = "v1", kind = "Pod",
    metadata = { name = name, namespace = deployment.metadata.namespace, labels = labels, annotations = annotations,
      ownerReferences = tree.reference(deployment) },
    spec = spec, status = { phase = "Pending" },
  }, "new")
  if pod then
    operator.events:tell(deployment, "Normal", "SuccessfulCreate", "Created pod: " .. name)
    operator.events:tell(pod, "Normal", "Scheduled", ("Successfully assigned %s/%s to mlhost"):format(
      pod.metadata.namespace, name))
  end
  return pod
end

local function remove_pod(operator, deployment, pod)
  operator.host.delete("pods", pod.metadata.namespace, pod.metadata.name)
  operator.events:tell(deployment, "Normal", "SuccessfulDelete", "Deleted pod: " .. pod.metadata.name)
end

local function condition(old, kind, status, reason, message)
  for _, one in ipairs(map(old)) do
    if one.type == kind then
      local same = one.status == status
      local all = same and one.reason == reason and one.message == message
      return { type = kind, status = status, reason = reason, message = message,
        lastTransitionTime = same and one.lastTransitionTime or names.time(),
        lastUpdateTime = all and one.lastUpdateTime or names.time() }
    end
  end
  return { type = kind, status = status, reason = reason, message = message, lastTransitionTime = names.time(),
    lastUpdateTime = names.time() }
end

-- The conditions, and the time (of the clock) at which the next one changes by itself.
local function conditions(operator, deployment, counts)
  local old = map(deployment.status).conditions
  local key = tree.key(deployment)
  local complete = counts.updated == counts.desired and counts.total == counts.desired
    and counts.available == counts.desired
  local mark = ("%s %d %d %d"):format(counts.hash, counts.updated, counts.available, counts.total)
  local state = operator.progress[key]
  if not state or state.mark ~= mark then
    state = { mark = mark, since = operator.host.clock() }
    operator.progress[key] = state
  end
  local limit = tree.number(deployment.spec.progressDeadlineSeconds, 600) * 1000
  local late = not complete and operator.host.clock() - state.since >= limit
  if not complete and not late then
    operator:wake_at(state.since + limit)
  end
  local available = counts.available >= counts.desired
  local what = ("Deployment \"%s\""):format(deployment.metadata.name)
  local progressing = complete
    and condition(old, "Progressing", "True", "NewReplicaSetAvailable", what .. " has successfully progressed.")
    or late and condition(old, "Progressing", "False", "ProgressDeadlineExceeded",
      what .. " has timed out progressing.")
    or condition(old, "Progressing", "True", "ReplicaSetUpdated", what .. " is progressing.")
  return json.array {
    available and condition(old, "Available", "True", "MinimumReplicasAvailable",
      "Deployment has minimum availability.")
      or condition(old, "Available", "False", "MinimumReplicasUnavailable",
        "Deployment does not have minimum availability."),
    progressing,
  }
end

-- Unready ones first: nobody misses them.
local function by_use(operator, pods)
  table.sort(pods, function(a, b)
    local ready_a, ready_b = operator.pods:is_ready(a), operator.pods:is_ready(b)
    if ready_a ~= ready_b then
      return not ready_a
    end
    return a.metadata.name < b.metadata.name
  end)
end

local function roll(operator, deployment, hash, fresh, old, ready)
  local desired = tree.number(deployment.spec.replicas, 1)
  local surge = math.max(1, desired // 4)
  local total = #fresh + #old
  by_use(operator, old)
  by_use(operator, fresh)
  while #fresh < desired and total < desired + surge do
    local pod = make_pod(operator, deployment, hash)
    if not pod then
      break
    end
    fresh[#fresh + 1], total = pod, total + 1
  end
  while #fresh > desired do
    local pod = table.remove(fresh, 1)
    ready = ready - (operator.pods:is_ready(pod) and 1 or 0)
    remove_pod(operator, deployment, pod)
  end
  while #old > 0 and (not operator.pods:is_ready(old[1]) or ready > desired or desired == 0) do
    local pod = table.remove(old, 1)
    ready = ready - (operator.pods:is_ready(pod) and 1 or 0)
    remove_pod(operator, deployment, pod)
  end
end

--- One pass over a Deployment. pods: those that it owns.
function deployments.reconcile(operator, deployment, pods)
  local hash = deployments.hash(deployment)
  local fresh, old, ready, updated_ready = {}, {}, 0, 0
  for _, pod in ipairs(pods) do
    local is_new = map(pod.metadata.labels)[HASH] == hash
    local list = is_new and fresh or old
    list[#list + 1] = pod
    if operator.pods:is_ready(pod) then
      ready = ready + 1
      updated_ready = updated_ready + (is_new and 1 or 0)
    end
  end
  roll(operator, deployment, hash, fresh, old, ready)
  ready = 0
  for _, list in ipairs { fresh, old } do
    for _, pod in ipairs(list) do
      ready = ready + (operator.pods:is_ready(pod) and 1 or 0)
    end
  end
  local desired, total = tree.number(deployment.spec.replicas, 1), #fresh + #old
  local counts = { desired = desired, updated = #fresh, total = total, available = ready, hash = hash }
  local status = {
    observedGeneration = deployment.metadata.generation, replicas = total, updatedReplicas = #fresh,
    readyReplicas = ready, availableReplicas = ready, unavailableReplicas = math.max(0, math.max(desired, total) - ready),
    conditions = conditions(operator, deployment, counts),
  }
  if not tree.same(status, map(deployment.status)) then
    operator.host.put_status("deployments.apps", deployment.metadata.namespace, deployment.metadata.name, status)
    deployment.status = status
  end
  operator.pod_lists[tree.key(deployment)] = table.move(old, 1, #old, #fresh + 1, fresh)
end

--- All its pods are of the present template, and ready.
function deployments.is_complete(deployment)
  local status, desired = map(deployment.status), tree.number(deployment.spec.replicas, 1)
  return status.observedGeneration == deployment.metadata.generation and status.updatedReplicas == desired
    and status.replicas == desired and status.availableReplicas == desired
end

return deployments
