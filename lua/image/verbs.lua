-- The verbs of `mlhost image`. run(words, options, verb) -> the result for --json, the text for people, an exit status.
local registry = require "registry"
local json = require "json"
local usage = require "image.options".usage

local function lines(list) return #list > 0 and table.concat(list, "\n") .. "\n" or "" end

local function size_text(bytes)
  local units, at = { "B", "KiB", "MiB", "GiB", "TiB" }, 1
  while bytes >= 1024 and at < #units do
    bytes, at = bytes / 1024, at + 1
  end
  return at == 1 and ("%d B"):format(bytes) or ("%.1f %s"):format(bytes, units[at])
end

local function pretty(value) return json.encode(value, { pretty = true }) .. "\n" end

local function pushed_text(result)
  if result.skipped then return ("%s@%s was there already\n"):format(result.ref_text, result.digest) end
  return ("%s@%s\n"):format(result.ref_text, result.digest)
end

local function pushed_value(result)
  return { ref = result.ref_text, digest = result.digest, skipped = result.skipped, blobs = result.blobs, sent = result.sent,
    bytes = result.bytes, sbom = result.sbom, provenance = result.provenance }
end

local verbs = {}

local function verb(definition)
  definition.name = definition.usage:match "^%S+"
  verbs[#verbs + 1] = definition
end

verb {
  usage = "ls REPOSITORY", summary = "list the tags of a repository", least = 1,
  run = function(words)
    local tags = registry.tags(words[1])
    return tags, lines(tags)
  end,
}

verb {
  usage = "digest REF", summary = "print the digest that a tag names", least = 1,
  run = function(words)
    local digest = registry.exists(words[1])
    if not digest then
      error({ code = "not_found", message = ("there is no %s"):format(registry.reference(words[1])),
        hint = "mlhost image ls lists the tags of a repository" }, 0)
    end
    return { digest = digest }, digest .. "\n"
  end,
}

verb {
  usage = "manifest REF", summary = "print an image's manifest or index", least = 1,
  run = function(words)
    local reply = registry.manifest(words[1])
    return reply, pretty(reply.manifest)
  end,
}

verb {
  usage = "config REF", summary = "print how an image starts: environment, user, entry point, labels", least = 1,
  run = function(words)
    local config = registry.inspect(words[1]).config or {}
    return config, pretty(config)
  end,
}

verb {
  usage = "inspect REF", summary = "print digest, platform, size and layers of an image", least = 1,
  run = function(words)
    local image = registry.inspect(words[1])
    local out = {
      ("%-13s %s"):format("reference", image.ref), ("%-13s %s"):format("digest", image.digest),
      ("%-13s %s"):format("architecture", image.architecture or "?"), ("%-13s %s"):format("created", image.created or "?"),
      ("%-13s %s in %d layers"):format("size", size_text(image.size), #image.layers),
    }
    for _, layer in ipairs(image.layers) do
      out[#out + 1] = ("  %s %10s  %s"):format(layer.digest, size_text(layer.size), layer.mediaType)
    end
    local config = image.config or {}
    for _, key in ipairs { "Entrypoint", "Cmd", "Env", "User", "WorkingDir", "ExposedPorts", "Labels" } do
      if config[key] ~= nil and config[key] ~= "" then
        out[#out + 1] = ("%-13s %s"):format(key, type(config[key]) == "table" and json.encode(config[key]) or config[key])
      end
    end
    return image, lines(out)
  end,
}

verb {
  usage = "copy FROM TO [--all]", summary = "copy an image between registries, OCI layouts and archives", least = 2,
  options = { all = "flag" },
  details = [[
  FROM and TO are references, oci:FOLDER[:TAG], oci-archive:FILE[:TAG] or docker-archive:FILE[:REF].

  --all                  the images of all platforms, byte for byte; default: the one for this machine]],
  run = function(words, o)
    local result = registry.copy(words[1], words[2], { all = o.all })
    if not result.ref_text then
      return { ref = result.ref, digest = result.digest }, ("%s %s\n"):format(result.ref, result.digest)
    end
    return pushed_value(result), pushed_text(result)
  end,
}

verb {
  usage = "tag REF TAG", summary = "give an image of a registry one more tag", least = 2,
  run = function(words)
    local tag = words[2]
    local at = registry.parts(words[1])
    local result = registry.copy(words[1], ("%s/%s:%s"):format(at.host, at.name, tag))
    return pushed_value(result), pushed_text(result)
  end,
}

verb {
  usage = "pull REF", summary = "fetch an image into the build cache, every digest checked", least = 1,
  run = function(words)
    local image = registry.pull(words[1])
    return { ref = image.ref_text, digest = image.digest }, ("%s@%s\n"):format(image.ref_text, image.digest)
  end,
}

verb {
  usage = "build CONTEXT --tag REF [options]", summary = "build an image from a Dockerfile, without a daemon", least = 1,
  options = {
    tag = "text", t = "=tag", file = "text", f = "=file", ["build-arg"] = "map", label = "map", target = "text",
    push = "flag", ["no-cache"] = "flag", ["cache-from"] = "repeat", ["cache-to"] = "text", secret = "repeat",
    memory = "text", sbom = "flag", provenance = "flag",
  },
  details = [[
  --tag, -t REF          name of the image, e.g. acme.azurecr.io/training:v1
  --file, -f FILE        the Dockerfile (default: CONTEXT/Dockerfile)
  --build-arg NAME=VALUE a build argument; may be repeated
  --label NAME=VALUE     a label of the image; may be repeated
  --target STAGE         build this stage, not the last
  --push                 send it to its registry; layers are on their way while they are made
  --sbom                 with --push: what is in it goes beside it (SPDX)
  --provenance           with --push: how it was made, too (SLSA)
  --no-cache             make all layers anew
  --cache-from REF       take layers of RUN from there; may be repeated
  --cache-to REF         put them there for other machines
  --secret id=ID,src=FILE  a file for RUN --mount=type=secret,id=ID; or id=ID,env=NAME
  --memory SIZE          limit of each RUN]],
  run = function(words, o, self)
    local secrets
    for _, text in ipairs(o.secret or {}) do
      local given = {}
      for key, value in text:gmatch "([^=,]+)=([^,]*)" do given[key] = value end
      local source = given.src or given.source
      if not given.id or not (source or given.env) then
        usage(self, "--secret wants id=ID,src=FILE or id=ID,env=NAME, not '%s'", text)
      end
      secrets = secrets or {}
      local secret = require "secret"
      secrets[given.id] = source and { file = source } or secret.get(given.env)
    end
    local name, tag
    if o.tag then
      local at = registry.parts(o.tag)
      name, tag = at.host .. "/" .. at.name, at.tag
    elseif o.push then
      usage(self, "--push needs --tag")
    end
    if (o.sbom or o.provenance) and not o.push then usage(self, "--sbom and --provenance need --push") end
    local image = registry.build {
      context = words[1], dockerfile = o.file, name = name, tag = tag, args = o["build-arg"], labels = o.label,
      target = o.target, push = o.push or nil, no_cache = o["no-cache"] or nil, cache_from = o["cache-from"],
      cache_to = o["cache-to"], secrets = secrets, memory = o.memory, sbom = o.sbom or nil,
      provenance = o.provenance or nil,
    }
    local value = { ref = o.tag and image:ref(), digest = image.digest, size = image.size, layers = image.layers,
      pushed = image.pushed and pushed_value(image.pushed) or nil }
    if image.pushed then return value, pushed_text(image.pushed) end
    return value, (o.tag and image:ref() .. "@" or "") .. image.digest .. "\n"
  end,
}

verb {
  usage = "sbom REF", summary = "print what is in an image, as SPDX 2.3", least = 1,
  run = function(words)
    local document = registry.sbom(words[1])
    return document, pretty(document)
  end,
}

verb {
  usage = "unpack REF FOLDER", summary = "put an image's files into a new or empty folder", least = 2,
  run = function(words)
    local digest = registry.unpack(words[1], words[2])
    return { digest = digest, folder = words[2] }, digest .. "\n"
  end,
}

--- What a change of an image answers: sent to --tag, else in the build cache.
local function changed(image, tag)
  if not tag then return { digest = image.digest }, image.digest .. "\n" end
  local result = image:push { to = tag }
  return pushed_value(result), pushed_text(result)
end

verb {
  usage = "append REF PATH... --tag REF [--to FOLDER]", summary = "add layers to an image, without a Dockerfile", least = 2,
  most = math.huge, options = { tag = "text", t = "=tag", to = "text" },
  details = [[
  PATH is a folder, or a tar archive (plain, .gz, .zst); REF may be scratch: an empty image.

  --tag, -t REF          send the new image there; without it, it stays in the build cache
  --to FOLDER            where the files of folders go in the image (default: /)]],
  run = function(words, o)
    local image = registry.append(words[1], table.move(words, 2, #words, 1, {}), { to = o.to, push = o.tag })
    if image.pushed then return pushed_value(image.pushed), pushed_text(image.pushed) end
    return changed(image)
  end,
}

local function words_of(text) return text:sub(1, 1) == "[" and json.decode(text) or { "/bin/sh", "-c", text } end

verb {
  usage = "mutate REF [changes] --tag REF", summary = "change how an image starts, with the same layers", least = 1,
  options = {
    tag = "text", t = "=tag", env = "map", label = "map", annotation = "map", entrypoint = "text", cmd = "text", user = "text",
    workdir = "text", port = "repeat", volume = "repeat", ["stop-signal"] = "text",
  },
  details = [[
  --tag, -t REF          send the new image there; without it, it stays in the build cache
  --env, --label, --annotation NAME=VALUE   may be repeated
  --entrypoint, --cmd    a JSON list of words, or a text for the shell
  --user, --workdir, --stop-signal TEXT
  --port 8080/tcp, --volume /data           may be repeated]],
  run = function(words, o)
    local image = registry.mutate(words[1], {
      env = o.env, labels = o.label, annotations = o.annotation, user = o.user, workdir = o.workdir,
      entrypoint = o.entrypoint and words_of(o.entrypoint), cmd = o.cmd and words_of(o.cmd), exposed_ports = o.port,
      volumes = o.volume, stop_signal = o["stop-signal"],
    })
    return changed(image, o.tag)
  end,
}

verb {
  usage = "rebase REF [--from BASE] [--to BASE] --tag REF", summary = "put an image's own layers on another base", least = 1,
  options = { tag = "text", t = "=tag", from = "text", to = "text" },
  details = [[
  --from, --to           the old and the new base (default: what the image's annotations say)
  --tag, -t REF          send the new image there; without it, it stays in the build cache]],
  run = function(words, o) return changed(registry.rebase(words[1], { from = o.from, to = o.to }), o.tag) end,
}

verb {
  usage = "flatten REF --tag REF", summary = "make one layer of all", least = 1, options = { tag = "text", t = "=tag" },
  run = function(words, o) return changed(registry.flatten(words[1]), o.tag) end,
}

verb {
  usage = "index REF... --tag REF", summary = "one name for images of several platforms", least = 1, most = math.huge,
  options = { tag = "text", t = "=tag", annotation = "map" },
  details = [[
  --tag, -t REF          send the index there, with its images
  --annotation NAME=VALUE  may be repeated]],
  run = function(words, o) return changed(registry.index(words, { annotations = o.annotation }), o.tag) end,
}

verb {
  usage = "export REF FILE.tar", summary = "write an image's files to a tar archive", least = 2,
  run = function(words)
    local bytes = registry.export(words[1], words[2])
    return { path = words[2], bytes = bytes }, ("%s: %s\n"):format(words[2], size_text(bytes))
  end,
}

verb {
  usage = "validate REF", summary = "fetch an image and read all of it: digests and diff ids", least = 1,
  run = function(words)
    local result = registry.verify(words[1])
    return result, ("%d layers, %s: all is as it should be\n"):format(result.layers, size_text(result.bytes))
  end,
}

verb {
  usage = "catalog [HOST]", summary = "list the repositories of a registry", most = 1,
  run = function(words)
    local names = registry.catalog { host = words[1] }
    return names, lines(names)
  end,
}

verb {
  usage = "delete REF", summary = "delete a manifest, and every tag that names it", least = 1,
  run = function(words)
    local digest = registry.delete(words[1])
    return { digest = digest }, digest .. "\n"
  end,
}

verb {
  usage = "untag REF", summary = "take a tag away; its manifest stays", least = 1,
  run = function(words)
    registry.untag(words[1])
    return { ref = registry.reference(words[1]) }, ""
  end,
}

verb {
  usage = "referrers REF [--type TYPE]", summary = "list what refers to an image: SBOMs, signatures, ...", least = 1,
  options = { type = "text" },
  run = function(words, o)
    local list, out = registry.referrers(words[1], { type = o.type }), {}
    for _, one in ipairs(list) do
      out[#out + 1] = ("%s %10s  %s"):format(one.digest, size_text(one.size), one.artifactType or one.mediaType)
    end
    return list, lines(out)
  end,
}

verb {
  usage = "attach REF FILE... --type TYPE", summary = "put files beside an image, as an artifact that refers to it", least = 2,
  most = math.huge, options = { type = "text", annotation = "map" },
  details = [[
  --type TYPE            its type, e.g. application/spdx+json, application/vnd.in-toto+json
  --annotation NAME=VALUE  may be repeated]],
  run = function(words, o, self)
    local files = table.move(words, 2, #words, 1, {})
    if not o.type then usage(self, "--type is needed, e.g. --type application/spdx+json") end
    local digest = registry.attach(words[1], { type = o.type, files = files, annotations = o.annotation })
    return { digest = digest }, digest .. "\n"
  end,
}

verb {
  usage = "files REF FOLDER", summary = "put an artifact's files into a folder", least = 2,
  run = function(words)
    local list, out = registry.files(words[1], words[2]), {}
    for _, one in ipairs(list) do out[#out + 1] = one.path end
    return list, lines(out)
  end,
}

verb {
  usage = "gc [--dry-run] [--untagged] [--grace SECONDS]", summary = "free the disk of what no image needs any more",
  options = { ["dry-run"] = "flag", untagged = "flag", grace = "text" },
  details = [[
  --dry-run              only say what would go
  --untagged             manifests that nothing leads to go, too
  --grace SECONDS        what was used within that time stays (default: one day)]],
  run = function(_, o, self)
    local grace = o.grace and (math.tointeger(tonumber(o.grace)) or usage(self, "--grace wants whole seconds, not '%s'", o.grace))
    local result = registry.collect { dry_run = o["dry-run"], untagged = o.untagged, grace = grace }
    return result, ("%s %s\n"):format(size_text(result.bytes), o["dry-run"] and "would be freed" or "freed")
  end,
}

return verbs
