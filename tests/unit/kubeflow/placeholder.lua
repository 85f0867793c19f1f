local json = require "json"
local placeholder = require "local.runner.placeholder"

local warnings
local context = {
  parameters = { text = "a b", whole = 3.0, half = 0.5, flag = true, list = json.array({ 1, 2 }), struct = { k = "v" },
                 tricky = "{{$.inputs.parameters['text']}}" },
  artifacts = { model = { { name = "model", type = { schemaTitle = "system.Model" }, uri = "minio://b/x/model",
                            path = "/minio/b/x/model", metadata = { score = 0.75, framework = "lua" } } },
                many = { { name = "a", uri = "u1" }, { name = "b", uri = "u2" } } },
  output_files = { acc = "/tmp/kfp/outputs/acc" }, output_file = "/tmp/kfp_outputs/output_metadata.json",
  output_artifacts = { out = { { name = "out", uri = "minio://b/x/out", path = "/minio/b/x/out", metadata = {} } } },
  job = { pipeline_job_uuid = "run-1", pipeline_task_name = "train", pipeline_root = "minio://b" },
  executor_input = function() return '{"inputs":{}}' end,
  warn = function(text) warnings[#warnings + 1] = text end,
}

local texts = {
  { "plain", "plain" }, { "{{$.inputs.parameters['text']}}", "a b" }, { "x={{$.inputs.parameters['whole']}}.", "x=3." },
  { "{{$.inputs.parameters['half']}}", "0.5" }, { "{{$.inputs.parameters['flag']}}", "true" },
  { "{{$.inputs.parameters['list']}}", "[1,2]" }, { "{{$.inputs.parameters['struct']}}", '{"k":"v"}' },
  { "{{$.inputs.artifacts['model'].uri}}", "minio://b/x/model" },
  { "{{$.inputs.artifacts['model'].path}}/m", "/minio/b/x/model/m" },
  { "{{$.inputs.artifacts['model'].metadata['score']}}", "0.75" },
  { "{{$.inputs.artifacts['model'].metadata}}", '{"framework":"lua","score":0.75}' },
  { "{{$.outputs.parameters['acc'].output_file}}", "/tmp/kfp/outputs/acc" },
  { "{{$.outputs.artifacts['out'].path}}", "/minio/b/x/out" }, { "{{$.outputs.artifacts['out'].uri}}",
    "minio://b/x/out" },
  { "{{$.outputs.output_file}}", "/tmp/kfp_outputs/output_metadata.json" },
  { "{{$.pipeline_job_uuid}}/{{$.pipeline_task_name}}", "run-1/train" }, { "{{$}}", '{"inputs":{}}' },
  { "{{$.json_escape[1]}}", [[{\"inputs\":{}}]] },
  { "{{$.inputs.parameters['tricky']}}", "{{$.inputs.parameters['text']}}" },
    -- what a value holds is not looked at again
}

local words = {
  { { '{"Concat": ["prefix-", "{{$.inputs.parameters[\'text\']}}", "-", "{{$.outputs.artifacts[\'out\'].uri}}"]}' },
    { "prefix-a b-minio://b/x/out" } },
  { { "a", '{"IfPresent": {"InputName": "text", "Then": ["--text", "{{$.inputs.parameters[\'text\']}}"], '
      .. '"Else": "none"}}' },
    { "a", "--text", "a b" } },
  { { '{"IfPresent": {"InputName": "absent", "Then": ["--x"], "Else": ["--no", "x"]}}' }, { "--no", "x" } },
  { { '{"IfPresent": {"InputName": "absent", "Then": ["--x"]}}', "z" }, { "z" } },
  { { '{"IfPresent": {"InputName": "model", "Then": "yes"}}' }, { "yes" } },
  { { '{"Concat": ["a", {"IfPresent": {"InputName": "absent", "Then": "x", "Else": "y"}}, '
      .. '"{\\"Concat\\": [\\"b\\", \\"c\\"]}"]}' },
    { "aybc" } },
  { { '{"not": "ours"}', "{" }, { '{"not": "ours"}', "{" } },
}

local tests = {}
for _, case in ipairs(texts) do
  tests[#tests + 1] = { case[1], function()
    warnings = {}
    local got = placeholder.expand(case[1], context)
    assert(got == case[2], ("gave %s"):format(got))
    assert(#warnings == 0, warnings[1])
  end }
end
for _, case in ipairs(words) do
  tests[#tests + 1] = { case[1][1], function()
    warnings = {}
    local got = placeholder.words(case[1], context)
    assert(table.concat(got, "\1") == table.concat(case[2], "\1"), "gave " .. table.concat(got, " | "))
  end }
end
tests[#tests + 1] = { "unknown placeholders stay, with a warning", function()
  warnings = {}
  assert(placeholder.expand("{{$.nothing}}", context) == "{{$.nothing}}")
  assert(warnings[1]:find("nothing is known", 1, true))
  assert(placeholder.expand("[{{$.inputs.parameters['absent']}}]", context) == "[]")
  assert(#warnings == 2)
end }
tests[#tests + 1] = { "a list of artifacts", function()
  local list = assert(json.decode(placeholder.expand("{{$.inputs.artifacts['many']}}", context)))
  assert(#list.artifacts == 2 and list.artifacts[2].uri == "u2")
end }
tests[#tests + 1] = { "trees keep the kind of a whole placeholder", function()
  local kept = placeholder.tree({ a = "{{$.inputs.parameters['whole']}}", b = "n={{$.inputs.parameters['whole']}}" },
                                setmetatable({ keep_kind = true }, { __index = context }))
  assert(kept.a == 3.0 and math.type(kept.a) == "float" and kept.b == "n=3")
end }
return tests
