--- Runs: their life, and how they are shown.
local core = require "local.mlflow.core"
local json = require "json"
local sys = require "sys"
local validate = require "local.mlflow.validate"

local statuses = { "RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED" }
for _, s in ipairs(statuses) do statuses[s] = s end

local adjectives = { "able", "agreeable", "bemused", "bold", "brawny", "calm", "clean", "dapper", "fearless", "gentle",
  "grandiose", "honorable", "intrigued", "judicious", "kindly", "luminous", "marvelous", "nimble", "orderly", "polite",
  "quick", "rebellious", "serious", "thoughtful", "upbeat", "vaunted", "welcoming", "youthful", "zealous" }
local nouns = { "ant", "bass", "calf", "deer", "eel", "fawn", "goose", "hare", "ibis", "jay", "kit", "lynx", "mare",
  "newt", "owl", "pug", "quail", "rat", "shrew", "toad", "vole", "wren", "yak", "zebra" }

local function random_name()
  local n = tonumber(sys.random_hex(6), 16)
  return ("%s-%s-%d"):format(adjectives[n % #adjectives + 1], nouns[(n >> 10) % #nouns + 1], (n >> 20) % 1000)
end

return function(service)
  local db = service.db
  local runs = {}

  --- The row, or RESOURCE_DOES_NOT_EXIST.
  function service.run(id)
    validate.run_id(id)
    return db:one("SELECT * FROM runs WHERE run_uuid = ?", id)
      or core.fail("RESOURCE_DOES_NOT_EXIST", "Run with id=%s not found", id)
  end

  function service.active_run(id)
    local run = service.run(id)
    if run.lifecycle_stage ~= "active" then
      core.invalid("The run %s must be in the 'active' state. Current state is %s.", id, run.lifecycle_stage)
    end
    return run
  end

  --- run_id may also be given as run_uuid, as older clients do.
  function service.run_id(a)
    return a:string "run_id" or a:string "run_uuid" or core.missing "run_id"
  end

  local function info(run)
    return {
      run_id = run.run_uuid, run_uuid = run.run_uuid, experiment_id = tostring(run.experiment_id),
      run_name = run.name or "", user_id = run.user_id or "", status = run.status,
      start_time = run.start_time, end_time = run.end_time, artifact_uri = run.artifact_uri,
      lifecycle_stage = run.lifecycle_stage,
    }
  end
  service.run_info = info

  -- Rows of one query put with their runs: by[run_uuid] = list.
  local function gather(by, field, sql, ids, shape)
    for _, row in ipairs(db:all(sql, ids)) do
      local run = by[row.run_uuid]
      local list = run[field]
      list[#list + 1] = shape(row)
    end
  end

  local function pair(row) return { key = row.key, value = row.value or "" } end

  function service.metric_message(row)
    local value = row.value
    if row.is_nan == 1 then value = "NaN" end
    return { key = row.key, value = value, timestamp = row.timestamp, step = row.step }
  end

  --- Rows of runs as messages, with all that belongs to them, in a handful of queries whatever their number.
  function service.run_messages(rows)
    local by, ids, out = {}, json.array {}, json.array {}
    for i, row in ipairs(rows) do
      local run = {
        metrics = json.array {}, params = json.array {}, tags = json.array {}, dataset_inputs = json.array {},
        model_inputs = json.array {}, model_outputs = json.array {},
      }
      by[row.run_uuid], ids[i] = run, row.run_uuid
      out[i] = {
        info = info(row), data = { metrics = run.metrics, params = run.params, tags = run.tags },
        inputs = { dataset_inputs = run.dataset_inputs, model_inputs = run.model_inputs },
        outputs = { model_outputs = run.model_outputs },
      }
    end
    if #ids == 0 then return out end
    local text = json.encode(ids)
    local among = " IN (SELECT value FROM json_each(?)) "
    gather(by, "metrics", "SELECT run_uuid, key, value, timestamp, step, is_nan FROM latest_metrics WHERE run_uuid"
      .. among
      .. "ORDER BY key", text, service.metric_message)
    gather(by, "params", "SELECT run_uuid, key, value FROM params WHERE run_uuid" .. among .. "ORDER BY key", text,
      pair)
    gather(by, "tags", "SELECT run_uuid, key, value FROM tags WHERE run_uuid" .. among .. "ORDER BY key", text, pair)
    local inputs = {}
    gather(by, "dataset_inputs", [[SELECT i.destination_id AS run_uuid, i.input_uuid, d.* FROM inputs i
      JOIN datasets d ON d.dataset_uuid = i.source_id WHERE i.destination_type = 'RUN' AND i.source_type = 'DATASET'
      AND i.destination_id]] .. among .. "ORDER BY d.name, d.digest", text, function(row)
      local message = {
        tags = json.array {},
        dataset = { name = row.name, digest = row.digest, source_type = row.dataset_source_type,
          source = row.dataset_source, schema = row.dataset_schema, profile = row.dataset_profile },
      }
      inputs[row.input_uuid] = message
      return message
    end)
    if next(inputs) then
      local uuids = json.array {}
      for uuid in pairs(inputs) do uuids[#uuids + 1] = uuid end
      for _, row in ipairs(db:all("SELECT input_uuid, name, value FROM input_tags WHERE input_uuid" .. among
        .. "ORDER BY name",
        json.encode(uuids))) do
        local tags = inputs[row.input_uuid].tags
        tags[#tags + 1] = { key = row.name, value = row.value }
      end
    end
    gather(by, "model_inputs", [[SELECT source_id AS run_uuid, destination_id FROM inputs
      WHERE source_type = 'RUN_INPUT' AND destination_type = 'MODEL_INPUT' AND source_id]] .. among
      .. "ORDER BY rowid", text, function(row)
      return { model_id = row.destination_id }
    end)
    gather(by, "model_outputs", [[SELECT source_id AS run_uuid, destination_id, step FROM inputs
      WHERE source_type = 'RUN_OUTPUT' AND destination_type = 'MODEL_OUTPUT' AND source_id]] .. among
        .. "ORDER BY rowid",
      text, function(row)
      return { model_id = row.destination_id, step = row.step }
    end)
    return out
  end

  -- ---- life ----

  runs["POST runs/create"] = function(a)
    local experiment_id, name = a:string "experiment_id" or "0", a:string "run_name"
    local user, start = a:string "user_id" or "", a:int("start_time", sys.now_ms())
    local tags, tag_name = a:items "tags", nil
    for i, tag in ipairs(tags) do
      validate.tag(tag, ("tags[%d]."):format(i - 1))
      if tag.key == "mlflow.runName" then tag_name = tag.value end
    end
    if name and name ~= "" and tag_name and name ~= tag_name then
      core.invalid("Both 'run_name' argument and 'mlflow.runName' tag are specified, but with different values "
        .. "(run_name='%s', mlflow.runName='%s').", name, tag_name)
    end
    name = name and name ~= "" and name or tag_name or random_name()
    return db:transaction(function()
      local e = service.active_experiment(experiment_id)
      local id = sys.random_hex(16)
      db:run([[INSERT INTO runs (run_uuid, name, source_type, source_name, entry_point_name, user_id, status,
        start_time, end_time, source_version, lifecycle_stage, artifact_uri, experiment_id, deleted_time)
        VALUES (?, ?, 'UNKNOWN', '', '', ?, 'RUNNING', ?, NULL, '', 'active', ?, ?, NULL)]], id, name, user, start,
        e.artifact_location:gsub("/$", "") .. "/" .. id .. "/artifacts", e.experiment_id)
      for i, tag in ipairs(tags) do service.set_tag(id, tag, ("tags[%d]."):format(i - 1)) end
      if not tag_name then service.set_tag(id, { key = "mlflow.runName", value = name }, "") end
      return { run = service.run_messages { service.run(id) }[1] }
    end)
  end

  runs["GET runs/get"] = function(a)
    return { run = service.run_messages { service.run(service.run_id(a)) }[1] }
  end

  runs["POST runs/update"] = function(a)
    local id, status, finish, name = service.run_id(a), a:raw "status", a:int "end_time", a:string "run_name"
    if status ~= nil then
      status = statuses[status] or core.invalid("Invalid value for status: %s. Valid values are RUNNING, SCHEDULED, "
        .. "FINISHED, FAILED, KILLED.", tostring(status))
    end
    return db:transaction(function()
      local run = service.active_run(id)
      db:run("UPDATE runs SET status = ?, end_time = ?, name = ? WHERE run_uuid = ?", status or run.status,
        finish or run.end_time, name and name ~= "" and name or run.name, id)
      if name and name ~= "" then service.set_tag(id, { key = "mlflow.runName", value = name }, "") end
      return { run_info = info(service.run(id)) }
    end)
  end

  local function stage(id, to, deleted_time)
    db:transaction(function()
      service.run(id)
      db:run("UPDATE runs SET lifecycle_stage = ?, deleted_time = ? WHERE run_uuid = ?", to, deleted_time, id)
    end)
    return {}
  end
  runs["POST runs/delete"] = function(a) return stage(service.run_id(a), "deleted", sys.now_ms()) end
  runs["POST runs/restore"] = function(a) return stage(service.run_id(a), "active", json.null) end

  return runs
end
