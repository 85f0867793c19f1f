-- When is a SeldonDeployment really there?
--
-- status.observedGeneration is never set, so `state` still speaks of the old spec right after a write; and a rollout that
-- fails over healthy old pods stays Creating for ever. So: its Deployments must be those of this spec, observed, updated and
-- available to the last replica (wanted.lua); then the state must be Available; then the ingress must answer, several times
-- in a row, since a gateway's routes are written after the pods are ready. Until the deadline, which is ours; sooner when the
-- operator or a pod of this spec says that it will not come.
local time = require "time"
local _, vm = ...
local wanted = require "seldon.wanted"

local wait = {}

local ROUTE_ANSWERS = 3 -- in a row
local LOOK = 2          -- seconds after which one looks again though no event came: pods have none of their own here
local SETTLED = 10      -- seconds after which the operator has seen a write
local LOG_LINES = 8

local function map(value) return type(value) == "table" and value or {} end

local function selector(name) return "seldon-deployment-id=" .. name end

-- ---- why it does not come ----

local function container_line(pod, status)
  local waiting, ended = map(map(status.state).waiting), map(map(status.state).terminated)
  local last = map(map(status.lastState).terminated)
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

local function last_lines(cluster, namespace, pod, status)
  for _, previous in ipairs((status.restartCount or 0) > 0 and { true, false } or { false }) do
    local text = try(cluster.logs, cluster, pod.metadata.name,
      { namespace = namespace, container = status.name, tail = LOG_LINES, previous = previous })
    if type(text) == "string" and text ~= "" then return text end
  end
  return ""
end

--- wait.reasons(cluster, namespace, name) -> text: what containers, their last log lines and events say of pods that are not
--- ready
function wait.reasons(cluster, namespace, name)
  local lines = {}
  for _, pod in ipairs(cluster:list("Pod", { namespace = namespace, labels = selector(name) })) do
    local unready = false
    for _, status in ipairs(wanted.statuses(pod)) do
      local done = map(map(status.state).terminated)
      if not status.ready and done.exitCode ~= 0 then
        unready = true
        lines[#lines + 1] = container_line(pod, status)
        for line in last_lines(cluster, namespace, pod, status):gmatch "[^\n]+" do lines[#lines + 1] = "  | " .. line end
      end
    end
    for _, event in ipairs(unready and try(cluster.events, cluster, pod) or {}) do
      if event.type == "Warning" then
        lines[#lines + 1] = ("event %s: %s"):format(event.reason or "?", event.message or "")
      end
    end
  end
  return table.concat(lines, "\n")
end

-- ---- waiting ----

local function seconds(timeout)
  timeout = timeout or "5m"
  return type(timeout) == "number" and timeout or time.duration(timeout)
end

--- Has the ingress answered often enough in a row? Else what it says instead.
local function route_answers(client, times, deadline)
  local row = 0
  while row < times do
    local ok, err = try(client.ready, client)
    row = ok and row + 1 or 0
    if not ok then
      if time.now() >= deadline then return false, err end
      sleep "500ms"
    end
  end
  return true
end

local function seen(cluster, object)
  local meta = object.metadata
  local namespace = meta.namespace or cluster.namespace
  local deployments, version = cluster:list("Deployment", { namespace = namespace, labels = selector(meta.name) })
  return cluster:get("SeldonDeployment", meta.name, { namespace = namespace }), deployments, version
end

--- Whatever happens next to its Deployments or, when those are as they should be, to it; LOOK seconds at most.
local function next_event(cluster, object, current, version, deadline)
  local meta = object.metadata
  local namespace = meta.namespace or cluster.namespace
  local options = { namespace = namespace, timeout = math.max(0.1, math.min(LOOK, deadline - time.now())) }
  local kind = "Deployment"
  if version then
    options.labels, options.resource_version = selector(meta.name), version
  else
    kind, options.name, options.resource_version = "SeldonDeployment", meta.name, map(map(current).metadata).resourceVersion
  end
  for _ in cluster:watch(kind, options) do -- luacheck: ignore 512
    break
  end
end

local function give_up(cluster, object, why, code)
  local meta = object.metadata
  local namespace = meta.namespace or cluster.namespace
  local reasons = try(wait.reasons, cluster, namespace, meta.name) or ""
  error(vm.new_error {
    service = "seldon", code = code, message = ("%s/%s %s%s"):format(namespace, meta.name, why,
      reasons ~= "" and "\n" .. reasons or ""),
    hint = code == "timeout" and "raise timeout when the model only needs more time to load" or nil,
  }, 0)
end

--- A Deployment that a write has changed, and the operator has not touched yet; nobody waits long for that, since what was
--- changed may come to the same.
local function untouched(deployments, stale)
  for _, one in ipairs(deployments) do
    if stale[one.metadata.name] == one.metadata.generation then return one.metadata.name .. ": is that of the spec before" end
  end
end

--- wait.available(cluster, object, options) -> the SeldonDeployment as it is then
---   timeout  duration  default "5m"
---   client   table?    of the ingress; nil: the ingress is not asked
---   answers  integer?  how often in a row the ingress must answer; default 3
---   written  string?   resourceVersion of the write that is waited for
---   stale    table?    Deployments that the write has changed: their generations before it, by name
---   only     string?   name of the one predictor that matters; neither the state nor the others do
--- Raises code "timeout" or "failed", with the pods' reasons and last log lines.
function wait.available(cluster, object, options)
  local meta = object.metadata
  local label = ("%s/%s"):format(meta.namespace or cluster.namespace, meta.name)
  local begun, since = time.now(), {}
  local deadline = begun + seconds(options.timeout)
  local said
  while true do
    local current, deployments, version = seen(cluster, object)
    local missing = wanted.missing(object, current, deployments, options.only)
    local available, all = wanted.replicas(deployments)
    progress(label, available, all, "replicas")
    if not missing and options.stale and time.now() - begun < SETTLED then missing = untouched(deployments, options.stale) end
    if not missing then
      if not options.client then return current end
      local answered, err = route_answers(options.client, options.answers or ROUTE_ANSWERS, deadline)
      if answered then return current end
      missing = "the ingress does not answer: " .. tostring(err)
    end
    if missing ~= said then
      log.info("%s: %s", label, missing)
      said = missing
    end
    local now = time.now()
    local failure = wanted.failed(current, options.written, now - begun)
    if failure then give_up(cluster, object, "has failed: " .. failure, "failed") end
    local pods = cluster:list("Pod", { namespace = meta.namespace, labels = selector(meta.name) })
    local pod, status = wanted.hopeless(object, pods, since, now)
    if pod then
      give_up(cluster, object, ("will not come: container %s of predictor '%s' is in %s"):format(status.name,
        wanted.owner_of_pod(object, pod), status.state.waiting.reason), "failed")
    end
    if now >= deadline then
      give_up(cluster, object, ("is not available after %d s: %s"):format(math.floor(now - begun), missing), "timeout")
    end
    next_event(cluster, object, current, missing:find("^its state") == nil and version or nil, deadline)
  end
end

return wait
