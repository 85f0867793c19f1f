-- What luacheck may take for granted: the globals of a script (docs/guide.md), and who defines them.
std = "lua54"
exclude_files = { "lua/types" } -- annotations for editors: they define nothing
max_line_length = 132

local script = {
  "pipeline", "stage", "component", "model", "bad_request", "parallel", "try",
  "defer", "breakpoint", "log", "progress", "sleep", "set_variable", "report",
}
files["pipelines"] = { read_globals = script }
files["tests"] = { read_globals = script }
files["lua"] = { read_globals = script }
files["docs"] = { read_globals = script }
for _, file in ipairs {
  "lua/boot.lua", "lua/component/init.lua", "lua/model/init.lua", "lua/prelude/pipeline.lua", "lua/prelude/repl.lua",
} do
  files[file] = { globals = script }
end
files["lua/boot.lua"].globals[#script + 1] = "print"
files["lua/types"] = { ignore = { "1", "2" } } -- declarations for editors, never run
