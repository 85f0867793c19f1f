-- Status objects of the Kubernetes API: how every request ends that does not succeed.
local json = require "json"

local status = {}

--- Ends the request. details: a map, or nil.
function status.raise(code, reason, message, details)
  error({ kubernetes = { kind = "Status", apiVersion = "v1", metadata = {}, status = "Failure", message = message,
                         reason = reason, details = details, code = code } }, 0)
end

local function details(resource, name)
  return { name = name, group = resource.group ~= "" and resource.group or nil, kind = resource.plural }
end

local function title(resource)
  return resource.group ~= "" and resource.plural .. "." .. resource.group or resource.plural
end

function status.bad_request(format, ...)
  status.raise(400, "BadRequest", format:format(...))
end

function status.no_such_path()
  status.raise(404, "NotFound", "the server could not find the requested resource", {})
end

function status.not_found(resource, name)
  status.raise(404, "NotFound", ("%s %q not found"):format(title(resource), name), details(resource, name))
end

function status.already_exists(resource, name)
  status.raise(409, "AlreadyExists", ("%s %q already exists"):format(title(resource), name), details(resource, name))
end

function status.conflict(resource, name, why)
  status.raise(409, "Conflict", ("Operation cannot be fulfilled on %s %q: %s"):format(title(resource), name,
    why or "the object has been modified; please apply your changes to the latest version and try again"),
    details(resource, name))
end

function status.forbidden(resource, name, why)
  status.raise(403, "Forbidden", ("%s %q is forbidden: %s"):format(title(resource), name, why), details(resource, name))
end

function status.unsupported_media(resource, given, allowed)
  status.raise(415, "UnsupportedMediaType", ("the body of the request was in an unknown format (%s): %s takes %s")
    :format(given, title(resource), table.concat(allowed, ", ")))
end

function status.method_not_allowed(resource)
  status.raise(405, "MethodNotAllowed", "the server does not allow this method on the requested resource",
    details(resource))
end

--- problems: a list of { field, message, reason }.
function status.invalid(resource, name, problems)
  local causes, texts = json.array({}), {}
  for i, problem in ipairs(problems) do
    causes[i] = { reason = problem.reason or "FieldValueInvalid", message = problem.message, field = problem.field }
    texts[i] = problem.field .. ": " .. problem.message
  end
  local text = #texts == 1 and texts[1] or "[" .. table.concat(texts, ", ") .. "]"
  local of = details(resource, name)
  of.kind, of.causes = resource.kind, causes
  status.raise(422, "Invalid", ("%s%s %q is invalid: %s"):format(resource.kind,
    resource.group ~= "" and "." .. resource.group or "", name, text), of)
end

--- conflicts: a list of { manager, field, message }.
function status.apply_conflict(conflicts)
  local causes, texts = json.array({}), {}
  for i, conflict in ipairs(conflicts) do
    causes[i] = { reason = "FieldManagerConflict", message = conflict.message, field = conflict.field }
    texts[i] = conflict.message .. ": " .. conflict.field
  end
  status.raise(409, "Conflict", ("Apply failed with %d conflict%s: %s"):format(#conflicts, #conflicts == 1 and "" or "s",
    #texts == 1 and texts[1] or "[" .. table.concat(texts, ", ") .. "]"), { causes = causes })
end

return status
