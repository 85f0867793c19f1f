-- What a SeldonDeployment (machinelearning.seldon.io/v1) may hold: the names of its fields and the words that they take.
-- https://docs.seldon.io/projects/seldon-core/en/latest/reference/seldon-deployment.html

local function set(words)
  local out = {}
  for word in words:gmatch "%S+" do out[word] = true end
  return out
end

return {
  protocols = set "seldon v2 kfserving tensorflow",
  transports = set "rest grpc",
  server_types = set "rpc kafka",
  types = set "MODEL ROUTER COMBINER TRANSFORMER OUTPUT_TRANSFORMER UNKNOWN_TYPE",
  methods = set "TRANSFORM_INPUT TRANSFORM_OUTPUT ROUTE AGGREGATE SEND_FEEDBACK",
  parameter_types = set "INT FLOAT DOUBLE STRING BOOL",
  endpoint_types = set "REST GRPC",
  logger_modes = set "all request response",
  explainers = set
    "AnchorTabular AnchorImages AnchorText KernelShap IntegratedGradients ALE TreeShap Counterfactuals Contrastive Custom",
  -- part of the executor: neither a container nor a model
  builtin = set "SIMPLE_MODEL SIMPLE_ROUTER RANDOM_ABTEST AVERAGE_COMBINER",
  -- prepackaged servers of a plain installation
  servers = set
    "SKLEARN_SERVER XGBOOST_SERVER MLFLOW_SERVER TENSORFLOW_SERVER TRITON_SERVER HUGGINGFACE_SERVER TEMPO_SERVER",
  not_tensorflow = set "SKLEARN_SERVER XGBOOST_SERVER MLFLOW_SERVER HUGGINGFACE_SERVER",

  spec = set
    "name predictors protocol transport serverType replicas annotations oauth_key oauth_secret",
  predictor = set [[
    name graph componentSpecs replicas traffic shadow annotations labels ssl progressDeadlineSeconds engineResources
    svcOrchSpec explainer
  ]],
  graph = set [[
    name children type implementation methods endpoint parameters modelUri serviceAccountName envSecretRefName
    storageInitializerImage logger
  ]],
  component = set "metadata spec replicas hpaSpec kedaSpec pdbSpec",
  explainer = set [[
    type modelUri serviceAccountName containerSpec config endpoint envSecretRefName storageInitializerImage replicas
    initParameters
  ]],
}
