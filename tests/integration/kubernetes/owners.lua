-- The client beside kubectl, which has applied ConfigMap "shared" with .data.theirs; each line of output is "name value".
local k8s = require "k8s"

pipeline "kubernetes-owners" {}

local function show(name, value) print(("%s %s"):format(name, tostring(value))) end

local function ask()
  local cluster = k8s.connect()
  local map = { apiVersion = "v1", kind = "ConfigMap", metadata = { name = "shared" }, data = { mine = "1" } }
  show("applied", cluster:apply(map).data.mine)
  map.data.theirs = "ours"
  local done, err = try(cluster.apply, cluster, map)
  show("conflict", not done and err.code)
  show("owner", done == nil and err.message:find("kubectl", 1, true) ~= nil and err.message:find(".data.theirs", 1, true) ~= nil)
  show("forced", cluster:apply(map, { force = true }).data.theirs)
  show("documents", #cluster:apply [[
apiVersion: v1
kind: ConfigMap
metadata: { name: one, labels: { set: two } }
---
apiVersion: v1
kind: ConfigMap
metadata: { name: other, labels: { set: two } }
]])
  show("selected", #cluster:list("ConfigMap", { labels = "set=two" }))
  local _, exists = try(cluster.create, cluster, map)
  show("exists", exists.code)
  show("missing", cluster:get("ConfigMap", "nothing"))
  show("patched", cluster:patch("cm", "one", { data = { x = "2" } }).data.x)
  local seen = {}
  for event in cluster:watch("configmaps", { labels = "set=two", timeout = "30s" }) do
    seen[#seen + 1] = event.type
    if #seen == 2 then cluster:delete("ConfigMap", "one") end
    if event.type == "DELETED" then break end
  end
  show("watched", table.concat(seen, ","))
  show("deleted_twice", cluster:delete("ConfigMap", "one"))
  local _, late = try(cluster.wait, cluster, "ConfigMap", "other", "condition=Ready", { timeout = "1s" })
  show("wait", late.code)
  local _, bad = try(cluster.apply, cluster, {
    apiVersion = "machinelearning.seldon.io/v1", kind = "SeldonDeployment", metadata = { name = "bad" }, spec = { predictors = {} },
  })
  show("invalid", bad.code)
  local reply = cluster:service("nobody", { port = 80 }):request { path = "/", check = false }
  show("proxy", reply.status)
end

stage "ask" { run = ask }
