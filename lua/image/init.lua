-- `mlhost image VERB ...`: what people do with images and registries by hand. Each verb is a few lines over the module
-- `registry`, so that whatever it does a script can do too.
local options = require "image.options"
local json = require "json"

local M = {}

local verbs = require "image.verbs"
local by_name = {}
for _, verb in ipairs(verbs) do by_name[verb.name] = verb end

local function overview()
  local lines = {}
  for _, verb in ipairs(verbs) do lines[#lines + 1] = ("  %-10s %s"):format(verb.name, verb.summary) end
  return table.concat(lines, "\n") .. "\n"
end

--- One verb's help.
local function help(verb)
  local lines = { "usage: mlhost image " .. verb.usage, "", verb.summary .. "." }
  if verb.details then
    lines[#lines + 1] = ""
    lines[#lines + 1] = verb.details
  end
  lines[#lines + 1] = ""
  lines[#lines + 1] = "  --json                 the result for machines"
  lines[#lines + 1] = "  --profile NAME         the profile of mlhost.yaml to use"
  return table.concat(lines, "\n") .. "\n"
end

local function find(name)
  local verb = by_name[name]
  if verb then return verb end
  local names = {}
  for _, known in ipairs(verbs) do names[#names + 1] = known.name end
  error({ code = "usage", message = ("image: there is no '%s'"):format(name), hint = "the verbs are " .. table.concat(names, " ")
    .. "; mlhost image help tells about them" }, 0)
end

function M.image(start)
  local words = start.context.words
  local name = table.remove(words, 1)
  if not name or name == "help" and not words[1] then return { value = { text = overview(), overview = true } } end
  if name == "help" then return { value = { text = help(find(words[1])) } } end
  local verb = find(name)
  for _, word in ipairs(words) do
    if word == "--help" or word == "-h" then return { value = { text = help(verb) } } end
  end
  local rest, given = options.parse(verb, words)
  local value, text, status = verb.run(rest, given, verb)
  if given.json then text = json.encode(value) .. "\n" end
  return { value = { text = text, status = status } }
end

return M
