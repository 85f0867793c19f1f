-- Import the notebook, run it once, wait, report. Host and token come from the secret "databricks-secret" as DATABRICKS_HOST and
-- DATABRICKS_TOKEN.
local databricks = require "databricks"
local json = require "json"

component "databricks" {
  inputs = {
    notebook = { "string", default = "/Shared/mlhost/digits-profile" },
    cluster_id = { "string", default = "" },
    parameters = { "json", default = {} },
    run_id = "string",
  },
  outputs = { result = "string", run_page_url = "string" },
  permissions = { env = { "DATABRICKS_*" }, net = { "*" } },
  run = function(cx)
    local workspace = databricks.connect()
    workspace:import { path = cx.inputs.notebook, file = cx.folder .. "/notebook.py", language = "PYTHON" }
    local run = workspace:submit {
      name = "kubeflow-" .. cx.inputs.run_id,
      idempotency_token = cx.inputs.run_id,
      notebook = cx.inputs.notebook,
      cluster_id = cx.inputs.cluster_id ~= "" and cx.inputs.cluster_id or nil,
      parameters = cx.inputs.parameters,
    }
    cx.output("run_page_url", run.url or "")
    local result = run:wait { timeout = "2h" }
    cx.output("result", type(result) == "string" and result or json.encode(result))
  end,
}
