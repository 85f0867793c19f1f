-- From a container executor of the IR and an image to what exactly is started: words, environment, folders, limits.
local ir = require "local.runner.ir"
local json = require "local.json"
local placeholder = require "local.runner.placeholder"

local map = ir.map
local container = {}

local units = { [""] = 1, m = 0.001, k = 1e3, M = 1e6, G = 1e9, T = 1e12, P = 1e15, E = 1e18, Ki = 2 ^ 10,
  Mi = 2 ^ 20, Gi = 2 ^ 30,
                Ti = 2 ^ 40, Pi = 2 ^ 50, Ei = 2 ^ 60 }

--- A Kubernetes quantity ("512Mi", "2G", "1e9", a number) in bytes, or nil.
function container.bytes(quantity)
  if type(quantity) == "number" then
    return math.tointeger(math.ceil(quantity))
  end
  local number, unit = tostring(quantity):match("^([%d.]+[eE]?[+-]?%d*)([kKMGTPEim]*)$")
  if number and tonumber(number) and units[unit] then
    return math.tointeger(math.ceil(tonumber(number) * units[unit]))
  end
end

--- The memory limit of an executor in bytes; nil when there is none; nil and a text when it cannot be read.
function container.memory_limit(resources, context)
  local text = resources.resourceMemoryLimit
  if type(text) == "string" and text ~= "" then
    local expanded = placeholder.expand(text, context)
    local bytes = container.bytes(expanded)
    if not bytes then
      return nil, ("the memory limit '%s' is no quantity (examples: 512Mi, 2G)"):format(expanded)
    end
    return bytes
  elseif tonumber(resources.memoryLimit) then
    -- the older field counts in GB (10^9 bytes)
    return math.tointeger(math.ceil(tonumber(resources.memoryLimit) * 1e9))
  end
end

--- Files and artifacts that a task may write; what its placeholders of outputs stand for.
function container.outputs(leaf, store)
  local parameters, artifacts = {}, {}
  local definitions = map(leaf.component.outputDefinitions)
  for name in pairs(map(definitions.parameters)) do
    parameters[name] = "/tmp/kfp/outputs/" .. name
  end
  for name, definition in pairs(map(definitions.artifacts)) do
    artifacts[name] = { store:record(name, definition, store:uri(leaf.node.key, name), map(definition.metadata)) }
  end
  return { parameters = parameters, artifacts = artifacts, metadata = "/tmp/kfp_outputs/output_metadata.json" }
end

local function artifact_map(all)
  local result = {}
  for name, list in pairs(all) do
    result[name] = placeholder.artifact_list(list)
  end
  return json.object(result)
end

--- The text of {{$}}: the ExecutorInput message.
function container.executor_input(leaf, outputs)
  local files = {}
  for name, path in pairs(outputs.parameters) do
    files[name] = { outputFile = path }
  end
  return json.encode({
    inputs = { parameterValues = json.object(leaf.parameters), artifacts = artifact_map(leaf.artifacts) },
    outputs = { parameters = json.object(files), artifacts = artifact_map(outputs.artifacts),
      outputFile = outputs.metadata },
  }, { sorted = true })
end

--- What the executor's placeholders stand for.
function container.context(leaf, outputs, warn)
  return {
    parameters = leaf.parameters, artifacts = leaf.artifacts, output_files = outputs.parameters,
    output_artifacts = outputs.artifacts, output_file = outputs.metadata, job = leaf.job, warn = warn,
    executor_input = function() return container.executor_input(leaf, outputs) end,
  }
end

--- The words to start: the executor's command replaces the image's ENTRYPOINT, its args replace the image's
--- CMD. Without a command of its own the image's entrypoint stays; CMD counts only when the executor has
--- neither.
function container.words(spec, config, context)
  local command = placeholder.words(map(spec.command), context)
  local args = placeholder.words(map(spec.args), context)
  local has_command = #map(spec.command) > 0
  local words = has_command and command or table.move(map(config.Entrypoint), 1, #map(config.Entrypoint), 1, {})
  if not has_command and #map(spec.args) == 0 then
    args = map(config.Cmd)
  end
  table.move(args, 1, #args, #words + 1, words)
  return words
end

local function numbers_of(line)
  local fields = {}
  for field in (line .. ":"):gmatch("([^:]*):") do
    fields[#fields + 1] = field
  end
  return fields
end

--- The user of an image ("", "app", "1000", "app:staff", "1000:1000") by the passwd and group files of its
--- root. Returns { uid, gid, home }, or nil and what is wrong.
function container.user(text, read)
  local who, group = (text or ""):match("^([^:]*):?(.*)$")
  who = who ~= "" and who or "0"
  local result = { uid = math.tointeger(tonumber(who)), home = who == "0" and "/root" or "/" }
  for line in (read("etc/passwd") or ""):gmatch("[^\n]+") do
    local fields = numbers_of(line)
    if fields[1] == who or (result.uid and tonumber(fields[3]) == result.uid) then
      result.uid, result.gid = math.tointeger(tonumber(fields[3])), math.tointeger(tonumber(fields[4]))
      result.home = fields[6] ~= "" and fields[6] or result.home
      break
    end
  end
  if not result.uid then
    return nil, ("the image's user '%s' is not in its /etc/passwd"):format(who)
  end
  if group ~= "" then
    result.gid = math.tointeger(tonumber(group))
    for line in (read("etc/group") or ""):gmatch("[^\n]+") do
      local fields = numbers_of(line)
      if fields[1] == group then
        result.gid = math.tointeger(tonumber(fields[3]))
      end
    end
    if not result.gid then
      return nil, ("the image's group '%s' is not in its /etc/group"):format(group)
    end
  end
  result.gid = result.gid or 0
  return result
end

--- The environment as a sorted list of NAME=value; later maps win over earlier ones.
function container.environment(config, user, ...)
  local all = { PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", HOME = user.home }
  for _, line in ipairs(map(config.Env)) do
    local name, value = line:match("^([^=]+)=(.*)$")
    if name then
      all[name] = value
    end
  end
  for _, more in ipairs { ... } do
    for name, value in pairs(more) do
      all[name] = value
    end
  end
  local list = {}
  for name, value in pairs(all) do
    if type(name) == "string" and not name:find("[=%z]") and not tostring(value):find("%z") then
      list[#list + 1] = name .. "=" .. tostring(value)
    end
  end
  table.sort(list)
  return list
end

return container
