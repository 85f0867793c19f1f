-- Runs an entry point of an MLflow project (https://mlflow.org/docs/latest/projects.html, "MLproject file"): the command with its
-- parameters filled in, as an MLflow run that the command logs to.
local exec = require "exec"
local fs = require "fs"
local mlflow = require "mlflow"
local yaml = require "yaml"

local PROJECT = "project"

--- Parameters of an entry point: { name = { type, default } } or { name = type }.
local function filled(entry, given, name)
  local values = {}
  for key, spec in pairs(entry.parameters or {}) do
    local default = type(spec) == "table" and spec.default or nil
    local value = given[key]
    if value == nil then value = default end
    if value == nil then error(("entry point '%s' needs the parameter '%s'"):format(name, key)) end
    values[key] = tostring(value)
  end
  for key in pairs(given) do
    if values[key] == nil then error(("entry point '%s' has no parameter '%s'"):format(name, key)) end
  end
  return values
end

--- The command's words, without a shell: {name} is replaced inside a word, so that a value can't become a second word.
local function words_of(command, values)
  local words = {}
  for word in command:gmatch "%S+" do
    words[#words + 1] = word:gsub("{([%w_]+)}", function(key)
      return values[key] or error(("the command uses {%s}, which is no parameter"):format(key))
    end)
  end
  return words
end

component "mlflow-project" {
  inputs = {
    entry_point = { "string", default = "main" },
    parameters = { "json", default = {} },
    mlflow_experiment = { "string", default = "mexicanfood" },
    run_id = "string",
  },
  outputs = { mlflow_run_id = "string" },
  permissions = { exec = { "mlhost" }, env = { "MLFLOW_*", "MLHOST_*" }, net = { "*" } },
  run = function(cx)
    local folder = cx.folder .. "/" .. PROJECT
    local project = yaml.decode(fs.read(folder .. "/MLproject"))
    local entry = (project.entry_points or {})[cx.inputs.entry_point]
    if not entry then
      error(("project '%s' has no entry point '%s'"):format(project.name or "?", cx.inputs.entry_point))
    end
    local values = filled(entry, cx.inputs.parameters, cx.inputs.entry_point)
    local command = words_of(entry.command, values)

    local run = mlflow.connect():experiment(cx.inputs.mlflow_experiment):run {
      name = project.name,
      tags = {
        external_run_id_of_project = cx.inputs.run_id,
        ["mlflow.source.type"] = "PROJECT",
        ["mlflow.source.name"] = project.name,
        ["mlflow.project.entryPoint"] = cx.inputs.entry_point,
        ["mlflow.project.backend"] = "mlhost",
      },
    }
    run:log_params(values)
    local result = exec.run { argv = command, cwd = folder, env = { MLFLOW_RUN_ID = run.id }, check = false, timeout = "30m" }
    run:finish(result.status == 0 and "FINISHED" or "FAILED")
    if result.status ~= 0 then
      error(("entry point '%s' ended with status %d: %s"):format(cx.inputs.entry_point, result.status, result.err))
    end
    cx.output("mlflow_run_id", run.id)
  end,
}
