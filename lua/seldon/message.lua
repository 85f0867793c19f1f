-- SeldonMessage for those who call: values in, values out.
-- https://docs.seldon.io/projects/seldon-core/en/latest/reference/apis/external-prediction.html
local base64 = require "model.base64"
local json = require "json"
local tensor = require "model.tensor"
local tftensor = require "model.tftensor"
local _, vm = ...

local message = {}

local KINDS = { "ndarray", "tensor", "tftensor", "strData", "binData", "jsonData" }

--- message.encode(values, { kind?, names?, meta? }) -> SeldonMessage
---   kind  default: "ndarray" for lists, "strData" for texts, "jsonData" for other tables
function message.encode(values, options)
  options = options or {}
  local kind = options.kind or type(values) == "string" and "strData" or tensor.is_list(values) and "ndarray" or "jsonData"
  local out, names = { meta = options.meta }, options.names and vm.array(options.names) or nil
  if kind == "ndarray" then
    out.data = { names = names, ndarray = vm.array(values) }
  elseif kind == "tensor" or kind == "tftensor" then
    local flat, shape = tensor.flatten(values)
    if not flat then error("seldon: the rows are of different lengths, or no lists", 0) end
    if kind == "tensor" then
      out.data = { names = names, tensor = { shape = vm.array(shape), values = vm.array(flat) } }
    else
      out.data = { names = names, tftensor = tftensor.encode(flat, shape) }
    end
  elseif kind == "strData" then
    out.strData = tostring(values)
  elseif kind == "binData" then
    out.binData = base64.encode(values)
  elseif kind == "jsonData" then
    out.jsonData = values
  else
    local near = vm.near(tostring(kind), KINDS)
    error(("seldon: unknown kind of data '%s'%s; there are %s"):format(tostring(kind),
      near and (" (did you mean '%s'?)"):format(near) or "", table.concat(KINDS, ", ")), 0)
  end
  return out
end

local function bad(format, ...)
  error(vm.new_error { service = "seldon", code = "invalid", message = "the reply: " .. format:format(...) }, 0)
end

local function content(raw, out)
  local data = raw.data
  if type(data) == "table" then
    out.names = data.names or {}
    if data.ndarray ~= nil then
      out.kind, out.values = "ndarray", data.ndarray
    elseif type(data.tensor) == "table" then
      local err
      out.kind, out.shape = "tensor", data.tensor.shape or {}
      out.values, err = tensor.nest(data.tensor.values or {}, out.shape)
      if not out.values then bad("data.tensor: %s", err) end
    elseif type(data.tftensor) == "table" then
      local flat, shape = tftensor.decode(data.tftensor)
      if not flat then bad("data.tftensor: %s", shape) end
      out.kind, out.shape, out.values = "tftensor", shape, tensor.nest(flat, shape)
    end
  elseif raw.binData ~= nil then
    out.kind, out.values = "binData", type(raw.binData) == "string" and base64.decode(raw.binData) or nil
    if not out.values then bad "binData is not base64" end
  else
    for _, kind in ipairs { "strData", "jsonData", "customData" } do
      if raw[kind] ~= nil then out.kind, out.values = kind, raw[kind] end
    end
  end
end

--- message.decode(message) -> { values, kind, names, shape, meta, raw }. Raises when there is no data in it.
function message.decode(raw)
  local out = { raw = raw, names = {} }
  if type(raw) == "table" then
    out.meta = type(raw.meta) == "table" and raw.meta or {}
    content(raw, out)
  end
  if not out.kind then
    local text = type(raw) == "table" and json.encode(raw) or tostring(raw)
    error(vm.new_error {
      service = "seldon", code = "invalid", message = ("the reply is no SeldonMessage with data: %s"):format(text:sub(1, 200)),
      hint = "is the URL that of the model, and the protocol the one it speaks? A login page answers 200, too",
    }, 0)
  end
  return out
end

--- What a reply says went wrong, or nil: the code of HTTP and the status within do not always agree.
function message.failure(status, body)
  local told = type(body) == "table" and type(body.status) == "table" and body.status or {}
  local failed = status < 200 or status > 299 or told.status == "FAILURE" or told.status == 1 or told.code == -1
  if not failed then return nil end
  local function text(value) return type(value) == "string" and value ~= "" and value or nil end
  return text(told.info) or text(told.reason) or type(body) == "table" and (text(body.error) or text(body.message))
    or text(body) and body:sub(1, 300) or next(told) and ("status %s, code %s"):format(tostring(told.status), tostring(told.code))
    or ("HTTP %d"):format(status)
end

return message
