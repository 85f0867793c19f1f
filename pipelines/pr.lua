-- The PR pipeline: code quality, and proof that the training pipeline compiles. No service is called, nothing is pushed.
local fs = require "fs"
local kubeflow = require "kubeflow"
local lint = require "lint"

pipeline "mlhost-pr" {
  description = "Lint the pipelines and compile the training pipeline",
  permissions = { exec = { "ruff", "flake8" } },
  timeout = "15m",
}

stage "code_quality" {
  description = "Lua, YAML, Dockerfiles, and Python where a linter for it is installed",
  timeout = "5m",
  run = function(cx)
    local found = lint.all { paths = { "pipelines" }, junit = cx.out "lint.xml" }
    return { files = found.files, warnings = found.warnings }
  end,
}

stage "compile_training" {
  description = "Compile the Kubeflow pipeline to IR YAML",
  timeout = "5m",
  run = function(cx)
    local package = kubeflow.compile(require "training")
    fs.write(cx.out "training.yaml", package:yaml())
    return { name = package.name, tasks = package:task_count() }
  end,
}
