-- Which path a kind has: a table of the usual ones, and the API's own word (discovery) for the others.
local _, vm = ...

local kinds = {}

--- group/version, plural, singular kind, short name, namespaced
local KNOWN = {
  { "v1", "pods", "Pod", "po", true }, { "v1", "services", "Service", "svc", true },
  { "v1", "configmaps", "ConfigMap", "cm", true }, { "v1", "secrets", "Secret", nil, true },
  { "v1", "events", "Event", "ev", true }, { "v1", "serviceaccounts", "ServiceAccount", "sa", true },
  { "v1", "persistentvolumeclaims", "PersistentVolumeClaim", "pvc", true }, { "v1", "namespaces", "Namespace", "ns", false },
  { "v1", "nodes", "Node", "no", false }, { "apps/v1", "deployments", "Deployment", "deploy", true },
  { "apps/v1", "statefulsets", "StatefulSet", "sts", true }, { "apps/v1", "replicasets", "ReplicaSet", "rs", true },
  { "apps/v1", "daemonsets", "DaemonSet", "ds", true }, { "batch/v1", "jobs", "Job", nil, true },
  { "batch/v1", "cronjobs", "CronJob", "cj", true },
  { "autoscaling/v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler", "hpa", true },
  { "machinelearning.seldon.io/v1", "seldondeployments", "SeldonDeployment", "sdep", true },
  { "mlops.seldon.io/v1alpha1", "models", "Model", nil, true }, { "mlops.seldon.io/v1alpha1", "servers", "Server", nil, true },
  { "mlops.seldon.io/v1alpha1", "pipelines", "Pipeline", nil, true },
  { "mlops.seldon.io/v1alpha1", "experiments", "Experiment", nil, true },
}

local by_word = {}
for _, row in ipairs(KNOWN) do
  local entry = { version = row[1], plural = row[2], kind = row[3], namespaced = row[5] }
  local group = row[1]:match "^(.*)/"
  for _, word in ipairs { row[2], row[3], row[3]:lower(), row[4] or row[2] } do by_word[word] = by_word[word] or entry end
  if group then by_word[row[2] .. "." .. group] = entry end
  by_word[row[1] .. "/" .. row[3]] = entry
end

local function base_of(version) return (version:find("/", 1, true) and "/apis/" or "/api/") .. version end

--- The resources of a group and version, as the server lists them; remembered per connection.
local function resources(cluster, version)
  cluster.discovered = cluster.discovered or {}
  local list = cluster.discovered[version]
  if not list then
    local found, err = try(cluster.request, cluster, "GET", base_of(version))
    if not found and err.code ~= "not_found" then error(err, 0) end
    list = found and found.resources or {}
    cluster.discovered[version] = list
  end
  return list
end

local function discovered(cluster, version, test)
  for _, one in ipairs(resources(cluster, version)) do
    if not one.name:find("/", 1, true) and test(one) then
      return { version = version, plural = one.name, kind = one.kind, namespaced = one.namespaced }
    end
  end
end

--- All groups of the server, each with its preferred version.
local function versions(cluster)
  if not cluster.versions then
    local list = { "v1" }
    for _, group in ipairs(cluster:request("GET", "/apis").groups or {}) do
      list[#list + 1] = group.preferredVersion.groupVersion
    end
    cluster.versions = list
  end
  return cluster.versions
end

--- kinds.find(cluster, kind) -> { version, plural, kind, namespaced }
---   kind  "Pod", "pods", "po", "seldondeployments.machinelearning.seldon.io", or { apiVersion, kind }
function kinds.find(cluster, kind)
  if type(kind) == "table" then
    local known = by_word[tostring(kind.apiVersion) .. "/" .. tostring(kind.kind)]
    if known then return known end
    if type(kind.apiVersion) ~= "string" or type(kind.kind) ~= "string" then
      error("k8s: an object needs apiVersion and kind", 0)
    end
    local found = discovered(cluster, kind.apiVersion, function(one) return one.kind == kind.kind end)
    if found then return found end
    error(vm.new_error { service = "k8s", code = "not_found",
      message = ("the cluster knows no kind %s of %s"):format(kind.kind, kind.apiVersion),
      hint = "is its CustomResourceDefinition installed?" }, 0)
  end
  local known = by_word[kind]
  if known then return known end
  local plural, group = tostring(kind):match "^([^.]+)%.(.+)$"
  for _, version in ipairs(versions(cluster)) do
    local found = (not group or version:match "^(.*)/" == group) and discovered(cluster, version, function(one)
      if plural then return one.name == plural end
      if one.kind == kind or one.name == kind or one.singularName == kind then return true end
      for _, short in ipairs(one.shortNames or {}) do
        if short == kind then return true end
      end
    end)
    if found then return found end
  end
  local words = {}
  for word in pairs(by_word) do words[#words + 1] = word end
  table.sort(words)
  local near = vm.near(tostring(kind), words)
  error(vm.new_error { service = "k8s", code = "not_found", message = ("the cluster knows no kind '%s'"):format(tostring(kind)),
    hint = near and ("did you mean '%s'?"):format(near)
      or "name it with its group, as in seldondeployments.machinelearning.seldon.io" }, 0)
end

local function escaped(text)
  return (tostring(text):gsub("[^%w%-._~]", function(c) return ("%%%02X"):format(c:byte()) end))
end
kinds.escaped = escaped

--- kinds.path(entry, namespace, name?, subresource?) -> path
function kinds.path(entry, namespace, name, subresource)
  local path = base_of(entry.version)
  if entry.namespaced and namespace then path = path .. "/namespaces/" .. escaped(namespace) end
  path = path .. "/" .. entry.plural
  if name then path = path .. "/" .. escaped(name) end
  if subresource then path = path .. "/" .. subresource end
  return path
end

--- kinds.fields(map) -> "a=1,b=2": a field selector
function kinds.fields(map)
  local parts = {}
  for name, value in pairs(map) do parts[#parts + 1] = name .. "=" .. tostring(value) end
  table.sort(parts)
  return table.concat(parts, ",")
end

--- kinds.query(map) -> "?a=1&b=2", or "" when nothing is set
function kinds.query(map)
  local names, parts = {}, {}
  for name, value in pairs(map) do
    if value ~= nil and value ~= false then names[#names + 1] = name end
  end
  table.sort(names)
  for i, name in ipairs(names) do parts[i] = name .. "=" .. escaped(map[name]) end
  return #parts > 0 and "?" .. table.concat(parts, "&") or ""
end

return kinds
