local ir = require "local.runner.ir"
local yaml = require "yaml"
local json = require "json"

local function pipeline(change)
  local spec = assert(yaml.decode([[
schemaVersion: 2.1.0
pipelineInfo: {name: test}
root:
  dag:
    tasks:
      a: {componentRef: {name: comp-a}, taskInfo: {name: a}}
      b: {componentRef: {name: comp-a}, dependentTasks: [a]}
  inputDefinitions:
    parameters:
      i: {parameterType: NUMBER_INTEGER, defaultValue: 3.0}
      s: {parameterType: STRING}
      f: {parameterType: BOOLEAN, isOptional: true}
      l: {parameterType: LIST, defaultValue: []}
      m: {parameterType: STRUCT, isOptional: true}
      c: {parameterType: STRING, isOptional: true, literals: [x, y]}
components:
  comp-a: {executorLabel: exec-a}
deploymentSpec: {executors: {exec-a: {container: {image: x}}}}
]]))[1]
  if change then
    change(spec)
  end
  return spec
end

local broken = {
  { "schemaVersion", function(s) s.schemaVersion = "2.0.0" end, "unsupported schemaVersion 2.0.0" },
  { "no name", function(s) s.pipelineInfo = nil end, "pipelineInfo.name must not be empty" },
  { "bad name", function(s) s.pipelineInfo.name = "../x" end, "pipelineInfo.name '../x'" },
  { "no root", function(s) s.root = nil end, "root must be a component" },
  { "component", function(s) s.root.dag.tasks.b.componentRef.name = "comp-z" end,
    "root.dag.tasks.b.componentRef.name" },
  { "executor", function(s) s.components["comp-a"].executorLabel = "exec-z" end, "there is no executor 'exec-z'" },
  { "cycle", function(s) s.root.dag.tasks.a.dependentTasks = { "b" } end, "a -> b -> a" },
  { "stranger", function(s) s.root.dag.tasks.a.dependentTasks = { "z" } end, "needs the task 'z'" },
  { "condition", function(s) s.root.dag.tasks.a.triggerPolicy = { condition = "1 ==" } end,
    "root.dag.tasks.a.triggerPolicy.condition: the condition ends too early at column 5" },
  { "task name", function(s) s.root.dag.tasks["../../x"] = s.root.dag.tasks.a end, "cannot be a task's name" },
  { "output name", function(s) s.components["comp-a"].outputDefinitions = { parameters = { ["../x"] = {} } } end,
    "cannot be a name" },
  { "recursion", function(s)
    s.components["comp-a"] = { dag = { tasks = { t = { componentRef = { name = "comp-a" } } } } }
  end, "contains itself" },
  { "empty dag", function(s) s.root.dag.tasks = {} end, "tasks is empty" },
}

local given = {
  { { s = "x" }, function(v) return v.i == 3 and v.s == "x" and v.f == nil and json.is_array(v.l) end },
  { { s = "x", i = 4.0, f = true, l = json.array({ 1 }), m = {}, c = "y" }, function(v) return v.i == 4 and v.m end },
  { {}, "parameter 's' (STRING) is missing" },
  { { s = "x", z = 1 }, "has no parameter 'z'; it has: c, f, i, l, m, s" },
  { { s = 1 }, "parameter 's' must be a string (STRING), not 1" },
  { { s = "x", i = 1.5 }, "parameter 'i' must be an integer" }, { { s = "x", i = "1" }, "must be an integer" },
  { { s = "x", f = "true" }, "'f' must be true or false" }, { { s = "x", l = {} }, "'l' must be a list" },
  { { s = "x", m = json.array({}) }, "'m' must be a map" }, { { s = "x", c = "z" },
    'must be one of ["x","y"], not "z"' },
}

local outputs = {
  { "NUMBER_INTEGER", " 42\n", 42 }, { "NUMBER_INTEGER", "4.5", "must be an integer" }, { "NUMBER_DOUBLE", "0.5\n",
    0.5 },
  { "NUMBER_DOUBLE", "x", "must be a number" }, { "BOOLEAN", "True\n", true }, { "BOOLEAN", "false", false },
  { "BOOLEAN", "maybe", "must be true or false" }, { "STRING", "a\n", "a\n" }, { "LIST", "{}", "must be a list" },
}

local tests = {
  { "the pipeline itself is good", function() assert(ir.problem(pipeline()) == nil, ir.problem(pipeline())) end },
  { "documents", function()
    local spec = pipeline()
    assert(ir.from_documents({ spec, { platforms = {} } }).platform_spec.platforms)
    assert(ir.from_documents({ { pipeline_spec = spec } }).pipeline_spec == spec)
    assert(select(2, ir.from_documents({ spec, spec })):find("document 2", 1, true))
    assert(select(2, ir.from_documents({})):find("no pipeline", 1, true))
    assert(select(2, ir.from_documents({ "text" })):find("not a map", 1, true))
  end },
  { "structs and lists as outputs", function()
    assert(ir.parse_output("o", '{"a": [1]}', { parameterType = "STRUCT" }).a[1] == 1)
    assert(#ir.parse_output("o", "[]", { parameterType = "LIST" }) == 0)
  end },
}
for _, case in ipairs(broken) do
  tests[#tests + 1] = { case[1], function()
    local problem = ir.problem(pipeline(case[2]))
    assert(problem and problem:find(case[3], 1, true), "said: " .. tostring(problem))
  end }
end
for i, case in ipairs(given) do
  tests[#tests + 1] = { "parameters " .. i, function()
    local values, why = ir.parameters(pipeline().root, case[1])
    if type(case[2]) == "string" then
      assert(values == nil and why:find(case[2], 1, true), tostring(why))
    else
      assert(values, why)
      assert(case[2](values), json.encode(values))
    end
  end }
end
for _, case in ipairs(outputs) do
  tests[#tests + 1] = { case[1] .. " " .. case[2], function()
    local value, why = ir.parse_output("o", case[2], { parameterType = case[1] })
    if why then
      assert(why:find(case[3], 1, true), why)
    else
      assert(value == case[3], tostring(value))
    end
  end }
end
return tests
