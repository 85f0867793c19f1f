--- What all of the MLflow service shares: errors as the real server words them, a request's fields, paging.
local json = require "json"

local core = {}

-- MLflow error code -> HTTP status.
local statuses = {
  BAD_REQUEST = 400, INVALID_PARAMETER_VALUE = 400, RESOURCE_ALREADY_EXISTS = 400, INVALID_STATE = 500,
  PERMISSION_DENIED = 403, RESOURCE_DOES_NOT_EXIST = 404, ENDPOINT_NOT_FOUND = 404, NOT_FOUND = 404,
  RESOURCE_CONFLICT = 409, INTERNAL_ERROR = 500, NOT_IMPLEMENTED = 501,
}

local Failure = { __tostring = function(e) return e.error_code .. ": " .. e.message end }

--- Raises an error that is answered as {error_code, message}.
function core.fail(code, format, ...)
  error(setmetatable({ error_code = code, message = format:format(...) }, Failure), 0)
end

function core.invalid(format, ...)
  core.fail("INVALID_PARAMETER_VALUE", format, ...)
end

function core.is_failure(e)
  return getmetatable(e) == Failure
end

function core.status_of(failure)
  return statuses[failure.error_code] or 500
end

--- "Invalid value <JSON> for parameter '<path>' supplied: <why>"
function core.invalid_value(path, value, why)
  core.invalid("Invalid value %s for parameter '%s' supplied%s", json.encode(value == nil and json.null or value), path,
    why and ": " .. why or ".")
end

function core.missing(name)
  core.invalid("Missing value for required parameter '%s'. See the API docs for more information about request "
    .. "parameters.", name)
end

-- ---- a request's fields ----

local Args = {}
Args.__index = Args

local function snake(name)
  return (name:gsub("%u", function(c) return "_" .. c:lower() end))
end

-- Keys may come in camelCase, as in the JSON form of protocol buffers. Keys of user data are values there, never keys.
local function snake_keys(t)
  local out = json.is_array(t) and json.array {} or {}
  for k, v in pairs(t) do
    if v ~= json.null then
      out[type(k) == "string" and snake(k) or k] = type(v) == "table" and snake_keys(v) or v
    end
  end
  return out
end

--- The fields of a request: of its JSON body, and of its query where there is no such body field.
function core.args(request)
  local fields = {}
  if request.body ~= "" then
    local body, why = json.decode(request.body, "request body")
    if not body then core.fail("BAD_REQUEST", "%s", why) end
    if type(body) ~= "table" or json.is_array(body) then
      core.fail("BAD_REQUEST", "The request body must be a JSON object")
    end
    fields = snake_keys(body)
  end
  return setmetatable({ fields = fields, query = request.query, list = request.list }, Args)
end

function Args:raw(name)
  local v = self.fields[name]
  if v == nil then v = self.query[name] end
  return v
end

--- Strings; a number is taken as its text (ids are often sent so).
function Args:string(name, required)
  local v = self:raw(name)
  if type(v) == "number" then v = tostring(v) end
  if v == nil or v == "" and required then
    if required then core.missing(name) end
    return nil
  end
  if type(v) ~= "string" then core.invalid_value(name, v, "a string is needed") end
  return v
end

function Args:int(name, otherwise)
  local v = self:raw(name)
  if v == nil or v == "" then return otherwise end
  local n = type(v) ~= "boolean" and math.tointeger(tonumber(v))
  if not n then core.invalid("Parameter '%s' must be an integer, got '%s'.", name, tostring(v)) end
  return n
end

function Args:bool(name, otherwise)
  local v = self:raw(name)
  if v == nil then return otherwise end
  if v == true or v == "true" or v == "True" then return true end
  if v == false or v == "false" or v == "False" then return false end
  core.invalid_value(name, v, "a boolean is needed")
end

--- A list; of a query, all the values of that name. Absent: empty.
function Args:items(name)
  local v = self.fields[name]
  if v == nil then v = self.list[name] or {} end
  if type(v) ~= "table" or next(v) ~= nil and #v == 0 then core.invalid_value(name, v, "a list is needed") end
  return v
end

function Args:map(name, required)
  local v = self.fields[name]
  if v == nil then
    if required then core.missing(name) end
    return nil
  end
  if type(v) ~= "table" then core.invalid_value(name, v, "an object is needed") end
  return v
end

-- ---- paging: an opaque token with the offset, as the real server has it ----

local digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

local function base64(text)
  local out = {}
  for i = 1, #text, 3 do
    local a, b, c = text:byte(i, i + 2)
    local n = a << 16 | (b or 0) << 8 | (c or 0)
    for j = 0, 3 do
      local at = (n >> (18 - 6 * j) & 63) + 1
      out[#out + 1] = (j == 2 and not b or j == 3 and not c) and "=" or digits:sub(at, at)
    end
  end
  return table.concat(out)
end

local function unbase64(text)
  local out, n, bits = {}, 0, 0
  for c in text:gsub("=+$", ""):gmatch "." do
    local at = digits:find(c, 1, true)
    if not at then return nil end
    n, bits = (n << 6 | at - 1) & 0xffffff, bits + 6
    if bits >= 8 then
      bits = bits - 8
      out[#out + 1] = string.char(n >> bits & 255)
    end
  end
  return table.concat(out)
end

function core.offset(token)
  if not token or token == "" then return 0 end
  local text = unbase64(token)
  if not text then core.invalid "Invalid page token, could not base64-decode" end
  local parsed = json.decode(text)
  local offset = type(parsed) == "table" and math.tointeger(parsed.offset)
  if not offset or offset < 0 then core.invalid("Invalid page token, decoded value=%s", json.encode(text)) end
  return offset
end

--- rows: up to limit + 1 of them, from `offset` on. Returns at most limit, and the token of the next page.
function core.page(rows, offset, limit)
  if #rows <= limit then return json.array(rows), nil end
  while #rows > limit do rows[#rows] = nil end
  return json.array(rows), base64(json.encode { offset = offset + limit })
end

--- max_results of a search.
function core.limit(args, otherwise, cap)
  local n = args:int("max_results", otherwise)
  if n < 1 then
    core.invalid("Invalid value %d for parameter 'max_results' supplied. It must be a positive integer", n)
  end
  if n > cap then
    core.invalid("Invalid value for request parameter max_results. It must be at most %d, but got value %d", cap, n)
  end
  return n
end

return core
