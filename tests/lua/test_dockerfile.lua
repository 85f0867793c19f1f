-- lint.dockerfile on Dockerfiles that hold one habit each, and on ours, which hold none.
local fs = require "fs"
local lint = require "lint.dockerfile"
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
    "5 apt-get-yes error", "5 apt-get-lists warning", "6 pip-cache warning", "7 pipe-to-shell warning",
    "8 sudo warning", "9 cd warning", "10 maintainer warning", "11 shell-form warning", "12 shell-form warning",
    "12 repeated warning", "13 root-user warning",
  }, "\n"))
end)

test.case("nothing to say", function()
  test.eq(found "good.Dockerfile", "")
  for _, path in ipairs(fs.glob "pipelines/components/*/Dockerfile") do
    test.eq(#lint(path), 0)
  end
end)
