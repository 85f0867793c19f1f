-- `mlhost check`: syntax, unknown globals, and what is wrong with declarations, all at once, with file and line.
local _, vm = ...
local globals = require "lint.globals"
local pipeline = vm.require "prelude.pipeline"

local M = {}

local function finding(err, rule, script)
  return {
    level = "error", rule = rule, message = err.message, hint = err.hint, file = err.file or script, line = err.line or 1,
    column = 1,
  }
end

function M.check(start)
  local name = start.script.name
  local chunk, err = vm.load(start.script.text, "@" .. name)
  if not chunk then
    local list = vm.array { finding(err, "syntax", name) }
    return { value = { findings = list, issues = list } }
  end
  local findings = vm.array(globals(start.script.text, name))
  if start.script.text:find("component", 1, true) then require("component").install() end
  if start.script.text:find "%f[%w]model%s*[\"'(]" then require("model").install() end
  local found, plan, failure = pipeline.inspect(start)
  for _, item in ipairs(found) do findings[#findings + 1] = item end
  if failure then
    -- An unknown global that was found already is the likely cause; then its own message is enough.
    local same = false
    for _, item in ipairs(findings) do
      if item.line == failure.line and item.file == failure.file then same = true end
    end
    if not same then findings[#findings + 1] = finding(failure, failure.code == "denied" and "permission" or "load", name) end
  end
  return { value = { findings = findings, issues = findings, plan = plan } }
end

return M
