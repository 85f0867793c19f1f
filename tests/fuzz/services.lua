-- luacheck: globals open close request
-- Requests to an embedded service, by fuzz_services.c: open(module, folder) and request(text, wellformed).
local json = require "json"
local folder, service, last

-- Runs are not started: the process that would do one is the program itself.
package.loaded.runner = {
  start = function() return true end, alive = function() return false end, stop = function() end, stop_all = function() end,
}

function open(name, path)
  folder = path
  service = require("local." .. name) { dir = path, state = path, url = "http://127.0.0.1:1", workspace = path }
end

function close()
  if service.close then service.close() end
end

local function unescape(text)
  return (text:gsub("+", " "):gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

-- "METHOD /path?query NL Header: value NL ... NL NL body", as host/local/lua_service.c would hand it over.
local function parse(text)
  local head, body = text:match "^(.-)\n\n(.*)$"
  local line, rest = (head or text):match "^([^\n]*)\n?(.*)$"
  local method, target = line:match "^(%u+) (/[^ ]*)$"
  if not method then return nil end
  local path, query = target:match "^([^?]*)%??(.*)$"
  local request = {
    method = method, path = unescape(path), rest = "", raw_path = path, raw_query = query, origin = "http://127.0.0.1:1",
    body = body or "", query = {}, list = {}, headers = {},
  }
  if request.path:find "%z" then return nil end
  for pair in query:gmatch "[^&]+" do
    local name, value = pair:match "^([^=]*)=?(.*)$"
    name, value = unescape(name), unescape(value)
    request.query[name] = request.query[name] or value
    request.list[name] = request.list[name] or {}
    table.insert(request.list[name], value)
  end
  for name, value in rest:gmatch "([%w-]+): *([^\n]*)" do request.headers[name:lower()] = value end
  return request
end

local function one(text)
  local request = parse(text)
  if not request then return end
  local response = service.handle(request)
  assert(math.type(response.status) == "integer" and response.status >= 200 and response.status < 600, "no status")
  assert(response.status < 500 or response.status == 501 or response.status == 503,
    ("status %d: %s"):format(response.status, tostring(response.body)))
  if response.file then
    assert(response.file:sub(1, #folder + 1) == folder .. "/" and not response.file:find("/../", 1, true),
      "a file outside: " .. response.file)
  end
  local kind = response.headers and response.headers["Content-Type"] or ""
  local body = response.body or ""
  last = body:match '"run_id":"([%w-]+)"' or body:match '_id":"([%w-]+)"' or last
  if response.body and response.body ~= "" and kind:find("application/json", 1, true) then
    assert(json.decode(response.body))
  end
end

--- Up to four requests, cut at lines "%%%%"; @ID in one is an id out of the answer before it.
function request(text)
  local count = 0
  last = "0"
  for part in (text .. "\n%%%%\n"):gmatch "(.-)\n%%%%%%%%\n" do
    count = count + 1
    if count > 4 then return end
    one((part:gsub("@ID", last)))
  end
end
