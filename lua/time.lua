--- Time.
local _, vm = ...

return {
  --- now() -> Unix time in seconds, with fractions
  now = function() return vm.call("time.now") / 1000 end,
  --- iso(unix_seconds) -> "2026-01-31T12:00:00Z"; now when left out
  iso = function(at) return os.date("!%Y-%m-%dT%H:%M:%SZ", at and math.floor(at) or nil) end,
  --- sleep(duration)
  sleep = function(duration) return sleep(duration) end,
  --- duration(text) -> seconds: "1h30m" -> 5400
  duration = function(text)
    local seconds, err = vm.duration(text)
    return seconds or error(err, 2)
  end,
}
