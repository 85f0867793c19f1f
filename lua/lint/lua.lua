--- Lua files: syntax, and globals that a script does not have.
local fs = require "fs"
local globals = require "lint.globals"

---@param file string
---@return table[] findings
return function(file)
  local text = fs.read(file)
  local _, err = load(text, "@" .. file, "t")
  if err then
    local line, message = err:match ":(%d+): (.*)$"
    return { { file = file, line = tonumber(line) or 1, column = 1, level = "error", rule = "syntax", message = message or err } }
  end
  return globals(text, file)
end
