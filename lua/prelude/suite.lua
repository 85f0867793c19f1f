-- `mlhost test FILE`: runs one file of tests in a sandbox of its own.
local _, vm = ...
local test = require "test"

local M = {}

function M.test(start)
  local chunk, err = vm.load(start.script.text, "@" .. start.script.name)
  if not chunk then error(err, 0) end
  chunk()
  return { value = { cases = test.run_all(start.context.filter) } }
end

return M
