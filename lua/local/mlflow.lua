--- The embedded MLflow: tracking and registry over <state>/mlflow/mlflow.db, for unmodified clients. Each file under
-- lua/local/mlflow gives calls, "METHOD path" = function(args, request, path words...) -> message.
local core = require "local.mlflow.core"
local json = require "json"
local schema = require "local.mlflow.schema"
local sqlite = require "sqlite"
local sys = require "sys"

local bases = { "/api/2.0/mlflow/", "/api/3.0/mlflow/", "/ajax-api/2.0/mlflow/", "/ajax-api/3.0/mlflow/" }

local function reply(status, message)
  return { status = status, headers = { ["Content-Type"] = "application/json" }, body = json.encode(message) }
end

local function failure(e)
  return reply(core.status_of(e), { error_code = e.error_code, message = e.message })
end

-- "logged-models/{}/tags/{}" as a Lua pattern, for the calls that have words in their path.
local function pattern(path)
  return "^" .. path:gsub("%-", "%%-"):gsub("{}", "([^/]+)") .. "$"
end

return function(host)
  local service = { db = sqlite.open(host.dir .. "/mlflow.db"), artifact_root = host.dir .. "/artifacts" }
  schema.prepare(service.db, sys.now_ms())

  local calls, patterns = {}, {}
  for _, part in ipairs { "experiments", "runs", "log", "search", "registry", "registry_search", "models",
    "artifacts" } do
    for name, call in pairs(require("local.mlflow." .. part)(service)) do
      if name:find("{}", 1, true) then
        local method, path = name:match "^(%u+) (.*)$"
        patterns[#patterns + 1] = { method = method, pattern = pattern(path), call = call }
      else
        calls[name] = call
      end
    end
  end

  local function answer(request)
    local rest
    for _, base in ipairs(bases) do
      if request.path:sub(1, #base) == base then rest = request.path:sub(#base + 1) end
    end
    if not rest then
      local call = request.path == "/get-artifact" and service.run_artifact
        or request.path == "/model-versions/get-artifact" and service.version_artifact
      if call then return call(core.args(request)) end
      core.fail("ENDPOINT_NOT_FOUND", "Not Found: %s", request.path)
    end
    rest = rest:gsub("/$", "")
    local call = calls[request.method .. " " .. rest]
    if call then return reply(200, call(core.args(request), request)) end
    for _, p in ipairs(patterns) do
      local words = p.method == request.method and table.pack(rest:match(p.pattern))
      if words and words[1] then return reply(200, p.call(core.args(request), request, table.unpack(words))) end
    end
    core.fail("ENDPOINT_NOT_FOUND", "No such call: %s %s", request.method, request.path)
  end

  return {
    prefixes = { "/get-artifact", "/model-versions/get-artifact", table.unpack(bases) },
    handle = function(request)
      local done, result = xpcall(answer, function(e)
        return core.is_failure(e) and e or debug.traceback(tostring(e), 2)
      end, request)
      if done then return result end
      if core.is_failure(result) then return failure(result) end
      error(result, 0)
    end,
    failed = function()
      return reply(500, { error_code = "INTERNAL_ERROR",
        message = "The embedded MLflow failed; its log has the traceback." })
    end,
    close = function() service.db:close() end,
  }
end
