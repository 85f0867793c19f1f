-- Placeholders: parts of a component's command line that are filled in when a task runs.
local emit = require "kubeflow.emit"
local fail = require "kubeflow.fail"
local types = require "kubeflow.types"

local placeholder = {}

local Placeholder = {}
Placeholder.__index = Placeholder

local TEXT = {
  input = "{{$.inputs.parameters['%s']}}",
  input_list = "{{$.inputs.artifacts['%s']}}",
  input_path = "{{$.inputs.artifacts['%s'].path}}",
  input_uri = "{{$.inputs.artifacts['%s'].uri}}",
  input_metadata = "{{$.inputs.artifacts['%s'].metadata}}",
  output_list = "{{$.outputs.artifacts['%s']}}",
  output_path = "{{$.outputs.artifacts['%s'].path}}",
  output_uri = "{{$.outputs.artifacts['%s'].uri}}",
  output_metadata = "{{$.outputs.artifacts['%s'].metadata}}",
  output_file = "{{$.outputs.parameters['%s'].output_file}}",
}

--- The whole task as JSON.
placeholder.executor_input = "{{$}}"

--- What is known of the run when a task starts. As a task's constant input a server fills it in.
placeholder.run = {
  id = "{{$.pipeline_job_uuid}}",
  name = "{{$.pipeline_job_name}}",
  resource_name = "{{$.pipeline_job_resource_name}}",
  task_id = "{{$.pipeline_task_uuid}}",
  task_name = "{{$.pipeline_task_name}}",
  root = "{{$.pipeline_root}}",
  create_time = "{{$.pipeline_job_create_time_utc}}",
  schedule_time = "{{$.pipeline_job_schedule_time_utc}}",
  workspace_path = "{{$.workspace_path}}",
}

--- input_value(name) -> text of the placeholder of an input parameter
function placeholder.input_value(name) return TEXT.input:format(name) end

--- input(name), output_file(name): of a parameter; input_path(name), input_uri(name), input_metadata(name, key?),
--- input_list(name), and output_path, output_uri, output_metadata, output_list: of an artifact. Parts of a command line.
local function simple(kind)
  return function(name, key)
    if type(name) ~= "string" then fail.raise("%s takes the name of an input or output", kind) end
    return setmetatable({ kind = kind, name = name, key = key }, Placeholder)
  end
end

for kind in pairs(TEXT) do placeholder[kind] = simple(kind) end

--- concat{ "--x=", kf.input "x" } -> one argument made of all parts
function placeholder.concat(items)
  if type(items) ~= "table" or #items == 0 then fail.raise("concat takes a list of texts and placeholders") end
  return setmetatable({ kind = "concat", items = items }, Placeholder)
end

--- if_present{ "input", then_ = { ... } or one part, else_ = ... }: arguments that depend on an optional input being
--- given
function placeholder.if_present(spec)
  fail.check_keys("if_present", spec, { [1] = true, input = true, then_ = true, else_ = true })
  local name = spec[1] or spec.input
  if type(name) ~= "string" or spec.then_ == nil then
    fail.raise("if_present takes { \"name of an input\", then_ = { ... }, else_ = { ... } }")
  end
  return setmetatable({ kind = "if_present", name = name, then_ = spec.then_, else_ = spec.else_ }, Placeholder)
end

function placeholder.is(value) return getmetatable(value) == Placeholder end

local function text_of_simple(p)
  local text = TEXT[p.kind]:format(p.name)
  if p.key and p.kind:find "metadata$" then text = text:gsub("}}$", ("['%s']}}"):format(p.key)) end
  return text
end

function Placeholder.__tostring(p)
  if p.kind == "concat" or p.kind == "if_present" then fail.raise("%s cannot be a part of a text", p.kind) end
  return text_of_simple(p)
end

--- "--uri=" .. kf.output_uri "model" is a text
function Placeholder.__concat(a, b) return tostring(a) .. tostring(b) end

local function is_list(value) return type(value) == "table" and not placeholder.is(value) end

local json_of

local function json_of_parts(value)
  if not is_list(value) then return json_of(value) end
  local parts = {}
  for i, item in ipairs(value) do parts[i] = json_of(item) end
  return "[" .. table.concat(parts, ", ") .. "]"
end

--- JSON of a part inside a compound placeholder, with the order of keys that the SDK writes.
function json_of(value)
  if type(value) == "string" then return emit.json_string(value) end
  if value.kind == "concat" then return ('{"Concat": %s}'):format(json_of_parts(value.items)) end
  if value.kind == "if_present" then
    local text = ('{"IfPresent": {"InputName": %s, "Then": %s'):format(emit.json_string(value.name),
      json_of_parts(value.then_))
    if value.else_ ~= nil and not (is_list(value.else_) and #value.else_ == 0) then
      text = text .. ', "Else": ' .. json_of_parts(value.else_)
    end
    return text .. "}}"
  end
  return emit.json_string(text_of_simple(value))
end

--- text(part) -> one element of a command line as the IR has it
function placeholder.text(part)
  if type(part) == "string" then return part end
  if part.kind == "concat" or part.kind == "if_present" then return json_of(part) end
  return text_of_simple(part)
end

local CHECKS = {
  input = { "inputs", "param" }, input_list = { "inputs", "artifact" }, input_path = { "inputs", "artifact" },
  input_uri = { "inputs", "artifact" }, input_metadata = { "inputs", "artifact" },
  output_list = { "outputs", "artifact" }, output_path = { "outputs", "artifact" },
  output_uri = { "outputs", "artifact" }, output_metadata = { "outputs", "artifact" },
  output_file = { "outputs", "param" },
}

local INSTEAD = {
  input = "input_path or input_uri", input_path = "input", input_uri = "input", input_metadata = "input",
  output_path = "output_file", output_uri = "output_file", output_file = "output_path or output_uri",
}

--- check(part, component): the placeholder's inputs and outputs are there, and of a fitting kind.
function placeholder.check(part, component, inside_concat)
  local what = ("component '%s'"):format(component.name)
  if type(part) == "string" then return end
  if type(part) == "number" or type(part) == "boolean" then
    fail.raise("%s: %s in a command line must be a text: \"%s\"", what, tostring(part), tostring(part))
  end
  if not placeholder.is(part) then fail.raise("%s: a %s is no part of a command line", what, type(part)) end
  if part.kind == "concat" then
    for _, item in ipairs(part.items) do placeholder.check(item, component, true) end
    return
  end
  if part.kind == "if_present" then
    if not component.inputs[part.name] then
      fail.raise("%s: if_present names the unknown input '%s'%s", what, part.name,
        fail.near(part.name, component.input_names))
    end
    for _, side in ipairs { part.then_, part.else_ } do
      if is_list(side) and inside_concat then
        fail.raise("%s: inside concat, then_ and else_ of if_present are single parts, not lists", what)
      end
      for _, item in ipairs(is_list(side) and side or { side }) do placeholder.check(item, component, inside_concat) end
    end
    return
  end
  local side, kind = CHECKS[part.kind][1], CHECKS[part.kind][2]
  local definition = component[side][part.name]
  if not definition then
    fail.raise("%s: %s names the unknown %s '%s'%s", what, part.kind, side:sub(1, -2), part.name,
      fail.near(part.name, side == "inputs" and component.input_names or component.output_names))
  end
  if definition.type[kind] == nil then
    fail.raise("%s: %s '%s' is of type %s; use %s for it", what, part.kind, part.name, types.show(definition.type),
      INSTEAD[part.kind] or "another placeholder")
  end
end

return placeholder
