--- YAML 1.2 (core schema) with limits on size, depth and alias expansion. Errors carry line and column.
local _, vm = ...

local yaml = { null = vm.null, array = vm.array }

--- encode(value) -> text
function yaml.encode(value) return vm.yaml_encode(value) end

--- decode(text, source) -> value of the one document
function yaml.decode(text, source) return vm.yaml_decode(text, source) end

--- decode_all(text, source) -> list of documents
function yaml.decode_all(text, source) return vm.yaml_decode_all(text, source) end

return yaml
