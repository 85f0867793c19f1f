-- Compiles the training pipeline many times and says what one took: BENCH <seconds>.
local kubeflow = require "kubeflow"
local time = require "time"

pipeline "compile" {}
stage "compile" {
  timeout = "5m",
  run = function()
    local rounds, bytes = 200, 0
    local start = time.now()
    for _ = 1, rounds do bytes = #kubeflow.compile(require "training"):yaml() end
    print(("BENCH %.9f %d"):format((time.now() - start) / rounds, bytes))
  end,
}
