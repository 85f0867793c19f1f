-- The platform document: secrets, config maps, volumes, and where a task's pod may run.

--- One task with the settings that `set` gives it.
local function one(name, label, pipeline, set)
  return {
    name = name, golden = "k8s_" .. name .. ".yaml",
    compile = function(kf, official)
      local component = kf.component(official(label, {}))
      return kf.compile(kf.pipeline(pipeline) { build = function() set(component {}, kf) end })
    end,
  }
end

local cases = {
  one("secret_as_env", "comp", "my-pipeline", function(task) task:secret_env("my-secret",
    { password = "SECRET_VAR" }) end),
  one("config_map_as_env", "comp", "my-pipeline", function(task) task:config_map_env("my-cm",
    { foo = "CONFIG_MAP_VAR" }) end),
  one("config_map_as_vol", "comp", "my-pipeline", function(task) task:config_map_volume("my-cm", "/mnt/my_vol") end),
  one("node_selector", "comp", "my-pipeline", function(task)
    task:node_selector { ["cloud.google.com/gke-accelerator"] = "nvidia-tesla-p4" }
  end),
  one("toleration", "comp", "my-pipeline", function(task)
    task:toleration { key = "key1", operator = "Equal", value = "value1", effect = "NoExecute", seconds = 10 }
  end),
  one("timeout", "comp", "my-pipeline", function(task) task:timeout "20s" end),
  one("image_pull_secrets", "comp", "my-pipeline", function(task) task:image_pull_secrets "my-secret" end),
  one("general_ephemeral_volume", "comp", "my-pipeline", function(task)
    task:ephemeral_volume {
      name = "pvc-name", path = "path", access_modes = { "ReadWriteOnce" }, size = "5Gi",
        annotations = { annotation1 = "a1" },
    }
  end),
  one("security_context", "print-greeting", "my-pipeline", function(task) task:security_context { user = 65534,
    group = 0 } end),
  one("field_path_as_env", "comp", "my-pipeline", function(task)
    task:field_env("KFP_RUN_NAME", "metadata.annotations['pipelines.kubeflow.org/run_name']")
  end),
  one("init_container", "print-greeting", "my-pipeline", function(task)
    task:empty_dir { name = "shared-data", path = "/data" }:init_container {
      name = "prepare-data", image = "busybox:1.36", command = { "sh", "-c" }, args = { "echo ready > /data/marker" },
      env = { MARKER_TEXT = "ready" }, mounts = { ["shared-data"] = "/data" },
    }
  end),
  {
    name = "volume_claim_made_and_deleted", golden = "k8s_create_mount_delete_existing_pvc.yaml",
    compile = function(kf, official)
      local comp = kf.component(official("comp", {}))
      return kf.compile(kf.pipeline "my-pipeline" {
        build = function()
          local claim = kf.create_pvc {
            pvc_name = "static-pvc-name-cmdep", access_modes = { "ReadWriteOnce" }, size = "5Gi",
              storage_class_name = "standard",
          }
          local task = comp {}:mount_pvc { claim = claim.outputs.name, path = "/data" }
          kf.delete_pvc { pvc_name = claim.outputs.name }:after(task)
        end,
      })
    end,
  },
  {
    name = "volume_claim_in_loop", golden = "parallel_for_mount_pvc.yaml",
    compile = function(kf, official)
      local example = kf.component(official("example-component",
        { inputs = { item = "string" }, outputs = { Output = "string" } }))
      return kf.compile(kf.pipeline "pipeline-parallel-for-mount-pvc" {
        description = "Pipeline with 1 component inside ParallelFor using mount_pvc.",
        params = { my_pvc_name_suffix = { "string", default = "test-pvc" } },
        build = function()
          local claim = kf.create_pvc {
            pvc_name_suffix = "-my-pvc", access_modes = { "ReadWriteOnce" }, size = "5Mi",
              storage_class_name = "standard",
          }
          kf.each({ "a" }, function(item)
            example { item = item }:mount_pvc { claim = claim.outputs.name, path = "/data" }
          end)
        end,
      })
    end,
  },
  {
    name = "secrets_by_name_parameter_and_output", golden = "pipeline_with_secret_as_env.yaml",
    compile = function(kf, official)
      local comp = kf.component(official("comp", {}))
      local name = kf.component(official("generate-secret-name", { outputs = { some_output = "string" } }))
      return kf.compile(kf.pipeline "pipeline-secret-env" {
        params = { secret_parm = { "string", default = "test-secret-1" } },
        build = function(_, params)
          local made = name {}
          comp {}:secret_env(params.secret_parm, { username = "USER_NAME" })
            :secret_env("test-secret-2", { password = "PASSWORD_VAR1" })
            :secret_env(made.output, { password = "PASSWORD_VAR2" })
        end,
      })
    end,
  },
  {
    name = "secret_as_volume", golden = "pipeline_with_secret_as_volume.yaml",
    compile = function(kf, official)
      local comp = kf.component(official("comp", {}))
      return kf.compile(kf.pipeline "pipeline-secret-volume" {
        params = { secret_param = { "string", default = "test-secret-1" } },
        build = function(_, params) comp {}:secret_volume(params.secret_param, "/mnt/my_vol") end,
      })
    end,
  },
  {
    name = "secret_in_loop", golden = "parallel_for_secret.yaml",
    compile = function(kf, official)
      local example = kf.component(official("example-component",
        { inputs = { item = "string" }, outputs = { Output = "string" } }))
      return kf.compile(kf.pipeline "pipeline-2-parallel-for-secret" {
        description = "Pipeline with 1 component inside ParallelFor using use_secret_as_env.",
        params = { my_secret_name = { "string", default = "test-secret-1" } },
        build = function(_, params)
          kf.each({ "a", "b", "c" }, function(item)
            example { item = item }:secret_env(params.my_secret_name, { username = "MY_SECRET_KEY" })
          end, { parallelism = 1 })
        end,
      })
    end,
  },
}

return cases
