--- Secrets are handles: they can be passed to primitives, and are never readable in the script.
local _, vm = ...

local secret = {}

local function named(handle, name) return handle and vm.name(handle, name) end

--- get(name) -> handle of an environment variable's value (needs the permission env for it), or nil when it is not set
function secret.get(name)
  return named(vm.call("secret.get", { name = name }), name)
end

--- file(path) -> handle of a file's text, without the newlines at its end (needs the permission read for it)
function secret.file(path)
  return named(vm.call("secret.file", { path = path }), path)
end

--- format(text, ...) -> a new secret, %s replaced by texts and secrets: secret.format("Bearer %s", token)
function secret.format(text, ...)
  return vm.call("secret.format", { format = text, values = vm.array { ... } })
end

--- concat(...) -> a new secret of texts and secrets, one after the other: secret.concat(user, ":", password)
function secret.concat(...)
  return vm.call("secret.format", { format = ("%s"):rep(select("#", ...)), values = vm.array { ... } })
end

--- base64(value) -> a new secret, for basic authentication:
--- secret.format("Basic %s", secret.base64(secret.concat(user, ":", password)))
function secret.base64(value)
  return vm.call("secret.base64", { value = value })
end

--- is(value) -> boolean
function secret.is(value) return vm.handle_type(value) == "secret" end

return secret
