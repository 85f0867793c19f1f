-- What the Kubernetes part of a pipeline (platforms.kubernetes) means on this machine.
--
-- Secrets and config maps are folders with one file per key: kubeflow/secrets/<name>/<key>,
-- kubeflow/configmaps/<name>/<key>; claims are folders kubeflow/volumes/<name>. Where a pod would run does not
-- matter here: one line of the log says so.
local ir = require "local.runner.ir"

local map = ir.map
local platform = {}

-- Kubernetes names: they become folders.
local function good_name(name)
  return type(name) == "string" and #name <= 253 and name:match("^[a-z0-9][a-z0-9.-]*$") and not name:find("..", 1,
    true)
end

local function good_key(key)
  return type(key) == "string" and #key <= 253 and key:match("^[%w._-]+$") and key ~= "." and key ~= ".."
end

-- The name that a section gives: by the new field (an input), or by the old one (a text).
local function name_of(section, parameter, old, leaf)
  local value
  if section[parameter] then
    value = leaf.resolve(section[parameter])
  end
  return value or section[old]
end

local kinds = {
  secretAsEnv = { what = "secret", folder = "secrets", parameter = "secretNameParameter", old = "secretName",
    key = "secretKey" },
  configMapAsEnv = { what = "config map", folder = "configmaps", parameter = "configMapNameParameter",
    old = "configMapName",
                     key = "configMapKey" },
  secretAsVolume = { what = "secret", folder = "secrets", parameter = "secretNameParameter", old = "secretName" },
  configMapAsVolume = { what = "config map", folder = "configmaps", parameter = "configMapNameParameter",
                        old = "configMapName" },
}

local function as_env(section, kind, leaf, host, out)
  local name = name_of(section, kind.parameter, kind.old, leaf)
  if not good_name(name) then
    return ("'%s' cannot be the name of a %s"):format(tostring(name), kind.what)
  end
  for _, pair in ipairs(section.keyToEnv or {}) do
    local key = pair[kind.key]
    if not good_key(key) then
      return ("'%s' cannot be a key of the %s '%s'"):format(tostring(key), kind.what, name)
    end
    local folder = ("%s/%s"):format(host.state, kind.folder)
    local value = host.fs.read_inside(folder, name .. "/" .. key, 1 << 20)
    if value then
      out.env[pair.envVar] = value
      if kind.what == "secret" then
        out.secrets[#out.secrets + 1] = value
      end
    elseif not section.optional then
      return ("the %s '%s' has no key '%s' here: write its value to the file %s/%s/%s"):format(kind.what, name, key,
                                                                                             folder, name, key)
    end
  end
end

local function as_volume(section, kind, leaf, host, out)
  local name = name_of(section, kind.parameter, kind.old, leaf)
  if not good_name(name) then
    return ("'%s' cannot be the name of a %s"):format(tostring(name), kind.what)
  end
  local folder = ("%s/%s"):format(host.state, kind.folder)
  if host.fs.kind_inside(folder, name) == "directory" then
    out.mounts[#out.mounts + 1] = { kind = "bind_ro", source = folder .. "/" .. name, target = section.mountPath }
  elseif not section.optional then
    return ("there is no %s '%s' here: make the folder %s/%s with a file for each key"):format(kind.what, name,
      folder, name)
  end
end

local function claim(mount, leaf, host, out)
  local name
  if mount.pvcNameParameter then
    name = leaf.resolve(mount.pvcNameParameter)
  elseif mount.constant then
    name = mount.constant
  else
    name = leaf.resolve(mount)
  end
  if not good_name(name) then
    return ("'%s' cannot be the name of a volume claim"):format(tostring(name))
  end
  local source = ("%s/volumes/%s"):format(host.state, name)
  local there = host.fs.kind_inside(host.state .. "/volumes", name)
  if there == nil then
    -- a cluster's administrator makes claims; here nobody would
    host.fs.mkdir(source)
    out.notes[#out.notes + 1] = ("the volume claim '%s' is new: an empty folder, %s"):format(name, source)
  elseif there ~= "directory" then
    return ("the volume claim '%s' is no folder: %s"):format(name, source)
  end
  if mount.subPath and mount.subPath ~= "" then
    if mount.subPath:find("..", 1, true) or mount.subPath:sub(1, 1) == "/" then
      return ("subPath '%s' must stay inside of the volume"):format(mount.subPath)
    end
    source = source .. "/" .. mount.subPath
    if host.fs.kind_inside(host.state .. "/volumes", name .. "/" .. mount.subPath) == nil then
      host.fs.mkdir(source)
    end
  end
  out.mounts[#out.mounts + 1] = { kind = "bind_rw", source = source, target = mount.mountPath }
  out.claims[#out.claims + 1] = name
end

local function field_path(path, leaf, spec)
  local annotation = path:match("^metadata%.annotations%['(.-)'%]$")
  local label = path:match("^metadata%.labels%['(.-)'%]$")
  local meta = map(spec.podMetadata)
  if annotation then
    return map(meta.annotations)[annotation] or ""
  elseif label then
    return map(meta.labels)[label] or ""
  end
  return ({ ["metadata.name"] = leaf.node.key, ["metadata.uid"] = leaf.node.id, ["metadata.namespace"] = "default",
            ["spec.serviceAccountName"] = "default", ["spec.nodeName"] = "localhost", ["status.podIP"] = "127.0.0.1",
            ["status.hostIP"] = "127.0.0.1" })[path]
end

local elsewhere = { "nodeSelector", "tolerations", "nodeAffinity", "podAffinity", "imagePullSecret", "imagePullPolicy" }

--- The platform's part for one task. host: { fs, state, folder (of the task), memory(text) -> bytes }. Returns
--- { env, secrets, mounts, claims, timeout (seconds or nil), uid, gid, notes }, or nil and what is wrong.
function platform.apply(spec, leaf, host)
  local out = { env = {}, secrets = {}, mounts = {}, claims = {}, notes = {} }
  local problem
  for name, kind in pairs(kinds) do
    for _, section in ipairs(map(spec[name])) do
      problem = problem or (kind.key and as_env or as_volume)(section, kind, leaf, host, out)
    end
  end
  for _, mount in ipairs(map(spec.pvcMount)) do
    problem = problem or claim(mount, leaf, host, out)
  end
  for _, field in ipairs(map(spec.fieldPathAsEnv)) do
    local value = field_path(field.fieldPath, leaf, spec)
    if not value then
      problem = problem or ("fieldPathAsEnv: '%s' has no meaning here"):format(field.fieldPath)
    end
    out.env[field.name] = value
  end
  for _, mount in ipairs(map(spec.emptyDirMounts)) do
    out.mounts[#out.mounts + 1] = { kind = "tmpfs", target = mount.mountPath,
                                    size = mount.sizeLimit and host.memory(mount.sizeLimit) or nil }
  end
  for _, volume in ipairs(map(spec.genericEphemeralVolume)) do
    local source = ("%s/ephemeral/%d"):format(host.folder, #out.mounts)
    host.fs.mkdir(source)
    out.mounts[#out.mounts + 1] = { kind = "bind_rw", source = source, target = volume.mountPath }
  end
  if #map(spec.initContainers) > 0 then
    problem = problem or "initContainers cannot run on this machine: put their work into the task's own command"
  end
  if problem then
    return nil, problem
  end
  for _, mount in ipairs(out.mounts) do
    if type(mount.target) ~= "string" or not mount.target:match("^/.") or (mount.target .. "/"):find("/../", 1,
      true) then
      return nil, ("mountPath '%s' must be an absolute path"):format(tostring(mount.target))
    end
  end
  for _, name in ipairs(elsewhere) do
    if spec[name] ~= nil then
      out.notes[#out.notes + 1] = name .. " says where a pod runs in a cluster; it changes nothing here"
    end
  end
  local context = map(spec.securityContext)
  out.uid, out.gid = tonumber(context.runAsUser), tonumber(context.runAsGroup)
  out.timeout = tonumber(spec.activeDeadlineSeconds)
  return out
end

return platform
