-- The walk over the IR, with tasks that are Lua functions: what runs, in which order, with what.
local dag = require "local.runner.dag"
local ir = require "local.runner.ir"
local json = require "json"
local scheduler = require "local.runner.scheduler"
local yaml = require "yaml"

-- A host whose jobs end in the order of their "ms": no real time passes.
local function fake_host()
  local now, last, jobs = 0, 0, {}
  return {
    start = function(_, spec)
      last = last + 1
      jobs[#jobs + 1] = { id = last, at = now + (spec.ms or 0) }
      return last
    end,
    wait = function()
      table.sort(jobs, function(a, b) return a.at < b.at or (a.at == b.at and a.id < b.id) end)
      local job = table.remove(jobs, 1)
      now = job.at
      return job.id, {}
    end,
    cancel = function() end,
  }
end

-- Runs a pipeline; `tasks[executor label](leaf, n)` gives { parameters } , a state, or an error's text.
local function run(text, tasks, parameters, cancel_at)
  local spec = assert(yaml.decode(text))[1]
  spec.schemaVersion, spec.pipelineInfo = "2.1.0", { name = "test" }
  assert(ir.problem(spec) == nil, ir.problem(spec))
  local plan = scheduler.new(fake_host(), 8)
  local log, states, active, most = {}, {}, 0, 0
  local walker = dag.new({
    spec = spec, job = { pipeline_job_uuid = "run-1", pipeline_job_resource_name = "run-name" }, scheduler = plan,
    record = function(node) states[node.key] = node.state end, now = function() return 0 end,
    identify = function(key) return key end, cancelled = function() return cancel_at and #log >= cancel_at end,
    warn = function() end,
    execute = function(leaf)
      active = active + 1
      most = math.max(most, active)
      log[#log + 1] = leaf.task_name
      local result = (tasks[leaf.executor_label] or function() return {} end)(leaf, #log)
      plan:job("timer", { ms = type(result) == "table" and result.ms or 1 })
      active = active - 1
      if type(result) == "string" then
        return dag.failure(2, "%s", result)
      end
      return { state = "SUCCEEDED", parameters = result.parameters or {}, artifacts = result.artifacts or {} }
    end,
  })
  local result = plan:run(function() return walker:run(assert(ir.parameters(spec.root, parameters or {}))) end)
  return result, states, log, most
end

local two = [[
deploymentSpec: {executors: {exec-a: {container: {image: x}}, exec-b: {container: {image: x}},
  exec-c: {container: {image: x}}}}
components:
  comp-a:
    executorLabel: exec-a
    outputDefinitions: {parameters: {out: {parameterType: STRING}}}
  comp-b:
    executorLabel: exec-b
    inputDefinitions: {parameters: {x: {parameterType: STRING}, n: {parameterType: NUMBER_INTEGER, defaultValue: 5.0}}}
    outputDefinitions: {parameters: {out: {parameterType: STRING}}}
]]
local exit_parts = [[
  comp-exit:
    executorLabel: exec-c
    inputDefinitions: {parameters: {status: {parameterType: TASK_FINAL_STATUS, isOptional: true}}}
  comp-handler:
    dag: {tasks: {a: {componentRef: {name: comp-a}}}}
root:
  dag:
    tasks:
      exit-handler-1: {componentRef: {name: comp-handler}}
      cleanup:
        componentRef: {name: comp-exit}
        dependentTasks: [exit-handler-1]
        inputs: {parameters: {status: {taskFinalStatus: {producerTask: exit-handler-1}}}}
        triggerPolicy: {strategy: ALL_UPSTREAM_TASKS_COMPLETED}
]]

local chain = two .. [[
root:
  dag:
    outputs: {parameters: {final: {valueFromParameter: {producerSubtask: b, outputParameterKey: out}}}}
    tasks:
      a: {componentRef: {name: comp-a}}
      b:
        componentRef: {name: comp-b}
        dependentTasks: [a]
        inputs:
          parameters:
            x:
              runtimeValue:
                constant: "got {{$.inputs.parameters['pipelinechannel--a-out']}} in {{$.pipeline_job_uuid}}"
            pipelinechannel--a-out: {taskOutputParameter: {producerTask: a, outputParameterKey: out}}
  inputDefinitions: {parameters: {}}
]]

local function loop(extra, items)
  return two .. [[
  comp-loop:
    dag:
      outputs: {parameters: {outs: {valueFromParameter: {producerSubtask: b, outputParameterKey: out}}}}
      tasks:
        b:
          componentRef: {name: comp-b}
          inputs: {parameters: {x: {componentInputParameter: item,
            parameterExpressionSelector: 'parseJson(string_value)["k"]'}}}
    inputDefinitions: {parameters: {item: {parameterType: STRUCT}}}
    outputDefinitions: {parameters: {outs: {parameterType: LIST}}}
  comp-list:
    executorLabel: exec-c
    inputDefinitions: {parameters: {all: {parameterType: LIST}}}
root:
  dag:
    tasks:
      loop:
        componentRef: {name: comp-loop}
        parameterIterator: {items: {raw: ']] .. items .. [['}, itemInput: item}
        ]] .. extra .. [[

      collect:
        componentRef: {name: comp-list}
        dependentTasks: [loop]
        inputs: {parameters: {all: {taskOutputParameter: {producerTask: loop, outputParameterKey: outs}}}}
]]
end

local condition = two .. [[
  comp-then:
    dag:
      outputs: {parameters: {o: {valueFromParameter: {producerSubtask: b, outputParameterKey: out}}}}
      tasks: {b: {componentRef: {name: comp-b}, inputs: {parameters: {x: {runtimeValue: {constant: then}}}}}}
    inputDefinitions: {parameters: {flip: {parameterType: STRING}}}
    outputDefinitions: {parameters: {o: {parameterType: STRING}}}
  comp-branches:
    dag:
      outputs:
        parameters:
          one:
            valueFromOneof:
              parameterSelectors:
              - {producerSubtask: condition-2, outputParameterKey: o}
              - {producerSubtask: condition-3, outputParameterKey: o}
      tasks:
        condition-2:
          componentRef: {name: comp-then}
          inputs: {parameters: {flip: {componentInputParameter: flip}}}
          triggerPolicy: {condition: "inputs.parameter_values['flip'] == 'heads'"}
        condition-3:
          componentRef: {name: comp-then}
          inputs: {parameters: {flip: {componentInputParameter: flip}}}
          triggerPolicy: {condition: "!(inputs.parameter_values['flip'] == 'heads')"}
    inputDefinitions: {parameters: {flip: {parameterType: STRING}}}
    outputDefinitions: {parameters: {one: {parameterType: STRING}}}
root:
  dag:
    outputs: {parameters: {result: {valueFromParameter: {producerSubtask: branches, outputParameterKey: one}}}}
    tasks:
      a: {componentRef: {name: comp-a}}
      branches:
        componentRef: {name: comp-branches}
        dependentTasks: [a]
        inputs: {parameters: {flip: {taskOutputParameter: {producerTask: a, outputParameterKey: out}}}}
]]

local function gives(text)
  return function() return { parameters = { out = text } } end
end

return {
  { "outputs flow along, constants quote inputs, defaults fill in", function()
    local seen
    local result, states = run(chain, { ["exec-a"] = gives("A"), ["exec-b"] = function(leaf)
      seen = leaf.parameters
      return { parameters = { out = "B" } }
    end })
    assert(result.state == "SUCCEEDED" and result.parameters.final == "B")
    assert(seen.x == "got A in run-1" and seen.n == 5, json.encode(seen))
    assert(states["root.a"] == "SUCCEEDED" and states["root.b"] == "SUCCEEDED" and states.root == "SUCCEEDED")
  end },
  { "what needs a failed task does not run", function()
    local result, states, log = run(chain, { ["exec-a"] = function() return "broken" end })
    assert(result.state == "FAILED" and result.error.message == "task 'a': broken", result.error.message)
    assert(states["root.b"] == "SKIPPED" and #log == 1)
  end },
  { "a missing output is an error of who needs it", function()
    local result = run(chain, {})
    assert(result.state == "FAILED" and result.error.message:find("input 'pipelinechannel--a-out'", 1, true)
           or result.error == nil, json.encode(result))
  end },
  { "an exit task runs after success and after failure, and knows which", function()
    for _, wanted in ipairs { "SUCCEEDED", "FAILED" } do
      local status
      local result, _, log = run(two .. exit_parts, {
        ["exec-a"] = function() return wanted == "FAILED" and "boom" or {} end,
        ["exec-c"] = function(leaf)
          status = leaf.parameters.status
          return {}
        end })
      assert(result.state == wanted and log[2] == "cleanup")
      assert(status.state == wanted and status.pipelineTaskName == "exit-handler-1", json.encode(status))
      assert((status.error.message ~= nil) == (wanted == "FAILED"))
      assert(status.pipelineJobResourceName == "run-name")
    end
  end },
  { "a cancelled run still runs its exit task", function()
    local result, states, log = run(two .. exit_parts, {}, {}, 1)
    assert(result.state == "SUCCEEDED" or result.state == "CANCELED")
    assert(log[#log] == "cleanup" and states["root.cleanup"] == "SUCCEEDED")
  end },
  { "cancelling stops what has not begun", function()
    local result, states, log = run(chain, { ["exec-a"] = gives("A") }, {}, 1)
    assert(result.state == "CANCELED" and #log == 1 and states["root.b"] == "CANCELED")
  end },
  { "loops: items, parts of items, results in order", function()
    local all
    local result, states, _, most = run(loop("", '[{"k": "x"}, {"k": "y"}, {"k": "z"}]'), {
      ["exec-b"] = function(leaf, n) return { parameters = { out = leaf.parameters.x .. "!" }, ms = 10 - n } end,
      ["exec-c"] = function(leaf)
        all = leaf.parameters.all
        return {}
      end })
    assert(result.state == "SUCCEEDED", json.encode(result))
    assert(table.concat(all, " ") == "x! y! z!" and most == 3)
    assert(states["root.loop.1.b"] == "SUCCEEDED")
  end },
  { "parallelismLimit holds", function()
    local _, _, log, most = run(loop("iteratorPolicy: {parallelismLimit: 2}",
      '[{"k": "1"}, {"k": "2"}, {"k": "3"}, {"k": "4"}]'),
                                { ["exec-b"] = gives("x") })
    assert(most == 2 and #log == 5, most)
  end },
  { "a loop over nothing gives an empty list", function()
    local all
    local result = run(loop("", "[]"), { ["exec-c"] = function(leaf)
      all = leaf.parameters.all
      return {}
    end })
    assert(result.state == "SUCCEEDED" and json.is_array(all) and #all == 0)
  end },
  { "one failed item fails the loop, the others run", function()
    local result, states = run(loop("", '[{"k": "x"}, {"k": "y"}]'), { ["exec-b"] = function(leaf)
      return leaf.parameters.x == "x" and "bad x" or { parameters = { out = "o" } }
    end })
    assert(result.state == "FAILED" and states["root.loop.1.b"] == "SUCCEEDED" and states["root.collect"] == "SKIPPED")
    assert(result.error.message == "task 'loop.0.b': bad x", result.error.message)
  end },
  { "conditions choose a branch, OneOf gives its output", function()
    for flip, index in pairs { heads = 2, tails = 3 } do
      local result, states = run(condition, { ["exec-a"] = gives(flip), ["exec-b"] = gives("from " .. flip) })
      assert(result.state == "SUCCEEDED" and result.parameters.result == "from " .. flip, json.encode(result))
      assert(states["root.branches.condition-" .. index] == "SUCCEEDED")
      assert(states["root.branches.condition-" .. (5 - index)] == "SKIPPED")
    end
  end },
  { "an error inside of mlhost ends the run with a traceback, not in silence", function()
    local ok, why = pcall(run, chain, { ["exec-a"] = function() error("a bug") end })
    assert(not ok and tostring(why):find("a bug", 1, true) and tostring(why):find("traceback", 1, true))
  end },
}
