-- What azdo_commands.sh reads with the agent's own library: all that makes a logging command, with the values of values.json.
local exec = require "exec"
local fs = require "fs"
local host = require "host"
local json = require "json"

pipeline "commands" {
  description = "every kind of logging command",
  permissions = { exec = { "cat", "sh" }, read = { "." } },
}

stage "values" {
  run = function(cx)
    local given = json.decode(fs.read "values.json")
    for _, v in ipairs(given.variables) do set_variable(v.name, v.value, { output = v.output, secret = v.secret }) end
    for _, issue in ipairs(given.issues) do host.event.issue(issue) end
    for i, text in ipairs(given.lines) do
      print(text)
      log.info("%s", text)
      log.warning("%s", text)
      progress(text, i, #given.lines)
    end
    -- what a command prints, on both of its streams
    exec { "cat", "lines.txt" }
    exec { "sh", "-c", "cat lines.txt >&2" }
    report.summary(table.concat(given.lines, "\n\n"), given.lines[1])
    report.link(given.lines[1], "https://example.org/?q=1;2]%3B")
    fs.write(cx.out "unit.xml", ('<testsuite name="unit"><testcase classname="c" name="%s"/></testsuite>'):format("a ##vso[b]"))
    report.junit(cx.out "unit.xml", "unit ##vso[task.complete result=Failed;]")
    for _, v in ipairs(given.variables) do
      if v.secret then print("the secret is " .. v.value) end
    end
  end,
}

-- beside the first, so that one waits for the other's group
stage "beside" {
  run = function()
    for i = 1, 3 do print("beside", i) end
  end,
}

stage "bad" {
  needs = { "values" },
  run = function()
    local given = json.decode(fs.read "values.json")
    if given.failure ~= "" then error(given.failure, 0) end
  end,
}
