-- The embedded Kubernetes API: which call it is, and the form of the answer. Watches, pod logs and the service proxy never
-- come here (host/local/kubernetes.c).
local discovery = require "local.kubernetes.discovery"
local json = require "json"
local k8s = require "k8s"
local objects = require "local.kubernetes.objects"
local status = require "local.kubernetes.status"

local by_store = {}
for _, resource in ipairs(k8s.resources) do
  by_store[resource.store] = resource
end

local on_object = { GET = objects.get, HEAD = objects.get, PUT = objects.replace, PATCH = objects.patch,
                    DELETE = objects.delete }
local on_collection = { GET = objects.list, HEAD = objects.list, POST = objects.create, DELETE = objects.delete_all }
local on_subresource = { GET = objects.get, HEAD = objects.get, PUT = objects.replace, PATCH = objects.patch }

local function run(request)
  local path = k8s.parse(request.path)
  if not path then
    return discovery.answer(request)
  end
  local resource = by_store[path.resource or ""]
  if not resource or path.rest ~= "" or resource.namespaced and path.namespace == "" and path.name ~= ""
    or not resource.namespaced and path.namespace ~= "" then
    status.no_such_path()
  end
  local handlers = path.name == "" and on_collection or on_object
  if path.subresource ~= "" then
    if not (path.subresource == "status" and resource.status or path.subresource == "scale" and resource.scale) then
      status.no_such_path()
    end
    handlers = on_subresource
  end
  local handler = handlers[request.method]
  if not handler then
    status.method_not_allowed(resource)
  end
  return handler(request, path, resource)
end

local function reply(code, body)
  if body.bytes then
    return { status = code, headers = { ["Content-Type"] = body.type }, body = body.bytes }
  end
  return { status = code, headers = { ["Content-Type"] = "application/json" }, body = json.encode(body) .. "\n" }
end

return function()
  if not k8s.get("namespaces", "", "default") then
    local object = { apiVersion = "v1", kind = "Namespace", metadata = { name = "default" } }
    require("local.kubernetes.defaults").fill("namespaces", object)
    k8s.put("namespaces", object, "absent")
  end
  return {
    prefixes = { "/api/", "/apis/", "/openapi/", "/version" },
    handle = function(request)
      local ok, code, body = pcall(run, request)
      if ok then
        return reply(code, body)
      elseif type(code) == "table" and code.kubernetes then
        return reply(code.kubernetes.code, code.kubernetes)
      end
      error(code, 0)
    end,
    failed = function(_, message)
      return reply(500, { kind = "Status", apiVersion = "v1", metadata = {}, status = "Failure", reason = "InternalError",
                          message = message, code = 500 })
    end,
  }
end
