local container = require "local.runner.container"
local platform = require "local.runner.platform"

local context = { parameters = { m = "512Mi" }, warn = error }
local image = { Entrypoint = { "/entry" }, Cmd = { "default" } }

local function words(spec)
  return table.concat(container.words(spec, image, context), " ")
end

local passwd = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n"
local function read(path)
  return path == "etc/passwd" and passwd or path == "etc/group" and "staff:x:50:\n" or nil
end

return {
  { "command replaces the entrypoint, args replace cmd", function()
    assert(words({}) == "/entry default")
    assert(words({ args = { "x" } }) == "/entry x")
    assert(words({ command = { "c" }, args = { "x" } }) == "c x")
  end },
  { "a command without args runs without the image's cmd", function()
    assert(words({ command = { "c" } }) == "c", words({ command = { "c" } }))
  end },
  { "quantities", function()
    for text, bytes in pairs { ["512Mi"] = 536870912, ["2G"] = 2000000000, ["1e3"] = 1000, ["1.5Ki"] = 1536,
      [64] = 64 } do
      assert(container.bytes(text) == bytes, text)
    end
    assert(container.bytes("lots") == nil and container.bytes("1Qi") == nil)
  end },
  { "memory limits", function()
    assert(container.memory_limit({ memoryLimit = 1 }, context) == 1000000000)
    assert(container.memory_limit({ resourceMemoryLimit = "{{$.inputs.parameters['m']}}" }, context) == 536870912)
    local none, why = container.memory_limit({ resourceMemoryLimit = "lots" }, context)
    assert(none == nil and why:find("lots", 1, true))
    assert(container.memory_limit({}, context) == nil)
  end },
  { "users of images", function()
    local app = container.user("app", read)
    assert(app.uid == 1000 and app.gid == 1001 and app.home == "/home/app")
    assert(container.user("", read).uid == 0 and container.user("", read).home == "/root")
    assert(container.user("7:staff", read).gid == 50 and container.user("7:8", read).gid == 8)
    local none, why = container.user("ghost", read)
    assert(none == nil and why:find("ghost", 1, true))
  end },
  { "later environments win, and PATH is always there", function()
    local env = table.concat(container.environment({ Env = { "A=1", "B=2" } }, { home = "/h" }, { B = "3" },
      { C = 4 }), "\n")
    assert(env:find("A=1\nB=3\nC=4\nHOME=/h\nPATH=/", 1, true), env)
  end },
  { "missing secrets name the file to write, optional ones do not matter", function()
    local fs = { read_inside = function(_, rel) return rel == "db/user" and "me" or nil end,
      kind_inside = function() end }
    local host = { fs = fs, state = "/s", folder = "/f", memory = container.bytes }
    local leaf = { node = { key = "k", id = "i" }, resolve = function(input) return input.runtimeValue.constant end }
    local function secret(key, optional)
      return { secretAsEnv = { { secretNameParameter = { runtimeValue = { constant = "db" } }, optional = optional,
                                 keyToEnv = { { secretKey = key, envVar = "V" } } } } }
    end
    local found = assert(platform.apply(secret("user"), leaf, host))
    assert(found.env.V == "me" and found.secrets[1] == "me")
    local none, why = platform.apply(secret("password"), leaf, host)
    assert(none == nil and why:find("/s/secrets/db/password", 1, true), why)
    assert(platform.apply(secret("password", true), leaf, host).env.V == nil)
    none, why = platform.apply({ secretAsEnv = { { secretName = "../x", keyToEnv = { { secretKey = "k",
      envVar = "V" } } } } },
                               leaf, host)
    assert(none == nil and why:find("cannot be the name", 1, true))
  end },
  { "mounts must be absolute, a new claim is an empty folder, scheduling is only noted", function()
    local made
    local fs = {
      kind_inside = function(_, name) return ({ data = "directory", odd = "file" })[name] end,
      mkdir = function(path) made = path end,
    }
    local host = { fs = fs, state = "/s", folder = "/f", memory = container.bytes }
    local leaf = { node = { key = "k", id = "i" }, resolve = function() end }
    local out = assert(platform.apply({ pvcMount = { { constant = "data", mountPath = "/d" } },
      activeDeadlineSeconds = "30",
                                        nodeSelector = {}, emptyDirMounts = { { mountPath = "/e",
                                          sizeLimit = "1Mi" } } },
                                      leaf, host))
    assert(out.mounts[1].source == "/s/volumes/data" and out.mounts[2].size == 1048576 and out.timeout == 30)
    assert(out.notes[1]:find("nodeSelector", 1, true))
    out = assert(platform.apply({ pvcMount = { { constant = "none", mountPath = "/d" } } }, leaf, host))
    assert(made == "/s/volumes/none" and out.notes[1]:find(made, 1, true) and out.mounts[1].source == made)
    local _, why = platform.apply({ pvcMount = { { constant = "odd", mountPath = "/d" } } }, leaf, host)
    assert(why:find("is no folder", 1, true))
    _, why = platform.apply({ pvcMount = { { constant = "data", mountPath = "/a/../etc" } } }, leaf, host)
    assert(why:find("absolute", 1, true))
    _, why = platform.apply({ pvcMount = { { constant = "data", mountPath = "/d", subPath = "../x" } } }, leaf, host)
    assert(why:find("inside", 1, true))
  end },
}
