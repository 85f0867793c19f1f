-- Hostile text, one line of hexadecimal digits each in corpus.txt, through everything that tells somebody something.
local exec, fs, json = require "exec", require "fs", require "json"
local host = require "host"

local corpus = {}
for line in fs.read("corpus.txt"):gmatch "[^\n]+" do
  corpus[#corpus + 1] = line:gsub("%x%x", function(digits) return string.char(tonumber(digits, 16)) end)
end
local function printable(text) return utf8.len(text) and text or "-" end

pipeline "hostile" {
  description = corpus[1] .. "\n" .. corpus[2], params = { text = { default = corpus[1], description = corpus[3] } },
  permissions = { exec = { "python3", "sh" } },
}

local function way(name, run)
  stage(name) { timeout = "60s", allow_failure = true, description = corpus[1], run = function(cx)
    print("way " .. name)
    return run(cx)
  end }
end

way("prints", function() for _, text in ipairs(corpus) do print(text) print("a " .. text, text) end end)
way("logs", function()
  for _, text in ipairs(corpus) do
    for _, level in ipairs { "debug", "info", "warning", "error" } do log[level]("%s", text) end
  end
end)
way("writes", function()
  exec { "python3", "writes.py" }
end)
way("progresses", function() for _, text in ipairs(corpus) do progress(text, 1, nil, text) sleep(0.02) end end)
way("variables", function()
  for _, text in ipairs(corpus) do
    set_variable(printable(text), text)
    set_variable("v", text, { output = true })
  end
end)
way("issues", function()
  for _, text in ipairs(corpus) do
    host.event.issue { level = "error", message = text, file = text, line = 1, column = 2, rule = text, hint = text }
    host.event.issue { level = text, message = "m" }
  end
end)
way("effects", function() for _, text in ipairs(corpus) do host.event.effect { key = text, value = { [text] = text } } end end)
way("reports", function()
  for i, text in ipairs(corpus) do
    report.link(text, text)
    report.link(text, "https://example.com/" .. text)
    report.summary(text .. "\n" .. text, text .. i)
  end
  report.summary("```sh\n<script>in code</script>\n", "open")
  report.summary("a `<b>` b <script>alert(1)</script> ` <img src=x onerror=1>\n<!-- \n~~~\n<i>\n~~~\n<https://example.com>", "html")
end)
way("outputs", function() return corpus end)
for i, text in ipairs(corpus) do
  way("fails_" .. i, function() error(text .. "\nsecond " .. text) end)
end
way("values", function() error { code = corpus[1], message = corpus[2], hint = corpus[3], service = corpus[4] } end)
local numbered = {}
for i, text in ipairs(corpus) do numbered[i] = text .. i end
stage "cells" { matrix = { text = numbered }, allow_failure = true, run = function(cx) print("cell", cx.matrix.text) end }
way("merges", function(cx)
  for i, text in ipairs(corpus) do
    for k, form in ipairs { "<testsuite name=\"%s\"/>", "<testsuite>%s</testsuite>", "<testsuite><![CDATA[%s]]></testsuite>",
      "<testsuite><!--%s--></testsuite>", "<testsuite a='1' %s='2'/>" } do
      local path = cx.out(("r%d-%d.xml"):format(i, k))
      fs.write(path, (form:gsub("%%s", function() return text end)))
      report.junit(path)
    end
  end
  print(json.encode(#corpus))
end)
