-- The Open Inference Protocol (v2) for those who call, with the binary tensor extension.
-- https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
local binary = require "model.binary"
local json = require "json"
local tensor = require "model.tensor"
local _, vm = ...

local oip = {}

local function bad(hint, format, ...)
  error(vm.new_error { service = "seldon", code = "invalid", message = format:format(...), hint = hint }, 0)
end

local DATATYPES = {}
for name in pairs(binary.FORMATS) do DATATYPES[#DATATYPES + 1] = name end
table.sort(DATATYPES)

local KINDS = { string = "BYTES", boolean = "BOOL", number = "FP64" }

--- The datatype that holds all values; whole numbers are INT64, as soon as one is not they are FP64.
local function datatype_of(values, name)
  local kind, whole = type(values[1]), true
  for i, value in ipairs(values) do
    if type(value) ~= kind then
      bad("a tensor holds one kind: use one input for each", "input '%s': value %d is a %s, the first one is a %s", name, i,
        type(value), kind)
    end
    whole = whole and math.type(value) == "integer"
  end
  if #values > 0 and not KINDS[kind] then bad(nil, "input '%s': a tensor cannot hold a %s", name, kind) end
  return whole and "INT64" or KINDS[kind]
end

--- { name?, datatype?, shape?, data } or nested lists -> an input as it is sent, and its bytes when it is binary
local function input_of(given, index, as_binary)
  local one = type(given) == "table" and given.data ~= nil and given or { data = given }
  local name = one.name or ("input-%d"):format(index - 1)
  local values, shape
  if type(one.data) == "table" and type(one.data[1]) == "table" then
    values, shape = tensor.flatten(one.data)
    if not values then bad(nil, "input '%s': the rows are of different lengths", name) end
  else
    values = type(one.data) == "table" and one.data or { one.data }
    shape = { #values }
  end
  local datatype = one.datatype or datatype_of(values, name)
  if not binary.FORMATS[datatype] then
    local near = vm.near(tostring(datatype), DATATYPES)
    bad("there are " .. table.concat(DATATYPES, " "), "input '%s': unknown datatype '%s'%s", name, tostring(datatype),
      near and (", did you mean '%s'?"):format(near) or "")
  end
  local total = 1
  for _, n in ipairs(one.shape or shape) do total = total * n end
  if total ~= #values then bad(nil, "input '%s': the shape takes %d values, %d are there", name, total, #values) end
  local input = { name = name, datatype = datatype, shape = vm.array(one.shape or shape), parameters = one.parameters }
  if as_binary or datatype == "FP16" then
    local ok, bytes = pcall(binary.pack, datatype, values)
    if not ok then bad(nil, "input '%s': %s", name, tostring(bytes)) end
    input.parameters = { binary_data_size = #bytes }
    for key, value in pairs(one.parameters or {}) do input.parameters[key] = value end
    return input, bytes
  end
  for i, value in ipairs(datatype == "BYTES" and values or {}) do
    if not utf8.len(tostring(value)) then
      bad("send it with binary = true, or as base64 if the model takes that", "input '%s': value %d is not UTF-8", name, i)
    end
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

--- Values of an output, flat; `at`: how far the binary part has been read.
local function output_values(output, body, at)
  local name, size = tostring(output.name), nil
  if type(output.parameters) == "table" then size = math.tointeger(output.parameters.binary_data_size) end
  if not size then
    local data = output.data
    if type(data) == "table" and type(data[1]) == "table" then
      data = tensor.flatten(data)
      if not data then bad(nil, "the reply: output '%s': its rows are of different lengths", name) end
    end
    return data, at
  end
  if not binary.FORMATS[output.datatype] then
    bad(nil, "the reply: output '%s': unknown datatype '%s'", name, tostring(output.datatype))
  end
  if size < 0 or at + size > #body then
    bad(nil, "the reply: output '%s': %d bytes are announced, %d came", name, size, #body - at)
  end
  local values, err = binary.unpack(output.datatype, body:sub(at + 1, at + size))
  if not values then bad(nil, "the reply: output '%s': %s", name, err) end
  return values, at + size
end

--- oip.decode(body, headers) -> { values, outputs, shape, names, meta, raw }; values: of the first output.
--- Unsigned numbers of 64 bits from 2^63 on come as Lua's integers have them: negative.
function oip.decode(body, headers)
  local announced = headers["inference-header-content-length"]
  local len = announced and math.tointeger(tonumber(announced) or -1) or not announced and #body
  if not len or len < 0 or len > #body then
    bad(nil, "the reply: Inference-Header-Content-Length is '%s', the body has %d bytes", tostring(announced), #body)
  end
  local ok, raw = pcall(json.decode, body:sub(1, len))
  if not ok or type(raw) ~= "table" or type(raw.outputs) ~= "table" then
    bad("is the URL that of the model, and the protocol the one it speaks? A login page answers 200, too",
      "the reply is no inference response: %s", body:sub(1, 200))
  end
  local at, outputs, names = len, {}, {}
  for i, output in ipairs(raw.outputs) do
    local data, values, err
    data, at = output_values(output, body, at)
    if type(data) == "table" then
      values, err = tensor.nest(data, output.shape or { #data })
    elseif data == nil then
      err = "it has neither data nor binary_data_size"
    else
      values = data
    end
    if err then bad(nil, "the reply: output '%s': %s", tostring(output.name), err) end
    outputs[i] = { name = output.name, datatype = output.datatype, shape = output.shape, data = data, values = values }
    names[i] = output.name
  end
  return {
    raw = raw, outputs = outputs, names = names, values = outputs[1] and outputs[1].values,
    shape = outputs[1] and outputs[1].shape, model_name = raw.model_name, model_version = raw.model_version,
    meta = type(raw.parameters) == "table" and raw.parameters or {},
  }
end

return oip
