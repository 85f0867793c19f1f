-- What the inference client sends and how it reads replies: SeldonMessage and Open Inference v2, well-formed and not.
local t = require "test"
local binary = require "model.binary"
local json = require "json"
local message = require "seldon.message"
local oip = require "seldon.oip"
local tftensor = require "model.tftensor"

local function round(values, options)
  return message.decode(json.decode(json.encode(message.encode(values, options))))
end

-- ---- SeldonMessage ----

t.case("each kind of data comes back as it was sent", function()
  local rows = { { 1.5, -2.0, 0.25 }, { 3.0, 4.0, 1e-300 } }
  for _, kind in ipairs { "ndarray", "tensor", "tftensor" } do
    local got = round(rows, { kind = kind, names = { "a", "b", "c" } })
    t.eq(got.kind, kind)
    t.eq(got.values, rows)
    t.eq(got.names, { "a", "b", "c" })
    if kind ~= "ndarray" then t.eq(got.shape, { 2, 3 }) end
  end
  t.eq(round("text").values, "text")
  t.eq(round("text").kind, "strData")
  t.eq(round({ deep = { 1, "x" } }).kind, "jsonData")
  t.eq(round({ deep = { 1, "x" } }).values, { deep = { 1, "x" } })
  local bytes = {}
  for i = 0, 255 do bytes[#bytes + 1] = string.char(i) end
  for cut = 0, 3 do
    local text = table.concat(bytes, "", 1, 256 - cut)
    t.eq(round(text, { kind = "binData" }).values, text)
  end
end)

t.case("meta goes along", function()
  local got = round({ { 1 } }, { meta = { puid = "p", tags = { a = 1 } } })
  t.eq(got.meta, { puid = "p", tags = { a = 1 } })
end)

t.case("what cannot be sent is refused", function()
  t.raises("different lengths", message.encode, { { 1 }, { 1, 2 } }, { kind = "tensor" })
  t.raises("did you mean 'ndarray'", message.encode, { { 1 } }, { kind = "ndaray" })
end)

t.case("tftensor in all its forms", function()
  local function read(text) return message.decode(json.decode('{"data":{"tftensor":' .. text .. "}}")).values end
  local dims = '"tensorShape":{"dim":[{"size":"2"},{"size":"1"}]}'
  -- make_tensor_proto([[1.0], [-2.5]]) as protobuf's json_format prints it
  t.eq(read('{"dtype":"DT_DOUBLE",' .. dims .. ',"tensorContent":"AAAAAAAA8D8AAAAAAAAEwA=="}'), { { 1.0 }, { -2.5 } })
  t.eq(read('{"dtype":"DT_FLOAT",' .. dims .. ',"tensorContent":"AACAPwAAIMA="}'), { { 1.0 }, { -2.5 } })
  t.eq(read('{"dtype":2,"tensor_shape":{"dim":[{"size":2}]},"tensor_content":"AAAAAAAA8D8AAAAAAAAEwA=="}'), { 1.0, -2.5 })
  t.eq(read('{"dtype":"DT_INT64",' .. dims .. ',"int64Val":["9007199254740993","-1"]}'), { { 9007199254740993 }, { -1 } })
  t.eq(read('{"dtype":"DT_DOUBLE",' .. dims .. ',"doubleVal":["Infinity","-Infinity"]}'), { { math.huge }, { -math.huge } })
  t.eq(read('{"dtype":"DT_STRING",' .. dims .. ',"stringVal":["YWI=",""]}'), { { "ab" }, { "" } })
  t.eq(read('{"dtype":"DT_FLOAT",' .. dims .. ',"floatVal":[7]}'), { { 7 }, { 7 } }, "the last value stands for the rest")
  t.eq(read '{"dtype":"DT_FLOAT","tensorShape":{"dim":[{}]}}', {})
end)

t.case("a tftensor that does not add up is an error", function()
  local function why(text) return select(2, tftensor.decode(json.decode(text))) end
  local one = '"tensorShape":{"dim":[{"size":"1"}]}'
  t.holds(why('{"dtype":"DT_DOUBLE",' .. one .. ',"tensorContent":"AAA"}'), "not base64")
  t.holds(why('{"dtype":"DT_DOUBLE",' .. one .. ',"tensorContent":"AAAA"}'), "no whole number of FP64")
  t.holds(why('{"dtype":"DT_RESOURCE",' .. one .. ',"tensorContent":"AAAA"}'), "DT_RESOURCE")
  t.holds(why('{"dtype":"DT_DOUBLE",' .. one .. ',"doubleVal":[1,2]}'), "takes 1 values, 2 are there")
  t.holds(why('{"dtype":"DT_DOUBLE",' .. one .. ',"doubleVal":["x"]}'), "no number")
  t.holds(why('{"dtype":"DT_DOUBLE",' .. one .. "}"), "holds its values in")
  t.holds(why '{"doubleVal":[1],"tensorShape":{"dim":[{"size":"-1"}]}}', "has no size")
  t.holds(why '{"doubleVal":[1],"tensorShape":{"dim":[{"size":"1000000000"}]}}', "1 are there", "no memory for what is not there")
end)

t.case("a reply that is no SeldonMessage is an error, not a nil", function()
  t.raises("no SeldonMessage", message.decode, "<html>log in</html>")
  t.raises("no SeldonMessage", message.decode, json.decode '{"outputs":[]}')
  t.raises("binData is not base64", message.decode, { binData = "?" })
  t.raises("takes 3 values, 2 are there", message.decode, { data = { tensor = { shape = { 3 }, values = { 1, 2 } } } })
end)

t.case("a failure is seen in the code of HTTP and in the status", function()
  t.eq(message.failure(200, { data = {} }), nil)
  t.eq(message.failure(200, { status = { status = "SUCCESS", code = 200 } }), nil)
  t.eq(message.failure(200, { status = { status = "FAILURE", info = "why" } }), "why")
  t.eq(message.failure(200, { status = { status = "FAILURE", code = 500 } }), "status FAILURE, code 500")
  local of_wrapper = { status = { status = 1, code = -1, reason = "MICROSERVICE_BAD_DATA", info = "" } }
  t.eq(message.failure(200, of_wrapper), "MICROSERVICE_BAD_DATA")
  t.eq(message.failure(404, { error = "Model x not found" }), "Model x not found")
  t.eq(message.failure(503, "no healthy upstream"), "no healthy upstream")
  t.eq(message.failure(502, ""), "HTTP 502")
end)

-- ---- Open Inference ----

--- What a server would read of a request, and reply with as its one output.
local function echo(values, options)
  local body, headers = oip.encode(values, options)
  local len = tonumber(headers["Inference-Header-Content-Length"] or #body)
  local request = json.decode(body:sub(1, len))
  local head = json.encode { model_name = "m", outputs = request.inputs }
  return oip.decode(head .. body:sub(len + 1), { ["inference-header-content-length"] = len < #body and tostring(#head) or nil }),
    request, headers
end

local SAMPLES = {
  BOOL = { true, false }, BYTES = { "", "a\nb" }, INT8 = { -128, 127 }, INT16 = { -32768, 32767 },
  INT32 = { -2147483648, 2147483647 }, INT64 = { math.mininteger, math.maxinteger }, UINT8 = { 0, 255 }, UINT16 = { 0, 65535 },
  UINT32 = { 0, 4294967295 }, UINT64 = { 0, math.maxinteger }, FP32 = { -0.5, 1.25 }, FP64 = { 0.1, -1e300 }, FP16 = { 0.5, -2.0 },
}

t.case("tensors of every datatype, as JSON and binary", function()
  local seen = 0
  for datatype, data in pairs(SAMPLES) do
    for _, as_binary in ipairs { false, true } do
      local got, request, headers = echo({ { name = "x", datatype = datatype, data = data } }, { binary = as_binary })
      t.eq(got.values, data, datatype)
      t.eq(got.outputs[1].datatype, datatype)
      local input = request.inputs[1]
      t.eq(input.data == nil, as_binary or datatype == "FP16", datatype)
      t.eq(headers["Content-Type"], input.data and "application/json" or "application/octet-stream")
    end
    seen = seen + 1
  end
  for datatype in pairs(binary.FORMATS) do t.ok(SAMPLES[datatype], datatype) end
  t.eq(seen, 13)
end)

t.case("the bytes are those of the specification", function()
  local body, headers = oip.encode({ { name = "a", datatype = "INT16", data = { 1, -2 } }, { name = "b", data = { "xyz", "" } } },
    { binary = true })
  local len = tonumber(headers["Inference-Header-Content-Length"])
  t.eq(body:sub(len + 1), "\1\0\xfe\xff" .. "\3\0\0\0xyz" .. "\0\0\0\0")
  local head = json.decode(body:sub(1, len))
  t.eq(head.inputs[1].parameters.binary_data_size, 4)
  t.eq(head.inputs[2].parameters.binary_data_size, 11)
  t.eq(head.parameters.binary_data_output, true)
  t.eq(binary.pack("FP16", { 1.0, -2.0, 65504.0, 5.9604644775390625e-8, 1e6 }), "\0\60\0\xc0\xff\x7b\1\0\0\x7c")
end)

t.case("shape and datatype are found", function()
  local function input(values) return json.decode((oip.encode(values))).inputs[1] end
  t.eq(input({ { 1, 2 }, { 3, 4 } }).datatype, "INT64")
  t.eq(input({ { 1, 2.5 }, { 3, 4 } }).datatype, "FP64")
  t.eq(input({ { { 1 }, { 2 } } }).shape, { 1, 2, 1 })
  t.eq(input({ "a", "b" }).datatype, "BYTES")
  t.eq(input({ true }).datatype, "BOOL")
  local named = input { { name = "x", data = { 1, 2, 3, 4 }, shape = { 2, 2 }, parameters = { content_type = "np" } } }
  t.eq(named.shape, { 2, 2 })
  t.eq(named.parameters.content_type, "np")
  local _, request = echo({ { name = "x", data = { "a" }, parameters = { content_type = "str" } } }, { binary = true })
  t.eq(request.inputs[1].parameters, { binary_data_size = 5, content_type = "str" })
end)

t.case("what a tensor cannot hold is refused", function()
  t.raises("value 2 is a string, the first one is a number", oip.encode, { { 1, "a" } })
  t.raises("different lengths", oip.encode, { { 1 }, { 1, 2 } })
  t.raises("did you mean", oip.encode, { { name = "x", datatype = "FP3", data = { 1 } } })
  t.raises("the shape takes 4 values, 3 are there", oip.encode, { { name = "x", shape = { 2, 2 }, data = { 1, 2, 3 } } })
  t.raises("whole numbers, not 1.5", oip.encode, { { name = "x", datatype = "INT32", data = { 1.5 } } }, { binary = true })
  t.raises("0 to 255, not 256", oip.encode, { { name = "x", datatype = "UINT8", data = { 256 } } }, { binary = true })
  t.raises("numbers, not a text", oip.encode, { { name = "x", datatype = "FP32", data = { "1" } } }, { binary = true })
  t.raises("not UTF%-8", oip.encode, { { name = "x", data = { "\xff" } } })
end)

t.case("BOOL takes numbers as other languages have them", function()
  t.eq(binary.pack("BOOL", { true, false, 0, 1 }), "\1\0\0\1")
end)

t.case("a reply that does not add up is an error", function()
  local function read(output, bytes, announced)
    local head = '{"outputs":[' .. output .. "]}"
    return oip.decode(head .. bytes, { ["inference-header-content-length"] = announced or tostring(#head) })
  end
  local fp64 = '{"name":"y","datatype":"FP64","shape":[2],"parameters":{"binary_data_size":16}}'
  t.eq(read(fp64, string.pack("<dd", 1, 2)).values, { 1.0, 2.0 })
  t.raises("16 bytes are announced, 8 came", read, fp64, string.pack("<d", 1))
  t.raises("Inference%-Header%-Content%-Length is '999'", read, fp64, "", "999")
  t.raises("Inference%-Header%-Content%-Length is 'x'", read, fp64, "", "x")
  t.raises("unknown datatype 'FP8'", read, '{"name":"y","datatype":"FP8","shape":[1],"parameters":{"binary_data_size":1}}', "x")
  t.raises("takes 3 values, 2 are there", read, '{"name":"y","datatype":"FP64","shape":[3],"data":[1,2]}', "")
  t.raises("neither data nor", read, '{"name":"y","datatype":"FP64","shape":[1]}', "")
  t.raises("no inference response", oip.decode, "<html>", {})
  t.raises("no inference response", oip.decode, '{"data":{"ndarray":[[1]]}}', {})
  t.raises("no inference response", oip.decode, '"x"', {})
end)
