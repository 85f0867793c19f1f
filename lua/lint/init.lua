--- lint: looks for mistakes in the files of a project and reports them as issues, JUnit and an error.
---
---   local found = lint.all { paths = { "pipelines" }, junit = cx.out "lint.xml" }
---
--- A finding is { file, line, column, level = "error"|"warning", rule, message }.
local fs = require "fs"
local host = require "host"

local lint = {}

--- Which linter looks at which files. Python's runs once over all of its files.
local KINDS = {
  { name = "lua", module = "lint.lua", matches = function(name) return name:match "%.lua$" end },
  { name = "yaml", module = "lint.yaml", matches = function(name) return name:match "%.ya?ml$" or name == "MLproject" end },
  { name = "dockerfile", module = "lint.dockerfile",
    matches = function(name)
      return (name:match "^Dockerfile" or name:match "%.[Dd]ockerfile$") and not name:match "%.dockerignore$"
    end },
  { name = "python", module = "lint.python", matches = function(name) return name:match "%.py$" end, whole = true },
}

local function base(path) return path:match "[^/]+$" end

--- Every file under the paths, hidden folders left out, in order of name.
local function files_under(paths)
  local out = {}
  for _, path in ipairs(paths) do
    local stat = fs.stat(path)
    if not stat then error(("lint: no such file or folder: %s"):format(path), 3) end
    if stat.kind == "folder" then
      for _, file in ipairs(fs.glob(path .. "/**")) do out[#out + 1] = file end
    else
      out[#out + 1] = path
    end
  end
  table.sort(out)
  return out
end

local function by_place(a, b)
  if a.file ~= b.file then return a.file < b.file end
  if a.line ~= b.line then return a.line < b.line end
  return (a.column or 0) < (b.column or 0)
end

local function run_kind(kind, files, findings)
  if #files == 0 then return end
  local run = require(kind.module)
  if kind.whole then
    for _, finding in ipairs(run(files)) do findings[#findings + 1] = finding end
  else
    for _, file in ipairs(files) do
      for _, finding in ipairs(run(file)) do findings[#findings + 1] = finding end
    end
  end
end

--- Runs every linter that fits the files under some paths.
---@param options { paths: string[], junit: string?, only: string[]? } # only: kinds "lua" "yaml" "dockerfile" "python"
---@return { files: integer, errors: integer, warnings: integer, findings: table[] }
--- Raises { code = "failed" } after all have run when there is an error among the findings.
function lint.all(options)
  local paths = assert(options.paths, "lint.all: paths is missing, e.g. paths = { \"pipelines\" }")
  local wanted = options.only and {} or nil
  for _, name in ipairs(options.only or {}) do wanted[name] = true end
  local files, findings, looked = files_under(paths), {}, 0
  local of_kind = {}
  for _, file in ipairs(files) do
    for _, kind in ipairs(KINDS) do
      if kind.matches(base(file)) and (not wanted or wanted[kind.name]) then
        of_kind[kind] = of_kind[kind] or {}
        table.insert(of_kind[kind], file)
        looked = looked + 1
      end
    end
  end
  for _, kind in ipairs(KINDS) do run_kind(kind, of_kind[kind] or {}, findings) end
  table.sort(findings, by_place)

  local errors, warnings = 0, 0
  for _, finding in ipairs(findings) do
    if finding.level == "error" then errors = errors + 1 else warnings = warnings + 1 end
    host.event.issue(finding)
  end
  if options.junit then
    require "lint.junit".write(options.junit, files, findings)
    host.event.report { kind = "junit", path = options.junit, title = "lint" }
  end
  log.info("%d files, %d errors, %d warnings", looked, errors, warnings)
  if errors > 0 then
    local first = findings[1]
    for _, finding in ipairs(findings) do
      if finding.level == "error" then first = finding break end
    end
    error {
      service = "lint", code = "failed",
      message = ("%d errors; the first: %s:%d: %s"):format(errors, first.file, first.line, first.message),
      hint = "each is listed above with file and line",
    }
  end
  return { files = looked, errors = errors, warnings = warnings, findings = findings }
end

return lint
