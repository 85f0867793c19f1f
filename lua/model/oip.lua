-- The Open Inference Protocol (v2) over REST, with the binary tensor extension.
-- https://github.com/kserve/open-inference-protocol (rest spec), https://github.com/triton-inference-server/server
-- (protocol extension "binary tensor data").
local json = require "json"
local seldon = require "model.seldon"
local tensor = require "model.tensor"
local vm = require "vm"

local oip = {}

-- Little-endian forms of string.pack, and bytes each.
local FORMATS = {
  BOOL = { "<I1", 1 }, UINT8 = { "<I1", 1 }, UINT16 = { "<I2", 2 }, UINT32 = { "<I4", 4 }, UINT64 = { "<I8", 8 },
  INT8 = { "<i1", 1 }, INT16 = { "<i2", 2 }, INT32 = { "<i4", 4 }, INT64 = { "<i8", 8 },
  FP32 = { "<f", 4 }, FP64 = { "<d", 8 }, FP16 = { "<I2", 2 }, BYTES = { nil, nil },
}

function oip.failure(status, text)
  return { status = status, type = "application/json", body = json.encode { error = text } }
end

local function good(body) return { status = 200, type = "application/json", body = json.encode(body) } end

-- ---- half precision: IEEE 754 binary16 ----

local function from_half(bits)
  local sign = bits & 0x8000 ~= 0 and -1.0 or 1.0
  local exponent, fraction = bits >> 10 & 31, bits & 1023
  if exponent == 31 then return fraction == 0 and sign * math.huge or 0 / 0 end
  if exponent == 0 then return sign * fraction * 2.0 ^ -24 end
  return sign * (1 + fraction / 1024) * 2.0 ^ (exponent - 15)
end

--- Round to nearest, ties to even.
local function to_half(value)
  if value ~= value then return 0x7E00 end
  local sign = (value < 0 or 1 / value < 0) and 0x8000 or 0
  value = math.abs(value)
  if value >= 65520 then return sign | 0x7C00 end
  if value < 2.0 ^ -14 then
    local n = value * 2.0 ^ 24
    local low = math.floor(n)
    local rest = n - low
    if rest > 0.5 or rest == 0.5 and low % 2 == 1 then low = low + 1 end
    return sign | math.tointeger(low)
  end
  local exponent = 0
  while value >= 2 do value, exponent = value / 2, exponent + 1 end
  while value < 1 do value, exponent = value * 2, exponent - 1 end
  local n = (value - 1) * 1024
  local low = math.floor(n)
  local rest = n - low
  if rest > 0.5 or rest == 0.5 and low % 2 == 1 then low = low + 1 end
  return sign | (exponent + 15 << 10) + math.tointeger(low)
end

-- ---- tensors in binary form ----

local function unpack_tensor(name, datatype, bytes)
  local values = {}
  if datatype == "BYTES" then
    local at = 1
    while at <= #bytes do
      if at + 3 > #bytes then seldon.bad("input '%s': the length of an element is cut off", name) end
      local len = string.unpack("<I4", bytes, at)
      if at + 3 + len > #bytes then seldon.bad("input '%s': an element is cut off", name) end
      values[#values + 1] = bytes:sub(at + 4, at + 3 + len)
      at = at + 4 + len
    end
    return values
  end
  local form, size = FORMATS[datatype][1], FORMATS[datatype][2]
  if #bytes % size ~= 0 then seldon.bad("input '%s': %d bytes are no whole number of %s", name, #bytes, datatype) end
  for i = 1, #bytes // size do
    local value = string.unpack(form, bytes, (i - 1) * size + 1)
    if datatype == "FP16" then value = from_half(value) elseif datatype == "BOOL" then value = value ~= 0 end
    values[i] = value
  end
  return values
end

local function pack_tensor(datatype, values)
  local out = {}
  if datatype == "BYTES" then
    for i, value in ipairs(values) do out[i] = string.pack("<s4", tostring(value)) end
    return table.concat(out)
  end
  local form = FORMATS[datatype][1]
  for i, value in ipairs(values) do
    if datatype == "FP16" then value = to_half(value) elseif datatype == "BOOL" then value = value and 1 or 0 end
    if form ~= "<f" and form ~= "<d" then value = math.tointeger(value) or 0 end
    out[i] = string.pack(form, value)
  end
  return table.concat(out)
end

-- ---- requests ----

local function known(server, frame, name)
  return name == nil or name == server.name or frame.path:sub(1, 17) == "/v2/models/infer"
end

local function unknown(server, name)
  return oip.failure(404, ("Model %s not found: this server has %s"):format(name, server.name))
end

--- JSON and, after it, the binary tensors.
local function split(frame)
  local len = frame.json_len and math.tointeger(tonumber(frame.json_len))
  if not frame.json_len then return frame.body, "" end
  if not len or len < 0 or len > #frame.body then
    seldon.bad("Inference-Header-Content-Length is '%s', the body has %d bytes", frame.json_len, #frame.body)
  end
  return frame.body:sub(1, len), frame.body:sub(len + 1)
end

local function flat(data)
  if type(data[1]) ~= "table" then return data end
  return (tensor.flatten(data))
end

local function read_input(input, binary, at)
  if type(input) ~= "table" or type(input.name) ~= "string" then seldon.bad "an input has no name" end
  local name, datatype, shape = input.name, input.datatype, input.shape
  if not FORMATS[datatype] then
    local names = {}
    for key in pairs(FORMATS) do names[#names + 1] = key end
    table.sort(names)
    seldon.bad("input '%s': unknown datatype '%s'; there are %s", name, tostring(datatype), table.concat(names, " "))
  end
  if type(shape) ~= "table" then seldon.bad("input '%s' has no shape", name) end
  local size = type(input.parameters) == "table" and math.tointeger(input.parameters.binary_data_size)
  local values
  if size then
    if size < 0 or at + size > #binary then seldon.bad("input '%s': %d bytes are announced, fewer came", name, size) end
    values = unpack_tensor(name, datatype, binary:sub(at + 1, at + size))
    at = at + size
  else
    if datatype == "FP16" then seldon.bad("input '%s': FP16 has a binary form only", name) end
    if type(input.data) ~= "table" then seldon.bad("input '%s' has neither data nor binary_data_size", name) end
    values = flat(input.data)
    if not values then seldon.bad("input '%s': the rows of data are of different lengths", name) end
  end
  local count = 1
  for _, n in ipairs(shape) do
    if math.type(n) ~= "integer" then seldon.bad("input '%s': a shape holds whole numbers", name) end
    count = count * n
  end
  if count ~= #values then seldon.bad("input '%s': the shape takes %d values, %d are there", name, count, #values) end
  return { name = name, datatype = datatype, shape = shape, data = values, parameters = input.parameters }, at
end

local function read_inputs(request, binary)
  if type(request.inputs) ~= "table" or #request.inputs == 0 then seldon.bad "inputs is missing or empty" end
  local list, at = {}, 0
  for i, input in ipairs(request.inputs) do list[i], at = read_input(input, binary, at) end
  return list
end

local function datatype_of(values)
  local first = values[1]
  if type(first) == "string" then return "BYTES" end
  if type(first) == "boolean" then return "BOOL" end
  for _, value in ipairs(values) do
    if math.type(value) ~= "integer" then return "FP64" end
  end
  return "INT64"
end

--- What `predict` gives, as the one output of a model.
local function output_of(y)
  if type(y) == "string" then return { name = "predict", datatype = "BYTES", shape = { 1 }, data = { y } } end
  if not tensor.is_list(y) then
    return {
      name = "predict", datatype = "BYTES", shape = { 1 }, data = { json.encode(y) }, parameters = { content_type = "json" },
    }
  end
  local values, shape = tensor.flatten(y)
  if not values then error("the model's answer is ragged: its rows are of different lengths", 0) end
  return { name = "predict", datatype = datatype_of(values), shape = shape, data = values }
end

local function predict(server, inputs, parameters)
  local spec = server.spec
  if spec.predict_tensors then return spec.predict_tensors(server.self, inputs) end
  if not spec.predict then seldon.bad "the model has no function predict" end
  local first, names = inputs[1], {}
  for i, input in ipairs(inputs) do names[i] = input.name end
  local x
  if #inputs > 1 and #first.shape == 1 then -- columns of a table, one input each
    x = {}
    for row = 1, #first.data do
      x[row] = {}
      for column, input in ipairs(inputs) do x[row][column] = input.data[row] end
    end
  else
    x = tensor.nest(first.data, first.shape)
  end
  return { output_of(spec.predict(server.self, x, names, parameters)) }
end

--- Outputs as they were asked for: which, and in which form.
local function write_outputs(request, outputs)
  local wanted, all_binary = {}, type(request.parameters) == "table" and request.parameters.binary_data_output
  for _, one in ipairs(type(request.outputs) == "table" and request.outputs or {}) do wanted[one.name] = one end
  local any, list, binary = next(wanted) ~= nil, {}, {}
  for _, output in ipairs(outputs) do
    local asked = wanted[output.name]
    if not any or asked then
      local parameters = asked and type(asked.parameters) == "table" and asked.parameters or {}
      local entry = {
        name = output.name, datatype = output.datatype, shape = vm.array(output.shape), parameters = output.parameters,
      }
      local as_binary = parameters.binary_data
      if as_binary == nil then as_binary = all_binary end
      if not FORMATS[output.datatype] then error(("output '%s': unknown datatype '%s'"):format(output.name, output.datatype), 0) end
      if as_binary or output.datatype == "FP16" then
        local bytes = pack_tensor(output.datatype, output.data)
        binary[#binary + 1] = bytes
        entry.parameters = { binary_data_size = #bytes }
      else
        entry.data = vm.array(output.data)
      end
      list[#list + 1] = entry
    end
  end
  if any and #list == 0 then
    local there = {}
    for i, output in ipairs(outputs) do there[i] = output.name end
    seldon.bad("none of the outputs that were asked for is there; the model gives %s", table.concat(there, ", "))
  end
  return list, table.concat(binary)
end

function oip.infer(server, frame, name, version)
  if frame.path ~= "/v2/models/infer" and not known(server, frame, name) then return unknown(server, name) end
  if version and server.version and version ~= server.version then
    return oip.failure(404, ("Model %s has no version %s: it has %s"):format(name, version, server.version))
  end
  if frame.unloaded then return oip.failure(400, ("Model %s is not ready yet."):format(server.name)) end
  local text, binary = split(frame)
  if text == "" then seldon.bad "the request has no body: an inference request is needed" end
  local request = seldon.decode(text, "the body")
  if type(request) ~= "table" then seldon.bad "an inference request is a JSON object with inputs" end
  local inputs = read_inputs(request, binary)
  local outputs = predict(server, inputs, type(request.parameters) == "table" and request.parameters or {})
  local list, bytes = write_outputs(request, outputs)
  local meta = seldon.meta_of(server, {})
  local head = json.encode {
    model_name = server.name, model_version = server.version, id = request.id, outputs = vm.array(list),
    parameters = next(meta.tags) and { tags = meta.tags } or nil,
  }
  local reply = { status = 200, type = "application/json", body = head, metrics = meta.metrics }
  if bytes ~= "" then
    reply.type = "application/octet-stream"
    reply.headers = { ["Inference-Header-Content-Length"] = tostring(#head) }
    reply.body = head .. bytes
  end
  return reply
end

function oip.server(server)
  return good { name = server.name, version = server.program, extensions = vm.array { "binary_tensor_data", "model_repository" } }
end

function oip.live() return good { live = true } end
function oip.ready(_, frame)
  return not frame.unloaded and good { ready = true } or oip.failure(400, "the model is unloaded")
end

function oip.model_ready(server, frame, name)
  if not known(server, frame, name) then return unknown(server, name) end
  return not frame.unloaded and good { name = server.name, ready = true } or oip.failure(400, "the model is unloaded")
end

function oip.metadata(server, frame, name)
  if not known(server, frame, name) then return unknown(server, name) end
  local declared = server.spec.metadata or {}
  local meta = {
    name = server.name, platform = declared.platform or "mlhost", versions = vm.array(declared.versions or {}),
    inputs = vm.array {}, outputs = vm.array {},
  }
  for _, key in ipairs { "inputs", "outputs" } do
    for i, one in ipairs(declared[key] or {}) do -- those of the v2 form only
      if one.datatype then meta[key][i] = one end
    end
  end
  return good(meta)
end

function oip.index(server, frame)
  return good(vm.array { {
    name = server.name, version = server.version, state = frame.unloaded and "UNAVAILABLE" or "READY", reason = "",
  } })
end

--- The HTTP side remembers what was said, for all workers.
function oip.load(server, frame, name)
  if not known(server, frame, name) then return unknown(server, name) end
  return good {}
end
oip.unload = oip.load

return oip
