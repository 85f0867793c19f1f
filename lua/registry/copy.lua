--- Images from one place to another, and several of them under one name.
---
---   registry.copy("docker://docker.io/library/debian:12", "oci:vendor/debian:12", { all = true })
---   registry.index { "app:v1-amd64", "app:v1-arm64" }:push { to = "app:v1" }
---
--- A place is a reference, with or without docker:// in front; oci:FOLDER[:TAG], an OCI layout; oci-archive:FILE[:TAG], one in
--- a tar archive; docker-archive:FILE[:REF], what `docker save` writes and `docker load` reads. Files need the permissions read
--- and write.
local host = require "host"

local api = host.registry

return function(image_of)
  local M = {}

  local function place(text)
    local kind, rest = text:match "^([%l%-]+):(.+)$"
    if kind == "oci" or kind == "oci-archive" or kind == "docker-archive" then
      local path, tag = rest:match "^([^:]+):(.+)$"
      return { kind = kind, path = path or rest, tag = tag }
    end
    return { ref = text:match "^docker://(.+)$" or text }
  end

  --- The image into the build cache: its digest, of the index if it is one and all of it is wanted.
  local function fetch(from, all)
    local at = place(from)
    if at.ref then return api.pull { ref = at.ref, all = all } end
    return api.read_layout(at)
  end

  --- registry.copy(from, to, options?) -> { digest, ref }, or pushed where `to` is in a registry
  ---
  --- Manifests and blobs stay byte for byte what they are, so digests do not change; but docker archives hold layers without
  --- compression. What is there already is not sent again.
  ---   all  true: the images of all platforms that an index has; default: the one for this machine
  ---@param from string
  ---@param to string
  ---@param options { all: boolean? }?
  function M.copy(from, to, options)
    local all = options and options.all or nil
    local image = fetch(from, all)
    local at = place(to)
    if at.ref then return image_of(image):push { to = at.ref, all = all } end
    local digest = image.digest
    if not all then digest = api.load { digest = digest }.digest end
    api.write_layout { digest = digest, kind = at.kind, path = at.path, tag = at.tag }
    return { digest = digest, ref = to }
  end

  --- registry.index(images, options?) -> image: one name for images of several platforms
  ---
  --- Each is a reference, or an image of registry.build and the like; its platform is what its config says.
  --- :push { to = ... } sends the index with all of them.
  ---@param images (string|table)[]
  ---@param options { annotations: table? }?
  function M.index(images, options)
    local digests = {}
    for position, image in ipairs(images) do
      if type(image) == "string" then image = api.load { ref = image } end
      digests[position] = image.digest
    end
    local index = image_of(api.compose_index { images = digests, annotations = options and options.annotations })
    index.index = true
    return index
  end

  return M
end
