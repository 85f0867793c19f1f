-- SeldonMessage for those who call: values in, values out.
-- https://docs.seldon.io/projects/seldon-core/en/latest/reference/apis/external-prediction.html
local base64 = require "model.base64"
local tensor = require "model.tensor"
local vm = require "vm"

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
      local dims = {}
      for i, n in ipairs(shape) do dims[i] = { size = tostring(n) } end
      out.data = {
        names = names, tftensor = { dtype = "DT_DOUBLE", tensorShape = { dim = vm.array(dims) }, doubleVal = vm.array(flat) },
      }
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

local TF_VALUES = { "doubleVal", "floatVal", "intVal", "int64Val", "boolVal", "stringVal" }

local function from_tftensor(tf)
  local shape = {}
  for i, dim in ipairs((tf.tensorShape or {}).dim or {}) do shape[i] = math.tointeger(tonumber(dim.size)) end
  for _, key in ipairs(TF_VALUES) do
    if tf[key] then return tensor.nest(tf[key], shape), shape end
  end
end

--- message.decode(message) -> { values, kind, names, shape, meta, raw }
function message.decode(raw)
  local out = { raw = raw, meta = type(raw.meta) == "table" and raw.meta or {}, names = {} }
  local data = raw.data
  if type(data) == "table" then
    out.names = data.names or {}
    if data.ndarray ~= nil then
      out.kind, out.values = "ndarray", data.ndarray
    elseif data.tensor then
      out.kind, out.shape = "tensor", data.tensor.shape
      out.values = tensor.nest(data.tensor.values or {}, data.tensor.shape or {})
    elseif data.tftensor then
      out.kind = "tftensor"
      out.values, out.shape = from_tftensor(data.tftensor)
    end
  elseif raw.strData ~= nil then
    out.kind, out.values = "strData", raw.strData
  elseif raw.binData ~= nil then
    out.kind, out.values = "binData", base64.decode(raw.binData)
  elseif raw.jsonData ~= nil then
    out.kind, out.values = "jsonData", raw.jsonData
  end
  return out
end

--- What a reply says went wrong, or nil: the code of HTTP and the status within do not always agree.
function message.failure(status, body)
  local told = type(body) == "table" and type(body.status) == "table" and body.status or {}
  local bad = status < 200 or status > 299 or told.status == "FAILURE" or told.status == 1 or told.code == -1
  if not bad then return nil end
  return told.info or told.reason or type(body) == "table" and (body.error or body.message)
    or type(body) == "string" and body ~= "" and body:sub(1, 300) or ("HTTP %d"):format(status)
end

return message
