--- What all of azdo's classes are made of: one connection to an organization or collection.
local host = require "host"

local connection = { Client = {} }
connection.Client.__index = connection.Client

--- open{ endpoint?, auth?, token?, pat?, project? } -> client
function connection.open(options)
  local auth = options.auth or options.pat and { type = "basic", username = "", password = options.pat } or nil
  local found = host.azdo.connect { endpoint = options.endpoint, auth = auth, token = options.token }
  return setmetatable({ client = found.client, url = found.url, project = options.project or found.project }, connection.Client)
end

--- Calls a row of a project.
function connection.call(client, name, args)
  if not client.project then
    error("azdo: which project? azdo.connect { project = \"...\" }, or profiles.NAME.azdo.project in mlhost.yaml", 3)
  end
  args.client, args.project = client.client, client.project
  return host.azdo[name](args)
end

return connection
