-- What `python3 training.py out.yaml` does, as a pipeline of one stage.
local fs = require "fs"
local kubeflow = require "kubeflow"

pipeline "compile" {}
stage "compile" {
  run = function(cx) fs.write(cx.out "training.yaml", kubeflow.compile(require "training"):yaml()) end,
}
