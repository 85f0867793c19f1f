--- hash: SHA-256, as 64 hexadecimal digits.
local host = require "host"

local hash = {}

--- hash.sha256(text) -> digest of a text
function hash.sha256(text)
  return host.hash.sha256 { content = text }
end

--- hash.sha256_file(path) -> digest of a file, which may be larger than memory
function hash.sha256_file(path)
  return host.hash.sha256 { path = path }
end

return hash
