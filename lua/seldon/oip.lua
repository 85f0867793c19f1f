-- The Open Inference Protocol (v2) for those who call, with the binary tensor extension.
-- https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
local binary = require "model.binary"
local json = require "json"
local tensor = require "model.tensor"
local vm = require "vm"

local oip = {}

local function datatype_of(values)
  local first = values[1]
  if type(first) == "string" then return "BYTES" end
  if type(first) == "boolean" then return "BOOL" end
  for _, value in ipairs(values) do
    if math.type(value) ~= "integer" then return "FP64" end
  end
  return "INT64"
end

--- { name?, datatype?, shape?, data } or nested lists -> an input as it is sent, and its bytes when it is binary
local function input_of(given, index, as_binary)
  local one = type(given) == "table" and given.data ~= nil and given or { data = given }
  local values, shape
  if type(one.data) == "table" and type(one.data[1]) == "table" then
    values, shape = tensor.flatten(one.data)
    if not values then error(("input %d: the rows are of different lengths"):format(index), 0) end
  else
    values = type(one.data) == "table" and one.data or { one.data }
    shape = { #values }
  end
  local datatype = one.datatype or datatype_of(values)
  if not binary.FORMATS[datatype] then error(("input %d: unknown datatype '%s'"):format(index, datatype), 0) end
  local input = {
    name = one.name or ("input-%d"):format(index - 1), datatype = datatype, shape = vm.array(one.shape or shape),
    parameters = one.parameters,
  }
  if as_binary or datatype == "FP16" then
    local bytes = binary.pack(datatype, values)
    input.parameters = { binary_data_size = #bytes }
    return input, bytes
  end
  input.data = vm.array(values)
  return input
end

--- oip.encode(values, { id?, outputs?, binary?, parameters? }) -> body, headers
---   values  nested lists (one input), or a list of { name, datatype?, shape?, data }
function oip.encode(values, options)
  options = options or {}
  local named = type(values) == "table" and type(values[1]) == "table" and values[1].data ~= nil
  local inputs, bytes = {}, {}
  for i, given in ipairs(named and values or { values }) do
    local piece
    inputs[i], piece = input_of(given, i, options.binary)
    bytes[#bytes + 1] = piece
  end
  local outputs
  if options.outputs then
    outputs = {}
    for i, name in ipairs(options.outputs) do
      outputs[i] = { name = name, parameters = options.binary and { binary_data = true } or nil }
    end
  end
  local parameters = options.parameters
  if options.binary and not outputs then
    parameters = { binary_data_output = true }
    for key, value in pairs(options.parameters or {}) do parameters[key] = value end
  end
  local head = json.encode {
    id = options.id, parameters = parameters, inputs = vm.array(inputs), outputs = outputs and vm.array(outputs) or nil,
  }
  if #bytes == 0 then return head, { ["Content-Type"] = "application/json" } end
  return head .. table.concat(bytes), {
    ["Content-Type"] = "application/octet-stream", ["Inference-Header-Content-Length"] = tostring(#head),
  }
end

--- oip.decode(body, headers) -> { values, outputs, shape, names, meta, raw }; values: of the first output
function oip.decode(body, headers)
  local len = math.tointeger(tonumber(headers["inference-header-content-length"] or #body))
  local raw = json.decode(body:sub(1, len), "the reply")
  local at, outputs, names = len, {}, {}
  for i, output in ipairs(raw.outputs or {}) do
    local size = type(output.parameters) == "table" and math.tointeger(output.parameters.binary_data_size)
    local data = output.data
    if size then
      data = assert(binary.unpack(output.datatype, body:sub(at + 1, at + size)))
      at = at + size
    elseif type(data) == "table" and type(data[1]) == "table" then
      data = tensor.flatten(data)
    end
    outputs[i] = { name = output.name, datatype = output.datatype, shape = output.shape, data = data }
    outputs[i].values = tensor.nest(data or {}, output.shape) or data
    names[i] = output.name
  end
  return {
    raw = raw, outputs = outputs, names = names, values = outputs[1] and outputs[1].values,
    shape = outputs[1] and outputs[1].shape, model_name = raw.model_name, model_version = raw.model_version,
    meta = type(raw.parameters) == "table" and raw.parameters or {},
  }
end

return oip
