-- The digits classifier as Seldon serves it: rows of 64 pixels (0 to 16) in, ten probabilities out. Every reply names the
-- model version that made it, so that a canary can be told from its elder.
local fs = require "fs"
local json = require "json"

model "digits" {
  metadata = {
    platform = "mlhost",
    inputs = { { messagetype = "ndarray", schema = { names = { "pixels" }, shape = { 64 } } } },
    outputs = { { messagetype = "ndarray", schema = { names = { "probabilities" }, shape = { 10 } } } },
  },
  class_names = { "0", "1", "2", "3", "4", "5", "6", "7", "8", "9" },

  load = function(cx)
    return {
      predict = require("model.softmax").predict, -- came with the model
      model = json.decode(fs.read(cx.folder .. "/model/model.json")),
      tags = { model_version = cx.parameters.model_version, environment = cx.parameters.environment },
    }
  end,

  predict = function(self, rows)
    local answers, inputs = {}, self.model.inputs
    for i, row in ipairs(rows) do
      if type(row) ~= "table" or #row ~= inputs then
        bad_request("row %d: %d numbers are needed, not %s", i, inputs, type(row) == "table" and #row or type(row))
      end
      answers[i] = self.predict(self.model, row)
    end
    return answers
  end,

  tags = function(self) return self.tags end,
}
