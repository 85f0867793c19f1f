--- Experiments.
local core = require "local.mlflow.core"
local filter = require "local.mlflow.filter"
local json = require "json"
local sys = require "sys"
local validate = require "local.mlflow.validate"

return function(service)
  local db = service.db
  local experiments = {}

  --- The row, or RESOURCE_DOES_NOT_EXIST.
  function service.experiment(id)
    local n = validate.experiment_id(id)
    return db:one("SELECT * FROM experiments WHERE experiment_id = ?", n)
      or core.fail("RESOURCE_DOES_NOT_EXIST", "No Experiment with id=%d exists", n)
  end

  function service.active_experiment(id)
    local e = service.experiment(id)
    if e.lifecycle_stage ~= "active" then
      core.invalid("The experiment %d must be in the 'active' state. Current state is %s.", e.experiment_id,
        e.lifecycle_stage)
    end
    return e
  end

  local function message(e)
    return {
      experiment_id = tostring(e.experiment_id), name = e.name, artifact_location = e.artifact_location,
      lifecycle_stage = e.lifecycle_stage, creation_time = e.creation_time, last_update_time = e.last_update_time,
      tags = json.array(db:all("SELECT key, value FROM experiment_tags WHERE experiment_id = ? ORDER BY key",
        e.experiment_id)),
    }
  end

  local function set_tag(id, tag)
    local key, value = validate.other_tag(tag, 20000)
    if db:run("UPDATE experiment_tags SET value = ? WHERE key = ? AND experiment_id = ?", value, key, id) == 0 then
      db:run("INSERT INTO experiment_tags (key, value, experiment_id) VALUES (?, ?, ?)", key, value, id)
    end
  end

  experiments["POST experiments/create"] = function(a)
    local name, location, now = a:string("name", true), a:string "artifact_location", sys.now_ms()
    validate.experiment_name(name)
    if location and location ~= "" then validate.artifact_location(location) else location = nil end
    return db:transaction(function()
      local there = db:one("SELECT experiment_id, lifecycle_stage FROM experiments WHERE name = ?", name)
      if there then
        local deleted = there.lifecycle_stage == "deleted"
        core.fail("RESOURCE_ALREADY_EXISTS", "Experiment(name=%s) already exists.%s", name, deleted
          and (" It is deleted (ID " .. there.experiment_id .. "): restore it, or choose another name.") or "")
      end
      db:run([[INSERT INTO experiments (name, artifact_location, lifecycle_stage, creation_time, last_update_time)
        VALUES (?, ?, 'active', ?, ?)]], name, location, now, now)
      local id = db:last_id()
      if not location then
        db:run("UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", "mlflow-artifacts:/" .. id, id)
      end
      for _, tag in ipairs(a:items "tags") do set_tag(id, tag) end
      return { experiment_id = tostring(id) }
    end)
  end

  experiments["GET experiments/get"] = function(a)
    return { experiment = message(service.experiment(a:string("experiment_id", true))) }
  end

  experiments["GET experiments/get-by-name"] = function(a)
    local name = a:string("experiment_name", true)
    local e = db:one("SELECT * FROM experiments WHERE name = ?", name)
      or core.fail("RESOURCE_DOES_NOT_EXIST", "Could not find experiment with name '%s'", name)
    return { experiment = message(e) }
  end

  local function touch(e, stage)
    local now = sys.now_ms()
    db:run("UPDATE experiments SET lifecycle_stage = ?, last_update_time = ? WHERE experiment_id = ?", stage, now,
      e.experiment_id)
    if stage == "deleted" then
      db:run("UPDATE runs SET lifecycle_stage = 'deleted', deleted_time = ? WHERE experiment_id = ?", now,
        e.experiment_id)
    else
      db:run("UPDATE runs SET lifecycle_stage = 'active', deleted_time = NULL WHERE experiment_id = ?", e.experiment_id)
    end
  end

  experiments["POST experiments/delete"] = function(a)
    local id = a:string("experiment_id", true)
    db:transaction(function()
      local e = service.experiment(id)
      if e.lifecycle_stage ~= "active" then
        core.fail("RESOURCE_DOES_NOT_EXIST", "No Experiment with id=%d exists", e.experiment_id)
      end
      touch(e, "deleted")
    end)
    return {}
  end

  experiments["POST experiments/restore"] = function(a)
    local id = a:string("experiment_id", true)
    db:transaction(function()
      local e = service.experiment(id)
      if e.lifecycle_stage == "active" then
        core.fail("RESOURCE_DOES_NOT_EXIST", "No Experiment with id=%d exists", e.experiment_id)
      end
      touch(e, "active")
    end)
    return {}
  end

  experiments["POST experiments/update"] = function(a)
    local id, name = a:string("experiment_id", true), a:string "new_name"
    if not name then return {} end
    validate.experiment_name(name)
    db:transaction(function()
      local e = service.experiment(id)
      if e.lifecycle_stage ~= "active" then core.fail("INVALID_STATE", "Cannot rename a non-active experiment.") end
      if db:value("SELECT 1 FROM experiments WHERE name = ? AND experiment_id != ?", name, e.experiment_id) then
        core.fail("RESOURCE_ALREADY_EXISTS", "Experiment(name=%s) already exists.", name)
      end
      db:run("UPDATE experiments SET name = ?, last_update_time = ? WHERE experiment_id = ?", name, sys.now_ms(),
        e.experiment_id)
    end)
    return {}
  end

  experiments["POST experiments/set-experiment-tag"] = function(a)
    local id, tag = a:string("experiment_id", true), { key = a:string("key", true), value = a:string "value" }
    db:transaction(function() set_tag(service.active_experiment(id).experiment_id, tag) end)
    return {}
  end

  experiments["POST experiments/delete-experiment-tag"] = function(a)
    local id, key = a:string("experiment_id", true), a:string("key", true)
    db:transaction(function()
      local e = service.active_experiment(id)
      if db:run("DELETE FROM experiment_tags WHERE experiment_id = ? AND key = ?", e.experiment_id, key) == 0 then
        core.fail("RESOURCE_DOES_NOT_EXIST", "No tag with name: %s in experiment with id %d", key, e.experiment_id)
      end
    end)
    return {}
  end

  -- ---- search ----

  local spec = {
    types = { attribute = true, tag = true },
    attributes = {
      name = {}, experiment_id = { list = true }, creation_time = { numeric = true },
      last_update_time = { numeric = true },
    },
  }

  local function clause_sql(c)
    if c.type == "attribute" then
      if c.key == "experiment_id" then
        if c.op == "LIKE" or c.op == "ILIKE" then core.invalid("Invalid comparator for experiment_id: %s", c.op) end
        return filter.compare("CAST(e.experiment_id AS TEXT)", c.op, c.value)
      end
      return filter.compare("e." .. c.key, c.op, c.value)
    end
    local exists = "EXISTS (SELECT 1 FROM experiment_tags t WHERE t.experiment_id = e.experiment_id AND t.key = ?"
    if c.op == "IS NULL" then return "NOT " .. exists .. ")" end
    if c.op == "IS NOT NULL" then return exists .. ")" end
    local sql, value = filter.compare("t.value", c.op, c.value)
    return exists .. " AND " .. sql .. ")", value
  end

  local function search(a)
    local limit = core.limit(a, 1000, 50000)
    local offset = core.offset(a:string "page_token")
    local where, params = { service.stages(a:raw "view_type", "e") }, {}
    for _, c in ipairs(filter.parse(a:string "filter", spec)) do
      local sql, value = clause_sql(c)
      where[#where + 1] = sql
      if c.type == "tag" then params[#params + 1] = c.key end
      if value ~= nil then params[#params + 1] = value end
    end
    local orders = {}
    for _, text in ipairs(a:items "order_by") do
      local o = filter.order(text, spec)
      if o.type ~= "attribute" then core.invalid("Invalid order_by entity: %s", o.type) end
      orders[#orders + 1] = "e." .. o.key .. (o.descending and " DESC" or " ASC")
    end
    if #orders == 0 then orders = { "e.creation_time DESC" } end
    orders[#orders + 1] = "e.experiment_id ASC"
    params[#params + 1] = limit + 1
    params[#params + 1] = offset
    local rows = db:all("SELECT e.* FROM experiments e WHERE " .. table.concat(where, " AND ") .. " ORDER BY "
      .. table.concat(orders, ", ") .. " LIMIT ? OFFSET ?", params)
    local page, token = core.page(rows, offset, limit)
    for i, row in ipairs(page) do page[i] = message(row) end
    return { experiments = page, next_page_token = token }
  end
  experiments["POST experiments/search"] = search
  experiments["GET experiments/search"] = search

  local views = { ACTIVE_ONLY = "'active'", DELETED_ONLY = "'deleted'", ALL = "'active', 'deleted'" }
  local numbers = { "ACTIVE_ONLY", "DELETED_ONLY", "ALL" }

  --- The SQL for a view type (its name or number), of a table's alias.
  function service.stages(view, alias)
    view = view or "ACTIVE_ONLY"
    view = numbers[tonumber(view)] or tostring(view):upper()
    if not views[view] then core.invalid("Invalid view type: '%s'", view) end
    return alias .. ".lifecycle_stage IN (" .. views[view] .. ")"
  end

  return experiments
end
