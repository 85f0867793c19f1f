-- The host's module `fs` for plain lua5.4.
return {
  read = function(path)
    local file <close> = assert(io.open(path, "rb"))
    return file:read "a"
  end,
}
