-- The project's entry point: how fast this machine does the arithmetic of a training step, logged to the MLflow run that
-- started it (MLFLOW_RUN_ID). Durations of runs on different nodes become comparable by it.
local env = require "env"
local mlflow = require "mlflow"
local time = require "time"

local SIZE, REPEATS = 4096, 200

local function dot_products()
  local a, b = {}, {}
  for i = 1, SIZE do a[i], b[i] = i / SIZE, (SIZE - i) / SIZE end
  local sum = 0.0
  for _ = 1, REPEATS do
    for i = 1, SIZE do sum = sum + a[i] * b[i] end
  end
  return sum
end

component "machine-profile" {
  inputs = { rounds = { "int", default = 5 } },
  permissions = { env = { "MLFLOW_RUN_ID" } },
  run = function(cx)
    local run = mlflow.connect():run(env.MLFLOW_RUN_ID)
    local metrics, best = {}, 0
    for round = 1, cx.inputs.rounds do
      local start = time.now()
      dot_products()
      local megaflops = 2 * SIZE * REPEATS / (time.now() - start) / 1e6
      metrics[round] = { key = "megaflops", value = megaflops, step = round }
      best = math.max(best, megaflops)
    end
    run:log_batch { metrics = metrics }
    log.info("%.0f million floating-point operations per second at best", best)
  end,
}
