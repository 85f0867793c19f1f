--- Changing images without a Dockerfile: layers added, settings changed, another base below, all layers as one.
---
---   registry.append("training:v1", "models/", { to = "/models" }):push { to = "training:v1-models" }
---   registry.mutate("training:v1", { env = { LEVEL = "debug" }, user = "1000" }):push { to = "training:debug" }
---
--- An image is given as a reference, or as what registry.build, registry.pull or one of these functions returned. The
--- result is in the build cache; nothing is sent before :push { to = ... }.
local host = require "host"

local api = host.registry

local MUTATE_KEYS = {
  "env", "labels", "annotations", "entrypoint", "cmd", "user", "workdir", "exposed_ports", "volumes", "stop_signal",
}

--- The image with manifest and config as data.
local function load(what, image)
  if type(image) == "string" then return api.load { ref = image } end
  if type(image) == "table" and type(image.digest) == "string" then return api.load { digest = image.digest } end
  error(("%s: an image or a reference is needed, not %s"):format(what, type(image)), 3)
end

local function check_keys(what, options, allowed)
  local known = {}
  for _, key in ipairs(allowed) do known[key] = true end
  for key in pairs(options) do
    if not known[key] then
      error(("%s: unknown option '%s'; the options are: %s"):format(what, tostring(key), table.concat(allowed, ", ")), 3)
    end
  end
end

local function empty_config()
  return {
    created = "1970-01-01T00:00:00Z", architecture = api.platform().architecture, os = "linux", config = {},
    rootfs = { type = "layers", diff_ids = {} }, history = {},
  }
end

local function note(config, text, empty)
  config.history = config.history or {}
  table.insert(config.history, { created = config.created, created_by = text, empty_layer = empty or nil })
end

local function add_layer(image, layer, text)
  table.insert(image.manifest.layers, layer)
  table.insert(image.config.rootfs.diff_ids, layer.diff_id)
  note(image.config, text)
end

return function(image_of)
  local M = {}

  local function compose(image)
    return image_of(api.compose {
      config = image.config, layers = image.manifest.layers, annotations = image.manifest.annotations,
    })
  end

  --- registry.append(image, paths, options?) -> image: with one more layer for each path, in their order
  ---
  --- A path is a folder, whose files are put below options.to (default "/"), owned by root, as COPY does it; or a tar
  --- archive (plain, .gz, .zst), which is taken as it is. Needs the permission read for them. An image "scratch" is empty.
  --- options.push, a reference, sends the result there: the new layers are on their way while they are made.
  ---@param image string|table
  ---@param paths string|string[]
  ---@param options { to: string?, push: string? }?
  function M.append(image, paths, options)
    options = options or {}
    check_keys("registry.append", options, { "to", "push" })
    if type(paths) == "string" then paths = { paths } end
    local base
    if image == "scratch" then
      base = { manifest = { layers = {} }, config = empty_config() }
    else
      base = load("registry.append", image)
    end
    for _, path in ipairs(paths) do
      add_layer(base, api.layer { path = path, to = options.to, push = options.push }, "append " .. path)
    end
    local result = compose(base)
    if options.push then result.pushed = result:push { to = options.push } end
    return result
  end

  local function set_env(config, env)
    local list, at = config.Env or {}, {}
    for index, pair in ipairs(list) do at[pair:match "^[^=]*"] = index end
    local names = {}
    for name in pairs(env) do names[#names + 1] = name end
    table.sort(names)
    for _, name in ipairs(names) do
      local index = at[name] or #list + 1
      list[index] = name .. "=" .. tostring(env[name])
    end
    config.Env = list
  end

  local function set_map(config, key, map)
    config[key] = config[key] or {}
    for name, value in pairs(map) do config[key][name] = value and tostring(value) or nil end
  end

  local function set_names(config, key, names)
    config[key] = config[key] or {}
    for _, name in ipairs(names) do config[key][name] = {} end
  end

  --- registry.mutate(image, changes) -> image: with other settings and the same layers
  ---
  ---   env, labels, annotations  maps; what is there stays unless named; false removes a label or an annotation
  ---   entrypoint, cmd           arrays of words; false: none
  ---   user, workdir, stop_signal  texts
  ---   exposed_ports, volumes    arrays: { "8080/tcp" }, { "/data" }
  ---@param image string|table
  ---@param changes table
  function M.mutate(image, changes)
    check_keys("registry.mutate", changes, MUTATE_KEYS)
    local base = load("registry.mutate", image)
    base.config.config = base.config.config or {}
    local config = base.config.config
    if changes.env then set_env(config, changes.env) end
    if changes.labels then set_map(config, "Labels", changes.labels) end
    if changes.annotations then set_map(base.manifest, "annotations", changes.annotations) end
    if changes.entrypoint ~= nil then config.Entrypoint = changes.entrypoint or nil end
    if changes.cmd ~= nil then config.Cmd = changes.cmd or nil end
    for key, name in pairs { user = "User", workdir = "WorkingDir", stop_signal = "StopSignal" } do
      if changes[key] ~= nil then config[name] = changes[key] or nil end
    end
    if changes.exposed_ports then set_names(config, "ExposedPorts", changes.exposed_ports) end
    if changes.volumes then set_names(config, "Volumes", changes.volumes) end
    note(base.config, "mutate", true)
    return compose(base)
  end

  local function history_behind(config, layers)
    local seen, at = 0, 1
    local history = config.history or {}
    while seen < layers and at <= #history do
      if not history[at].empty_layer then seen = seen + 1 end
      at = at + 1
    end
    return at
  end

  --- registry.rebase(image, { from =, to = }) -> image: the layers above the base `from`, on top of the base `to`
  ---
  --- Without `from`, the annotations org.opencontainers.image.base.digest and base.name of the image say it; without `to`,
  --- base.name does. The image's first layers must be those of `from`: an error tells the first that is not.
  ---@param image string|table
  ---@param options { from: string?, to: string? }?
  function M.rebase(image, options)
    options = options or {}
    check_keys("registry.rebase", options, { "from", "to" })
    local top = load("registry.rebase", image)
    local said = top.manifest.annotations or {}
    local name, digest = said["org.opencontainers.image.base.name"], said["org.opencontainers.image.base.digest"]
    local from = options.from or (name and digest and name:gsub("@.*$", ""):gsub(":[^:/]*$", "") .. "@" .. digest)
    local to = options.to or name
    if not from or not to then
      error("registry.rebase: from and to are needed, as the image does not say its base", 2)
    end
    local old, new = load("registry.rebase", from), load("registry.rebase", to)
    local count = #old.config.rootfs.diff_ids
    for index, id in ipairs(old.config.rootfs.diff_ids) do
      if top.config.rootfs.diff_ids[index] ~= id then
        error(("registry.rebase: the image is not built on %s: layer %d is another one"):format(tostring(from), index), 2)
      end
    end
    local history = top.config.history or {}
    for index = count + 1, #top.manifest.layers do
      table.insert(new.manifest.layers, top.manifest.layers[index])
      table.insert(new.config.rootfs.diff_ids, top.config.rootfs.diff_ids[index])
    end
    new.config.history = new.config.history or {}
    for index = history_behind(top.config, count), #history do table.insert(new.config.history, history[index]) end
    new.config.config, new.config.created = top.config.config, top.config.created
    if name then
      said["org.opencontainers.image.base.name"] = type(to) == "string" and to or name
      said["org.opencontainers.image.base.digest"] = new.digest
    end
    new.manifest.annotations = top.manifest.annotations
    return compose(new)
  end

  --- registry.flatten(image) -> image: the same files and settings in one layer
  ---@param image string|table
  function M.flatten(image)
    local base = load("registry.flatten", image)
    local layer = api.squash { digest = base.digest }
    base.manifest.layers, base.config.rootfs.diff_ids, base.config.history = {}, {}, {}
    add_layer(base, layer, "flatten " .. base.digest)
    return compose(base)
  end

  --- registry.verify(image) -> { layers, bytes }: everything is fetched and read: digests of blobs, diff ids of layers
  ---
  --- Raises an error of code "digest" that names what is damaged.
  ---@param image string|table
  function M.verify(image) return api.verify { digest = load("registry.verify", image).digest } end

  --- registry.export(image, path) -> bytes: its files as one tar archive, as a container of it would see them
  ---
  --- Needs the permission write for the path.
  ---@param image string|table
  ---@param path string
  ---@return integer
  function M.export(image, path)
    return api.export { digest = load("registry.export", image).digest, to = path }.bytes
  end

  return M
end
