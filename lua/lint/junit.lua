--- Findings as JUnit XML: a test case per file, a failure per error.
local fs = require "fs"

local ESCAPES = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;", ["\n"] = "&#10;" }
local function xml(text) return (tostring(text):gsub('[&<>"\n]', ESCAPES):gsub("[\0-\8\11\12\14-\31]", "?")) end

local junit = {}

---@param path string
---@param files string[] # all that were looked at
---@param findings table[]
function junit.write(path, files, findings)
  local by_file, errors = {}, 0
  for _, finding in ipairs(findings) do
    by_file[finding.file] = by_file[finding.file] or {}
    table.insert(by_file[finding.file], finding)
    if finding.level == "error" then errors = errors + 1 end
  end
  local out = {
    '<?xml version="1.0" encoding="UTF-8"?>',
    ('<testsuite name="lint" tests="%d" failures="%d">'):format(#files, errors),
  }
  for _, file in ipairs(files) do
    out[#out + 1] = ('  <testcase classname="lint" name="%s">'):format(xml(file))
    for _, finding in ipairs(by_file[file] or {}) do
      local element = finding.level == "error" and "failure" or "system-out"
      local text = ("%s:%d:%d: %s [%s]"):format(file, finding.line, finding.column or 1, finding.message, finding.rule)
      if element == "failure" then
        out[#out + 1] = ('    <failure message="%s" type="%s">%s</failure>')
          :format(xml(finding.message), xml(finding.rule), xml(text))
      else
        out[#out + 1] = ('    <system-out>%s</system-out>'):format(xml(text))
      end
    end
    out[#out + 1] = "  </testcase>"
  end
  out[#out + 1] = "</testsuite>\n"
  fs.write(path, table.concat(out, "\n"))
end

return junit
