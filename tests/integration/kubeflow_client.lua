-- Uploads, experiments and runs of our Kubeflow client against the embedded service. The image does not exist, so the
-- run fails: what matters is what the client says then.
local fs = require "fs"
local kubeflow = require "kubeflow.client"

pipeline "kubeflow-client" { description = "our Kubeflow client" }

local PACKAGE = [[
components:
  comp-say:
    executorLabel: exec-say
    inputDefinitions:
      parameters:
        text:
          parameterType: STRING
deploymentSpec:
  executors:
    exec-say:
      container:
        command: [echo, "{{$.inputs.parameters['text']}}"]
        image: mlhost.local/there-is-no-such-image:1
pipelineInfo:
  name: say
root:
  dag:
    tasks:
      say:
        cachingOptions: {}
        componentRef:
          name: comp-say
        inputs:
          parameters:
            text:
              componentInputParameter: text
        taskInfo:
          name: say
  inputDefinitions:
    parameters:
      text:
        parameterType: STRING
        defaultValue: %s
schemaVersion: 2.1.0
sdkVersion: kfp-2.15.2
]]

local failed = 0

local function check(name, fn)
  local _, err = try(fn)
  if err then failed = failed + 1 end
  print((err and "not ok " or "ok ") .. name .. (err and ": " .. tostring(err) or ""))
end

local function same(have, want)
  if have ~= want then error(("%s, not %s"):format(tostring(have), tostring(want)), 2) end
end

local function refused(code, text, fn, ...)
  local value, err = try(fn, ...)
  if value ~= nil or not err then error("no error came", 2) end
  same(err.code, code)
  if not err.message:find(text, 1, true) then error(("message %q lacks %q"):format(err.message, text), 2) end
end

local function uploads(kfp, one, two)
  refused("not_found", "no pipeline 'say'", kfp.upload, kfp, one, { name = "say", mode = "version" })
  local first = kfp:upload(one, { name = "say", mode = "new", description = "says" })
  same(first.existing, nil)
  local again = kfp:upload(one, { name = "say", mode = "new" })
  same(again.existing, true)
  same(again.pipeline_version_id, first.pipeline_version_id)
  refused("exists", "with other content", kfp.upload, kfp, two, { name = "say", mode = "new" })
  local second = kfp:upload(two, { name = "say" })
  same(second.pipeline_id, first.pipeline_id)
  same(second.pipeline_version_id ~= first.pipeline_version_id, true)
  same(kfp:upload(two, { name = "say" }).existing, true)
  same(kfp:upload(one, { name = "say" }).pipeline_version_id, first.pipeline_version_id)
  same(#kfp:pipeline("say"):versions(), 2)
  same(kfp:pipeline "other", nil)
  same(kfp:pipelines()[1].name, "say")
  return first
end

local function runs(kfp, version)
  local experiment = kfp:experiment "digits"
  same(kfp:experiment("digits").id, experiment.id)
  same(#kfp:experiments { filter = { predicates = { { operation = "EQUALS", key = "display_name",
    string_value = "digits" } } } }, 1)
  local run = experiment:run { version = version, name = "r", params = { text = "hello" }, key = "job-1" }
  local same_run = experiment:run { version = version, name = "r", params = { text = "hello" }, key = "job-1" }
  same(same_run.id, run.id)
  same(same_run.existing, true)
  refused("invalid", "nonsense", experiment.run, experiment, { version = version, params = { nonsense = 1 } })
  refused("failed", "task 'say' failed", run.wait, run, { timeout = "60s" })
  same(run.state, "FAILED")
  same(#experiment:runs(), 1)
  same(kfp:run(run.id).name, "r")
  refused("not_found", "404", kfp.run, kfp, "00000000-0000-0000-0000-000000000000")
end

stage "client" {
  timeout = "2m",
  run = function(cx)
    fs.write(cx.out "one.yaml", PACKAGE:format "one")
    fs.write(cx.out "two.yaml", PACKAGE:format "two")
    local kfp, version = kubeflow.connect(), nil
    check("uploads", function() version = uploads(kfp, cx.out "one.yaml", cx.out "two.yaml") end)
    check("runs", function() runs(kfp, version) end)
    if failed > 0 then error(failed .. " checks failed") end
  end,
}
