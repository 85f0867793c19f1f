-- The embedded Kubeflow Pipelines API (v2beta1): routes, errors, health. The objects are in
-- lua/local/kubeflow/, what runs a pipeline in lua/local/runner/.
local errors = require "local.kubeflow.errors"
local experiments = require "local.kubeflow.experiments"
local json = require "local.json"
local pipelines = require "local.kubeflow.pipelines"
local runs = require "local.kubeflow.runs"
local sqlite = require "sqlite"
local store = require "local.kubeflow.store"
local sys = require "sys"

local function unimplemented(what)
  return function()
    errors.raise(errors.UNIMPLEMENTED, "%s is not part of the embedded service", what)
  end
end

local function health()
  return { commit_sha = "unknown", tag_name = "mlhost", multi_user = false, pipeline_store = "database" }
end

-- Method, path below the API's prefix ("*" takes one part), handler. The first that fits counts.
local routes = {
  { "GET", "healthz", health },
  { "GET", "auth", function() return {} end },

  { "GET", "experiments", experiments.list },
  { "POST", "experiments", experiments.create },
  { "GET", "experiments/*", experiments.get },
  { "DELETE", "experiments/*", experiments.delete },
  { "POST", "experiments/*:archive", experiments.archive },
  { "POST", "experiments/*:unarchive", experiments.unarchive },

  { "POST", "pipelines/upload", pipelines.upload, upload = true },
  { "POST", "pipelines/upload_version", pipelines.upload_version, upload = true },
  { "POST", "pipelines/create", pipelines.create_with_version },
  { "GET", "pipelines/names/*", pipelines.by_name },
  { "GET", "pipelines", pipelines.list },
  { "POST", "pipelines", pipelines.create },
  { "GET", "pipelines/*/versions", pipelines.list_versions },
  { "POST", "pipelines/*/versions", pipelines.create_version },
  { "GET", "pipelines/*/versions/*", pipelines.get_version },
  { "PATCH", "pipelines/*/versions/*", pipelines.update_version },
  { "DELETE", "pipelines/*/versions/*", pipelines.delete_version },
  { "GET", "pipelines/*", pipelines.get },
  { "PATCH", "pipelines/*", pipelines.update },
  { "DELETE", "pipelines/*", pipelines.delete },

  { "GET", "runs", runs.list },
  { "POST", "runs", runs.create },
  { "GET", "runs/*", runs.get },
  { "DELETE", "runs/*", runs.delete },
  { "POST", "runs/*:terminate", runs.terminate },
  { "POST", "runs/*:retry", runs.retry },
  { "POST", "runs/*:archive", runs.archive },
  { "POST", "runs/*:unarchive", runs.unarchive },
  { "GET", "runs/*/nodes/*/artifacts/*:read", runs.artifact, upload = true },

  { "GET", "recurringruns", function() return {} end },
  { "POST", "recurringruns", unimplemented("scheduling runs (start `mlhost run` from cron or a CI schedule instead)") },
}
local log_routes = { { "GET", "runs/*/nodes/*/log", runs.log, upload = true } }
local old_routes = { { "GET", "healthz", health }, { "GET", "auth", function() return {} end } }

for _, table_of in ipairs { routes, log_routes, old_routes } do
  for _, route in ipairs(table_of) do
    local pattern = route[2]:gsub("[%-%.]", "%%%0"):gsub("%*:", "([^/:]+):"):gsub("%*", "([^/]+)")
    route.pattern = "^" .. pattern .. "$"
  end
end

local function find_route(list, method, path)
  local other
  for _, route in ipairs(list) do
    local captures = table.pack(path:match(route.pattern))
    if captures[1] and route[1] == method then
      return route, captures
    end
    other = other or captures[1] and route
  end
  return nil, other
end

local function reply(status, body)
  return { status = status, headers = { ["Content-Type"] = "application/json" }, body = json.encode(body) }
end

local versions = { ["/apis/v2beta1/"] = routes, ["/apis/v1beta1/"] = old_routes, ["/apis/v1alpha1/"] = log_routes }

local function answer(service, request)
  local prefix, path = request.path:match("^(/apis/[%w]+/)(.-)/?$")
  local route, captures = find_route(versions[prefix] or {}, request.method, path or "")
  if not route then
    -- As grpc-gateway does: 404 for a path that it does not know, 501 for another method of one that it does.
    local failed = errors.response({ grpc = captures and errors.UNIMPLEMENTED or errors.NOT_FOUND,
                                     message = captures and "Method Not Allowed" or "Not Found" })
    return reply(failed.status, failed.body)
  end
  local ok, result, whole = pcall(route[3], service, request, captures[1], captures[2], captures[3])
  if ok then
    return whole or reply(200, result)
  elseif type(result) == "table" and result.grpc then
    local failed = errors.response(result, route.upload)
    return reply(failed.status, failed.body)
  end
  error(result, 0)
end

local function new_id()
  local hex = sys.random_hex(16)
  return ("%s-%s-4%s-%x%s-%s"):format(hex:sub(1, 8), hex:sub(9, 12), hex:sub(14, 16),
                                      8 | tonumber(hex:sub(17, 17), 16) & 3, hex:sub(18, 20), hex:sub(21, 32))
end

return function(host)
  local service = {
    dir = host.dir, url = host.url, workspace = host.workspace, sys = sys, now = sys.now_ms, new_id = new_id,
      runner = require "runner",
    db = store.open(sqlite.open(host.dir .. "/kubeflow.db")),
  }
  for _, name in ipairs { "runs", "volumes", "secrets", "configmaps", "rootfs", "cache" } do
    sys.mkdir(host.dir .. "/" .. name)
  end
  experiments.default(service)
  runs.sync_all(service)
  return {
    prefixes = { "/apis/v2beta1/", "/apis/v1beta1/", "/apis/v1alpha1/" },
    handle = function(request) return answer(service, request) end,
    failed = function(_, text)
      local failed = errors.response({ grpc = errors.INTERNAL, message = text })
      return reply(failed.status, failed.body)
    end,
    close = function()
      service.runner.stop_all()
      service.db:close()
    end,
  }
end
