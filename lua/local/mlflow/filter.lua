--- MLflow's search language: `<entity>.<key> <op> <constant> AND ...`, and its `order_by`. Text in, SQL with bound
-- parameters out; nothing that a client sent becomes part of a statement.
local core = require "local.mlflow.core"
local json = require "json"

local filter = {}

local types = {
  metric = "metric", metrics = "metric", parameter = "parameter", parameters = "parameter", param = "parameter",
  params = "parameter", tag = "tag", tags = "tag", attribute = "attribute", attributes = "attribute",
  attr = "attribute", run = "attribute", dataset = "dataset", datasets = "dataset",
}

local symbols = { ["="] = true, ["!="] = true, [">"] = true, [">="] = true, ["<"] = true, ["<="] = true }

-- ---- words ----

local closers = { ["'"] = "'", ['"'] = '"', ["`"] = "`" }

-- A quoted run from `at` on: its text (a doubled quote is one) and where it ends.
local function quoted(text, at)
  local quote, out, i = text:sub(at, at), {}, at + 1
  while true do
    local stop = text:find(quote, i, true)
    if not stop then core.invalid("Invalid clause(s) in filter string: '%s' (a quote is not closed)", text:sub(at)) end
    out[#out + 1] = text:sub(i, stop - 1)
    if text:sub(stop + 1, stop + 1) ~= quote then return table.concat(out), stop + 1 end
    out[#out + 1] = quote
    i = stop + 2
  end
end

-- The next word: { kind = "string"|"number"|"operator"|"punctuation"|"name", text, quote, entity }.
local function next_word(text, at)
  at = text:find("%S", at)
  if not at then return nil, #text + 1 end
  local c = text:sub(at, at)
  if closers[c] then
    local value, after = quoted(text, at)
    return { kind = "string", text = value, quote = c, from = at }, after
  end
  if c == "(" or c == ")" or c == "," or c == ";" then return { kind = "punctuation", text = c, from = at }, at + 1 end
  local operator = text:match("^[<>!]=", at) or text:match("^[=<>]", at)
  if operator then return { kind = "operator", text = operator, from = at }, at + #operator end
  local number = text:match("^[%+%-]?%d+%.?%d*[eE][%+%-]?%d+", at) or text:match("^[%+%-]?%d+%.?%d*", at)
    or text:match("^[%+%-]?%.%d+", at)
  if number and not text:find("^[%w_]", at + #number) then
    return { kind = "number", text = number, from = at }, at + #number
  end
  local word = text:match("^[^%s=<>!'\"`(),;]+", at)
  if not word then core.invalid("Invalid clause(s) in filter string: '%s'", text:sub(at)) end
  local after = at + #word
  if word:sub(-1) == "." and closers[text:sub(after, after)] then
    local key
    key, after = quoted(text, after)
    return { kind = "name", entity = word:sub(1, -2), text = key, from = at }, after
  end
  return { kind = "name", text = word, from = at }, after
end

-- `entity.key`, or `key` alone for an attribute.
local function identifier(word, spec)
  local entity, key = word.entity, word.text
  if word.kind == "name" and not entity then
    entity, key = word.text:match "^([^%.]+)%.(.+)$"
    key = key or word.text
  end
  local kind = entity and types[entity:gsub("`", "")] or not entity and "attribute"
  if not kind or not spec.types[kind] then
    local known = {}
    for t in pairs(spec.types) do known[#known + 1] = "'" .. t .. "'" end
    table.sort(known)
    core.invalid("Invalid entity type '%s'. Valid values are [%s]", tostring(entity), table.concat(known, ", "))
  end
  if kind == "attribute" then
    key = spec.aliases and spec.aliases[key] or key
    if not spec.attributes[key] then
      local known = {}
      for k in pairs(spec.attributes) do known[#known + 1] = "'" .. k .. "'" end
      table.sort(known)
      core.invalid("Invalid attribute key '%s' specified. Valid keys are '{%s}'", key, table.concat(known, ", "))
    end
  elseif kind == "dataset" and key ~= "name" and key ~= "digest" and key ~= "context" then
    core.invalid("Invalid dataset key '%s' specified. Valid keys are '{'context', 'digest', 'name'}'", key)
  end
  return kind, key
end

local ill_formed = "While parsing a list in the query, expected a non-empty list of string values, but got "
  .. "ill-formed list."

local function list(text, at)
  local values = {}
  local word
  repeat
    word, at = next_word(text, at)
    if not word or word.kind ~= "string" then
      core.invalid(ill_formed)
    end
    values[#values + 1] = word.text
    word, at = next_word(text, at)
  until not word or word.text ~= ","
  if not word or word.text ~= ")" then
    core.invalid(ill_formed)
  end
  return values, at
end

local function operator(text, at)
  local word, after = next_word(text, at)
  if word and word.kind == "operator" and symbols[word.text] then return word.text, after end
  local name = word and word.kind == "name" and word.text:upper()
  if name == "LIKE" or name == "ILIKE" or name == "IN" then return name, after end
  if name == "NOT" or name == "IS" then
    local second, third
    second, after = next_word(text, after)
    local two = second and second.text:upper()
    if name == "NOT" and two == "IN" then return "NOT IN", after end
    if name == "IS" and two == "NULL" then return "IS NULL", after end
    third, after = next_word(text, after)
    if name == "IS" and two == "NOT" and third and third.text:upper() == "NULL" then return "IS NOT NULL", after end
  end
  core.invalid("Invalid comparison clause. Expected a comparison, found '%s' in filter string: %s", text:sub(at), text)
end

-- The constant after an operator, checked against what it is compared with.
local function constant(text, at, kind, key, op, spec)
  local word, after = next_word(text, at)
  if not word then core.invalid("Invalid comparison clause. Expected 3 tokens found 2 in filter string: %s", text) end
  local numeric = kind == "metric" or kind == "attribute" and spec.attributes[key].numeric
  if op == "IN" or op == "NOT IN" then
    local allowed = kind == "dataset" or kind == "attribute" and spec.attributes[key].list
    if word.text ~= "(" then
      core.invalid("Expected a list of quoted string values after %s. Got value %s", op, word.text)
    end
    if not allowed then
      core.invalid("The '%s' attribute does not support comparison with a list of quoted string values.", key)
    end
    return list(text, after)
  end
  if numeric then
    if op == "LIKE" or op == "ILIKE" then core.invalid("Invalid comparator for numeric attribute: %s", op) end
    if word.kind ~= "number" then
      core.invalid("Expected numeric value type for %s. Found %s", kind == "metric" and "metric"
        or "numeric attribute: " .. key, word.kind == "string" and "'" .. word.text .. "'" or word.text)
    end
    return tonumber(word.text), after
  end
  if word.kind ~= "string" or word.quote == "`" then
    core.invalid("Expected a quoted string value for %s (e.g. 'my-value'). Got value %s", kind, word.text)
  end
  if op ~= "=" and op ~= "!=" and op ~= "LIKE" and op ~= "ILIKE" then
    core.invalid("Invalid comparator for %s: %s", kind, op)
  end
  return word.text, after
end

--- spec: { types = { metric = true, ... }, attributes = { key = { column, numeric, list } }, aliases }.
-- Returns the clauses: { type, key, op, value }.
function filter.parse(text, spec)
  local clauses, at = {}, 1
  if not text or not text:find "%S" then return clauses end
  while true do
    local word
    word, at = next_word(text, at)
    if not word or word.kind ~= "name" and word.kind ~= "string" or word.quote == "'" then
      core.invalid("Invalid clause(s) in filter string: '%s'", word and text:sub(word.from) or text)
    end
    local clause = {}
    clause.type, clause.key = identifier(word, spec)
    clause.op, at = operator(text, at)
    if clause.op == "IS NULL" or clause.op == "IS NOT NULL" then
      if clause.type ~= "tag" and clause.type ~= "parameter" then
        core.invalid("IS NULL / IS NOT NULL is only supported for tags and params, not for '%s' '%s'", clause.type,
          clause.key)
      end
    else
      clause.value, at = constant(text, at, clause.type, clause.key, clause.op, spec)
    end
    clauses[#clauses + 1] = clause
    word, at = next_word(text, at)
    if not word then return clauses end
    if word.kind ~= "name" or word.text:upper() ~= "AND" then
      core.invalid("Invalid clause(s) in filter string: '%s'", text:sub(word.from))
    end
  end
end

--- `column op ?` and its parameter.
function filter.compare(column, op, value)
  if op == "ILIKE" then return "lower(" .. column .. ") LIKE lower(?)", value end
  if op == "IN" or op == "NOT IN" then
    return column .. " " .. op .. " (SELECT value FROM json_each(?))", json.encode(json.array(value))
  end
  return column .. " " .. op .. " ?", value
end

--- "metrics.acc DESC" -> { type, key, descending }
function filter.order(text, spec)
  local word, at = next_word(text, 1)
  if not word or word.kind ~= "name" and word.kind ~= "string" then
    core.invalid("Invalid order_by clause '%s'. Could not be parsed.", text)
  end
  local order = {}
  order.type, order.key = identifier(word, spec)
  word, at = next_word(text, at)
  if word then
    local way = word.kind == "name" and word.text:lower()
    if way ~= "asc" and way ~= "desc" then core.invalid("Invalid ordering key in order_by clause '%s'.", text) end
    order.descending = way == "desc"
    if next_word(text, at) then core.invalid("Invalid order_by clause '%s'. Could not be parsed.", text) end
  end
  return order
end

return filter
