-- pipeline "name" { ... } and stage "name" { ... }: what a script declares, as data; and one stage's run.
local _, vm = ...

local M = {}

local pipeline_keys = {
  description = "string", params = "table", permissions = "table", timeout = "duration", env = "table",
}
local stage_keys = {
  description = "string", needs = "names", matrix = "table", when = "function", retry = "retry", timeout = "duration",
  run = "function", always = "function", permissions = "table", allow_failure = "boolean",
}
local permission_keys = { read = "names", write = "names", net = "names", exec = "names", env = "names", ci = "names" }
local param_keys = { type = "string", default = "any", choices = "table", required = "boolean", description = "string" }
local retry_keys = { max = "integer", backoff = "duration" }

local function sorted(map)
  local list = {}
  for key in pairs(map) do list[#list + 1] = tostring(key) end
  table.sort(list)
  return list
end

local what_is = { names = "a list of texts", table = "a table", duration = 'a duration such as "90s", "5m", "1h30m"',
  ["function"] = "a function", string = "a text", boolean = "true or false", integer = "a whole number" }

local problems -- what `check` collects; nil: raise at once

--- Says what is wrong with a declaration: as an error object at its place, or as a finding.
local function wrong(place, rule, message, hint)
  local file, line = place:match "^(.*):(%d+)$"
  local err = { code = "invalid", message = message, hint = hint, file = file, line = math.tointeger(tonumber(line)) }
  if not problems then error(vm.new_error(err), 0) end
  problems[#problems + 1] = {
    level = "error", rule = rule, message = message, hint = hint, file = err.file, line = err.line, column = 1,
  }
end

local function is_list_of_text(value)
  if type(value) ~= "table" then return false end
  local count = 0
  for key, item in pairs(value) do
    if math.type(key) ~= "integer" or type(item) ~= "string" then return false end
    count = count + 1
  end
  return count == #value
end

local function fits(kind, value)
  if kind == "any" then return true end
  if kind == "names" then return is_list_of_text(value) end
  if kind == "duration" then return vm.duration(value) ~= nil end
  if kind == "integer" then return math.type(value) == "integer" and value >= 0 end
  return type(value) == kind
end

local function check_keys(place, what, spec, keys)
  for key, value in pairs(spec) do
    local kind = keys[key]
    if not kind then
      local near = vm.near(tostring(key), sorted(keys))
      local meant = near and (" (did you mean '%s'?)"):format(near) or ""
      wrong(place, "unknown-key", ("%s: unknown key '%s'%s"):format(what, tostring(key), meant),
        "keys: " .. table.concat(sorted(keys), ", "))
    elseif kind == "retry" then
      if math.type(value) == "integer" then
        spec[key] = { max = value }
      elseif type(value) ~= "table" then
        wrong(place, "type", ("%s: retry must be a count or { max = 2, backoff = \"30s\" }"):format(what))
      else
        check_keys(place, what .. ": retry", value, retry_keys)
      end
    elseif not fits(kind, value) then
      local _, reason = nil, nil
      if kind == "duration" then _, reason = vm.duration(value) end
      wrong(place, "type", reason and ("%s: %s: %s"):format(what, key, reason)
        or ("%s: %s must be %s, not %s"):format(what, key, what_is[kind] or kind, type(value)))
    end
  end
end

local function check_permissions(place, what, permissions)
  if type(permissions) ~= "table" then return end
  check_keys(place, what .. ": permissions", permissions, permission_keys)
end

local pipeline_spec, stages, by_name, unfinished

--- Accepts kind "name" { ... } and kind("name", { ... }).
local function declare(kind, take)
  return function(name, spec)
    local place = vm.where()
    if type(name) ~= "string" or name == "" then
      error(("%s: a name comes first: %s \"name\" { ... }"):format(kind, kind), 2)
    end
    if spec ~= nil then return take(name, spec, place) end
    local mark = { kind = kind, name = name, place = place }
    unfinished[mark] = true
    return function(body)
      unfinished[mark] = nil
      return take(name, body, place)
    end
  end
end

local function take_pipeline(name, spec, place)
  local what = ("pipeline '%s'"):format(name)
  if type(spec) ~= "table" then error(what .. ": { ... } must follow the name", 3) end
  if pipeline_spec then
    return wrong(place, "duplicate", ("%s: the pipeline was declared before, as '%s'"):format(what, pipeline_spec.name),
      "a script declares one pipeline")
  end
  check_keys(place, what, spec, pipeline_keys)
  check_permissions(place, what, spec.permissions)
  if type(spec.params) == "table" then
    for key, param in pairs(spec.params) do
      if type(key) ~= "string" then
        wrong(place, "type", what .. ": params is a map: params = { name = default }")
      elseif type(param) == "table" and not vm.is_array(param) then
        check_keys(place, ("%s: parameter '%s'"):format(what, key), param, param_keys)
      end
    end
  end
  pipeline_spec = { name = name, spec = spec, place = place }
end

local function take_stage(name, spec, place)
  local what = ("stage '%s'"):format(name)
  if type(spec) ~= "table" then error(what .. ": { ... } must follow the name", 3) end
  if by_name[name] then
    return wrong(place, "duplicate", ("%s was declared before, at %s"):format(what, by_name[name].place),
      "names of stages are unique")
  end
  check_keys(place, what, spec, stage_keys)
  check_permissions(place, what, spec.permissions)
  if not spec.run then wrong(place, "no-run", what .. " has no run = function(cx) ... end") end
  local entry = { name = name, spec = spec, place = place }
  stages[#stages + 1] = entry
  by_name[name] = entry
end

local function ignore() end

--- `stage` for the process of one stage: of the others, which the plan has checked, nothing is kept. What they cost
--- here they cost in every stage.
local function only(wanted)
  local take = declare("stage", take_stage)
  return function(name, spec)
    if name == wanted or type(name) ~= "string" or name == "" then return take(name, spec) end
    if spec == nil then return ignore end
  end
end

--- Runs the script, which fills pipeline_spec and stages; wanted: the one stage that is of interest.
local function load_script(start, wanted)
  pipeline_spec, stages, by_name, unfinished = nil, {}, {}, {}
  pipeline = declare("pipeline", take_pipeline)
  stage = wanted and only(wanted) or declare("stage", take_stage)
  local chunk, err = vm.load(start.script.text, "@" .. start.script.name)
  if not chunk then error(err, 0) end
  chunk()
  for mark in pairs(unfinished) do
    wrong(mark.place, "no-body", ("%s '%s' has no { ... }"):format(mark.kind, mark.name))
  end
end

local function list(items) return vm.array(items or {}) end

local function stage_data(entry)
  local spec = entry.spec
  local file, line = entry.place:match "^(.*):(%d+)$"
  return {
    name = entry.name, needs = list(spec.needs), matrix = spec.matrix, when = spec.when and true or nil,
    retry = spec.retry, timeout = spec.timeout, permissions = spec.permissions, always = spec.always and true or nil,
    allow_failure = spec.allow_failure, description = spec.description, file = file, line = math.tointeger(tonumber(line)),
  }
end

local function plan_data(start)
  local spec = pipeline_spec and pipeline_spec.spec or {}
  local data = list {}
  for i, entry in ipairs(stages) do data[i] = stage_data(entry) end
  return {
    pipeline = {
      name = pipeline_spec and pipeline_spec.name or start.script.name:match "([^/]+)%.lua$" or start.script.name,
      params = spec.params or {}, permissions = spec.permissions or {}, timeout = spec.timeout,
      description = spec.description, env = spec.env,
    },
    stages = data,
  }
end

--- A component's or a model's file is no pipeline, which `mlhost check` has to tell from a mistake.
local function no_other(start)
  for _, kind in ipairs { "component", "model" } do
    _G[kind] = function(name)
      error(vm.new_error { code = "unsupported", message = ("%s declares a %s, not a pipeline"):format(start.script.name, kind),
        hint = ("run it with: mlhost %s %s"):format(kind, start.script.name), file = start.script.name, line = 1,
        component = name }, 0)
    end
  end
end

function M.plan(start)
  no_other(start)
  load_script(start)
  if #stages == 0 then
    error(vm.new_error { code = "invalid", message = start.script.name .. ": declares no stage", file = start.script.name, line = 1,
      hint = 'declare one: stage "name" { run = function(cx) ... end }' }, 0)
  end
  return { value = plan_data(start) }
end

--- As plan, but what is wrong comes back as findings. Used by prelude/check.lua.
function M.inspect(start)
  problems = {}
  local ok, err = xpcall(load_script, vm.handler, start)
  local found = problems
  problems = nil
  return found, ok and plan_data(start) or nil, not ok and err or nil
end

--- A map whose missing keys are errors with the near miss, unless they are declared.
local function strict(map, what, declared)
  return setmetatable(map or {}, {
    __index = function(_, key)
      if declared[key] ~= nil then return nil end
      local near = vm.near(tostring(key), sorted(declared))
      error(("there is no %s '%s'%s"):format(what, tostring(key), near and (" (did you mean '" .. near .. "'?)") or ""), 2)
    end,
  })
end

local function context(start, entry)
  local cx = start.context or {}
  local spec = pipeline_spec and pipeline_spec.spec or {}
  local axes = {}
  for axis in pairs(entry.spec.matrix or {}) do axes[axis] = true end
  local needed = {}
  for _, name in ipairs(entry.spec.needs or {}) do needed[name] = true end
  cx.params = strict(cx.params, "parameter", spec.params or {})
  cx.matrix = strict(type(cx.matrix) == "table" and cx.matrix or {}, "axis of the matrix", axes)
  cx.needs = strict(cx.needs, "stage among this stage's needs:", needed)
  cx.stage = cx.stage or start.stage
  cx.env = cx.env or spec.env or {}
  cx.pipeline = cx.pipeline or (pipeline_spec and pipeline_spec.name)
  --- Path of a file in the stage's output folder.
  function cx.out(name)
    if not start.out_dir then error("this stage has no output folder", 2) end
    return name and (start.out_dir .. "/" .. name) or start.out_dir
  end
  return cx
end

local function find_stage(start)
  local name = start.stage:match "^([^%[]+)"
  load_script(start, name)
  return by_name[name]
    or error(vm.new_error { code = "not_found", message = ("%s declares no stage '%s'"):format(start.script.name, name) }, 0)
end

function M.stage(start)
  local entry = find_stage(start)
  local cx = context(start, entry)
  if entry.spec.when then
    local go, reason = entry.spec.when(cx)
    if not go then return { skipped = true, reason = reason or "its condition `when` does not hold" } end
  end
  return { value = entry.spec.run(cx) }
end

function M.always(start)
  local entry = find_stage(start)
  if entry.spec.always then return { value = entry.spec.always(context(start, entry)) } end
  return {}
end

return M
