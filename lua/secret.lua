--- Secrets are handles: they can be passed to primitives, and are never readable in the script.
local vm = require "vm"

local secret = {}

--- get(name) -> handle of an environment variable's value (needs the permission env for it), or nil when it is not set
function secret.get(name)
  local handle = vm.call("secret.get", { name = name })
  if handle then vm.name(handle, name) end
  return handle
end

--- format(text, ...) -> a new secret, %s replaced by texts and secrets: secret.format("Bearer %s", token)
function secret.format(text, ...)
  return vm.call("secret.format", { format = text, values = vm.array { ... } })
end

--- is(value) -> boolean
function secret.is(value) return vm.handle_type(value) == "secret" end

return secret
