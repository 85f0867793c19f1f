--- Registered models, their versions, stages, aliases and tags. Searches are in registry_search.lua.
local core = require "local.mlflow.core"
local json = require "json"
local sys = require "sys"
local validate = require "local.mlflow.validate"

local DELETED = "Deleted_Internal" -- the stage of a version that was deleted; its number is never given again
local TAG_LIMIT = 100000

return function(service)
  local db = service.db
  local registry = {}

  -- ---- messages ----

  function service.version_message(v)
    return {
      name = v.name, version = tostring(v.version), creation_timestamp = v.creation_time,
      last_updated_timestamp = v.last_updated_time, description = v.description or "", user_id = v.user_id or "",
      current_stage = v.current_stage, source = v.source, run_id = v.run_id or "", run_link = v.run_link or "",
      status = v.status, status_message = v.status_message, model_id = v.model_id,
      tags = json.array(db:all("SELECT key, value FROM model_version_tags WHERE name = ? AND version = ? ORDER BY key",
        v.name, v.version)),
      aliases = service.aliases_of(v.name, v.version),
    }
  end

  function service.aliases_of(name, version)
    local out = json.array {}
    for i, row in ipairs(db:all([[SELECT alias FROM registered_model_aliases WHERE name = ? AND version = ?
      ORDER BY alias]], name, version)) do out[i] = row.alias end
    return out
  end

  -- The newest version of each stage (or of those given).
  local function latest(name, stages)
    local rows = db:all([[SELECT * FROM model_versions v WHERE name = ? AND current_stage != ? AND version =
      (SELECT max(version) FROM model_versions w WHERE w.name = v.name AND w.current_stage = v.current_stage)
      ORDER BY version]], name, DELETED)
    local out = json.array {}
    for _, row in ipairs(rows) do
      if not stages or stages[row.current_stage] then out[#out + 1] = service.version_message(row) end
    end
    return out
  end

  function service.model_message(m)
    local aliases = json.array(db:all([[SELECT alias, version FROM registered_model_aliases WHERE name = ?
      ORDER BY alias]], m.name))
    for _, a in ipairs(aliases) do a.version = tostring(a.version) end
    return {
      name = m.name, creation_timestamp = m.creation_time, last_updated_timestamp = m.last_updated_time,
      description = m.description or "", latest_versions = latest(m.name), aliases = aliases,
      tags = json.array(db:all("SELECT key, value FROM registered_model_tags WHERE name = ? ORDER BY key", m.name)),
    }
  end

  -- ---- rows ----

  local function model(name)
    validate.model_name(name)
    return db:one("SELECT * FROM registered_models WHERE name = ?", name)
      or core.fail("RESOURCE_DOES_NOT_EXIST", "Registered Model with name=%s not found", name)
  end

  local function version(name, number)
    validate.model_name(name)
    local n = validate.version(number)
    return db:one("SELECT * FROM model_versions WHERE name = ? AND version = ? AND current_stage != ?", name, n,
      DELETED)
      or core.fail("RESOURCE_DOES_NOT_EXIST", "Model Version (name=%s, version=%d) not found", name, n)
  end

  local function touch(name, now, number)
    db:run("UPDATE registered_models SET last_updated_time = ? WHERE name = ?", now, name)
    if number then
      db:run("UPDATE model_versions SET last_updated_time = ? WHERE name = ? AND version = ?", now, name, number)
    end
  end

  local function set_model_tag(name, tag)
    local key, value = validate.other_tag(tag, TAG_LIMIT)
    if db:run("UPDATE registered_model_tags SET value = ? WHERE key = ? AND name = ?", value, key, name) == 0 then
      db:run("INSERT INTO registered_model_tags (key, value, name) VALUES (?, ?, ?)", key, value, name)
    end
  end

  local function set_version_tag(name, number, tag)
    local key, value = validate.other_tag(tag, TAG_LIMIT)
    if db:run("UPDATE model_version_tags SET value = ? WHERE key = ? AND name = ? AND version = ?", value, key, name,
      number) == 0 then
      db:run("INSERT INTO model_version_tags (key, value, name, version) VALUES (?, ?, ?, ?)", key, value, name, number)
    end
  end

  -- ---- models ----

  registry["POST registered-models/create"] = function(a)
    local name, tags, now = a:string("name", true), a:items "tags", sys.now_ms()
    local description = a:string "description"
    validate.model_name(name)
    return db:transaction(function()
      if db:value("SELECT 1 FROM registered_models WHERE name = ?", name) then
        core.fail("RESOURCE_ALREADY_EXISTS", "Registered Model (name=%s) already exists.", name)
      end
      db:run("INSERT INTO registered_models (name, creation_time, last_updated_time, description) VALUES (?, ?, ?, ?)",
        name, now, now, description)
      for _, tag in ipairs(tags) do set_model_tag(name, tag) end
      return { registered_model = service.model_message(model(name)) }
    end)
  end

  registry["GET registered-models/get"] = function(a)
    return { registered_model = service.model_message(model(a:string("name", true))) }
  end

  local function rename(a)
    local name, new, now = a:string("name", true), a:string("new_name", true), sys.now_ms()
    validate.model_name(new)
    return db:transaction(function()
      model(name)
      if new ~= name and db:value("SELECT 1 FROM registered_models WHERE name = ?", new) then
        core.fail("RESOURCE_ALREADY_EXISTS", "Registered Model (name=%s) already exists.", new)
      end
      -- The rows that name it follow (ON UPDATE CASCADE).
      db:run("UPDATE registered_models SET name = ?, last_updated_time = ? WHERE name = ?", new, now, name)
      db:run("UPDATE model_versions SET last_updated_time = ? WHERE name = ?", now, new)
      return { registered_model = service.model_message(model(new)) }
    end)
  end
  registry["POST registered-models/rename"] = rename

  registry["PATCH registered-models/update"] = function(a)
    local name, description = a:string("name", true), a:string "description"
    return db:transaction(function()
      model(name)
      db:run("UPDATE registered_models SET description = ?, last_updated_time = ? WHERE name = ?", description,
        sys.now_ms(), name)
      return { registered_model = service.model_message(model(name)) }
    end)
  end

  registry["DELETE registered-models/delete"] = function(a)
    local name = a:string("name", true)
    db:transaction(function()
      model(name)
      for _, table_name in ipairs { "model_version_tags", "model_versions", "registered_model_tags",
        "registered_model_aliases", "registered_models" } do
        db:run("DELETE FROM " .. table_name .. " WHERE name = ?", name)
      end
    end)
    return {}
  end

  local function get_latest(a)
    local name, stages = a:string("name", true), nil
    model(name)
    for _, stage in ipairs(a:items "stages") do
      stages = stages or {}
      stages[validate.stage(stage)] = true
    end
    return { model_versions = latest(name, stages) }
  end
  registry["POST registered-models/get-latest-versions"] = get_latest
  registry["GET registered-models/get-latest-versions"] = get_latest

  registry["POST registered-models/set-tag"] = function(a)
    local name, tag = a:string("name", true), { key = a:string("key", true), value = a:raw "value" }
    db:transaction(function()
      model(name)
      set_model_tag(name, tag)
      touch(name, sys.now_ms())
    end)
    return {}
  end

  registry["DELETE registered-models/delete-tag"] = function(a)
    local name, key = a:string("name", true), a:string("key", true)
    db:transaction(function()
      model(name)
      db:run("DELETE FROM registered_model_tags WHERE name = ? AND key = ?", name, key)
      touch(name, sys.now_ms())
    end)
    return {}
  end

  -- ---- aliases ----

  registry["POST registered-models/alias"] = function(a)
    local name, alias, number = a:string("name", true), a:string("alias", true), a:string("version", true)
    validate.alias(alias)
    db:transaction(function()
      local v = version(name, number)
      if db:run("UPDATE registered_model_aliases SET version = ? WHERE name = ? AND alias = ?", v.version, name,
        alias) == 0 then
        db:run("INSERT INTO registered_model_aliases (alias, version, name) VALUES (?, ?, ?)", alias, v.version, name)
      end
      touch(name, sys.now_ms())
    end)
    return {}
  end

  registry["DELETE registered-models/alias"] = function(a)
    local name, alias = a:string("name", true), a:string("alias", true)
    db:transaction(function()
      model(name)
      if db:run("DELETE FROM registered_model_aliases WHERE name = ? AND alias = ?", name, alias) > 0 then
        touch(name, sys.now_ms())
      end
    end)
    return {}
  end

  registry["GET registered-models/alias"] = function(a)
    local name, alias = a:string("name", true), a:string("alias", true)
    model(name)
    local number = db:value("SELECT version FROM registered_model_aliases WHERE name = ? AND alias = ?", name, alias)
      or core.invalid("Registered model alias %s not found.", alias)
    return { model_version = service.version_message(version(name, number)) }
  end

  -- ---- versions ----

  registry["POST model-versions/create"] = function(a)
    local name, source = a:string("name", true), a:string("source", true)
    local run_id, model_id, tags, now = a:string "run_id", a:string "model_id", a:items "tags", sys.now_ms()
    local run_link, description = a:string "run_link", a:string "description"
    validate.model_name(name)
    if model_id == "" then model_id = nil end
    if run_id == "" then run_id = nil end
    return db:transaction(function()
      model(name)
      local location, of_run = service.resolve_source(source, run_id, model_id)
      run_id = run_id or of_run
      local number = 1 + (db:value("SELECT max(version) FROM model_versions WHERE name = ?", name) or 0)
      db:run([[INSERT INTO model_versions (name, version, creation_time, last_updated_time, description, user_id,
        current_stage, source, run_id, status, status_message, run_link, storage_location)
        VALUES (?, ?, ?, ?, ?, NULL, 'None', ?, ?, 'READY', NULL, ?, ?)]], name, number, now, now, description, source,
        run_id, run_link, location)
      for _, tag in ipairs(tags) do set_version_tag(name, number, tag) end
      touch(name, now)
      if model_id then service.note_registration(model_id, name, number) end
      return { model_version = service.version_message(version(name, number)) }
    end)
  end

  registry["GET model-versions/get"] = function(a)
    return { model_version = service.version_message(version(a:string("name", true), a:string("version", true))) }
  end

  registry["GET model-versions/get-download-uri"] = function(a)
    local v = version(a:string("name", true), a:string("version", true))
    return { artifact_uri = v.storage_location or v.source }
  end

  registry["PATCH model-versions/update"] = function(a)
    local name, number, description = a:string("name", true), a:string("version", true), a:string "description"
    return db:transaction(function()
      local v, now = version(name, number), sys.now_ms()
      db:run("UPDATE model_versions SET description = ?, last_updated_time = ? WHERE name = ? AND version = ?",
        description, now, name, v.version)
      return { model_version = service.version_message(version(name, number)) }
    end)
  end

  registry["DELETE model-versions/delete"] = function(a)
    local name, number = a:string("name", true), a:string("version", true)
    db:transaction(function()
      local v, now = version(name, number), sys.now_ms()
      db:run("DELETE FROM registered_model_aliases WHERE name = ? AND version = ?", name, v.version)
      db:run([[UPDATE model_versions SET current_stage = ?, last_updated_time = ?, description = NULL, user_id = NULL,
        source = 'REDACTED-SOURCE-PATH', run_id = 'REDACTED-RUN-ID', run_link = 'REDACTED-RUN-LINK',
        status_message = NULL
        WHERE name = ? AND version = ?]], DELETED, now, name, v.version)
      touch(name, now)
    end)
    return {}
  end

  registry["POST model-versions/transition-stage"] = function(a)
    local name, number = a:string("name", true), a:string("version", true)
    local stage, archive = validate.stage(a:string("stage", true)), a:bool("archive_existing_versions", false)
    if archive and stage ~= "Staging" and stage ~= "Production" then
      core.invalid("Model version transition cannot archive existing model versions because '%s' is not an Active "
        .. "stage. Valid stages are ['Staging', 'Production']", stage)
    end
    return db:transaction(function()
      local v, now = version(name, number), sys.now_ms()
      if archive then
        db:run([[UPDATE model_versions SET current_stage = 'Archived', last_updated_time = ?
          WHERE name = ? AND version != ? AND current_stage = ?]], now, name, v.version, stage)
      end
      db:run("UPDATE model_versions SET current_stage = ? WHERE name = ? AND version = ?", stage, name, v.version)
      touch(name, now, v.version)
      return { model_version = service.version_message(version(name, number)) }
    end)
  end

  registry["POST model-versions/set-tag"] = function(a)
    local name, number = a:string("name", true), a:string("version", true)
    local tag = { key = a:string("key", true), value = a:raw "value" }
    db:transaction(function()
      local v = version(name, number)
      set_version_tag(name, v.version, tag)
      touch(name, sys.now_ms(), v.version)
    end)
    return {}
  end

  registry["DELETE model-versions/delete-tag"] = function(a)
    local name, number, key = a:string("name", true), a:string("version", true), a:string("key", true)
    db:transaction(function()
      local v = version(name, number)
      db:run("DELETE FROM model_version_tags WHERE name = ? AND version = ? AND key = ?", name, v.version, key)
      touch(name, sys.now_ms(), v.version)
    end)
    return {}
  end

  -- ---- sources ----

  local function bad_source(source, what)
    core.invalid("Invalid model version source: '%s'. %s", source, what)
  end

  local function within(source, root)
    root = root:gsub("/+$", "")
    return source == root or source:sub(1, #root + 1) == root .. "/"
  end

  --- Where a version's files are, for the source that a client names, and the run they are of. What lies in this
  -- server's artifacts must belong to the run or logged model that is given; paths of the machine must lie in the
  -- run's own folder.
  function service.resolve_source(source, run_id, model_id)
    local plain = source:gsub("%%2[eE]", "."):gsub("%%2[fF]", "/"):gsub("\\", "/")
    if ("/" .. plain:gsub("[?#].*", "") .. "/"):find("/../", 1, true) then
      bad_source(source, "If supplying a source as an http, https, local file path, ftp, objectstore, or "
        .. "mlflow-artifacts uri, an absolute path must be provided without relative path references present.")
    end
    local kept_model, other = source:match "^models:/(m%-%x+)(.*)$"
    if kept_model and other == "" then
      local m = service.logged_model(kept_model)
      return m.artifact_location, m.source_run_id
    end
    local name, number = source:match "^models:/([^/@]+)/(%d+)$"
    if name then
      local v = version(name, number)
      return v.storage_location or v.source, nil
    end
    local scheme = source:match "^(%a[%w+.-]*):"
    local run = run_id and db:one("SELECT artifact_uri FROM runs WHERE run_uuid = ?", run_id)
    if not scheme or scheme == "file" then
      local path = source:gsub("^file:/*", "/")
      local root = run and run.artifact_uri:gsub("^file:/*", "/")
      if not root or root:sub(1, 1) ~= "/" or not within(path, root) then
        bad_source(source, "To use a local path as a model version source, the run_id request parameter has to be "
          .. "specified and the local path has to be contained within the artifact directory of the run specified by "
          .. "the run_id.")
      end
    elseif scheme == "mlflow-artifacts" then
      local m = model_id and db:one("SELECT artifact_location FROM logged_models WHERE model_id = ?", model_id)
      if not (run and within(source, run.artifact_uri) or m and within(source, m.artifact_location)) then
        bad_source(source, "It must lie in the artifacts of the run given as run_id, or of the model given as "
          .. "model_id.")
      end
    end
    return source, nil
  end

  return registry
end
