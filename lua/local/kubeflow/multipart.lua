-- The file of an upload: multipart/form-data (RFC 7578).
local multipart = {}

local function quoted(header, name)
  return header:match("[; ]" .. name .. '="([^"]*)"') or header:match("[; ]" .. name .. "=([^;%s]+)")
end

--- The part with this field name: { data, filename }, or nil and what is wrong.
function multipart.part(content_type, body, field)
  local kind = (content_type or ""):lower()
  if not kind:find("^multipart/form%-data") then
    return nil, "expected multipart/form-data with the file as field '" .. field .. "'"
  end
  local boundary = content_type:match('[Bb][Oo][Uu][Nn][Dd][Aa][Rr][Yy]="([^"]+)"')
                   or content_type:match("[Bb][Oo][Uu][Nn][Dd][Aa][Rr][Yy]=([^;%s]+)")
  if not boundary then
    return nil, "the multipart content type names no boundary"
  end
  local mark = "--" .. boundary
  local _, at = body:find(mark, 1, true)
  while at do
    local head_end = body:find("\r\n\r\n", at + 1, true)
    local following, following_end = body:find("\r\n" .. mark, at + 1, true)
    if not head_end or not following or following < head_end then
      break
    end
    for line in body:sub(at + 1, head_end + 1):gmatch("([^\r\n]+)\r\n") do
      if line:lower():find("^content%-disposition:") and quoted(line, "name") == field then
        return { data = body:sub(head_end + 4, following - 1), filename = quoted(line, "filename") or "" }
      end
    end
    at = following_end
  end
  return nil, "the upload has no file: expected it as field '" .. field .. "'"
end

return multipart
