-- Placeholders in a container's command and arguments, in constants of a task's inputs, and in an importer's metadata.
--
-- A context is a table: `parameters` (name -> value), `artifacts` (name -> list of { name, type, uri, path,
-- metadata }), `output_files` (name -> path), `output_artifacts` (as artifacts), `output_file`
-- (output_metadata.json), `job` (what {{$.pipeline_...}} stand for), `executor_input()` (the JSON text of
-- {{$}}), `warn(text)`.
local json = require "local.json"

local placeholder = {}

--- How a parameter's value reads as text: whole numbers without a fraction, true/false, lists and structs as JSON.
function placeholder.text_of(value)
  if type(value) == "string" then
    return value
  elseif value == nil or value == json.null then
    return ""
  elseif math.type(value) == "float" then
    if value == math.floor(value) and math.abs(value) < 2 ^ 63 then
      return ("%d"):format(value)
    end
    local short = ("%.15g"):format(value)
    return tonumber(short) == value and short or ("%.17g"):format(value)
  elseif type(value) == "number" or type(value) == "boolean" then
    return tostring(value)
  end
  return json.encode(value)
end

local text_of = placeholder.text_of

local function artifact_part(list, rest, name, context)
  if not list then
    context.warn(("artifact '%s' is not given; its placeholder becomes an empty text"):format(name))
    return ""
  end
  if rest == "" then
    return json.encode(placeholder.artifact_list(list))
  end
  local first = list[1]
  if not first then
    return ""
  elseif rest == ".uri" then
    return first.uri or ""
  elseif rest == ".path" then
    return first.path or first.uri or ""
  elseif rest == ".name" then
    return first.name or ""
  elseif rest == ".metadata" then
    return json.encode(first.metadata or {})
  end
  local key = rest:match("^%.metadata%['(.-)'%]$")
  if key then
    return text_of((first.metadata or {})[key])
  end
end

--- Artifacts as the executor input has them: { artifacts = [ { name, type, uri, metadata } ] }.
function placeholder.artifact_list(list)
  local items = json.array({})
  for i, artifact in ipairs(list) do
    items[i] = { name = artifact.name, type = artifact.type, uri = artifact.uri, metadata = artifact.metadata or {} }
  end
  return { artifacts = items }
end

-- The text for what stands between {{$ and }}, or nil when nothing of that name is known.
local function resolve(path, context)
  if path == "" then
    return context.executor_input and context.executor_input()
  end
  local name, rest = path:match("^%.inputs%.parameters%['(.-)'%](.*)$")
  if name and rest == "" then
    local value = context.parameters and context.parameters[name]
    if value == nil then
      context.warn(("input '%s' is not given; its placeholder becomes an empty text"):format(name))
    end
    return text_of(value)
  end
  name, rest = path:match("^%.inputs%.artifacts%['(.-)'%](.*)$")
  if name and context.artifacts then
    return artifact_part(context.artifacts[name], rest, name, context)
  end
  name = path:match("^%.outputs%.parameters%['(.-)'%]%.output_file$")
  if name then
    return context.output_files and context.output_files[name]
  end
  name, rest = path:match("^%.outputs%.artifacts%['(.-)'%](.*)$")
  if name and context.output_artifacts and context.output_artifacts[name] then
    return artifact_part(context.output_artifacts[name], rest, name, context)
  end
  if path == ".outputs.output_file" or path == ".outputs.output_metadata_uri" then
    return context.output_file
  end
  return context.job and context.job[path:sub(2)]
end

-- {{$.json_escape[N].X}} is X escaped N times for a JSON text.
local function resolve_escaped(path, context)
  local times, rest = path:match("^%.json_escape%[(%d+)%](.*)$")
  if not times then
    return resolve(path, context)
  end
  local text = resolve(rest, context)
  for _ = 1, text and math.min(tonumber(times), 4) or 0 do
    text = json.encode(text):sub(2, -2)
  end
  return text
end

--- Replaces every placeholder of a text. Unknown ones stay as they are, with a warning.
function placeholder.expand(text, context)
  if not text:find("{{$", 1, true) then
    return text
  end
  return (text:gsub("{{%$(.-)}}", function(path)
    local value = resolve_escaped(path, context)
    if value == nil then
      context.warn(("nothing is known as {{$%s}}; it stays as it is"):format(path))
    end
    return value
  end))
end

local function compound(text)
  if not (text:find("^%s*{%s*\"Concat\"") or text:find("^%s*{%s*\"IfPresent\"")) then
    return nil
  end
  local ok, tree = pcall(json.decode, text)
  if ok and type(tree) == "table" and (tree.Concat or tree.IfPresent) then
    return tree
  end
end

local expand_into

-- The branch of an IfPresent, or nil.
local function branch(node, context)
  local name = node.InputName or node.inputName or ""
  local value = context.parameters and context.parameters[name]
  local artifacts = context.artifacts and context.artifacts[name]
  local present = (value ~= nil and value ~= json.null) or (artifacts and #artifacts > 0)
  if present then
    return node.Then or node["then"]
  end
  return node.Else or node["else"]
end

local function as_text(node, context)
  if type(node) ~= "table" then
    local text = text_of(node)
    local tree = compound(text)
    return tree and as_text(tree, context) or placeholder.expand(text, context)
  end
  local pieces = {}
  local list = node.Concat or node
  if node.IfPresent then
    local chosen = branch(node.IfPresent, context)
    return chosen == nil and "" or as_text(chosen, context)
  end
  for i, item in ipairs(list) do
    pieces[i] = as_text(item, context)
  end
  return table.concat(pieces)
end

expand_into = function(words, node, context)
  if type(node) ~= "table" then
    local text = text_of(node)
    local tree = compound(text)
    if tree then
      return expand_into(words, tree, context)
    end
    words[#words + 1] = placeholder.expand(text, context)
  elseif node.Concat then
    words[#words + 1] = as_text(node, context)
  elseif node.IfPresent then
    local chosen = branch(node.IfPresent, context)
    if chosen ~= nil then
      expand_into(words, chosen, context)
    end
  else
    for _, item in ipairs(node) do
      expand_into(words, item, context)
    end
  end
end

--- A command or argument list with everything in it replaced: Concat gives one word, IfPresent as many as its
--- branch has.
function placeholder.words(list, context)
  local words = {}
  for _, item in ipairs(list or {}) do
    expand_into(words, item, context)
  end
  return words
end

--- A tree (constants, metadata) with every text in it replaced. A text that is exactly one placeholder of an
--- input keeps the input's kind.
function placeholder.tree(node, context)
  if type(node) == "string" then
    local name = node:match("^{{%$%.inputs%.parameters%['([^']*)'%]}}$")
    if name and context.parameters and context.parameters[name] ~= nil and context.keep_kind then
      return context.parameters[name]
    end
    return placeholder.expand(node, context)
  elseif type(node) ~= "table" or node == json.null then
    return node
  end
  local copy = setmetatable({}, getmetatable(node))
  for key, value in pairs(node) do
    local new_key = type(key) == "string" and placeholder.expand(key, context) or key
    copy[new_key] = placeholder.tree(value, context)
  end
  return copy
end

return placeholder
