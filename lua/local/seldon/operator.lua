-- The operator of the embedded Seldon: SeldonDeployments -> Deployments and Services -> Pods -> processes, routes of
-- the ingress, and the status of each. Level-triggered: each pass looks at everything and does what is missing, so
-- that it does not matter which event woke it, nor what an ended server had left.
--
-- host is made by host/local/seldon_operator.c: list get put put_status delete (the store); start stop forget
-- unpack image (processes); routes; wait; port; clock; getenv; state; url; fs.
local core2 = require "local.seldon.core2"
local deployments = require "local.seldon.deployments"
local events = require "local.seldon.events"
local json = require "local.json"
local pods = require "local.seldon.pods"
local resources = require "local.seldon.resources"
local routes = require "local.seldon.routes"
local status = require "local.seldon.status"
local tree = require "local.seldon.tree"

local map = tree.map
local operator = {}
operator.__index = operator

local SDEP = "seldondeployments.machinelearning.seldon.io"

--- The next pass is not later than at that time of the clock.
function operator:wake_at(at)
  if not self.next_at or at < self.next_at then
    self.next_at = at
  end
end

-- Writes an object that the operator owns, unless it is there as it should be. Returns what is stored.
function operator:ensure(resource, wanted, there)
  if there then
    local same = tree.same(there.spec, wanted.spec) and tree.same(map(there.metadata.labels),
      map(wanted.metadata.labels)) and tree.same(map(there.metadata.ownerReferences), wanted.metadata.ownerReferences)
    if same then
      return there
    end
    local next_one = tree.copy(there)
    next_one.spec, next_one.metadata.labels = wanted.spec, wanted.metadata.labels
    next_one.metadata.annotations = tree.merge(map(next_one.metadata.annotations), wanted.metadata.annotations)
    next_one.metadata.ownerReferences = wanted.metadata.ownerReferences
    return self.host.put(resource, next_one) or there
  end
  return self.host.put(resource, wanted)
end

local function index_of(list)
  local index = {}
  for _, object in ipairs(list) do
    index[tree.key(object)] = object
  end
  return index
end

-- The Deployments and Services of one SeldonDeployment. Those that it no longer names go once the others are ready.
function operator:expand(sdep, found)
  for _, wanted in ipairs(resources.services(sdep)) do
    local there = self.service_index[tree.key(wanted)]
    found.services[#found.services + 1] = self:ensure("services", wanted, there)
  end
  local wanted_names = {}
  found.ready = true
  for _, wanted in ipairs(resources.deployments(sdep)) do
    wanted.spec.template.metadata.annotations = tree.merge(wanted.spec.template.metadata.annotations or {},
      { ["mlhost.io/protocol"] = sdep.spec.protocol or "seldon" })
    local stored = self:ensure("deployments.apps", wanted, self.deployment_index[tree.key(wanted)])
    wanted_names[wanted.metadata.name] = true
    found.list[#found.list + 1] = stored
    found.ready = found.ready and stored ~= nil and deployments.is_complete(stored)
  end
  if not found.ready then
    return
  end
  for resource, list in pairs { ["deployments.apps"] = self.deployments, services = self.services } do
    for _, object in ipairs(list) do
      local keep = wanted_names[object.metadata.name]
      for _, service in ipairs(resource == "services" and found.services or {}) do
        keep = keep or service.metadata.name == object.metadata.name
      end
      if not keep and tree.owned(object, sdep) then
        self.host.delete(resource, object.metadata.namespace, object.metadata.name)
      end
    end
  end
end

function operator:trouble(found)
  for _, deployment in ipairs(found.list) do
    for _, pod in ipairs(self.pod_lists[tree.key(deployment)] or {}) do
      local text = self.pods:trouble(pod)
      if text then
        return text
      end
    end
  end
end

function operator:write_status(sdep, found)
  found.trouble = not found.problem and not found.ready and self:trouble(found) or nil
  local new = status.make(sdep, found)
  if tree.same(new, map(sdep.status)) then
    return
  end
  if new.state ~= map(sdep.status).state then
    local kind = new.state == "Failed" and "Warning" or "Normal"
    self.events:tell(sdep, kind, new.state == "Failed" and "InternalError" or "Updated",
      new.description or ("Updated SeldonDeployment %s: %s"):format(sdep.metadata.name, new.state))
  end
  self.host.put_status(SDEP, sdep.metadata.namespace, sdep.metadata.name, new)
  sdep.status = new
end

-- One that is not what the operator expects must not stop the others: its fault becomes its status.
function operator:take_up(sdep)
  local found = { list = json.array {}, services = {} }
  local ok, why = pcall(function()
    found.problem = resources.problem(sdep)
    if not found.problem and not sdep.metadata.deletionTimestamp then
      self:expand(sdep, found)
    end
  end)
  if not ok then
    found.problem = ("it cannot be understood: %s; seldon.validate tells which field is wrong"):format(tostring(why))
  end
  return found
end

-- Reads what the store has.
function operator:look()
  self.sdeps = self.host.list(SDEP)
  self.deployments, self.services = self.host.list("deployments.apps"), self.host.list("services")
  self.deployment_index, self.service_index = index_of(self.deployments), index_of(self.services)
end

function operator:look_at_pods()
  self.all_pods = self.host.list("pods")
  self.pods_of_app, self.pods_of_owner = {}, {}
  for _, pod in ipairs(self.all_pods) do
    local app = map(pod.metadata.labels)[routes.APP]
    local lists = { [app and pod.metadata.namespace .. "/" .. app or ""] = self.pods_of_app }
    for _, owner in ipairs(map(pod.metadata.ownerReferences)) do
      lists[owner.uid] = self.pods_of_owner
    end
    for key, map_of in pairs(lists) do
      map_of[key] = map_of[key] or {}
      table.insert(map_of[key], pod)
    end
  end
end

-- A SeldonDeployment whose new spec cannot run here stays served as it was.
function operator:served_spec(sdep, problem)
  local key = tree.key(sdep)
  if not problem then
    self.good[key] = sdep
    return sdep
  end
  local before = self.good[key]
  if before and before.metadata.uid == sdep.metadata.uid then
    return before
  end
end

function operator:pass()
  self.next_at = nil
  self:look()
  local all = {}
  self.served = {}
  for _, sdep in ipairs(self.sdeps) do
    local found = self:take_up(sdep)
    all[sdep] = found
    self.served[#self.served + 1] = self:served_spec(sdep, found.problem)
  end
  core2.reconcile(self)
  self.deployments, self.services = self.host.list("deployments.apps"), self.host.list("services")
  self:look_at_pods()
  self.pods:reconcile(self.all_pods)
  self.pod_lists = {}
  for _, deployment in ipairs(self.deployments) do
    if not deployment.metadata.deletionTimestamp then
      deployments.reconcile(self, deployment, self.pods_of_owner[deployment.metadata.uid] or {})
    end
  end
  -- what was made or dismissed just now
  self:look_at_pods()
  self.pods:reconcile(self.all_pods)
  self:publish()
  self.pods:finish()
  for _, pod in ipairs(self.all_pods) do
    self.pods:write_status(pod)
  end
  self.deployment_index = index_of(self.host.list("deployments.apps"))
  for _, sdep in ipairs(self.sdeps) do
    self:conclude(sdep, all[sdep])
  end
end

-- The status follows from the Deployments as they are at the end of the pass.
function operator:conclude(sdep, found)
  for i, deployment in ipairs(found.list) do
    found.list[i] = self.deployment_index[tree.key(deployment)] or deployment
    found.ready = found.ready and deployments.is_complete(found.list[i])
  end
  if not found.problem and not sdep.metadata.deletionTimestamp then
    found.ready = #found.list > 0
    for _, deployment in ipairs(found.list) do
      found.ready = found.ready and deployments.is_complete(deployment)
    end
  end
  self:write_status(sdep, found)
end

function operator:publish()
  local table_now = routes.make(self)
  local text = json.encode(table_now, { sorted = true })
  if text == self.published then
    return
  end
  self.pods:routed(routes.ids(table_now))
  local ok, code, message = self.host.routes(table_now)
  if ok then
    self.published = text
  else
    require "sys".log(("mlhost: seldon: routes: %s: %s"):format(code, message))
  end
end

--- Until the event "stop".
local function run(host)
  local self = setmetatable({ host = host, progress = {}, good = {}, pod_lists = {} }, operator)
  self.events = events.new(host)
  self.pods = pods.new(self)
  while true do
    self:pass()
    local left = self.next_at and math.max(0, self.next_at - host.clock())
    local event = host.wait(left)
    while event do
      if event.t == "stop" then
        self.pods:stop_all()
        return
      end
      self.pods:on_event(event)
      event = host.wait(0)
    end
  end
end

return run
