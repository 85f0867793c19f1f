-- Components alone, their placeholders, types and command lines; pipelines of container components without groups.
local UBI = "registry.access.redhat.com/ubi9/python-311:latest"

return {
  {
    name = "container_no_input", golden = "container_no_input.yaml",
    compile = function(kf)
      return kf.compile(kf.component {
        name = "container_no_input", image = UBI, command = { "echo", "hello world" },
      })
    end,
  },
  {
    name = "hello_world", golden = "hello_world.yaml",
    compile = function(kf)
      return kf.compile(kf.component { name = "echo", image = UBI, command = "echo", args = "hello world" })
    end,
  },
  {
    name = "container_with_artifact_output", golden = "container_with_artifact_output.yaml",
    compile = function(kf)
      return kf.compile(kf.component {
        name = "container_with_artifact_output", image = "gcr.io/my-image", command = { "sh", "run.sh" },
        args = {
          "--epochs", kf.input "num_epochs", "--model_path", kf.output_uri "model", "--model_metadata",
          kf.output_metadata "model", "--model_config_path", kf.output_file "model_config_path",
        },
        inputs = { num_epochs = "int" }, outputs = { model = kf.Model, model_config_path = "string" },
      })
    end,
  },
  {
    name = "container_with_concat_placeholder", golden = "container_with_concat_placeholder.yaml",
    compile = function(kf)
      return kf.compile(kf.component {
        name = "container_with_concat_placeholder", image = UBI,
        command = { "my_program", kf.concat { "prefix-", kf.input "text1", kf.output_uri "text2" } },
        args = { "--output_path", kf.output_file "output_path" },
        inputs = { text1 = "string" }, outputs = { text2 = kf.Dataset, output_path = "string" },
      })
    end,
  },
  {
    name = "container_with_placeholder_in_text", golden = "container_with_placeholder_in_fstring.yaml",
    compile = function(kf)
      return kf.compile(kf.component {
        name = "container_with_placeholder_in_fstring", image = UBI,
        command = { "my_program", "prefix-" .. kf.input "text1", kf.output_uri "output_artifact" .. "/0" },
        inputs = { text1 = { "string", default = "text!" } }, outputs = { output_artifact = kf.Artifact },
      })
    end,
  },
  {
    name = "if_placeholder_without_the_input", golden = "placeholder_with_if_placeholder_none_input_value.yaml",
    compile = function(kf)
      local component = kf.component {
        name = "component_with_optional_inputs", image = "ghcr.io/containerd/busybox", command = { "echo" },
        args = {
          "--arg0", kf.input "required_input",
          kf.if_present { "optional_input_1", then_ = { "--arg1", kf.input "optional_input_1" } },
          kf.if_present {
            "optional_input_2", then_ = { "--arg2", kf.input "optional_input_2" },
            else_ = { "--arg2", "default value" },
          },
        },
        inputs = {
          required_input = "string", optional_input_1 = { "string", optional = true },
          optional_input_2 = { "string", optional = true },
        },
      }
      return kf.compile(kf.pipeline "one-step-pipeline-with-if-placeholder-supply-none" {
        params = { input0 = { "string", default = "input0" } },
        build = function(_, params) component { required_input = params.input0 } end,
      })
    end,
  },
  {
    name = "various_io_types_from_v1", golden = "pipeline_with_various_io_types.yaml",
    compile = function(kf)
      local upstream = kf.from_yaml_text([[
name: upstream
inputs:
  - {name: input_1, type: String}
  - {name: input_2, type: Float}
  - {name: input_3}
  - {name: input_4, type: Text}
outputs:
  - {name: output_1, type: Integer}
  - {name: output_2, type: Model}
  - {name: output_3}
  - {name: output_4, type: Model}
  - {name: output_5, type: List of things}
  - {name: output_6, type: {GCSPath: {data_type: CSV}}}
  - {name: output_7}
  - {name: output_8, type: HTML}
  - {name: output_9, type: google.BQMLModel}
implementation:
  container:
    image: gcr.io/image
    args:
      - {inputValue: input_1}
      - {inputValue: input_2}
      - {inputPath: input_3}
      - {inputValue: input_4}
      - {outputPath: output_1}
      - {outputUri: output_2}
      - {outputPath: output_3}
      - {outputUri: output_4}
      - {outputUri: output_5}
      - {outputPath: output_6}
      - {outputPath: output_7}
      - {outputPath: output_8}
]], "upstream.yaml")
      local downstream = kf.component {
        name = "downstream", image = "gcr.io/image",
        inputs = {
          input_a = "int", input_b = kf.Model, input_c = kf.Artifact, input_d = kf.Model, input_e = kf.Artifact,
          input_f = kf.Artifact, input_g = kf.Artifact, input_h = kf.HTML, input_i = kf.artifact "google.BQMLModel",
        },
        args = {
          kf.input "input_a", kf.input_uri "input_b", kf.input_path "input_c", kf.input_uri "input_d",
          kf.input_uri "input_e", kf.input_path "input_f", kf.input_path "input_g", kf.input_path "input_h",
        },
      }
      return kf.compile(kf.pipeline "pipeline-with-various-types" {
        params = { input1 = "string", input3 = kf.Artifact, input4 = { "string", default = "" } },
        build = function(_, params)
          local up = upstream { input_1 = params.input1, input_2 = 3.1415926, input_3 = params.input3,
            input_4 = params.input4 }
          local o = up.outputs
          downstream {
            input_a = o.output_1, input_b = o.output_2, input_c = o.output_3, input_d = o.output_4,
              input_e = o.output_5,
            input_f = o.output_6, input_g = o.output_7, input_h = o.output_8, input_i = o.output_9,
          }
        end,
      })
    end,
  },
  {
    name = "sequential_v2", golden = "sequential_v2.yaml",
    compile = function(kf)
      local download = kf.component {
        name = "download", image = "google/cloud-sdk", command = { "sh", "-c" },
        args = { "gsutil cp " .. kf.input "url" .. " " .. kf.output_file "downloaded" },
        inputs = { url = "string" }, outputs = { downloaded = "string" },
      }
      local echo = kf.component {
        name = "echo", image = "library/bash", command = { "sh", "-c" }, args = { "echo " .. kf.input "downloaded" },
        inputs = { downloaded = "string" },
      }
      return kf.compile(kf.pipeline "sequential" {
        params = { url = "string" },
        build = function(_, params) echo { downloaded = download { url = params.url }.output } end,
      })
    end,
  },
  {
    name = "input_artifact", golden = "input_artifact.yaml",
    compile = function(kf, official)
      return kf.compile(kf.component(official("input-artifact", { inputs = { data = kf.Dataset } })))
    end,
  },
  {
    name = "component_read_back_from_ir", golden = "identity.yaml",
    compile = function(kf, official)
      local first = kf.compile(kf.component(official("identity", {
        inputs = { value = "string" }, outputs = { Output = "string" },
      })))
      return kf.compile(kf.from_yaml_text(first:yaml(), "identity.yaml"))
    end,
  },
  {
    name = "retry", golden = "pipeline_with_retry.yaml",
    compile = function(kf, official)
      local add = kf.component(official("add", { inputs = { a = "float", b = "float" },
        outputs = { Output = "float" } }))
      return kf.compile(kf.pipeline "test-pipeline" {
        params = { a = { "float", default = 1.0 }, b = { "float", default = 7 } },
        build = function(_, params) add { a = params.a, b = params.b }:retry(3) end,
      })
    end,
  },
  {
    name = "environment", golden = "component_with_env_variable.yaml",
    compile = function(kf, official)
      local read = kf.component(official("read-env-var", {
        inputs = { var_name = "string" }, outputs = { Output = "string" },
      }))
      return kf.compile(kf.pipeline "pipeline-with-env-variable" {
        params = { var_name = { "string", default = "KFP_TEST_ENV_VAR" } },
        build = function(_, params)
          return read { var_name = params.var_name }:env("KFP_TEST_ENV_VAR", "env_var_value").output
        end,
      })
    end,
  },
  {
    name = "placeholders_of_the_run", golden = "pipeline_with_placeholders.yaml",
    compile = function(kf, official)
      local print_all = kf.component(official("print-all-placeholders", {
        inputs = { job_name = "string", job_resource_name = "string", job_id = "string", task_name = "string",
          task_id = "string" },
      }))
      return kf.compile(kf.pipeline "pipeline-with-placeholders" {
        build = function(p)
          print_all {
            job_name = p.run.name, job_resource_name = p.run.resource_name, job_id = p.run.id,
              task_name = p.run.task_name,
            task_id = p.run.task_id,
          }:cache(false)
        end,
      })
    end,
  },
  {
    name = "resources_from_parameters", golden = "pipeline_with_string_machine_fields_pipeline_input.yaml",
    compile = function(kf, official)
      local sum = kf.component(official("sum-numbers", { inputs = { a = "int", b = "int" },
        outputs = { Output = "int" } }))
      return kf.compile(kf.pipeline "pipeline" {
        params = {
          cpu_limit = { "string", default = "4000m" }, memory_limit = { "string", default = "15G" },
          accelerator_type = { "string", default = "NVIDIA_TESLA_P4" }, accelerator_limit = { "string", default = "1" },
        },
        build = function(_, params)
          sum { a = 1, b = 2 }:cpu(params.cpu_limit):memory(params.memory_limit)
            :accelerator { type = params.accelerator_type, count = params.accelerator_limit }
        end,
      })
    end,
  },
  {
    name = "accelerator_and_toleration", golden = "nvidia_gpu_scheduling_check.yaml",
    compile = function(kf)
      local verify = kf.component {
        name = "verify_gpu_scheduled", image = "python:3.11", command = { "sh", "-c" },
        args = { 'echo "GPU scheduling check: PASS"' },
      }
      return kf.compile(kf.pipeline "nvidia-gpu-scheduling-check" {
        description = "Verifies a task requesting nvidia.com/gpu with a matching toleration can schedule and complete "
          .. "(no CUDA/torch assertions).",
        build = function()
          verify():cache(false):accelerator "nvidia.com/gpu"
            :toleration { key = "nvidia.com/gpu", operator = "Exists", effect = "NoSchedule" }
        end,
      })
    end,
  },
  {
    name = "typed_parameters_and_constants", golden = "lightweight_python_functions_pipeline.yaml",
    compile = function(kf, official)
      local preprocess = kf.component(official("preprocess", {
        inputs = { message = "string", input_dict_parameter = kf.dict "int", input_list_parameter = kf.list "string" },
        outputs = {
          output_dataset_one = kf.Dataset, output_dataset_two_path = kf.Dataset, output_parameter_path = "string",
          output_bool_parameter_path = "bool", output_dict_parameter_path = "dict", output_list_parameter_path = "list",
        },
      }))
      local train = kf.component(official("train", {
        inputs = {
          dataset_one_path = kf.Dataset, dataset_two = kf.Dataset, message = "string", input_bool = "bool",
          input_dict = "dict", input_list = "list", num_steps = { "int", default = 100 },
        },
        outputs = { model = kf.Model },
      }))
      return kf.compile(kf.pipeline "my-test-pipeline-beta" {
        params = { message = "string", input_dict = { "dict", default = { A = 1, B = 2 } } },
        build = function(_, params)
          local o = preprocess {
            message = params.message, input_dict_parameter = params.input_dict,
              input_list_parameter = { "a", "b", "c" },
          }.outputs
          train {
            dataset_one_path = o.output_dataset_one, dataset_two = o.output_dataset_two_path,
              message = o.output_parameter_path,
            input_bool = o.output_bool_parameter_path, input_dict = o.output_dict_parameter_path,
            input_list = o.output_list_parameter_path,
          }
        end,
      })
    end,
  },
}
