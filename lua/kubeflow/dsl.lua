-- The pipeline as a graph: kubeflow.pipeline, and the groups of tasks that its build function makes
-- (exit_handler, when, branch, each), with what crosses their borders (one_of, collected).
--
-- A group: { kind, name, parent, groups, tasks, ... }; tasks and groups are the nodes of the graph.
local channel = require "kubeflow.channel"
local compiler = require "kubeflow.compiler"
local component = require "kubeflow.component"
local condition = require "kubeflow.condition"
local fail = require "kubeflow.fail"
local package = require "kubeflow.package"
local placeholder = require "kubeflow.placeholder"
local platform = require "kubeflow.platform"
local session = require "kubeflow.session"
local task = require "kubeflow.task"
local types = require "kubeflow.types"

local dsl = {}

local function new_group(kind, parent, fields)
  fields.kind, fields.parent, fields.groups, fields.tasks, fields.at = kind, parent, {}, {}, fail.where()
  return fields
end

local function next_id(graph)
  graph.last_id = graph.last_id + 1
  return graph.last_id
end

--- Runs fn with the group as the place for what it makes.
local function inside(group, fn, ...)
  local arguments = table.pack(...)
  local result = session.within({ group = group }, function() return fn(table.unpack(arguments, 1, arguments.n)) end)
  if #group.tasks == 0 and #group.groups == 0 then
    fail.raise_at(group.at, "no task was made inside this %s", group.what)
  end
  return result
end

local function checked_function(fn, what)
  if type(fn) ~= "function" then fail.raise("%s takes a function that makes its tasks, not a %s", what, type(fn)) end
end

local OPTIONS = { name = true, parallelism = true }

local function checked_options(options, what)
  if options == nil then return {} end
  if type(options) ~= "table" then fail.raise("%s: the options are a table", what) end
  fail.check_keys(what, options, OPTIONS)
  return options
end

-- ---- groups ----

--- exit_handler(task, fn, { name? }) -> handle for task:after: runs `task` when all tasks of fn have ended, however.
--- The exit task reads no other task's output; its input of type kubeflow.final_status gets how they ended.
function dsl.exit_handler(exit_task, fn, options)
  local s = session.needed "exit_handler"
  local t = task.of(exit_task)
  if not t then fail.raise("exit_handler takes the task to run at the end, and a function") end
  checked_function(fn, "exit_handler")
  if s.group.kind ~= "pipeline" then fail.raise("exit_handler works at the top of a pipeline only") end
  if #t.waits_for > 0 then fail.raise("the exit task '%s' cannot wait for other tasks", t.name) end
  for _, c in ipairs(t.channels) do
    if c.task then
      fail.raise("the exit task '%s' cannot read %s: it also runs when that was never made", t.name,
        channel.describe(c))
    end
  end
  for i, other in ipairs(t.parent.tasks) do
    if other == t then table.remove(t.parent.tasks, i) end
  end
  t.is_exit = true
  local group = new_group("exit-handler", s.group, {
    what = "exit handler", display_name = checked_options(options, "exit_handler").name, exit_task = t,
    name = "exit-handler-" .. next_id(s.graph),
  })
  table.insert(s.group.groups, group)
  inside(group, fn)
  return { exit_handler_group = group }
end

local function checked_condition(value, what)
  if condition.is(value) then return value end
  if type(value) == "boolean" then
    fail.raise("%s: the condition is the constant %s; compare with kubeflow.eq, ne, lt, le, gt or ge, "
      .. "since == compares while the pipeline is built", what, tostring(value))
  end
  fail.raise("%s takes a condition (kubeflow.eq(a, b) ...) and a function", what)
end

local function condition_group(parent, conditions, options)
  return new_group("condition", parent, {
    what = "condition", conditions = conditions, display_name = options and options.name,
  })
end

--- when(condition, fn, { name? }): the tasks of fn run when the condition holds
function dsl.when(cond, fn, options)
  local s = session.needed "when"
  local group = condition_group(s.group, { checked_condition(cond, "when") }, checked_options(options, "when"))
  checked_function(fn, "when")
  group.name = "condition-" .. next_id(s.graph)
  table.insert(s.group.groups, group)
  inside(group, fn)
end

--- branch { { condition, fn, name? }, ..., otherwise = fn }: the tasks of the first one whose condition holds
function dsl.branch(spec)
  local s = session.needed "branch"
  if type(spec) ~= "table" or #spec == 0 then
    fail.raise("branch takes { { condition, fn }, ..., otherwise = fn }")
  end
  if #spec == 1 and not spec.otherwise then return dsl.when(spec[1][1], spec[1][2], { name = spec[1].name }) end
  local outer = new_group("condition-branches", s.group, { what = "branch", one_ofs = 0 })
  outer.name = "condition-branches-" .. next_id(s.graph)
  table.insert(s.group.groups, outer)
  local negated = {}
  for i, entry in ipairs(spec) do
    if type(entry) ~= "table" then fail.raise("branch: entry %d is not { condition, fn }", i) end
    local cond = checked_condition(entry[1], "branch")
    checked_function(entry[2], "branch")
    local conditions = table.move(negated, 1, #negated, 1, {})
    conditions[#conditions + 1] = cond
    negated[i] = condition.negated(cond)
    local group = condition_group(outer, conditions, entry)
    table.insert(outer.groups, group)
    -- the SDK numbers the first branch when it meets the second: after what the first one holds
    if i > 1 then group.name = "condition-" .. next_id(s.graph) end
    inside(group, entry[2])
    group.name = group.name or "condition-" .. next_id(s.graph)
  end
  if spec.otherwise then
    checked_function(spec.otherwise, "branch: otherwise")
    local group = condition_group(outer, negated, nil)
    group.name, group.otherwise = "condition-" .. next_id(s.graph), true
    table.insert(outer.groups, group)
    inside(group, spec.otherwise)
  end
end

--- each(items, fn, { parallelism?, name? }): fn(item) makes the tasks of one iteration; they run for each item of a
--- list of values, or of a reference to a list (also a list of artifacts). item.key is a field of an item.
function dsl.each(items, fn, options)
  local s = session.needed "each"
  checked_function(fn, "each")
  options = checked_options(options, "each")
  local parallelism = options.parallelism or 0
  if math.type(parallelism) ~= "integer" or parallelism < 0 then
    fail.raise("each: parallelism is a whole number, 0 for no limit, not %s", tostring(parallelism))
  end
  local c = channel.of(items)
  if not c and (type(items) ~= "table" or #items == 0) then
    fail.raise("each takes a list with at least one item, or a parameter or output that is a list")
  end
  if c and c.collected then fail.raise("each cannot loop over collected outputs; pass them through a task") end
  local group = new_group("for-loop", s.group, { what = "loop", parallelism = parallelism,
    display_name = options.name })
  group.argument = channel.loop_argument(c or items, not c and next_id(s.graph))
  group.name = "for-loop-" .. next_id(s.graph)
  table.insert(s.group.groups, group)
  inside(group, fn, channel.reference(group.argument))
end

--- collected(output) -> list of what the task's output was in each iteration of the loop around it
function dsl.collected(output)
  session.needed "collected"
  local c = channel.of(output)
  if not c or not c.task or c.loop or c.one_of then fail.raise("collected takes the output of a task inside a loop") end
  return channel.reference(channel.new { name = c.name, task = c.task, collected = c, type = types.list(c.type) })
end

--- one_of(output, output, ...) -> what the branch that ran gave; one output of each branch of one kubeflow.branch
function dsl.one_of(...)
  session.needed "one_of"
  local channels = table.pack(...)
  for i = 1, channels.n do
    local c = channel.of(channels[i])
    if not c or not c.task or c.loop or c.collected or c.one_of then
      fail.raise("one_of: argument %d is not an output of a task", i)
    end
    channels[i] = c
  end
  local first = channels[1]
  local group = first and first.task.parent.parent
  if not group or group.kind ~= "condition-branches" then
    fail.raise("one_of takes outputs of tasks directly inside the branches of kubeflow.branch")
  end
  if not group.groups[#group.groups].otherwise then
    fail.raise("one_of: the branch has no `otherwise`, so that none of its outputs may be there")
  end
  for i, c in ipairs(channels) do
    if c.task.parent.parent ~= group then fail.raise("one_of: argument %d is of another branch", i) end
    if not (types.fits(c.type, first.type) and types.fits(first.type, c.type))
      or c.type.artifact ~= first.type.artifact then
      fail.raise("one_of: argument %d is of type %s, the first is of type %s", i, types.show(c.type),
        types.show(first.type))
    end
  end
  group.one_ofs = group.one_ofs + 1
  channels.n = nil
  return channel.reference(channel.new {
    type = first.type, task = group, one_of = channels,
    name = channel.injected_name(("%s-oneof-%d"):format(group.name, group.one_ofs)),
  })
end

-- ---- pipelines ----

local KEY = {}
local Pipeline = {}

local KEYS = {
  description = true, display_name = true, root = true, params = true, outputs = true, config = true, build = true,
}

local Parameters = {}
function Parameters.__index(params, name)
  fail.raise("the pipeline has no parameter '%s'%s", tostring(name), fail.near(name, fail.sorted_keys(params)))
end

local function pipeline_outputs(result, self)
  if result == nil then return {} end
  if channel.of(result) then return { Output = channel.of(result) } end
  if type(result) ~= "table" or task.of(result) then
    fail.raise_at(self.at, "%s: build returns outputs of tasks by name: { model = task.outputs.model }", self.what)
  end
  local outputs = {}
  for name, value in pairs(result) do
    outputs[name] = channel.of(value)
    if type(name) ~= "string" or not outputs[name] then
      fail.raise_at(self.at, "%s: what build returns as '%s' is not an output of a task", self.what, tostring(name))
    end
  end
  return outputs
end

--- Interface of a pipeline's outputs: as declared, or as the channels' types.
local function output_definitions(self, outputs)
  local declared = self.outputs
  local all = {}
  for name, c in pairs(outputs) do
    local definition = declared and declared[name]
    if declared and not definition then
      fail.raise_at(self.at, "%s: build returns '%s', which `outputs` does not declare%s", self.what, name,
        fail.near(name, fail.sorted_keys(declared)))
    end
    if definition and not types.fits(c.type, definition.type) then
      fail.raise_at(self.at, "%s: output '%s' is declared as %s, but %s is of type %s", self.what, name,
        types.show(definition.type), channel.describe(c), types.show(c.type))
    end
    all[name] = definition or { type = c.type }
  end
  for name in pairs(declared or {}) do
    if not outputs[name] then fail.raise_at(self.at, "%s: build does not return the declared output '%s'", self.what,
      name) end
  end
  return all
end

--- The compiled form of a pipeline: its build function runs once, when it is first needed.
local function built(self)
  if self.compiled then return self.compiled end
  local outer = session.current()
  local building = outer and outer.building or {}
  if building[self] then fail.raise("%s contains itself", self.what) end
  building = setmetatable({ [self] = true }, { __index = building })
  local graph = { tasks = {}, taken = {}, last_id = 0, name = self.name }
  graph.root = new_group("pipeline", nil, { what = "pipeline", name = "" })
  local params = {}
  for name, definition in pairs(self.inputs) do
    params[name] = channel.reference(channel.new { name = name, type = definition.type })
  end
  local result = session.within({
    graph = graph, group = graph.root, patterns = {}, building = building,
  }, function()
    local handle = setmetatable({ name = self.name, run = placeholder.run }, { __index = placeholder.run })
    local outputs = pipeline_outputs(self.build(handle, setmetatable(params, Parameters)), self)
    if #graph.tasks == 0 then fail.raise_at(self.at, "%s: build made no task", self.what) end
    return compiler.compile(graph, {
      name = self.name, inputs = self.inputs, outputs = output_definitions(self, outputs), channels = outputs,
      description = self.description, display_name = self.display_name, root = self.root,
      config = platform.of_pipeline(self.config, self.what), at = self.at,
    })
  end)
  self.compiled = result
  return result
end

function Pipeline.__index(self, key)
  local p = rawget(self, KEY)
  if key == "name" or key == "description" or key == "display_name" then return p[key] end
  if key == "params" then return p.input_names end
  fail.raise("pipeline '%s' has no field '%s'", p.name, tostring(key))
end

function Pipeline.__tostring(self) return ("pipeline '%s'"):format(rawget(self, KEY).name) end

--- A pipeline called inside another one's build function is a component.
function Pipeline.__call(self, arguments)
  local p = rawget(self, KEY)
  session.needed(("calling %s"):format(p.what))
  local compiled = built(p)
  return component.wrap {
    name = p.name, inputs = p.inputs, input_names = p.input_names, graph = compiled,
    outputs = compiled.outputs, output_names = fail.sorted_keys(compiled.outputs),
  } (arguments)
end

--- pipeline "name" { params?, build, ... } -> pipeline
---   name          string    lower-case letters, digits and -, at most 128
---   params        map       name -> type, or { type, default =, optional =, description = }
---   build         function  build(p, params) makes the tasks; p.run has placeholders (p.run.id); may return outputs
---   outputs       map       types of what build returns; default: those of the tasks' outputs
---   description   string
---   display_name  string
---   root          string    where artifacts go by default
---   config        table     { workspace = { size = }, ttl =, ttl_success =, ttl_failure =, deadline = }
function dsl.pipeline(name)
  if type(name) ~= "string" or #name > 128 or not name:find "^[a-z0-9][a-z0-9-]*$" then
    fail.raise("'%s' is no name of a pipeline: lower-case letters, digits and -, not - at first, at most 128",
      tostring(name))
  end
  return function(spec)
    local what = ("pipeline '%s'"):format(name)
    if type(spec) ~= "table" then fail.raise("%s takes a table with params and build", what) end
    fail.check_keys(what, spec, KEYS)
    if type(spec.build) ~= "function" then fail.raise("%s needs build = function(p, params) ... end", what) end
    local inputs, input_names = types.definitions(spec.params, what .. ": parameter")
    local p = {
      name = name, what = what, at = fail.where(), inputs = inputs, input_names = input_names, build = spec.build,
        config = spec.config,
      description = spec.description, display_name = spec.display_name, root = spec.root,
      outputs = spec.outputs and types.definitions(spec.outputs, what .. ": output") or nil,
    }
    platform.of_pipeline(spec.config, what)
    return setmetatable({ [KEY] = p }, Pipeline)
  end
end

--- A component alone, as a pipeline of one task.
local function single(definition)
  local inputs = definition.inputs
  return {
    name = definition.name, what = ("component '%s'"):format(definition.name), at = fail.where(), inputs = inputs,
    input_names = definition.input_names, description = nil, note = definition.description,
    outputs = definition.outputs,
    build = function(_, params)
      local arguments = {}
      for _, name in ipairs(definition.input_names) do arguments[name] = params[name] end
      local t = component.wrap(definition)(arguments)
      task.of(t).single = true
      local outputs = {}
      for _, name in ipairs(definition.output_names) do outputs[name] = t.outputs[name] end
      return outputs
    end,
  }
end

local COMPILE = { images = true, params = true, name = true, display_name = true }

--- compile(pipeline or component, { images?, params?, name?, display_name? }) -> package
---   images  map  name of a component, or of an image without registry and tag -> reference to use in its place
---   params  map  other defaults for parameters
---   name    string  another name
function dsl.compile(value, options)
  -- compile(require "training"): require's second result is the file's name
  if options == nil or type(options) == "string" then options = {} end
  if type(options) ~= "table" then fail.raise("compile: the options are a table, not a %s", type(options)) end
  fail.check_keys("compile", options, COMPILE)
  local p = getmetatable(value) == Pipeline and rawget(value, KEY)
  local definition = component.of(value)
  if not p and definition then p = definition.graph and { compiled = definition.graph, name = definition.name }
    or single(definition) end
  if not p then
    fail.raise("compile takes a pipeline or a component, not a %s; does the module return it?", type(value))
  end
  return package.new(built(p), {
    images = options.images, name = options.name, display_name = options.display_name, params = options.params,
      note = p.note or p.description,
  })
end

return dsl
