--- mlflow: experiments, runs, artifacts and the model registry of an MLflow tracking server.
---
---   local ml = mlflow.connect()
---   local run = ml:experiment("digits"):run { name = "first", tags = { external_run_id = id } }
---   run:log_params { epochs = 20 }
---   run:log_metric("loss", 0.12, 1)
---   run:log_artifact("model.json", "model")
---   run:finish()
---   ml:model("digits"):create_version { run = run, source = run.artifact_uri .. "/model" }
---
--- Where: connect{ endpoint = }, else MLFLOW_TRACKING_URI, else the active profile, else the embedded service. The
--- usual variables count (MLFLOW_TRACKING_TOKEN, _USERNAME, _PASSWORD, _INSECURE_TLS, MLFLOW_EXPERIMENT_NAME, ...).
--- REST API: https://mlflow.org/docs/latest/rest-api.html
local host = require "host"
local pages = require "pages"
local registry = require "mlflow.registry"
local wire = require "mlflow.wire"

local api = host.mlflow
local mlflow = {}

local Client, Experiment, Run = {}, {}, {}
for _, class in ipairs { Client, Experiment, Run } do class.__index = class end
registry.extend(Client)

local each, pairs_list, to_map, quoted = wire.each, wire.pairs_list, wire.to_map, wire.quoted
local ambiguous, collect = pages.ambiguous, pages.collect
local number_in, number_out = wire.number_in, wire.number_out

local BATCH = { metrics = 1000, params = 100, tags = 100 } -- what the server takes in one log-batch

local function milliseconds() return os.time() * 1000 end

-- ---- client ----

--- mlflow.connect{ endpoint?, auth?, token? } -> client
---   endpoint  string   base URL of the server
---   auth      table    { type = "bearer", token = secret } and the like
---   token     secret   short for auth of type bearer
function mlflow.connect(options)
  local found = api.connect(options or {})
  return setmetatable({
    client = found.client,
    url = found.url,
    embedded = found.embedded,
    default_experiment = found.experiment or "Default",
  }, Client)
end

--- client:experiment(name?) -> experiment: the one of that name, made when it is not there, restored when deleted.
--- Without a name: MLFLOW_EXPERIMENT_NAME, the profile's, or "Default".
function Client:experiment(name)
  name = name or self.default_experiment
  local function find()
    return try(api.get_experiment_by_name, { client = self.client, experiment_name = name })
  end
  local reply, err = find()
  if not reply and err.code == "not_found" then
    local made
    made, err = try(api.create_experiment, { client = self.client, name = name })
    if made then return setmetatable({ ml = self, id = made.experiment_id, name = name }, Experiment) end
    if err.code == "exists" or ambiguous(err) then reply, err = find() end -- somebody else, or we, just made it
  end
  if not reply then error(err, 0) end
  local found = reply.experiment
  if found.lifecycle_stage == "deleted" then
    api.restore_experiment { client = self.client, experiment_id = found.experiment_id }
  end
  return setmetatable({
    ml = self, id = found.experiment_id, name = found.name, artifact_location = found.artifact_location,
    tags = to_map(found.tags),
  }, Experiment)
end

--- client:experiments{ filter?, order_by?, limit?, view? } -> list; view: "ACTIVE_ONLY", "DELETED_ONLY", "ALL"
function Client:experiments(options)
  options = options or {}
  return collect(each(api.search_experiments, {
    client = self.client, filter = options.filter, order_by = options.order_by, view_type = options.view,
  }, options.limit, function(found)
    return setmetatable({
      ml = self, id = found.experiment_id, name = found.name, artifact_location = found.artifact_location,
      lifecycle_stage = found.lifecycle_stage, tags = to_map(found.tags),
    }, Experiment)
  end))
end

local function run_of(ml, reply)
  local info, data = reply.info, reply.data or {}
  local run = setmetatable({ ml = ml, id = info.run_id }, Run)
  run.name, run.status, run.experiment_id = info.run_name, info.status, info.experiment_id
  run.artifact_uri = info.artifact_uri
  run.data = {
    params = to_map(data.params), tags = to_map(data.tags), metrics = to_map(data.metrics, number_in),
    artifact_uri = info.artifact_uri, status = info.status, name = info.run_name, run_id = info.run_id,
    experiment_id = info.experiment_id, start_time = info.start_time, end_time = info.end_time,
    lifecycle_stage = info.lifecycle_stage, inputs = reply.inputs,
  }
  if not ml.embedded then
    run.url = ("%s/#/experiments/%s/runs/%s"):format(ml.url, info.experiment_id, info.run_id)
  end
  return run
end

--- client:run(id) -> run
function Client:run(id)
  return run_of(self, api.get_run({ client = self.client, run_id = id }).run)
end

--- Names, ids and experiment objects -> ids. Digits alone are taken for an id only when no experiment has that name.
local function experiment_ids(ml, list)
  local ids = {}
  for _, item in ipairs(list) do
    if type(item) == "table" then
      ids[#ids + 1] = item.id
    else
      local reply, err = try(api.get_experiment_by_name, { client = ml.client, experiment_name = tostring(item) })
      if reply then
        ids[#ids + 1] = reply.experiment.experiment_id
      elseif err.code == "not_found" and tostring(item):match "^%d+$" then
        ids[#ids + 1] = tostring(item)
      else
        error(err, 0)
      end
    end
  end
  return ids
end

--- client:each_run{ experiments, filter?, order_by?, limit?, view? } -> iterator over runs, page by page
---   experiments  list    names, ids or experiment objects
---   filter       string  "metrics.accuracy > 0.9 and tags.external_run_id = 'x'"
---   order_by     list    { "metrics.accuracy DESC" }
function Client:each_run(options)
  if type(options) ~= "table" or type(options.experiments) ~= "table" or #options.experiments == 0 then
    error("mlflow: search_runs needs experiments = { name, ... }", 2)
  end
  return each(api.search_runs, {
    client = self.client, experiment_ids = experiment_ids(self, options.experiments), filter = options.filter,
    order_by = options.order_by, run_view_type = options.view,
  }, options.limit, function(found) return run_of(self, found) end)
end

--- client:search_runs{ ... } -> list of runs; options as for each_run. All pages are read, up to `limit`.
function Client:search_runs(options)
  return collect(self:each_run(options))
end

-- ---- experiments ----

--- experiment:run{ name?, tags?, key? } -> run, started
---   key  string  makes the call repeatable: a run of this experiment with that key is taken up instead of a new one
function Experiment:run(options)
  options = options or {}
  local ml = self.ml
  local tags = {}
  for key, value in pairs(options.tags or {}) do tags[key] = value end
  -- A reply that got lost leaves a run behind; by this tag it is found again instead of made twice.
  local key = options.key or ("%x-%x"):format(math.random(0), os.time())
  tags["mlhost.key"] = key
  local function find()
    return ml:search_runs {
      experiments = { self }, filter = "tags.`mlhost.key` = " .. quoted(key), limit = 1,
    }[1]
  end
  if options.key then
    local there = find()
    if there then
      there.existing = true
      return there
    end
  end
  local function create()
    return try(api.create_run, {
      client = ml.client, experiment_id = self.id, run_name = options.name, start_time = milliseconds(),
      tags = pairs_list(tags, "tags"),
    })
  end
  local reply, err = create()
  if not reply and ambiguous(err) then
    local made = find()
    if made then return made end
    reply, err = create()
  end
  if not reply then error(err, 0) end
  return run_of(ml, reply.run)
end

--- experiment:runs{ filter?, order_by?, limit? } -> list
function Experiment:runs(options)
  local all = { experiments = { self } }
  for key, value in pairs(options or {}) do all[key] = value end
  return self.ml:search_runs(all)
end

--- experiment:rename(name)
function Experiment:rename(name)
  api.update_experiment { client = self.ml.client, experiment_id = self.id, new_name = name }
  self.name = name
end

--- experiment:set_tag(name, value)
function Experiment:set_tag(key, value)
  api.set_experiment_tag { client = self.ml.client, experiment_id = self.id, key = key, value = tostring(value) }
end

--- experiment:delete(), experiment:restore(): a deleted experiment keeps its name until it is restored
function Experiment:delete() api.delete_experiment { client = self.ml.client, experiment_id = self.id } end
function Experiment:restore() api.restore_experiment { client = self.ml.client, experiment_id = self.id } end

-- ---- runs ----

--- run:get() -> { params, metrics (latest), tags, artifact_uri, status, name, start_time, end_time, ... }, read anew
function Run:get()
  local fresh = run_of(self.ml, api.get_run({ client = self.ml.client, run_id = self.id }).run)
  self.name, self.status, self.artifact_uri, self.data = fresh.name, fresh.status, fresh.artifact_uri, fresh.data
  return self.data
end

--- run:log_batch{ metrics = { { key, value, step?, timestamp? }, ... }, params = { name = value }, tags = { ... } }
--- Any number of each: split into requests that the server takes.
function Run:log_batch(batch)
  local now = milliseconds()
  local lists = { params = pairs_list(batch.params, "params"), tags = pairs_list(batch.tags, "tags"), metrics = {} }
  for i, metric in ipairs(batch.metrics or {}) do
    lists.metrics[i] = {
      key = metric.key, value = number_out(metric.value), timestamp = metric.timestamp or now, step = metric.step or 0,
    }
  end
  local at = { params = 1, tags = 1, metrics = 1 }
  repeat
    local args, room = { client = self.ml.client, run_id = self.id }, 1000
    for _, kind in ipairs { "params", "tags", "metrics" } do
      local last = math.min(#lists[kind], at[kind] + math.min(BATCH[kind], room) - 1)
      if last >= at[kind] then
        args[kind] = table.move(lists[kind], at[kind], last, 1, {})
        room, at[kind] = room - #args[kind], last + 1
      end
    end
    if room < 1000 then api.log_batch(args) end
  until at.params > #lists.params and at.tags > #lists.tags and at.metrics > #lists.metrics
end

--- run:log_params{ name = value, ... }: a parameter cannot be changed once it is set.
function Run:log_params(params) self:log_batch { params = params } end

--- run:log_metric(name, value, step?)
function Run:log_metric(key, value, step) self:log_batch { metrics = { { key = key, value = value, step = step } } } end

--- run:log_metrics({ name = value, ... }, step?)
function Run:log_metrics(metrics, step)
  local list = {}
  for key, value in pairs(metrics) do list[#list + 1] = { key = key, value = value, step = step } end
  table.sort(list, function(a, b) return a.key < b.key end)
  self:log_batch { metrics = list }
end

--- run:set_tags{ name = value, ... }; run:set_tag(name, value); run:delete_tag(name)
function Run:set_tags(tags) self:log_batch { tags = tags } end
function Run:set_tag(key, value) self:log_batch { tags = { [key] = value } } end
function Run:delete_tag(key) api.delete_tag { client = self.ml.client, run_id = self.id, key = key } end

--- run:metric_history(name) -> list of { value, step, timestamp }, oldest first
function Run:metric_history(key)
  local list, args = {}, { client = self.ml.client, run_id = self.id, metric_key = key }
  repeat
    local page = api.get_metric_history(args)
    for _, item in ipairs(page.items) do
      list[#list + 1] = { value = number_in(item.value), step = tonumber(item.step or 0), timestamp = item.timestamp }
    end
    args.page_token = page.next
  until not page.next
  table.sort(list, function(a, b)
    if a.step ~= b.step then return a.step < b.step end
    return a.timestamp < b.timestamp
  end)
  return list
end

--- run:log_inputs{ { name, digest, source_type, source, schema?, profile?, context? }, ... }: the data it used
function Run:log_inputs(datasets)
  local list = {}
  for i, item in ipairs(datasets) do
    local tags = item.context and { { key = "mlflow.data.context", value = item.context } } or nil
    list[i] = {
      tags = tags,
      dataset = {
        name = item.name, digest = item.digest, source_type = item.source_type, source = item.source,
        schema = item.schema, profile = item.profile,
      },
    }
  end
  api.log_inputs { client = self.ml.client, run_id = self.id, datasets = list }
end

--- run:log_artifact(path, folder?, name?) -> { files, bytes }: a file, or a folder with all below it, streamed.
--- A file lands as folder/name (name: the file's own), a folder's content in `folder`.
function Run:log_artifact(path, folder, name)
  local fs = require "fs"
  local target = folder or ""
  local stat = fs.stat(path)
  if not stat or stat.kind ~= "folder" then
    target = (target ~= "" and target .. "/" or "") .. (name or path:match "[^/]+$" or path)
  end
  return api.upload_artifact {
    client = self.ml.client, artifact_uri = self.artifact_uri, from = path, path = target ~= "" and target or nil,
  }
end
Run.log_artifacts = Run.log_artifact

--- run:artifacts(folder?) -> list of { path, is_dir, size }
function Run:artifacts(folder)
  local list, args = {}, { client = self.ml.client, run_id = self.id, path = folder }
  repeat
    local reply = api.list_artifacts(args)
    for _, file in ipairs(reply.files or {}) do
      list[#list + 1] = { path = file.path, is_dir = file.is_dir or false, size = tonumber(file.file_size or 0) }
    end
    args.page_token = reply.next_page_token ~= "" and reply.next_page_token or nil
  until not args.page_token
  return list
end

--- run:download(path, to) -> { files, bytes }: an artifact into the file `to`, or a folder into the folder `to`.
function Run:download(path, to)
  local below = self:artifacts(path)
  if #below == 0 or (#below == 1 and below[1].path == path and not below[1].is_dir) then
    local got = api.download_artifact {
      client = self.ml.client, run_id = self.id, artifact_uri = self.artifact_uri, path = path, to = to,
    }
    return { files = 1, bytes = got.bytes }
  end
  local total = { files = 0, bytes = 0 }
  for _, file in ipairs(below) do
    local name = file.path:match "[^/]+$"
    local got
    if file.is_dir then
      got = self:download(file.path, to .. "/" .. name)
    else
      got = api.download_artifact {
        client = self.ml.client, run_id = self.id, artifact_uri = self.artifact_uri, path = file.path,
        to = to .. "/" .. name,
      }
      got.files = 1
    end
    total.files, total.bytes = total.files + got.files, total.bytes + got.bytes
  end
  return total
end

--- run:finish(status?): "FINISHED" (default), "FAILED" or "KILLED"
function Run:finish(status)
  self.status = status or "FINISHED"
  api.update_run { client = self.ml.client, run_id = self.id, status = self.status, end_time = milliseconds() }
end

--- run:rename(name)
function Run:rename(name)
  api.update_run { client = self.ml.client, run_id = self.id, run_name = name }
  self.name = name
end

--- run:delete(), run:restore()
function Run:delete() api.delete_run { client = self.ml.client, run_id = self.id } end
function Run:restore() api.restore_run { client = self.ml.client, run_id = self.id } end

return mlflow
