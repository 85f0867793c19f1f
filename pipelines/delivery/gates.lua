-- The gates of a deployment: smoke, accuracy, errors and latency. Each raises with what was wanted and what was measured.
local measure = require "delivery.measure"
local seldon = require "seldon"

local gates = {}

local SMOKE_ROWS = 5
-- An accuracy over a part of the rows is a coarser figure than the one over all of them.
local TOLERANCE = { all = 1e-9, part = 0.03 }

--- Real rows of the test split, one request each: every answer is ten probabilities of the right version.
function gates.smoke(client, held_out, version)
  for i = 1, math.min(SMOKE_ROWS, #held_out) do
    local reply = client:predict { held_out[i].x }
    local answer, sum = reply.values[1], 0
    for _, p in ipairs(answer) do sum = sum + p end
    if #answer ~= 10 or math.abs(sum - 1) > 1e-6 then
      error(("smoke test: row %d: ten probabilities were wanted, %d numbers that add up to %g came"):format(i, #answer, sum))
    end
    local by = (reply.meta.tags or {}).model_version
    if by ~= version then
      error(("smoke test: row %d was answered by version %s, not by %s"):format(i, tostring(by), version))
    end
  end
  log.info("smoke test: %d rows answered by version %s", SMOKE_ROWS, version)
end

--- The deployed model must do on the held-out rows what its MLflow run says that it does, and no less than `least`.
---@param expect { version: string, accuracy: number, least: number, part: boolean? }
function gates.accuracy(client, held_out, expect)
  local got = measure.deployment(client, held_out, expect.version,
    expect.part and { least = 100, passes = 12 } or nil)
  local short = expect.accuracy - got.accuracy
  log.info("accuracy %.4f on %d rows (its run: %.4f, at least %.4f)", got.accuracy, got.rows, expect.accuracy, expect.least)
  if got.accuracy < expect.least then
    error(("accuracy gate: %.4f on %d held-out rows, at least %.4f is wanted"):format(got.accuracy, got.rows, expect.least))
  end
  if short > (got.rows == #held_out and TOLERANCE.all or TOLERANCE.part) then
    error(("accuracy gate: %.4f on %d held-out rows; its MLflow run says %.4f"):format(got.accuracy, got.rows, expect.accuracy))
  end
  return got
end

--- Load with real rows: no request may fail, and 95 of 100 answers of the version come within the limit.
---@param options { version: string, count: integer, concurrency: integer, latency_ms: number }
function gates.load(client, held_out, options)
  local got = seldon.load_test {
    client = client, data = measure.requests(held_out), count = options.count, concurrency = options.concurrency,
    timeout = "10s", group_by = "meta.tags.model_version",
  }
  local of_version = got.groups[options.version] or { count = 0 }
  if got.errors > 0 then
    error(("load gate: %d of %d requests failed; the first: %s"):format(got.errors, got.count, got.first_errors[1] or "?"))
  end
  if of_version.count == 0 then
    error(("load gate: version %s answered none of %d requests"):format(options.version, got.count))
  end
  log.info("load: %d requests (%d by version %s), %.0f/s, p50 %.1f ms, p95 %.1f ms, p99 %.1f ms", got.count, of_version.count,
    options.version, got.throughput, of_version.latency.p50, of_version.latency.p95, of_version.latency.p99)
  if of_version.latency.p95 > options.latency_ms then
    error(("latency gate: version %s answers 95 of 100 requests within %.0f ms; %.0f ms are allowed")
      :format(options.version, of_version.latency.p95, options.latency_ms))
  end
  return of_version
end

return gates
