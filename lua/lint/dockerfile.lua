--- lint.dockerfile: Dockerfiles, read by the parser that builds them, and the habits that bite later.
---
---   local findings = require "lint.dockerfile" "components/training/Dockerfile"
---
--- The rules are in lint.dockerfile_rules and docs/dockerfile.md. Comments leave some out, by our names, those of Docker's
--- build checks or those of hadolint: "# check=skip=JSONArgsRecommended" at the top of the file, "# hadolint ignore=DL3006"
--- above an instruction, "# hadolint global ignore=DL3006" anywhere.
local host = require "host"
local known_rules = require "lint.dockerfile_rules"
local shell = require "lint.dockerfile_shell"

--- What every build sets once an ARG asks for it.
local PREDEFINED = {
  TARGETPLATFORM = true, TARGETOS = true, TARGETARCH = true, TARGETVARIANT = true, TARGETSTAGE = true,
  BUILDPLATFORM = true, BUILDOS = true, BUILDARCH = true, BUILDVARIANT = true,
}

--- Changes of one letter that make one word of the other; up to two count as near.
local function distance(a, b)
  local row = {}
  for j = 0, #b do row[j] = j end
  for i = 1, #a do
    local before = row[0]
    row[0] = i
    for j = 1, #b do
      local cost = before + (a:byte(i) == b:byte(j) and 0 or 1)
      before = row[j]
      row[j] = math.min(cost, row[j] + 1, row[j - 1] + 1)
    end
  end
  return row[#b]
end

local function near(name, set)
  local best, least
  for other in pairs(set) do
    local steps = other:upper() == name:upper() and 0 or distance(name, other)
    if (steps == 0 or (steps <= 2 and #name >= 4 and steps < #name / 3)) and (not least or steps < least
      or (steps == least and other < best)) then
      best, least = other, steps
    end
  end
  return best
end

--- The variables of a text: { name, otherwise = has it a value for when it is not set }.
local function variables(text, escape)
  local out, at, quoted = {}, 1, false
  while at <= #text do
    local c = text:sub(at, at)
    if c == escape then
      at = at + 1
    elseif c == '"' then
      quoted = not quoted
    elseif c == "'" and not quoted then
      at = text:find("'", at + 1, true) or #text
    elseif c == "$" then
      local name = text:match("^%$([%a_][%w_]*)", at)
      if name then
        out[#out + 1] = { name = name }
      else
        local rest
        name, rest = text:match("^%${([%a_][%w_]*)(.?.?)", at)
        if name then out[#out + 1] = { name = name, otherwise = rest:match "^:?[-+?]" ~= nil } end
      end
    end
    at = at + 1
  end
  return out
end

--- Splits at spaces outside of quotes.
local function split(text)
  local out, word, quote = {}, "", nil
  for c in text:gmatch "." do
    if quote then
      if c == quote then quote = nil end
      word = word .. c
    elseif c:match "%s" then
      if word ~= "" then out[#out + 1] = word end
      word = ""
    else
      if c == "'" or c == '"' then quote = c end
      word = word .. c
    end
  end
  if word ~= "" then out[#out + 1] = word end
  return out
end

--- name -> value (text) of ENV, ARG and LABEL; true where there is none. And: is it the old form?
local function pairs_of(item)
  local words, out = split(item.text), {}
  if words[1] and not words[1]:find("=", 1, true) and item.keyword ~= "ARG" then
    return { { name = words[1], value = (item.text:match "^%S+%s+(.*)$") or "" } }, true
  end
  for _, word in ipairs(words) do
    local name, value = word:match "^([^=]*)=(.*)$"
    out[#out + 1] = { name = name or word, value = value }
  end
  return out, false
end

--- What ADD is for: archives and URLs.
local function needs_add(source)
  return source:match "^%a+://" or source:match "^git@" or source:match "%.tar$" or source:match "%.tar%.%a+%d?$"
    or source:match "%.t[gbx]z2?$" or source:match "^<<" or source:match "%$"
end

local rules = {}

-- ---- stages ----

local function check_from_variables(item, state, report)
  local image = item.words[1] or ""
  local text = image .. " " .. (item.flags.platform or "")
  local whole = image:match "^%$[%w_]+$" or image:match "^%${[%w_]+}$" -- an argument that has to be given
  for _, use in ipairs(variables(text, state.escape)) do
    local global = state.globals[use.name]
    if global == nil and not PREDEFINED[use.name] then
      local close = near(use.name, state.globals)
      report("undefined-arg-in-from", ("no ARG above the first FROM declares %s%s"):format(use.name,
        close and ("; did you mean " .. close .. "?") or ""))
    elseif global == false and not use.otherwise and not whole then
      report("no-default-in-from", ("ARG %s has no default: without the argument this names no image"):format(use.name))
    end
  end
end

local function check_platform(item, report)
  local platform = item.flags.platform
  if not platform then return end
  if platform == "$TARGETPLATFORM" or platform == "${TARGETPLATFORM}" then
    report("platform-redundant", "--platform=$TARGETPLATFORM is what a build does anyway")
  elseif not platform:find("$", 1, true) then
    report("platform-constant", ("--platform=%s builds for one platform wherever it runs"):format(platform))
  end
end

local function check_base(image, state, report)
  if image == "scratch" or image:find("$", 1, true) or image:find("@", 1, true) or state.stages[image:lower()]
    or image:match "^mlhost/base$" or image:match "^mlhost%.local/mlhost/base$" then
    return
  end
  local tag = image:match ":([^:/]+)$"
  if not tag then
    report("untagged-base", ("%s has no tag: another image tomorrow; name a version or a digest"):format(image))
  elseif tag == "latest" then
    report("latest-base", ("%s is another image tomorrow; name a version or a digest"):format(image))
  end
end

function rules.FROM(item, state, report)
  local image, as, name = item.words[1] or "", item.words[2], item.words[3]
  local base = state.stages[image:lower()]
  if name then
    local lower = name:lower()
    if state.stages[lower] then report("stage-name", "there is a stage '" .. name .. "' already") end
    if lower == "scratch" or lower == "context" then
      report("stage-reserved", ("a stage cannot be called %s: that means something else"):format(lower))
    end
    if name ~= lower then report("stage-casing", ("names of stages are written small: %s"):format(lower)) end
    local from_lower, as_lower = item.written == item.written:lower(), as == as:lower()
    if from_lower ~= as_lower then
      report("from-as-casing", ("'%s' and '%s': both in capitals, or both not"):format(item.written, as))
    end
  end
  check_platform(item, report)
  check_from_variables(item, state, report)
  check_base(image, state, report)
  local stage = {
    name = name and name:lower(), line = item.line, number = #state.list, set = {}, seen = {}, needs = {},
    -- Are all variables known that the base sets?
    whole = image == "scratch" or (base ~= nil and base.whole), workdir = base and base.workdir, pipefail = base and base.pipefail,
    shell = base and base.shell, user = base and base.user, fetch = base and base.fetch,
  }
  if base then
    for variable in pairs(base.set) do stage.set[variable] = true end
    stage.needs[#stage.needs + 1] = base
  elseif image == "scratch" then
    stage.set.PATH = true
  end
  state.list[#state.list + 1] = stage
  if stage.name then state.stages[stage.name] = stage end
  state.stage = stage
end

local function reach(stage)
  if stage.reached then return end
  stage.reached = true
  for _, needed in ipairs(stage.needs) do reach(needed) end
end

-- ---- files ----

local function check_destination(item, state, report)
  local to = item.words[#item.words] or ""
  if not state.stage.workdir and not to:match "^[/$\"']" then
    report("relative-destination", ("%s depends on where the base left off: WORKDIR before, or the whole path"):format(to))
  end
end

local function find_stage(state, name)
  return state.stages[name:lower()] or (tonumber(name) and state.list[tonumber(name) + 1])
end

local function check_from_flag(from, state, report)
  local found = find_stage(state, from)
  if found == state.stage then
    report("copy-from-itself", "a stage cannot copy from itself")
  elseif found then
    state.stage.needs[#state.stage.needs + 1] = found
  elseif tonumber(from) or not from:find "[/:$@]" then
    local close = near(from, state.stages)
    report("unknown-stage", ("--from=%s names no stage above; %s"):format(from,
      close and ("did you mean " .. close .. "?") or "it will be taken for an image"))
  end
end

function rules.ADD(item, state, report)
  check_destination(item, state, report)
  for index = 1, #item.words - 1 do
    local source = item.words[index]
    if not needs_add(source) then
      report("add-copy", ("use COPY for %s: ADD unpacks archives and fetches URLs"):format(source))
      return
    end
    if source:match "^https?://" and not source:match "%.git%f[%W]" and not item.flags.checksum then
      report("add-checksum", ("nobody checks what %s is: --checksum=sha256:..."):format(source))
    end
  end
end

function rules.COPY(item, state, report)
  check_destination(item, state, report)
  if item.flags.from then check_from_flag(item.flags.from, state, report) end
end

function rules.WORKDIR(item, state, report)
  local path = item.words[1] or ""
  if not state.stage.workdir and not path:match "^[/$\"']" then
    report("relative-workdir", ("%s depends on where the base left off; write the whole path"):format(path))
  end
  state.stage.workdir = true
end

-- ---- the config ----

local function once_in_stage(item, state, report)
  local before = state.stage.seen[item.keyword]
  if before then
    report("repeated", ("only the last %s of a stage counts; the one in line %d does not"):format(item.keyword, before))
  end
  state.stage.seen[item.keyword] = item.line
end

local function command_form(item, state, report)
  if not item.json and not state.stage.shell then
    report("shell-form",
      ('%s in the JSON form ["program", "argument"] gets signals itself and needs no shell'):format(item.keyword))
  end
  once_in_stage(item, state, report)
end
rules.CMD, rules.ENTRYPOINT, rules.HEALTHCHECK = command_form, command_form, once_in_stage

function rules.SHELL(item, state)
  state.stage.shell = true
  state.stage.pipefail = table.concat(item.words, " "):find("pipefail", 1, true) ~= nil
end

function rules.MAINTAINER(_, _, report)
  report("maintainer", "MAINTAINER is deprecated: LABEL org.opencontainers.image.authors=\"...\"")
end

function rules.USER(item, state)
  state.stage.user = { name = (item.words[1] or ""):match "^[^:]*", line = item.line }
end

function rules.EXPOSE(item, _, report)
  for _, word in ipairs(item.words) do
    local from, to, protocol = word:match "^(%d+)%-?(%d*)/?(%a*)$"
    local low, high = tonumber(from), tonumber(to ~= "" and to or from)
    if word:find("$", 1, true) then
      goto next
    elseif not from or low < 1 or high > 65535 or low > high
      or not ({ [""] = true, tcp = true, udp = true, sctp = true })[protocol:lower()] then
      report("expose-port", ("%s is no port: 1 to 65535, a range of them, and perhaps /tcp, /udp or /sctp"):format(word))
    elseif protocol ~= protocol:lower() then
      report("expose-casing", ("%s: protocols are written small"):format(word))
    end
    ::next::
  end
end

-- ---- variables ----

--- A name that says "secret", and none that says where it is.
local function says_secret(name)
  local upper = "_" .. name:upper() .. "_"
  if upper:match "_PUBLIC_" or upper:match "_FILE_$" or upper:match "_PATH_$" or upper:match "_DIR_$" or upper:match "_URL_$"
    or upper:match "_NAME_$" then
    return false
  end
  return upper:match "PASSWORD" or upper:match "_PASSWD_" or upper:match "SECRET" or upper:match "TOKEN_$"
    or upper:match "API_?KEY_$" or upper:match "_PRIVATE_KEY_" or upper:match "_ACCESS_KEY_" or upper:match "_CREDENTIALS?_"
end

local function assign(item, state, report)
  local list, old_form = pairs_of(item)
  local set = state.stage and state.stage.set
  if old_form then
    report("legacy-key-value", ("%s %s=... : the form without = takes the rest of the line"):format(item.keyword, list[1].name))
  end
  if item.keyword == "LABEL" then return end
  for _, pair in ipairs(list) do
    local value = pair.value or ""
    if says_secret(pair.name) then
      if value ~= "" and not value:match "^[\"']?%$" and not value:match "^[\"']*$" then
        report("secret-in-image",
          ("%s is readable by everybody who has the image; pass it when the container runs"):format(pair.name))
      elseif item.keyword == "ARG" then
        report("secret-as-argument", ("the image's history keeps %s: RUN --mount=type=secret"):format(pair.name))
      end
    end
  end
  if not set then -- before the first FROM
    for _, pair in ipairs(list) do state.globals[pair.name] = pair.value ~= nil end
    return
  end
  local fresh = {}
  for _, pair in ipairs(list) do
    for _, use in ipairs(item.keyword == "ENV" and variables(pair.value or "", state.escape) or {}) do
      if fresh[use.name] and not set[use.name] then
        report("same-env", ("%s is set in this very ENV, and not known in it yet: two ENVs"):format(use.name))
      end
    end
    fresh[pair.name] = true
  end
  for _, pair in ipairs(list) do set[pair.name] = true end
end
rules.ENV, rules.ARG, rules.LABEL = assign, assign, assign

local EXPANDED = {
  ADD = true, COPY = true, ENV = true, EXPOSE = true, LABEL = true, STOPSIGNAL = true, USER = true, VOLUME = true,
  WORKDIR = true, ARG = true,
}

--- Only what is sure: which variables a base image sets cannot be seen here.
local function check_variables(item, state, report)
  local stage = state.stage
  if not EXPANDED[item.keyword] or not stage then return end
  local own = {}
  for _, pair in ipairs((item.keyword == "ENV" or item.keyword == "ARG") and pairs_of(item) or {}) do own[pair.name] = true end
  for _, use in ipairs(variables(item.text .. " " .. (item.flags.chown or ""), state.escape)) do
    local name = use.name
    if stage.set[name] or use.otherwise or own[name] then
      goto next
    elseif state.globals[name] ~= nil then
      report("undefined-variable", ("ARG %s stands above FROM: it needs an ARG %s in this stage"):format(name, name))
    elseif PREDEFINED[name] then
      report("undefined-variable", ("%s needs an ARG %s in this stage"):format(name, name))
    else
      local close = near(name, stage.set)
      if close or stage.whole then
        report("undefined-variable", ("neither ARG nor ENV sets %s%s"):format(name,
          close and ("; did you mean " .. close .. "?") or ""))
      end
    end
    ::next::
  end
end

function rules.RUN(item, state, report) shell.run(item, state.stage, report) end

function rules.ONBUILD(item, state, report)
  if item.trigger and item.trigger.keyword == "RUN" then shell.run(item.trigger, state.stage, report) end
end

-- ---- which rules count ----

local by_name = {}
for id, rule in pairs(known_rules) do
  local function name(text)
    by_name[text:lower()] = by_name[text:lower()] or {}
    table.insert(by_name[text:lower()], id)
  end
  name(id)
  if rule.check then name(rule.check) end
  for _, number in ipairs(rule.hadolint) do name(number) end
end

local function leave_out(set, list)
  for word in list:gmatch "[^,%s]+" do
    if word:lower() == "all" then
      for id in pairs(known_rules) do set[id] = id ~= "parse" end
    end
    for _, id in ipairs(by_name[word:lower()] or {}) do set[id] = true end
  end
end

--- What comments leave out: everywhere, and for the instruction that begins in a line.
local function ignored(parsed)
  local everywhere, by_line, comments = {}, {}, {}
  leave_out(everywhere, table.concat(parsed.check and parsed.check.skip or {}, ","))
  for _, comment in ipairs(parsed.comments) do
    local list = comment.text:match "^hadolint%s+global%s+ignore%s*=%s*(.*)$"
    if list then leave_out(everywhere, list) end
    comments[comment.line] = comment.text:match "^hadolint%s+ignore%s*=%s*(.*)$" or ""
  end
  for _, item in ipairs(parsed.instructions) do
    local line, set = item.line - 1, {}
    while comments[line] do
      leave_out(set, comments[line])
      line = line - 1
    end
    by_line[item.line] = set
  end
  return everywhere, by_line
end

local function check_casing(parsed, put)
  local upper, lower = 0, 0
  for _, item in ipairs(parsed.instructions) do
    if item.written == item.written:upper() then upper = upper + 1 end
    if item.written == item.written:lower() then lower = lower + 1 end
  end
  for _, item in ipairs(parsed.instructions) do
    local wanted = lower > upper and item.written:lower() or item.written:upper()
    if item.written ~= wanted then
      put(item.line, "keyword-casing", ("%s is %s where the others are %s"):format(item.written,
        item.written == item.written:lower() and "small" or item.written == item.written:upper() and "in capitals" or "mixed",
        lower > upper and "small" or "in capitals"))
    end
  end
end

local function check_stages(state, put)
  local final = state.list[#state.list]
  if not final then return end
  reach(final)
  for _, stage in ipairs(state.list) do
    if not stage.reached then
      put(stage.line, "unreachable-stage", ("nothing needs stage %s: only target = \"%s\" builds it"):format(
        stage.name or stage.number, stage.name or stage.number))
    end
  end
  local user = final.user
  if user and (user.name == "root" or user.name == "0") then
    put(user.line, "root-user", "the image runs as root: end with a USER that is not")
  end
end

--- RUN --mount=...,from=stage needs it, too.
local function note_mounts(item, state)
  for _, mount in ipairs(item.flags.mount or {}) do
    local found = find_stage(state, (mount .. ","):match "from=([^,]+)" or "")
    if found then state.stage.needs[#state.stage.needs + 1] = found end
  end
end

--- Findings of one Dockerfile: { file, line, column, level, rule, message }, in order of lines.
---@param path string
---@return table[]
return function(path)
  local findings, seen = {}, {}
  local parsed = host.registry.dockerfile { path = path }
  local everywhere, by_line = ignored(parsed)
  local strict = parsed.check and parsed.check.error
  local function put(line, rule, message, column)
    local known = assert(known_rules[rule], rule)
    local key = ("%d %s %s"):format(line, rule, message)
    if everywhere[rule] or (by_line[line] and by_line[line][rule]) or seen[key] then return end
    seen[key] = true
    findings[#findings + 1] = {
      file = path, line = line, column = column or 1, rule = rule, message = message,
      level = strict and known.check and "error" or known.level,
    }
  end

  local broken = {}
  for _, problem in ipairs(parsed.problems) do
    broken[problem.line] = true
    local message = problem.message
    if problem.hint then message = message .. " (" .. problem.hint .. ")" end
    put(problem.line, "parse", message, problem.column)
  end
  local state = { stages = {}, list = {}, globals = {}, escape = parsed.escape }
  for _, item in ipairs(parsed.instructions) do
    local rule, bad = rules[item.keyword], false
    for line = item.line, item.end_line do bad = bad or broken[line] end
    local function report(name, message) put(item.line, name, message) end
    if item.words and (not bad or item.keyword == "FROM")
      and (state.stage or item.keyword == "FROM" or item.keyword == "ARG") then
      if item.empty_line then
        put(item.line, "empty-continuation", ("the empty line %d within it will be an error one day"):format(item.empty_line))
      end
      check_variables(item, state, report)
      if rule then rule(item, state, report) end
      if item.keyword == "RUN" then note_mounts(item, state) end
    end
  end
  check_casing(parsed, put)
  check_stages(state, put)
  table.sort(findings, function(a, b)
    if a.line ~= b.line then return a.line < b.line end
    if a.rule ~= b.rule then return a.rule < b.rule end
    return a.message < b.message
  end)
  return findings
end
