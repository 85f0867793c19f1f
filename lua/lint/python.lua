--- Python files: ruff, or flake8, whichever is installed and granted; without one they are passed over with a word.
local exec = require "exec"
local json = require "json"

local function ruff(files)
  local argv = { "ruff", "check", "--output-format", "json", "--no-cache", "--" }
  table.move(files, 1, #files, #argv + 1, argv)
  local result = exec.run { argv = argv, check = false, timeout = "5m" }
  if result.status > 1 then error("ruff ended with status " .. result.status .. ": " .. result.err) end
  local findings = {}
  for _, item in ipairs(json.decode(result.out)) do
    findings[#findings + 1] = {
      file = item.filename, line = item.location.row, column = item.location.column,
      level = "error", rule = item.code ~= json.null and item.code or "syntax", message = item.message,
    }
  end
  return findings
end

local function flake8(files)
  local argv = { "flake8", "--format", "%(path)s\t%(row)d\t%(col)d\t%(code)s\t%(text)s", "--" }
  table.move(files, 1, #files, #argv + 1, argv)
  local result = exec.run { argv = argv, check = false, timeout = "5m" }
  if result.status > 1 then error("flake8 ended with status " .. result.status .. ": " .. result.err) end
  local findings = {}
  for file, line, column, code, text in result.out:gmatch "([^\t\n]+)\t(%d+)\t(%d+)\t(%S+)\t([^\n]*)" do
    findings[#findings + 1] = {
      file = file, line = tonumber(line), column = tonumber(column), level = "error", rule = code, message = text,
    }
  end
  return findings
end

---@param files string[]
---@return table[] findings
return function(files)
  if exec.find "ruff" then return ruff(files) end
  if exec.find "flake8" then return flake8(files) end
  log.warning("%d Python files were not looked at: neither ruff nor flake8 is installed", #files)
  return {}
end
