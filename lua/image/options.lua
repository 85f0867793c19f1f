-- The words behind `mlhost image VERB`: options of a verb, and what is left.
local M = {}

local COMMON = { json = "flag", profile = "text" }

local function names_of(options)
  local names = {}
  for name in pairs(options) do if #name > 1 then names[#names + 1] = "--" .. name end end
  table.sort(names)
  return table.concat(names, " ")
end

local function usage(verb, format, ...)
  error({ code = "usage", message = ("image %s: "):format(verb.name) .. format:format(...),
    hint = "usage: mlhost image " .. verb.usage }, 0)
end
M.usage = usage

local function kind_of(verb, name)
  local kind = verb.options and verb.options[name] or COMMON[name]
  if not kind then
    local known = { json = true, profile = true }
    for key in pairs(verb.options or {}) do known[key] = true end
    usage(verb, "unknown option '%s'; the options are: %s", (#name > 1 and "--" or "-") .. name, names_of(known))
  end
  return kind
end

--- parse(verb, words) -> the words that are no options, and the options by name: "flag" true, "text" a text, "repeat" a list,
--- "map" NAME=VALUE pairs. A kind "=other" is a short name of another option.
function M.parse(verb, words)
  local rest, options, at = {}, {}, 1
  while at <= #words do
    local word = words[at]
    local dashes, name, equals, text = word:match "^(%-%-?)([%w%-]+)(=?)(.*)$"
    if word == "--" then
      table.move(words, at + 1, #words, #rest + 1, rest)
      break
    elseif not name or (dashes == "-" and #name > 1) then
      rest[#rest + 1] = word
    else
      local kind = kind_of(verb, name)
      if kind:sub(1, 1) == "=" then
        name = kind:sub(2)
        kind = kind_of(verb, name)
      end
      if kind == "flag" then
        if equals == "=" then usage(verb, "--%s takes no value", name) end
        options[name] = true
      else
        if equals == "" then
          at = at + 1
          text = words[at] or usage(verb, "--%s needs a value", name)
        end
        if kind == "repeat" then
          options[name] = options[name] or {}
          table.insert(options[name], text)
        elseif kind == "map" then
          local key, value = text:match "^([^=]+)=(.*)$"
          if not key then usage(verb, "--%s wants NAME=VALUE, not '%s'", name, text) end
          options[name] = options[name] or {}
          options[name][key] = value
        else
          options[name] = text
        end
      end
    end
    at = at + 1
  end
  local least, most = verb.least or 0, verb.most or verb.least or 0
  if #rest < least or #rest > most then
    usage(verb, "%s", #rest < least and "something is missing" or ("unexpected word '%s'"):format(rest[most + 1]))
  end
  return rest, options
end

return M
