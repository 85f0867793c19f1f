--- YAML files: that they parse, have no duplicate keys, and no tabs or trailing blanks.
local fs = require "fs"
local yaml = require "yaml"

---@param file string
---@return table[] findings
return function(file)
  local findings, text = {}, fs.read(file)
  local function add(level, rule, line, column, message)
    findings[#findings + 1] = { file = file, line = line, column = column, level = level, rule = rule, message = message }
  end
  local _, err = try(yaml.decode_all, text, file)
  if err then
    local message = type(err) == "table" and err.message or tostring(err)
    local line, column, what = message:match ":(%d+):(%d+): (.*)"
    add("error", "syntax", tonumber(line) or 1, tonumber(column) or 1, what or message)
  end
  local number = 0
  for line in (text .. "\n"):gmatch "([^\n]*)\n" do
    number = number + 1
    local blanks = line:find "[ \t]+$"
    if blanks and line:find "%S" then add("warning", "trailing-spaces", number, blanks, "spaces at the end of the line") end
    local tab = line:match "^ *()\t"
    if tab then add("error", "tabs", number, tab, "a tab in the indentation") end
  end
  return findings
end
