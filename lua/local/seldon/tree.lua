-- Small helpers over decoded objects, in which null and absent mean the same.
local json = require "local.json"

local tree = {}

--- A table to read from: v itself, or an empty one for nil and null.
function tree.map(v)
  return type(v) == "table" and v ~= json.null and v or {}
end

--- A text that is there and not empty, or nil.
function tree.text(v)
  return type(v) == "string" and v ~= "" and v or nil
end

function tree.number(v, otherwise)
  return type(v) == "number" and v or otherwise
end

function tree.copy(v)
  if type(v) ~= "table" or v == json.null then
    return v
  end
  local out = json.is_array(v) and json.array {} or {}
  for key, value in pairs(v) do
    out[key] = tree.copy(value)
  end
  return out
end

--- Equal as JSON.
function tree.same(a, b)
  return json.encode(a, { sorted = true }) == json.encode(b, { sorted = true })
end

--- into gets what from has.
function tree.merge(into, from)
  for key, value in pairs(tree.map(from)) do
    into[key] = value
  end
  return into
end

--- "namespace/name" of an object.
function tree.key(object)
  return object.metadata.namespace .. "/" .. object.metadata.name
end

--- Is `owner` among the owners of object?
function tree.owned(object, owner)
  for _, reference in ipairs(tree.map(object.metadata.ownerReferences)) do
    if reference.uid == owner.metadata.uid then
      return true
    end
  end
  return false
end

function tree.reference(owner)
  return json.array { { apiVersion = owner.apiVersion, kind = owner.kind, name = owner.metadata.name,
    uid = owner.metadata.uid, controller = true, blockOwnerDeletion = true } }
end

return tree
