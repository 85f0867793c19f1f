-- From a graph to the intermediate representation: PipelineSpec 2.1.0 as plain tables.
-- Format: api/v2alpha1/pipeline_spec.proto of kubeflow/pipelines. Names and order are those of the official compiler.
local channel = require "kubeflow.channel"
local condition = require "kubeflow.condition"
local emit = require "kubeflow.emit"
local fail = require "kubeflow.fail"
local merge = require "kubeflow.merge"
local placeholder = require "kubeflow.placeholder"
local platform = require "kubeflow.platform"
local topology = require "kubeflow.topology"
local types = require "kubeflow.types"

local compiler = {}

local unique = types.unique

local function artifact_schema(t) return { schemaTitle = t.artifact, schemaVersion = t.version } end

--- put(map, side, kind, name, entry): map.side.kind.name = entry; tables are made when first needed,
--- so that none is empty
local function put(map, side, kind, name, entry)
  map[side] = map[side] or {}
  map[side][kind] = map[side][kind] or {}
  map[side][kind][name] = entry
end

--- Adds a definition of an input or output to a component.
local function define(component, side, name, definition)
  local t = definition.type
  if t.param then
    put(component, side, "parameters", name, {
      parameterType = t.param, description = definition.description, defaultValue = definition.default,
      isOptional = definition.optional or nil,
    })
  else
    put(component, side, "artifacts", name, {
      artifactType = artifact_schema(t), isArtifactList = t.list or nil, description = definition.description,
      isOptional = definition.optional or nil,
    })
  end
end

--- interface(definition) -> component with the definitions of its inputs and outputs
local function interface(definition)
  local component = {}
  for name, input in pairs(definition.inputs) do define(component, "inputDefinitions", name, input) end
  for name, output in pairs(definition.outputs) do define(component, "outputDefinitions", name, output) end
  return component
end

local function has_input(component, kind, name)
  local definitions = component.inputDefinitions
  return definitions ~= nil and definitions[kind] ~= nil and definitions[kind][name] ~= nil
end

-- ---- a task ----

--- How a task reads a channel: from a neighbour, or from an input of the group it is in.
local function source_of(c, siblings, parent)
  if c.kind == "artifact" then
    if c.task and not c.loop and siblings[c.task.name] then
      return { taskOutputArtifact = { producerTask = c.task.name, outputArtifactKey = c.name } }
    end
    local name = channel.full_name(c)
    if c.loop or c.task or not has_input(parent, "artifacts", name) then name = channel.injected_name(c) end
    return { componentInputArtifact = name }
  end
  if c.loop == "variable" then
    return {
      componentInputParameter = channel.injected_name(c.argument),
      parameterExpressionSelector = ('parseJson(string_value)["%s"]'):format(c.key),
    }
  end
  if c.task and not c.loop and siblings[c.task.name] then
    return { taskOutputParameter = { producerTask = c.task.name, outputParameterKey = c.name } }
  end
  local name = channel.full_name(c)
  if c.loop or c.task or not has_input(parent, "parameters", name) then name = channel.injected_name(c) end
  return { componentInputParameter = name }
end

local function injected_placeholder(c) return placeholder.input_value(channel.injected_name(c)) end

--- A constant; what it embeds becomes inputs of their own.
local function constant_input(spec, value, siblings, parent)
  local embedded = channel.embedded(value)
  if #embedded > 0 then
    value = channel.replace(value, embedded, injected_placeholder)
    for _, entry in ipairs(embedded) do
      put(spec, "inputs", "parameters", channel.injected_name(entry.channel),
        source_of(entry.channel, siblings, parent))
    end
  end
  return { runtimeValue = { constant = value } }
end

local is_channel = channel.is

--- Settings of the container that are not known before the run are inputs too.
local function dynamic_settings(task)
  local found = {}
  local container = task.container
  if not container then return found end
  for _, resource in pairs(container.resources) do
    if is_channel(resource.value) then found[resource.input] = resource.value end
  end
  local accelerator = container.accelerator
  if accelerator then
    if is_channel(accelerator.type) then found.accelerator_type = accelerator.type end
    if is_channel(accelerator.count) then found.accelerator_count = accelerator.count end
  end
  if is_channel(container.image) then found.base_image = container.image end
  return found
end

local function task_spec(task, siblings, parent)
  local spec = {
    taskInfo = { name = task.display_name or task.name },
    cachingOptions = task.caching,
    retryPolicy = task.retry,
  }
  for name, value in pairs(task.inputs) do
    if is_channel(value) then
      put(spec, "inputs", value.kind == "artifact" and "artifacts" or "parameters", name,
        source_of(value, siblings, parent))
    else
      put(spec, "inputs", "parameters", name, constant_input(spec, value, siblings, parent))
    end
  end
  for name, c in pairs(dynamic_settings(task)) do
    put(spec, "inputs", "parameters", channel.injected_name(c), source_of(c, siblings, parent))
    put(spec, "inputs", "parameters", name, { runtimeValue = { constant = injected_placeholder(c) } })
  end
  return spec
end

-- ---- executors ----

local function resources_of(container)
  local out = {}
  for field, resource in pairs(container.resources) do
    local long = "resource" .. field:sub(1, 1):upper() .. field:sub(2)
    if is_channel(resource.value) then
      out[long] = injected_placeholder(resource.value)
    else
      out[long], out[field] = resource.value, resource.number
    end
  end
  local accelerator = container.accelerator
  if accelerator then
    local dynamic_type, dynamic_count = is_channel(accelerator.type), is_channel(accelerator.count)
    out.accelerator = {
      resourceType = dynamic_type and injected_placeholder(accelerator.type) or accelerator.type,
      type = not dynamic_type and accelerator.type or nil,
      resourceCount = dynamic_count and injected_placeholder(accelerator.count) or accelerator.count,
      count = not dynamic_count and accelerator.count or nil, -- a 64-bit number: JSON has it as text
    }
  end
  return next(out) and out or nil
end

local function filled(list) return #list > 0 and list or nil end

local function container_spec(task)
  local container = task.container
  local image = container.image
  return {
    container = {
      image = is_channel(image) and injected_placeholder(image) or image,
      command = filled(container.command), args = filled(container.args), env = filled(container.env),
      resources = resources_of(container),
    },
  }
end

local function importer_spec(task)
  local importer = task.definition.importer
  return {
    importer = {
      artifactUri = is_channel(task.inputs.uri) and { runtimeParameter = "uri" } or { constant = task.inputs.uri },
      typeSchema = artifact_schema(importer.type), reimport = importer.reimport or nil, metadata = importer.metadata,
      downloadToWorkspace = importer.download_to_workspace or nil,
    },
  }
end

local function uses_workspace(value)
  return type(value) == "string" and (value:find(placeholder.run.workspace_path, 1, true)
    or value:find "^/kfp%-workspace")
end

local function check_task(state, task)
  for name, input in pairs(task.definition.inputs) do
    if input.type.param == "TASK_FINAL_STATUS" and not (task.is_exit or task.ignores_failure or task.single) then
      fail.raise_at(task.at, "task '%s': the input '%s' is the final status of other tasks: use the task with "
        .. "exit_handler, or with ignore_upstream_failure()", task.name, name)
    end
  end
  if not (state.config and state.config.workspace) then
    local used = task.definition.importer and task.definition.importer.download_to_workspace
    for _, value in pairs(task.inputs) do used = used or uses_workspace(value) end
    if used then
      fail.raise_at(task.at, "task '%s' uses the workspace, but the pipeline has none: "
        .. "config = { workspace = { size = \"10Gi\" } }",
        task.name)
    end
  end
end

--- Adds a task's executor and component; returns the component.
local function task_component(state, task, siblings, parent)
  check_task(state, task)
  if task.definition.graph then return merge.pipeline(state, task.definition.graph) end
  local component = interface(task.definition)
  local label = unique("exec-" .. task.name, state.executors)
  component.executorLabel = label
  if task.definition.importer then
    state.executors[label] = importer_spec(task)
    return component
  end
  state.executors[label] = container_spec(task)
  if not task.container.image_set then state.image_of[label] = task.definition.name end
  state.platform[label] = platform.of_task(task, parent.inputDefinitions and parent.inputDefinitions.parameters or {},
    siblings)
  return component
end

-- ---- a group ----

--- The channels that a group takes in under names of the compiler's making.
local function group_channels(state, group)
  local list = table.move(state.inputs[group] or {}, 1, #(state.inputs[group] or {}), 1, {})
  if group.kind == "for-loop" then
    if group.argument.items.kind then list[#list + 1] = group.argument.items end
    list[#list + 1] = group.argument
  elseif group.kind == "condition" then
    for _, c in ipairs(condition.channels(group.conditions)) do list[#list + 1] = c end
  end
  return list
end

local function dag_output(component, name, c)
  component.dag = component.dag or {}
  if c.inner then
    local selectors = {}
    for i, inner in ipairs(c.inner) do
      selectors[i] = {
        producerSubtask = inner.task.name,
        [c.kind == "param" and "outputParameterKey" or "outputArtifactKey"] = inner.name,
      }
    end
    put(component.dag, "outputs", c.kind == "param" and "parameters" or "artifacts", name,
      c.kind == "param" and { valueFromOneof = { parameterSelectors = selectors } }
        or { artifactSelectors = selectors })
  elseif c.kind == "param" then
    put(component.dag, "outputs", "parameters", name, {
      valueFromParameter = { producerSubtask = c.task.name, outputParameterKey = c.name },
    })
  else
    put(component.dag, "outputs", "artifacts", name, {
      artifactSelectors = { { producerSubtask = c.task.name, outputArtifactKey = c.name } },
    })
  end
end

--- A channel as seen from above a branch: without its selectors.
local function plain(c)
  if not c.inner then return c end
  local copy = channel.copy(c)
  copy.inner = nil
  return copy
end

local function group_component(state, group, channels)
  local component = { dag = {} }
  for _, c in ipairs(channels) do
    -- a final status that is passed on is a value like any other
    local t = c.type.param == "TASK_FINAL_STATUS" and types.of_parameter "STRUCT" or c.type
    define(component, "inputDefinitions", channel.injected_name(c), { type = t })
  end
  for name, c in pairs(state.outputs[group] or {}) do
    define(component, "outputDefinitions", name, { type = c.type })
    dag_output(component, name, group.kind == "condition-branches" and c or plain(c))
  end
  return component
end

--- How a group gets a channel: like a task, but by name of its own surroundings at the top.
local function group_input(c, siblings, at_root)
  if c.loop == "variable" then
    local name = channel.full_name(c.argument)
    return {
      componentInputParameter = at_root and name or channel.injected_name(name),
      parameterExpressionSelector = ('parseJson(string_value)["%s"]'):format(c.key),
    }
  end
  local artifact = c.kind == "artifact"
  if c.task and siblings[c.task.name] then
    if artifact then return { taskOutputArtifact = { producerTask = c.task.name, outputArtifactKey = c.name } } end
    return { taskOutputParameter = { producerTask = c.task.name, outputParameterKey = c.name } }
  end
  local name = at_root and channel.full_name(c) or channel.injected_name(c)
  return { [artifact and "componentInputArtifact" or "componentInputParameter"] = name }
end

local function drop_input(spec, name)
  for kind, map in pairs(spec.inputs or {}) do
    map[name] = nil
    if next(map) == nil then spec.inputs[kind] = nil end
  end
  if spec.inputs and next(spec.inputs) == nil then spec.inputs = nil end
end

local function loop_settings(spec, group)
  local argument = group.argument
  local item = channel.injected_name(argument)
  local iterator
  if argument.items.kind then
    local name = channel.injected_name(argument.items)
    iterator = { items = { [argument.kind == "artifact" and "inputArtifact" or "inputParameter"] = name },
      itemInput = item }
  else
    iterator = { items = { raw = emit.spaced(argument.items) }, itemInput = item }
  end
  spec[argument.kind == "artifact" and "artifactIterator" or "parameterIterator"] = iterator
  drop_input(spec, item)
  if group.parallelism > 0 then spec.iteratorPolicy = { parallelismLimit = group.parallelism } end
end

local function group_spec(group, channels, siblings, at_root)
  local spec = { taskInfo = { name = group.display_name or group.name } }
  for _, c in ipairs(channels) do
    put(spec, "inputs", c.kind == "artifact" and "artifacts" or "parameters", channel.injected_name(c),
      group_input(c, siblings, at_root))
  end
  if group.kind == "for-loop" then loop_settings(spec, group) end
  if group.kind == "condition" then spec.triggerPolicy = { condition = condition.cel(group.conditions) } end
  return spec
end

local function final_status(task, spec)
  spec.triggerPolicy = { strategy = "ALL_UPSTREAM_TASKS_COMPLETED" }
  for name, input in pairs(task.definition.inputs) do
    if input.type.param == "TASK_FINAL_STATUS" then
      local upstream = spec.dependentTasks or {}
      if #upstream ~= 1 then
        fail.raise_at(task.at, "task '%s' takes the final status of one task before it in the same group, "
          .. "but waits for %s",
          task.name, #upstream == 0 and "none" or table.concat(upstream, ", "))
      end
      put(spec, "inputs", "parameters", name, { taskFinalStatus = { producerTask = upstream[1] } })
    end
  end
end

local function place(state, dag, node, spec, component)
  local name = unique("comp-" .. node.name, state.components)
  spec.componentRef = { name = name }
  state.components[name] = component
  dag.tasks = dag.tasks or {}
  dag.tasks[node.name] = spec
  return component
end

--- Fills the dag of a group with its groups and tasks.
local function build_group(state, group)
  local component = group == state.graph.root and state.root or state.component_of[group]
  local at_root = group == state.graph.root
  local siblings = {}
  for _, child in ipairs(group.groups) do siblings[child.name] = true end
  for _, child in ipairs(group.tasks) do siblings[child.name] = true end
  component.dag = component.dag or {}

  local function finish(node, spec, made)
    local waits = state.dependencies[node]
    if waits then spec.dependentTasks = fail.sorted_keys(waits) end
    if node.ignores_failure then final_status(node, spec) end
    place(state, component.dag, node, spec, made)
  end
  for _, child in ipairs(group.groups) do
    local channels = group_channels(state, child)
    local made = group_component(state, child, channels)
    state.component_of[child] = made
    finish(child, group_spec(child, channels, siblings, at_root), made)
  end
  for _, task in ipairs(group.tasks) do
    local spec = task_spec(task, siblings, component)
    finish(task, spec, task_component(state, task, siblings, component))
  end
end

--- The exit tasks come last, at the top.
local function build_exit_tasks(state)
  for _, group in ipairs(state.graph.root.groups) do
    local task = group.exit_task
    if task then
      local spec = task_spec(task, {}, state.root)
      local component = task_component(state, task, {}, state.root)
      spec.dependentTasks = { group.name }
      final_status(task, spec)
      place(state, state.root.dag, task, spec, component)
    end
  end
end

--- compile(graph, about) -> compiled pipeline
---   about     { name, inputs, outputs (definitions), channels (what is returned), description, display_name, root,
---   config, at }
---   returns   { name, root, components, executors, platform (by executor), config, outputs, tasks (how many),
---               image_of (executor -> name of the component whose image may be replaced), ... }
function compiler.compile(graph, about)
  local state = topology.analyse(graph, about.channels, about.at)
  state.graph, state.components, state.executors, state.platform = graph, {}, {}, {}
  state.component_of, state.tasks, state.config, state.image_of = {}, #graph.tasks, about.config, {}
  state.root = interface { inputs = about.inputs, outputs = about.outputs }
  for _, group in ipairs(state.groups) do build_group(state, group) end
  build_exit_tasks(state)
  for name, c in pairs(state.returned) do dag_output(state.root, name, plain(c)) end
  return {
    name = about.name, description = about.description, display_name = about.display_name, pipeline_root = about.root,
    root = state.root, components = state.components, executors = state.executors, platform = state.platform,
    image_of = state.image_of, config = about.config, outputs = about.outputs, tasks = state.tasks,
  }
end

return compiler
