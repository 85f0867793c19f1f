-- What a graph's tasks need from where: the inputs and outputs that the groups between them must pass on, and the
-- order in which neighbours run. Nodes are tasks and groups; a node's path leads from the root to itself.
local channel = require "kubeflow.channel"
local condition = require "kubeflow.condition"
local fail = require "kubeflow.fail"
local types = require "kubeflow.types"

local topology = {}

--- groups(graph) -> all groups, parents first
local function all_groups(root)
  local list = {}
  local function walk(group)
    list[#list + 1] = group
    for _, child in ipairs(group.groups) do walk(child) end
  end
  walk(root)
  return list
end

local function path_of(node)
  if node.path then return node.path end
  local path = node.parent and table.move(path_of(node.parent), 1, #path_of(node.parent), 1, {}) or {}
  path[#path + 1] = node
  node.path = path
  return path
end

--- uncommon(a, b) -> the parts of both paths below their last common group
local function uncommon(a, b)
  local left, right = path_of(a), path_of(b)
  local i = 1
  while left[i] and left[i] == right[i] do i = i + 1 end
  return table.move(left, i, #left, 1, {}), table.move(right, i, #right, 1, {})
end

local KIND = { condition = "condition", ["condition-branches"] = "branch", ["exit-handler"] = "exit handler",
  ["for-loop"] = "loop" }

--- The channels that a task reads, and those that the conditions around it read.
local function channels_of(task)
  if task.is_exit then return task.channels end
  local list = table.move(task.channels, 1, #task.channels, 1, {})
  for _, node in ipairs(path_of(task)) do
    if node.conditions then
      for _, c in ipairs(condition.channels(node.conditions)) do list[#list + 1] = c end
    end
  end
  return list
end

-- ---- inputs ----

--- A channel and what it is made of, the most specific first: field of an item, item, list.
local function chain_of(c)
  local chain = { c }
  while c.loop do
    c = c.loop == "variable" and c.argument or c.items
    if not channel.is(c) then break end
    chain[#chain + 1] = c
  end
  return chain
end

--- Does the loop make the items that this channel is a source of?
local function consumes(loop, c)
  local name = channel.full_name(c)
  for _, source in ipairs(chain_of(loop.argument)) do
    if channel.full_name(source) == name then return true end
  end
  return false
end

local function add(inputs, node, c)
  local list = inputs[node]
  if not list then
    list = { seen = {} }
    inputs[node] = list
  end
  local pattern = channel.pattern(c)
  if list.seen[pattern] then return end
  list.seen[pattern] = true
  list[#list + 1] = c
end

local function owner_of(task, argument)
  for _, node in ipairs(path_of(task)) do
    if node.argument and channel.full_name(node.argument) == channel.full_name(argument) then return node end
  end
end

local function out_of_scope(task, c)
  fail.raise_at(task.at, "task '%s' uses %s outside of its loop", task.name, channel.describe(c))
end

--- The nodes that a channel passes on its way to a task: from the task that made it, from the loop whose list is in the
--- script, or from the top.
local function way_to(task, c)
  if c.loop then
    if not owner_of(task, c.loop == "variable" and c.argument or c) then out_of_scope(task, c) end
    local chain = chain_of(c)
    local source = chain[#chain]
    if source.raw then
      local owner, path = owner_of(task, source), path_of(task)
      return table.move(path, #path_of(owner) + 1, #path, 1, {})
    end
  end
  if not c.task then return path_of(task) end
  local _, below = uncommon(c.task, task)
  return below
end

--- Each group on the way gets the list, item or field that it needs.
local function add_down(inputs, nodes, c)
  local chain = chain_of(c)
  for _, node in ipairs(nodes) do
    add(inputs, node, chain[#chain])
    if node.argument and consumes(node, chain[#chain]) then
      chain[#chain] = nil
      if #chain == 0 then return end
    end
  end
end

local function inputs_of(graph)
  local inputs = {}
  for _, task in ipairs(graph.tasks) do
    for _, c in ipairs(task.is_exit and {} or channels_of(task)) do
      add_down(inputs, way_to(task, c), c)
    end
  end
  return inputs
end

-- ---- outputs ----

local function check_collected(place, consumer, collected, above)
  local in_loop = false
  for i = 1, #above - 1 do in_loop = in_loop or above[i].kind == "for-loop" end
  if not in_loop then
    fail.raise_at(place, "%s: collected takes outputs of tasks inside a loop that the reader is outside of; "
      .. "'%s' is in none",
      consumer, collected.task.name)
  end
  if above[1].kind ~= "for-loop" then
    fail.raise_at(place, "%s collects outputs of '%s', whose loop is inside a %s that the reader is outside of",
      consumer, collected.task.name, KIND[above[1].kind])
  end
end

--- One iteration's output as the list that leaves the loop.
local function list_channel(c, name, producer)
  return channel.new { name = name, task = producer, type = types.list(c.collected.type) }
end

local function surface(outputs, group, name, c)
  outputs[group] = outputs[group] or {}
  outputs[group][name] = c
end

--- Makes the groups around the producer pass its output up; the channel then reads it from the outermost of them.
local function surface_collected(outputs, c, groups)
  local name, producer = channel.injected_name(c), c.task
  for i = #groups, 1, -1 do
    surface(outputs, groups[i], name, list_channel(c, c.name, producer))
    c.name, c.task, producer = name, groups[i], groups[i]
  end
end

--- Makes the branches, and their common group, pass up the output of the branch that ran.
local function surface_one_of(outputs, c)
  if c.surfaced then return end
  c.surfaced = true
  local inner = {}
  for i, source in ipairs(c.one_of) do
    local copy = channel.copy(source)
    local name, path = channel.injected_name(copy), path_of(source.task)
    for j = #path - 1, 1, -1 do
      if path[j] == c.task then break end
      surface(outputs, path[j], name, channel.copy(copy))
      copy.name, copy.task = name, path[j]
    end
    inner[i] = copy
  end
  c.inner = inner
  surface(outputs, c.task, c.name, c)
end

local function outputs_of(graph, returned, at)
  local outputs = {}
  for _, task in ipairs(graph.tasks) do
    for _, c in ipairs(channels_of(task)) do
      local chain = chain_of(c)
      local source = chain[#chain]
      if source.collected and source.task.definition then
        local above = uncommon(source.task, task)
        check_collected(task.at, ("task '%s'"):format(task.name), source, above)
        above[#above] = nil
        surface_collected(outputs, source, above)
      elseif source.one_of then
        surface_one_of(outputs, source)
      end
    end
  end
  local final = {}
  for _, name in ipairs(fail.sorted_keys(returned)) do
    local c = returned[name]
    if c.collected then
      c = channel.copy(c)
      local path = path_of(c.task)
      local above = table.move(path, 2, #path, 1, {})
      above[#above] = nil
      if #above == 0 then
        fail.raise_at(c.task.at, "the pipeline's output '%s' is collected, but '%s' is in no group; return it as it is",
          name, c.task.name)
      end
      surface_collected(outputs, c, above)
      c = list_channel(c, c.name, c.task)
    elseif c.one_of then
      surface_one_of(outputs, c)
    elseif not c.task or c.loop then
      fail.raise_at(at, "the pipeline's output '%s' is %s; only outputs of tasks can be returned", name,
        channel.describe(c))
    end
    if c.task.parent ~= graph.root then
      fail.raise_at(at, "the pipeline's output '%s' is %s, inside a %s; outputs come from the top of the pipeline "
        .. "(kubeflow.one_of and kubeflow.collected bring them there)", name, channel.describe(c),
          KIND[c.task.parent.kind])
    end
    final[name] = c
  end
  return outputs, final
end

-- ---- order ----

local function check_scope(task, upstream, above, by_data)
  local outer = above[1]
  if outer == upstream then return end
  local kind = outer.kind
  if kind == "condition" or kind == "exit-handler" or kind == "condition-branches" and by_data then
    fail.raise_at(task.at, "task '%s' depends on '%s', which is inside a %s that '%s' is outside of%s", task.name,
      upstream.name, KIND[kind], task.name,
      kind == "exit-handler" and "" or "; kubeflow.one_of brings outputs out of a branch")
  end
  if kind == "for-loop" and by_data then
    fail.raise_at(task.at, "task '%s' reads an output of '%s' inside a loop that '%s' is outside of; "
      .. "kubeflow.collected(output) is the list of all iterations' outputs", task.name, upstream.name, task.name)
  end
end

local function dependencies_of(graph)
  local dependencies = {}
  for _, task in ipairs(graph.tasks) do
    local upstream, by_data = {}, {}
    local function depend(node, data)
      if not by_data[node] then upstream[#upstream + 1] = node end
      by_data[node] = (data or by_data[node] == "data") and "data" or "order"
    end
    for _, c in ipairs(channels_of(task)) do
      if c.task then depend(c.task, true) end
    end
    for _, node in ipairs(task.waits_for) do depend(node, false) end
    for _, node in ipairs(upstream) do
      if node.is_exit then
        fail.raise_at(task.at, "task '%s' depends on '%s', which runs at the end", task.name, node.name)
      end
      local above, below = uncommon(node, task)
      if #above == 0 then
        fail.raise_at(task.at, "task '%s' depends on a group that it is in itself", task.name)
      end
      check_scope(task, node, above, by_data[node] == "data")
      dependencies[below[1]] = dependencies[below[1]] or {}
      dependencies[below[1]][above[1].name] = true
    end
  end
  return dependencies
end

--- analyse(graph, returned, at) -> { groups, inputs, outputs, dependencies, returned }
---   inputs        node -> channels that its surroundings must give it
---   outputs       group -> name -> channel inside it
---   dependencies  node -> set of names of neighbours to wait for
function topology.analyse(graph, returned, at)
  local result = { groups = all_groups(graph.root) }
  result.inputs = inputs_of(graph)
  result.outputs, result.returned = outputs_of(graph, returned, at)
  result.dependencies = dependencies_of(graph)
  return result
end

return topology
