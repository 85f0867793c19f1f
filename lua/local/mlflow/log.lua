--- What is logged to a run: metrics, parameters, tags, batches, inputs, outputs; and metric histories.
local core = require "local.mlflow.core"
local json = require "json"
local sys = require "sys"
local validate = require "local.mlflow.validate"

return function(service)
  local db = service.db
  local log = {}

  -- ---- tags and parameters ----

  function service.set_tag(run_id, tag, path)
    local key, value = validate.tag(tag, path)
    if db:run("UPDATE tags SET value = ? WHERE key = ? AND run_uuid = ?", value, key, run_id) == 0 then
      db:run("INSERT INTO tags (key, value, run_uuid) VALUES (?, ?, ?)", key, value, run_id)
    end
    if key == "mlflow.runName" then db:run("UPDATE runs SET name = ? WHERE run_uuid = ?", value, run_id) end
  end

  local function log_param(run_id, param, path)
    local key, value = validate.param(param, path)
    local old = db:value("SELECT value FROM params WHERE key = ? AND run_uuid = ?", key, run_id)
    if old == nil then
      db:run("INSERT INTO params (key, value, run_uuid) VALUES (?, ?, ?)", key, value, run_id)
    elseif old ~= value then
      core.invalid("Changing param values is not allowed. Param with key='%s' was already logged with value='%s' for "
        .. "run ID='%s'. Attempted logging new value '%s'.", key, old, run_id, value)
    end
  end

  -- ---- metrics ----

  local function newer(m, old)
    if m.step ~= old.step then return m.step > old.step end
    if m.timestamp ~= old.timestamp then return m.timestamp > old.timestamp end
    return m.value > old.value
  end

  local function log_model_metric(run, m)
    local model = db:one("SELECT experiment_id FROM logged_models WHERE model_id = ?", m.model_id)
      or core.fail("RESOURCE_DOES_NOT_EXIST", "Logged model with ID '%s' not found.", m.model_id)
    local dataset = m.dataset_name and db:value([[SELECT dataset_uuid FROM datasets WHERE experiment_id = ? AND name = ?
      AND digest = ?]], model.experiment_id, m.dataset_name, m.dataset_digest or "")
    db:run([[INSERT OR IGNORE INTO logged_model_metrics (model_id, metric_name, metric_timestamp_ms, metric_step,
      metric_value, experiment_id, run_id, dataset_uuid, dataset_name, dataset_digest)
      VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)]], m.model_id, m.key, m.timestamp, m.step,
      m.is_nan and json.null or m.value, model.experiment_id, run.run_uuid, dataset, m.dataset_name, m.dataset_digest)
  end

  local function log_metric(run, metric, path)
    local m = validate.metric(metric, path)
    db:run("INSERT OR IGNORE INTO metrics (key, value, timestamp, run_uuid, step, is_nan) VALUES (?, ?, ?, ?, ?, ?)",
      m.key, m.value, m.timestamp, run.run_uuid, m.step, m.is_nan)
    local old = db:one("SELECT step, timestamp, value FROM latest_metrics WHERE key = ? AND run_uuid = ?", m.key,
      run.run_uuid)
    if not old then
      db:run("INSERT INTO latest_metrics (key, value, timestamp, step, is_nan, run_uuid) VALUES (?, ?, ?, ?, ?, ?)",
        m.key, m.value, m.timestamp, m.step, m.is_nan, run.run_uuid)
    elseif newer(m, old) then
      db:run("UPDATE latest_metrics SET value = ?, timestamp = ?, step = ?, is_nan = ? WHERE key = ? AND run_uuid = ?",
        m.value, m.timestamp, m.step, m.is_nan, m.key, run.run_uuid)
    end
    if m.model_id and m.model_id ~= "" then log_model_metric(run, m) end
  end

  -- ---- calls ----

  log["POST runs/log-metric"] = function(a)
    local id = service.run_id(a)
    local metric = { key = a:string("key", true), value = a:raw "value", timestamp = a:raw "timestamp",
      step = a:raw "step", model_id = a:string "model_id", dataset_name = a:string "dataset_name",
      dataset_digest = a:string "dataset_digest" }
    db:transaction(function() log_metric(service.active_run(id), metric, "") end)
    return {}
  end

  log["POST runs/log-parameter"] = function(a)
    local id, param = service.run_id(a), { key = a:string("key", true), value = a:raw "value" }
    db:transaction(function() log_param(service.active_run(id).run_uuid, param, "") end)
    return {}
  end

  log["POST runs/set-tag"] = function(a)
    local id, tag = service.run_id(a), { key = a:string("key", true), value = a:raw "value" }
    db:transaction(function() service.set_tag(service.active_run(id).run_uuid, tag, "") end)
    return {}
  end

  log["POST runs/delete-tag"] = function(a)
    local id, key = service.run_id(a), a:string("key", true)
    db:transaction(function()
      service.active_run(id)
      if db:run("DELETE FROM tags WHERE run_uuid = ? AND key = ?", id, key) == 0 then
        core.fail("RESOURCE_DOES_NOT_EXIST", "No tag with name: %s in run with id %s", key, id)
      end
    end)
    return {}
  end

  log["POST runs/log-batch"] = function(a, request)
    if #request.body > 1000000 then
      core.invalid("Batched logging API requests must be at most 1000000 bytes, got a request of size %d.",
        #request.body)
    end
    local id, metrics, params, tags = service.run_id(a), a:items "metrics", a:items "params", a:items "tags"
    validate.batch(metrics, params, tags)
    db:transaction(function()
      local run = service.active_run(id)
      for i, p in ipairs(params) do log_param(id, p, ("params[%d]."):format(i - 1)) end
      for i, m in ipairs(metrics) do log_metric(run, m, ("metrics[%d]."):format(i - 1)) end
      for i, t in ipairs(tags) do service.set_tag(id, t, ("tags[%d]."):format(i - 1)) end
    end)
    return {}
  end

  -- The legacy way to note a model: a list in a tag.
  log["POST runs/log-model"] = function(a)
    local id, text = service.run_id(a), a:string("model_json", true)
    local model, why = json.decode(text, "model_json")
    if type(model) ~= "table" then core.invalid("Malformed model info. %s", why or text) end
    for _, field in ipairs { "artifact_path", "flavors", "utc_time_created", "run_id" } do
      if model[field] == nil then core.invalid("Model json is missing mandatory fields: {'%s'}", field) end
    end
    db:transaction(function()
      service.active_run(id)
      local old = db:value("SELECT value FROM tags WHERE key = 'mlflow.log-model.history' AND run_uuid = ?", id)
      local history = old and json.decode(old) or json.array {}
      history[#history + 1] = model
      service.set_tag(id, { key = "mlflow.log-model.history", value = json.encode(history) }, "")
    end)
    return {}
  end

  local function uuid()
    return (sys.random_hex(16):gsub("^(%x%x%x%x%x%x%x%x)(%x%x%x%x)(%x%x%x%x)(%x%x%x%x)", "%1-%2-%3-%4-"))
  end

  local function link(source_type, source, destination_type, destination, step)
    local id = db:value([[SELECT input_uuid FROM inputs WHERE source_type = ? AND source_id = ? AND destination_type = ?
      AND destination_id = ?]], source_type, source, destination_type, destination)
    if id then return id end
    id = uuid()
    db:run([[INSERT INTO inputs (input_uuid, source_type, source_id, destination_type, destination_id, step)
      VALUES (?, ?, ?, ?, ?, ?)]], id, source_type, source, destination_type, destination, step or 0)
    return id
  end

  local function log_dataset(run, input, i)
    local d = input.dataset
    if type(d) ~= "table" then core.missing(("datasets[%d].dataset"):format(i)) end
    for _, field in ipairs { "name", "digest", "source_type", "source" } do
      if type(d[field]) ~= "string" then core.missing(("datasets[%d].dataset.%s"):format(i, field)) end
    end
    for field, limit in pairs { name = 500, digest = 36, source = 65535, schema = 1048575, profile = 16777215 } do
      validate.length("dataset." .. field, limit, d[field] or "")
    end
    local id = db:value("SELECT dataset_uuid FROM datasets WHERE experiment_id = ? AND name = ? AND digest = ?",
      run.experiment_id, d.name, d.digest)
    if not id then
      id = uuid()
      db:run([[INSERT INTO datasets (dataset_uuid, experiment_id, name, digest, dataset_source_type, dataset_source,
        dataset_schema, dataset_profile) VALUES (?, ?, ?, ?, ?, ?, ?, ?)]], id, run.experiment_id, d.name, d.digest,
        d.source_type, d.source, d.schema, d.profile)
    end
    local input_id = link("DATASET", id, "RUN", run.run_uuid)
    for _, tag in ipairs(input.tags or {}) do
      local key, value = validate.length("key", 255, tag.key or ""), validate.length("value", 500, tag.value or "")
      if db:run("UPDATE input_tags SET value = ? WHERE input_uuid = ? AND name = ?", value, input_id, key) == 0 then
        db:run("INSERT INTO input_tags (input_uuid, name, value) VALUES (?, ?, ?)", input_id, key, value)
      end
    end
  end

  log["POST runs/log-inputs"] = function(a)
    local id, datasets, models = service.run_id(a), a:items "datasets", a:items "models"
    if #datasets > 1000 then
      core.invalid("A batch logging request can contain at most 1000 datasets. Got %d datasets.", #datasets)
    end
    db:transaction(function()
      local run = service.active_run(id)
      for i, input in ipairs(datasets) do log_dataset(run, input, i - 1) end
      for _, model in ipairs(models) do
        link("RUN_INPUT", id, "MODEL_INPUT", service.logged_model(model.model_id).model_id)
      end
    end)
    return {}
  end

  log["POST runs/outputs"] = function(a)
    local id, models = service.run_id(a), a:items "models"
    db:transaction(function()
      service.active_run(id)
      for _, model in ipairs(models) do
        link("RUN_OUTPUT", id, "MODEL_OUTPUT", service.logged_model(model.model_id).model_id,
          math.tointeger(model.step))
      end
    end)
    return {}
  end

  log["GET metrics/get-history"] = function(a)
    local id, key = service.run_id(a), a:string("metric_key", true)
    local limit, offset = a:int "max_results", core.offset(a:string "page_token")
    service.run(id)
    local rows = db:all([[SELECT key, value, timestamp, step, is_nan FROM metrics WHERE run_uuid = ? AND key = ?
      ORDER BY timestamp, step, value LIMIT ? OFFSET ?]], id, key, limit and limit + 1 or -1, offset)
    local page, token = json.array(rows), nil
    if limit then page, token = core.page(rows, offset, limit) end
    for i, row in ipairs(page) do
      page[i] = service.metric_message(row)
      page[i].run_id = id
    end
    return { metrics = page, next_page_token = token }
  end

  --- Of several runs: at most max_results steps of each, evenly spread, its first and last among them.
  log["GET metrics/get-history-bulk-interval"] = function(a)
    local ids, key = a:items "run_ids", a:string("metric_key", true)
    local limit, from, to = a:int("max_results", 2500), a:int "start_step", a:int "end_step"
    if #ids == 0 then core.missing "run_ids" end
    if #ids > 100 then core.invalid("GetMetricHistoryBulkInterval request must specify at most 100 run_ids.") end
    if limit < 1 or limit > 2500 then core.invalid "max_results must be between 1 and 2500." end
    local out = json.array {}
    for _, id in ipairs(ids) do
      local rows = db:all([[SELECT key, value, timestamp, step, is_nan FROM metrics WHERE run_uuid = ? AND key = ?
        AND step BETWEEN ? AND ? ORDER BY step, timestamp]], id, key, from or math.mininteger, to or math.maxinteger)
      local n = #rows
      local take = math.min(n, limit)
      for i = 1, take do
        local at = take == n and i or take == 1 and n or 1 + (i - 1) * (n - 1) // (take - 1)
        local message = service.metric_message(rows[at])
        message.run_id = id
        out[#out + 1] = message
      end
    end
    return { metrics = out }
  end

  return log
end
