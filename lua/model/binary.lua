-- Tensors in binary form, of the Open Inference Protocol's extension: little-endian, row-major; an element of BYTES after its
-- length in four bytes; BOOL in one.
local binary = {}

-- Little-endian forms of string.pack, and bytes each.
binary.FORMATS = {
  BOOL = { "<I1", 1 }, UINT8 = { "<I1", 1 }, UINT16 = { "<I2", 2 }, UINT32 = { "<I4", 4 }, UINT64 = { "<I8", 8 },
  INT8 = { "<i1", 1 }, INT16 = { "<i2", 2 }, INT32 = { "<i4", 4 }, INT64 = { "<i8", 8 },
  FP32 = { "<f", 4 }, FP64 = { "<d", 8 }, FP16 = { "<I2", 2 }, BYTES = { nil, nil },
}
local FORMATS = binary.FORMATS

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

--- binary.unpack(datatype, bytes) -> flat values, or nil and what is wrong
function binary.unpack(datatype, bytes)
  local values = {}
  if datatype == "BYTES" then
    local at = 1
    while at <= #bytes do
      if at + 3 > #bytes then return nil, "the length of an element is cut off" end
      local len = string.unpack("<I4", bytes, at)
      if at + 3 + len > #bytes then return nil, "an element is cut off" end
      values[#values + 1] = bytes:sub(at + 4, at + 3 + len)
      at = at + 4 + len
    end
    return values
  end
  local form, size = FORMATS[datatype][1], FORMATS[datatype][2]
  if #bytes % size ~= 0 then return nil, ("%d bytes are no whole number of %s"):format(#bytes, datatype) end
  for i = 1, #bytes // size do
    local value = string.unpack(form, bytes, (i - 1) * size + 1)
    if datatype == "FP16" then value = from_half(value) elseif datatype == "BOOL" then value = value ~= 0 end
    values[i] = value
  end
  return values
end

local function refuse(datatype, wanted, value)
  error(("%s holds %s, not %s"):format(datatype, wanted, type(value) == "string" and "a text" or tostring(value)), 0)
end

--- The least and the greatest value of a whole number of these bytes. Those of 64 bits are taken as Lua has them.
local function range(form, size)
  if size == 8 then return math.mininteger, math.maxinteger end
  local signed = form == "<i" .. size
  local least = signed and -(1 << size * 8 - 1) or 0
  return least, signed and -least - 1 or (1 << size * 8) - 1
end

--- A whole number as the datatype can hold it.
local function whole(datatype, form, size, value)
  local n = type(value) == "number" and math.tointeger(value)
  if not n then refuse(datatype, "whole numbers", value) end
  local least, most = range(form, size)
  if n < least or n > most then refuse(datatype, ("%d to %d"):format(least, most), value) end
  return n
end

local function is_bool(value) return type(value) == "boolean" or value == 0 or value == 1 end

-- JSON has no such numbers; they come, and are sent, as texts.
local SPECIAL = { NaN = 0 / 0, Infinity = math.huge, ["-Infinity"] = -math.huge }

--- binary.fit(datatype, values): makes of what JSON could hold what the datatype is; in place. Returns nothing, or which of the
--- values cannot be it.
function binary.fit(datatype, values)
  local form, size = FORMATS[datatype][1], FORMATS[datatype][2]
  local kind = datatype == "BYTES" and "string" or "number"
  local integer = kind == "number" and form ~= "<f" and form ~= "<d"
  local least, most
  if integer then least, most = range(form, size) end
  for i, value in ipairs(values) do
    local good
    if datatype == "BOOL" then
      good = is_bool(value)
    else
      good = type(value) == kind
      if integer and good then
        local n = math.tointeger(value)
        good = n and n >= least and n <= most
      elseif not good and kind == "number" and SPECIAL[value] then
        values[i], good = SPECIAL[value], not integer
      end
    end
    if not good then
      if type(value) == "string" then value = "a text" elseif type(value) == "userdata" then value = "null" end
      return ("value %d is %s, which is no %s"):format(i, tostring(value), datatype)
    end
  end
end

--- binary.pack(datatype, values) -> bytes. Raises when a value is none of the datatype.
function binary.pack(datatype, values)
  local out = {}
  if datatype == "BYTES" then
    for i, value in ipairs(values) do out[i] = string.pack("<s4", tostring(value)) end
    return table.concat(out)
  end
  local form, size = FORMATS[datatype][1], FORMATS[datatype][2]
  for i, value in ipairs(values) do
    if datatype == "BOOL" then
      value = (value and value ~= 0) and 1 or 0
    elseif datatype == "FP16" or form == "<f" or form == "<d" then
      if type(value) ~= "number" then refuse(datatype, "numbers", value) end
      if datatype == "FP16" then value = to_half(value) end
    else
      value = whole(datatype, form, size, value)
    end
    out[i] = string.pack(form, value)
  end
  return table.concat(out)
end

return binary
