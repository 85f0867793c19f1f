-- What luacheck may take for granted: the globals of a script (docs/guide.md), and long doc comments.
std = "lua54"
max_line_length = 120
files["pipelines"] = { read_globals = { "pipeline", "stage", "parallel", "try", "defer", "log", "progress", "sleep", "component", "set_variable",
  "report" } }
files["tests"] = { read_globals = { "pipeline", "stage", "parallel", "try", "defer", "log", "progress", "sleep", "component", "set_variable",
  "report" } }
files["lua"] = { read_globals = { "parallel", "try", "defer", "log", "progress", "sleep", "set_variable", "report" } }
