-- Walking a pipeline: which task runs when, with which inputs, and what comes out. How one container runs is
-- not known here (see task.lua): `execute(leaf)` does it and returns { state, error, parameters, artifacts }.
--
-- A value map `parameters` holds JSON values by name; `artifacts` holds lists of artifacts by name (one
-- artifact is a list of one). A result is { state, error = { code, message }, parameters, artifacts }; states
-- are those of the API.
local cel = require "local.runner.cel"
local ir = require "local.runner.ir"
local json = require "local.json"
local placeholder = require "local.runner.placeholder"

local map = ir.map

local dag = {}
local walker = {}
walker.__index = walker

--- options: spec (PipelineSpec), job (what {{$.pipeline_...}} stand for), scheduler, execute(leaf) -> result,
--- record(node) (called at each change of a node), now() (ms), identify(key) -> id, cancelled() -> bool,
--- warn(text).
function dag.new(options)
  return setmetatable(options, walker)
end

-- ---- nodes: what the API shows of a task ----

local node_class = {}
node_class.__index = node_class

function walker:node(parent, key, name, display_name)
  local now = self.now()
  local node = setmetatable({ walker = self, key = key, name = name, display_name = display_name,
                              id = self.identify(key), parent = parent and parent.id, children = json.array({}),
                              create_time = now, state = "PENDING",
                              history = json.array({ { update_time = now, state = "PENDING" } }) }, node_class)
  if parent then
    parent.children[#parent.children + 1] = { task_id = node.id, pod_name = key }
  end
  self.record(node)
  return node
end

function node_class:set(state, err)
  local now = self.walker.now()
  if state == "RUNNING" then
    self.start_time = self.start_time or now
  elseif state ~= "PENDING" then
    self.end_time = now
  end
  self.state, self.error = state, err
  self.history[#self.history + 1] = { update_time = now, state = state, error = err }
  self.walker.record(self)
end

local function failure(code, format, ...)
  return { state = "FAILED", error = { code = code, message = format:format(...) }, parameters = {}, artifacts = {} }
end
dag.failure = failure

-- ---- inputs ----

-- `parseJson(string_value)["key"]`, also nested: the one kind of selector that compilers write.
local function select_part(value, selector)
  local rest = selector:match("^%s*parseJson%(%s*string_value%s*%)(.*)$")
  if not rest then
    return nil, ("unknown parameterExpressionSelector: %s"):format(selector)
  end
  if type(value) == "string" then
    local ok, tree = pcall(json.decode, value)
    if not ok then
      return nil, ("%s: the value is no JSON"):format(selector)
    end
    value = tree
  end
  while rest:find("%S") do
    local quoted, after = rest:match("^%s*%[%s*[\"'](.-)[\"']%s*%](.*)$")
    local index, after_index = rest:match("^%s*%[%s*(%d+)%s*%](.*)$")
    if type(value) ~= "table" or not (quoted or index) then
      return nil, ("%s does not fit the value"):format(selector)
    end
    if quoted then
      value, rest = value[quoted], after
    else
      value, rest = value[tonumber(index) + 1], after_index
    end
    if value == nil then
      return nil, ("%s: the value has no such part"):format(selector)
    end
  end
  return value
end

function walker:final_status(name, result)
  local err = result.error
  return {
    state = result.state == "CANCELED" and "CANCELLED" or result.state,
    error = err and { code = err.code, message = err.message } or {},
    pipelineJobResourceName = self.job.pipeline_job_resource_name,
    pipelineTaskName = name,
  }
end

-- The value that an input names, in a dag with `inputs` and the results of its tasks. Constants come as they are.
function walker:input_value(scope, input)
  local value
  if input.runtimeValue then
    value = input.runtimeValue.constant
    if value == nil then
      local old = map(input.runtimeValue.constantValue)
      value = old.stringValue or tonumber(old.intValue) or old.doubleValue
    end
  elseif input.constant ~= nil then
    value = input.constant
  elseif input.componentInputParameter then
    value = scope.parameters[input.componentInputParameter]
  elseif input.taskOutputParameter then
    local from = input.taskOutputParameter
    value = map(map(scope.results[from.producerTask]).parameters)[from.outputParameterKey]
  elseif input.taskFinalStatus then
    local name = input.taskFinalStatus.producerTask
    value = self:final_status(name, scope.results[name])
  end
  if value == json.null then
    value = nil
  end
  if value ~= nil and input.parameterExpressionSelector and input.parameterExpressionSelector ~= "" then
    return select_part(value, input.parameterExpressionSelector)
  end
  return value
end

-- Values arrive as text where a placeholder made them one, and as numbers where a list of mixed kinds is looped over.
local function coerce(name, value, definition)
  local kind = ir.type_of(definition)
  if not ir.misfit(name, value, { parameterType = kind }) then
    return value
  elseif kind == "STRING" then
    return placeholder.text_of(value)
  elseif type(value) == "string" then
    return ir.parse_output(name, value, definition)
  end
  return value
end

function walker:task_job(name, node)
  return setmetatable({ pipeline_task_name = name, pipeline_task_uuid = node.id }, { __index = self.job })
end

-- The inputs of one task, or nil and what is wrong.
function walker:task_inputs(scope, name, task, component, node)
  local given = map(map(task.inputs).parameters)
  local definitions = map(map(component.inputDefinitions).parameters)
  local parameters, constants = {}, {}
  for key, input in pairs(given) do
    local value, why = self:input_value(scope, input)
    if why then
      return nil, ("input '%s' of task '%s': %s"):format(key, name, why)
    elseif input.runtimeValue then
      constants[key] = value
    else
      parameters[key] = value
    end
  end
  -- A constant may quote the other inputs.
  local context = { parameters = parameters, job = self:task_job(name, node), keep_kind = true, warn = self.warn }
  local finished = {}
  for key, value in pairs(constants) do
    finished[key] = placeholder.tree(value, context)
  end
  for key, value in pairs(finished) do
    parameters[key] = value
  end
  local iterated = map(task.parameterIterator).itemInput
  for key, definition in pairs(definitions) do
    if parameters[key] == nil and definition.defaultValue ~= nil and definition.defaultValue ~= json.null then
      parameters[key] = definition.defaultValue
    end
    if parameters[key] ~= nil then
      local value, why = coerce(key, parameters[key], definition)
      if value == nil then
        return nil, ("input '%s' of task '%s': %s"):format(key, name, why)
      end
      parameters[key] = value
    elseif not definition.isOptional and key ~= iterated then
      return nil, ("input '%s' of task '%s' has no value: its producer gave none"):format(key, name)
    end
  end
  local artifacts = {}
  for key, input in pairs(map(map(task.inputs).artifacts)) do
    local from = input.taskOutputArtifact
    if from then
      artifacts[key] = map(map(scope.results[from.producerTask]).artifacts)[from.outputArtifactKey]
    elseif input.componentInputArtifact then
      artifacts[key] = scope.artifacts[input.componentInputArtifact]
    end
  end
  iterated = map(task.artifactIterator).itemInput
  for key, definition in pairs(map(map(component.inputDefinitions).artifacts)) do
    if not artifacts[key] and not definition.isOptional and key ~= iterated then
      return nil, ("input artifact '%s' of task '%s' is not given: its producer gave none"):format(key, name)
    end
  end
  return { parameters = parameters, artifacts = artifacts }
end

-- ---- components ----

function walker.dag_outputs(component, scope)
  local parameters, artifacts = {}, {}
  local outputs = map(component.dag.outputs)
  local function of(selector)
    return map(map(scope.results[selector.producerSubtask]).parameters)[selector.outputParameterKey]
  end
  for name, output in pairs(map(outputs.parameters)) do
    if output.valueFromParameter then
      parameters[name] = of(output.valueFromParameter)
    else
      for _, selector in ipairs(map(map(output.valueFromOneof).parameterSelectors)) do
        if parameters[name] == nil then
          parameters[name] = of(selector)
        end
      end
    end
  end
  for name, output in pairs(map(outputs.artifacts)) do
    for _, selector in ipairs(map(output.artifactSelectors)) do
      artifacts[name] = artifacts[name]
        or map(map(scope.results[selector.producerSubtask]).artifacts)[selector.outputArtifactKey]
    end
  end
  return parameters, artifacts
end

-- All tasks of a dag; returns the dag's result.
function walker:run_dag(component, inputs, node)
  local scope = { parameters = inputs.parameters, artifacts = inputs.artifacts, results = {}, events = {} }
  local tasks = component.dag.tasks
  local names = {}
  for name in pairs(tasks) do
    names[#names + 1] = name
    scope.events[name] = self.scheduler:event()
  end
  table.sort(names)
  for _, name in ipairs(names) do
    self.scheduler:go(function()
      local result = self:run_task(scope, name, tasks[name], node)
      scope.results[name] = result
      scope.events[name]:set()
    end)
  end
  for _, name in ipairs(names) do
    scope.events[name]:wait()
  end
  local failed, cancelled
  for _, name in ipairs(names) do
    local result = scope.results[name]
    if result.state == "FAILED" and not failed then
      failed = { code = result.error.code, message = result.inner and result.error.message
        or ("task '%s': %s"):format(node.key == "root" and name or node.key:gsub("^root%.", "") .. "." .. name,
                                  result.error.message) }
    end
    cancelled = cancelled or result.state == "CANCELED"
  end
  local parameters, artifacts = walker.dag_outputs(component, scope)
  return { state = failed and "FAILED" or cancelled and "CANCELED" or "SUCCEEDED", error = failed, inner = true,
           parameters = parameters, artifacts = artifacts }
end

-- One component with its inputs: a dag, or one executor.
function walker:run_component(scope, task, component, name, inputs, node)
  if component.dag then
    return self:run_dag(component, inputs, node)
  end
  return self.execute({
    node = node, task = task, task_name = name, component = component, parameters = inputs.parameters,
    artifacts = inputs.artifacts, executor_label = component.executorLabel, job = self:task_job(name, node),
    executor = self.spec.deploymentSpec.executors[component.executorLabel],
    resolve = function(input) return self:input_value(scope, input) end,
  })
end

-- The items of a loop: a list of { parameters =, artifacts = } that go on top of the task's inputs.
local function loop_items(task, inputs)
  local items = {}
  if task.artifactIterator then
    local iterator = task.artifactIterator
    for i, artifact in ipairs(inputs.artifacts[iterator.items.inputArtifact] or {}) do
      items[i] = { artifacts = { [iterator.itemInput] = { artifact } } }
    end
    return items
  end
  local iterator = task.parameterIterator
  local list = iterator.items.raw
  if list == nil then
    list = inputs.parameters[iterator.items.inputParameter]
  end
  if type(list) == "string" then
    local ok, tree = pcall(json.decode, list)
    list = ok and tree or nil
  end
  if not json.is_array(list) then
    return nil, "a loop needs a list of items"
  end
  for i, item in ipairs(list) do
    items[i] = { parameters = { [iterator.itemInput] = item } }
  end
  return items
end

local function over(base, extra)
  local copy = {}
  for key, value in pairs(base) do
    copy[key] = value
  end
  for key, value in pairs(extra or {}) do
    copy[key] = value
  end
  return copy
end

function walker:run_loop(scope, task, component, name, inputs, node)
  local items, why = loop_items(task, inputs)
  if not items then
    return failure(3, "%s", why)
  end
  local results = {}
  local limit = math.tointeger(tonumber(map(task.iteratorPolicy).parallelismLimit) or 0) or 0
  self.scheduler:each(items, limit, function(item, index)
    local key = ("%s.%d"):format(node.key, index - 1)
    local child = self:node(node, key, name, ("%s-%d"):format(node.display_name, index - 1))
    if self.cancelled() then
      child:set("CANCELED")
      results[index] = { state = "CANCELED", parameters = {}, artifacts = {} }
      return
    end
    local own = { parameters = over(inputs.parameters, item.parameters), artifacts = over(inputs.artifacts,
      item.artifacts) }
    local iterated = map(task.parameterIterator).itemInput
    local definition = iterated and map(map(component.inputDefinitions).parameters)[iterated]
    if definition then
      own.parameters[iterated] = coerce(iterated, own.parameters[iterated], definition)
    end
    child:set("RUNNING")
    results[index] = self:run_component(scope, task, component, name, own, child)
    child:set(results[index].state, results[index].error)
  end)
  local result = { state = "SUCCEEDED", parameters = {}, artifacts = {}, inner = true }
  for _, one in ipairs(results) do
    if one.state == "FAILED" and result.state ~= "FAILED" then
      result.state, result.error = "FAILED", one.error
    elseif one.state == "CANCELED" and result.state == "SUCCEEDED" then
      result.state = "CANCELED"
    end
  end
  for output in pairs(map(map(component.outputDefinitions).parameters)) do
    local list = json.array({})
    for _, one in ipairs(results) do
      list[#list + 1] = one.parameters[output]
    end
    result.parameters[output] = list
  end
  for output in pairs(map(map(component.outputDefinitions).artifacts)) do
    local list = {}
    for _, one in ipairs(results) do
      table.move(one.artifacts[output] or {}, 1, #(one.artifacts[output] or {}), #list + 1, list)
    end
    result.artifacts[output] = list
  end
  return result
end

-- May the task start, now that everything it needs has ended? nil, or the result that it has instead of running.
function walker:blocked(scope, task)
  local always = map(task.triggerPolicy).strategy == "ALL_UPSTREAM_TASKS_COMPLETED"
  if always then
    return nil
  elseif self.cancelled() then
    return { state = "CANCELED", parameters = {}, artifacts = {} }
  end
  local names = {}
  for name in pairs(ir.needs(task)) do
    names[#names + 1] = name
  end
  table.sort(names)
  for _, name in ipairs(names) do
    local upstream = scope.results[name]
    if upstream.state ~= "SUCCEEDED" then
      local what = upstream.state == "FAILED" and "failed" or upstream.state == "CANCELED" and "was cancelled"
        or "was skipped"
      return { state = "SKIPPED", parameters = {}, artifacts = {},
               error = { code = 9, message = ("not run: the task '%s', which it needs, %s"):format(name, what) } }
    end
  end
end

function walker:run_task(scope, name, task, parent)
  for needed in pairs(ir.needs(task)) do
    scope.events[needed]:wait()
  end
  local node = self:node(parent, parent.key .. "." .. name, name, map(task.taskInfo).name or name)
  local result = self:blocked(scope, task)
  if not result then
    result = self:start_task(scope, name, task, node)
  end
  node:set(result.state, result.error)
  return result
end

function walker:start_task(scope, name, task, node)
  local component = self.spec.components[task.componentRef.name]
  local inputs, why = self:task_inputs(scope, name, task, component, node)
  if not inputs then
    return failure(3, "%s", why)
  end
  local condition = map(task.triggerPolicy).condition
  if condition and condition ~= "" and condition ~= json.null then
    local truth, problem = cel.test(condition, inputs.parameters)
    if truth == nil then
      return failure(3, "%s", problem)
    elseif not truth then
      return { state = "SKIPPED", parameters = {}, artifacts = {} }
    end
  end
  if component.dag or task.parameterIterator or task.artifactIterator then
    node:set("RUNNING")
  end
  if task.parameterIterator or task.artifactIterator then
    return self:run_loop(scope, task, component, name, inputs, node)
  end
  return self:run_component(scope, task, component, name, inputs, node)
end

--- The whole pipeline with the values of its parameters; inside scheduler:run.
function walker:run(parameters)
  local root = self:node(nil, "root", "root", self.spec.pipelineInfo.name)
  root:set("RUNNING")
  local component = self.spec.root
  local result
  if component.dag then
    result = self:run_dag(component, { parameters = parameters, artifacts = {} }, root)
  else
    result = self:run_component({ parameters = parameters, artifacts = {}, results = {} }, {}, component, "root",
                                { parameters = parameters, artifacts = {} }, root)
  end
  root:set(result.state, result.error)
  return result
end

return dag
