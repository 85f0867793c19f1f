-- What a kubelet does: the containers of a pod become processes, which are restarted with back-off, and whose state
-- is the pod's status.
local container = require "local.seldon.container"
local json = require "local.json"
local names = require "local.seldon.names"
local resources = require "local.seldon.resources"
local tree = require "local.seldon.tree"

local map = tree.map
local pods = {}
pods.__index = pods

local LONGEST = 300000 -- ms of back-off
local STEADY = 600000 -- ms: a container that ran so long begins its back-off anew

function pods.new(operator)
  local self = setmetatable({ operator = operator, host = operator.host, all = {}, by_process = {}, unpacking = {},
    unpacked = {}, leaving = {}, in_routes = {} }, pods)
  self.first_backoff = tonumber(self.host.getenv("MLHOST_SELDON_BACKOFF_MS") or "") or 10000
  return self
end

--- Where a pod's logs, volumes and layers are.
function pods:folder(namespace, name)
  return ("%s/local/seldon/pods/%s/%s"):format(self.host.state, namespace, name)
end

function pods:log_dir(namespace, name)
  return self:folder(namespace, name) .. "/logs"
end

--- Are all containers of the pod ready?
function pods:is_ready(pod)
  local box = self.all[tree.key(pod)]
  if not box or box.ending or box.object.metadata.uid ~= pod.metadata.uid then
    return false
  end
  for _, unit in ipairs(box.units) do
    if not unit.ready then
      return false
    end
  end
  return true
end

--- The process of a container as an endpoint { id, port }, when it is ready.
function pods:endpoint(pod, name)
  local box = self.all[tree.key(pod)]
  for _, unit in ipairs(box and not box.ending and box.units or {}) do
    if unit.spec.name == name and unit.ready and unit.process then
      return { id = unit.process, port = unit.ports.http }
    end
  end
end

-- ---- a container's life ----

function pods:tell(box, kind, reason, message)
  self.operator.events:tell(box.object, kind, reason, message)
end

local function wait_with(unit, reason, message)
  unit.state = { waiting = { reason = reason, message = message } }
  unit.ready = false
end

-- Tries again later: doubling, up to five minutes.
function pods:back_off(unit)
  unit.backoff = math.min(unit.backoff and unit.backoff * 2 or self.first_backoff, LONGEST)
  unit.retry_at = self.host.clock() + unit.backoff
  self.operator:wake_at(unit.retry_at)
end

function pods:pull_failed(box, unit, why)
  local again = unit.backoff ~= nil
  local text = ("Failed to pull image \"%s\": %s"):format(unit.spec.image, why)
  if not again then
    self:tell(box, "Normal", "Pulling", ("Pulling image \"%s\""):format(unit.spec.image))
    self:tell(box, "Warning", "Failed", text)
  end
  self:tell(box, "Normal", "BackOff", ("Back-off pulling image \"%s\""):format(unit.spec.image))
  wait_with(unit, again and "ImagePullBackOff" or "ErrImagePull", again
    and ("Back-off pulling image \"%s\": %s"):format(unit.spec.image, why) or text)
  self:back_off(unit)
end

-- The image's folder, or nil while it is made (or cannot be).
function pods:root_of(box, unit)
  local image, why = self.host.image(unit.spec.image or "", self.host.url)
  if not image then
    self:pull_failed(box, unit, why)
    return nil
  end
  unit.image = image
  local path = self.unpacked[image.digest]
  if path and self.host.fs.kind(path) == "directory" then
    return path
  end
  wait_with(unit, "ContainerCreating")
  if not self.unpacking[image.digest] then
    local folder = self.host.state .. "/local/kubeflow/rootfs"
    self.host.fs.mkdir(folder)
    local id, _, message = self.host.unpack { digest = image.digest, store = image.store, folder = folder }
    if not id then
      self:pull_failed(box, unit, message)
      return nil
    end
    self.unpacking[image.digest] = id
  end
  unit.unpack = self.unpacking[image.digest]
  return nil
end

function pods:run(box, unit, root)
  local host = self.host
  host.fs.mkdir(box.logs)
  local log = ("%s/%s.log"):format(box.logs, unit.spec.name)
  if host.fs.kind(log) == "file" then
    host.fs.rename(log, ("%s/%s.previous.log"):format(box.logs, unit.spec.name))
  end
  unit.ports = { http = host.port(), grpc = host.port(), metrics = host.port() }
  local spec, why = container.process(host, box.object, unit.spec, {
    root = root, config = map(unit.image.config), base = box.folder, ports = unit.ports, protocol = box.protocol,
    log = log })
  if not spec then
    self:tell(box, "Warning", "Failed", "Error: " .. why)
    wait_with(unit, "CreateContainerConfigError", why)
    self:back_off(unit)
    return
  end
  self:tell(box, "Normal", "Pulled", ("Container image \"%s\" already present on machine"):format(unit.spec.image))
  local id, _, message = host.start(spec)
  if not id then
    wait_with(unit, "RunContainerError", message)
    self:back_off(unit)
    return
  end
  unit.process, unit.starting, unit.ready = id, host.clock(), false
  self.by_process[id] = { box = box, unit = unit }
  self:tell(box, "Normal", "Created", "Created container " .. unit.spec.name)
end

-- What a container needs now, if anything.
function pods:advance(box, unit)
  if unit.process or unit.unpack or box.ending then
    return
  end
  if unit.spec.name == resources.ENGINE then
    if not unit.ready then
      unit.ready, unit.state = true, { running = { startedAt = names.time() } }
    end
    return
  end
  if unit.retry_at then
    if self.host.clock() < unit.retry_at then
      self.operator:wake_at(unit.retry_at)
      return
    end
    unit.retry_at = nil
  end
  local root = self:root_of(box, unit)
  if root then
    self:run(box, unit, root)
  end
end

-- ---- events of processes ----

function pods:on_started(found)
  local unit = found.unit
  unit.started_at = names.time()
  unit.state = { running = { startedAt = unit.started_at } }
  self:tell(found.box, "Normal", "Started", "Started container " .. unit.spec.name)
end

function pods.on_ready(_, found)
  found.unit.ready = not found.box.ending
end

function pods:on_unready(found, event)
  found.unit.ready = false
  self:tell(found.box, "Warning", "Unhealthy", event.text)
end

function pods:on_unhealthy(found, event)
  found.unit.ready = false
  self:tell(found.box, "Warning", "Unhealthy", event.text)
  self:tell(found.box, "Normal", "Killing", ("Container %s failed liveness probe, will be restarted"):format(
    found.unit.spec.name))
  self.host.stop(event.id)
end

local function ended(unit, event)
  local status = math.tointeger(event.status) or 128
  local reason = status == 0 and "Completed" or event.error and "StartError" or "Error"
  local message = event.error and (event.hint ~= "" and event.error .. "; " .. event.hint or event.error)
    or event.text ~= "" and event.text or nil
  return { exitCode = status, signal = status > 128 and status < 160 and status - 128 or nil, reason = reason,
    message = message, startedAt = unit.started_at or names.time(), finishedAt = names.time() }
end

function pods:on_exited(found, event)
  local box, unit = found.box, found.unit
  self.host.forget(event.id)
  self.by_process[event.id] = nil
  unit.process, unit.ready, unit.routed = nil, false, nil
  self.host.fs.remove(box.folder .. "/layer-" .. unit.spec.name)
  if box.ending then
    return
  end
  unit.last = { terminated = ended(unit, event) }
  if self.host.clock() - unit.starting >= STEADY then
    unit.backoff, unit.crashed = nil, nil
  end
  unit.restarts = unit.restarts + 1
  if not unit.crashed then
    -- the first restart is at once, as a kubelet does it
    unit.crashed, unit.state = true, { waiting = { reason = "ContainerCreating" } }
    if event.error then
      wait_with(unit, "RunContainerError", unit.last.terminated.message)
    end
    return
  end
  self:back_off(unit)
  wait_with(unit, "CrashLoopBackOff", ("back-off %gs restarting failed container=%s pod=%s_%s"):format(
    unit.backoff / 1000, unit.spec.name, box.object.metadata.name, box.object.metadata.namespace))
  self:tell(box, "Warning", "BackOff", ("Back-off restarting failed container %s in pod %s"):format(unit.spec.name,
    box.object.metadata.name))
end

function pods:on_unpacked(event)
  for digest, id in pairs(self.unpacking) do
    if id == event.id then
      self.unpacking[digest] = nil
      self.unpacked[digest] = event.path
    end
  end
  for _, box in pairs(self.all) do
    for _, unit in ipairs(box.units) do
      if unit.unpack == event.id then
        unit.unpack = nil
        if event.error then
          self:pull_failed(box, unit, event.error)
        end
      end
    end
  end
end

--- Something that a process or an unpacking has said.
function pods:on_event(event)
  if event.t == "unpacked" then
    self:on_unpacked(event)
    return
  end
  local found = self.by_process[event.id]
  if not found then
    return
  end
  if event.t == "drained" then
    -- one that has come back meanwhile is in the routes again
    found.unit.routed = self.in_routes[event.id]
  elseif pods["on_" .. event.t] then
    self["on_" .. event.t](self, found, event)
  end
end

--- ids: a set of the processes that are in the routes now.
function pods:routed(ids)
  self.in_routes = ids
  for id, found in pairs(self.by_process) do
    if ids[id] then
      found.unit.routed = true
    end
  end
end

-- ---- pods come and go ----

function pods:adopt(pod)
  local meta = pod.metadata
  local box = { object = pod, units = {}, folder = self:folder(meta.namespace, meta.name),
    logs = self:log_dir(meta.namespace, meta.name), protocol = map(meta.annotations)["mlhost.io/protocol"] }
  local before = {}
  for _, status in ipairs(map(map(pod.status).containerStatuses)) do
    before[status.name] = status
  end
  for i, spec in ipairs(map(map(pod.spec).containers)) do
    local unit = { spec = spec, restarts = 0, state = { waiting = { reason = "ContainerCreating" } } }
    local was = before[spec.name]
    if was then
      -- this server has been started again: so is the container
      unit.restarts = tree.number(was.restartCount, 0)
      unit.last = was.lastState
      if map(was.state).running then
        unit.restarts = unit.restarts + (spec.name == resources.ENGINE and 0 or 1)
        unit.last = { terminated = { exitCode = 255, reason = "Unknown", startedAt = was.state.running.startedAt,
          finishedAt = names.time(), message = "the server that it ran under has ended" } }
      end
    end
    box.units[i] = unit
  end
  self.all[tree.key(pod)] = box
end

-- Out of the routes first, then SIGTERM; SIGKILL after the pod's grace period.
function pods:dismiss(box)
  if not box.ending then
    box.ending = self.host.clock() + tree.number(map(box.object.spec).terminationGracePeriodSeconds, 30) * 1000
    for _, unit in ipairs(box.units) do
      unit.ready = false
      if unit.process then
        self:tell(box, "Normal", "Killing", "Stopping container " .. unit.spec.name)
      end
    end
  end
end

function pods:see_off(key, box)
  local busy, left = false, false
  for _, unit in ipairs(box.units) do
    left = left or unit.process ~= nil
    busy = busy or (unit.process ~= nil and unit.routed ~= nil)
  end
  if not left then
    self.leaving[key] = nil
    self.host.fs.remove(box.folder)
  elseif not busy or self.host.clock() >= box.ending then
    for _, unit in ipairs(box.units) do
      if unit.process and not unit.stopped then
        unit.stopped = true
        self.host.stop(unit.process)
      end
    end
  else
    self.operator:wake_at(box.ending)
  end
end

--- Makes processes be what the list of pods says.
function pods:reconcile(list)
  local there = {}
  for _, pod in ipairs(list) do
    local key = tree.key(pod)
    local box = self.all[key]
    there[key] = pod.metadata.uid
    if box and box.object.metadata.uid == pod.metadata.uid then
      box.object = pod
      if pod.metadata.deletionTimestamp then
        self.host.delete("pods", pod.metadata.namespace, pod.metadata.name)
        there[key] = nil
      end
    elseif not pod.metadata.deletionTimestamp then
      there[key] = pod.metadata.uid
      if not box then
        self:adopt(pod)
      end
    end
  end
  for key, box in pairs(self.all) do
    if there[key] ~= box.object.metadata.uid then
      self:dismiss(box)
      self.all[key] = nil
      self.leaving[key .. " " .. box.object.metadata.uid] = box
    end
  end
  for _, box in pairs(self.all) do
    for _, unit in ipairs(box.units) do
      local ok, why = pcall(self.advance, self, box, unit)
      if not ok then
        wait_with(unit, "CreateContainerConfigError", "its spec cannot be understood: " .. tostring(why))
        self:back_off(unit)
      end
    end
  end
end

--- After the routes were made anew: ends what is in none any more.
function pods:finish()
  for key, box in pairs(self.leaving) do
    self:see_off(key, box)
  end
end

--- Ends everything, for the stop of the server. Waits for it, within the grace periods.
function pods:stop_all()
  for id in pairs(self.by_process) do
    self.host.stop(id)
  end
  while next(self.by_process) do
    local event = self.host.wait()
    if event and event.t == "exited" then
      self.host.forget(event.id)
      self.by_process[event.id] = nil
    end
  end
end

-- ---- status ----

local function container_status(unit)
  return {
    name = unit.spec.name, image = unit.spec.image, imageID = unit.image and unit.image.digest or "",
    ready = unit.ready == true, started = unit.state.running ~= nil, restartCount = unit.restarts, state = unit.state,
    lastState = unit.last or {}, containerID = unit.process and "mlhost://" .. unit.process or nil,
  }
end

local function condition(old, kind, holds, reason)
  local status = holds and "True" or "False"
  for _, one in ipairs(map(old)) do
    if one.type == kind and one.status == status then
      return { type = kind, status = status, reason = not holds and reason or nil,
        lastTransitionTime = one.lastTransitionTime }
    end
  end
  return { type = kind, status = status, reason = not holds and reason or nil, lastTransitionTime = names.time() }
end

function pods:write_status(pod)
  local box = self.all[tree.key(pod)]
  if not box or box.object.metadata.uid ~= pod.metadata.uid then
    return
  end
  local statuses, running = json.array {}, true
  for i, unit in ipairs(box.units) do
    statuses[i] = container_status(unit)
    running = running and (unit.state.running ~= nil or unit.restarts > 0)
  end
  local old, ready = map(pod.status).conditions, self:is_ready(pod)
  local status = {
    phase = running and "Running" or "Pending", podIP = "127.0.0.1", hostIP = "127.0.0.1",
    startTime = map(pod.status).startTime or names.time(), containerStatuses = statuses, qosClass = "Burstable",
    conditions = json.array { condition(old, "PodScheduled", true), condition(old, "Initialized", true),
      condition(old, "ContainersReady", ready, "ContainersNotReady"), condition(old, "Ready", ready,
      "ContainersNotReady") },
  }
  if not tree.same(status, map(pod.status)) then
    self.host.put_status("pods", pod.metadata.namespace, pod.metadata.name, status)
  end
end

--- "container x: CrashLoopBackOff: ..." of what is not well in a pod, or nil.
function pods:trouble(pod)
  local box = self.all[tree.key(pod)]
  for _, unit in ipairs(box and box.units or {}) do
    local waiting = unit.state.waiting
    local last = unit.last and unit.last.terminated
    if waiting and waiting.reason ~= "ContainerCreating" then
      local why = waiting.reason == "CrashLoopBackOff" and last
        and ("exit status %d%s"):format(last.exitCode, last.message and ": " .. last.message:sub(-400) or "")
        or waiting.message
      return ("pod %s, container %s: %s: %s"):format(pod.metadata.name, unit.spec.name, waiting.reason, why or "")
    end
  end
end

return pods
