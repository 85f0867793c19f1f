-- How good a model is, and how good a deployment: on the same held-out rows.
local fs = require "fs"
local json = require "json"
local rows = require "components.training.rows"
local softmax = require "components.training.softmax"

local measure = {}

local BATCH = 27 -- rows in a request

measure.rows = rows.read

--- Accuracy of the model in a folder, on rows, computed here.
---@param folder string # with model.json
---@param held_out { x: integer[], y: integer }[]
function measure.model(folder, held_out)
  return softmax.evaluate(json.decode(fs.read(folder .. "/model.json")), held_out).accuracy
end

local function likeliest(probabilities)
  local best = 1
  for class = 2, #probabilities do
    if probabilities[class] > probabilities[best] then best = class end
  end
  return best - 1
end

--- The inputs alone, a list of requests of one row each: for a load test.
function measure.requests(held_out)
  local list = {}
  for i, row in ipairs(held_out) do list[i] = { row.x } end
  return list
end

--- Sends the held-out rows in batches until the version has answered `least` of them (at most `passes` times all rows), and
--- counts what it got right. Replies of other versions are asked for and not counted: with a canary both answer.
---@param client table # of seldon
---@param held_out table[]
---@param version string
---@param options { least: integer?, passes: integer? }?
---@return { accuracy: number, rows: integer, others: integer }
function measure.deployment(client, held_out, version, options)
  local least, passes = options and options.least or #held_out, options and options.passes or 1
  local hits, answered, others = 0, 0, 0
  for _ = 1, passes do
    for first = 1, #held_out, BATCH do
      local x, y = {}, {}
      for i = first, math.min(first + BATCH - 1, #held_out) do
        x[#x + 1], y[#y + 1] = held_out[i].x, held_out[i].y
      end
      local reply = client:predict(x)
      if #reply.values ~= #x then error(("%d rows were sent, %d answers came back"):format(#x, #reply.values)) end
      if (reply.meta.tags or {}).model_version == version then
        for i, probabilities in ipairs(reply.values) do
          if likeliest(probabilities) == y[i] then hits = hits + 1 end
        end
        answered = answered + #x
      else
        others = others + #x
      end
    end
    if answered >= least then break end
  end
  if answered == 0 then
    error(("none of %d rows was answered by version %s: is it deployed?"):format(others, version))
  end
  return { accuracy = hits / answered, rows = answered, others = others }
end

return measure
