-- What the Kubernetes client does, against the embedded API and against a real one: kubernetes_client.py and
-- kubernetes_apiserver.py look at what the stage returns.
local k8s = require "k8s"
stage "k" { timeout = "1m", run = function()
  local cluster, out = k8s.connect { namespace = "t" }, {}
  cluster:apply [[
apiVersion: v1
kind: ConfigMap
metadata: {name: a, labels: {app: x}}
data: {x: "1"}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: b, labels: {app: y}}
data: {x: "1"}
]]
  out.selected = #(cluster:list("cm", { labels = "app in (x)" }))
  local _, err = try(cluster.apply, cluster,
    { apiVersion = "v1", kind = "ConfigMap", metadata = { name = "a" }, data = { x = "2" } },
    { field_manager = "other" })
  out.conflict, out.owner = err.code, err.message:find('"mlhost"', 1, true) ~= nil and err.message:find(".data.x", 1, true) ~= nil
  cluster:apply({ apiVersion = "v1", kind = "ConfigMap", metadata = { name = "a" }, data = { x = "2" } },
    { field_manager = "other", force = true })
  cluster:apply { apiVersion = "v1", kind = "ConfigMap", metadata = { name = "b" }, data = { y = "3" } }
  local b = cluster:get("ConfigMap", "b")
  out.removed = b.data.x == nil and b.data.y == "3"
  out.dry = cluster:apply({ apiVersion = "v1", kind = "ConfigMap", metadata = { name = "dry" } }, { dry_run = true }).metadata.name
  out.not_there = cluster:get("cm", "dry") == nil
  out.patched = cluster:patch("cm", "b", { { op = "replace", path = "/data/y", value = "4" } }, { type = "json" }).data.y
  out.merged = cluster:patch("cm", "b", { data = { z = "5" } }).data.z
  local stale = cluster:get("cm", "b")
  stale.metadata.resourceVersion = "1"
  local _, lock = try(cluster.replace, cluster, stale)
  out.lock = lock.code
  local _, again = try(cluster.create, cluster, { apiVersion = "v1", kind = "ConfigMap", metadata = { name = "b" } })
  out.again = again.code
  local events = {}
  for event in cluster:watch("cm", { timeout = "3s" }) do
    events[#events + 1] = event.type .. " " .. event.object.metadata.name
    if #events == 2 then cluster:delete("cm", "b", { wait = false }) end
    if #events == 3 then break end
  end
  out.events = events
  local old = {}
  for event in cluster:watch("cm", { resource_version = "1", timeout = "1s" }) do
    if event.object.metadata.namespace == "t" then old[#old + 1] = event.type end
  end
  out.old = #old
  local changes = parallel(2, { "wait", "write" }, function(what)
    if what == "write" then
      sleep "200ms"
      return cluster:patch("cm", "a", { data = { ready = "yes" } }).data.ready
    end
    return cluster:wait("cm", "a", function(object) return object.data.ready == "yes" end, { timeout = "10s" }).data.ready
  end)
  out.waited = changes[1]
  local _, late = try(cluster.wait, cluster, "cm", "a", "condition=Ready", { timeout = "300ms" })
  out.late = late.code
  out.gone = cluster:delete("cm", "a") and not cluster:delete("cm", "a")
  local _, kind = try(cluster.get, cluster, "confgmap", "a")
  out.near = kind.hint
  return out
end }
