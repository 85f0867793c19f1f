--- http: plain requests to hosts that the permission `net` names.
---
---   local reply = http.get("https://example.org/data.csv", { limit = 1 << 20 })
---   http.post("https://example.org/hook", { json = { text = "done" }, bearer = secret.get "HOOK_TOKEN" })
---   http.get("https://example.org/model.bin", { to = cx.out "model.bin" })
---
--- Options (all optional):
---   headers  table     texts or secrets by name
---   bearer   secret    "Authorization: Bearer ..."
---   body     string    or a secret; or `json`, any value; or `from`, the path of a file
---   to       path      where a 2xx body goes instead of into reply.body
---   limit    integer   largest body in bytes, default 16 MiB
---   timeout  duration  for all attempts together, default "60s"
---   follow   boolean   redirects, default true; credentials never cross hosts
---   retry    boolean   true: repeat even a POST; false: never; default: what is safe to repeat
---   check    boolean   false: any status is a reply; default: 400 and above raises
--- A reply is { status, headers (names in lower case), body, url, json = function }.
local host = require "host"
local json = require "json"

local http = {}

local Reply = {}
Reply.__index = Reply

--- The body, decoded.
function Reply:json()
  return json.decode(self.body)
end

--- http.request(method, url, options) -> reply
function http.request(method, url, options)
  local args = { method = method, url = url }
  for key, value in pairs(options or {}) do
    if key ~= "json" then args[key] = value end
  end
  if options and options.json ~= nil then
    args.body = json.encode(options.json)
    args.headers = {}
    for name, value in pairs(options.headers or {}) do args.headers[name] = value end
    args.headers["Content-Type"] = args.headers["Content-Type"] or "application/json"
  end
  return setmetatable(host.http.request(args), Reply)
end

--- http.get(url, options), http.head(url, options), http.delete(url, options) -> reply
function http.get(url, options) return http.request("GET", url, options) end
function http.head(url, options) return http.request("HEAD", url, options) end
function http.delete(url, options) return http.request("DELETE", url, options) end
--- http.post(url, options), http.put(url, options), http.patch(url, options) -> reply
function http.post(url, options) return http.request("POST", url, options) end
function http.put(url, options) return http.request("PUT", url, options) end
function http.patch(url, options) return http.request("PATCH", url, options) end

return http
