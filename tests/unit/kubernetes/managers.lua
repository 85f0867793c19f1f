-- Server-side apply and managedFields.
local fields = require "local.kubernetes.fields"
local json = require "json"
local managers = require "local.kubernetes.managers"

local function object(text)
  local value = json.decode(text)
  value.apiVersion, value.kind = "v1", "Thing"
  value.metadata = value.metadata or {}
  return value
end

--- Who owns what, as "manager/operation" -> sorted paths.
local function owners(live)
  local out = {}
  for _, entry in ipairs(live.metadata.managedFields or {}) do
    local names = {}
    for _, parts in pairs(fields.from_v1(entry.fieldsV1)) do
      names[#names + 1] = fields.name(parts)
    end
    table.sort(names)
    out[entry.manager .. "/" .. entry.operation] = table.concat(names, " ")
  end
  return out
end

local function bare(live)
  local copy = json.decode(json.encode(live))
  copy.apiVersion, copy.kind, copy.metadata.managedFields = nil, nil, nil
  if next(copy.metadata) == nil then
    copy.metadata = nil
  end
  return json.encode(copy)
end

local function same(got, wanted)
  assert(got == wanted, ("%s, wanted %s"):format(tostring(got), tostring(wanted)))
end

local function conflicts(live, text, manager)
  local ok, err = pcall(managers.apply, live, object(text), manager, false)
  assert(not ok and type(err) == "table" and err.kubernetes.code == 409, tostring(err))
  local out = {}
  for _, cause in ipairs(err.kubernetes.details.causes) do
    same(cause.reason, "FieldManagerConflict")
    out[#out + 1] = cause.field .. " " .. cause.message:match('"([^"]*)"')
  end
  return table.concat(out, ", ")
end

return {
  { "FieldsV1 both ways", function()
    local set = fields.of(object [[{"metadata":{"name":"x","labels":{"a":"1"},"finalizers":["f"]},"spec":{"replicas":1,
      "empty":{},"list":[],"args":["a"],"containers":[{"name":"c","ports":[{"containerPort":80}]}]}}]])
    local v1 = fields.to_v1(set)
    same(json.encode(v1), json.encode(json.decode [[{"f:metadata":{"f:labels":{"f:a":{}},"f:finalizers":{"v:\"f\"":{}}},
      "f:spec":{"f:replicas":{},"f:empty":{},"f:list":{},"f:args":{},"f:containers":{"k:{\"name\":\"c\"}":{".":{},
      "f:name":{},"f:ports":{"k:{\"containerPort\":80,\"protocol\":\"TCP\"}":{".":{},"f:containerPort":{}}}}}}}]]))
    same(json.encode(fields.to_v1(fields.from_v1(v1))), json.encode(v1))
  end },
  { "values that two apply are shared, others are conflicts", function()
    local live = managers.apply({}, object '{"spec":{"a":1,"b":2}}', "one")
    live = managers.apply(live, object '{"spec":{"a":1}}', "two")
    same(owners(live)["two/Apply"], ".spec.a")
    same(conflicts(live, '{"spec":{"a":3,"b":4}}', "three"), ".spec.a one, .spec.a two, .spec.b one")
    local forced = managers.apply(live, object '{"spec":{"a":3}}', "three", true)
    same(bare(forced), '{"spec":{"a":3,"b":2}}')
    same(owners(forced)["one/Apply"], ".spec.b")
    same(owners(forced)["two/Apply"], nil)
    same(bare(live), '{"spec":{"a":1,"b":2}}')
  end },
  { "what nobody applies any more goes", function()
    local live = managers.apply({}, object '{"spec":{"a":1,"b":{"c":{"d":1}},"e":[1,2]}}', "one")
    live = managers.apply(live, object '{"spec":{"a":1}}', "two")
    live = managers.apply(live, object '{"spec":{}}', "one")
    same(bare(live), '{"spec":{"a":1}}')
    live = managers.apply(live, object '{"spec":{"b":null,"a":1}}', "two")
    same(bare(live), '{"spec":{"a":1}}')
  end },
  { "items of lists by key", function()
    local live = managers.apply({}, object '{"predictors":[{"name":"main","replicas":1,"graph":{"name":"m"}}]}', "cd")
    live = managers.apply(live, object '{"predictors":[{"name":"canary","replicas":2}]}', "canary")
    same(bare(live), '{"predictors":[{"graph":{"name":"m"},"name":"main","replicas":1},{"name":"canary","replicas":2}]}')
    same(conflicts(live, '{"predictors":[{"name":"main","replicas":3}]}', "canary"),
      '.predictors[name="main"].replicas cd')
    -- one owns a field in the other's item: the item stays until both have let go
    live = managers.apply(live, object '{"predictors":[{"name":"main","weight":5}]}', "canary")
    live = managers.apply(live, object '{}', "cd")
    same(bare(live), '{"predictors":[{"name":"main","weight":5}]}')
    live = managers.apply(live, object '{}', "canary")
    same(bare(live), "{}")
  end },
  { "lists without keys are one value", function()
    local live = managers.apply({}, object '{"args":["a","b"],"metadata":{"finalizers":["x"]}}', "one")
    same(conflicts(live, '{"args":["a"]}', "two"), ".args one")
    live = managers.apply(live, object '{"metadata":{"finalizers":["y"]}}', "two")
    same(bare(live), '{"args":["a","b"],"metadata":{"finalizers":["x","y"]}}')
    live = managers.apply(live, object '{"args":["a","b"]}', "one")
    same(bare(live), '{"args":["a","b"],"metadata":{"finalizers":["y"]}}')
  end },
  { "other writes take ownership", function()
    local live = managers.apply({}, object '{"spec":{"replicas":1,"image":"a"},"metadata":{"labels":{"l":"1"}}}', "ci")
    local new = json.decode(json.encode(live))
    new.spec.replicas, new.metadata.labels = 5, nil
    managers.update(live, new, "kubectl")
    same(owners(new)["kubectl/Update"], ".spec.replicas")
    same(owners(new)["ci/Apply"], ".spec.image")
    same(conflicts(new, '{"spec":{"replicas":1,"image":"a"}}', "ci"), ".spec.replicas kubectl")
    -- a write that changes nothing owns nothing
    local again = json.decode(json.encode(new))
    managers.update(new, again, "other")
    same(json.encode(again), json.encode(new))
    -- the field's owner leaves it in place when it was written by another one
    local after = managers.apply(new, object '{"spec":{"image":"a"}}', "ci")
    same(bare(after), '{"spec":{"image":"a","replicas":5}}')
    -- and an empty list forgets all
    local cleared = json.decode(json.encode(new))
    cleared.metadata.managedFields = json.array({})
    managers.update(new, cleared, "other")
    same(cleared.metadata.managedFields, nil)
  end },
  { "a key stays with its item", function()
    local live = managers.apply({}, object '{"containers":[{"name":"c","image":"a"}]}', "ci")
    local new = json.decode(json.encode(live))
    new.containers[1].image = "b"
    managers.update(live, new, "hand")
    local after = managers.apply(new, object "{}", "ci")
    same(bare(after), '{"containers":[{"image":"b","name":"c"}]}')
  end },
  { "the time changes with the set only", function()
    local live = managers.apply({}, object '{"spec":{"a":1}}', "one")
    live.metadata.managedFields[1].time = "2000-01-01T00:00:00Z"
    local same_set = managers.apply(live, object '{"spec":{"a":2}}', "one")
    same(same_set.metadata.managedFields[1].time, "2000-01-01T00:00:00Z")
    same(managers.apply(live, object '{"spec":{"a":2,"b":1}}', "one").metadata.managedFields[1].time
      == "2000-01-01T00:00:00Z", false)
  end },
}
