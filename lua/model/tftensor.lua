-- TensorFlow's TensorProto in protobuf's JSON form: what SeldonMessage carries as data.tftensor.
-- https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/framework/tensor.proto
local base64 = require "model.base64"
local binary = require "model.binary"
local tensor = require "model.tensor"
local _, vm = ...

local tftensor = {}

-- Where values stand when each has its own place, in both spellings that protobuf's readers take.
local FIELDS = {
  "doubleVal", "floatVal", "intVal", "int64Val", "uint32Val", "uint64Val", "boolVal", "stringVal",
  "double_val", "float_val", "int_val", "int64_val", "uint32_val", "uint64_val", "bool_val", "string_val",
}
-- The form of tensorContent by dtype; what make_tensor_proto writes for arrays.
local CONTENT = {
  DT_FLOAT = "FP32", DT_DOUBLE = "FP64", DT_HALF = "FP16", DT_BOOL = "BOOL", DT_INT8 = "INT8", DT_INT16 = "INT16",
  DT_INT32 = "INT32", DT_INT64 = "INT64", DT_UINT8 = "UINT8", DT_UINT16 = "UINT16", DT_UINT32 = "UINT32", DT_UINT64 = "UINT64",
}
-- The dtype as protobuf's numbers.
local NUMBERS = {
  "DT_FLOAT", "DT_DOUBLE", "DT_INT32", "DT_UINT8", "DT_INT16", "DT_INT8", "DT_STRING", nil, "DT_INT64", "DT_BOOL",
  [17] = "DT_UINT16", [19] = "DT_HALF", [22] = "DT_UINT32", [23] = "DT_UINT64",
}
local MOST_REPEATED = 1 << 20 -- values that are not there but meant: the last one stands for the rest

local function shape_of(tf)
  local shape = {}
  local dims = tf.tensorShape or tf.tensor_shape
  for i, dim in ipairs(type(dims) == "table" and type(dims.dim) == "table" and dims.dim or {}) do
    local size = type(dim) == "table" and (dim.size == nil and 0 or math.tointeger(tonumber(dim.size)))
    if not size or size < 0 then return nil, ("dim %d of tensorShape has no size"):format(i - 1) end
    shape[i] = size
  end
  local total, err = tensor.size(shape)
  if not total then return nil, err end
  return shape, total
end

local function from_content(tf)
  local dtype = NUMBERS[tf.dtype] or tf.dtype
  local form = CONTENT[dtype]
  if not form then return nil, ("tensorContent of dtype %s cannot be read"):format(tostring(dtype)) end
  local content = tf.tensorContent or tf.tensor_content
  local bytes = type(content) == "string" and base64.decode(content)
  if not bytes then return nil, "tensorContent is not base64" end
  return binary.unpack(form, bytes)
end

-- Of protobuf's JSON: int64 are texts, and so are these.
local SPECIAL = { NaN = 0 / 0, Infinity = math.huge, ["-Infinity"] = -math.huge }

local function from_field(list, as_bytes)
  if type(list) ~= "table" then return nil, "its values are no list" end
  local values = {}
  for i, value in ipairs(list) do
    if as_bytes then
      value = type(value) == "string" and base64.decode(value)
      if not value then return nil, ("stringVal[%d] is not base64"):format(i - 1) end
    elseif type(value) == "string" then
      value = SPECIAL[value] or tonumber(value)
    end
    if not as_bytes and type(value) ~= "number" and type(value) ~= "boolean" then
      return nil, ("value %d is no number"):format(i - 1)
    end
    values[i] = value
  end
  return values
end

--- tftensor.decode(tf) -> flat values, shape; or nil and what is wrong
function tftensor.decode(tf)
  local shape, total = shape_of(tf)
  if not shape then return nil, total end
  local values, err
  if tf.tensorContent ~= nil or tf.tensor_content ~= nil then
    values, err = from_content(tf)
  else
    err = "a tftensor holds its values in tensorContent, doubleVal, floatVal, intVal, int64Val, boolVal or stringVal"
    for _, key in ipairs(FIELDS) do
      if tf[key] ~= nil then
        values, err = from_field(tf[key], key:sub(1, 6) == "string")
        break
      end
    end
    if not values and total == 0 then values = {} end
    if values and #values > 0 and #values < total and total <= MOST_REPEATED then
      for i = #values + 1, total do values[i] = values[#values] end
    end
  end
  if not values then return nil, err end
  if #values ~= total then return nil, ("tensorShape takes %d values, %d are there"):format(total, #values) end
  return values, shape
end

--- tftensor.encode(flat values, shape) -> TensorProto of doubles
function tftensor.encode(values, shape)
  local dims = {}
  for i, n in ipairs(shape) do dims[i] = { size = tostring(n) } end
  return { dtype = "DT_DOUBLE", tensorShape = { dim = vm.array(dims) }, doubleVal = vm.array(values) }
end

return tftensor
