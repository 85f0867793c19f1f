-- From a container of a pod to what exactly is started: words, environment, folders, limits, probes. Reuses what
-- tasks of Kubeflow Pipelines use (local.runner.container).
local json = require "local.json"
local runner = require "local.runner.container"
local tree = require "local.seldon.tree"

local map, text = tree.map, tree.text
local container = {}

local LOG_LIMIT = 10 << 20

-- Values of Secrets are base64; stringData has not been through the API's conversion.
local alphabet = {}
for i = 1, 64 do
  alphabet[("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"):byte(i)] = i - 1
end

local function decode64(data)
  local bits, count, out = 0, 0, {}
  for i = 1, #data do
    local value = alphabet[data:byte(i)]
    if value then
      bits, count = (bits << 6 | value) & 0xffffff, count + 6
      if count >= 8 then
        count = count - 8
        out[#out + 1] = string.char(bits >> count & 0xff)
      end
    end
  end
  return table.concat(out)
end

local kinds = {
  secrets = { what = "Secret", texts = "stringData", bytes = "data" },
  configmaps = { what = "ConfigMap", texts = "data", bytes = "binaryData" },
}

-- The values of a Secret or ConfigMap, or nil when it is not there.
local function values_of(host, resource, namespace, name)
  local object = host.get(resource, namespace, name)
  if not object then
    return nil
  end
  local out, kind = {}, kinds[resource]
  for key, value in pairs(map(object[kind.bytes])) do
    out[key] = decode64(value)
  end
  return tree.merge(out, object[kind.texts])
end

local function missing(resource, namespace, name, key)
  return ("%s \"%s\" %s in namespace %s; make it with kubectl create or k8s.apply"):format(kinds[resource].what, name,
    key and ("has no key \"" .. key .. "\"") or "is not there", namespace)
end

local function from_key(host, namespace, resource, reference)
  local values = values_of(host, resource, namespace, reference.name or "")
  local value = values and values[reference.key]
  if value == nil and reference.optional ~= true then
    return nil, missing(resource, namespace, tostring(reference.name), values and reference.key)
  end
  return value
end

local function field(pod, path, box)
  local annotation, label = path:match("^metadata%.annotations%['(.-)'%]$"), path:match("^metadata%.labels%['(.-)'%]$")
  if annotation then
    return map(pod.metadata.annotations)[annotation] or ""
  elseif label then
    return map(pod.metadata.labels)[label] or ""
  end
  local fixed = {
    ["metadata.name"] = pod.metadata.name, ["metadata.namespace"] = pod.metadata.namespace,
    ["metadata.uid"] = pod.metadata.uid, ["spec.nodeName"] = "mlhost", ["status.podIP"] = "127.0.0.1",
    ["status.hostIP"] = "127.0.0.1", ["spec.serviceAccountName"] = box.service_account or "default",
  }
  return fixed[path]
end

local function env_from(host, pod, entries, out)
  for _, entry in ipairs(map(entries)) do
    for key, resource in pairs { secretRef = "secrets", configMapRef = "configmaps" } do
      local reference = entry[key]
      if reference then
        local values = values_of(host, resource, pod.metadata.namespace, reference.name or "")
        if not values and reference.optional ~= true then
          return missing(resource, pod.metadata.namespace, tostring(reference.name))
        end
        for name, value in pairs(values or {}) do
          out[(text(entry.prefix) or "") .. name] = value
        end
      end
    end
  end
end

-- $(NAME) of what is known; $$ is a dollar.
local function expand(value, known)
  value = value:gsub("%$%$", "\0")
  value = value:gsub("%$%(([%w_.-]+)%)", function(name) return known[name] end)
  return (value:gsub("%z", "$"))
end

--- The container's own variables, with what this machine says instead of the pod's network. nil and a text when
--- something that they name is not there.
function container.variables(host, pod, spec, ports)
  local out = {}
  local why = env_from(host, pod, spec.envFrom, out)
  if why then
    return nil, why
  end
  tree.merge(out, { MLHOST_MODEL_HOST = "127.0.0.1", MLHOST_SERVE_URL = host.url })
  local here = { PREDICTIVE_UNIT_SERVICE_PORT = ports.http, PREDICTIVE_UNIT_HTTP_SERVICE_PORT = ports.http,
    PREDICTIVE_UNIT_GRPC_SERVICE_PORT = ports.grpc, PREDICTIVE_UNIT_METRICS_SERVICE_PORT = ports.metrics,
    MLSERVER_HTTP_PORT = ports.http, MLSERVER_GRPC_PORT = ports.grpc, MLSERVER_METRICS_PORT = ports.metrics }
  for name, port in pairs(here) do
    out[name] = tostring(port)
  end
  for _, entry in ipairs(map(spec.env)) do
    local from, value = map(entry.valueFrom), entry.value
    if from.secretKeyRef then
      value, why = from_key(host, pod.metadata.namespace, "secrets", from.secretKeyRef)
    elseif from.configMapKeyRef then
      value, why = from_key(host, pod.metadata.namespace, "configmaps", from.configMapKeyRef)
    elseif from.fieldRef then
      value = field(pod, from.fieldRef.fieldPath or "", {})
    elseif from.resourceFieldRef then
      value = tostring(map(map(spec.resources).limits)[(from.resourceFieldRef.resource or ""):match("limits%.(.*)")
        or ""] or "")
    end
    if why then
      return nil, why
    end
    if not here[entry.name] and type(value) == "string" then
      out[entry.name] = expand(value, out)
    elseif not here[entry.name] and from.resourceFieldRef == nil and value == nil and next(from) == nil then
      out[entry.name] = ""
    end
  end
  return out
end

local function words(list, known)
  local out = json.array {}
  for i, word in ipairs(map(list)) do
    out[i] = expand(tostring(word), known)
  end
  return out
end

--- Command over ENTRYPOINT, args over CMD, as Kubernetes says.
function container.words(spec, config, known)
  local command, args = words(spec.command, known), words(spec.args, known)
  local argv = #command > 0 and command or json.array { table.unpack(map(config.Entrypoint)) }
  if #args == 0 and #command == 0 then
    args = map(config.Cmd)
  end
  return table.move(args, 1, #args, #argv + 1, argv)
end

-- ---- volumes ----

local function write_files(host, folder, values, items)
  host.fs.mkdir(folder)
  if items and #items > 0 then
    for _, item in ipairs(items) do
      if values[item.key] and not item.path:find("..", 1, true) then
        local parent = (folder .. "/" .. item.path):match("^(.*)/")
        host.fs.mkdir(parent)
        host.fs.write(folder .. "/" .. item.path, values[item.key])
      end
    end
    return
  end
  for key, value in pairs(values) do
    if key:match("^[%w._-]+$") and key ~= "." and key ~= ".." then
      host.fs.write(folder .. "/" .. key, value)
    end
  end
end

-- The folder of a volume on this machine, or nil and what is wrong.
local function volume_folder(host, pod, volume, base)
  local folder = base .. "/volumes/" .. volume.name
  local namespace = pod.metadata.namespace
  for key, resource in pairs { secret = "secrets", configMap = "configmaps" } do
    local source = volume[key]
    if source then
      local name = source.secretName or source.name or ""
      local values = values_of(host, resource, namespace, name)
      if not values and source.optional ~= true then
        return nil, missing(resource, namespace, name)
      end
      write_files(host, folder, values or {}, source.items)
      return folder
    end
  end
  if volume.persistentVolumeClaim then
    local claim = text(volume.persistentVolumeClaim.claimName) or ""
    if not claim:match("^[a-z0-9][a-z0-9.-]*$") or claim:find("..", 1, true) then
      return nil, ("volume '%s': '%s' is no name of a claim"):format(volume.name, claim)
    end
    folder = host.state .. "/local/kubeflow/volumes/" .. claim
  elseif volume.downwardAPI then
    local values, items = {}, json.array {}
    for _, item in ipairs(map(volume.downwardAPI.items)) do
      local lines = {}
      local what = map(item.fieldRef).fieldPath or ""
      for name, value in pairs(map(pod.metadata[what:match("^metadata%.(%w+)$") or ""])) do
        lines[#lines + 1] = ("%s=%q"):format(name, value)
      end
      table.sort(lines)
      values[item.path] = #lines > 0 and table.concat(lines, "\n") or field(pod, what, {}) or ""
      items[#items + 1] = { key = item.path, path = item.path }
    end
    write_files(host, folder, values, items)
    return folder
  elseif volume.hostPath then
    return nil, ("volume '%s': hostPath is not given to models here; put the files into the image"):format(volume.name)
  end
  host.fs.mkdir_shared(folder)
  return folder
end

local function mounts(host, pod, spec, root, base)
  local volumes, own = {}, { { kind = "tmpfs", target = "/run" } }
  for _, volume in ipairs(map(map(pod.spec).volumes)) do
    volumes[volume.name] = volume
  end
  for _, name in ipairs { "/etc/resolv.conf", "/etc/hosts" } do
    if host.fs.real(name) then
      own[#own + 1] = { kind = "bind_ro", source = host.fs.real(name), target = name }
    end
  end
  local tmp = base .. "/tmp-" .. spec.name
  host.fs.remove(tmp)
  host.fs.mkdir_shared(tmp)
  own[#own + 1] = { kind = "bind_rw", source = tmp, target = "/tmp" }
  for _, mount in ipairs(map(spec.volumeMounts)) do
    local volume = volumes[mount.name]
    if not volume then
      return nil, ("volumeMounts: there is no volume '%s' in the pod"):format(tostring(mount.name))
    end
    local folder, why = volume_folder(host, pod, volume, base)
    if not folder then
      return nil, why
    end
    if text(mount.subPath) and not mount.subPath:find("..", 1, true) then
      folder = folder .. "/" .. mount.subPath
    end
    local read_only = mount.readOnly == true or volume.secret or volume.configMap or volume.downwardAPI
    own[#own + 1] = { kind = read_only and "bind_ro" or "bind_rw", source = folder, target = mount.mountPath }
  end
  table.sort(own, function(a, b) return a.target < b.target end)
  local list = json.array {}
  if map(spec.securityContext).readOnlyRootFilesystem ~= true then
    local upper, work = base .. "/layer-" .. spec.name .. "/upper", base .. "/layer-" .. spec.name .. "/work"
    host.fs.remove(base .. "/layer-" .. spec.name)
    host.fs.mkdir(upper)
    host.fs.mkdir(work)
    list[1] = { kind = "overlay", source = root, target = "/", upper = upper, work = work }
  end
  table.move(own, 1, #own, #list + 1, list)
  return table.move({ { kind = "proc", target = "/proc" }, { kind = "dev", target = "/dev" } }, 1, 2, #list + 1, list)
end

-- ---- probes ----

local function probe_of(probe, ports)
  if type(probe) ~= "table" or probe == json.null then
    return nil
  end
  local out = {
    port = ports.http, timeout_ms = tree.number(probe.timeoutSeconds, 1) * 1000,
    period_ms = tree.number(probe.periodSeconds, 10) * 1000, delay_ms = tree.number(probe.initialDelaySeconds, 0) * 1000,
    failures = tree.number(probe.failureThreshold, 3), successes = tree.number(probe.successThreshold, 1),
  }
  local http = probe.httpGet
  if http then
    out.path = text(http.path) or "/"
    out.headers = http.httpHeaders
    if http.port == "metrics" then
      out.port = ports.metrics
    end
  end
  return out
end

--- Without a readinessProbe of its own: the health page of its protocol; a server without such a page is ready
--- once it answers.
function container.probes(spec, ports, protocol)
  local paths = { v2 = "/v2/health/ready", kfserving = "/v2/health/ready", tensorflow = nil, seldon = "/health/ping" }
  local readiness = probe_of(spec.readinessProbe, ports) or {
    port = ports.http, path = paths[protocol or "seldon"], missing_ok = true, timeout_ms = 1000, period_ms = 5000,
    failures = 3, successes = 1 }
  return { readiness = readiness, liveness = probe_of(spec.livenessProbe, ports),
    startup = probe_of(spec.startupProbe, ports) }
end

--- What host.start takes, or nil and what is wrong. place: { root, config (of the image), base (the pod's folder),
--- ports, protocol, log }.
function container.process(host, pod, spec, place)
  local config = place.config
  local user, why = runner.user(text(config.User), function(path) return host.fs.read_inside(place.root, path,
    1 << 20) end)
  if not user then
    return nil, why
  end
  local variables, list
  variables, why = container.variables(host, pod, spec, place.ports)
  if not variables then
    return nil, why
  end
  list, why = mounts(host, pod, spec, place.root, place.base)
  if not list then
    return nil, why
  end
  local security = tree.merge(tree.merge({}, map(pod.spec).securityContext), spec.securityContext)
  local limit = map(map(spec.resources).limits).memory
  local argv = container.words(spec, config, variables)
  if #argv == 0 then
    return nil, "neither the image nor the container says what to run: give it a command"
  end
  return {
    argv = argv, root = place.root, read_only = security.readOnlyRootFilesystem == true, mounts = list,
    env = json.array(runner.environment(config, user, variables)),
    cwd = text(spec.workingDir) or text(config.WorkingDir) or "/", uid = tree.number(security.runAsUser, user.uid),
    gid = tree.number(security.runAsGroup, user.gid), memory = limit and runner.bytes(limit) or nil,
    hostname = pod.metadata.name:sub(1, 63), log = place.log, log_limit = LOG_LIMIT,
    grace_ms = tree.number(map(pod.spec).terminationGracePeriodSeconds, 30) * 1000,
    probes = container.probes(spec, place.ports, place.protocol),
  }
end

return container
