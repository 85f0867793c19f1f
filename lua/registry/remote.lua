--- What a registry has beside images to build and pull: lists, artifacts and what refers to what, and taking things away
--- (OCI distribution specification v1.1). Functions of `registry`; their references are meant as everywhere there.
local host = require "host"
local json = require "json"

local api = host.registry
local remote = {}

local function check_keys(what, options, allowed)
  if type(options) ~= "table" then
    error(("%s: a table of options is needed, not %s"):format(what, type(options)), 3)
  end
  local known = {}
  for _, key in ipairs(allowed) do known[key] = true end
  for key in pairs(options) do
    if not known[key] then
      error(("%s: unknown option '%s'; the options are: %s"):format(what, tostring(key), table.concat(allowed, ", ")), 3)
    end
  end
end

local function need(what, options, key, example)
  if options[key] == nil then error(("%s: %s is missing, e.g. %s = %s"):format(what, key, key, example), 3) end
  return options[key]
end

--- Files as the primitive wants them: "a.txt" is { path = "a.txt" }.
local function file_list(what, files)
  if type(files) ~= "table" then error(what .. ': files is an array, e.g. { "model.onnx" }', 3) end
  local list = {}
  for index, file in ipairs(files) do
    if type(file) == "string" then file = { path = file } end
    check_keys(what .. ": files[" .. index .. "]", file, { "path", "name", "type" })
    need(what .. ": files[" .. index .. "]", file, "path", '"model.onnx"')
    list[index] = { path = file.path, name = file.name, type = file.type }
  end
  return json.array(list)
end

--- registry.tags(repository, options?) -> array of tags, sorted
---
---   limit  no more than that many of them, by the registry's own order; default all
---   last   only those behind that tag, for the next page
---@param options { limit: integer?, last: string? }?
---@return string[]
function remote.tags(repository, options)
  options = options or {}
  check_keys("registry.tags", options, { "limit", "last" })
  return api.tags { repository = repository, limit = options.limit, last = options.last }
end

--- registry.catalog(options?) -> array of the repositories that the registry shows, sorted
---
---   host   "localhost:5000"; default the active profile's registry
---   limit  no more than that many; default all
---   last   only those behind that repository, for the next page
---
--- Many registries show nobody all repositories: the error says so.
---@param options { host: string?, limit: integer?, last: string? }?
---@return string[]
function remote.catalog(options)
  options = options or {}
  check_keys("registry.catalog", options, { "host", "limit", "last" })
  return api.catalog { host = options.host, limit = options.limit, last = options.last }
end

--- registry.referrers(ref, options?) -> array of descriptors of the artifacts that refer to ref's image
---
--- Each has digest, size, mediaType, artifactType and annotations. A registry without the referrers API is asked for the
--- index under the tag "sha256-<hex>". options.type: only those of that artifactType.
---@param options { type: string? }?
---@return table[]
function remote.referrers(ref, options)
  options = options or {}
  check_keys("registry.referrers", options, { "type" })
  return api.referrers { ref = ref, type = options.type }
end

--- registry.attach(ref, { type, document | files, annotations? }) -> digest of the artifact that refers to ref's image
---
---   type         its artifactType: "application/spdx+json", "application/vnd.in-toto+json", ...
---   document     a text, or a table, which is sent as JSON; or
---   files        array of paths, or of { path, name?, type? } (permission read)
---   annotations  table of texts
---
--- Where the registry has no referrers API, the index under the tag "sha256-<hex>" is kept (distribution-spec v1.1,
--- "Referrers Tag Schema").
---@param options { type: string, document: string|table?, files: table?, annotations: table<string, string>? }
---@return string
function remote.attach(ref, options)
  check_keys("registry.attach", options, { "type", "document", "files", "annotations" })
  need("registry.attach", options, "type", '"application/spdx+json"')
  if options.files and options.document ~= nil then
    error("registry.attach: document and files are given; one of them is needed", 2)
  end
  if options.files then
    return api.artifact {
      subject = ref, type = options.type, files = file_list("registry.attach", options.files), annotations = options.annotations,
    }.digest
  end
  local text = need("registry.attach", options, "document", "registry.sbom(image)")
  if type(text) == "table" then text = json.encode(text) end
  return api.attach { ref = ref, type = options.type, text = text, annotations = options.annotations }.digest
end

--- registry.artifact(ref, { type, files, annotations?, subject? }) -> { digest, skipped, blobs, sent }
---
--- Files that are no image, under a tag: a model, a chart, a policy (image-spec v1.1, "Guidelines for Artifact Usage").
---   type         its artifactType: "application/vnd.acme.model"
---   files        array of paths, or of { path, name?, type? }: name, the title, is the path's last part by default, and
---                type the media type of the file (permission read)
---   annotations  table of texts
---   subject      reference of an image of the same repository that it refers to
function remote.artifact(ref, options)
  check_keys("registry.artifact", options, { "type", "files", "annotations", "subject" })
  need("registry.artifact", options, "type", '"application/vnd.acme.model"')
  local files = file_list("registry.artifact", need("registry.artifact", options, "files", '{ "model.onnx" }'))
  return api.artifact {
    ref = ref, type = options.type, files = files, annotations = options.annotations, subject = options.subject,
  }
end

--- registry.files(ref, folder) -> array of { path, type, digest, size }: an artifact's files in a folder, each under its
--- title (permission write). Every digest is checked; a title that leads out of the folder is an error.
---@return table[]
function remote.files(ref, folder) return api.files { ref = ref, to = folder } end

--- registry.delete(ref) -> digest of the manifest that was deleted, with every tag that names it
---
--- One that refers to an image leaves the image's list of referrers. An error of code "unsupported" says that the registry
--- deletes nothing.
---@return string
function remote.delete(ref) return api.delete { ref = ref } end

--- registry.untag(ref): the tag is taken away, its manifest stays. Not every registry can; the error says what else there is.
function remote.untag(ref) api.untag { ref = ref } end

--- registry.delete_blob(ref): the blob name@sha256:... is taken from its repository
function remote.delete_blob(ref) api.delete_blob { ref = ref } end

return remote
