-- Train, log to MLflow, save the model.
local fs = require "fs"
local hash = require "hash"
local json = require "json"
local mlflow = require "mlflow"
local rows = require "rows"
local softmax = require "softmax"

--- Everything that MLflow should know of the run before it starts.
local function open_run(cx, train, validation)
  local experiment = mlflow.connect():experiment(cx.inputs.mlflow_experiment)
  local run = experiment:run {
    name = "digits-" .. cx.inputs.run_id:sub(1, 8),
    tags = { external_run_id = cx.inputs.run_id, ["mlhost.component"] = "training" },
  }
  run:log_params {
    algorithm = "softmax-regression",
    epochs = cx.inputs.epochs,
    learning_rate = cx.inputs.learning_rate,
    l2 = cx.inputs.l2,
    batch = cx.inputs.batch,
    seed = cx.inputs.seed,
    train_rows = #train,
    validation_rows = #validation,
  }
  return run
end

component "training" {
  inputs = {
    train = "path",
    validation = "path",
    epochs = { "int", default = 40 },
    learning_rate = { "float", default = 0.3 },
    l2 = { "float", default = 1e-4 },
    batch = { "int", default = 32 },
    seed = { "int", default = 42 },
    mlflow_experiment = { "string", default = "mexicanfood" },
    run_id = "string",
  },
  outputs = { model = "path", metrics = "path", mlflow_run_id = "string", validation_accuracy = "float" },
  run = function(cx)
    local train, validation = rows.read(cx.inputs.train), rows.read(cx.inputs.validation)
    local run = open_run(cx, train, validation)
    local curve, best_accuracy = {}, {}

    local model, best_epoch = softmax.train(train, validation, {
      epochs = cx.inputs.epochs,
      learning_rate = cx.inputs.learning_rate,
      l2 = cx.inputs.l2,
      momentum = 0.9,
      batch = cx.inputs.batch,
      seed = cx.inputs.seed,
      classes = rows.CLASSES,
      scale = rows.SCALE,
      on_epoch = function(epoch, on_train, on_validation)
        table.insert(curve, { key = "train_loss", value = on_train.loss, step = epoch })
        table.insert(curve, { key = "train_accuracy", value = on_train.accuracy, step = epoch })
        table.insert(curve, { key = "validation_loss", value = on_validation.loss, step = epoch })
        table.insert(curve, { key = "validation_accuracy", value = on_validation.accuracy, step = epoch })
        best_accuracy[epoch] = on_validation.accuracy
        progress("epochs", epoch, cx.inputs.epochs)
      end,
    })
    run:log_batch { metrics = curve }
    run:log_params { best_epoch = best_epoch }

    model.format = "mlhost-softmax-1"
    fs.write(cx.outputs.model, json.encode(model))
    -- The code that reads it goes with it: who serves the model needs nothing of this project's tree.
    run:log_artifact(cx.outputs.model, "model", "model.json")
    run:log_artifact(cx.folder .. "/softmax.lua", "model", "softmax.lua")
    run:set_tag("model_sha256", hash.sha256_file(cx.outputs.model))
    fs.write(cx.outputs.metrics, json.encode {
      validation_accuracy = best_accuracy[best_epoch],
      best_epoch = best_epoch,
    })
    run:finish()

    cx.metadata("metrics", { validation_accuracy = best_accuracy[best_epoch], best_epoch = best_epoch })
    cx.output("mlflow_run_id", run.id)
    cx.output("validation_accuracy", best_accuracy[best_epoch])
    log.info("validation accuracy %.4f after epoch %d (MLflow run %s)", best_accuracy[best_epoch], best_epoch, run.id)
  end,
}
