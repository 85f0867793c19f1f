-- Results by content: a task whose image, command, environment and inputs are those of an earlier success gets
-- its outputs.
local json = require "local.json"

local cache = {}
local store = {}
store.__index = store

--- options: fs, sha256(text) -> hex, folder, digest(path) -> text (in a coroutine).
function cache.new(options)
  return setmetatable(options, store)
end

local function of_artifacts(all)
  local result = {}
  for name, list in pairs(all) do
    local items = json.array({})
    for i, artifact in ipairs(list) do
      -- What is not on this machine can only be known by its address.
      items[i] = { artifact.digest or artifact.uri, artifact.metadata }
    end
    result[name] = items
  end
  return result
end

--- The key of a task: a digest over everything that its outputs may depend on.
function store:key(leaf, image_digest, extra)
  local container = leaf.executor.container
  local custom = (leaf.task.cachingOptions or {}).cacheKey
  local what
  if custom and custom ~= "" then
    what = { key = custom, outputs = leaf.component.outputDefinitions }
  else
    what = {
      image = image_digest, command = container.command, args = container.args, env = container.env,
      parameters = leaf.parameters, artifacts = of_artifacts(leaf.artifacts),
        outputs = leaf.component.outputDefinitions,
      extra = extra,
    }
  end
  return self.sha256(json.encode(what, { sorted = true }))
end

--- The stored result of a key, or nil when there is none or a file of it has changed or gone since.
function store:get(key)
  local text = self.fs.read(("%s/%s.json"):format(self.folder, key), 16 << 20)
  local ok, entry = pcall(json.decode, text or "")
  if not text or not ok then
    return nil
  end
  for _, list in pairs(entry.artifacts) do
    for _, artifact in ipairs(list) do
      if artifact.host and (not self.fs.kind(artifact.host) or self.digest(artifact.host) ~= artifact.digest) then
        return nil
      end
    end
  end
  return entry
end

function store:put(key, result, from)
  self.fs.mkdir(self.folder)
  self.fs.write(("%s/%s.json"):format(self.folder, key),
                json.encode({ parameters = result.parameters, artifacts = result.artifacts, from = from }))
end

return cache
