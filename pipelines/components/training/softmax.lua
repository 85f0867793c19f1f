-- Softmax (multinomial logistic) regression by mini-batch gradient descent with momentum, in plain Lua.
-- A model is { classes, inputs, weights = { [class] = { w_1 .. w_inputs, bias } }, scale }: numbers only, saved as JSON.

local softmax = {}

--- A generator of our own (xorshift64*), so that a seed gives the same model on every machine and Lua release.
---@param seed integer
---@return fun(n: integer): integer # a whole number from 1 to n
function softmax.random(seed)
  local state = (seed ~ 0x9E3779B97F4A7C15) | 1
  return function(n)
    state = state ~ (state >> 12)
    state = state ~ (state << 25)
    state = state ~ (state >> 27)
    return ((state * 0x2545F4914F6CDD1D) >> 33) % n + 1
  end
end

--- Shuffles a list in place (Fisher-Yates).
function softmax.shuffle(list, random)
  for i = #list, 2, -1 do
    local j = random(i)
    list[i], list[j] = list[j], list[i]
  end
  return list
end

--- A model that knows nothing yet.
---@param inputs integer # numbers per row
---@param classes integer
---@param scale number # rows are multiplied by it
function softmax.new(inputs, classes, scale)
  local weights = {}
  for class = 1, classes do
    local row = {}
    for i = 1, inputs + 1 do row[i] = 0.0 end
    weights[class] = row
  end
  return { inputs = inputs, classes = classes, scale = scale, weights = weights }
end

--- Probabilities of each class for one row of numbers.
---@param out number[]? # filled and returned; a new table when absent
function softmax.predict(model, row, out)
  out = out or {}
  local inputs, scale, weights = model.inputs, model.scale, model.weights
  local top = -math.huge
  for class = 1, model.classes do
    local w = weights[class]
    local sum = 0.0
    for i = 1, inputs do sum = sum + w[i] * row[i] end
    sum = sum * scale + w[inputs + 1]
    out[class] = sum
    if sum > top then top = sum end
  end
  local total = 0.0
  for class = 1, model.classes do
    local e = math.exp(out[class] - top)
    out[class] = e
    total = total + e
  end
  for class = 1, model.classes do out[class] = out[class] / total end
  return out
end

local function likeliest(p, classes)
  local best = 1
  for class = 2, classes do
    if p[class] > p[best] then best = class end
  end
  return best
end

--- How well a model does on a set of { x = numbers, y = class from 0 }.
---@return { accuracy: number, loss: number, confusion: integer[][] } # confusion[truth + 1][answer + 1]
function softmax.evaluate(model, rows)
  local confusion, hits, loss, p = {}, 0, 0.0, {}
  for truth = 1, model.classes do
    confusion[truth] = {}
    for answer = 1, model.classes do confusion[truth][answer] = 0 end
  end
  for _, row in ipairs(rows) do
    softmax.predict(model, row.x, p)
    local answer = likeliest(p, model.classes)
    local truth = row.y + 1
    confusion[truth][answer] = confusion[truth][answer] + 1
    if answer == truth then hits = hits + 1 end
    loss = loss - math.log(math.max(p[truth], 1e-12))
  end
  return { accuracy = hits / #rows, loss = loss / #rows, confusion = confusion }
end

local function step(model, velocity, batch, options, p)
  local inputs, classes, scale = model.inputs, model.classes, model.scale
  local rate = options.learning_rate / #batch
  local decay = options.learning_rate * options.l2
  for class = 1, classes do
    local v, w = velocity[class], model.weights[class]
    for i = 1, inputs do v[i] = v[i] * options.momentum - decay * w[i] end
    v[inputs + 1] = v[inputs + 1] * options.momentum
  end
  for _, row in ipairs(batch) do
    local x = row.x
    softmax.predict(model, x, p)
    p[row.y + 1] = p[row.y + 1] - 1.0
    for class = 1, classes do
      local gradient = p[class] * rate
      if gradient > 1e-9 or gradient < -1e-9 then
        local v = velocity[class]
        local scaled = gradient * scale
        for i = 1, inputs do v[i] = v[i] - scaled * x[i] end
        v[inputs + 1] = v[inputs + 1] - gradient
      end
    end
  end
  for class = 1, classes do
    local v, w = velocity[class], model.weights[class]
    for i = 1, inputs + 1 do w[i] = w[i] + v[i] end
  end
end

local function copy(weights)
  local out = {}
  for class, row in ipairs(weights) do out[class] = table.move(row, 1, #row, 1, {}) end
  return out
end

--- Trains until `epochs` are done and keeps the weights that did best on the validation set.
---@param train table[] # rows { x, y }
---@param validation table[]
---@param options { epochs: integer, learning_rate: number, l2: number, momentum: number, batch: integer, seed: integer,
---  classes: integer, scale: number, on_epoch: fun(epoch: integer, train: table, validation: table)? }
---@return table model, integer best_epoch
function softmax.train(train, validation, options)
  local random = softmax.random(options.seed)
  local model = softmax.new(#train[1].x, options.classes, options.scale)
  local velocity = softmax.new(#train[1].x, options.classes, options.scale).weights
  local order, p = table.move(train, 1, #train, 1, {}), {}
  local best, best_epoch, best_loss = copy(model.weights), 0, math.huge
  for epoch = 1, options.epochs do
    softmax.shuffle(order, random)
    for first = 1, #order, options.batch do
      local batch = table.move(order, first, math.min(first + options.batch - 1, #order), 1, {})
      step(model, velocity, batch, options, p)
    end
    local on_validation = softmax.evaluate(model, validation)
    if on_validation.loss < best_loss then
      best, best_epoch, best_loss = copy(model.weights), epoch, on_validation.loss
    end
    if options.on_epoch then options.on_epoch(epoch, softmax.evaluate(model, train), on_validation) end
  end
  model.weights = best
  return model, best_epoch
end

return softmax
