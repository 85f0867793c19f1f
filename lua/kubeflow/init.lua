-- Kubeflow Pipelines: pipelines as Lua, compiled to what the official SDK and servers read, and a client.
--
--   local kf = require "kubeflow"
--   local train = kf.component { name = "train", image = "img:1",
--     command = { "train", "--data", kf.input_path "data" },
--     inputs = { data = kf.Dataset, epochs = { "int", default = 20 } }, outputs = { model = kf.Model } }
--   return kf.pipeline "training" { params = { epochs = { "int", default = 20 } }, build = function(p, params)
--     local prep = kf.load_component "components/preprocess/component.yaml" { run_id = p.run.id }
--     train { data = prep.outputs.train, epochs = params.epochs }:memory { request = "5G", limit = "6G" }
--   end }
--   kf.compile(pipeline):yaml()
--
-- Artifact types: kf.Artifact, Dataset, Model, Metrics, ClassificationMetrics, SlicedClassificationMetrics, HTML, Markdown.
-- Parameter types: "string", "int", "float", "bool", "list", "dict", kf.final_status. Placeholders of a task's run: kf.run.id,
-- name, task_id, task_name, root, create_time and so on; kf.executor_input is the whole task as JSON.
-- Each name is loaded with its module when it is first used.

---@class kubeflow
local kubeflow = {}

local from = {
  ["kubeflow.dsl"] = { "pipeline", "compile", "exit_handler", "when", "branch", "each", "collected", "one_of" },
  ["kubeflow.types"] = { "artifact", "list", "dict", "final_status" },
  ["kubeflow.placeholder"] = {
    "input", "input_list", "input_path", "input_uri", "input_metadata", "output_list", "output_path", "output_uri",
    "output_metadata", "output_file", "concat", "if_present", "executor_input", "run",
  },
  ["kubeflow.loader"] = { "load_component", "from_yaml_text" },
  ["kubeflow.volume"] = { "create_pvc", "delete_pvc" },
}
local module_of = {}
for module, names in pairs(from) do
  for _, name in ipairs(names) do module_of[name] = module end
end

local special = {
  --- component{ ... } -> component declared in Lua
  component = function() return require("kubeflow.component").define end,
  --- importer{ uri =, type = } -> task whose output `artifact` is something that is there already
  importer = function() return require "kubeflow.importer" end,
}
for _, name in ipairs {
  "Artifact", "Dataset", "Model", "Metrics", "ClassificationMetrics", "SlicedClassificationMetrics", "HTML", "Markdown",
} do
  special[name] = function() return require("kubeflow.types").system[name] end
end

--- eq(a, b), likewise ne, lt, le, gt, ge -> condition for when and branch
for name, operator in pairs { eq = "==", ne = "!=", lt = "<", le = "<=", gt = ">", ge = ">=" } do
  special[name] = function()
    local compare = require("kubeflow.condition").compare
    return function(a, b) return compare(operator, a, b, name) end
  end
end

--- connect{ endpoint?, namespace?, auth?, token? } -> client (kubeflow/client.lua)
function kubeflow.connect(...) return require("kubeflow.client").connect(...) end

return setmetatable(kubeflow, { __index = function(self, key)
  local value
  if special[key] then
    value = special[key]()
  elseif module_of[key] then
    value = require(module_of[key])[key]
  else
    local names = { "connect" }
    for name in pairs(special) do names[#names + 1] = name end
    for name in pairs(module_of) do names[#names + 1] = name end
    table.sort(names)
    local fail = require "kubeflow.fail"
    fail.raise("there is no kubeflow.%s%s", tostring(key), fail.near(key, names))
  end
  rawset(self, key, value)
  return value
end })
