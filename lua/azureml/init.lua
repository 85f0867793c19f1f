--- azureml: models of an Azure Machine Learning workspace.
---
---   local workspace = azureml.connect { resource_group = "ml", workspace = "acme" }
---   local version = workspace:register_model { name = "digits", path = "model.json", tags = { run = id } }
---
--- Credentials: AZURE_TENANT_ID, AZURE_CLIENT_ID, AZURE_CLIENT_SECRET (or AZ_...), or the profile's auth.
--- REST: https://learn.microsoft.com/rest/api/azureml/model-versions/create-or-update and .../datastores/get
local host = require "host"

local azureml = {}
local Workspace = {}
Workspace.__index = Workspace

--- azureml.configured() -> boolean: are there credentials?
function azureml.configured() return host.service.configured { service = "azureml" } end

--- azureml.connect{ resource_group?, workspace?, subscription?, endpoint?, auth? } -> workspace
--- What is left out comes from the profile (subscription: also AZURE_SUBSCRIPTION_ID or AZ_SUBSCRIPTION_ID).
function azureml.connect(options)
  options = options or {}
  local found = host.azureml.connect { endpoint = options.endpoint, auth = options.auth }
  local self = setmetatable({ client = found.client }, Workspace)
  for _, key in ipairs { "subscription", "resource_group", "workspace" } do
    local value = options[key]
    if value == nil or value == "" then value = found[key] end
    if not value or value == "" then
      error({
        service = "azureml", code = "invalid", message = ("azureml.connect: no %s is known"):format(key),
        hint = ("pass %s = ..., or add profiles.%s.azureml.%s to mlhost.yaml"):format(key, found.profile, key),
      }, 2)
    end
    self[key] = value
  end
  return self
end

local function call(self, name, args)
  args.client, args.subscription = self.client, self.subscription
  args.resource_group, args.workspace = self.resource_group, self.workspace
  return host.azureml[name](args)
end

local function escaped(path)
  return (path:gsub("[^%w%-%._~/]", function(c) return ("%%%02X"):format(c:byte()) end))
end

--- One file into a container, as a block blob: https://learn.microsoft.com/rest/api/storageservices/put-blob.
--- Sending the same blob twice leaves one blob.
local function put_blob(url, from, token)
  require("http").put(url, {
    from = from, bearer = token, retry = true,
    headers = { ["x-ms-blob-type"] = "BlockBlob", ["x-ms-version"] = "2021-12-02" },
  })
end

--- workspace:upload(path, folder) -> the azureml:// URI of a file that is stored in the workspace's default datastore.
--- Needs the role "Storage Blob Data Contributor" there, and `net` for the account's host.
function Workspace:upload(path, folder)
  local store = call(self, "get_datastore", { name = "workspaceblobstore" }).properties
  local target = folder .. "/" .. path:match "[^/]+$"
  local base = ("%s://%s.blob.%s/%s/"):format(store.protocol or "https", store.accountName,
    store.endpoint or "core.windows.net", store.containerName)
  local scope = "https://storage.azure.com/.default"
  put_blob(base .. escaped(target), path, host.azureml.token({ client = self.client, scope = scope }).token)
  return ("azureml://subscriptions/%s/resourcegroups/%s/workspaces/%s/datastores/workspaceblobstore/paths/%s")
    :format(self.subscription, self.resource_group, self.workspace, target)
end

--- The number after the newest version, "1" for a new model.
local function next_version(self, name)
  local model, err = try(call, self, "get_model", { name = name })
  if model then return tostring(model.properties.nextVersion or 1) end
  if err.code == "not_found" then return "1" end
  error(err, 0)
end

--- workspace:register_model{ name, path? | uri?, version?, type?, description?, tags?, properties? } -> version
---   path     path    a file, which is stored in the workspace first; or uri, where it is already
---   version  string  default: the next one
---   type     string  "custom_model" (default), "mlflow_model", "triton_model"
---   returns { id, name, version, uri }
function Workspace:register_model(options)
  local version = options.version or next_version(self, options.name)
  local uri = options.uri or self:upload(options.path, ("models/%s/%s"):format(options.name, version))
  local reply = call(self, "put_model_version", {
    name = options.name, version = tostring(version),
    properties = {
      modelUri = uri, modelType = options.type or "custom_model", description = options.description,
      tags = options.tags, properties = options.properties,
    },
  })
  return { id = reply.id, name = options.name, version = tostring(version), uri = uri, data = reply.properties }
end

--- workspace:model_version(name, version) -> its properties
function Workspace:model_version(name, version)
  return call(self, "get_model_version", { name = name, version = tostring(version) }).properties
end

return azureml
