--- lint.dockerfile: Dockerfiles, read by the parser that builds them, and the habits that bite later.
---
---   local findings = require "lint.dockerfile" "components/training/Dockerfile"
---
--- Rules: parse, untagged-base, latest-base, stage-name, add-copy, relative-workdir, shell-form, repeated, maintainer,
--- root-user,
--- secret-in-image, apt-get-yes, apt-get-lists, apt, sudo, cd, pipe-to-shell, pip-cache.
local host = require "host"

local function last(list) return list[#list] end

--- Commands of a RUN line, split at && ; | and line ends, near enough for looking at their first words.
local function commands(text)
  local out = {}
  for part in (text .. ";"):gmatch "(.-)[;&|]+" do
    local words = {}
    for word in part:gmatch "%S+" do words[#words + 1] = word end
    if words[1] then out[#out + 1] = words end
  end
  return out
end

local function has(words, wanted)
  for _, word in ipairs(words) do
    if word == wanted then return true end
  end
  return false
end

local function short_flag(words, letter)
  for _, word in ipairs(words) do
    if word:match("^%-%a*" .. letter) and not word:match "^%-%-" then return true end
  end
  return false
end

--- What ADD is for: archives and URLs.
local function needs_add(source)
  return source:match "^%a+://" or source:match "^git@" or source:match "%.tar$" or source:match "%.tar%.%a+$"
    or source:match "%.t[gbx]z2?$"
end

local rules = {}

function rules.FROM(item, state, report)
  local image, name = item.words[1] or "", item.words[3]
  state.from, state.user, state.seen = image, nil, {}
  if name then
    if state.stages[name:lower()] then report("stage-name", "error", "there is a stage '" .. name .. "' already") end
  end
  local known = image == "scratch" or image:find("$", 1, true) or image:find("@", 1, true)
    or state.stages[image:lower()] or image:match "^mlhost/base$" or image:match "^mlhost%.local/mlhost/base$"
  local tag = image:match ":([^:/]+)$"
  if not known and not tag then
    report("untagged-base", "warning",
      ("%s has no tag: another image tomorrow; name a version or a digest"):format(image))
  elseif not known and tag == "latest" then
    report("latest-base", "warning", ("%s is another image tomorrow; name a version or a digest"):format(image))
  end
  if name then state.stages[name:lower()] = true end
end

function rules.ADD(item, _, report)
  for index = 1, #item.words - 1 do
    if not needs_add(item.words[index]) then
      report("add-copy", "warning",
        ("use COPY for %s: ADD unpacks archives and fetches URLs"):format(item.words[index]))
      return
    end
  end
end

function rules.COPY(item, state, report)
  local from = item.flags.from
  if from and not tonumber(from) and not state.stages[from:lower()] and not from:find "[/:$]" then
    report("stage-name", "warning", ("--from=%s names no stage above; it will be taken for an image"):format(from))
  end
  if from and state.current and from:lower() == state.current then
    report("stage-name", "error", "a stage cannot copy from itself")
  end
end

function rules.WORKDIR(item, _, report)
  local path = item.words[1] or ""
  if not path:match "^/" and not path:match "^%$" and not path:match '^"' then
    report("relative-workdir", "warning", ("%s depends on where the base left off; write the whole path"):format(path))
  end
end

local function command_form(item, state, report)
  if not item.json then
    report("shell-form", "warning",
      ('%s in the JSON form ["program", "argument"] gets signals itself and needs no shell'):format(item.keyword))
  end
  if state.seen[item.keyword] then
    report("repeated", "warning", ("only the last %s of a stage counts; the one in line %d does not")
      :format(item.keyword, state.seen[item.keyword]))
  end
  state.seen[item.keyword] = item.line
end
rules.CMD, rules.ENTRYPOINT = command_form, command_form

function rules.HEALTHCHECK(item, state, report)
  if state.seen.HEALTHCHECK then report("repeated", "warning", "only the last HEALTHCHECK of a stage counts") end
  state.seen.HEALTHCHECK = item.line
end

function rules.MAINTAINER(_, _, report)
  report("maintainer", "warning", "MAINTAINER is deprecated: LABEL org.opencontainers.image.authors=\"...\"")
end

function rules.USER(item, state)
  state.user = { name = (item.words[1] or ""):match "^[^:]*", line = item.line }
end

--- A name that says "secret" and a value that is no reference to something else.
local function secret(item, _, report)
  for name, value in item.text:gmatch "([%w_]+)=(%S+)" do
    local upper = name:upper()
    if (upper:match "PASSWORD" or upper:match "SECRET" or upper:match "TOKEN$" or upper:match "API_?KEY$")
      and not value:match "^[\"']?%$" and not value:match "^[\"']*$" then
      report("secret-in-image", "error",
        ("%s is readable by everybody who has the image; pass it when the container runs"):format(name))
    end
  end
end
rules.ENV, rules.ARG = secret, secret

local function apt_get(words, text, report)
  if (has(words, "install") or has(words, "upgrade") or has(words, "remove"))
    and not (short_flag(words, "y") or short_flag(words, "qq") or has(words, "--yes")
      or has(words, "--assume-yes")) then
    report("apt-get-yes", "error", "apt-get asks and gets no answer: add -y")
  end
  if has(words, "install") and not text:find("/var/lib/apt/lists", 1, true) then
    report("apt-get-lists", "warning", "the package lists stay in the layer: && rm -rf /var/lib/apt/lists/*")
  end
end

function rules.RUN(item, _, report)
  for _, words in ipairs(commands(item.text)) do
    local name = words[1]
    if name == "sudo" then
      report("sudo", "warning", "sudo has no place in a build: RUN is root until USER says otherwise")
      table.remove(words, 1)
      name = words[1]
    end
    if name == "apt-get" then
      apt_get(words, item.text, report)
    elseif name == "apt" and (has(words, "install") or has(words, "update")) then
      report("apt", "warning", "apt is for people, its output may change: apt-get")
    elseif name == "cd" and words[2] and words[2]:match "^/" and #commands(item.text) == 1 then
      report("cd", "warning", "cd does not last beyond its RUN: WORKDIR " .. words[2])
    elseif name and name:match "^pip3?$" and has(words, "install") and not has(words, "--no-cache-dir") then
      report("pip-cache", "warning", "pip's cache stays in the layer: --no-cache-dir")
    end
  end
  if item.text:match "curl[^|&;]*|%s*%a*sh%f[%W]" or item.text:match "wget[^|&;]*|%s*%a*sh%f[%W]" then
    report("pipe-to-shell", "warning", "what is fetched runs unchecked: download it, check its digest, then run it")
  end
end

--- Findings of one Dockerfile: { file, line, column, level, rule, message }.
---@param path string
---@return table[]
return function(path)
  local findings = {}
  local parsed = host.registry.dockerfile { path = path }
  local function put(line, rule, level, message)
    findings[#findings + 1] = { file = path, line = line, column = 1, level = level, rule = rule, message = message }
  end

  for _, problem in ipairs(parsed.problems) do
    local message = problem.message
    if problem.hint then message = message .. " (" .. problem.hint .. ")" end
    put(problem.line, "parse", "error", message)
  end
  local state = { stages = {}, seen = {} }
  for _, item in ipairs(parsed.instructions) do
    local rule = rules[item.keyword]
    if item.words and rule then
      rule(item, state, function(name, level, message) put(item.line, name, level, message) end)
    end
    if item.keyword == "FROM" and item.words then state.current = item.words[3] and item.words[3]:lower() end
  end
  if state.user and (state.user.name == "root" or state.user.name == "0") and last(parsed.instructions) then
    put(state.user.line, "root-user", "warning", "the image runs as root: end with a USER that is not")
  end
  return findings
end
