-- Which version is Staging, which Production: aliases, and stages beside them for servers and readers that know only those.
local promotion = {}

local STAGES = { staging = "Staging", production = "Production" }

--- Servers without stages say so in several ways; aliases are what counts.
local function transition(model, version, stage)
  local moved, err = try(model.transition, model, version, stage, true)
  if not moved then log.debug("stage %s not set: %s", stage, tostring(err)) end
end

--- promotion.holder(model, alias) -> the version that has the alias, or nil
function promotion.holder(model, alias)
  local holder, err = try(model.alias, model, alias)
  if holder then return holder.version end
  if err and err.code ~= "not_found" then error(err, 0) end
  local staged = try(model.latest, model, { STAGES[alias] })
  return staged and staged[1] and staged[1].version
end

--- promotion.give(model, alias, version): version "3" becomes staging or production
function promotion.give(model, alias, version)
  model:set_alias(alias, version)
  transition(model, version, STAGES[alias])
  log.info("%s version %s is %s", model.name, version, alias)
end

--- promotion.put_back(model, alias, version, before): what give changed is as it was; `before` nil: nobody had it
function promotion.put_back(model, alias, version, before)
  if promotion.holder(model, alias) ~= version or before == version then return end
  if before then
    promotion.give(model, alias, before)
  else
    model:delete_alias(alias)
    log.info("%s has no %s again", model.name, alias)
  end
  if promotion.holder(model, alias == "staging" and "production" or "staging") ~= version then
    transition(model, version, "None")
  end
end

return promotion
