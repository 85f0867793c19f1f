-- How a compiled case is compared with the official compiler's output: as data, keys in any order, 1 equal to 1.0.
local json = require "json"

local compare = {}

local function show(value)
  if value == nil then return "nothing" end
  if type(value) ~= "table" then return type(value) .. " " .. tostring(value) end
  local keys = {}
  for key in pairs(value) do keys[#keys + 1] = tostring(key) end
  table.sort(keys)
  return (json.is_array(value) and "list of " .. #value or "map of " .. table.concat(keys, ", "))
end

--- differences(ours, golden, path, out): one line for each
local function differences(ours, golden, path, out)
  if type(ours) ~= "table" or type(golden) ~= "table" or ours == json.null or golden == json.null then
    if ours ~= golden then out[#out + 1] = ("%s: ours %s, official %s"):format(path, show(ours), show(golden)) end
    return
  end
  if json.is_array(ours) ~= json.is_array(golden) then
    out[#out + 1] = ("%s: ours %s, official %s"):format(path, show(ours), show(golden))
    return
  end
  local keys, seen = {}, {}
  for _, side in ipairs { ours, golden } do
    for key in pairs(side) do
      if not seen[key] then keys[#keys + 1], seen[key] = key, true end
    end
  end
  table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
  for _, key in ipairs(keys) do
    differences(ours[key], golden[key], path .. "." .. tostring(key), out)
  end
end

--- documents(package, golden): raises with the differences. The SDK's version is left out.
function compare.documents(package, golden)
  local out = {}
  local spec = {}
  for key, value in pairs(golden[1]) do spec[key] = value end
  spec.sdkVersion = package.spec.sdkVersion
  differences(package.spec, spec, "spec", out)
  differences(package.platform, golden[2], "platform", out)
  if #out > 0 then error(table.concat(out, "\n", 1, math.min(#out, 12)), 0) end
end

--- executors(golden) -> function(component, more) -> component spec of a case with the command line and image of an
--- official executor. Lightweight Python components have their program there; nothing else is taken from the golden.
function compare.executors(golden)
  local executors = golden[1].deploymentSpec.executors
  return function(label, component)
    local container = executors["exec-" .. label].container
    component.name = component.name or label
    component.image = container.image
    component.command, component.args = container.command, container.args
    return component
  end
end

--- error(case, kubeflow): the case must raise a message that has all of its parts, with the line that the case marks.
function compare.error(case, kubeflow)
  local ok, message = pcall(case.run, kubeflow)
  if ok then error("no error was raised", 0) end
  if type(message) ~= "string" then error("the error is a " .. type(message), 0) end
  for _, part in ipairs(case.says) do
    if not message:find(part, 1, true) then error(("lacks %q in: %s"):format(part, message), 0) end
  end
  if not case.anywhere and not message:find "errors%.lua:%d+: " then error("no place of the script in: " .. message,
    0) end
end

return compare
