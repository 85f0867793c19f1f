-- Coroutines over the host's jobs: everything the runner does at the same time.
--
-- The host (see main.lua) starts jobs on threads and hands their results back one by one; a coroutine that
-- starts a job sleeps until its result is there. Nothing here polls.
local scheduler = {}
scheduler.__index = scheduler

--- host: { start(kind, spec) -> id, wait() -> id, result (or "cancel", level), cancel(id) }. slots: how many
--- jobs that count against the processors run at the same time.
function scheduler.new(host, slots)
  return setmetatable({ host = host, ready = {}, waiting = {}, free = slots, queue = {}, on_idle = function() end,
                        on_cancel = function() end }, scheduler)
end

local function step(self, co, ...)
  local ok, err = coroutine.resume(co, ...)
  if not ok then
    self.failure = self.failure or debug.traceback(co, tostring(err))
  end
end

--- Starts fn as a coroutine of its own, after the current one has paused.
function scheduler:go(fn)
  local co = coroutine.create(fn)
  self.ready[#self.ready + 1] = function() step(self, co) end
end

local event = {}
event.__index = event

--- Something that happens once: any number of coroutines can wait for it, before or after.
function scheduler:event()
  return setmetatable({ owner = self, waiters = {} }, event)
end
function event:set(value)
  self.done, self.value = true, value
  for _, co in ipairs(self.waiters) do
    self.owner.ready[#self.owner.ready + 1] = function() step(self.owner, co) end
  end
  self.waiters = {}
end
function event:wait()
  if not self.done then
    self.waiters[#self.waiters + 1] = coroutine.running()
    coroutine.yield()
  end
  return self.value
end

--- Runs a job and returns its result. started(id) is told the job's number, with which it can be cancelled.
function scheduler:job(kind, spec, started)
  local id = self.host.start(kind, spec)
  if started then
    started(id)
  end
  self.waiting[id] = coroutine.running()
  return coroutine.yield()
end

--- Waits for one of the processors' slots, runs fn, gives the slot back.
function scheduler:with_slot(fn)
  if self.free > 0 then
    self.free = self.free - 1
  else
    local turn = self:event()
    self.queue[#self.queue + 1] = turn
    turn:wait()
  end
  local result = table.pack(pcall(fn))
  local following = table.remove(self.queue, 1)
  if following then
    following:set()
  else
    self.free = self.free + 1
  end
  if not result[1] then
    error(result[2], 0)
  end
  return table.unpack(result, 2, result.n)
end

--- Runs fn(item, index) for every item, at most `limit` (0: all) at the same time; returns when all have ended.
function scheduler:each(items, limit, fn)
  local count, following, left = #items, 1, #items
  local all = self:event()
  if count == 0 then
    return
  end
  local function worker()
    while following <= count do
      local index = following
      following = following + 1
      fn(items[index], index)
      left = left - 1
    end
    if left == 0 and not all.done then
      all:set()
    end
  end
  for _ = 1, limit > 0 and math.min(limit, count) or count do
    self:go(worker)
  end
  all:wait()
end

--- Runs fn and everything it starts, until fn has returned. Raises the first error of any coroutine.
function scheduler:run(fn)
  local finished, result = false, nil
  self:go(function()
    result = fn()
    finished = true
  end)
  while true do
    while #self.ready > 0 do
      local batch = self.ready
      self.ready = {}
      for _, resume in ipairs(batch) do
        resume()
      end
    end
    if self.failure then
      error(self.failure, 0)
    end
    self.on_idle()
    if finished then
      return result
    elseif next(self.waiting) == nil then
      error("the runner waits for nothing: tasks wait for each other", 0)
    end
    local id, value = self.host.wait()
    if id == "cancel" then
      self.on_cancel(value)
    else
      local co = self.waiting[id]
      self.waiting[id] = nil
      if co then
        step(self, co, value)
      end
    end
  end
end

return scheduler
