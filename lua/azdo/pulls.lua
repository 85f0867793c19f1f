--- azdo.pulls: what a pull request shows of us: a status, and one comment thread that is kept up to date.
--- https://learn.microsoft.com/rest/api/azure/devops/git/
local connection = require "azdo.connection"
local env = require "env"

local Client, Pull = connection.Client, {}
Pull.__index = Pull
local MARK = "mlhost.key"
local STATES = { pending = true, succeeded = true, failed = true, error = true, notApplicable = true, notSet = true }

local function call(pull, name, args)
  args.repository, args.pull = pull.repository, pull.id
  return connection.call(pull.of, name, args)
end

--- client:pull_request{ id?, repository? } -> pull; default: the one that this job builds (permission env: BUILD_*, SYSTEM_*)
function Client:pull_request(options)
  options = options or {}
  local id = options.id or tonumber(env.SYSTEM_PULLREQUEST_PULLREQUESTID or nil)
  local repository = options.repository or env.BUILD_REPOSITORY_ID
  if not id or not repository then
    error("azdo: which pull request? this job builds none; give { id = 12, repository = \"name\" }", 2)
  end
  return setmetatable({ of = self, id = math.tointeger(id), repository = repository }, Pull)
end

--- pull:status{ name, genre?, state, description?, url?, iteration? }: a status; the same genre and name replace the one before.
--- Nothing is sent when the newest one says the same.
---   genre  string  default "mlhost"
---   state  string  pending, succeeded, failed, error, notApplicable
--- -> boolean: was anything sent?
function Pull:status(options)
  if not STATES[options.state] then
    error(("azdo: a status is pending, succeeded, failed, error or notApplicable, not '%s'"):format(tostring(options.state)), 2)
  end
  if type(options.name) ~= "string" or options.name == "" then error("azdo: a status needs a name", 2) end
  local genre, newest = options.genre or "mlhost", nil
  for _, status in ipairs(call(self, "list_pull_statuses", {}).value or {}) do
    local context = status.context or {}
    if context.name == options.name and context.genre == genre and status.iterationId == options.iteration
      and (not newest or status.id > newest.id) then
      newest = status
    end
  end
  if newest and newest.state == options.state and newest.description == options.description
    and newest.targetUrl == options.url then
    return false
  end
  call(self, "set_pull_status", { status = {
    state = options.state, description = options.description, targetUrl = options.url, iterationId = options.iteration,
    context = { genre = genre, name = options.name },
  } })
  return true
end

--- Our thread: found again by a property, which people do not see. The newest, should two have been made at once.
local function find(pull, key)
  local found
  for _, thread in ipairs(call(pull, "list_threads", {}).value or {}) do
    local mark = type(thread.properties) == "table" and thread.properties[MARK]
    if type(mark) == "table" and mark["$value"] == key and not thread.isDeleted and (not found or thread.id > found.id) then
      found = thread
    end
  end
  return found
end

--- pull:comment{ key, text, good?, file?, line? } -> "created", "updated" or "unchanged", or nil where there was nothing to say
---   key   string   which of our threads; the same key finds it again
---   good  boolean  the thread is closed, or not begun when there is none; otherwise it is active
---   file  string   path in the repository, "/a/b.lua", with `line`: the thread stands there
function Pull:comment(options)
  if type(options.key) ~= "string" or type(options.text) ~= "string" then error("azdo: a comment needs key and text", 2) end
  local status, thread = options.good and "closed" or "active", find(self, options.key)
  if not thread then
    if options.good then return nil end
    local place
    if options.file then
      local at = { line = options.line or 1, offset = 1 }
      place = { filePath = options.file, rightFileStart = at, rightFileEnd = at }
    end
    call(self, "create_thread", { thread = {
      status = status, threadContext = place,
      comments = { { parentCommentId = 0, content = options.text, commentType = "text" } },
      properties = { [MARK] = { ["$type"] = "System.String", ["$value"] = options.key } },
    } })
    return "created"
  end
  local first, changed = thread.comments and thread.comments[1], false
  if first and first.content ~= options.text then
    call(self, "update_comment", { thread = thread.id, comment = first.id, content = options.text })
    changed = true
  end
  if thread.status ~= status then
    call(self, "update_thread", { thread = thread.id, status = status })
    changed = true
  end
  return changed and "updated" or "unchanged"
end

return {}
