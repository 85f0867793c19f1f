--- Environment variables that the script was granted (permissions = { env = { "NAME" } }): env.NAME, nil when not set.
--- "$(NAME)", what an Azure DevOps agent leaves of a variable that nobody has defined, is not set either.
local _, vm = ...

return setmetatable({}, {
  __index = function(_, name) return vm.call("env.get", { name = name }) end,
  __newindex = function() error("the environment cannot be changed; give a command its own with exec { ..., env = {} }", 2) end,
})
