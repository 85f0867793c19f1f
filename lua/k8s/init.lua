--- k8s: the Kubernetes API: apply, get, list, watch, wait, logs.
---
---   local cluster = k8s.connect()
---   cluster:apply(yaml_text)
---   cluster:wait("Deployment", "web", "condition=Available", { timeout = "5m" })
---   for event in cluster:watch("Pod", { labels = "app=web", timeout = "1m" }) do log.info("%s %s", event.type, ...) end
---
--- Where: connect{ endpoint = | kubeconfig = }, else the profile's k8s, KUBECONFIG or ~/.kube/config, the service account of a
--- pod; with the profile `local` the API that is in the program.
--- https://kubernetes.io/docs/reference/using-api/api-concepts/
local host = require "host"
local kinds = require "k8s.kinds"
local time = require "time"
local _, vm = ...
local watch = require "k8s.watch"
local yaml = require "yaml"

local k8s = {}

local Cluster, Service = {}, {}
Cluster.__index, Service.__index = Cluster, Service

local MANAGER = "mlhost"
local PAGE = 500

--- k8s.connect{ context?, kubeconfig?, namespace?, endpoint?, auth?, token? } -> cluster
---   context     string  of the kubeconfig; default: its current one
---   kubeconfig  string  path (permission read); default: the profile's, KUBECONFIG, ~/.kube/config
---   namespace   string  default: the profile's, the context's, or "default"
---   endpoint    string  base URL of the API
---   auth, token         as for any service; in place of the kubeconfig's user
--- A kubeconfig that a script names has the script's rights: its server needs the permission net, each file it names read, and
--- its credential plugin exec, in the sandbox of any command.
--- Fields: cluster.namespace, cluster.url, cluster.embedded.
function k8s.connect(options)
  options = options or {}
  local found = host.k8s.connect {
    endpoint = options.endpoint, kubeconfig = options.kubeconfig, context = options.context, namespace = options.namespace,
    auth = options.auth, token = options.token,
  }
  return setmetatable({
    client = found.client, url = found.url, embedded = found.embedded,
    namespace = options.namespace or found.namespace or "default",
  }, Cluster)
end

--- cluster:request(method, path, { body?, content_type?, accept?, limit?, timeout? }) -> the reply's JSON, or its text
function Cluster:request(method, path, options)
  options = options or {}
  return host.k8s.request({
    client = self.client, method = method, path = path, body = options.body, content_type = options.content_type,
    accept = options.accept, limit = options.limit, timeout = options.timeout,
  }).body
end

local function namespace_of(cluster, entry, object, options)
  if not entry.namespaced then return nil end
  return object and object.metadata.namespace or options and options.namespace or cluster.namespace
end

local function checked(object)
  if type(object) ~= "table" or type(object.metadata) ~= "table" then
    error("k8s: an object needs apiVersion, kind and metadata", 0)
  end
  return object
end

-- ---- writing ----

local function apply_one(cluster, object, options)
  checked(object)
  if type(object.metadata.name) ~= "string" then error("k8s: metadata.name is missing", 0) end
  local entry = kinds.find(cluster, object)
  local namespace = namespace_of(cluster, entry, object, options)
  return cluster:request("PATCH", kinds.path(entry, namespace, object.metadata.name) .. kinds.query {
    fieldManager = options.field_manager or MANAGER, force = options.force and "true" or nil,
    dryRun = options.dry_run and "All" or nil,
  }, { body = object, content_type = "application/apply-patch+yaml" })
end

--- Documents of kind List (`kubectl get -o yaml`) as what is in them.
local function flat(documents)
  local out = {}
  for _, document in ipairs(documents) do
    if type(document) == "table" and document.kind == "List" then
      table.move(document.items or {}, 1, #(document.items or {}), #out + 1, out)
    else
      out[#out + 1] = document
    end
  end
  return out
end

--- cluster:apply(what, { field_manager = "mlhost", force = false, dry_run = false, namespace? }) -> object, or a list
---
--- Server-side apply: what is in the object becomes so, whatever was there, and what this manager had applied before and is
--- not in it any more goes. `what` is an object, a list of objects, or YAML text with one or more documents (a list comes
--- back for the last two). A field that another manager owns raises code "conflict", which names field and owner; force =
--- true takes it over.
function Cluster:apply(what, options)
  options = options or {}
  if type(what) == "table" and what.kind == "List" then what = what.items or {} end
  if type(what) == "table" and what.kind then return apply_one(self, what, options) end
  local list, out = type(what) == "string" and flat(yaml.decode_all(what, "the documents to apply")) or what, {}
  for _, object in ipairs(list) do
    if object ~= vm.null and type(object) == "table" and next(object) ~= nil then
      out[#out + 1] = apply_one(self, object, options)
    end
  end
  return out
end

--- cluster:create(object, { namespace? }) -> object; code "exists" when it is there
function Cluster:create(object, options)
  local entry = kinds.find(self, checked(object))
  return self:request("POST", kinds.path(entry, namespace_of(self, entry, object, options))
    .. kinds.query { fieldManager = MANAGER }, { body = object })
end

--- cluster:replace(object, { namespace? }) -> object; with metadata.resourceVersion, only if it still has that one
function Cluster:replace(object, options)
  local entry = kinds.find(self, checked(object))
  return self:request("PUT", kinds.path(entry, namespace_of(self, entry, object, options), object.metadata.name)
    .. kinds.query { fieldManager = MANAGER }, { body = object })
end

local PATCHES = {
  merge = "application/merge-patch+json", json = "application/json-patch+json",
  strategic = "application/strategic-merge-patch+json",
}

--- cluster:patch(kind, name, patch, { type = "merge" | "json" | "strategic", subresource?, namespace? }) -> object
function Cluster:patch(kind, name, patch, options)
  options = options or {}
  local entry, content_type = kinds.find(self, kind), PATCHES[options.type or "merge"]
  if not content_type then error('k8s: type of a patch is "merge", "json" or "strategic"', 2) end
  return self:request("PATCH", kinds.path(entry, namespace_of(self, entry, nil, options), name, options.subresource)
    .. kinds.query { fieldManager = MANAGER }, { body = patch, content_type = content_type })
end

--- cluster:delete(kind, name, { propagation = "Background", wait = true, timeout = "1m", namespace?, missing_ok = true })
---   -> was it there?
---   propagation  "Background", "Foreground" (what it owns first), "Orphan"
function Cluster:delete(kind, name, options)
  options = options or {}
  local entry = kinds.find(self, kind)
  local namespace = namespace_of(self, entry, nil, options)
  local done, err = try(self.request, self, "DELETE", kinds.path(entry, namespace, name), {
    body = { apiVersion = "v1", kind = "DeleteOptions", propagationPolicy = options.propagation or "Background" },
  })
  if not done then
    if err.code == "not_found" and options.missing_ok ~= false then return false end
    error(err, 0)
  end
  if options.wait ~= false then
    -- One of the same name may come after it (a controller's): it is gone when this uid is.
    local uid = done.kind == "Status" and done.details and done.details.uid or done.metadata and done.metadata.uid
    self:wait(kind, name, "delete", { timeout = options.timeout or "1m", namespace = namespace, uid = uid })
  end
  return true
end

-- ---- reading ----

--- cluster:get(kind, name, { namespace? }) -> object, or nil when it is not there
---   kind  "Pod", "pods", "po", "seldondeployments.machinelearning.seldon.io", or { apiVersion = , kind = }
function Cluster:get(kind, name, options)
  local entry = kinds.find(self, kind)
  local object, err = try(self.request, self, "GET", kinds.path(entry, namespace_of(self, entry, nil, options), name))
  if not object and err.code ~= "not_found" then error(err, 0) end
  return object
end

--- Pages of a list, from the start again when a continuation has become too old.
local function pages(cluster, kind, options)
  local entry = kinds.find(cluster, kind)
  local path = kinds.path(entry, not options.all_namespaces and namespace_of(cluster, entry, nil, options) or nil)
  local items, next_page, version, restarts = {}, nil, nil, 0
  repeat
    local page, err = try(cluster.request, cluster, "GET", path .. kinds.query {
      limit = math.min(options.limit or PAGE, PAGE), continue = next_page, labelSelector = options.labels,
      fieldSelector = options.fields,
    })
    if page then
      version = version or page.metadata and page.metadata.resourceVersion
      for _, item in ipairs(page.items or {}) do
        -- a list leaves these out of its items
        item.apiVersion, item.kind = item.apiVersion or entry.version, item.kind or entry.kind
        items[#items + 1] = item
        if options.limit and #items >= options.limit then return items, version end
      end
      next_page = page.metadata and page.metadata.continue
    elseif err.status == 410 and next_page and restarts < 3 then
      items, next_page, version, restarts = {}, nil, nil, restarts + 1
    else
      error(err, 0)
    end
  until page and (not next_page or next_page == "")
  return items, version
end

--- cluster:list(kind, { namespace?, all_namespaces?, labels?, fields?, limit? }) -> list, resourceVersion of the list
---   labels  "app=web,tier in (a, b),!old"; fields: "metadata.name=x,status.phase!=Running"
function Cluster:list(kind, options) return pages(self, kind, options or {}) end

--- cluster:each(kind, { ... }) -> iterator over what list gives
function Cluster:each(kind, options)
  local list, at = pages(self, kind, options or {}), 0
  return function()
    at = at + 1
    return list[at]
  end
end

--- cluster:watch(kind, { namespace?, all_namespaces?, name?, labels?, fields?, resource_version?, timeout? }) -> iterator
---
--- Over { type = "ADDED" | "MODIFIED" | "DELETED", object }. Without resource_version what is there comes first. It goes on
--- from the last version after a cut, lists anew where the server has forgotten that one (410), and ends at the timeout.
function Cluster:watch(kind, options) return watch.start(self, kind, options or {}) end

local function condition_met(object, name, status)
  for _, one in ipairs(object and object.status and object.status.conditions or {}) do
    if one.type == name then return one.status == status end
  end
  return false
end

local function predicate(what, uid)
  if type(what) == "function" then return what end
  if what == "delete" then
    return function(object) return object == nil or uid ~= nil and object.metadata.uid ~= uid end
  end
  local name, status = tostring(what):match "^condition=([^=]+)=?(.*)$"
  if not name then
    error('k8s: wait for "condition=NAME", "condition=NAME=STATUS", "delete" or a function', 3)
  end
  status = status ~= "" and status or "True"
  return function(object) return condition_met(object, name, status) end
end

local function state_of(object)
  if not object then return "it is not there" end
  local words = {}
  for _, one in ipairs(object.status and object.status.conditions or {}) do
    words[#words + 1] = ("%s=%s%s"):format(one.type, one.status, one.reason and " (" .. one.reason .. ")" or "")
  end
  local state = object.status and (object.status.state or object.status.phase)
  if state then table.insert(words, 1, tostring(state)) end
  return #words > 0 and table.concat(words, ", ") or "it has no conditions"
end

--- cluster:wait(kind, name, what, { timeout = "5m", namespace?, on_change?, uid? }) -> object (nil after "delete")
---   what       "condition=Ready", "condition=Ready=False", "delete", or function(object or nil) -> boolean
---   on_change  function(object)  called at each change
---   uid        string  with "delete": of the object that is to go, whatever has its name afterwards
--- Waits on a watch. Raises code "timeout" with the last state.
function Cluster:wait(kind, name, what, options)
  options = options or {}
  local met = predicate(what, options.uid)
  local entry = kinds.find(self, kind)
  local namespace = namespace_of(self, entry, nil, options)
  local timeout = options.timeout or "5m"
  timeout = type(timeout) == "number" and timeout or time.duration(timeout)
  local list, version = self:list(kind, { namespace = namespace, fields = "metadata.name=" .. name })
  local object = list[1]
  if met(object) then return object end
  for event in self:watch(kind, {
    namespace = namespace, name = name, resource_version = version, timeout = timeout, known = list,
  }) do
    if event.type == "DELETED" then object = nil else object = event.object end
    if options.on_change then options.on_change(object) end
    if met(object) then return object end
  end
  error(vm.new_error {
    service = "k8s", code = "timeout",
    message = ("%s %s: waited %d s for %s; %s"):format(entry.kind, name, math.floor(timeout),
      type(what) == "function" and "a change" or what, state_of(object)),
    hint = "raise timeout, or look at the object's events: cluster:events(object)",
  }, 0)
end

--- cluster:logs(pod, { container?, tail?, since?, previous?, limit = bytes, namespace? }) -> text
---   tail   int       the last lines; since: duration; previous: of the container before its restart
function Cluster:logs(pod, options)
  options = options or {}
  local entry = kinds.find(self, "Pod")
  local since = options.since
  if since and type(since) ~= "number" then since = time.duration(since) end
  return self:request("GET", kinds.path(entry, options.namespace or self.namespace, pod, "log") .. kinds.query {
    container = options.container, tailLines = options.tail, sinceSeconds = since and math.ceil(since),
    previous = options.previous and "true" or nil, limitBytes = options.limit or 1 << 20,
  }, { accept = "*/*" })
end

--- cluster:events(object) -> list of its events, oldest first
function Cluster:events(object)
  local meta = object.metadata
  local list = self:list("Event", { namespace = meta.namespace, fields = kinds.fields {
    ["involvedObject.name"] = meta.name, ["involvedObject.kind"] = object.kind,
  } })
  local function at(event) return event.lastTimestamp or event.eventTime or event.metadata.creationTimestamp or "" end
  table.sort(list, function(a, b) return at(a) < at(b) end)
  return list
end

--- cluster:service(name, { namespace?, port?, scheme? }) -> service, reached through the API server's proxy
function Cluster:service(name, options)
  options = options or {}
  local target = name
  if options.scheme or options.port then
    target = ("%s:%s:%s"):format(options.scheme or "", name, options.port or ""):gsub("^:", "")
  end
  return setmetatable({
    cluster = self,
    url_path = kinds.path(kinds.find(self, "Service"), options.namespace or self.namespace) .. "/" .. target .. "/proxy",
  }, Service)
end

--- service:request{ method = "GET", path = "/", headers?, body?, content_type?, timeout?, check = true }
---   -> { status, headers, body }
---   body   a text as it is, anything else as JSON; in the reply decoded when that is JSON. Names of headers are lower case.
---   check  false: a status that is not 2xx is a reply, too
function Service:request(options)
  local path = options.path or "/"
  if path:sub(1, 1) ~= "/" then path = "/" .. path end
  return host.k8s.request {
    client = self.cluster.client, method = options.method or "GET", path = self.url_path .. path, headers = options.headers,
    body = options.body, content_type = options.content_type, timeout = options.timeout, accept = "*/*", check = options.check,
  }
end

return k8s
