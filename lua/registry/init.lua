--- registry: images, built without a daemon, pushed to and pulled from registries.
---
---   local image = registry.ensure { context = "pipelines/components/training", name = "training" }
---   log.info("%s %s", image.ref, image.built and "built" or "was there")
---
---   local image = registry.build { context = dir, name = "training", tag = registry.content_tag(dir) }
---   return { ref = image:push():ref() }
---
--- References are [host/]name[:tag][@digest]. Without a host they mean the active profile's registry; the embedded one
--- is called mlhost.local. In a Dockerfile a name without a host is one of docker.io, as ever; `FROM mlhost/base` is
--- this program.
local host = require "host"

local api = host.registry
local registry = {}

local Image, Pushed = {}, {}
Image.__index, Pushed.__index = Image, Pushed

local SPDX, IN_TOTO = "application/spdx+json", "application/vnd.in-toto+json"
local SLSA = "https://slsa.dev/provenance/v1"

-- What registry.build takes.
local BUILD_OPTIONS = {
  "context", "dockerfile", "name", "tag", "args", "labels", "target", "cache", "no_cache", "cache_from", "cache_to",
  "secrets", "memory", "processes", "push", "sbom", "provenance",
}

local ENSURE_OPTIONS = {
  "context", "dockerfile", "name", "tag", "args", "labels", "target", "salt", "sbom", "provenance", "cache", "no_cache",
  "cache_from", "cache_to", "secrets", "memory", "processes",
}

--- Only these keys, so that a mistyped one does not pass for an absent one.
local function check_keys(what, options, allowed)
  if type(options) ~= "table" then
    error(("%s: a table of options is needed, not %s"):format(what, type(options)), 3)
  end
  local known = {}
  for _, key in ipairs(allowed) do known[key] = true end
  for key in pairs(options) do
    if not known[key] then
      local names = table.concat(allowed, ", ")
      error(("%s: unknown option '%s'; the options are: %s"):format(what, tostring(key), names), 3)
    end
  end
end

local function need(what, options, key, example)
  if options[key] == nil then error(("%s: %s is missing, e.g. %s = %s"):format(what, key, key, example), 3) end
  return options[key]
end

--- One text for one table of texts.
local function sorted_text(map)
  local lines = {}
  for key, value in pairs(map) do lines[#lines + 1] = ("%q=%q"):format(tostring(key), tostring(value)) end
  table.sort(lines)
  return table.concat(lines, ",")
end

--- A reference as it is meant, with host and tag: registry.reference("training:v1") -> "acme.azurecr.io/training:v1"
function registry.reference(ref)
  return api.reference { ref = ref }.ref
end

--- registry.parts(ref) -> { ref, host, name, tag, digest }: a reference as it is meant, in its parts
function registry.parts(ref) return api.reference { ref = ref } end

--- What a push answered, as an object.
local function pushed_of(result)
  result.ref_text, result.ref = result.ref, nil
  return setmetatable(result, Pushed)
end

--- registry.content_tag(context, options?) -> 16 hexadecimal digits, a valid tag
---
--- It changes when, and only when, what goes into the image changes: the files that .dockerignore lets through (paths,
--- contents, executable bits), the Dockerfile, the build arguments, and, on mlhost/base, this program. Times and owners
--- do not count. `salt` is anything else that shall change the tag, such as the digest of a base image whose tag moves.
---@param context string # folder
---@param options { dockerfile: string?, args: table?, salt: string? }?
function registry.content_tag(context, options)
  options = options or {}
  check_keys("registry.content_tag", options, { "dockerfile", "args", "salt" })
  return api.content_tag {
    context = context, dockerfile = options.dockerfile, args = options.args, salt = options.salt,
  }
end

--- The documents that a push is asked for, beside the image.
local function attach_documents(image, pushed, options)
  if not options.sbom and not options.provenance then return pushed end
  local there = pushed.ref_text:gsub(":[^:/@]*$", "") .. "@" .. pushed.digest
  if options.sbom then
    local sbom = api.sbom { digest = image.digest, name = pushed.ref_text }
    pushed.sbom = api.attach { ref = there, type = SPDX, blob = sbom.blob }.digest
  end
  if options.provenance then
    local kind = { ["in-toto.io/predicate-type"] = SLSA }
    pushed.provenance = api.attach { ref = there, type = IN_TOTO, blob = image.provenance, annotations = kind }.digest
  end
  return pushed
end

--- registry.build{ context, dockerfile?, name?, tag?, args?, labels?, target?, cache?, no_cache?, cache_from?, cache_to?,
--- secrets?, memory?, processes?, push?, sbom?, provenance? } -> image
---
--- The image is in the build cache; image:push() sends it. Same input, same digest. image.digest, image.size,
--- image.layers.
---
--- push = true (under name and tag) or a reference sends it at once: layers go to the registry while they are made, which
--- is the quickest way there. image.pushed is then what image:push() returns.
---
--- A layer that was made before of the same things (paths, modes, owners and contents of what is copied; for RUN the
--- files below, words, variables, user) is taken and logged as CACHED. no_cache = true makes all of them anew,
--- cache = false keeps none of them for later either.
---
---   cache_to    reference (with a tag) in a registry under which the layers of RUN are kept for other machines
---   sbom        with push: true puts what is in the image beside it, as image:push does
---   provenance  true, or { builder = URI, invocation = text } about who builds: how it was made goes beside it with push;
---               without, image:push { provenance = true } can do it later, even where the context is so large that its
---               files would not all be read otherwise
---   cache_from  reference, or array of references, written so, that layers of RUN may be taken from. Whoever can push
---               to them decides what is in the image, as with a base image; all else is checked (digests, diff ids)
---   secrets     for RUN --mount=type=secret,id=...: map of ids to a secret, a text, or { file = path } (needs `read`)
---   memory, processes  limits of each RUN, as exec has them; default: no limit of memory, 32768 processes
function registry.build(options)
  check_keys("registry.build", options, BUILD_OPTIONS)
  need("registry.build", options, "context", '"components/training"')
  local given = {}
  for key, value in pairs(options) do given[key] = value end
  if type(given.cache_from) == "string" then given.cache_from = { given.cache_from } end
  if given.provenance == true then given.provenance = {} end
  if given.provenance == false then given.provenance = nil end
  if given.provenance ~= nil then check_keys("registry.build: provenance", given.provenance, { "builder", "invocation" }) end
  if given.push == true then
    given.push = registry.reference(need("registry.build", options, "name", '"training"') .. ":" .. (options.tag or "latest"))
  end
  given.push = given.push or nil
  if given.sbom and not given.push then error("registry.build: sbom goes beside the image in a registry: add push", 2) end
  local sbom = given.sbom
  given.sbom = nil
  local image = setmetatable(api.build(given), Image)
  if image.pushed then
    image.pushed = attach_documents(image, pushed_of(image.pushed), { sbom = sbom, provenance = given.provenance })
  end
  return image
end

--- A build's provenance, or an error that says how to get one.
local function need_provenance(what, image)
  if type(image) == "table" and image.provenance then return image.provenance end
  error(what .. ": this image has no provenance: registry.build makes it, with provenance = true where the context is large", 3)
end

--- registry.sbom(image, options?) -> document: what is in an image, as SPDX 2.3
---
--- image is what registry.build or registry.pull returned, or a reference, whose image is fetched. Listed are packages of
--- dpkg, apk, Python and npm, and this program; the same image gives the same document. options.name: what the document
--- calls the image.
---@param options { name: string? }?
---@return table
function registry.sbom(image, options)
  options = options or {}
  check_keys("registry.sbom", options, { "name" })
  if type(image) == "string" then return api.sbom { ref = image, name = options.name }.document end
  return api.sbom { digest = image.digest, name = options.name or image.name or image.ref_text }.document
end

--- registry.provenance(image) -> statement: how an image of registry.build was made (in-toto, SLSA provenance v1)
---
--- Base images by digest, Dockerfile and context by hash, build arguments (values of those that are named like secrets are
--- withheld), times unless SOURCE_DATE_EPOCH is set.
---@return table
function registry.provenance(image) return api.document { blob = need_provenance("registry.provenance", image) } end

--- image:ref() -> the reference under which push() without `to` sends the image
function Image:ref()
  if not self.name then error("this image has no name: registry.build { name = ... }, or push { to = ... }", 2) end
  return registry.reference(self.name .. ":" .. (self.tag or "latest"))
end

--- image:push{ to?, from?, all?, sbom?, provenance? } -> pushed, with :ref() and the fields ref_text, digest, skipped, sent
--- (blobs), bytes, and sbom and provenance: the digests of these artifacts
---
---   to          reference, default the image's own name and tag in the active profile's registry
---   from        a repository of that registry whose blobs may be used there instead of being sent
---   all         true: of an index, the images of all platforms
---   sbom        true: what is in the image (registry.sbom) goes beside it, as a referrer
---   provenance  true: how it was made (registry.provenance), too; only of images that registry.build made
function Image:push(options)
  options = options or {}
  check_keys("image:push", options, { "to", "from", "sbom", "provenance", "all" })
  if options.provenance then need_provenance("image:push", self) end
  local to = options.to or self:ref()
  local all = options.all or self.index
  local result = api.push { digest = self.digest, ref = to, from = options.from, all = all }
  return attach_documents(self, pushed_of(result), options)
end

--- pushed:ref() -> the reference under which it is there now
function Pushed:ref() return self.ref_text end

--- registry.ensure{ context, name, dockerfile?, args?, labels?, target?, tag?, salt?, sbom?, provenance?, ... } -> image
---
--- image is { ref, digest, tag, built, pushed }.
--- The image of a context is in the registry afterwards. Its tag is the content tag, so nothing is built when the
--- registry has it. sbom and provenance (as of image:push and registry.build) go beside an image that was built. cache,
--- no_cache, cache_from, cache_to, secrets, memory and processes are those of registry.build.
function registry.ensure(options)
  check_keys("registry.ensure", options, ENSURE_OPTIONS)
  need("registry.ensure", options, "context", '"components/training"')
  local name = need("registry.ensure", options, "name", '"training"')
  local tag = options.tag
  if not tag then
    -- What else changes the image changes the tag.
    local salt = options.salt
    if options.target then salt = (salt or "") .. " target=" .. options.target end
    if options.labels then salt = (salt or "") .. " labels=" .. sorted_text(options.labels) end
    tag = registry.content_tag(options.context, { dockerfile = options.dockerfile, args = options.args, salt = salt })
  end
  local ref = registry.reference(name .. ":" .. tag)
  local digest = api.exists { ref = ref }
  if digest then return { ref = ref, digest = digest, tag = tag, built = false, pushed = false } end
  local given = { tag = tag, push = ref }
  for _, key in ipairs(BUILD_OPTIONS) do
    if given[key] == nil then given[key] = options[key] end
  end
  local image = registry.build(given)
  return { ref = ref, digest = image.digest, tag = tag, built = true, pushed = not image.pushed.skipped }
end

--- registry.base_image{ name? } -> { ref, digest, tag, pushed }
---
--- The image mlhost/base, made of this program, its libraries and the CA certificates, is in the registry afterwards.
--- Its tag is a digest of its content. `ARG BASE` / `FROM ${BASE}` with args = { BASE = base.ref } builds on exactly it.
---@param options { name: string? }? # name: another repository for it
function registry.base_image(options)
  options = options or {}
  check_keys("registry.base_image", options, { "name" })
  local image = api.base_image()
  local ref = registry.reference((options.name or image.name) .. ":" .. image.tag)
  local pushed = api.push { digest = image.digest, ref = ref }
  return { ref = ref, digest = image.digest, tag = image.tag, pushed = not pushed.skipped }
end

--- registry.collect(options?) -> { registry, cache, images, bytes }: frees the disk of what no image needs any more
---
--- In the embedded registry and in the build cache these are blobs that no manifest names, uploads that nobody went on
--- with and unpacked layers; `images` are unpacked images of tasks. Pushes, pulls and builds may go on meanwhile.
---   dry_run   true: nothing goes, the result says what would
---   untagged  true: manifests that no tag, index or subject leads to go, too; default false
---   grace     seconds that what nothing needs stays after its last use, default one day
--- registry and cache are { manifests, blobs, uploads, layers, kept, young }, each { count, bytes }; young is what goes
--- once the grace is over. bytes is the sum of what went.
function registry.collect(options)
  options = options or {}
  check_keys("registry.collect", options, { "dry_run", "untagged", "grace" })
  return api.collect { dry_run = options.dry_run, untagged = options.untagged, grace = options.grace }
end

--- registry.exists(ref) -> the digest that a tag names, or nil
function registry.exists(ref) return api.exists { ref = ref } end

--- registry.manifest(ref) -> { ref, digest, media_type, manifest }
function registry.manifest(ref) return api.manifest { ref = ref } end

--- registry.inspect(ref) -> { ref, digest, created, architecture, size, layers, config }
function registry.inspect(ref) return api.inspect { ref = ref } end

--- registry.pull(ref) -> image in the build cache: { digest, ref_text }, can be pushed elsewhere
function registry.pull(ref)
  local image = api.pull { ref = ref }
  image.ref_text, image.ref = image.ref, nil
  return setmetatable(image, Image)
end

--- registry.unpack(ref, folder) -> digest: the image's files in a new or empty folder (permission write)
function registry.unpack(ref, folder) return api.unpack { ref = ref, to = folder }.digest end

for name, fn in pairs(require "registry.remote") do registry[name] = fn end
local function image_of(image) return setmetatable(image, Image) end

for _, part in ipairs { "registry.edit", "registry.copy" } do
  for name, fn in pairs(require(part)(image_of)) do registry[name] = fn end
end

return registry
