--- runs: what earlier runs in this workspace came to.
local _, vm = ...

return {
  --- latest(pipeline) -> { id, started_ms, outputs = { [stage or cell] = output } } of the newest run of that pipeline that
  --- ended well, or nil
  latest = function(pipeline) return vm.call("runs.latest", { pipeline = pipeline }) end,
}
