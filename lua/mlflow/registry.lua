-- The model registry: registered models, their versions, aliases and stages.
-- https://mlflow.org/docs/latest/rest-api.html, "Registered Models" and "Model Versions".
local host = require "host"
local pages = require "pages"
local wire = require "mlflow.wire"

local api = host.mlflow
local registry = {}

local Model, Version = {}, {}
for _, class in ipairs { Model, Version } do class.__index = class end

local each, pairs_list, to_map, quoted = wire.each, wire.pairs_list, wire.to_map, wire.quoted
local ambiguous, collect = pages.ambiguous, pages.collect

local function version_of(model, found)
  return setmetatable({
    model = model, name = found.name, version = tostring(found.version), run_id = found.run_id, source = found.source,
    description = found.description, stage = found.current_stage, status = found.status, tags = to_map(found.tags),
    aliases = found.aliases or {},
  }, Version)
end

--- A version object, number or text -> the text that the API wants.
local function version_text(version)
  if type(version) == "table" then return version.version end
  if math.type(version) == "float" and version % 1 == 0 then version = math.tointeger(version) end
  return tostring(version)
end

--- model:ensure{ description?, tags? }: registers the name when it is not.
function Model:ensure(options)
  options = options or {}
  local made, err = try(api.create_registered_model, {
    client = self.ml.client, name = self.name, description = options.description,
    tags = options.tags and next(options.tags) ~= nil and pairs_list(options.tags) or nil,
  })
  if not made and err.code ~= "exists" then
    if not (ambiguous(err) and try(api.get_registered_model, { client = self.ml.client, name = self.name })) then
      error(err, 0)
    end
  end
  return self
end

--- model:get() -> { name, description, tags, aliases }
function Model:get()
  local found = api.get_registered_model({ client = self.ml.client, name = self.name }).registered_model
  local aliases = {}
  for _, item in ipairs(found.aliases or {}) do aliases[item.alias] = item.version end
  return { name = found.name, description = found.description, tags = to_map(found.tags), aliases = aliases }
end

--- model:create_version{ run? | run_id?, source, description?, tags? } -> version; registers the name when needed
---   source  string  URI of the folder: run.artifact_uri .. "/model"
function Model:create_version(options)
  self:ensure()
  local run_id = options.run_id or options.run and options.run.id
  local function create()
    return try(api.create_model_version, {
      client = self.ml.client, name = self.name, source = options.source, run_id = run_id,
      description = options.description,
      tags = options.tags and next(options.tags) ~= nil and pairs_list(options.tags) or nil,
    })
  end
  local reply, err = create()
  if not reply and ambiguous(err) then
    local made = run_id and self:find_version { run_id = run_id, source = options.source }
    if made then return made end
    reply, err = create()
  end
  if not reply then error(err, 0) end
  return version_of(self, reply.model_version)
end

--- model:versions{ filter?, limit? } -> list, newest first
function Model:versions(options)
  options = options or {}
  local filter = "name = " .. quoted(self.name)
  if options.filter then filter = filter .. " and " .. options.filter end
  local list = collect(each(api.search_model_versions, { client = self.ml.client, filter = filter }, options.limit,
    function(found) return version_of(self, found) end))
  table.sort(list, function(a, b) return tonumber(a.version) > tonumber(b.version) end)
  return list
end

--- model:find_version{ run_id, source? } -> the newest version that this run made, or nil
function Model:find_version(options)
  for _, version in ipairs(self:versions { filter = "run_id = " .. quoted(options.run_id) }) do
    if not options.source or version.source == options.source then return version end
  end
  return nil
end

--- model:version(number) -> version; model:alias(name) -> version, or nil when no version has that alias
function Model:version(version)
  local reply = api.get_model_version { client = self.ml.client, name = self.name, version = version_text(version) }
  return version_of(self, reply.model_version)
end

function Model:alias(alias)
  local reply, err = try(api.get_by_alias, { client = self.ml.client, name = self.name, alias = alias })
  if reply then return version_of(self, reply.model_version) end
  -- a server says "not found" for a model that is not there, "invalid" for an alias that is not
  local message = tostring(err.message):lower()
  if err.code == "not_found" or err.code == "invalid" and message:find("alias", 1, true) then return nil end
  error(err, 0)
end

--- model:set_alias(alias, version) moves the alias; model:delete_alias(alias)
function Model:set_alias(alias, version)
  api.set_alias { client = self.ml.client, name = self.name, alias = alias, version = version_text(version) }
end

function Model:delete_alias(alias)
  api.delete_alias { client = self.ml.client, name = self.name, alias = alias }
end

--- model:transition(version, stage, archive_existing?) -> version; stage: "None", "Staging", "Production", "Archived".
--- MLflow deprecates stages in favour of aliases.
function Model:transition(version, stage, archive_existing)
  local reply = api.transition_stage {
    client = self.ml.client, name = self.name, version = version_text(version), stage = stage,
    archive_existing_versions = archive_existing or false,
  }
  return version_of(self, reply.model_version)
end

--- model:latest(stages?) -> list: the latest version of each stage
function Model:latest(stages)
  local reply = api.get_latest_versions { client = self.ml.client, name = self.name, stages = stages }
  local list = {}
  for i, found in ipairs(reply.model_versions or {}) do list[i] = version_of(self, found) end
  return list
end

--- model:describe(text), version:describe(text): sets the description
function Model:describe(text)
  api.update_registered_model { client = self.ml.client, name = self.name, description = text }
end

--- model:set_tag(name, value), version:set_tag(name, value)
function Model:set_tag(key, value)
  api.set_registered_model_tag { client = self.ml.client, name = self.name, key = key, value = tostring(value) }
end

--- model:delete_tag(name), version:delete_tag(name)
function Model:delete_tag(key)
  api.delete_registered_model_tag { client = self.ml.client, name = self.name, key = key }
end

--- model:rename(name)
function Model:rename(name)
  api.rename_registered_model { client = self.ml.client, name = self.name, new_name = name }
  self.name = name
end

--- model:delete(): with all its versions, for good
function Model:delete() api.delete_registered_model { client = self.ml.client, name = self.name } end

function Version:describe(text)
  api.update_model_version {
    client = self.model.ml.client, name = self.name, version = self.version, description = text,
  }
  self.description = text
end

function Version:set_tag(key, value)
  api.set_model_version_tag {
    client = self.model.ml.client, name = self.name, version = self.version, key = key, value = tostring(value),
  }
  self.tags[key] = tostring(value)
end

function Version:delete_tag(key)
  api.delete_model_version_tag { client = self.model.ml.client, name = self.name, version = self.version, key = key }
  self.tags[key] = nil
end

--- version:download_uri() -> where its artifacts are, as the server stores them
function Version:download_uri()
  return api.get_download_uri({ client = self.model.ml.client, name = self.name, version = self.version }).artifact_uri
end

--- version:delete(): for good
function Version:delete()
  api.delete_model_version { client = self.model.ml.client, name = self.name, version = self.version }
end

--- version:download(to) -> { files, bytes }: what the version holds, into the folder `to`, as far as it is an artifact of its
--- run (which it is when it was registered from one).
function Version:download(to)
  if not self.run_id or self.run_id == "" then
    error(("mlflow: %s version %s has no run, so its artifacts cannot be found"):format(self.name, self.version), 2)
  end
  local run = self.model.ml:run(self.run_id)
  local base = run.artifact_uri .. "/"
  if self.source:sub(1, #base) ~= base then
    error(("mlflow: %s version %s comes from %s, which is not below its run's artifacts (%s)")
      :format(self.name, self.version, self.source, run.artifact_uri), 2)
  end
  return run:download(self.source:sub(#base + 1), to)
end

--- Adds model(name) and models{} to a client's class.
---@private
function registry.extend(Client)
  --- client:model(name) -> model; nothing is asked or made until it is used
  function Client:model(name)
    if type(name) ~= "string" or name == "" then error("mlflow: model(name) needs a name", 2) end
    return setmetatable({ ml = self, name = name }, Model)
  end

  --- client:models{ filter?, order_by?, limit? } -> list of registered models
  function Client:models(options)
    options = options or {}
    return collect(each(api.search_registered_models, {
      client = self.client, filter = options.filter, order_by = options.order_by,
    }, options.limit, function(found)
      return setmetatable({
        ml = self, name = found.name, description = found.description, tags = to_map(found.tags),
        aliases = to_map((function()
          local list = {}
          for i, item in ipairs(found.aliases or {}) do list[i] = { key = item.alias, value = item.version } end
          return list
        end)()),
      }, Model)
    end))
  end
end

return registry
