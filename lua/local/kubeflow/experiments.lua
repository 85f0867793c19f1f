-- Experiments: names under which runs are kept together.
local errors = require "local.kubeflow.errors"
local list = require "local.kubeflow.list"
local message = require "local.kubeflow.message"
local json = require "local.json"

local experiments = {}

local fields = {
  id = "id", experiment_id = "id", name = "name", display_name = "name", created_at = "created_at",
  last_run_created_at = "last_run_created_at", description = "description", namespace = "namespace",
  storage_state = "storage_state",
}

local function shown(row)
  return {
    experiment_id = row.id, display_name = row.name, description = message.text(row.description),
    created_at = list.print_time(row.created_at), last_run_created_at = list.print_time(row.last_run_created_at)
      or "1970-01-01T00:00:00Z",
    namespace = message.text(row.namespace), storage_state = row.storage_state,
  }
end

local function find(service, id)
  return service.db:one("SELECT * FROM experiments WHERE id = ?", id)
         or errors.raise(errors.NOT_FOUND, "experiment %s not found", id)
end

local function add(service, name, description, namespace)
  local id = service.new_id()
  service.db:run("INSERT INTO experiments (id, name, description, created_at, namespace) VALUES (?, ?, ?, ?, ?)", id,
    name,
                 description or "", service.now(), namespace or "")
  return find(service, id)
end

--- The experiment of runs that name none.
function experiments.default(service)
  return service.db:one("SELECT * FROM experiments WHERE name = 'Default'")
         or add(service, "Default", "All runs created without specifying an experiment will be grouped here.")
end

experiments.find = find

function experiments.create(service, request)
  local given = message.read(request.body, "Experiment")
  local name = given.display_name or ""
  if name == "" then
    errors.raise(errors.INVALID, "experiment.display_name must not be empty")
  elseif #name > 128 then
    errors.raise(errors.INVALID, "experiment.display_name is longer than 128 bytes")
  elseif service.db:one("SELECT id FROM experiments WHERE name = ?", name) then
    errors.raise(errors.EXISTS, "an experiment named '%s' exists already", name)
  end
  return shown(add(service, name, given.description, given.namespace))
end

function experiments.list(service, request)
  local rows, token, total = list.rows({ db = service.db, from = "experiments", fields = fields,
    query = request.query })
  local items = json.array({})
  for i, row in ipairs(rows) do
    items[i] = shown(row)
  end
  return { experiments = #items > 0 and items or nil, next_page_token = token, total_size = total }
end

function experiments.get(service, _, id)
  return shown(find(service, id))
end

function experiments.delete(service, _, id)
  find(service, id)
  service.db:run("DELETE FROM experiments WHERE id = ?", id)
  return {}
end

function experiments.archive(service, _, id)
  find(service, id)
  service.db:transaction(function()
    service.db:run("UPDATE experiments SET storage_state = 'ARCHIVED' WHERE id = ?", id)
    service.db:run("UPDATE runs SET storage_state = 'ARCHIVED' WHERE experiment_id = ?", id)
  end)
  return {}
end

function experiments.unarchive(service, _, id)
  find(service, id)
  service.db:run("UPDATE experiments SET storage_state = 'AVAILABLE' WHERE id = ?", id)
  return {}
end

return experiments
