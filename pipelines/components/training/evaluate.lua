-- The gate: accuracy on rows that neither training nor the choice of the epoch has seen.
local fs = require "fs"
local json = require "json"
local mlflow = require "mlflow"
local rows = require "rows"
local softmax = require "softmax"

--- The confusion matrix as text: a row per digit, a column per answer.
local function table_of(confusion)
  local lines = { "      0    1    2    3    4    5    6    7    8    9" }
  for truth, answers in ipairs(confusion) do
    local cells = {}
    for _, count in ipairs(answers) do cells[#cells + 1] = ("%4d"):format(count) end
    lines[#lines + 1] = ("%2d %s"):format(truth - 1, table.concat(cells, " "))
  end
  return table.concat(lines, "\n")
end

--- Per-digit precision and recall.
local function per_digit(confusion)
  local out = {}
  for digit = 1, #confusion do
    local answered, shown = 0, 0
    for other = 1, #confusion do
      answered = answered + confusion[other][digit]
      shown = shown + confusion[digit][other]
    end
    local hits = confusion[digit][digit]
    out[digit] = {
      digit = digit - 1,
      precision = answered > 0 and hits / answered or 0,
      recall = shown > 0 and hits / shown or 0,
    }
  end
  return out
end

component "evaluate" {
  inputs = {
    model = "path",
    test = "path",
    mlflow_run_id = "string",
    threshold = { "float", default = 0.94 },
  },
  outputs = { accuracy = "float", metrics = "path", confusion = "path" },
  run = function(cx)
    local model = json.decode(fs.read(cx.inputs.model))
    local result = softmax.evaluate(model, rows.read(cx.inputs.test))
    local digits = per_digit(result.confusion)

    local labels = {}
    for digit = 0, rows.CLASSES - 1 do labels[#labels + 1] = tostring(digit) end
    fs.write(cx.outputs.confusion, json.encode { labels = labels, matrix = result.confusion })
    fs.write(cx.outputs.metrics, json.encode {
      test_accuracy = result.accuracy, test_loss = result.loss, digits = digits,
    })
    cx.metadata("metrics", { test_accuracy = result.accuracy, test_loss = result.loss })
    cx.output("accuracy", result.accuracy)

    local run = mlflow.connect():run(cx.inputs.mlflow_run_id)
    run:log_metric("test_accuracy", result.accuracy)
    run:log_metric("test_loss", result.loss)
    run:log_artifact(cx.outputs.confusion, "evaluation", "confusion.json")
    run:log_artifact(cx.outputs.metrics, "evaluation", "metrics.json")
    run:log_artifact(cx.inputs.test, "evaluation", "test.csv") -- a deployment is measured on the same rows
    log.info("confusion (row: digit, column: answer)\n%s", table_of(result.confusion))
    log.info("test accuracy %.4f", result.accuracy)
    if result.accuracy < cx.inputs.threshold then
      error(("test accuracy %.4f is below the threshold %.4f: the model is not registered")
        :format(result.accuracy, cx.inputs.threshold))
    end
  end,
}
