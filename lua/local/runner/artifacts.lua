-- Where artifacts are: an address (URI) as in a cluster, the path at which tasks see it, and the file on this machine.
--
-- <pipeline root>/<pipeline name>/<run id>/<task key>/<name>  is  runs/<run id>/artifacts/<task key>/<name>,
-- and tasks see it where the cluster's launcher would have put it (minio://b/x at /minio/b/x).
local artifacts = {}
local store = {}
store.__index = store

local schemes = { ["gs://"] = "/gcs/", ["s3://"] = "/s3/", ["minio://"] = "/minio/", ["oci://"] = "/oci/",
                  ["file://"] = "" }

--- The path at which a task sees what has this address.
function artifacts.path_of(uri)
  for scheme, folder in pairs(schemes) do
    if uri:sub(1, #scheme) == scheme then
      local rest = uri:sub(#scheme + 1)
      if scheme == "oci://" then
        return folder .. rest:gsub("/", "_") .. "/models"
      end
      return folder .. rest
    end
  end
  return uri
end

--- options: fs (of the host), runs (folder of all runs), run_id, root (pipeline root), pipeline (name),
--- workspace (folder in which file:// addresses may point), state (the folder of mlhost's own files, in which
--- they may not).
function artifacts.new(options)
  local self = setmetatable(options, store)
  self.base = ("%s/%s/%s"):format((self.root:gsub("/+$", "")), self.pipeline, self.run_id)
  self.folder = ("%s/%s/artifacts"):format(self.runs, self.run_id)
  return self
end

function store:uri(key, name)
  return ("%s/%s/%s"):format(self.base, key, name)
end

--- The place of a task's artifacts: the folder here, and the path at which the task sees it.
function store:place(key)
  return self.folder .. "/" .. key, artifacts.path_of(self.base .. "/" .. key)
end

local function beneath(folder, path)
  return path == folder or path:sub(1, #folder + 1) == folder .. "/"
end

--- The file or folder here of an address, or nil when it is not on this machine, or nil and why it may not be
--- used. Only artifacts of runs and files of the workspace are given to tasks; links that lead elsewhere are
--- not followed.
function store:locate(uri)
  local prefix = self.root:gsub("/+$", "") .. "/"
  if uri:sub(1, #prefix) == prefix then
    local run_id, rest = uri:sub(#prefix + 1):match("^[^/]+/(%x+%-%x+%-%x+%-%x+%-%x+)/(.+)$")
    if run_id then
      local folder = ("%s/%s/artifacts"):format(self.runs, run_id)
      local kind = self.fs.kind_inside(folder, rest)
      if kind then
        return folder .. "/" .. rest
      end
      return nil
    end
  end
  local path = uri:match("^file://(/.*)$") or uri:match("^/.*$")
  if not path then
    return nil
  end
  local real = self.fs.real(path)
  if not real then
    return nil, ("%s: there is no such file"):format(path)
  elseif not beneath(self.workspace, real) or beneath(self.state, real) then
    return nil, ("%s is outside of the workspace %s, so no task may see it; copy it there"):format(path, self.workspace)
  end
  return real
end

--- The artifact record that tasks hand on to each other.
function store.record(_, name, definition, uri, metadata)
  local kind = definition and definition.artifactType or nil
  return { name = name, type = kind, uri = uri, path = artifacts.path_of(uri), metadata = metadata or {} }
end

return artifacts
