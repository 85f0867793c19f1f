-- Lineage: which rows made which model. The data sets become inputs of the MLflow run, the whole story an artifact of it.
local fs = require "fs"
local hash = require "hash"
local json = require "json"
local mlflow = require "mlflow"

local function described(path)
  local text = fs.read(path)
  local _, lines = text:gsub("\n", "\n")
  return { sha256 = hash.sha256(text), bytes = #text, rows = lines }
end

component "register-artifacts" {
  inputs = {
    train = "path", test = "path", model = "path",
    dataset = { "string", default = "digits" }, dataset_digest = "string",
    mlflow_run_id = "string", run_id = "string",
  },
  outputs = { lineage = "path" },
  run = function(cx)
    local parts = { train = described(cx.inputs.train), test = described(cx.inputs.test) }
    local lineage = {
      kubeflow_run_id = cx.inputs.run_id,
      mlflow_run_id = cx.inputs.mlflow_run_id,
      dataset = { name = cx.inputs.dataset, sha256 = cx.inputs.dataset_digest },
      parts = parts,
      model = { sha256 = hash.sha256_file(cx.inputs.model) },
    }
    fs.write(cx.outputs.lineage, json.encode(lineage))

    local run = mlflow.connect():run(cx.inputs.mlflow_run_id)
    local inputs = {}
    for context, part in pairs(parts) do
      inputs[#inputs + 1] = {
        name = cx.inputs.dataset .. "-" .. context,
        digest = part.sha256:sub(1, 36),
        source_type = "local",
        source = json.encode { dataset = cx.inputs.dataset, sha256 = cx.inputs.dataset_digest },
        profile = json.encode { num_rows = part.rows },
        context = context,
      }
    end
    run:log_inputs(inputs)
    run:log_artifact(cx.outputs.lineage, "lineage", "lineage.json")
    log.info("lineage of model %s: data set %s, %d training rows", lineage.model.sha256:sub(1, 12),
      cx.inputs.dataset_digest:sub(1, 12), parts.train.rows)
  end,
}
