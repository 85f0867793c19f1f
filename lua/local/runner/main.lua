-- The runner of one pipeline run: runs in a process of its own (`mlhost task-runner RUN_ID`).
--
-- Reads runs/<id>/spec.json, which the API wrote; writes runs/<id>/state.json at every change, whole and
-- atomically, which is all that the API reads of it; and runs/<id>/tasks/<key>/ (log.txt, result.json) and
-- runs/<id>/artifacts/<key>/.
local artifacts = require "local.runner.artifacts"
local cache = require "local.runner.cache"
local dag = require "local.runner.dag"
local ir = require "local.runner.ir"
local json = require "local.json"
local scheduler = require "local.runner.scheduler"
local sys = require "sys"
local task = require "local.runner.task"

local map = ir.map

local function identifier(text)
  local hex = sys.sha256(text)
  return ("%s-%s-5%s-8%s-%s"):format(hex:sub(1, 8), hex:sub(9, 12), hex:sub(14, 16), hex:sub(18, 20), hex:sub(21, 32))
end

-- state.json, kept in step with the nodes.
local function recorder(host, folder, run)
  local nodes, order, dirty = {}, json.array({}), true
  local state = { run_id = run.run_id, state = "RUNNING", started_at = host.now(), tasks = order }
  local self = { state = state }
  function self.record(node)
    local shown = nodes[node.key]
    if not shown then
      shown = {}
      nodes[node.key] = shown
      order[#order + 1] = shown
    end
    shown.task_id, shown.key, shown.name, shown.display_name = node.id, node.key, node.name, node.display_name
    shown.parent_task_id, shown.child_tasks, shown.state_history = node.parent, node.children, node.history
    shown.create_time, shown.start_time, shown.end_time = node.create_time, node.start_time, node.end_time
    shown.state, shown.error, shown.pod_name = node.state, node.error, node.key
    dirty = true
  end
  function self.flush()
    if dirty then
      host.fs.write(folder .. "/state.json", json.encode(state))
      dirty = false
    end
  end
  function self.finish(result)
    state.state, state.error, state.finished_at = result.state, result.error, host.now()
    dirty = true
    self.flush()
  end
  return self
end

local function job_values(host, run)
  local root = run.pipeline_root
  local created = os.date("!%Y-%m-%dT%H:%M:%SZ", math.floor((run.created_at or host.now()) / 1000))
  return {
    pipeline_job_name = run.display_name, pipeline_job_resource_name = run.display_name, pipeline_job_uuid = run.run_id,
    pipeline_root = root, pipeline_job_create_time_utc = created,
    pipeline_job_schedule_time_utc = created, workspace_path = "/kfp-workspace",
  }
end

--- host: what host/local/runner_main.c gives. state: the kubeflow folder. Returns the run's state.
return function(host, state, run_id)
  local runs = state .. "/runs"
  local folder = runs .. "/" .. run_id
  local run = json.decode((assert(host.fs.read(folder .. "/spec.json", 256 << 20))))
  local records = recorder(host, folder, run)
  local plan = scheduler.new(host, host.processors)
  local jobs, level = {}, 0
  plan.on_idle = records.flush
  plan.on_cancel = function(how)
    -- First: what runs is stopped, exit tasks still run. Then: those too.
    level = math.max(level, how)
    for id in pairs(jobs) do
      host.cancel(id)
    end
  end
  local kubernetes = map(map(map(run.platform_spec).platforms).kubernetes)
  local config = map(kubernetes.pipelineConfig)
  local store = artifacts.new({ fs = host.fs, runs = runs, run_id = run_id, root = run.pipeline_root,
                                pipeline = run.pipeline_spec.pipelineInfo.name, workspace = run.workspace,
                                state = host.state })
  local results = cache.new({ fs = host.fs, sha256 = sys.sha256, folder = state .. "/cache",
                              digest = function(path) return plan:job("digest", { path = path }).digest end })
  local seconds = tonumber(config.activeDeadlineSeconds)
  local tasks = task.new({
    host = host, scheduler = plan, store = store, cache = results, run = run, folder = folder, state = state,
      jobs = jobs,
    platform = map(kubernetes.deploymentSpec), deadline = seconds and host.now() + seconds * 1000 or nil,
    cancelled = function() return level > 0 end,
  })
  if config.workspace then
    tasks.workspace = folder .. "/workspace"
    host.fs.mkdir_shared(tasks.workspace)
  end
  local walker = dag.new({
    spec = run.pipeline_spec, job = job_values(host, run), scheduler = plan, record = records.record, now = host.now,
    identify = function(key) return identifier(run_id .. "/" .. key) end,
    cancelled = function() return level > 0 end,
    warn = function(text) host.fs.append(folder .. "/log.txt", text .. "\n") end,
    execute = function(leaf)
      if level > 1 then
        return { state = "CANCELED", parameters = {}, artifacts = {} }
      end
      return tasks:execute(leaf)
    end,
  })
  local ok, result = pcall(plan.run, plan, function() return walker:run(run.parameters) end)
  if not ok then
    host.fs.append(folder .. "/log.txt", tostring(result) .. "\n")
    result = dag.failure(13, "inside of mlhost: %s", tostring(result))
  end
  if result.state == "CANCELED" or (level > 0 and result.state ~= "FAILED") then
    -- As the service that this stands in for: a terminated run ends as FAILED, which is what its clients wait for.
    result = dag.failure(1, level > 1 and "the run was stopped: the serve process ended" or "the run was terminated")
  end
  records.finish(result)
  return result.state
end
