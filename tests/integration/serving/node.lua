-- A node that can be every part of a graph, for official clients to call: each part leaves its mark in the answer.
local json = require "json"

local last

model "node" {
  metadata = {
    platform = "mlhost", versions = { "7" },
    inputs = { { name = "x", datatype = "FP64", shape = { -1, 2 } } },
    outputs = { { name = "predict", datatype = "FP64", shape = { -1, 2 } } },
  },
  class_names = { "double", "half" },
  tags = { model_version = "7" },
  metrics = function() return { { type = "COUNTER", key = "asked", value = 1 } } end,

  predict = function(_, x, names)
    if type(x) == "string" then return x:reverse() end
    if type(x[1]) ~= "table" then return { got = x, names = names } end
    local out = {}
    for i, row in ipairs(x) do
      if row[1] < 0 then bad_request("row %d is negative", i) end
      if row[1] == 666 then error "no such number" end
      out[i] = { row[1] * 2, row[#row] / 2 }
    end
    return out
  end,

  transform_input = function(_, x)
    for _, row in ipairs(x) do
      for i = 1, #row do row[i] = row[i] + 1 end
    end
    return x, { "moved" }
  end,

  transform_output = function(_, x)
    for _, row in ipairs(x) do
      for i = 1, #row do row[i] = row[i] * 10 end
    end
    return x
  end,

  route = function(_, x) return x[1][1] > 0 and 1 or 0 end,

  aggregate = function(_, list)
    local out = {}
    for i = 1, #list[1] do
      out[i] = {}
      for j = 1, #list[1][i] do
        local sum = 0
        for _, x in ipairs(list) do sum = sum + x[i][j] end
        out[i][j] = sum / #list
      end
    end
    return out
  end,

  feedback = function(_, request, response, reward, truth)
    last = { request = json.array(request), response = response, reward = reward, truth = truth }
  end,

  health = function() return last or { reward = 0 } end,
}
