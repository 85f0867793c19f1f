-- kubeflow.db: experiments, pipelines, versions, runs. Only the serve process writes it; runners write state.json.
local store = {}

local schema = {
  [[CREATE TABLE experiments (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, description TEXT,
      created_at INTEGER NOT NULL, last_run_created_at INTEGER NOT NULL DEFAULT 0, namespace TEXT NOT NULL DEFAULT '',
      storage_state TEXT NOT NULL DEFAULT 'AVAILABLE')]],
  [[CREATE TABLE pipelines (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, display_name TEXT NOT NULL,
      description TEXT, created_at INTEGER NOT NULL, namespace TEXT NOT NULL DEFAULT '', tags TEXT)]],
  [[CREATE TABLE versions (id TEXT PRIMARY KEY, pipeline_id TEXT NOT NULL, name TEXT NOT NULL,
      display_name TEXT NOT NULL, description TEXT, created_at INTEGER NOT NULL, code_source_url TEXT, tags TEXT,
      spec TEXT NOT NULL, status TEXT NOT NULL DEFAULT 'READY', UNIQUE (pipeline_id, name))]],
  [[CREATE TABLE runs (id TEXT PRIMARY KEY, experiment_id TEXT NOT NULL, display_name TEXT NOT NULL, description TEXT,
      storage_state TEXT NOT NULL DEFAULT 'AVAILABLE', service_account TEXT, created_at INTEGER NOT NULL,
      scheduled_at INTEGER NOT NULL, finished_at INTEGER NOT NULL DEFAULT 0, state TEXT NOT NULL, error TEXT,
      history TEXT NOT NULL, pipeline_id TEXT, version_id TEXT, spec TEXT, parameters TEXT, pipeline_root TEXT,
      namespace TEXT NOT NULL DEFAULT '', recurring_run_id TEXT NOT NULL DEFAULT '')]],
  "CREATE INDEX runs_by_experiment ON runs (experiment_id, created_at)",
  "CREATE INDEX runs_by_state ON runs (state)",
}

--- Brings a database to the schema.
function store.open(db)
  local version = db:value("PRAGMA user_version")
  if version > 1 then
    error("kubeflow.db was written by a newer mlhost (schema " .. version
      .. "); use that one, or another state folder", 0)
  end
  if version < 1 then
    db:transaction(function()
      for _, statement in ipairs(schema) do
        db:run(statement)
      end
      db:run("PRAGMA user_version = 1")
    end)
  end
  return db
end

return store
