-- Writes docs/api.md from the doc comments under lua/ and the program's own rows, and lua/types/host.lua.
--
--   lua5.4 tools/apidoc.lua PROGRAM           writes both
--   lua5.4 tools/apidoc.lua PROGRAM --check   writes nothing; ends with 1 when one is stale, or a public function has no
--                                             doc comment
--
-- A doc comment is a block of --- lines. It documents a function when its first line is a call ("read(path, limit) ->
-- text. ...", "run:wait{ timeout? } -> run"), or when a public function follows it. Lines indented by more than one blank
-- stay as they are. @private in a block keeps it out.
local program, option = arg[1], arg[2]
if not program or (option and option ~= "--check") then
  io.stderr:write "usage: lua5.4 tools/apidoc.lua PROGRAM [--check]\n"
  os.exit(2)
end

local KF = "kubeflow/"
local SECTIONS = {
  { name = "globals", title = "What every script has", files = { "boot.lua" } },
  { name = "fs", files = { "fs.lua" } }, { name = "exec", files = { "exec.lua" } },
  { name = "env", files = { "env.lua" } }, { name = "secret", files = { "secret.lua" } },
  { name = "http", files = { "http.lua" } }, { name = "json", files = { "json.lua" } },
  { name = "yaml", files = { "yaml.lua" } }, { name = "hash", files = { "hash.lua" } },
  { name = "time", files = { "time.lua" } },
  { name = "approval", files = { "approval.lua" } }, { name = "runs", files = { "runs.lua" } },
  { name = "registry", files = { "registry/init.lua", "registry/remote.lua" } },
  { name = "kubeflow", closed = true, files = {
    KF .. "init.lua", KF .. "component.lua", KF .. "loader.lua", KF .. "importer.lua", KF .. "types.lua",
    KF .. "placeholder.lua", KF .. "dsl.lua", KF .. "task.lua", KF .. "platform.lua", KF .. "volume.lua", KF .. "package.lua",
    KF .. "client.lua",
  } },
  { name = "mlflow", files = { "mlflow/init.lua", "mlflow/registry.lua" } }, { name = "azdo", files = {
    "azdo/init.lua", "azdo/connection.lua", "azdo/builds.lua", "azdo/pulls.lua", "azdo/tests.lua", "azdo/task.lua",
  } },
  { name = "azureml", files = { "azureml/init.lua" } }, { name = "databricks", files = { "databricks/init.lua" } },
  { name = "k8s", files = { "k8s/init.lua" } },
  { name = "seldon", files = {
    "seldon/init.lua", "seldon/deployment.lua", "seldon/predict.lua", "seldon/load.lua", "seldon/core2.lua",
  } },
  { name = "lint", files = { "lint/init.lua" } },
  { name = "component", title = "A component's file", closed = true, files = { "component/init.lua" } },
  { name = "model", title = "A model's file", closed = true, files = { "model/init.lua" } },
  { name = "test", files = { "test.lua" } },
}

local function read(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read "a"
  file:close()
  return text
end

local function output_of(arguments)
  local pipe = assert(io.popen(("'%s' %s"):format(program:gsub("'", "'\\''"), arguments), "r"))
  local text = pipe:read "a"
  assert(pipe:close(), program .. " " .. arguments .. " failed")
  return text
end

--- Names that `require "kubeflow"` offers: the tables at the top of its init.lua.
local function kubeflow_names()
  local text, names = read "lua/kubeflow/init.lua", { connect = true }
  for part in text:gmatch "local from = (%b{})" do
    for name in part:gmatch '"([%w_]+)"' do names[name] = true end
  end
  for name in text:match("local special = (%b{})"):gmatch "([%w_]+) = function" do names[name] = true end
  for name in text:gmatch '([%w_]+) = "[=!<>]=?"' do names[name] = true end
  return names
end

-- ---- reading ----

--- Blocks of comment lines with the line of code that follows: { lines, code, at }. `first` also takes plain -- lines.
local function blocks(text)
  local list, current, at, first = {}, nil, 0, true
  for line in (text .. "\n"):gmatch "(.-)\n" do
    at = at + 1
    local comment = line:match "^%s*%-%-%-(.*)$" or (first and line:match "^%-%-(.*)$")
    if comment then
      current = current or { lines = {}, at = at, leading = first }
      current.lines[#current.lines + 1] = comment:gsub("^ ", "", 1)
    else
      list[#list + 1] = {
        lines = current and current.lines or {}, code = line, at = at, leading = current and current.leading,
      }
      current = nil
      first = false
    end
  end
  return list
end

--- The call at the start of a text, and the rest: 'read(path) -> text' gives 'read(path)' and ' -> text'.
local function call(text)
  local name, at = text:match "^([%a_][%w_.:]*)()"
  if not name then return nil end
  local rest, all = text:sub(at), name
  for _, pattern in ipairs { '^( ?"[^"]*")()', "^( ?%b{})()", "^( ?%b())()" } do
    local part, after = rest:match(pattern)
    if part then
      all, rest = all .. part, rest:sub(after)
      if pattern:find '"' then
        while rest:find '^ | "' do
          part, after = rest:match '^( | "[^"]*")()'
          all, rest = all .. part, rest:sub(after)
        end
        part, after = rest:match "^( ?%b{})()"
        if part then all, rest = all .. part, rest:sub(after) end
      end
      return all, rest, name
    end
  end
end

--- Several calls in one line: "run:set_tags{ ... }; run:set_tag(name, value)", "a(x), b(y): text".
local function calls(text)
  local all, rest, name = call(text)
  if not all then return nil end
  while true do
    local separator, after = rest:match "^([;,] )()"
    local more, left
    if separator then more, left = call(rest:sub(after)) end
    if not more then return all, rest, name end
    all, rest = all .. separator .. more, left
  end
end

--- The call that a line of code defines, when it is a public one: a module's or a class's function.
local function defined(code, section)
  local owner, separator, name, parameters = code:match "^function ([%w_]+)([.:])([%w_]+)(%b())"
  if owner and (owner == section.name or owner:match "^%u") and not name:match "^__" then
    return owner:lower() .. separator .. name .. parameters
  end
  if section.name == "globals" then return code:match "^function ([%w_]+%b())" end
  name = code:match "^  (%l[%w_]*) = function" -- in the table that a small module returns
  if name then return name .. code:match "function(%b())" end
end

local problems = {}

local function public(name, section, names)
  if name:find "[.:]" then
    local owner = name:match "^[^.:]+"
    return owner == section.name or name:find ":" or section.name == "globals"
  end
  return not section.closed or names[name]
end

--- { intro, entries = { { call, lines } } } of a section
local function collect(section)
  local entries, intros, bare = {}, {}, {}
  local names = section.name == "kubeflow" and kubeflow_names() or { component = true }
  for _, file in ipairs(section.files) do
    for _, block in ipairs(blocks(read("lua/" .. file))) do
      if (block.lines[1] or ""):match "^[%w_.:]+ ?{" and not call(block.lines[1]) and block.lines[2] then
        block.lines[2] = block.lines[1] .. " " .. block.lines[2] -- a call of two lines
        table.remove(block.lines, 1)
      end
      local head, rest, name = calls(block.lines[1] or "")
      local text = table.concat(block.lines, "\n")
      local code = defined(block.code, section)
      if text:find("@private", 1, true) then
        head = nil
      elseif block.leading and not text:match "^%l[%w_]*%(" then
        if section.name ~= "globals" and (file == section.files[1] or file:find "client") then
          intros[#intros + 1] = block.lines
        end
        head = nil
      elseif head then
        if not public(name, section, names) then head = nil end
      elseif code and #block.lines > 0 and not section.closed then
        head, rest = code, nil
      elseif code and not section.closed then
        bare[#bare + 1] = { code = code, text = ("lua/%s:%d: %s has no doc comment"):format(file, block.at, code) }
      end
      if head then
        if not head:find "^[%w_]+[.:]" and section.name ~= "globals" and section.name ~= "component" and
            not head:match("^" .. section.name .. "[ %({]") then
          head = section.name .. "." .. head
        end
        local lines = table.move(block.lines, rest and 2 or 1, #block.lines, 1, {})
        if rest and rest:find "%S" then table.insert(lines, 1, rest) end
        entries[#entries + 1] = { call = head, lines = lines }
      end
    end
  end
  -- What a module hands on may be described twice: the fuller text stays.
  local by_name = {}
  for i = #entries, 1, -1 do
    local name = entries[i].call:match "^[%w_.:]+"
    if by_name[name] and section.closed then table.remove(entries, i) end
    by_name[name] = true
  end
  if section.name == "kubeflow" then
    local all = {}
    for _, lines in ipairs(intros) do all[#all + 1] = table.concat(lines, " ") end
    for _, entry in ipairs(entries) do all[#all + 1] = entry.call .. " " .. table.concat(entry.lines, " ") end
    local text = " " .. table.concat(all, " ") .. " "
    for name in pairs(names) do
      if not text:find("[^%w_]" .. name .. "[^%w_]") then
        problems[#problems + 1] = "kubeflow." .. name .. " is not documented"
      end
    end
  end
  -- A comment may document several: "run:set_tags{ ... }; run:set_tag(name, value)".
  for _, item in ipairs(bare) do
    local name, found = item.code:match "^[%w_.:]+", false
    for _, entry in ipairs(entries) do
      for mentioned in (entry.call .. (entry.lines[1] or "")):gmatch "([%w_.:]+)[ %({]" do
        found = found or mentioned == name
      end
    end
    if not found then problems[#problems + 1] = item.text end
  end
  return intros, entries
end

-- ---- writing ----

--- Markdown's own signs in prose, outside `code`, made plain.
local function prose(text)
  local out, code = {}, false
  for part, tick in (text .. "\0"):gmatch "([^`%z]*)([`%z]?)" do
    out[#out + 1] = code and part or part:gsub("[*<\\]", "\\%0")
    if tick == "`" then out[#out + 1], code = "`", not code end
  end
  return table.concat(out)
end

local function annotation(line)
  local name, kind, note = line:match "^@param ([%w_]+%??) (.-)%s+#%s*(.*)$"
  if not name then
    name, kind = line:match "^@param ([%w_]+%??) (.*)$"
  end
  if name then return ("- `%s`: `%s`%s"):format(name, kind, note and " (" .. note .. ")" or "") end
  kind = line:match "^@return (.*)$"
  if kind then return ("- returns `%s`"):format(kind) end
end

local function write_lines(out, lines)
  local verbatim = false
  for i, line in ipairs(lines) do
    if i == 1 then line = line:gsub("^[ .,:;]+", ""):gsub("^%-> ", "→ "):gsub("^%l+ ", function(word)
      return word:sub(1, 1):upper() .. word:sub(2)
    end) end
    if line:find "^@class" then goto continue end
    local indented = i > 1 and line:match "^  (.*)$" or nil
    if indented and not verbatim then out[#out + 1] = "```" end
    if verbatim and not indented and (line ~= "" or not (lines[i + 1] or ""):find "^  ") then
      out[#out + 1], verbatim = "```", false
    elseif verbatim and not indented then
      indented = "" -- a blank line between two verbatim parts
    end
    verbatim = verbatim or indented ~= nil
    if indented then
      out[#out + 1] = indented
    elseif line:find "^@" then
      if (out[#out] or ""):find "^[^-]" then out[#out + 1] = "" end
      out[#out + 1] = annotation(line) or prose(line)
    else
      out[#out + 1] = prose(line)
    end
    ::continue::
  end
  if verbatim then out[#out + 1] = "```" end
  out[#out + 1] = ""
end

local function api()
  local out = {
    "# API", "",
    "What scripts can call. Written by `lua5.4 tools/apidoc.lua` from the comments in `lua/` and the program's own rows; the",
    "[guide](guide.md) shows how things go together. `name?` is optional; `{ a, b? }` is a table by name. A *duration* is `\"90s\"`,",
    "`\"1h30m\"`, or a number of seconds; a *path* is below the workspace, or absolute where that was granted; a *secret* is",
    "a text or a handle. Whatever fails raises an error `{ service, code, status, message, hint, retryable }`.", "",
  }
  local toc = {}
  for _, section in ipairs(SECTIONS) do
    local title = section.title or section.name
    toc[#toc + 1] = ("[%s](#%s)"):format(title, title:lower():gsub("[^%w ]", ""):gsub(" ", "-"))
  end
  toc[#toc + 1] = "[Primitives](#primitives)"
  out[#out + 1] = table.concat(toc, " · ") .. "\n"
  for _, section in ipairs(SECTIONS) do
    local intros, entries = collect(section)
    out[#out + 1] = "## " .. (section.title or section.name) .. "\n"
    for _, lines in ipairs(intros) do
      lines[1] = lines[1]:gsub("^" .. section.name .. ": ", ""):gsub("^%l", string.upper)
      write_lines(out, lines)
    end
    for _, entry in ipairs(entries) do
      out[#out + 1] = ("#### `%s`\n"):format(entry.call)
      write_lines(out, entry.lines)
    end
  end
  out[#out + 1] = "## Primitives\n"
  out[#out + 1] = "What the modules are made of: `local host = require \"host\"`, then `host.fs.read(\"a.txt\")` or"
  out[#out + 1] = "`host.fs.read { path = \"a.txt\" }`. `mlhost help fs.read` prints one. A `timeout` argument bounds any call that has it.\n"
  out[#out + 1] = output_of "help --format markdown"
  return (table.concat(out, "\n"):gsub("\n\n\n+", "\n\n"):gsub("%s*$", "\n"))
end

--- Every global of boot.lua is in the hand-written annotations.
local function check_globals()
  local types = read "lua/types/script.lua"
  local function need(name)
    if not types:find("function " .. name .. "(", 1, true) and not types:find("\n" .. name .. " = ", 1, true) then
      problems[#problems + 1] = ("lua/types/script.lua: the global '%s' is missing"):format(name)
    end
  end
  local boot = read "lua/boot.lua"
  for name in boot:gmatch "\nfunction ([%w_]+)%(" do need(name) end
  for name in boot:gmatch "\n(%l[%w_]*) = {" do need(name) end
  for _, name in ipairs { "pipeline", "stage", "component" } do need(name) end
end

local documents = { ["docs/api.md"] = api(), ["lua/types/host.lua"] = output_of "help --format luals" }
check_globals()
for path, text in pairs(documents) do
  if option == "--check" then
    local file = io.open(path, "rb")
    if not file or file:read "a" ~= text then
      problems[#problems + 1] = path .. " is stale: lua5.4 tools/apidoc.lua PROGRAM writes it anew"
    end
    if file then file:close() end
  else
    local file = assert(io.open(path, "wb"))
    file:write(text)
    file:close()
  end
end
table.sort(problems)
for _, problem in ipairs(problems) do print(problem) end
os.exit(#problems == 0 and 0 or 1)
