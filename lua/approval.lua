--- approval: a person's yes before something that matters.
---
---   approval.ask { name = "prod", question = "Deploy digits version 7 to PROD?" }
---
--- Asked at the terminal when there is one; `mlhost run --approve prod` (or --approve all) has answered before. Without
--- either the stage fails with code "denied", and the hint names the flag. Question and answer stand in the journal.
local _, vm = ...

local approval = {}

--- ask{ name, question, timeout? } -> { by = "--approve" | "the terminal" }
---   name      string    what --approve names
---   question  string    one line
---   timeout   duration  default: the stage's
function approval.ask(options)
  if type(options) ~= "table" or type(options.name) ~= "string" or type(options.question) ~= "string" then
    error('approval.ask needs { name = "prod", question = "..." }', 2)
  end
  return vm.call("approval.ask", { name = options.name, question = options.question, timeout = options.timeout })
end

return approval
