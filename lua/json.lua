--- JSON. Whole numbers stay whole; null is json.null; an empty list keeps being one (json.array).
local _, vm = ...

local json = {
  --- What JSON's null becomes, and what becomes null inside tables.
  null = vm.null,
  --- array(table) -> table. Marks an empty table as a list: [] instead of {}.
  array = vm.array,
  --- is_array(value) -> boolean
  is_array = vm.is_array,
}

--- encode(value, { pretty = true }) -> text. Keys are sorted. Errors name the path of what has no JSON form.
function json.encode(value, options) return vm.json_encode(value, options and options.pretty) end

--- decode(text, source) -> value. source names the text in errors ("config.json").
function json.decode(text, source) return vm.json_decode(text, source) end

return json
