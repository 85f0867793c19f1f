--- Commands, each in a sandbox of its own; no shell in between.
local _, vm = ...

local exec = {}
local options = {
  env = true, input = true, timeout = true, cwd = true, check = true, quiet = true, memory = true, processes = true, cpus = true,
}

--- run { argv = { "cmd", args... }, env = {}, input = "", timeout = "1m", cwd = "", check = true, quiet = false }
--- -> { status, out, err, truncated }. Raises when the status is not 0, unless check = false.
---   memory     string or integer  "512m", bytes: of all its processes together where control groups can be had (mlhost doctor),
---                                 else the private memory of each; beyond it the command is killed: error code "memory"
---   processes  integer            processes and threads at once; default 4096
---   cpus       number             processors' worth of time, such as 0.5; only where control groups can be had
function exec.run(spec)
  return vm.call("exec.run", spec)
end

--- find(name) -> path of a command that the script may run; nil when it is not installed, or not granted
function exec.find(name)
  return vm.call("exec.find", { name = name })
end

--- exec { "cmd", "argument", ..., env =, input =, timeout =, cwd =, check =, quiet =, memory =, processes =, cpus = } -> as run
return setmetatable(exec, {
  __call = function(_, spec, ...)
    if type(spec) == "string" then spec = { spec, ... } end
    local call = { argv = {} }
    for key, value in pairs(spec) do
      if math.type(key) == "integer" then
        call.argv[key] = vm.handle_type(value) and value or tostring(value) -- a secret is refused by name
      elseif options[key] then
        call[key] = value
      else
        local names = {}
        for name in pairs(options) do names[#names + 1] = name end
        table.sort(names)
        local near = vm.near(tostring(key), names)
        error(("exec: unknown option '%s'%s"):format(tostring(key), near and (" (did you mean '" .. near .. "'?)") or ""), 2)
      end
    end
    return vm.call("exec.run", call)
  end,
})
