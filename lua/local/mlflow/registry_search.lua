--- registered-models/search and model-versions/search.
local core = require "local.mlflow.core"
local filter = require "local.mlflow.filter"

local PROMPT = "mlflow.prompt.is_prompt"

local models = {
  types = { attribute = true, tag = true },
  aliases = { timestamp = "last_updated_timestamp" },
  attributes = { name = { column = "m.name", list = true } },
  orders = { name = "m.name", creation_timestamp = "m.creation_time", last_updated_timestamp = "m.last_updated_time" },
}
local versions = {
  types = { attribute = true, tag = true },
  aliases = { timestamp = "last_updated_timestamp" },
  attributes = {
    name = { column = "m.name", list = true }, run_id = { column = "m.run_id", list = true },
    source_path = { column = "m.source" }, version_number = { column = "m.version", numeric = true },
  },
  orders = { name = "m.name", version_number = "m.version", creation_timestamp = "m.creation_time",
    last_updated_timestamp = "m.last_updated_time" },
}
for _, spec in ipairs { models, versions } do
  spec.order = { types = { attribute = true }, aliases = spec.aliases, attributes = spec.orders }
end

return function(service)
  local db = service.db
  local search = {}

  -- Prompts are kept as registered models, and shown only when asked for.
  local function wants_prompts(c)
    return c.type == "tag" and c.key == PROMPT
      and (c.op == "=" and c.value:lower() == "true" or c.op == "!=" and c.value:lower() == "false")
  end

  -- Common to both: what, from which table, tags by which condition.
  local function query(a, spec, from, tags, tie, otherwise)
    local where, params, prompts = {}, {}, false
    for _, c in ipairs(filter.parse(a:string "filter", spec)) do
      if c.type == "attribute" then
        local sql, value = filter.compare(spec.attributes[c.key].column, c.op, c.value)
        where[#where + 1], params[#params + 1] = sql, value
      elseif c.key == PROMPT then
        prompts = prompts or wants_prompts(c)
        if wants_prompts(c) then
          where[#where + 1] = "EXISTS (SELECT 1 FROM " .. tags .. " AND t.key = '" .. PROMPT
            .. "' AND t.value = 'true')"
        end
      elseif c.op == "IS NULL" or c.op == "IS NOT NULL" then
        core.invalid("Invalid comparator for tag: %s", c.op)
      else
        local sql, value = filter.compare("t.value", c.op, c.value)
        where[#where + 1] = "EXISTS (SELECT 1 FROM " .. tags .. " AND t.key = ? AND " .. sql .. ")"
        params[#params + 1] = c.key
        params[#params + 1] = value
      end
    end
    if not prompts then
      where[#where + 1] = "NOT EXISTS (SELECT 1 FROM " .. tags .. " AND t.key = '" .. PROMPT
        .. "' AND t.value = 'true')"
    end
    local orders, seen = {}, {}
    for _, text in ipairs(a:items "order_by") do
      local o = filter.order(text, spec.order)
      if seen[o.key] then core.invalid("`order_by` contains duplicate fields: %s", text) end
      seen[o.key] = true
      orders[#orders + 1] = spec.orders[o.key] .. (o.descending and " DESC" or " ASC")
    end
    if #orders == 0 then orders[1] = otherwise end
    orders[#orders + 1] = tie
    return "SELECT m.* FROM " .. from .. (from:find "WHERE" and " AND " or " WHERE ") .. table.concat(where, " AND ")
      .. " ORDER BY " .. table.concat(orders, ", ") .. " LIMIT ? OFFSET ?", params
  end

  local function run(a, limit, sql, params, message)
    local offset = core.offset(a:string "page_token")
    params[#params + 1] = limit + 1
    params[#params + 1] = offset
    local page, token = core.page(db:all(sql, params), offset, limit)
    for i, row in ipairs(page) do page[i] = message(row) end
    return page, token
  end

  local function search_models(a)
    local limit = core.limit(a, 100, 1000)
    local sql, params = query(a, models, "registered_models m", "registered_model_tags t WHERE t.name = m.name",
      "m.name ASC", "m.name ASC")
    local page, token = run(a, limit, sql, params, service.model_message)
    return { registered_models = page, next_page_token = token }
  end
  search["GET registered-models/search"] = search_models
  search["POST registered-models/search"] = search_models

  local function search_versions(a)
    local limit = core.limit(a, 200000, 200000)
    local sql, params = query(a, versions, "model_versions m WHERE m.current_stage != 'Deleted_Internal'",
      "model_version_tags t WHERE t.name = m.name AND t.version = m.version", "m.name ASC, m.version DESC",
      "m.last_updated_time DESC")
    local page, token = run(a, limit, sql, params, service.version_message)
    return { model_versions = page, next_page_token = token }
  end
  search["GET model-versions/search"] = search_versions
  search["POST model-versions/search"] = search_versions

  return search
end
