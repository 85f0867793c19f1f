-- The clients of Azure DevOps, Azure ML and Databricks against azure_services.py (its address: DATABRICKS_HOST).
local azdo = require "azdo"
local azureml = require "azureml"
local databricks = require "databricks"
local env = require "env"
local fs = require "fs"
local http = require "http"

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
  task:start()
  task:log(("line\n"):rep(250))
  task:complete "succeeded"
  local record, seen = http.get(base .. "/record"):json(), {}
  for _, request in ipairs(record) do seen[request] = (seen[request] or 0) + 1 end
  local plan = "/proj/_apis/distributedtask/hubs/build/plans/plan-1/"
  same(seen["POST " .. plan .. "events"], 2)
  same(seen["POST " .. plan .. "timelines/line-1/records/job-1/feed"], 3)
  same(seen["POST " .. plan .. "logs/12"], 1)
  same(record[#record], "POST " .. plan .. "events") -- completion comes after the log
  local _, err = try(task.complete, task, "Suceeded")
  same(err.message:find("Suceeded", 1, true) ~= nil, true)
  local _, refused = try(function() azdo.task(info, { pat = "wrong" }):start() end)
  same(refused.code, "unauthorized")
  same(refused.message:find("TF400813", 1, true) ~= nil, true)
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
    check("azureml", function() model(base, cx) end)
    check("databricks", function() notebook(cx) end)
    if failed > 0 then error(failed .. " checks failed") end
  end,
}
