-- Watching: from a version on, over cuts of the connection, and from the start again where the server has forgotten (410).
local host = require "host"
local kinds = require "k8s.kinds"
local time = require "time"

local watch = {}

local LASTS = 300  -- seconds that the server lets one request last
local PAUSE = "1s" -- before the next one, when a request failed

local function seconds(value)
  if value == nil then return nil end
  return type(value) == "number" and value or time.duration(value)
end

local function key_of(object) return (object.metadata.namespace or "") .. "/" .. object.metadata.name end

local Watch = {}
Watch.__index = Watch

local function open(self)
  self.handle = host.k8s.watch_open {
    client = self.cluster.client,
    path = self.path .. kinds.query {
      watch = "1", allowWatchBookmarks = "true", resourceVersion = self.version, timeoutSeconds = LASTS,
      labelSelector = self.labels, fieldSelector = self.fields,
    },
  }.watch
end

local function close(self)
  if self.handle then try(host.k8s.watch_close, { watch = self.handle }) end
  self.handle = nil
end

--- Lists anew, and queues as events what has changed since the last state that was seen.
local function relist(self)
  local list, version = self.cluster:list(self.kind, {
    namespace = self.namespace, all_namespaces = self.all, labels = self.labels, fields = self.fields,
  })
  local there = {}
  for _, object in ipairs(list) do
    local key = key_of(object)
    there[key] = object
    local before = self.seen[key]
    if not before then
      self.queue[#self.queue + 1] = { type = "ADDED", object = object }
    elseif before.metadata.resourceVersion ~= object.metadata.resourceVersion then
      self.queue[#self.queue + 1] = { type = "MODIFIED", object = object }
    end
  end
  for key, object in pairs(self.seen) do
    if not there[key] then self.queue[#self.queue + 1] = { type = "DELETED", object = object } end
  end
  self.seen, self.version = there, version
end

local function gone(err) return err.status == 410 or tostring(err.message):find("too old", 1, true) ~= nil end

--- Takes what has come into the queue; false when the connection has to be opened again.
local function take(self, event)
  local object = event.object
  if event.type == "ERROR" then
    close(self)
    if object.code == 410 or object.reason == "Expired" or object.reason == "Gone" then
      relist(self)
    elseif object.code == 429 or (tonumber(object.code) or 0) >= 500 then -- the server's trouble: go on from where we are
      sleep(PAUSE)
    else
      error(("watch: %s"):format(object.message or object.reason or "an error without a message"), 0)
    end
    return false
  end
  self.version = object.metadata.resourceVersion
  if event.type ~= "BOOKMARK" then
    self.seen[key_of(object)] = event.type ~= "DELETED" and object or nil
    self.queue[#self.queue + 1] = event
  end
  return true
end

local function fetch(self, wait)
  if not self.handle then open(self) end
  local got, err = try(host.k8s.watch_next, { watch = self.handle, wait = wait })
  if not got then
    close(self)
    if gone(err) then
      relist(self)
    elseif err.retryable or err.code == "unavailable" or err.code == "rate_limited" then
      sleep(PAUSE)
    else
      error(err, 0)
    end
    return
  end
  for _, event in ipairs(got.events) do
    if not take(self, event) then return end
  end
  if got.ended then close(self) end
end

--- The next event, or nil when the time is over.
function Watch:next()
  while self.at > #self.queue do
    self.queue, self.at = {}, 1
    local left = self.deadline and self.deadline - time.now() or LASTS
    if left <= 0 then
      close(self)
      return nil
    end
    fetch(self, math.min(left, LASTS))
  end
  local event = self.queue[self.at]
  self.at = self.at + 1
  return event
end

--- options.known: objects as they were at resource_version, so that a list after 410 can be told from them.
--- watch.start(cluster, kind, options) -> iterator, nil, nil, a closing value: `for` ends the request when it is left
function watch.start(cluster, kind, options)
  local entry = kinds.find(cluster, kind)
  local namespace = not options.all_namespaces and (options.namespace or cluster.namespace) or nil
  local fields = options.fields
  if options.name then fields = "metadata.name=" .. options.name .. (fields and "," .. fields or "") end
  local timeout = seconds(options.timeout)
  local self = setmetatable({
    cluster = cluster, kind = kind, namespace = namespace, all = options.all_namespaces, labels = options.labels,
    fields = fields, path = kinds.path(entry, namespace), version = options.resource_version, queue = {}, at = 1, seen = {},
    deadline = timeout and time.now() + timeout or nil,
  }, Watch)
  for _, object in ipairs(options.known or {}) do self.seen[key_of(object)] = object end
  if not self.version then relist(self) end
  return function() return self:next() end, nil, nil, setmetatable({}, { __close = function() close(self) end })
end

return watch
