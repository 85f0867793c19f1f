-- Compiles the training pipeline from its files many times and says what one took: BENCH <seconds>. Each round reads and runs
-- the script, loads the component files, traces the pipeline, and writes the YAML.
local fs = require "fs"
local kubeflow = require "kubeflow"
local time = require "time"

pipeline "compile" {}
stage "compile" {
  timeout = "5m",
  run = function(cx)
    local out, rounds = cx.out "training.yaml", 100
    local function once()
      local training = load(fs.read "pipelines/training.lua", "@pipelines/training.lua")()
      fs.write(out, kubeflow.compile(training):yaml())
    end
    once()
    local start = time.now()
    for _ = 1, rounds do once() end
    print(("BENCH %.9f"):format((time.now() - start) / rounds))
  end,
}
