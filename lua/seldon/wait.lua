-- When is a SeldonDeployment really there?
--
-- status.observedGeneration is never set, so `state` still speaks of the old spec right after a write; and a rollout that
-- fails over healthy old pods stays Creating for ever. So: the Deployments that carry the label must be those of this spec
-- (images, model URIs and parameters in their templates), observed, updated and available to the last replica; the state must
-- be Available; and the ingress must answer. Everything else is waited for on a watch, until the deadline, which is ours.
local json = require "json"
local time = require "time"

local wait = {}

local ROUTE_ANSWERS = 3 -- in a row: the routes of a gateway are written after the pods are ready
local EARLY = 3         -- seconds in which a state may still be that of the spec before

-- Waiting reasons that do not heal by waiting, and how many restarts a crash needs to be believed.
local HOPELESS = { ErrImageNeverPull = true, InvalidImageName = true, ErrImagePull = true, ImagePullBackOff = true,
  CreateContainerConfigError = true, CreateContainerError = true, RunContainerError = true }
local CRASHES = 3

local function list_of(value) return type(value) == "table" and value or {} end

--- What the containers of a spec must look like: by node name { image, model_uri, parameters }.
local function expected(object)
  local nodes = {}
  local function walk(node, containers)
    if type(node) ~= "table" then return end
    local container = containers[node.name]
    if container or node.modelUri then
      nodes[#nodes + 1] = {
        name = node.name, image = container and container.image, model_uri = node.modelUri, parameters = list_of(node.parameters),
      }
    end
    for _, child in ipairs(list_of(node.children)) do walk(child, containers) end
  end
  for _, predictor in ipairs(list_of(object.spec.predictors)) do
    local containers = {}
    for _, spec in ipairs(list_of(predictor.componentSpecs)) do
      for _, container in ipairs(list_of(list_of(spec.spec).containers)) do containers[container.name] = container end
    end
    walk(predictor.graph, containers)
  end
  return nodes
end

local function env_of(container, name)
  for _, one in ipairs(list_of(container.env)) do
    if one.name == name then return one.value end
  end
end

--- Does the container run with these parameters? The operator hands them over as JSON in its environment.
local function has_parameters(container, parameters)
  if #parameters == 0 then return true end
  local ok, given = pcall(json.decode, env_of(container, "PREDICTIVE_UNIT_PARAMETERS") or "[]")
  if not ok then return false end
  local values = {}
  for _, one in ipairs(given) do values[one.name] = tostring(one.value) end
  for _, one in ipairs(parameters) do
    if values[one.name] ~= tostring(one.value) then return false end
  end
  return true
end

local function carries(deployment, node)
  local pod = list_of(list_of(list_of(deployment.spec).template).spec)
  for _, container in ipairs(list_of(pod.containers)) do
    if container.name == node.name then
      return (not node.image or container.image == node.image) and has_parameters(container, node.parameters)
    end
  end
  for _, container in ipairs(list_of(pod.initContainers)) do
    if container.name == node.name .. "-model-initializer" then
      return not node.model_uri or list_of(container.args)[1] == node.model_uri
    end
  end
  return false
end

--- Why a Deployment is not (yet) as its spec says, or nil.
local function behind(deployment)
  local name, status = deployment.metadata.name, list_of(deployment.status)
  local wanted = list_of(deployment.spec).replicas or 1
  if (status.observedGeneration or 0) < (deployment.metadata.generation or 1) then return name .. ": not looked at yet" end
  local updated, available, all = status.updatedReplicas or 0, status.availableReplicas or 0, status.replicas or 0
  if updated < wanted then return ("%s: %d of %d replicas are of this version"):format(name, updated, wanted) end
  if all > updated then return ("%s: %d old replicas are still there"):format(name, all - updated) end
  if available < wanted then return ("%s: %d of %d replicas are available"):format(name, available, wanted) end
end

--- Why the deployment is not there yet, or nil when it is.
---@param object table # what was applied
---@param current table? # the SeldonDeployment as the server has it
---@param deployments table[] # those with its label
function wait.missing(object, current, deployments)
  if not current then return "it is not there" end
  local nodes = expected(object)
  for _, node in ipairs(nodes) do
    local found = false
    for _, deployment in ipairs(deployments) do found = found or carries(deployment, node) end
    if not found then return ("no Deployment has %s of %s yet"):format(node.name, node.image or node.model_uri or "this spec") end
  end
  for _, deployment in ipairs(deployments) do
    local wanted = false
    for _, node in ipairs(nodes) do wanted = wanted or carries(deployment, node) end
    local is_explainer = deployment.metadata.name:find("explainer", 1, true)
    if not wanted and not is_explainer and #nodes > 0 and list_of(list_of(deployment.metadata).labels)["seldon-app-svc"] == nil
      and (list_of(deployment.spec).replicas or 1) > 0 then
      return deployment.metadata.name .. ": an old Deployment is still there"
    end
    local why = behind(deployment)
    if why then return why end
  end
  local state = list_of(current.status).state
  if state ~= "Available" then
    local description = list_of(current.status).description
    return ("state %s%s"):format(state or "unknown", description and description ~= "" and ": " .. description or "")
  end
end

-- ---- why it does not come ----

local function container_line(pod, status)
  local waiting, ended = list_of(list_of(status.state).waiting), list_of(list_of(status.state).terminated)
  local last = list_of(list_of(status.lastState).terminated)
  local words = { ("pod %s, container %s:"):format(pod.metadata.name, status.name) }
  if waiting.reason then words[#words + 1] = waiting.reason .. (waiting.message and " (" .. waiting.message .. ")" or "") end
  for _, done in ipairs { ended, last } do
    if done.exitCode then
      words[#words + 1] = ("ended with status %d%s%s"):format(done.exitCode, done.reason and ", " .. done.reason or "",
        done.message and done.message ~= "" and ": " .. done.message or "")
      break
    end
  end
  if (status.restartCount or 0) > 0 then words[#words + 1] = ("%d restarts"):format(status.restartCount) end
  if #words == 1 then words[2] = status.ready and "ready" or "running, not ready" end
  return table.concat(words, " ")
end

local function statuses(pod)
  local list = {}
  for _, key in ipairs { "initContainerStatuses", "containerStatuses" } do
    for _, one in ipairs(list_of(list_of(pod.status)[key])) do list[#list + 1] = one end
  end
  return list
end

local function selector(name) return "seldon-deployment-id=" .. name end

--- wait.hopeless(pods) -> a reason that no waiting heals, or nil
function wait.hopeless(pods)
  for _, pod in ipairs(pods) do
    for _, status in ipairs(statuses(pod)) do
      local reason = list_of(list_of(status.state).waiting).reason
      if HOPELESS[reason] or reason == "CrashLoopBackOff" and (status.restartCount or 0) >= CRASHES then
        return container_line(pod, status)
      end
    end
  end
end

--- wait.reasons(cluster, namespace, name) -> text: what pods, logs and events say
function wait.reasons(cluster, namespace, name)
  local lines = {}
  for _, pod in ipairs(cluster:list("Pod", { namespace = namespace, labels = selector(name) })) do
    for _, status in ipairs(statuses(pod)) do
      if not status.ready then
        lines[#lines + 1] = container_line(pod, status)
        local crashed = (status.restartCount or 0) > 0
        local text = try(cluster.logs, cluster, pod.metadata.name,
          { namespace = namespace, container = status.name, tail = 8, previous = crashed })
        for line in (text or ""):gmatch "[^\n]+" do lines[#lines + 1] = "  | " .. line end
      end
    end
    for _, event in ipairs(try(cluster.events, cluster, pod) or {}) do
      if event.type == "Warning" then
        lines[#lines + 1] = ("event %s: %s"):format(event.reason or "?", event.message or "")
      end
    end
  end
  return table.concat(lines, "\n")
end

-- ---- waiting ----

--- The ingress answers for the deployment: so many times in a row.
local function route_answers(client, deadline)
  local row = 0
  while row < ROUTE_ANSWERS do
    local ok, err = try(client.ready, client)
    if ok then
      row = row + 1
    elseif time.now() >= deadline then
      return false, err
    else
      row = 0
      sleep "500ms"
    end
  end
  return true
end

--- wait.available(cluster, object, { timeout, client?, started }) -> the SeldonDeployment as it is then
---   client  of the ingress; nil: the ingress is not asked
function wait.available(cluster, object, options)
  local meta = object.metadata
  local namespace, name = meta.namespace or cluster.namespace, meta.name
  local begun = time.now()
  local deadline = begun + (type(options.timeout) == "number" and options.timeout or time.duration(options.timeout or "5m"))
  local said
  while true do
    local current = cluster:get("SeldonDeployment", name, { namespace = namespace })
    local deployments, version = cluster:list("Deployment", { namespace = namespace, labels = selector(name) })
    local missing = wait.missing(object, current, deployments)
    if not missing then
      if not options.client then return current end
      local answered, err = route_answers(options.client, deadline)
      if answered then return current end
      missing = "the ingress does not answer: " .. tostring(err)
    end
    if missing ~= said then
      log.info("%s/%s: %s", namespace, name, missing)
      said = missing
    end
    local now = time.now()
    local status = current and list_of(current.status) or {}
    local hopeless = status.state == "Failed" and now - begun > EARLY and (status.description or "it has failed")
      or now - begun > EARLY and wait.hopeless(cluster:list("Pod", { namespace = namespace, labels = selector(name) }))
    if hopeless or now >= deadline then
      local reasons = wait.reasons(cluster, namespace, name)
      error(("%s/%s is not available%s: %s%s"):format(namespace, name,
        hopeless and "" or (" after %d s"):format(math.floor(now - begun)), hopeless or missing,
        reasons ~= "" and "\n" .. reasons or ""), 0)
    end
    -- Whatever happens next to one of them; two seconds at most, since pods and routes change without them.
    local rest = math.max(0.1, math.min(2, deadline - now))
    for _ in cluster:watch("Deployment", { -- luacheck: ignore 512
      namespace = namespace, labels = selector(name), resource_version = version, timeout = rest,
    }) do
      break
    end
  end
end

return wait
