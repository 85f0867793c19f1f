-- Groups: exit handlers, conditions, branches, loops, nested pipelines; what crosses their borders.
local UBI = "registry.access.redhat.com/ubi9/python-311:latest"

--- text -> text, of lightweight Python components
local function echo(kf, official, label, name)
  return kf.component(official(label, { name = name, inputs = { text = "string" }, outputs = { Output = "string" } }))
end

return {
  {
    name = "exit_handler", golden = "pipeline_with_exit_handler.yaml",
    compile = function(kf, official)
      local print_op = kf.component(official("print-op", { inputs = { message = "string" } }))
      local fail_op = kf.component(official("fail-op", { inputs = { message = "string" } }))
      return kf.compile(kf.pipeline "pipeline-with-exit-handler" {
        params = { message = { "string", default = "Hello World!" } },
        build = function(_, params)
          kf.exit_handler(print_op { message = "Exit handler has worked!" }, function()
            print_op { message = params.message }
            fail_op { message = "Task failed." }
          end)
        end,
      })
    end,
  },
  {
    name = "final_status_in_exit_task", golden = "pipeline_with_task_final_status_yaml.yaml",
    compile = function(kf)
      local exit_op = kf.from_yaml_text([[
name: Exit Op
inputs:
  - {name: user_input, type: String}
  - {name: status, type: PipelineTaskFinalStatus}
implementation:
  container:
    image: registry.access.redhat.com/ubi9/python-311:latest
    command: [echo, "user input:", {inputValue: user_input}, "pipeline status:", {inputValue: status}]
]], "exit_op.yaml")
      local print_op = kf.component {
        name = "Print Op", image = UBI, command = { "echo", kf.input "message" }, inputs = { message = "string" },
      }
      return kf.compile(kf.pipeline "pipeline-with-task-final-status-yaml" {
        params = { message = { "string", default = "Hello World!" } },
        build = function(_, params)
          kf.exit_handler(exit_op { user_input = params.message, status = kf.final_status }, function()
            print_op { message = params.message }
          end, { name = "my-pipeline" })
        end,
      })
    end,
  },
  {
    name = "pipeline_as_exit_task", golden = "pipeline_as_exit_task.yaml",
    compile = function(kf, official)
      local print_op = kf.component(official("print-op", { inputs = { message = "string" } }))
      local fail_op = kf.component(official("fail-op", { inputs = { message = "string" } }))
      local state = kf.component(official("get-run-state", { inputs = { status = "dict" },
        outputs = { Output = "string" } }))
      local notify = kf.pipeline "conditional-notification" {
        params = { status = kf.final_status },
        build = function(_, params)
          local found = state { status = params.status }
          kf.when(kf.eq(found.output, "FAILED"), function() print_op { message = "notify task failure." } end)
        end,
      }
      return kf.compile(kf.pipeline "pipeline-with-task-final-status-conditional" {
        params = { message = { "string", default = "Hello World!" } },
        build = function(_, params)
          kf.exit_handler(notify {}, function()
            print_op { message = params.message }
            fail_op { message = "Task failed." }
          end, { name = "my-pipeline" })
        end,
      })
    end,
  },
  {
    name = "ignore_upstream_failure", golden = "pipeline_with_task_using_ignore_upstream_failure.yaml",
    compile = function(kf, official)
      local fail_op = kf.component(official("fail-op", { inputs = { message = "string" },
        outputs = { Output = "string" } }))
      local print_op = kf.component(official("print-op", { inputs = { message = { "string", default = "default" } } }))
      return kf.compile(kf.pipeline "my-pipeline" {
        params = { sample_input = { "string", default = "message" } },
        build = function(_, params)
          print_op { message = fail_op { message = params.sample_input }.output }:ignore_upstream_failure()
        end,
      })
    end,
  },
  {
    name = "nested_conditions", golden = "pipeline_with_nested_conditions_yaml.yaml",
    compile = function(kf)
      local flip = kf.component {
        name = "flip-coin", image = "python:alpine3.9", command = { "sh", "-c" }, outputs = { output = "string" },
        args = {
          [[mkdir -p "$(dirname $0)" && python -c "import random; result = 'heads' if random.randint(0,1) == 0 ]]
            .. [[else 'tails'; print(result, end='')" | tee $0]], kf.output_file "output",
        },
      }
      local function random(low, high)
        return kf.component {
          name = "generate-random-number", image = "python:alpine3.9", command = { "sh", "-c" },
            outputs = { output = "int" },
          args = {
            [[mkdir -p "$(dirname $2)" && python -c "import random; print(random.randint($0, $1), end='')" | tee $2]],
            low, high, kf.output_file "output",
          },
        } {}
      end
      local print_op = kf.component {
        name = "print", image = "python:alpine3.9", command = { "echo", kf.input "msg" }, inputs = { msg = "string" },
      }
      return kf.compile(kf.pipeline "conditional-execution-pipeline" {
        display_name = "Conditional execution pipeline.", description = "Shows how to use dsl.Condition().",
        build = function()
          local coin = flip {}
          local function side(face, low, high, middle)
            kf.when(kf.eq(coin.output, face), function()
              local number = random(low, high).output
              kf.when(kf.gt(number, middle), function()
                print_op { msg = face .. " and " .. number .. " > " .. middle .. "!" }
              end)
              kf.when(kf.le(number, middle), function() print_op { msg = ("%s and %s <= %d!"):format(face, number,
                middle) } end)
            end)
          end
          side("heads", "0", "9", 5)
          side("tails", "10", "19", 15)
        end,
      })
    end,
  },
  {
    name = "branches_with_one_of", golden = "if_elif_else_with_oneof_parameters.yaml",
    compile = function(kf, official)
      local flip = kf.component(official("flip-three-sided-die", { outputs = { Output = "string" } }))
      local say = echo(kf, official, "print-and-return")
      local special = kf.component(official("special-print-and-return", {
        inputs = { text = "string" }, outputs = { output_key = "string" },
      }))
      local roll = kf.pipeline "roll-die-pipeline" {
        outputs = { Output = "string" },
        build = function()
          local coin, a, b, c = flip {}, nil, nil, nil
          kf.branch {
            { kf.eq(coin.output, "heads"), function() a = say { text = "Got heads!" } end },
            { kf.eq(coin.output, "tails"), function() b = say { text = "Got tails!" } end },
            otherwise = function() c = special { text = "Draw!" } end,
          }
          return kf.one_of(a.output, b.output, c.outputs.output_key)
        end,
      }
      return kf.compile(kf.pipeline "outer-pipeline" {
        build = function() return say { text = roll {}.output }.output end,
      })
    end,
  },
  {
    name = "one_of_artifacts", golden = "if_else_with_oneof_artifacts.yaml",
    compile = function(kf, official)
      local flip = kf.component(official("flip-coin", { outputs = { Output = "string" } }))
      local make = kf.component(official("param-to-artifact",
        { inputs = { val = "string" }, outputs = { a = kf.Artifact } }))
      local show = kf.component(official("print-artifact", { inputs = { a = kf.Artifact } }))
      local inner = kf.pipeline "flip-coin-pipeline" {
        build = function()
          local coin, heads, tails = flip {}, nil, nil
          kf.branch {
            { kf.eq(coin.output, "heads"), function() heads = make { val = coin.output } end },
            otherwise = function() tails = make { val = coin.output } end,
          }
          local either = kf.one_of(heads.outputs.a, tails.outputs.a)
          show { a = either }
          return either
        end,
      }
      return kf.compile(kf.pipeline "outer-pipeline" { build = function() show { a = inner {}.output } end })
    end,
  },
  {
    name = "branches_loops_and_conditions", golden = "if_elif_else_complex.yaml",
    compile = function(kf, official)
      local number_op = kf.component(official("int-0-to-9999", { outputs = { Output = "int" } }))
      local even = kf.component(official("is-even-or-odd", { inputs = { num = "int" },
        outputs = { Output = "string" } }))
      local say = echo(kf, official, "print-and-return")
      local ints = kf.component(official("print-ints", { inputs = { ints = kf.list "int" } }))
      return kf.compile(kf.pipeline "lucky-number-pipeline" {
        params = {
          add_drumroll = { "bool", default = true }, repeat_if_lucky_number = { "bool", default = true },
          trials = { kf.list "int", default = { 1, 2, 3 } },
        },
        build = function(_, params)
          local number
          kf.each(params.trials, function(trial)
            kf.when(kf.eq(params.add_drumroll, true), function()
              kf.when(kf.eq(trial, 3), function() say { text = "Adding drumroll on last trial!" } end)
            end)
            number = number_op {}:cache(false)
            local function parity(low, odd)
              local kind, a, b = even { num = number.output }, nil, nil
              kf.branch {
                { kf.eq(kind.output, "even"), function() a = say { text = low } end },
                otherwise = function() b = say { text = odd } end,
              }
              say { text = kf.one_of(a.output, b.output) }
            end
            kf.branch {
              { kf.lt(number.output, 5000), function() parity("Got a low even number!", "Got a low odd number!") end },
              { kf.gt(number.output, 5000), function() parity("Got a high even number!",
                "Got a high odd number!") end },
              otherwise = function()
                say { text = "Announcing: Got the lucky number 5000! A one in 10,000 chance." }
                kf.when(kf.eq(params.repeat_if_lucky_number, true), function()
                  kf.each({ 1, 2 }, function()
                    say { text = "Announcing again: Got the lucky number 5000! A one in 10,000 chance." }
                  end)
                end)
              end,
            }
          end)
          ints { ints = kf.collected(number.output) }
        end,
      })
    end,
  },
  {
    name = "collected_from_nested_loops", golden = "parameters_complex.yaml",
    compile = function(kf, official)
      local double = kf.component(official("double", { inputs = { num = "int" }, outputs = { Output = "int" } }))
      local add = kf.component(official("simple-add", { inputs = { nums = kf.list "int" },
        outputs = { Output = "int" } }))
      local nested = kf.component(official("nested-add", { inputs = { nums = "list" }, outputs = { Output = "int" } }))
      local both = kf.component(official("add-two-numbers", { inputs = { x = "list", y = "list" },
        outputs = { Output = "int" } }))
      return kf.compile(kf.pipeline "math-pipeline" {
        build = function()
          local one, two, sum
          kf.each({ 1, 2, 3 }, function(x)
            one = double { num = x }
            kf.each({ 4, 5, 6 }, function(y) two = double { num = y } end)
            add { nums = kf.collected(two.output) }
          end)
          nested { nums = kf.collected(two.output) }
          local all
          kf.each({ 0, 0, 0 }, function()
            sum = add { nums = kf.collected(one.output) }
            all = nested { nums = kf.collected(two.output) }
          end)
          return both { x = kf.collected(sum.output), y = kf.collected(all.output) }.output
        end,
      })
    end,
  },
  {
    name = "loops_over_channels_and_lists", golden = "pipeline_with_parallelfor_parallelism.yaml",
    compile = function(kf, official)
      local text = kf.component(official("print-text", { inputs = { msg = "string" } }))
      local int = kf.component(official("print-int", { inputs = { x = "int" } }))
      local function maker(label, output)
        return kf.component(official(label, { outputs = { Output = output } }))
      end
      local typed = kf.list(kf.dict "int")
      local makers = {
        maker("list-dict-maker-0", typed), maker("list-dict-maker-1", kf.list "dict"),
          maker("list-dict-maker-2", kf.list "dict"),
        maker("list-dict-maker-3", "list"),
      }
      local loose = kf.component(official("list-dict-maker-1-2",
        { name = "list-dict-maker-1", outputs = { Output = "list" } }))
      return kf.compile(kf.pipeline "pipeline-with-loops" {
        params = { loop_parameter = kf.list "string" },
        build = function(_, params)
          kf.each(params.loop_parameter, function(item)
            text { msg = item }
            kf.each(params.loop_parameter, function(nested) text { msg = nested } end)
          end, { parallelism = 2 })
          kf.each({ { A_a = "1", B_b = "2" }, { A_a = "10", B_b = "20" } }, function(item)
            text { msg = item.A_a }
            text { msg = item.B_b }
            kf.each({ { A_a = "10", B_b = "20" }, { A_a = "100", B_b = "200" } }, function(nested)
              text { msg = nested.A_a }
              text { msg = nested.B_b }
            end, { parallelism = 1 })
          end)
          kf.each({ { a = 1, b = 2 }, { a = 2, b = 3 }, { a = 3, b = 4 } }, function(item) int { x = item.a } end,
            { parallelism = 1 })
          local made = {}
          for i, make in ipairs(makers) do made[i] = make {} end
          made[5] = loose {}
          for _, task in ipairs(made) do
            kf.each(task.output, function(item) int { x = item.a } end)
          end
        end,
      })
    end,
  },
  {
    name = "loops_over_fields_of_items", golden = "pipeline_with_nested_loops.yaml",
    compile = function(kf, official)
      local print_op = kf.component(official("print-op", {
        inputs = { msg = "string", msg2 = { "string", optional = true } },
      }))
      return kf.compile(kf.pipeline "pipeline-with-nested-loops" {
        params = {
          loop_parameter = { "list", default = {
            { p_a = { { q_a = "1" }, { q_a = "2" } }, p_b = "hello" },
              { p_a = { { q_a = "11" }, { q_a = "22" } }, p_b = "halo" },
          } },
        },
        build = function(_, params)
          kf.each(params.loop_parameter, function(item)
            kf.each(item.p_a, function(inner) print_op { msg = inner.q_a } end)
          end)
          kf.each({ "1", "2" }, function(outer)
            print_op { msg = outer }
            kf.each({ "100", "200", "300" }, function(inner) print_op { msg = outer, msg2 = inner } end)
          end)
        end,
      })
    end,
  },
  {
    name = "order_across_loops", golden = "cross_loop_after_topology.yaml",
    compile = function(kf, official)
      local print_op = kf.component(official("print-op", { inputs = { message = "string" } }))
      return kf.compile(kf.pipeline "my-pipeline" {
        build = function()
          local items = { 1, 2 }
          local one, five, seven
          kf.each(items, function() one = print_op { message = "one" } end)
          kf.each(items, function() print_op { message = "two" }:after(one) end)
          kf.each(items, function()
            local three = print_op { message = "three" }
            kf.each(items, function() print_op { message = "four" }:after(three) end)
          end)
          kf.each(items, function() five = print_op { message = "five" } end)
          print_op { message = "six" }:after(five)
          kf.each(items, function()
            kf.each(items, function() seven = print_op { message = "seven" } end)
            print_op { message = "eight" }:after(seven)
          end)
        end,
      })
    end,
  },
  {
    name = "conditional_producer_and_consumer", golden = "conditional_producer_and_consumers.yaml",
    compile = function(kf, official)
      local double = kf.component(official("double", { inputs = { num = "int" }, outputs = { Output = "int" } }))
      local add = kf.component(official("add", { inputs = { nums = kf.list "int" }, outputs = { Output = "int" } }))
      return kf.compile(kf.pipeline "math-pipeline" {
        params = { threshold = { "int", default = 2 } },
        build = function(_, params)
          local doubled, sum
          kf.each({ 1, 2, 3 }, function(x)
            kf.when(kf.ge(x, params.threshold), function() doubled = double { num = x } end)
          end)
          kf.when(kf.eq(params.threshold, 2), function() sum = add { nums = kf.collected(doubled.output) } end)
          return kf.collected(sum.output)
        end,
      })
    end,
  },
  {
    name = "collected_artifacts", golden = "collected_artifacts.yaml",
    compile = function(kf, official)
      local function op(label, inputs, outputs)
        return kf.component(official(label, { inputs = inputs, outputs = outputs }))
      end
      local split_ids = op("split-ids", { model_ids = "string" }, { Output = "list" })
      local split_chars = op("split-chars", { model_ids = "string" }, { Output = "list" })
      local create_file = op("create-file", { content = "string" }, { file = kf.Artifact })
      local read_file = op("read-single-file", { file = kf.Artifact }, { Output = "string" })
      local create_dataset = op("create-dataset", { content = "string" }, { data = kf.Dataset })
      local generate = op("read-single-dataset-generate-model", { data = kf.Dataset, id = "string" },
        { results = kf.Model })
      local read_datasets = op("read-datasets", { data = kf.list(kf.Dataset) }, { Output = "string" })
      local read_models = op("read-models", { models = kf.list(kf.Model) }, { Output = "string" })
      local node = kf.pipeline "single-node-dag" {
        params = { char = "string" },
        build = function(_, params) return create_dataset { content = params.char }:cache(false).outputs.data end,
      }
      local collecting = kf.pipeline "collecting-artifacts" {
        params = { model_ids = { "string", default = "" }, model_chars = { "string", default = "" } },
        build = function(_, params)
          local ids = split_ids { model_ids = params.model_ids }:cache(false)
          local chars = split_chars { model_ids = params.model_chars }:cache(false)
          local models
          kf.each(ids.output, function(id)
            local file = create_file { content = id }:cache(false)
            read_file { file = file.outputs.file }:cache(false)
            local data
            kf.each(chars.output, function(char)
              data = node { char = char }:cache(false)
              models = generate { data = data.output, id = id }:cache(false)
            end)
            read_models { models = kf.collected(models.outputs.results) }:cache(false)
            read_datasets { data = kf.collected(data.output) }:cache(false)
          end)
          return kf.collected(models.outputs.results)
        end,
      }
      return kf.compile(kf.pipeline "collected-artifact-pipeline" {
        build = function()
          local found = collecting { model_ids = "s1,s2,s3", model_chars = "x,y,z" }:cache(false)
          read_models { models = found.output }:cache(false)
        end,
      })
    end,
  },
  {
    name = "list_of_artifacts", golden = "pythonic_artifacts_with_list_of_artifacts.yaml",
    compile = function(kf, official)
      local make = kf.component(official("make-dataset", { inputs = { text = "string" },
        outputs = { Output = kf.Dataset } }))
      local join = kf.component(official("join-datasets", {
        inputs = { datasets = kf.list(kf.Dataset) }, outputs = { Output = kf.Dataset },
      }))
      return kf.compile(kf.pipeline "make-and-join-datasets" {
        params = { texts = { kf.list "string", default = { "Hello", ",", " ", "world!" } } },
        build = function(_, params)
          local made
          kf.each(params.texts, function(text) made = make { text = text } end)
          return join { datasets = kf.collected(made.output) }.output
        end,
      })
    end,
  },
  {
    name = "loop_over_artifacts", golden = "pipeline_with_parallelfor_list_artifacts_GH-12033.yaml",
    compile = function(kf, official)
      local show = kf.component(official("print-artifact-name",
        { inputs = { artifact = kf.Artifact }, outputs = { Output = "string" } }))
      local make = {
        artifact = kf.component(official("make-artifact", { inputs = { data = "string" },
          outputs = { Output = kf.Artifact } })),
        dataset = kf.component(official("make-dataset", { inputs = { data = "string" },
          outputs = { Output = kf.Dataset } })),
      }
      local function many(name, component)
        return kf.pipeline(name) {
          params = { texts = { kf.list "string", default = { "Hello", ",", " ", "world!" } } },
          build = function(_, params)
            local made
            kf.each(params.texts, function(text) made = component { data = text } end)
            return kf.collected(made.output)
          end,
        }
      end
      local artifacts, datasets = many("make-artifacts", make.artifact), many("make-datasets", make.dataset)
      return kf.compile(kf.pipeline "pipeline-parallelfor-artifacts" {
        build = function()
          local a, d = artifacts {}, datasets {}
          kf.each(a.output, function(item) show { artifact = item } end)
          kf.each(d.output, function(item) show { artifact = item } end)
        end,
      })
    end,
  },
  {
    name = "optional_artifacts_and_importer", golden = "components_with_optional_artifacts.yaml",
    compile = function(kf, official)
      local printer = kf.component(official("python-artifact-printer",
        { inputs = { artifact = { kf.Artifact, optional = true } } }))
      local custom = kf.component {
        name = "custom_artifact_printer", image = "alpine", inputs = { artifact = { kf.Artifact, optional = true } },
        command = kf.if_present {
          "artifact", then_ = { "echo", kf.input_uri "artifact" }, else_ = { "echo", "No artifact provided!" },
        },
      }
      local inner = kf.pipeline "inner-pipeline" {
        params = { dataset = { kf.Dataset, optional = true } },
        build = function(_, params) printer { artifact = params.dataset } end,
      }
      return kf.compile(kf.pipeline "optional-artifact-pipeline" {
        params = { dataset1 = { kf.Dataset, optional = true } },
        build = function(_, params)
          local found = kf.importer { uri = "gs://ml-pipeline-playground/shakespeare1.txt", type = kf.Dataset }
          inner { dataset = found.output }
          inner {}
          custom { artifact = params.dataset1 }
          custom {}
        end,
      })
    end,
  },
  {
    name = "importer_into_workspace", golden = "pipeline_with_importer_workspace.yaml",
    compile = function(kf, official)
      local function op(label, inputs, outputs)
        return kf.component(official(label, { inputs = inputs, outputs = outputs }))
      end
      local write_file = op("write-file-artifact", {}, { out_ds = kf.Dataset })
      local write_dir = op("write-dir-artifact", {}, { out_ds = kf.Dataset })
      local get_uri = op("get-uri", { d = kf.Dataset }, { Output = "string" })
      local train = op("train", { dataset = kf.Dataset }, { scalar = "string", message = "string" })
      local read_dir = op("read-dir", { data = kf.Dataset }, { Output = "string" })
      local stage = kf.pipeline "import-stage" {
        params = { file_uri = "string", dir_uri = "string" },
        config = { workspace = { size = "1Gi" } },
        build = function(_, params)
          local file = kf.importer {
            uri = params.file_uri, type = kf.Dataset, metadata = { key = "value" }, download_to_workspace = true,
          }
          local folder = kf.importer {
            uri = params.dir_uri, type = kf.Dataset, reimport = true, metadata = { source = "directory" },
              download_to_workspace = true,
          }
          local trained = train { dataset = file.output }
          local listed = read_dir { data = folder.output }
          return { train_result = trained.outputs.scalar, dir_result = listed.output }
        end,
      }
      return kf.compile(kf.pipeline "pipeline-with-importer-workspace" {
        description = "Importer downloads an artifact into workspace; downstream reads it",
        config = { workspace = { size = "1Gi", storage_class = "standard", access_modes = { "ReadWriteOnce" } } },
        build = function()
          local file, folder = write_file {}, write_dir {}
          local both = stage {
            file_uri = get_uri { d = file.outputs.out_ds }.output,
              dir_uri = get_uri { d = folder.outputs.out_ds }.output,
          }
          return { train_result = both.outputs.train_result, dir_result = both.outputs.dir_result }
        end,
      })
    end,
  },
  {
    name = "nested_pipeline_with_outputs", golden = "pipeline_with_outputs.yaml",
    compile = function(kf, official)
      local print1 = kf.component(official("print-op1", { inputs = { msg = "string" },
        outputs = { Output = "string" } }))
      local print2 = kf.component {
        name = "print-op2", image = "alpine", inputs = { msg = "string" }, outputs = { data = kf.Artifact },
        command = { "sh", "-c", [[mkdir --parents $(dirname "$1") && echo "$0" > "$1"]] },
        args = { kf.input "msg", kf.output_path "data" },
      }
      local inner = kf.pipeline "inner-pipeline" {
        params = { msg = "string" }, outputs = { msg = "string", data = kf.Artifact },
        build = function(_, params)
          local first = print1 { msg = params.msg }
          return { msg = first.output, data = print2 { msg = first.output }.outputs.data }
        end,
      }
      return kf.compile(kf.pipeline "pipeline-in-pipeline" {
        params = { msg = { "string", default = "Hello" } },
        build = function(_, params)
          print1 { msg = params.msg }
          return inner { msg = "world" }.outputs.data
        end,
      })
    end,
  },
}
