-- The Open Inference Protocol (v2) over REST, with the binary tensor extension.
-- https://github.com/kserve/open-inference-protocol (rest spec), https://github.com/triton-inference-server/server
-- (protocol extension "binary tensor data").
local binary_form = require "model.binary"
local json = require "json"
local seldon = require "model.seldon"
local tensor = require "model.tensor"
local _, vm = ...

local oip = {}

local FORMATS = binary_form.FORMATS

function oip.failure(status, text)
  return { status = status, type = "application/json", body = json.encode { error = text } }
end

local function good(body) return { status = 200, type = "application/json", body = json.encode(body) } end

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

--- The parameters of an input, for the script: how the bytes came is not its business.
local function without_size(parameters)
  if type(parameters) ~= "table" or parameters.binary_data_size == nil then return parameters end
  local rest = {}
  for key, value in pairs(parameters) do if key ~= "binary_data_size" then rest[key] = value end end
  return next(rest) ~= nil and rest or nil
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
  local count, wrong = tensor.size(shape)
  if not count then seldon.bad("input '%s': %s", name, wrong) end
  local size = type(input.parameters) == "table" and math.tointeger(input.parameters.binary_data_size)
  local values
  if size then
    if size < 0 or at + size > #binary then seldon.bad("input '%s': %d bytes are announced, fewer came", name, size) end
    local err
    values, err = binary_form.unpack(datatype, binary:sub(at + 1, at + size))
    if not values then seldon.bad("input '%s': %s", name, err) end
    at = at + size
  else
    if datatype == "FP16" then seldon.bad("input '%s': FP16 has a binary form only", name) end
    if type(input.data) ~= "table" then seldon.bad("input '%s' has neither data nor binary_data_size", name) end
    values = flat(input.data)
    if not values then seldon.bad("input '%s': the rows of data are of different lengths", name) end
    local why = binary_form.fit(datatype, values)
    if why then seldon.bad("input '%s': %s", name, why) end
  end
  if count ~= #values then seldon.bad("input '%s': the shape takes %d values, %d are there", name, count, #values) end
  return { name = name, datatype = datatype, shape = shape, data = values, parameters = without_size(input.parameters) }, at
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
    for _, input in ipairs(inputs) do
      if #input.data ~= #first.data then
        seldon.bad("the inputs are the columns of a table: '%s' has %d rows, '%s' has %d", first.name, #first.data, input.name,
          #input.data)
      end
    end
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
  for _, one in ipairs(type(request.outputs) == "table" and request.outputs or {}) do
    if type(one) ~= "table" or type(one.name) ~= "string" then seldon.bad "one of the outputs that are asked for has no name" end
    wanted[one.name] = one
  end
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
        local bytes = binary_form.pack(output.datatype, output.data)
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
  return good { name = "mlhost", version = server.program, extensions = vm.array { "binary_tensor_data", "model_repository" } }
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
