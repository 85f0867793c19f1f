--- Artifacts of runs, models and versions, by the service: lists and single files. The bytes of mlflow-artifacts:/
-- URIs are under <state>/mlflow/artifacts; the proxy itself is in C (host/local/artifacts.c).
local core = require "local.mlflow.core"
local json = require "json"
local sys = require "sys"

return function(service)
  local db = service.db
  local artifacts = {}

  -- The file or folder that an artifact URI of ours, and a path below it, is.
  local function locate(uri, path)
    local root = uri:match "^mlflow%-artifacts:/+([^?#]*)$"
    if not root then
      core.fail("NOT_IMPLEMENTED", "The artifacts at %s are not kept by this server: read them where they are.", uri)
    end
    root = root:gsub("/+$", "")
    if not sys.is_plain(root) then core.invalid("Invalid artifact location: '%s'", uri) end
    path = path and path:gsub("/+$", "") or ""
    if path ~= "" and not sys.is_plain(path) then core.invalid("Invalid path: '%s'", path) end
    return service.artifact_root .. "/" .. root .. (path ~= "" and "/" .. path or ""), path
  end

  function service.list_artifacts(uri, path)
    local folder, below = locate(uri, path)
    local files = json.array {}
    for _, entry in ipairs(sys.list(folder) or {}) do
      files[#files + 1] = { path = below ~= "" and below .. "/" .. entry.name or entry.name, is_dir = entry.dir,
        file_size = not entry.dir and entry.size or nil }
    end
    return { root_uri = uri, files = files }
  end

  artifacts["GET artifacts/list"] = function(a)
    return service.list_artifacts(service.run(service.run_id(a)).artifact_uri, a:string "path")
  end

  local function file(uri, path)
    if not path or path == "" then core.missing "path" end
    local at = locate(uri, path)
    local st = sys.stat(at)
    if not st or st.dir then core.fail("RESOURCE_DOES_NOT_EXIST", "No such artifact: '%s'", path) end
    return { file = at, headers = { ["X-Content-Type-Options"] = "nosniff", ["Content-Disposition"] = "attachment" } }
  end

  --- GET /get-artifact?run_id=&path=
  function service.run_artifact(a)
    return file(service.run(service.run_id(a)).artifact_uri, a:string "path")
  end

  --- GET /model-versions/get-artifact?name=&version=&path=
  function service.version_artifact(a)
    local name, version = a:string("name", true), a:string("version", true)
    local v = db:one("SELECT storage_location, source FROM model_versions WHERE name = ? AND version = ?", name,
      math.tointeger(tonumber(version)) or -1)
      or core.fail("RESOURCE_DOES_NOT_EXIST", "Model Version (name=%s, version=%s) not found", name, version)
    return file(v.storage_location or v.source, a:string "path")
  end

  return artifacts
end
