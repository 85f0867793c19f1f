-- Nested lists and flat, row-major ones.
local _, vm = ...

local tensor = {}

local MOST_EMPTY = 1 << 16 -- lists that a shape with a 0 in it may make out of no value at all

--- How many values a shape takes, or nil and what is wrong with it. Shapes come from clients: their product is bounded.
function tensor.size(shape)
  if not tensor.is_list(shape) then return nil, "a shape is a list" end
  local total, others = 1, 1
  for _, n in ipairs(shape) do
    if math.type(n) ~= "integer" or n < 0 then return nil, "a shape holds whole numbers from 0" end
    if n > (1 << 40) // others then return nil, "the shape is too large" end
    total, others = total * n, others * math.max(n, 1)
  end
  if total == 0 and others > MOST_EMPTY then return nil, "the shape is too large for no values" end
  return total
end

--- Flat values of a shape -> nested lists. An error text when the numbers do not add up.
function tensor.nest(values, shape)
  local total, err = tensor.size(shape)
  if not total then return nil, err end
  if total ~= #values then return nil, ("the shape takes %d values, %d are there"):format(total, #values) end
  for i = 1, total do
    if type(values[i]) == "table" then return nil, ("value %d is a list"):format(i - 1) end
  end
  if #shape <= 1 then return values end
  if #shape == 2 then -- by far the most common
    local rows, columns = {}, shape[2]
    for i = 1, shape[1] do rows[i] = table.move(values, (i - 1) * columns + 1, i * columns, 1, {}) end
    return vm.array(rows)
  end
  local at = 0
  local function level(depth)
    local list = {}
    for i = 1, shape[depth] do
      if depth == #shape then
        at = at + 1
        list[i] = values[at]
      else
        list[i] = level(depth + 1)
      end
    end
    return vm.array(list)
  end
  return level(1)
end

--- Is it a list (of anything), or an empty table?
function tensor.is_list(value) return type(value) == "table" and (#value > 0 or next(value) == nil) end

--- Nested lists -> flat values and their shape; nil when they are ragged.
function tensor.flatten(nested)
  local shape, values = {}, {}
  local probe = nested
  while type(probe) == "table" do
    shape[#shape + 1] = #probe
    probe = probe[1]
  end
  local depth_of, count = #shape, 0
  local function level(list, depth)
    if type(list) ~= "table" or #list ~= shape[depth] then return false end
    if depth == depth_of then
      for i = 1, #list do
        if type(list[i]) == "table" then return false end
        values[count + i] = list[i]
      end
      count = count + #list
      return true
    end
    for i = 1, #list do
      if not level(list[i], depth + 1) then return false end
    end
    return true
  end
  if depth_of == 0 or not level(nested, 1) then return nil end
  return values, shape
end

function tensor.numeric(nested)
  while type(nested) == "table" do nested = nested[1] end
  return type(nested) == "number"
end

return tensor
