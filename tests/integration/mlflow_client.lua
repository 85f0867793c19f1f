-- Every call of our MLflow client against a real server (MLFLOW_TRACKING_URI). Run by mlflow_server.sh; prints one line
-- a check.
local fs = require "fs"
local mlflow = require "mlflow"

pipeline "mlflow-client" { description = "our MLflow client against a real server" }

local failed = 0

local function check(name, fn)
  local _, err = try(fn)
  if err then
    failed = failed + 1
    print("not ok " .. name .. ": " .. tostring(err))
  else
    print("ok " .. name)
  end
end

local function same(have, want, what)
  if have ~= want then error(("%s: %s, not %s"):format(what or "value", tostring(have), tostring(want)), 2) end
end

local function refused(code, text, fn, ...)
  local value, err = try(fn, ...)
  if value ~= nil or not err then error("no error came", 2) end
  same(err.code, code, "code")
  if not err.message:find(text, 1, true) then error(("message %q lacks %q"):format(err.message, text), 2) end
end

local function experiments(ml)
  local first = ml:experiment "digits"
  same(ml:experiment("digits").id, first.id, "the same experiment again")
  first:set_tag("team", "a")
  same(ml:experiment("digits").tags.team, "a")
  local other = ml:experiment "doomed"
  other:rename "doomed-2"
  other:delete()
  same(ml:experiment("doomed-2").id, other.id, "restored")
  other:delete()
  local names = {}
  for _, experiment in ipairs(ml:experiments()) do names[experiment.name] = true end
  same(names.digits, true)
  same(names["doomed-2"], nil, "deleted experiments are not listed")
end

local function runs(ml)
  local experiment = ml:experiment "digits"
  local run = experiment:run { name = "first", tags = { external_run_id = "kfp-1" }, key = "job-7" }
  same(experiment:run({ name = "first", key = "job-7" }).id, run.id, "the same key gives the same run")
  run:log_params { epochs = 20, rate = 0.3, note = "it's fine" }
  run:log_params { epochs = 20 }
  refused("invalid", "epochs", run.log_params, run, { epochs = 21 })
  for step = 1, 3 do run:log_metric("loss", 1 / step, step) end
  run:log_metrics({ accuracy = 0.97, ["val/f1"] = 1 }, 3)
  run:log_metric("odd", 0 / 0, 1)
  run:set_tags { stage = "train" }
  run:delete_tag "stage"
  local data = run:get()
  same(data.params.epochs, "20")
  same(data.params.note, "it's fine")
  same(data.metrics.accuracy, 0.97)
  same(data.metrics.loss, 1 / 3)
  same(data.metrics.odd ~= data.metrics.odd, true, "NaN stays NaN")
  same(data.tags.external_run_id, "kfp-1")
  same(data.tags.stage, nil)
  local history = run:metric_history "loss"
  same(#history, 3)
  same(history[2].value, 0.5)
  same(history[2].step, 2)
  run:rename "renamed"
  run:finish()
  same(ml:run(run.id).status, "FINISHED")
  same(ml:run(run.id).name, "renamed")
  local gone = experiment:run { name = "gone" }
  gone:delete()
  same(ml:run(gone.id).data.lifecycle_stage, "deleted")
  gone:restore()
  gone:finish "KILLED"
  same(ml:run(gone.id).status, "KILLED")
end

local function batches(ml)
  local run = ml:experiment("batches"):run { name = "many" }
  local metrics, params, tags = {}, {}, {}
  for i = 1, 2500 do metrics[i] = { key = "m" .. i % 10, value = i, step = i } end
  for i = 1, 230 do params["p" .. i], tags["t" .. i] = i, "v" .. i end
  run:log_batch { metrics = metrics, params = params, tags = tags }
  local data = run:get()
  same(data.metrics.m9, 2499)
  same(data.params.p230, "230")
  same(data.tags.t1, "v1")
  same(#run:metric_history "m3", 250)
  refused("failed", "params take 6000", run.log_params, run, { long = ("x"):rep(6001) })
  run:log_inputs { { name = "digits", digest = "abc", source_type = "local", source = "{}", context = "train" } }
  same(#run:get().inputs.dataset_inputs, 1)
end

local function searches(ml)
  local experiment = ml:experiment "search"
  for i = 1, 25 do
    local run = experiment:run { name = "r" .. i, tags = { external_run_id = "id-" .. i } }
    run:log_metric("score", i, 0)
    run:finish()
  end
  local found = ml:search_runs { experiments = { "search" }, filter = "tags.external_run_id = 'id-7'" }
  same(#found, 1)
  same(found[1].data.metrics.score, 7)
  found = ml:search_runs {
    experiments = { experiment }, filter = "metrics.score > 20", order_by = { "metrics.score DESC" },
  }
  same(#found, 5)
  same(found[1].name, "r25")
  same(#ml:search_runs { experiments = { experiment.id }, limit = 10 }, 10)
  local count = 0
  for _ in ml:each_run { experiments = { "search", "digits" } } do count = count + 1 end
  same(count, 27)
  refused("invalid", "Invalid", ml.search_runs, ml, { experiments = { "search" }, filter = "nonsense" })
  refused("not_found", "no-such", ml.search_runs, ml, { experiments = { "no-such" } })
end

local function artifacts(ml, cx)
  local run = ml:experiment("digits"):run { name = "files" }
  local folder = cx.out "tree"
  fs.write(folder .. "/a.txt", "alpha")
  fs.write(folder .. "/deep er/b+ü.txt", "beta")
  fs.write(cx.out "large.bin", ("0123456789abcdef"):rep(1 << 18))
  same(run:log_artifact(cx.out "large.bin", "model").bytes, 1 << 22)
  run:log_artifact(cx.out "large.bin", "model", "other.bin")
  same(run:log_artifact(folder, "tree").files, 2)
  local listed = {}
  for _, file in ipairs(run:artifacts()) do listed[file.path] = file end
  same(listed.model and listed.model.is_dir, true)
  local model = run:artifacts "model"
  same(#model, 2)
  same(model[1].path, "model/large.bin")
  same(model[1].size, 1 << 22)
  same(run:download("model/large.bin", cx.out "back.bin").bytes, 1 << 22)
  same(fs.read(cx.out "back.bin") == fs.read(cx.out "large.bin"), true, "the same bytes")
  same(run:download("tree", cx.out "tree-back").files, 2)
  same(fs.read(cx.out "tree-back/deep er/b+ü.txt"), "beta")
  refused("not_found", "404", run.download, run, "model/nothing.bin", cx.out "nothing.bin")
  same(fs.exists(cx.out "nothing.bin"), false, "no file is left of a failed download")
  refused("usage", "..", run.log_artifact, run, cx.out "large.bin", "../up")
  run:finish()
end

local function registry(ml, cx)
  local run = ml:experiment("digits"):run { name = "to register" }
  fs.write(cx.out "model.json", "{}")
  run:log_artifact(cx.out "model.json", "model")
  run:finish()
  local model = ml:model "digits"
  same(model:alias "champion", nil, "no alias yet")
  local one = model:create_version {
    run = run, source = run.artifact_uri .. "/model", description = "first", tags = { external_run_id = "kfp-1" },
  }
  same(one.version, "1")
  same(one.status, "READY")
  same(one.tags.external_run_id, "kfp-1")
  local two = model:create_version { run_id = run.id, source = run.artifact_uri .. "/model" }
  same(model:find_version({ run_id = run.id }).version, "2")
  same(model:find_version { run_id = "0123456789abcdef0123456789abcdef" }, nil)
  model:set_alias("champion", one)
  same(model:alias("champion").version, "1")
  model:set_alias("champion", 2)
  same(model:alias("champion").version, "2")
  same(model:get().aliases.champion, "2")
  model:delete_alias "champion"
  same(model:alias "champion", nil)
  same(model:transition(1, "Staging").stage, "Staging")
  same(model:transition(2, "Staging", true).stage, "Staging")
  same(model:version(1).stage, "Archived")
  same(model:latest({ "Staging" })[1].version, "2")
  two:describe "second"
  two:set_tag("gate", "passed")
  same(model:version(2).description, "second")
  same(model:version(2).tags.gate, "passed")
  two:delete_tag "gate"
  same(model:version(2).tags.gate, nil)
  same(one:download_uri() ~= "", true)
  model:describe "handwritten digits"
  model:set_tag("team", "a")
  same(model:get().description, "handwritten digits")
  same(model:get().tags.team, "a")
  model:delete_tag "team"
  same(#model:versions(), 2)
  same(ml:models({ filter = "name = 'digits'" })[1].name, "digits")
  one:delete()
  same(#model:versions(), 1)
  refused("not_found", "digits", model.version, model, 1)
  local other = ml:model("it's a name"):ensure { description = "quoted" }
  same(#other:versions(), 0)
  other:rename "plain"
  other:delete()
  refused("not_found", "plain", other.get, other)
end

local function refusals(ml)
  refused("not_found", "RESOURCE_DOES_NOT_EXIST", ml.run, ml, "0123456789abcdef0123456789abcdef")
  refused("unavailable", "nothing answers", function()
    return mlflow.connect { endpoint = "http://127.0.0.1:1" }:experiment "x"
  end)
end

stage "client" {
  timeout = "5m",
  permissions = { net = { "127.0.0.1" } },
  run = function(cx)
    local ml = mlflow.connect()
    check("experiments", function() experiments(ml) end)
    check("runs", function() runs(ml) end)
    check("batches", function() batches(ml) end)
    check("searches", function() searches(ml) end)
    check("artifacts", function() artifacts(ml, cx) end)
    check("registry", function() registry(ml, cx) end)
    check("refusals", function() refusals(ml) end)
    if failed > 0 then error(failed .. " checks failed") end
  end,
}
