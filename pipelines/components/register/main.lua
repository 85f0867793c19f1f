-- A model version in an Azure Machine Learning workspace. Credentials come from the secret "azcreds" as environment variables:
-- AZ_SUBSCRIPTION_ID, AZ_TENANT_ID, AZ_CLIENT_ID, AZ_CLIENT_SECRET.
local azureml = require "azureml"

component "register" {
  inputs = {
    model = "path",
    model_name = { "string", default = "digits" },
    resource_group = "string", workspace = "string",
    mlflow_run_id = "string", run_id = "string",
  },
  outputs = { model_id = "string" },
  permissions = {
    env = { "AZ_*" },
    net = { "login.microsoftonline.com:443", "management.azure.com:443", "*.blob.core.windows.net:443" },
  },
  run = function(cx)
    local workspace = azureml.connect {
      resource_group = cx.inputs.resource_group,
      workspace = cx.inputs.workspace,
    }
    local version = workspace:register_model {
      name = cx.inputs.model_name,
      path = cx.inputs.model,
      description = "softmax regression on 8x8 digits",
      tags = { kubeflow_run_id = cx.inputs.run_id, mlflow_run_id = cx.inputs.mlflow_run_id },
    }
    cx.output("model_id", version.id)
    log.info("registered %s", version.id)
  end,
}
