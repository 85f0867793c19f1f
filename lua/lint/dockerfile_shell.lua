--- lint.dockerfile_shell: the commands of RUN instructions, and the habits in them.
---
---   require "lint.dockerfile_shell".run(item, stage, report)
---
--- item is an instruction of registry.dockerfile, stage what the linter knows of the stage, report takes a rule's id and text.
local shell = {}

--- What stands before the command proper.
local LEADING = {
  ["if"] = true, ["then"] = true, ["else"] = true, ["elif"] = true, ["do"] = true, ["while"] = true, ["until"] = true,
  ["!"] = true, ["{"] = true, ["("] = true, ["time"] = true, ["exec"] = true, ["command"] = true, ["env"] = true,
}
local POINTLESS = {
  ssh = true, vim = true, vi = true, nano = true, shutdown = true, service = true, ps = true, free = true, top = true,
  kill = true, mount = true, ifconfig = true, systemctl = true,
}

--- One word and where it ends; quotes are taken off.
local function word_at(text, at)
  local out = {}
  while at <= #text do
    local c = text:sub(at, at)
    if c:match "[%s;&|()]" then break end
    if c == "'" or c == '"' then
      local stop = at + 1
      while stop <= #text and text:sub(stop, stop) ~= c do
        if c == '"' and text:sub(stop, stop) == "\\" then stop = stop + 1 end
        stop = stop + 1
      end
      out[#out + 1] = text:sub(at + 1, stop - 1)
      at = stop + 1
    elseif c == "$" and text:sub(at + 1, at + 1) == "(" then
      local inner = text:match("^%$%b()", at) or text:sub(at)
      out[#out + 1] = inner
      at = at + #inner
    elseif c == "\\" then
      out[#out + 1] = text:sub(at + 1, at + 1)
      at = at + 2
    else
      out[#out + 1] = c
      at = at + 1
    end
  end
  return table.concat(out), at
end

--- The simple commands of a script: { words, after = "&&" ";" "|" ... }, near enough for looking at programs and options.
---@param text string
---@return table[]
function shell.commands(text)
  local out, words, at = {}, {}, 1
  local function close(operator)
    while words[1] and (LEADING[words[1]] or words[1]:match "^[%a_][%w_]*=") do table.remove(words, 1) end
    if words[1] then out[#out + 1] = { words = words, after = operator } end
    words = {}
  end
  while at <= #text do
    local operator = text:match("^[;&|]+", at)
    if text:match("^[<>]&", at) or text:match("^&>", at) then -- 2>&1
      at = at + 2
    elseif operator then
      close(operator)
      at = at + #operator
    elseif text:match("^\n", at) then
      close ";"
      at = at + 1
    elseif text:match("^[%s()]", at) then
      at = at + 1
    elseif text:match("^#", at) and (at == 1 or text:sub(at - 1, at - 1):match "%s") then
      at = (text:find("\n", at, true) or #text + 1)
    else
      local word, next_at = word_at(text, at)
      words[#words + 1] = word
      at = next_at
    end
  end
  close ""
  return out
end

local function has(words, ...)
  for _, word in ipairs(words) do
    for _, wanted in ipairs { ... } do
      if word == wanted then return true end
    end
  end
  return false
end

local function short_flag(words, letter)
  for _, word in ipairs(words) do
    if word:match("^%-%a*" .. letter) and not word:match "^%-%-" then return true end
  end
  return false
end

--- Is a folder of a cache mounted, so that what is left there is no part of the layer? "cache/pip": wherever that lies.
local function mounted(item, folder)
  for _, mount in ipairs(item.flags.mount or {}) do
    local target = (mount .. ","):match "target=([^,]+)" or (mount .. ","):match "dst=([^,]+)"
      or (mount .. ","):match "destination=([^,]+)"
    if mount:match "type=cache" and target and (folder:find(target, 1, true) == 1 or target:find(folder, 1, true)) then
      return true
    end
  end
  return false
end

local checks = {}

checks["apt-get"] = function(words, seen, item, report)
  if has(words, "install", "upgrade", "dist-upgrade", "remove", "purge", "autoremove")
    and not (short_flag(words, "y") or short_flag(words, "qq") or has(words, "--yes", "--assume-yes", "--quiet=2")) then
    report("apt-get-yes", "apt-get asks and gets no answer: add -y")
  end
  if has(words, "dist-upgrade") then
    report("apt-get-upgrade", "dist-upgrade is for machines: take a newer base image")
  end
  if has(words, "update") then seen.update = true end
  if not has(words, "install") then return end
  seen.install = true
  if not has(words, "--no-install-recommends") and not table.concat(words, " "):find("APT::Install-Recommends", 1, true) then
    report("apt-get-recommends", "more than what is asked for is installed: --no-install-recommends")
  end
  if not item.script:find("/var/lib/apt/lists", 1, true) and not mounted(item, "/var/lib/apt") then
    report("apt-get-lists", "the package lists stay in the layer: && rm -rf /var/lib/apt/lists/*")
  end
end

function checks.apt(words, _, _, report)
  if has(words, "install", "update", "upgrade", "remove") then
    report("apt", "apt is for people, its output may change: apt-get")
  end
end

function checks.apk(words, _, item, report)
  if has(words, "add") and not has(words, "--no-cache") and not item.script:find("/var/cache/apk", 1, true)
    and not mounted(item, "/var/cache/apk") then
    report("apk-cache", "apk's index stays in the layer: --no-cache")
  end
end

local function yum(words, _, item, report)
  if not has(words, "install", "localinstall", "groupinstall", "update", "upgrade") then return end
  if not (short_flag(words, "y") or has(words, "--assumeyes")) then
    report("yum-yes", words[1] .. " asks and gets no answer: add -y")
  end
  if not item.script:match "clean%s+all" and not item.script:find("/var/cache/" .. words[1], 1, true)
    and not mounted(item, "/var/cache") then
    report("yum-clean", ("%s's cache stays in the layer: && %s clean all"):format(words[1], words[1]))
  end
end
checks.yum, checks.dnf, checks.microdnf = yum, yum, yum

local function pip(words, _, item, report)
  if has(words, "install") and not has(words, "--no-cache-dir") and not item.script:find("PIP_NO_CACHE_DIR", 1, true)
    and not item.pip_no_cache and not mounted(item, "cache/pip") then
    report("pip-cache", "pip's cache stays in the layer: --no-cache-dir")
  end
end
checks.pip, checks.pip3 = pip, pip
checks["pip3.11"], checks["pip3.12"] = pip, pip

local function python(words, seen, item, report)
  for index, word in ipairs(words) do
    if word == "-m" and words[index + 1] == "pip" then pip({ table.unpack(words, index + 1) }, seen, item, report) end
  end
end
checks.python, checks.python3 = python, python

--- The script of a RUN: its text, and that of its heredocs.
local function script_of(item)
  local parts = { item.json and table.concat(item.words, " ") or item.text }
  for _, heredoc in ipairs(item.heredocs or {}) do parts[#parts + 1] = heredoc.text end
  return table.concat(parts, "\n")
end

local function fetches(words)
  local name = words[1]
  if name == "curl" or name == "wget" then return name end
end

local function is_shell(words)
  return words[1] and words[1]:match "^%a*sh$" ~= nil and words[1] ~= "ssh"
end

function shell.run(item, stage, report)
  item.script = script_of(item)
  item.pip_no_cache = stage.set.PIP_NO_CACHE_DIR
  local commands, seen = shell.commands(item.script), {}
  local safe = stage.pipefail or item.script:find("pipefail", 1, true) or item.json
  local told = {}
  local function once(rule, text)
    if not told[rule] then report(rule, text) end
    told[rule] = true
  end
  for index, command in ipairs(commands) do
    local words = command.words
    if words[1] == "sudo" then
      once("sudo", "sudo has no place in a build: RUN is root until USER says otherwise")
      table.remove(words, 1)
    end
    local name = words[1] or ""
    if checks[name] then checks[name](words, seen, item, once) end
    if POINTLESS[name] then once("pointless-command", name .. " makes no sense in a build") end
    if name == "cd" and (words[2] or ""):match "^/" and #commands <= 2 then
      once("cd", ("cd does not last beyond its RUN: WORKDIR %s"):format(words[2]))
    end
    local fetch, following = fetches(words), commands[index + 1]
    if fetch then
      stage.fetch = stage.fetch or fetch
      if stage.fetch ~= fetch then
        once("wget-and-curl", ("both %s and %s: one of them will do"):format(stage.fetch, fetch))
      end
    end
    if command.after == "|" and following then
      if fetch and is_shell(following.words) then
        once("pipe-to-shell", "what is fetched runs unchecked: download it, check its digest, then run it")
      end
      if not safe then
        once("pipefail", ("when %s fails, nobody sees it: SHELL [\"/bin/bash\", \"-o\", \"pipefail\", \"-c\"] before"):format(name))
      end
    end
  end
  if seen.update and not seen.install then
    once("apt-get-update", "update and install belong into one RUN: the lists of a cached layer grow old")
  end
end

return shell
