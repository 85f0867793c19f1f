-- Importers: a task that makes an artifact of something which is there already.
local channel = require "kubeflow.channel"
local component = require "kubeflow.component"
local fail = require "kubeflow.fail"
local placeholder = require "kubeflow.placeholder"
local types = require "kubeflow.types"

local KEYS = { uri = true, type = true, reimport = true, metadata = true, download_to_workspace = true }

--- Turns the references inside metadata into inputs of the importer; one input per channel.
local function metadata_inputs(value, inputs, arguments)
  if value == nil then return nil end
  local embedded = channel.embedded(value)
  local by_channel = {}
  for i, entry in ipairs(embedded) do
    local name = i == 1 and "metadata" or "metadata-" .. i
    by_channel[entry.channel] = name
    inputs[name] = { type = entry.channel.type }
    arguments[name] = channel.reference(entry.channel)
  end
  return channel.replace(value, embedded, function(c) return placeholder.input_value(by_channel[c]) end)
end

--- importer{ uri =, type =, reimport?, metadata?, download_to_workspace? } -> task with one output, `artifact`
---   uri       string or reference   where it is
---   type      artifact type         kubeflow.Dataset
---   reimport  boolean               also when it was imported before
---   metadata  table                 its properties; texts and keys may embed references
return function(spec)
  if type(spec) ~= "table" then fail.raise("importer takes { uri =, type = }") end
  fail.check_keys("importer", spec, KEYS)
  local t = types.from(spec.type, "importer")
  if not t.artifact then fail.raise("importer: %s is no artifact type", types.show(t)) end
  if spec.uri == nil then fail.raise("importer needs a uri") end
  local inputs, arguments = { uri = { type = types.of_parameter "STRING" } }, { uri = spec.uri }
  local metadata = metadata_inputs(spec.metadata, inputs, arguments)
  return component.wrap {
    name = "importer", inputs = inputs, input_names = fail.sorted_keys(inputs),
    outputs = { artifact = { type = t } }, output_names = { "artifact" },
    importer = {
      type = t, reimport = spec.reimport == true, metadata = metadata,
      download_to_workspace = spec.download_to_workspace == true,
    },
  } (arguments)
end
