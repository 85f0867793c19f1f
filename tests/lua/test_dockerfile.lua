-- lint.dockerfile on Dockerfiles that hold one habit each, and on ours, which hold none.
local fs = require "fs"
local lint = require "lint.dockerfile"
local rules = require "lint.dockerfile_rules"
local test = require "test"

local FOLDER = "tests/lua/dockerfiles/"

--- "line rule level" of each finding.
local function found(name)
  local out = {}
  for _, finding in ipairs(lint(FOLDER .. name)) do
    out[#out + 1] = ("%d %s %s"):format(finding.line, finding.rule, finding.level)
  end
  return table.concat(out, "\n")
end

test.case("a broken Dockerfile is reported whole, with places", function()
  test.eq(found "broken.Dockerfile", table.concat({
    "2 parse error", "4 parse error", "5 parse error",
  }, "\n"))
  local first = lint(FOLDER .. "broken.Dockerfile")[1]
  assert(first.message:find("did you mean COPY?", 1, true), first.message)
end)

test.case("habits", function()
  test.eq(found "habits.Dockerfile", table.concat({
    "1 untagged-base warning", "2 secret-in-image error", "3 relative-workdir warning", "4 add-copy warning",
    "5 apt-get-lists warning", "5 apt-get-recommends warning", "5 apt-get-yes error", "6 pip-cache warning",
    "7 pipe-to-shell warning", "7 pipefail warning", "8 sudo warning", "9 cd warning", "10 maintainer warning",
    "11 shell-form warning", "12 repeated warning", "12 shell-form warning", "13 root-user warning",
  }, "\n"))
end)

--- "line rule rule" of each "# expect: rule rule": they are found in the line after it, and nothing else is found anywhere.
local function expected(path, all)
  local out, number = {}, 0
  for line in fs.read(path):gmatch "([^\n]*)\n" do
    number = number + 1
    local names = {}
    for name in (line:match "^# expect: (.*)$" or ""):gmatch "%S+" do
      names[#names + 1] = name
      all[name] = true
    end
    table.sort(names)
    if names[1] then out[#out + 1] = ("%d %s"):format(number + 1, table.concat(names, " ")) end
  end
  return table.concat(out, "\n")
end

local function seen_rules(path)
  local out, last = {}, nil
  for _, finding in ipairs(lint(path)) do
    if finding.line == last then
      out[#out] = out[#out] .. " " .. finding.rule
    else
      out[#out + 1] = ("%d %s"):format(finding.line, finding.rule)
    end
    last = finding.line
  end
  return table.concat(out, "\n")
end

test.case("each rule where it belongs, and nowhere else", function()
  local all = { parse = true }
  for _, path in ipairs(fs.glob(FOLDER .. "rules/*.Dockerfile")) do
    local wanted = expected(path, all)
    test.eq(seen_rules(path), wanted, path)
  end
  for id in pairs(rules) do
    if not all[id] then error("no file in rules/ expects " .. id) end
  end
end)

test.case("check=error=true makes errors of Docker's own checks", function()
  local levels = {}
  for _, finding in ipairs(lint(FOLDER .. "rules/ignored.Dockerfile")) do levels[finding.rule] = finding.level end
  test.eq(levels, { ["relative-workdir"] = "error", sudo = "warning", ["apt-get-yes"] = "error", ["apt-get-lists"] = "warning",
    ["apt-get-recommends"] = "warning" })
end)

test.case("messages say what to write", function()
  local messages = {}
  for _, finding in ipairs(lint(FOLDER .. "rules/variables.Dockerfile")) do messages[finding.line] = finding.message end
  assert(messages[5]:find("needs an ARG GLOBAL in this stage", 1, true), messages[5])
  assert(messages[12]:find("did you mean PROJECT_HOME?", 1, true), messages[12])
end)

test.case("the documentation has every rule and no other", function()
  local text = fs.read "docs/dockerfile.md"
  local told = {}
  for id, level, check, hadolint in text:gmatch "\n| `([%w-]+)` | (%a+) | ([^|]*) | ([^|]*) |" do
    local rule = rules[id]
    if not rule then error("docs/dockerfile.md tells of " .. id) end
    test.eq(level, rule.level, id)
    test.eq(check:match "^%s*(.-)%s*$", rule.check or "", id)
    test.eq(hadolint:match "^%s*(.-)%s*$", table.concat(rule.hadolint, " "), id)
    told[id] = true
  end
  for id in pairs(rules) do
    if not told[id] then error("docs/dockerfile.md does not tell of " .. id) end
  end
end)

test.case("nothing to say", function()
  test.eq(found "good.Dockerfile", "")
  for _, path in ipairs(fs.glob "pipelines/components/*/Dockerfile") do
    test.eq(#lint(path), 0)
  end
end)
