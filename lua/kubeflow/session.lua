-- What is being built at the moment: the graph, the group, the references that became texts. One per coroutine,
-- since two branches of a script may build at the same time.
local fail = require "kubeflow.fail"

local session = {}

local sessions = setmetatable({}, { __mode = "k" })

--- current() -> { graph, group, patterns, building }, or nil outside of a pipeline's build function
function session.current() return sessions[coroutine.running()] end

--- needed(what) -> the session; raises when there is none
function session.needed(what)
  local s = sessions[coroutine.running()]
  if not s then fail.raise("%s works inside the build function of a pipeline only", what) end
  return s
end

--- within(changes, fn) -> what fn returns, run with the session as changed; an outer session comes back afterwards,
--- also after an error.
function session.within(changes, fn)
  local key = coroutine.running()
  local outer = sessions[key]
  sessions[key] = setmetatable(changes, { __index = outer })
  local result = table.pack(pcall(fn))
  sessions[key] = outer
  if not result[1] then error(result[2], 0) end
  return table.unpack(result, 2, result.n)
end

return session
