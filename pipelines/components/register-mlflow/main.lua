-- A model version for an MLflow run, once: a second call for the same run finds the version that is there.
local mlflow = require "mlflow"

local function sorted(map)
  local lines, keys = {}, {}
  for key in pairs(map) do keys[#keys + 1] = key end
  table.sort(keys)
  for _, key in ipairs(keys) do lines[#lines + 1] = ("- %s: %s"):format(key, map[key]) end
  return table.concat(lines, "\n")
end

component "register-mlflow" {
  inputs = { model_name = { "string", default = "digits" }, mlflow_run_id = "string", run_id = "string" },
  outputs = { version = "string" },
  run = function(cx)
    local ml = mlflow.connect()
    local run = ml:run(cx.inputs.mlflow_run_id)
    local data = run:get()
    if data.tags.external_run_id ~= cx.inputs.run_id then
      error(("MLflow run %s belongs to Kubeflow run %s, not to %s")
        :format(run.id, data.tags.external_run_id or "(none)", cx.inputs.run_id))
    end
    if #run:artifacts "model" == 0 then error("MLflow run " .. run.id .. " has no artifact folder 'model'") end

    local model = ml:model(cx.inputs.model_name)
    local version = model:find_version { run_id = run.id }
    if version then
      log.info("%s version %s is registered for this run already", cx.inputs.model_name, version.version)
    else
      version = model:create_version {
        run_id = run.id,
        source = data.artifact_uri .. "/model",
        description = "Parameters\n" .. sorted(data.params) .. "\n\nMetrics\n" .. sorted(data.metrics),
        tags = { external_run_id = cx.inputs.run_id, model_sha256 = data.tags.model_sha256 },
      }
      log.info("registered %s version %s", cx.inputs.model_name, version.version)
    end
    cx.output("version", tostring(version.version))
  end,
}
