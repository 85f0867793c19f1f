-- A run whose step fails, with the callback as its exit handler: see azdo_callback.py.
local env = require "env"
local fs = require "fs"
local kubeflow = require "kubeflow"
local registry = require "registry"

pipeline "callback" {
  description = "the callback component in the embedded Kubeflow Pipelines",
  permissions = { env = { "CALLBACK_INFO" } },
}

local STEP = [[
component "step" {
  inputs = { good = "bool" },
  run = function(cx)
    if not cx.inputs.good then error("the table has no rows", 0) end
  end,
}
]]

local function the_run(images)
  local step = kubeflow.component {
    name = "check rows", image = images.step,
    command = { "mlhost", "component", "/app/main.lua" }, args = { "--good", kubeflow.input "good" },
    inputs = { good = "bool" },
  }
  local callback = kubeflow.load_component "components/azdocallback/component.yaml"
  local notify = kubeflow.pipeline "notify" {
    params = { info = "string", status = kubeflow.final_status },
    build = function(p, params)
      callback { info = params.info, status = params.status, run_id = p.run.id }
        :secret_env("azdopat", { azdopat = "AZDO_PAT" }):cache(false)
    end,
  }
  return kubeflow.pipeline "callback" {
    params = { info = "string", good = "bool" },
    build = function(_, params)
      kubeflow.exit_handler(notify { info = params.info, status = kubeflow.final_status }:cache(false), function()
        local first = step { good = true }:display_name "look":cache(false)
        step { good = params.good }:display_name("check the rows"):after(first):cache(false)
      end, { name = "all steps" })
    end,
  }
end

stage "run" {
  timeout = "5m",
  run = function(cx)
    fs.mkdir(cx.out "step")
    fs.write(cx.out "step/main.lua", STEP)
    fs.write(cx.out "step/Dockerfile", "ARG BASE\nFROM ${BASE}\nCOPY . /app\n")
    local base = registry.base_image().ref
    local images = {
      step = registry.ensure({ context = cx.out "step", name = "step", args = { BASE = base } }).ref,
      azdocallback = registry.ensure({ context = "components/azdocallback", name = "azdocallback", args = { BASE = base } }).ref,
    }
    local kfp = kubeflow.connect()
    local version = kfp:upload(kubeflow.compile(the_run(images), { images = images }), { name = "callback" })
    for _, good in ipairs { false, true } do
      local run = kfp:experiment "callback":run { version = version, params = { info = env.CALLBACK_INFO, good = good } }
      local _, err = try(run.wait, run, { timeout = "2m" })
      print(("run %s %s"):format(run.id, run.state))
      if err then log.info("%s", err.message) end
    end
  end,
}
