-- Listing: page_size, page_token, sort_by and filter, the same way for every kind of object.
--
-- Pages go by key, not by offset: what is added or removed between two pages neither repeats nor hides a row.
-- The token carries order and filter; when they are sent again they must be the same.
local base64 = require "local.kubeflow.base64"
local errors = require "local.kubeflow.errors"
local json = require "local.json"

local list = {}

local operations = {
  EQUALS = "=", NOT_EQUALS = "<>", GREATER_THAN = ">", GREATER_THAN_EQUALS = ">=", GREATER_THAN_OR_EQUALS = ">=",
  LESS_THAN = "<", LESS_THAN_EQUALS = "<=", LESS_THAN_OR_EQUALS = "<=", IN = "IN", IS_SUBSTRING = "LIKE",
}
-- The SDK's enum sends numbers.
local numbered = { "EQUALS", "NOT_EQUALS", "GREATER_THAN", nil, "GREATER_THAN_EQUALS", "LESS_THAN",
  "LESS_THAN_EQUALS", "IN",
                   "IS_SUBSTRING" }
local value_keys = {
  int_value = "number", intValue = "number", long_value = "number", longValue = "number", string_value = "string",
  stringValue = "string", timestamp_value = "time", timestampValue = "time", int_values = "list", intValues = "list",
  long_values = "list", longValues = "list", string_values = "list", stringValues = "list",
}

--- RFC 3339 -> Unix milliseconds, or nil.
function list.parse_time(text)
  local y, mo, d, h, mi, s, rest = tostring(text):match("^(%d%d%d%d)-(%d%d)-(%d%d)[Tt ](%d%d):(%d%d):(%d%d)(.*)$")
  if not y then
    return nil
  end
  local fraction, zone = rest:match("^(%.?%d*)(.*)$")
  local sign, zh, zm = zone:match("^([+-])(%d%d):?(%d%d)$")
  if not sign and zone ~= "Z" and zone ~= "z" then
    return nil
  end
  y, mo, d = math.tointeger(tonumber(y)), math.tointeger(tonumber(mo)), math.tointeger(tonumber(d))
  -- Days since 1970 of the Gregorian calendar, years beginning in March.
  local year = mo <= 2 and y - 1 or y
  local day_of_year = (153 * (mo + (mo > 2 and -3 or 9)) + 2) // 5 + d - 1
  local days = year * 365 + year // 4 - year // 100 + year // 400 + day_of_year - 719468
  local seconds = days * 86400 + tonumber(h) * 3600 + tonumber(mi) * 60 + tonumber(s)
  if sign then
    seconds = seconds - (sign == "+" and 1 or -1) * (tonumber(zh) * 3600 + tonumber(zm) * 60)
  end
  local ms = fraction ~= "" and fraction ~= "." and math.floor(tonumber("0" .. fraction) * 1000 + 0.5) or 0
  return math.tointeger(seconds * 1000 + ms)
end

--- Unix milliseconds -> RFC 3339, or nil for 0 and nil.
function list.print_time(ms)
  if not ms or ms == 0 then
    return nil
  end
  ms = math.tointeger(ms) or math.floor(ms)
  return os.date("!%Y-%m-%dT%H:%M:%S", ms // 1000) .. (ms % 1000 > 0 and (".%03dZ"):format(ms % 1000) or "Z")
end

local function predicate_value(predicate)
  for key, kind in pairs(value_keys) do
    local value = predicate[key]
    if value ~= nil and value ~= json.null then
      if kind == "number" then
        value = math.tointeger(tonumber(value)) or errors.raise(3, "filter: %s must be an integer", key)
      elseif kind == "time" then
        value = list.parse_time(value) or errors.raise(3, "filter: timestamp_value must be an RFC 3339 time")
      elseif kind == "list" then
        value = type(value) == "table" and value.values or value
        if type(value) ~= "table" or #value == 0 then
          errors.raise(3, "filter: %s needs values", key)
        end
      elseif type(value) ~= "string" then
        errors.raise(3, "filter: %s must be a text", key)
      end
      return value, kind
    end
  end
  errors.raise(3, "filter: a predicate needs a value (string_value, int_value, timestamp_value, string_values ...)")
end

-- One predicate -> SQL with its arguments appended to `arguments`.
local function condition(predicate, fields, arguments)
  local operation = predicate.operation or predicate.op
  local name = numbered[math.tointeger(tonumber(operation) or 0) or 0] or operation
  local sql = operations[name]
  if not sql then
    errors.raise(3, "filter: unknown operation '%s'; known: EQUALS NOT_EQUALS GREATER_THAN GREATER_THAN_EQUALS "
                 .. "LESS_THAN LESS_THAN_EQUALS IN IS_SUBSTRING", tostring(operation))
  end
  local key = tostring(predicate.key or "")
  local value, kind = predicate_value(predicate)
  local column = fields[key:lower()]
  local tag = key:match("^tags%.(.+)$")
  if tag and fields["tags."] then
    -- json_extract wants its path as JSON: quoted, so that dots in a tag's name are part of the name.
    arguments[#arguments + 1] = '$.' .. json.encode(tag)
    column = "json_extract(tags, ?)"
  end
  if not column then
    errors.raise(3, "filter: unknown key '%s'", key)
  elseif (sql == "IN") ~= (kind == "list") then
    errors.raise(3, "filter: %s %s", name, sql == "IN" and "needs string_values or int_values" or "takes one value")
  elseif sql == "IN" then
    local marks = {}
    for i, item in ipairs(value) do
      marks[i] = "?"
      arguments[#arguments + 1] = type(item) == "number" and math.tointeger(item) or item
    end
    return ("%s IN (%s)"):format(column, table.concat(marks, ","))
  elseif sql == "LIKE" then
    if kind ~= "string" then
      errors.raise(3, "filter: IS_SUBSTRING needs a string_value")
    end
    arguments[#arguments + 1] = value
    return ("instr(lower(%s), lower(?)) > 0"):format(column)
  end
  arguments[#arguments + 1] = value
  return ("%s %s ?"):format(column, sql)
end

local function decode_filter(text)
  if not text or text == "" then
    return {}
  end
  local ok, filter = pcall(json.decode, text)
  if not ok or not json.is_object(filter) then
    errors.raise(3, 'filter must be JSON like {"predicates":[{"operation":"EQUALS","key":"name","string_value":"x"}]}')
  end
  return filter.predicates or {}
end

local function decode_token(text)
  local ok, state = pcall(function() return json.decode(base64.decode(text)) end)
  if not ok or type(state) ~= "table" or type(state.sort) ~= "string" or type(state.id) ~= "string"
    or state.key == nil then
    errors.raise(3, "the page token is not one of this service")
  end
  return state
end

local function page_size(text)
  if not text or text == "" then
    return 20
  end
  local size = math.tointeger(tonumber(text))
  if not size or size < 0 then
    errors.raise(3, "page_size must be an integer that is not negative, not '%s'", text)
  end
  return size == 0 and 20 or math.min(size, 200)
end

local function sort_of(text, fields)
  local name, direction = text:lower():match("^%s*(%S+)%s*(%S*)%s*$")
  if not name or not fields[name] or not (direction == "" or direction == "asc" or direction == "desc") then
    errors.raise(3, "sort_by '%s': expected a field, and asc or desc after it", text)
  end
  return fields[name], direction == "desc"
end

--- Lists rows. spec: db, from (table), fields (API name -> column; `["tags."]` when tags can be filtered by),
--- where (SQL conditions), arguments, query (the request's). Returns rows, next page token or nil, number of
--- all rows.
function list.rows(spec)
  local query = spec.query
  local size = page_size(query.page_size)
  local sort_by, filter = query.sort_by or "", query.filter or ""
  local after
  if query.page_token and query.page_token ~= "" then
    after = decode_token(query.page_token)
    if (sort_by ~= "" and sort_by ~= after.sort) or (filter ~= "" and filter ~= after.filter) then
      errors.raise(3, "page token does not match sort_by and filter: send those of the first page, or none")
    end
    sort_by, filter = after.sort, after.filter or ""
  end
  local column, descending = sort_of(sort_by ~= "" and sort_by or "created_at", spec.fields)
  local where, arguments = {}, {}
  for i, one in ipairs(spec.where or {}) do
    where[i] = one
  end
  table.move(spec.arguments or {}, 1, #(spec.arguments or {}), 1, arguments)
  for _, predicate in ipairs(decode_filter(filter)) do
    where[#where + 1] = condition(predicate, spec.fields, arguments)
  end
  local function clause()
    return #where > 0 and " WHERE " .. table.concat(where, " AND ") or ""
  end
  local total = spec.db:value(("SELECT count(*) FROM %s%s"):format(spec.from, clause()), table.unpack(arguments))
  local key = ("coalesce(%s, '')"):format(column)
  if after then
    where[#where + 1] = ("(%s, id) %s (?, ?)"):format(key, descending and "<" or ">")
    arguments[#arguments + 1] = math.type(after.key) == "float" and math.tointeger(after.key) or after.key
    arguments[#arguments + 1] = after.id
  end
  local direction = descending and "DESC" or "ASC"
  arguments[#arguments + 1] = size + 1
  local rows = spec.db:all(("SELECT *, %s AS sort_key FROM %s%s ORDER BY %s %s, id %s LIMIT ?"):format(
    key, spec.from, clause(), key, direction, direction), table.unpack(arguments))
  local token
  if #rows > size then
    rows[#rows] = nil
    local last = rows[#rows]
    token = base64.encode(json.encode({ sort = sort_by, filter = filter, key = last.sort_key, id = last.id }))
  end
  return rows, token, total
end

return list
