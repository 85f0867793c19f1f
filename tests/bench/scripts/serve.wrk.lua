-- luacheck: globals wrk init done
-- wrk's requests: a body from a file, with its content type, to the path of the URL. Prints one line of JSON at the end.
function init(args)
  local file = assert(io.open(args[1], "rb"))
  wrk.method, wrk.body = "POST", file:read "*a" or ""
  file:close()
  wrk.headers["Content-Type"] = "application/json"
end

function done(summary, latency)
  local bad = summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.status + summary.errors.timeout
  io.write(("BENCH {\"requests\": %d, \"seconds\": %f, \"errors\": %d, \"p50\": %f, \"p99\": %f}\n"):format(summary.requests,
    summary.duration / 1e6, bad, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
