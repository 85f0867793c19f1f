-- The clients of Azure DevOps, Azure ML and Databricks against azure_services.py (its address: DATABRICKS_HOST).
local azdo = require "azdo"
local azureml = require "azureml"
local databricks = require "databricks"
local env = require "env"
local fs = require "fs"
local host = require "host"
local http = require "http"
local kubeflow = require "kubeflow"
local secret = require "secret"

pipeline "azure-services" { description = "our clients against the services' contracts" }

local failed = 0

local function check(name, fn)
  local _, err = try(fn)
  if err then failed = failed + 1 end
  print((err and "not ok " or "ok ") .. name .. (err and ": " .. tostring(err) or ""))
end

local function same(have, want)
  if have ~= want then error(("%s, not %s"):format(tostring(have), tostring(want)), 2) end
end

local function callback(base)
  local info = {
    PlanUri = base .. "/", ProjectId = "proj", HubName = "build", PlanId = "plan-1", JobId = "job-1",
    TaskInstanceId = "task-1", TimelineId = "line-1",
  }
  local task = azdo.task(info)
  task:assign()
  task:start()
  task:set_variable("KF_RUN_ID", "r-1")
  task:log(("line\n"):rep(250))
  task:complete "succeeded"
  local record, seen = http.get(base .. "/record"):json(), {}
  for _, request in ipairs(record) do seen[request] = (seen[request] or 0) + 1 end
  local plan = "/proj/_apis/distributedtask/hubs/build/plans/plan-1/"
  same(seen["POST " .. plan .. "events"], 3)
  same(seen["POST " .. plan .. "timelines/line-1/records/job-1/feed"], 3)
  same(seen["POST " .. plan .. "logs/12"], 1)
  same(record[#record], "POST " .. plan .. "events") -- completion comes after the log
  local _, err = try(task.complete, task, "Suceeded")
  same(err.message:find("Suceeded", 1, true) ~= nil, true)
  local _, refused = try(function() azdo.task(info, { pat = "wrong" }):start() end)
  same(refused.code, "unauthorized")
  same(refused.message:find("TF400813", 1, true) ~= nil, true)
end

local function insists(base)
  local again = { { 500, {} }, { 500, {} }, { 500, {} }, { 429, { ["Retry-After"] = "1" } } }
  http.post(base .. "/faults", { json = again })
  local task = azdo.task { PlanUri = base, ProjectId = "proj", HubName = "build", PlanId = "plan-1", JobId = "job-1",
    TaskInstanceId = "task-1" }
  local before = #http.get(base .. "/record"):json()
  task:complete "failed"
  same(#http.get(base .. "/record"):json() - before, 5)
  local _, err = try(function()
    azdo.task({ PlanUri = base .. "/signin/302", ProjectId = "proj", HubName = "build", PlanId = "plan-1", JobId = "job-1",
      TaskInstanceId = "task-1" }):start()
  end)
  same(err.code, "unauthorized")
  _, err = try(function()
    azdo.task({ PlanUri = base, ProjectId = "proj", HubName = "build", PlanId = "gone", JobId = "j", TaskInstanceId = "t" }):start()
  end)
  same(err.code, "not_found")
end

local function builds(base, cx)
  local client = azdo.connect { endpoint = base, project = "proj", pat = secret.get "AZDO_PAT" }
  same(client:run_pipeline(12, { preview = true, yaml = "steps: []" }).final_yaml, "stages: []")
  local run = client:run_pipeline(12, { branch = "refs/heads/main", variables = { A = 1 }, skip = { "prod" } })
  same(run:wait({ timeout = "1m", every = 0.1 }).result, "succeeded")
  same(run.url, base .. "/web/34")
  local _, err = try(function() client:run_pipeline(12, { parameters = { ends = "failed" } }):wait { every = 0.1 } end)
  same(err.message, "run 34 ended as failed\nTrain: no data")
  run = client:run_pipeline(12, { parameters = { ends = "never" } })
  _, err = try(run.wait, run, { timeout = 0.3, every = 0.1 })
  same(err.code, "timeout")
  run:cancel()
  _, err = try(run.wait, run, { every = 0.1 })
  same(err.code, "cancelled")
  same(client:artifacts(34)[1].name, "model")
  same(client:download_artifact(34, "model", cx.out "model.zip") > 0, true)
  same(fs.read(cx.out "model.zip"), '{"zip": true}')
  same(client:approvals()[1].id, "a-1")
  same(client:approve("a-1", "looks good").status, "approved")
  _, err = try(host.azdo.download, { client = client.client, url = "https://example.org/x", to = cx.out "x" })
  same(err.code, "denied")
end

local function pulls(base)
  local pull = azdo.connect({ endpoint = base, project = "proj", pat = secret.get "AZDO_PAT" })
    :pull_request { id = 7, repository = "repo" }
  same(pull:status { name = "model", state = "pending" }, true)
  same(pull:status { name = "model", state = "pending" }, false)
  same(pull:status { name = "model", state = "succeeded", description = "0.97" }, true)
  same(pull:comment { key = "quality", text = "fine", good = true }, nil)
  same(pull:comment { key = "quality", text = "2 findings", file = "/a.lua", line = 3 }, "created")
  same(pull:comment { key = "quality", text = "2 findings" }, "unchanged")
  same(pull:comment { key = "quality", text = "1 finding" }, "updated")
  same(pull:comment { key = "quality", text = "none", good = true }, "updated")
  same(pull:comment { key = "quality", text = "none", good = true }, "unchanged")
end

local function results(base, cx)
  fs.write(cx.out "j.xml", [==[<?xml version="1.0"?><testsuite name="a"><!-- <testcase name="no"/> -->
    <testcase classname="c" name="a &gt; b" time="0.0125"/><testcase name="bad">
    <failure message="1 > 2">x &amp; <![CDATA[<y>]]></failure>
    </testcase><testcase name="off"><skipped/></testcase></testsuite>]==])
  local client = azdo.connect { endpoint = base, project = "proj", pat = secret.get "AZDO_PAT" }
  local run = client:publish_tests { path = cx.out "j.xml", name = "unit", build = 34 }
  same(run.total, 3)
  same(run.failed, 1)
  local cases = require("azdo.tests").parse(fs.read(cx.out "j.xml"))
  same(cases[1].automatedTestName, "c.a > b")
  same(cases[1].durationInMs, 13)
  same(cases[2].errorMessage, "1 > 2")
  same(cases[2].stackTrace, "x & <y>")
  same(cases[3].outcome, "NotExecuted")
end

local function federated(base, cx)
  fs.write(cx.out "jwt", "jwt-file\n")
  local client = azdo.connect {
    endpoint = base, project = "proj",
    auth = { type = "workload_identity", tenant = "t1", client_id = "c", token_file = cx.out "jwt", authority = base,
      scope = "azdo/.default" },
  }
  same(#client:approvals(), 1)
  local _, err = try(azdo.connect, { endpoint = base,
    auth = { type = "workload_identity", tenant = "t1", client_id = "c", scope = "s", service_connection = "conn-1" } })
  same(err.code, "denied")
  -- the profile's, by the agent's service connection: a new assertion for each of the two tokens
  fs.write(cx.out "model.json", "{}")
  local workspace = azureml.connect { subscription = "sub", resource_group = "rg", workspace = "ws" }
  same(workspace:register_model({ name = "digits", path = cx.out "model.json" }).version, "1")
end

-- A variable that the pipeline maps and nobody defines is not sent as a token.
local function unmapped()
  local _, err = try(kubeflow.connect)
  same(err.code, "not_found")
  same(err.message:find("KF_TOKEN, which mlhost.yaml names, is $(KF_TOKEN)", 1, true) ~= nil, true)
end

local function all_contracts(base)
  same(table.concat(http.get(base .. "/contracts"):json(), ", "), "")
end

local function model(base, cx)
  fs.write(cx.out "model.json", "{}")
  local workspace = azureml.connect {
    subscription = "sub", resource_group = "rg", workspace = "ws", endpoint = base,
    auth = {
      type = "azure_ad", tenant = "t1", client_id = "c", client_secret = "s3cret", authority = base,
      scope = "https://management.azure.com/.default",
    },
  }
  local version = workspace:register_model { name = "digits", path = cx.out "model.json", tags = { run = "1" } }
  same(version.version, "1")
  same(version.id:match "[^/]+/versions/1$", "digits/versions/1")
  same(version.data.tags.run, "1")
end

local function notebook(cx)
  fs.write(cx.out "n.py", "print(1)\n")
  local workspace = databricks.connect()
  workspace:import { path = "/Shared/team/n", file = cx.out "n.py", language = "PYTHON" }
  local run = workspace:submit { notebook = "/Shared/team/n", idempotency_token = "k", parameters = { a = 1 } }
  same(run.url, "https://db.example/run/77")
  same(run:wait { timeout = "1m", every = 0.2 }, "42")
  local bad = workspace:submit { notebook = "/Shared/team/bad", idempotency_token = "k" }
  local _, err = try(bad.wait, bad, { every = 0.2 })
  same(err.message, "run 77 ended as FAILED: NameError: x")
end

stage "clients" {
  timeout = "2m",
  permissions = { net = { "127.0.0.1", "*.localhost" }, env = { "AZDO_PAT", "DATABRICKS_HOST" } },
  run = function(cx)
    local base = env.DATABRICKS_HOST
    check("azdo", function() callback(base) end)
    check("insists", function() insists(base) end)
    check("builds", function() builds(base, cx) end)
    check("pulls", function() pulls(base) end)
    check("results", function() results(base, cx) end)
    check("federated", function() federated(base, cx) end)
    check("unmapped", unmapped)
    check("contracts", function() all_contracts(base) end)
    check("azureml", function() model(base, cx) end)
    check("databricks", function() notebook(cx) end)
    if failed > 0 then error(failed .. " checks failed") end
  end,
}
