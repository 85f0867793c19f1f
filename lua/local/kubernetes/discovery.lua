-- What the API says about itself: /version, /api, /apis, the resources of each group and version.
local json = require "json"
local k8s = require "k8s"
local openapi = require "local.kubernetes.openapi"
local status = require "local.kubernetes.status"

local discovery = {}

local verbs = { "create", "delete", "deletecollection", "get", "list", "patch", "update", "watch" }
local sub_verbs = { "get", "patch", "update" }

local function version()
  return { major = "1", minor = "29", gitVersion = "v1.29.0+mlhost", gitCommit = "", gitTreeState = "clean",
           buildDate = "1970-01-01T00:00:00Z", goVersion = "none", compiler = "gcc", platform = "linux/amd64" }
end

local function groups()
  local list, by_name = json.array({}), {}
  for _, resource in ipairs(k8s.resources) do
    if resource.group ~= "" and not by_name[resource.group] then
      local this = { groupVersion = resource.api_version, version = resource.version }
      by_name[resource.group] = { kind = "APIGroup", apiVersion = "v1", name = resource.group,
                                  versions = json.array({ this }), preferredVersion = this }
      list[#list + 1] = by_name[resource.group]
    end
  end
  return list, by_name
end

local function resources(api_version)
  local list = json.array({})
  for _, resource in ipairs(k8s.resources) do
    if resource.api_version == api_version then
      local base = { name = resource.plural, singularName = resource.singular, namespaced = resource.namespaced,
                     kind = resource.kind, verbs = json.array({ table.unpack(verbs) }),
                     shortNames = resource.short_name and json.array({ resource.short_name }) or nil,
                     categories = resource.plural:find("^pods$") and json.array({ "all" })
                       or resource.plural:find("^deployments$") and json.array({ "all" })
                       or resource.plural:find("^services$") and json.array({ "all" }) or nil }
      list[#list + 1] = base
      local function sub(name, kind, its_verbs, more)
        local entry = { name = resource.plural .. "/" .. name, singularName = "", namespaced = resource.namespaced,
                        kind = kind, verbs = json.array({ table.unpack(its_verbs) }) }
        for key, value in pairs(more or {}) do
          entry[key] = value
        end
        list[#list + 1] = entry
      end
      if resource.status then
        sub("status", resource.kind, sub_verbs)
      end
      if resource.scale then
        sub("scale", "Scale", sub_verbs, { group = "autoscaling", version = "v1" })
      end
      if resource.store == "pods" then
        sub("log", "Pod", { "get" })
      elseif resource.store == "services" then
        sub("proxy", "ServiceProxyOptions", { "create", "delete", "get", "patch", "update" })
      end
    end
  end
  if #list == 0 then
    status.no_such_path()
  end
  return { kind = "APIResourceList", apiVersion = "v1", groupVersion = api_version, resources = list }
end

--- Answers a path that is no resource's.
function discovery.answer(request)
  local path = request.path:gsub("/+$", "")
  if request.method ~= "GET" and request.method ~= "HEAD" then
    status.raise(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
  elseif path == "/version" then
    return 200, version()
  elseif path == "/api" then
    return 200, { kind = "APIVersions", versions = json.array({ "v1" }), serverAddressByClientCIDRs = json.array({
      { clientCIDR = "0.0.0.0/0", serverAddress = request.origin:gsub("^http://", "") } }) }
  elseif path == "/apis" then
    return 200, { kind = "APIGroupList", apiVersion = "v1", groups = (groups()) }
  elseif path:find("^/openapi") then
    return openapi.answer(request, path)
  end
  local group, of = path:match("^/apis/([^/]+)/([^/]+)$")
  if group then
    return 200, resources(group .. "/" .. of)
  elseif path == "/api/v1" then
    return 200, resources("v1")
  end
  local _, by_name = groups()
  local this = by_name[path:match("^/apis/([^/]+)$") or ""]
  if this then
    return 200, this
  end
  status.no_such_path()
end

return discovery
