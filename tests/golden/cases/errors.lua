-- Wrong input: each case must raise a message with these parts, at a line of this file.

--- A case whose tasks are made inside a pipeline. `run(kf, params, c)` gets two components: c.make and c.use.
local function inside(name, says, run)
  return {
    name = "error_" .. name, says = says,
    run = function(kf)
      local c = {
        make = kf.component {
          name = "make", image = "img", inputs = { text = { "string", default = "" } },
          outputs = { data = kf.Dataset, count = "int", items = kf.list "string" },
        },
        use = kf.component {
          name = "use", image = "img",
          inputs = { dataset = kf.Dataset, epochs = { "int", default = 1 }, names = { "list", optional = true } },
        },
        number = kf.component { name = "number", image = "img", inputs = { n = "int" } },
        last = kf.component { name = "last", image = "img", inputs = { status = kf.final_status } },
      }
      return kf.compile(kf.pipeline "wrong" {
        params = { epochs = { "int", default = 3 }, name = { "string", default = "" } },
        build = function(_, params) return run(kf, params, c) end,
      })
    end,
  }
end

local function alone(name, says, run) return { name = "error_" .. name, says = says, run = run } end

return {
  inside("unknown_input", { "'use' has no input 'datset'", "did you mean 'dataset'" }, function(_, _, c)
    c.use { datset = c.make {}.outputs.data }
  end),
  inside("missing_input", { "'use' lacks the input: dataset" }, function(_, _, c) c.use { epochs = 2 } end),
  inside("parameter_for_artifact", { "input 'dataset' takes an artifact", "'epochs'", "int" }, function(_, params, c)
    c.use { dataset = params.epochs }
  end),
  inside("artifact_for_parameter", { "input 'n' takes a int", "output 'data' of 'make'" }, function(_, _, c)
    c.number { n = c.make {}.outputs.data }
  end),
  inside("wrong_constant", { "input 'n' takes a int", "twelve" }, function(_, _, c) c.number { n = "twelve" } end),
  inside("map_for_list", { "input 'names'", "not a map" }, function(_, _, c)
    c.use { dataset = c.make {}.outputs.data, names = { a = 1 } }
  end),
  inside("task_for_input", { "got a task", "task.outputs.name" }, function(_, _, c) c.use { dataset = c.make {} } end),
  inside("unknown_output", { "'make' has no output 'dat'", "did you mean 'data'" }, function(_, _, c)
    c.use { dataset = c.make {}.outputs.dat }
  end),
  inside("one_output_of_many", { "more than one output (count, data, items)" }, function(_, _, c)
    c.use { dataset = c.make {}.output }
  end),
  inside("unknown_parameter", { "no parameter 'epoch'", "did you mean 'epochs'" }, function(_, params, c)
    c.number { n = params.epoch }
  end),
  inside("unknown_setting", { "a task has no 'memry'", "did you mean 'memory'" },
    function(_, _, c) c.make {}:memry "1G" end),
  inside("bad_memory", { "memory limit '5 GB' is no quantity" },
    function(_, _, c) c.make {}:memory { limit = "5 GB" } end),
  inside("bad_memory_key", { "unknown key 'limits'", "did you mean 'limit'" }, function(_, _, c)
    c.make {}:memory { limits = "5G" }
  end),
  inside("bad_duration", { "'soon' is no duration" }, function(_, _, c) c.make {}:timeout "soon" end),
  inside("bad_effect", { "unknown effect 'NoScedule'", "did you mean 'NoSchedule'" }, function(_, _, c)
    c.make {}:toleration { key = "k", operator = "Exists", effect = "NoScedule" }
  end),
  inside("out_of_condition", { "'use' depends on 'make'", "inside a condition" }, function(kf, params, c)
    local made
    kf.when(kf.gt(params.epochs, 1), function() made = c.make {} end)
    c.use { dataset = made.outputs.data }
  end),
  inside("out_of_loop", { "'number' reads an output of 'make'", "kubeflow.collected" }, function(kf, _, c)
    local made
    kf.each({ "a", "b" }, function(item) made = c.make { text = item } end)
    c.number { n = made.outputs.count }
  end),
  inside("loop_item_outside", { "uses the loop item", "outside of its loop" }, function(kf, _, c)
    local kept
    kf.each({ 1, 2 }, function(item)
      kept = item
      c.number { n = item }
    end)
    c.number { n = kept }
  end),
  inside("unknown_field_of_item", { "no field 'b'", "did you mean 'a'" }, function(kf, _, c)
    kf.each({ { a = 1 } }, function(item) c.number { n = item.b } end)
  end),
  inside("loop_over_no_list", { "is no list to loop over, but int" }, function(kf, params, c)
    kf.each(params.epochs, function(item) c.number { n = item } end)
  end),
  inside("empty_loop", { "at least one item" }, function(kf, _, c) kf.each({},
    function(item) c.number { n = item } end) end),
  inside("constant_condition", { "the condition is the constant false", "kubeflow.eq" }, function(kf, params, c)
    kf.when(params.name == "x", function() c.make {} end)
  end),
  inside("comparison_by_lua", { "kubeflow.lt" }, function(kf, params, c)
    kf.when(params.epochs < 3, function() c.make {} end)
  end),
  inside("comparison_of_kinds", { "gt:", "(int) cannot be compared with ten (str)" }, function(kf, params, c)
    kf.when(kf.gt(params.epochs, "ten"), function() c.make {} end)
  end),
  inside("comparison_of_lists", { "is of type list" }, function(kf, _, c)
    kf.when(kf.eq(c.make {}.outputs.items, "x"), function() c.make {} end)
  end),
  inside("empty_condition", { "no task was made inside this condition" }, function(kf, params, c)
    c.make {}
    kf.when(kf.gt(params.epochs, 1), function() end)
  end),
  inside("one_of_without_otherwise", { "has no `otherwise`" }, function(kf, params, c)
    local a, b
    kf.branch {
      { kf.gt(params.epochs, 1), function() a = c.make {} end },
        { kf.gt(params.epochs, 0), function() b = c.make {} end },
    }
    c.use { dataset = kf.one_of(a.outputs.data, b.outputs.data) }
  end),
  inside("status_in_plain_task", { "'last'", "with exit_handler" }, function(_, _, c) c.last {} end),
  inside("exit_task_reads_output", { "the exit task 'number' cannot read the output 'count' of 'make'" },
    function(kf, _, c)
    local exit = c.number { n = c.make {}.outputs.count }
    kf.exit_handler(exit, function() c.make {} end)
  end),
  inside("nested_exit_handler", { "at the top of a pipeline only" }, function(kf, params, c)
    kf.when(kf.gt(params.epochs, 1), function() kf.exit_handler(c.last {}, function() c.make {} end) end)
  end),
  inside("output_inside_condition", { "the pipeline's output 'data'", "inside a condition" }, function(kf, params, c)
    local made
    kf.when(kf.gt(params.epochs, 1), function() made = c.make {} end)
    return { data = made.outputs.data }
  end),
  inside("workspace_without_one", { "uses the workspace", "size" }, function(kf, _, c)
    c.make { text = kf.run.workspace_path .. "/x" }
  end),
  inside("no_task", { "made no task" }, function() end),
  inside("bad_text", { "not UTF-8" }, function(_, _, c)
    c.make { text = "\255\254" }
    error(("%s"):format(select(2, pcall(require("kubeflow.emit").yaml, { a = "\255" }))), 0)
  end),

  alone("component_outside", { "works inside the build function of a pipeline only" }, function(kf)
    kf.component { name = "x", image = "img" } {}
  end),
  alone("pipeline_name", { "'My Pipeline' is no name of a pipeline" }, function(kf) kf.pipeline "My Pipeline" {} end),
  alone("pipeline_key", { "unknown key 'parms'", "did you mean 'params'" }, function(kf)
    kf.pipeline "x" { parms = {}, build = function() end }
  end),
  alone("type_name", { "unknown type 'integr'", "did you mean 'integer'" }, function(kf)
    kf.component { name = "x", image = "img", inputs = { a = "integr" } }
  end),
  alone("default_of_type", { "the default many is no int" }, function(kf)
    kf.component { name = "x", image = "img", inputs = { a = { "int", default = "many" } } }
  end),
  alone("placeholder_name", { "unknown input 'dta'", "did you mean 'data'" }, function(kf)
    kf.component { name = "x", image = "img", inputs = { data = kf.Dataset }, args = { kf.input_path "dta" } }
  end),
  alone("placeholder_kind", { "input 'data' is of type system.Dataset", "input_path" }, function(kf)
    kf.component { name = "x", image = "img", inputs = { data = kf.Dataset }, args = { kf.input "data" } }
  end),
  alone("input_and_output", { "'data' is the name of an input and of an output" }, function(kf)
    kf.component { name = "x", image = "img", inputs = { data = "int" }, outputs = { data = "int" } }
  end),
  alone("no_image", { "needs an image" }, function(kf) kf.component { name = "x" } end),
  alone("unknown_function", { "no kubeflow.pipline", "did you mean 'pipeline'" }, function(kf) return kf.pipline end),
  alone("compile_what", { "compile takes a pipeline or a component", "does the module return it" }, function(kf)
    kf.compile(true)
  end),
  alone("yaml_placeholder", { "bad.yaml", "there is no input 'eppochs'", "did you mean 'epochs'" }, function(kf)
    kf.from_yaml_text([[
name: x
inputs: [{name: epochs, type: Integer}]
implementation: {container: {image: img, args: [--epochs, {inputValue: eppochs}]}}
]], "bad.yaml")
  end),
  alone("yaml_key", { "bad.yaml", "unknown key 'defalt'", "did you mean 'default'" }, function(kf)
    kf.from_yaml_text("name: x\ninputs: [{name: a, defalt: 1}]\nimplementation: {container: {image: img}}\n",
      "bad.yaml")
  end),
  alone("yaml_default", { "bad.yaml", "the default 'many' is no int" }, function(kf)
    kf.from_yaml_text("name: x\ninputs: [{name: a, type: Integer, default: many}]\n"
      .. "implementation: {container: {image: img}}\n",
      "bad.yaml")
  end),
  alone("yaml_number_in_command", { "must be quoted" }, function(kf)
    kf.from_yaml_text("name: x\nimplementation: {container: {image: img, command: [sleep, 5]}}\n", "bad.yaml")
  end),
  alone("yaml_neither", { "neither a component of KFP v1" }, function(kf) kf.from_yaml_text("a: 1\n", "bad.yaml") end),
}
