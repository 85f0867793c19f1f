--- Logged models (MLflow 3): models/m-<id> beside the runs of an experiment.
local core = require "local.mlflow.core"
local filter = require "local.mlflow.filter"
local json = require "json"
local sys = require "sys"
local validate = require "local.mlflow.validate"

local statuses = { [0] = "LOGGED_MODEL_STATUS_UNSPECIFIED", "LOGGED_MODEL_PENDING", "LOGGED_MODEL_READY",
  "LOGGED_MODEL_UPLOAD_FAILED" }
local numbers = {}
for n, name in pairs(statuses) do numbers[name] = n end

local times = { creation_timestamp = "creation_timestamp_ms", creation_time = "creation_timestamp_ms",
  last_updated_timestamp = "last_updated_timestamp_ms", last_updated_time = "last_updated_timestamp_ms" }
local spec = {
  types = { attribute = true, tag = true, parameter = true, metric = true },
  attributes = { name = { list = true }, model_id = { list = true }, model_type = { list = true },
    status = { list = true }, source_run_id = { list = true } },
}
for key in pairs(times) do spec.attributes[key] = { numeric = true } end

return function(service)
  local db = service.db
  local models = {}

  function service.logged_model(id)
    return type(id) == "string"
      and db:one("SELECT * FROM logged_models WHERE model_id = ? AND lifecycle_stage = 'active'", id)
      or core.fail("RESOURCE_DOES_NOT_EXIST", "Logged model with ID '%s' not found.", tostring(id))
  end

  local function message(m)
    local tags = json.array(db:all([[SELECT tag_key AS key, tag_value AS value FROM logged_model_tags
      WHERE model_id = ? ORDER BY 1]], m.model_id))
    local metrics = json.array {}
    for i, row in ipairs(db:all([[SELECT * FROM logged_model_metrics x WHERE model_id = ? AND NOT EXISTS (SELECT 1 FROM
      logged_model_metrics y WHERE y.model_id = x.model_id AND y.metric_name = x.metric_name AND y.run_id = x.run_id
      AND y.dataset_uuid IS x.dataset_uuid AND (y.metric_step, y.metric_timestamp_ms) >
      (x.metric_step, x.metric_timestamp_ms)) ORDER BY metric_name]], m.model_id)) do
      metrics[i] = { key = row.metric_name, value = row.metric_value or "NaN", timestamp = row.metric_timestamp_ms,
        step = row.metric_step, model_id = row.model_id, run_id = row.run_id, dataset_name = row.dataset_name,
        dataset_digest = row.dataset_digest }
    end
    return {
      info = {
        model_id = m.model_id, experiment_id = tostring(m.experiment_id), name = m.name, tags = tags,
        creation_timestamp_ms = m.creation_timestamp_ms, last_updated_timestamp_ms = m.last_updated_timestamp_ms,
        artifact_uri = m.artifact_location, status = statuses[m.status], model_type = m.model_type or "",
        source_run_id = m.source_run_id or "", status_message = m.status_message, registrations = json.array {},
      },
      data = {
        params = json.array(db:all([[SELECT param_key AS key, param_value AS value FROM logged_model_params
          WHERE model_id = ? ORDER BY 1]], m.model_id)),
        metrics = metrics,
      },
    }
  end

  local function set_tag(m, key, value)
    if db:run("UPDATE logged_model_tags SET tag_value = ? WHERE model_id = ? AND tag_key = ?", value, m.model_id,
      key) == 0 then
      db:run("INSERT INTO logged_model_tags (model_id, experiment_id, tag_key, tag_value) VALUES (?, ?, ?, ?)",
        m.model_id, m.experiment_id, key, value)
    end
  end

  local function set_param(m, param)
    local key = validate.length("Param key", 250, param.key or core.missing "params.key")
    local value = validate.length("Param value", 6000, tostring(param.value or ""))
    local old = db:value("SELECT param_value FROM logged_model_params WHERE model_id = ? AND param_key = ?",
      m.model_id, key)
    if old == nil then
      db:run("INSERT INTO logged_model_params (model_id, experiment_id, param_key, param_value) VALUES (?, ?, ?, ?)",
        m.model_id, m.experiment_id, key, value)
    elseif old ~= value then
      core.invalid("Changing param values is not allowed. Param with key='%s' was already logged with value='%s'.",
        key, old)
    end
  end

  --- A version was made of this model: noted in its tag mlflow.modelVersions, as the real server does.
  function service.note_registration(id, name, version)
    local m = service.logged_model(id)
    local old = db:value([[SELECT tag_value FROM logged_model_tags WHERE model_id = ?
      AND tag_key = 'mlflow.modelVersions']], id)
    local list = old and json.decode(old) or json.array {}
    list[#list + 1] = { name = name, version = version }
    set_tag(m, "mlflow.modelVersions", json.encode(list))
  end

  local function touch(id)
    db:run("UPDATE logged_models SET last_updated_timestamp_ms = ? WHERE model_id = ?", sys.now_ms(), id)
  end

  models["POST logged-models"] = function(a)
    local experiment_id, name, now = a:string("experiment_id", true), a:string "name", sys.now_ms()
    local kind, run_id = a:string "model_type", a:string "source_run_id"
    local params, tags = a:items "params", a:items "tags"
    if name and name:find "[/:%.%%\"']" then
      core.invalid("Invalid model name (%s) provided. Model name must be a non-empty string and cannot contain the "
        .. "following characters: ('/', ':', '.', '%%', '\"', \"'\")", name)
    end
    return db:transaction(function()
      local e = service.active_experiment(experiment_id)
      local id = "m-" .. sys.random_hex(16)
      local m = { model_id = id, experiment_id = e.experiment_id }
      db:run([[INSERT INTO logged_models (model_id, experiment_id, name, artifact_location, creation_timestamp_ms,
        last_updated_timestamp_ms, status, lifecycle_stage, model_type, source_run_id, status_message)
        VALUES (?, ?, ?, ?, ?, ?, 1, 'active', ?, ?, NULL)]], id, e.experiment_id, name and name ~= "" and name or id,
        e.artifact_location:gsub("/$", "") .. "/models/" .. id .. "/artifacts", now, now, kind, run_id)
      for _, p in ipairs(params) do set_param(m, p) end
      for _, t in ipairs(tags) do set_tag(m, validate.other_tag(t, 8000)) end
      return { model = message(service.logged_model(id)) }
    end)
  end

  models["GET logged-models/{}"] = function(_, _, id)
    return { model = message(service.logged_model(id)) }
  end

  models["PATCH logged-models/{}"] = function(a, _, id)
    local status = a:raw "status"
    local n = numbers[status] or math.tointeger(status)
    if not n or not statuses[n] then
      core.invalid_value("status", status, "LOGGED_MODEL_READY or LOGGED_MODEL_UPLOAD_FAILED")
    end
    return db:transaction(function()
      service.logged_model(id)
      db:run("UPDATE logged_models SET status = ?, last_updated_timestamp_ms = ? WHERE model_id = ?", n, sys.now_ms(),
        id)
      return { model = message(service.logged_model(id)) }
    end)
  end

  models["DELETE logged-models/{}"] = function(_, _, id)
    db:transaction(function()
      service.logged_model(id)
      db:run("UPDATE logged_models SET lifecycle_stage = 'deleted', last_updated_timestamp_ms = ? WHERE model_id = ?",
        sys.now_ms(), id)
    end)
    return {}
  end

  models["PATCH logged-models/{}/tags"] = function(a, _, id)
    local tags = a:items "tags"
    return db:transaction(function()
      local m = service.logged_model(id)
      for _, t in ipairs(tags) do set_tag(m, validate.other_tag(t, 8000)) end
      touch(id)
      return { model = message(service.logged_model(id)) }
    end)
  end

  models["DELETE logged-models/{}/tags/{}"] = function(_, _, id, key)
    db:transaction(function()
      service.logged_model(id)
      if db:run("DELETE FROM logged_model_tags WHERE model_id = ? AND tag_key = ?", id, key) == 0 then
        core.fail("RESOURCE_DOES_NOT_EXIST", "No tag with key '%s' found for model with ID '%s'.", key, id)
      end
      touch(id)
    end)
    return {}
  end

  models["POST logged-models/{}/params"] = function(a, _, id)
    local params = a:items "params"
    db:transaction(function()
      local m = service.logged_model(id)
      for _, p in ipairs(params) do set_param(m, p) end
    end)
    return {}
  end

  models["GET logged-models/{}/artifacts/directories"] = function(a, _, id)
    return service.list_artifacts(service.logged_model(id).artifact_location, a:string "artifact_directory_path")
  end

  -- ---- search ----

  local tables = { tag = { "logged_model_tags", "tag_key", "tag_value" },
    parameter = { "logged_model_params", "param_key", "param_value" },
    metric = { "logged_model_metrics", "metric_name", "metric_value" } }

  local function status_number(value)
    return numbers[value] or numbers["LOGGED_MODEL_" .. value:upper()] or -1
  end

  local function clause_sql(c)
    if c.type == "attribute" then
      if c.key == "status" then
        if type(c.value) == "table" then
          for i, v in ipairs(c.value) do c.value[i] = status_number(v) end
        else
          c.value = status_number(c.value)
        end
      end
      return filter.compare("m." .. (times[c.key] or c.key), c.op, c.value)
    end
    local t = tables[c.type]
    local exists = ("EXISTS (SELECT 1 FROM %s x WHERE x.model_id = m.model_id AND x.%s = ?"):format(t[1], t[2])
    if c.op == "IS NULL" then return "NOT " .. exists .. ")", c.key end
    if c.op == "IS NOT NULL" then return exists .. ")", c.key end
    local sql, value = filter.compare("x." .. t[3], c.op, c.value)
    return exists .. " AND " .. sql .. ")", c.key, value
  end

  -- One entry of order_by; its parameters are put in params.
  local function order_sql(o, params)
    if type(o) ~= "table" or type(o.field_name) ~= "string" then
      core.invalid "`field_name` in the `order_by` clause must be specified."
    end
    local way = o.ascending == false and " DESC" or " ASC"
    local metric = o.field_name:match "^metrics%.(.+)$"
    if not metric then
      if not spec.attributes[o.field_name] then core.invalid("Invalid order by field name: %s.", o.field_name) end
      return "m." .. (times[o.field_name] or o.field_name) .. way
    end
    local sql = "(SELECT metric_value FROM logged_model_metrics x WHERE x.model_id = m.model_id AND x.metric_name = ?"
    params[#params + 1] = metric
    for _, field in ipairs { "dataset_name", "dataset_digest" } do
      if o[field] then
        sql = sql .. " AND x." .. field .. " = ?"
        params[#params + 1] = o[field]
      end
    end
    return sql .. " ORDER BY metric_timestamp_ms DESC, metric_step DESC LIMIT 1)" .. way .. " NULLS LAST"
  end

  models["POST logged-models/search"] = function(a)
    local limit, offset = core.limit(a, 50, 50), core.offset(a:string "page_token")
    local ids = json.array {}
    for i, id in ipairs(a:items "experiment_ids") do ids[i] = validate.experiment_id(id) end
    local where = { "m.lifecycle_stage = 'active'", "m.experiment_id IN (SELECT value FROM json_each(?))" }
    local params, orders = { json.encode(ids) }, {}
    for _, c in ipairs(filter.parse(a:string "filter", spec)) do
      local out = table.pack(clause_sql(c))
      where[#where + 1] = out[1]
      for i = 2, out.n do params[#params + 1] = out[i] end
    end
    local datasets = {}
    for _, d in ipairs(a:items "datasets") do
      local sql = "x.dataset_name = ?"
      params[#params + 1] = d.dataset_name or core.missing "datasets.dataset_name"
      if d.dataset_digest then
        sql = sql .. " AND x.dataset_digest = ?"
        params[#params + 1] = d.dataset_digest
      end
      datasets[#datasets + 1] = "(" .. sql .. ")"
    end
    if #datasets > 0 then
      where[#where + 1] = "EXISTS (SELECT 1 FROM logged_model_metrics x WHERE x.model_id = m.model_id AND ("
        .. table.concat(datasets, " OR ") .. "))"
    end
    for _, o in ipairs(a:items "order_by") do orders[#orders + 1] = order_sql(o, params) end
    orders[#orders + 1] = "m.creation_timestamp_ms DESC"
    orders[#orders + 1] = "m.model_id"
    params[#params + 1] = limit + 1
    params[#params + 1] = offset
    local rows = db:all("SELECT m.* FROM logged_models m WHERE " .. table.concat(where, " AND ") .. " ORDER BY "
      .. table.concat(orders, ", ") .. " LIMIT ? OFFSET ?", params)
    local page, token = core.page(rows, offset, limit)
    for i, row in ipairs(page) do page[i] = message(row) end
    return { models = page, next_page_token = token }
  end

  return models
end
