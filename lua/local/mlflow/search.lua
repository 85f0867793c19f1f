--- runs/search and experiments/search-datasets: filters and orders over runs, as SQL.
local core = require "local.mlflow.core"
local filter = require "local.mlflow.filter"
local json = require "json"
local validate = require "local.mlflow.validate"

local spec = {
  types = { attribute = true, metric = true, parameter = true, tag = true, dataset = true },
  aliases = { created = "start_time", Created = "start_time", ["run name"] = "run_name", ["Run name"] = "run_name",
    ["Run Name"] = "run_name" },
  attributes = {
    run_id = { column = "run_uuid", list = true }, run_name = { column = "name" }, status = { column = "status" },
    artifact_uri = { column = "artifact_uri" }, user_id = { column = "user_id" },
    start_time = { column = "start_time", numeric = true }, end_time = { column = "end_time", numeric = true },
  },
}
local tables = { metric = "latest_metrics", parameter = "params", tag = "tags" }
local dataset_columns = { name = "d.name", digest = "d.digest" }

-- One clause: SQL, then its parameters.
local function clause_sql(c)
  if c.type == "attribute" then return filter.compare("r." .. spec.attributes[c.key].column, c.op, c.value) end
  if c.type == "dataset" then
    local exists = "EXISTS (SELECT 1 FROM inputs i JOIN datasets d ON d.dataset_uuid = i.source_id "
    if c.key == "context" then
      local sql, value = filter.compare("t.value", c.op, c.value)
      return exists .. "JOIN input_tags t ON t.input_uuid = i.input_uuid AND t.name = 'mlflow.data.context' "
        .. "WHERE i.destination_id = r.run_uuid AND " .. sql .. ")", value
    end
    local sql, value = filter.compare(dataset_columns[c.key], c.op, c.value)
    return exists .. "WHERE i.destination_id = r.run_uuid AND i.source_type = 'DATASET' AND " .. sql .. ")", value
  end
  local exists = "EXISTS (SELECT 1 FROM " .. tables[c.type] .. " x WHERE x.run_uuid = r.run_uuid AND x.key = ?"
  if c.op == "IS NULL" then return "NOT " .. exists .. ")", c.key end
  if c.op == "IS NOT NULL" then return exists .. ")", c.key end
  local sql, value = filter.compare("x.value", c.op, c.value)
  if c.type == "metric" then sql = "x.is_nan = 0 AND " .. sql end
  return exists .. " AND " .. sql .. ")", c.key, value
end

return function(service)
  local db = service.db
  local search = {}

  search["POST runs/search"] = function(a)
    local limit = core.limit(a, 1000, 50000)
    local offset = core.offset(a:string "page_token")
    local joins, join_params, params, orders, seen = {}, {}, {}, {}, {}
    local ids = json.array {}
    for i, id in ipairs(a:items "experiment_ids") do ids[i] = validate.experiment_id(id) end
    local where = { "r.experiment_id IN (SELECT value FROM json_each(?))", service.stages(a:raw "run_view_type", "r") }
    params[1] = json.encode(ids)
    for _, c in ipairs(filter.parse(a:string "filter", spec)) do
      local out = table.pack(clause_sql(c))
      where[#where + 1] = out[1]
      for i = 2, out.n do params[#params + 1] = out[i] end
    end
    for i, text in ipairs(a:items "order_by") do
      local o = filter.order(text, spec)
      local way, name = o.descending and " DESC" or " ASC", o.type .. "." .. o.key
      if seen[name] then core.invalid("`order_by` contains duplicate fields: %s", text) end
      seen[name] = true
      if o.type == "attribute" then
        local column = "r." .. spec.attributes[o.key].column
        orders[#orders + 1] = column .. " IS NULL"
        orders[#orders + 1] = column .. way
      elseif tables[o.type] then
        local alias = "o" .. i
        joins[#joins + 1] = ("LEFT JOIN %s %s ON %s.run_uuid = r.run_uuid AND %s.key = ?"):format(tables[o.type],
          alias, alias, alias)
        join_params[#join_params + 1] = o.key
        -- Numbers first, then NaN, then runs without it.
        orders[#orders + 1] = o.type == "metric"
          and ("CASE WHEN %s.is_nan = 1 THEN 1 WHEN %s.value IS NULL THEN 2 ELSE 0 END"):format(alias, alias)
          or alias .. ".value IS NULL"
        orders[#orders + 1] = alias .. ".value" .. way
      else
        core.invalid("Invalid identifier type '%s'", o.type)
      end
    end
    if not seen["attribute.start_time"] then orders[#orders + 1] = "r.start_time DESC" end
    orders[#orders + 1] = "r.run_uuid"
    local all = {}
    table.move(join_params, 1, #join_params, 1, all)
    table.move(params, 1, #params, #all + 1, all)
    all[#all + 1] = limit + 1
    all[#all + 1] = offset
    local rows = db:all("SELECT r.* FROM runs r " .. table.concat(joins, " ") .. " WHERE "
      .. table.concat(where, " AND ") .. " ORDER BY " .. table.concat(orders, ", ") .. " LIMIT ? OFFSET ?", all)
    local page, token = core.page(rows, offset, limit)
    return { runs = service.run_messages(page), next_page_token = token }
  end

  search["POST experiments/search-datasets"] = function(a)
    local ids = json.array {}
    for i, id in ipairs(a:items "experiment_ids") do ids[i] = validate.experiment_id(id) end
    local rows = db:all([[SELECT DISTINCT d.experiment_id, d.name, d.digest, t.value AS context FROM datasets d
      JOIN inputs i ON i.source_id = d.dataset_uuid
      LEFT JOIN input_tags t ON t.input_uuid = i.input_uuid AND t.name = 'mlflow.data.context'
      WHERE d.experiment_id IN (SELECT value FROM json_each(?)) ORDER BY d.name, d.digest LIMIT 1000]],
        json.encode(ids))
    for _, row in ipairs(rows) do row.experiment_id = tostring(row.experiment_id) end
    return { dataset_summaries = json.array(rows) }
  end

  return search
end
