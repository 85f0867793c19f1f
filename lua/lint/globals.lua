-- Unknown globals of a Lua text: a lexer, and a parser that follows scopes. Nothing is run.
--
--   globals(text, file, known) -> list of { file, line, column, level, rule = "unknown-global", message }
--
-- A name is a finding when it is read or called, is no local there, is not assigned as a global anywhere in the file,
-- and is not in `known` (default: what a script of mlhost has).
local _, vm = ...

local KNOWN = {}
for word in ([[
  _G _VERSION assert collectgarbage error getmetatable ipairs load next pairs pcall print rawequal rawget rawlen rawset
  require select setmetatable tonumber tostring type xpcall string table math utf8 coroutine os
  pipeline stage component model bad_request parallel try defer breakpoint log progress sleep set_variable report
]]):gmatch "%S+" do KNOWN[word] = true end

local KEYWORDS = {}
for word in ([[
  and break do else elseif end false for function goto if in local nil not or repeat return then true until while
]]):gmatch "%S+" do KEYWORDS[word] = true end

local find, sub, byte = string.find, string.sub, string.byte

--- Tokens: { kind = "name" | "keyword" | "string" | "number" | "op" | "end", text, line, column }.
local function lex(text)
  local tokens, at, line, line_start = {}, 1, 1, 1
  local function count_lines(from, to)
    local p = from
    while true do
      p = find(text, "\n", p, true)
      if not p or p > to then return end
      line, line_start, p = line + 1, p + 1, p + 1
    end
  end
  local function add(kind, from, to)
    tokens[#tokens + 1] = { kind = kind, text = sub(text, from, to), line = line, column = from - line_start + 1 }
    count_lines(from, to)
    at = to + 1
  end
  if sub(text, 1, 1) == "#" then at = (find(text, "\n", 1, true) or #text + 1) end
  while true do
    local _, blank = find(text, "^%s+", at)
    if blank then
      count_lines(at, blank)
      at = blank + 1
    end
    if at > #text then break end
    local long = find(text, "^%-%-%[=*%[", at)
    if long then
      local level = text:match("^%-%-%[(=*)%[", at)
      local _, stop = find(text, "]" .. level .. "]", at, true)
      stop = stop or #text
      count_lines(at, stop)
      at = stop + 1
    elseif find(text, "^%-%-", at) then
      at = find(text, "\n", at, true) or #text + 1
    else
      local _, stop = find(text, "^[%a_][%w_]*", at)
      local first = sub(text, at, at)
      if stop then
        add(KEYWORDS[sub(text, at, stop)] and "keyword" or "name", at, stop)
      elseif find(text, "^%[=*%[", at) then
        local level = text:match("^%[(=*)%[", at)
        _, stop = find(text, "]" .. level .. "]", at, true)
        add("string", at, stop or #text)
      elseif first == '"' or first == "'" then
        local p = at + 1
        while p <= #text do
          local c = byte(text, p)
          if c == 92 then
            p = p + 2
          elseif c == byte(first) or c == 10 then
            break
          else
            p = p + 1
          end
        end
        add("string", at, math.min(p, #text))
      elseif find(text, "^%.?%d", at) then
        _, stop = find(text, "^0[xX][%x%.]*[pP]?[%+%-]?%x*", at)
        if not stop then _, stop = find(text, "^%d*%.?%d*[eE]?[%+%-]?%d*", at) end
        -- A sign belongs to the number only after an exponent.
        local number = sub(text, at, stop)
        if find(number, "[%+%-]") and not find(number, "[eEpP][%+%-]") then stop = at + find(number, "[%+%-]") - 2 end
        add("number", at, stop)
      else
        _, stop = find(text, "^%.%.%.", at)
        for _, op in ipairs { "..", "==", "~=", "<=", ">=", "//", "<<", ">>", "::" } do
          if not stop and sub(text, at, at + 1) == op then stop = at + 1 end
        end
        add("op", at, stop or at)
      end
    end
  end
  tokens[#tokens + 1] = { kind = "end", text = "<eof>", line = line, column = 1 }
  return tokens
end

-- ---- the parser: statements and expressions, only as far as scopes need it ----

local P = {}
P.__index = P

function P:is(text)
  local token = self.tokens[self.at]
  return token.text == text and token.kind ~= "string" and token.kind ~= "end"
end

function P:take()
  local token = self.tokens[self.at]
  if token.kind ~= "end" then self.at = self.at + 1 end
  return token
end

function P:accept(text)
  if self:is(text) then return self:take() end
end

--- The text was compiled before, so a surprise here is our own; it ends the parse, and what was found so far counts.
function P:expect(text)
  return self:accept(text) or error(setmetatable({}, { surprise = true }))
end

function P:open() self.scope = { up = self.scope, names = {} } end
function P:close() self.scope = self.scope.up end
function P:declare(name) self.scope.names[name] = true end

function P:is_local(name)
  local scope = self.scope
  while scope do
    if scope.names[name] then return true end
    scope = scope.up
  end
  return false
end

function P:use(token)
  if not self:is_local(token.text) then self.uses[#self.uses + 1] = token end
end

function P:block(...)
  local stops = { ... }
  while true do
    local token = self.tokens[self.at]
    if token.kind == "end" then return end
    if token.kind == "keyword" then
      for _, stop in ipairs(stops) do
        if token.text == stop then return end
      end
    end
    if self:statement() then return end
  end
end

function P:scoped(...)
  self:open()
  self:block(...)
  self:close()
end

function P:parameters_and_body(method)
  self:open()
  if method then self:declare "self" end
  self:expect "("
  while not self:is ")" do
    local token = self:take()
    if token.kind == "name" then self:declare(token.text) end
    if token.kind == "end" then break end
  end
  self:expect ")"
  self:block "end"
  self:expect "end"
  self:close()
end

function P:expressions()
  repeat self:expression() until not self:accept ","
end

function P:table_constructor()
  self:expect "{"
  while not self:is "}" do
    if self.tokens[self.at].kind == "end" then return end
    if self:accept "[" then
      self:expression()
      self:expect "]"
      self:expect "="
      self:expression()
    elseif self.tokens[self.at].kind == "name" and self.tokens[self.at + 1].text == "="
      and self.tokens[self.at + 1].kind == "op" then
      self:take()
      self:take()
      self:expression()
    else
      self:expression()
    end
    if not self:accept "," then self:accept ";" end
  end
  self:expect "}"
end

--- A name, parentheses, and what hangs on them. Returns the token when it is a bare name.
function P:suffixed(no_use)
  local first
  if self:accept "(" then
    self:expression()
    self:expect ")"
  else
    first = self:take()
    if first.kind ~= "name" then error(setmetatable({}, { surprise = true })) end
  end
  local bare, used = first, no_use == nil
  if first and used then self:use(first) end
  while true do
    local token = self.tokens[self.at]
    if token.kind == "string" then
      self:take()
    elseif self:is "{" then
      self:table_constructor()
    elseif self:is "(" then
      self:take()
      if not self:is ")" then self:expressions() end
      self:expect ")"
    elseif self:is "." or self:is ":" then
      self:take()
      self:take()
    elseif self:is "[" then
      self:take()
      self:expression()
      self:expect "]"
    else
      return bare
    end
    -- More than the name itself: it was read.
    if bare and not used then
      self:use(bare)
      used = true
    end
    bare = nil
  end
end

local UNARY = { ["not"] = true, ["-"] = true, ["#"] = true, ["~"] = true }
local BINARY = {}
for op in ("+ - * / // % ^ & | ~ << >> .. == ~= < > <= >= and or"):gmatch "%S+" do BINARY[op] = true end

function P:operand()
  while UNARY[self.tokens[self.at].text] and self.tokens[self.at].kind ~= "string" do self:take() end
  local token = self.tokens[self.at]
  if token.kind == "number" or token.kind == "string" or self:is "nil" or self:is "true" or self:is "false" or self:is "..." then
    self:take()
  elseif self:is "{" then
    self:table_constructor()
  elseif self:accept "function" then
    self:parameters_and_body(false)
  else
    self:suffixed()
  end
end

function P:expression()
  self:operand()
  while BINARY[self.tokens[self.at].text] and self.tokens[self.at].kind ~= "string" do
    self:take()
    self:operand()
  end
end

function P:names()
  local list = {}
  repeat
    list[#list + 1] = self:take().text
    if self:accept "<" then -- an attribute
      self:take()
      self:expect ">"
    end
  until not self:accept ","
  return list
end

local S = {} -- statements by their keyword; true: the block is over

S["if"] = function(self)
  self:expression()
  self:expect "then"
  self:scoped("elseif", "else", "end")
  while self:accept "elseif" do
    self:expression()
    self:expect "then"
    self:scoped("elseif", "else", "end")
  end
  if self:accept "else" then self:scoped "end" end
  self:expect "end"
end

S["while"] = function(self)
  self:expression()
  self:expect "do"
  self:scoped "end"
  self:expect "end"
end

S["do"] = function(self)
  self:scoped "end"
  self:expect "end"
end

S["for"] = function(self)
  local names = self:names()
  if not self:accept "=" then self:expect "in" end
  self:expressions()
  self:expect "do"
  self:open()
  for _, name in ipairs(names) do self:declare(name) end
  self:block "end"
  self:close()
  self:expect "end"
end

S["repeat"] = function(self)
  self:open()
  self:block "until"
  self:expect "until"
  self:expression() -- sees the block's locals
  self:close()
end

S["function"] = function(self)
  local first, method, deeper = self:take(), false, false
  while self:is "." or self:is ":" do
    method = self:take().text == ":"
    deeper = true
    self:take()
  end
  if deeper then self:use(first) elseif not self:is_local(first.text) then self.assigned[first.text] = true end
  self:parameters_and_body(method)
end

S["local"] = function(self)
  if self:accept "function" then
    self:declare(self:take().text)
    self:parameters_and_body(false)
    return
  end
  local names = self:names()
  if self:accept "=" then self:expressions() end
  for _, name in ipairs(names) do self:declare(name) end
end

S["return"] = function(self)
  local token = self.tokens[self.at]
  if not (token.kind == "end" or self:is "end" or self:is "else" or self:is "elseif" or self:is "until" or self:is ";") then
    self:expressions()
  end
  self:accept ";"
  return true
end

S["goto"] = function(self) self:take() end
S["break"] = function() end

function P:statement()
  if self:accept ";" then return end
  if self:accept "::" then
    self:take()
    self:expect "::"
    return
  end
  local token = self.tokens[self.at]
  if token.kind == "keyword" and S[token.text] then
    self:take()
    return S[token.text](self)
  end
  -- An assignment or a call.
  local targets = { self:suffixed(true) }
  while self:accept "," do targets[#targets + 1] = self:suffixed(true) end
  if self:accept "=" then
    for _, target in pairs(targets) do
      if not self:is_local(target.text) then self.assigned[target.text] = true end
    end
    self:expressions()
  end
end

---@param text string
---@param file string its name in the findings
---@param known table? set of names that exist besides those of every script
---@return table[] findings
return function(text, file, known)
  local parser = setmetatable({ tokens = lex(text), at = 1, uses = {}, assigned = {} }, P)
  parser:open()
  local ok, err = pcall(parser.block, parser)
  if not ok and not (getmetatable(err) or {}).surprise then error(err, 0) end
  local findings, candidates = {}, {}
  for name in pairs(KNOWN) do candidates[#candidates + 1] = name end
  table.sort(candidates)
  for _, token in ipairs(parser.uses) do
    local name = token.text
    if name ~= "_ENV" and not KNOWN[name] and not parser.assigned[name] and not (known and known[name]) then
      local near = vm.near(name, candidates)
      findings[#findings + 1] = {
        file = file, line = token.line, column = token.column, level = "error", rule = "unknown-global",
        message = ("unknown global '%s'%s"):format(name, near and (" (did you mean '%s'?)"):format(near) or ""),
      }
    end
  end
  table.sort(findings, function(a, b)
    if a.line ~= b.line then return a.line < b.line end
    return a.column < b.column
  end)
  return findings
end
