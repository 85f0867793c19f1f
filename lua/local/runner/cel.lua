-- Conditions of tasks (triggerPolicy.condition): the part of CEL that pipelines are compiled to, with CEL's meaning.
--
--   expr    = or ; or = and { "||" and } ; and = rel { "&&" rel } ; rel = sum [ op sum ]
--   op      = == != < <= > >= in
--   unary   = { "!" | "-" } primary
--   primary = literal | "(" expr ")" | int(expr) | double(expr) | string(expr) | size(expr)
--           | inputs.parameter_values["name"] | inputs.parameter_values.name
--   literal = 12  0x1f  1.5  1e3  'text'  "text"  r'raw'  true  false  null  [expr, ...]
--
-- Numbers compare across int and double, as in CEL; == of different kinds is false, an order of different kinds
-- is an error; && and || are decided by either side, whatever the other side's error.
local cel = {}

local function fail(source, at, format, ...)
  error({ cel = true, message = ("%s at column %d of the condition %s"):format(format:format(...), at, source) }, 0)
end

local escapes = { n = "\n", t = "\t", r = "\r", a = "\a", b = "\b", f = "\f", v = "\v",
                  ["\\"] = "\\", ["'"] = "'", ['"'] = '"', ["?"] = "?", ["`"] = "`" }

local function read_string(source, at, raw)
  local quote = source:sub(at, at)
  local pieces, i = {}, at + 1
  while true do
    local c = source:sub(i, i)
    if c == "" then
      fail(source, at, "a text that is not closed")
    elseif c == quote then
      return table.concat(pieces), i + 1
    elseif c == "\\" and not raw then
      local e = source:sub(i + 1, i + 1)
      local hex = source:match("^x(%x%x)", i + 1) or source:match("^u(%x%x%x%x)", i + 1)
                  or source:match("^U(%x%x%x%x%x%x%x%x)", i + 1)
      if hex then
        pieces[#pieces + 1], i = utf8.char(tonumber(hex, 16)), i + 2 + #hex
      elseif source:match("^[0-3][0-7][0-7]", i + 1) then
        pieces[#pieces + 1], i = utf8.char(tonumber(source:sub(i + 1, i + 3), 8)), i + 4
      elseif escapes[e] then
        pieces[#pieces + 1], i = escapes[e], i + 2
      else
        fail(source, i, "an unknown escape \\%s", e)
      end
    else
      pieces[#pieces + 1], i = c, i + 1
    end
  end
end

-- The tokens of a condition: { kind, value, at }.
local function tokens_of(source)
  local tokens, i = {}, 1
  local function add(kind, value, next_at)
    tokens[#tokens + 1] = { kind = kind, value = value, at = i }
    i = next_at
  end
  while i <= #source do
    local space = source:match("^%s+", i)
    local c = source:sub(i, i)
    if space then
      i = i + #space
    elseif source:match("^[rR]['\"]", i) then
      local text, after = read_string(source, i + 1, true)
      add("literal", text, after)
    elseif c == "'" or c == '"' then
      local text, after = read_string(source, i, false)
      add("literal", text, after)
    elseif c:match("%d") or source:match("^%.%d", i) then
      local hex = source:match("^0[xX]%x+", i)
      local word = hex or source:match("^%d*%.?%d*[eE][+-]?%d+", i) or source:match("^%d+%.%d+", i)
                   or source:match("^%.%d+", i) or source:match("^%d+", i)
      local number
      if hex or word:match("^%d+$") then
        number = math.tointeger(tonumber(word))
        if not number then
          fail(source, i, "the integer %s is out of range", word)
        end
      else
        number = tonumber(word) + 0.0
      end
      add("literal", number, i + #word)
    elseif c:match("[%a_]") then
      local word = source:match("^[%w_]+", i)
      if word == "true" or word == "false" then
        add("literal", word == "true", i + #word)
      elseif word == "null" then
        add("null", nil, i + #word)
      else
        add(word == "in" and "op" or "name", word, i + #word)
      end
    else
      local two = source:sub(i, i + 1)
      if two == "==" or two == "!=" or two == "<=" or two == ">=" or two == "&&" or two == "||" then
        add("op", two, i + 2)
      elseif c:match("[<>!%-%(%)%[%],%.]") then
        add("op", c, i + 1)
      else
        fail(source, i, "unexpected '%s'", c)
      end
    end
  end
  tokens[#tokens + 1] = { kind = "end", at = #source + 1 }
  return tokens
end

local functions = { int = true, double = true, string = true, size = true }

-- Text -> tree, or nil and a message with the column.
local function parse(source)
  local tokens, at = tokens_of(source), 1
  local depth = 0
  local expression

  local function peek(value)
    return tokens[at].kind == "op" and tokens[at].value == value
  end
  local function take(value)
    if peek(value) then
      at = at + 1
      return true
    end
  end
  local function expect(value)
    if not take(value) then
      local t = tokens[at]
      fail(source, t.at, "expected '%s'%s", value, t.kind == "end" and ", found the end" or "")
    end
  end

  local function primary()
    local t = tokens[at]
    if t.kind == "literal" then
      at = at + 1
      return { kind = "literal", value = t.value }
    elseif t.kind == "null" then
      at = at + 1
      return { kind = "literal" }
    elseif take("(") then
      local inner = expression()
      expect(")")
      return inner
    elseif take("[") then
      local items = {}
      if not take("]") then
        repeat
          items[#items + 1] = expression()
        until not take(",")
        expect("]")
      end
      return { kind = "list", items = items }
    elseif t.kind == "name" and functions[t.value] then
      at = at + 1
      expect("(")
      local argument = expression()
      expect(")")
      return { kind = "call", name = t.value, argument = argument, at = t.at }
    elseif t.kind == "name" and t.value == "inputs" then
      at = at + 1
      expect(".")
      if tokens[at].kind ~= "name" or tokens[at].value ~= "parameter_values" then
        fail(source, tokens[at].at, "only inputs.parameter_values is known here")
      end
      at = at + 1
      if take(".") then
        local name = tokens[at]
        if name.kind ~= "name" then
          fail(source, name.at, "expected a parameter's name")
        end
        at = at + 1
        return { kind = "parameter", name = name.value, at = t.at }
      end
      expect("[")
      local name = tokens[at]
      if name.kind ~= "literal" or type(name.value) ~= "string" then
        fail(source, name.at, "expected a parameter's name in quotes")
      end
      at = at + 1
      expect("]")
      return { kind = "parameter", name = name.value, at = t.at }
    elseif t.kind == "end" then
      fail(source, t.at, "the condition ends too early")
    end
    fail(source, t.at, "unexpected '%s'", tostring(t.value))
  end

  local function unary()
    local t = tokens[at]
    if take("!") then
      return { kind = "not", argument = unary(), at = t.at }
    elseif take("-") then
      return { kind = "minus", argument = unary(), at = t.at }
    end
    return primary()
  end

  local relations = { ["=="] = true, ["!="] = true, ["<"] = true, ["<="] = true, [">"] = true, [">="] = true,
                      ["in"] = true }
  local function relation()
    local left = unary()
    while tokens[at].kind == "op" and relations[tokens[at].value] do
      local op = tokens[at]
      at = at + 1
      left = { kind = "relation", op = op.value, left = left, right = unary(), at = op.at }
    end
    return left
  end
  local function chain(op, kind, operand)
    return function()
      local left = operand()
      while take(op) do
        left = { kind = kind, left = left, right = operand() }
      end
      return left
    end
  end
  local any = chain("||", "or", chain("&&", "and", relation))
  expression = function()
    depth = depth + 1
    if depth > 100 then
      fail(source, tokens[at].at, "nested more than 100 deep")
    end
    local tree = any()
    depth = depth - 1
    return tree
  end

  local tree = expression()
  if tokens[at].kind ~= "end" then
    fail(source, tokens[at].at, "unexpected '%s' after the end of an expression", tostring(tokens[at].value))
  end
  return tree
end

local function kind_of(value)
  local kind = math.type(value) or type(value)
  return kind == "integer" and "int" or kind == "float" and "double" or kind == "boolean" and "bool"
         or kind == "nil" and "null" or kind == "table" and "list or map" or kind
end

local function equal(a, b)
  if type(a) == "table" and type(b) == "table" then
    for key, value in pairs(a) do
      if not equal(value, b[key]) then
        return false
      end
    end
    for key in pairs(b) do
      if a[key] == nil then
        return false
      end
    end
    return true
  end
  return a == b -- Lua's == has no conversion between kinds, and is exact between integers and floats: as CEL
end

local evaluate

local function truth(node, env, op)
  local value = evaluate(node, env)
  if type(value) ~= "boolean" then
    fail(env.source, node.at or 1, "%s wants true or false, not a %s", op, kind_of(value))
  end
  return value
end

-- Either side may decide alone: an error of one side counts only when the other does not decide.
local function decide(node, env, deciding, op)
  local left_ok, left = pcall(truth, node.left, env, op)
  if left_ok and left == deciding then
    return deciding
  end
  local right_ok, right = pcall(truth, node.right, env, op)
  if right_ok and right == deciding then
    return deciding
  end
  if not left_ok then
    error(left, 0)
  elseif not right_ok then
    error(right, 0)
  end
  return not deciding
end

local conversions = {
  int = function(v)
    if math.type(v) == "integer" then
      return v
    elseif math.type(v) == "float" then
      local whole = v >= 0 and math.floor(v) or math.ceil(v)
      return math.tointeger(whole)
    elseif type(v) == "string" and v:match("^[+-]?%d+$") then
      return math.tointeger(tonumber(v))
    end
  end,
  double = function(v)
    if type(v) == "number" then
      return v + 0.0
    elseif type(v) == "string" and not v:match("^%s*[+-]?0[xX]") then
      local number = tonumber(v)
      return number and number + 0.0
    end
  end,
  string = function(v)
    if type(v) == "string" then
      return v
    elseif math.type(v) == "float" and v == math.floor(v) and math.abs(v) < 1e15 then
      return ("%d"):format(v)
    elseif type(v) == "number" or type(v) == "boolean" then
      return tostring(v)
    end
  end,
  size = function(v)
    return type(v) == "string" and utf8.len(v) or type(v) == "table" and #v or nil
  end,
}

local evaluators = {
  literal = function(node) return node.value end,
  list = function(node, env)
    local items = {}
    for i, item in ipairs(node.items) do
      items[i] = evaluate(item, env)
    end
    return items
  end,
  parameter = function(node, env)
    local value = env.parameters[node.name]
    if value == nil then
      fail(env.source, node.at, "no parameter '%s' is given", node.name)
    end
    return value
  end,
  call = function(node, env)
    local value = evaluate(node.argument, env)
    local result = conversions[node.name](value)
    if result == nil then
      fail(env.source, node.at, "%s(...) cannot convert the %s %s", node.name, kind_of(value), tostring(value))
    end
    return result
  end,
  ["not"] = function(node, env) return not truth(node.argument, env, "!") end,
  minus = function(node, env)
    local value = evaluate(node.argument, env)
    if type(value) ~= "number" then
      fail(env.source, node.at, "- wants a number, not a %s", kind_of(value))
    end
    return -value
  end,
  ["and"] = function(node, env) return decide(node, env, false, "&&") end,
  ["or"] = function(node, env) return decide(node, env, true, "||") end,
  relation = function(node, env)
    local a, b, op = evaluate(node.left, env), evaluate(node.right, env), node.op
    if op == "==" then
      return equal(a, b)
    elseif op == "!=" then
      return not equal(a, b)
    elseif op == "in" then
      if type(b) ~= "table" then
        fail(env.source, node.at, "in wants a list, not a %s", kind_of(b))
      end
      for _, item in pairs(b) do
        if equal(a, item) then
          return true
        end
      end
      return false
    end
    if type(a) ~= type(b) or (type(a) ~= "number" and type(a) ~= "string") then
      fail(env.source, node.at, "%s cannot order a %s and a %s", op, kind_of(a), kind_of(b))
    end
    if op == "<" then
      return a < b
    elseif op == "<=" then
      return a <= b
    elseif op == ">" then
      return a > b
    end
    return a >= b
  end,
}

evaluate = function(node, env)
  return evaluators[node.kind](node, env)
end

--- Is this a condition that can be evaluated? true, or nil and what is wrong with the column.
function cel.check(source)
  local ok, err = pcall(parse, source)
  if ok then
    return true
  elseif type(err) == "table" and err.cel then
    return nil, err.message
  end
  error(err, 0)
end

--- The truth of a condition with these parameter values (Lua values as JSON gives them); or nil and a message.
function cel.test(source, parameters)
  local ok, result = pcall(function()
    local tree = parse(source)
    return truth(tree, { source = source, parameters = parameters }, "a condition")
  end)
  if ok then
    return result
  elseif type(result) == "table" and result.cel then
    return nil, result.message
  end
  error(result, 0)
end

return cel
