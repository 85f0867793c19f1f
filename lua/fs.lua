--- Files, below the workspace unless the script was granted more. All raise; try(fs.read, path) does not.
local host = require "host"
local rows = host.fs

return {
  --- read(path, limit) -> text. At most `limit` bytes (default 16 MiB, at most 64 MiB).
  read = function(path, limit) return rows.read { path = path, limit = limit } end,
  --- write(path, text, { append = true }). Atomic; makes the folders above.
  write = function(path, text, options)
    return rows.write { path = path, text = text, append = options and options.append }
  end,
  --- list(path) -> names in a folder, sorted
  list = function(path) return rows.list { path = path } end,
  --- glob(pattern) -> paths, sorted: * and ? within a name, ** over folders, [a-z]
  glob = function(pattern) return rows.glob { pattern = pattern } end,
  --- exists(path) -> boolean
  exists = function(path) return rows.exists { path = path } end,
  --- stat(path) -> { kind = "file" | "folder" | "link" | "other", size, modified (Unix ms), mode }
  stat = function(path) return rows.stat { path = path } end,
  --- mkdir(path): with all folders above
  mkdir = function(path) return rows.mkdir { path = path } end,
  --- remove(path): a file, or a folder with all that is in it. A missing one is no error.
  remove = function(path) return rows.remove { path = path } end,
  --- copy(from, to): a file
  copy = function(from, to) return rows.copy { from = from, to = to } end,
}
