-- Listings that come in pages, and requests whose fate is open: what the clients of MLflow and Kubeflow share.
local pages = {}

--- Items of all pages, one after another, up to `limit`.
---   endpoint  function  args -> { items, next }
---   size_key  string    the argument that takes the size of a page
---   largest   integer   what the server takes there
---   wrap      function? applied to each item
function pages.each(endpoint, args, options)
  local items, at, done, given = {}, 0, false, 0
  local limit, wrap = options.limit, options.wrap
  args[options.size_key] = limit and math.min(limit, options.largest) or options.largest
  return function()
    if limit and given >= limit then return nil end
    while at >= #items do
      if done then return nil end
      local page = endpoint(args)
      items, at = page.items, 0
      args.page_token, done = page.next, page.next == nil
    end
    at, given = at + 1, given + 1
    return wrap and wrap(items[at]) or items[at]
  end
end

--- What an iterator gives, as a list.
function pages.collect(iterator, wrap)
  local list = {}
  for item in iterator do list[#list + 1] = wrap and wrap(item) or item end
  return list
end

--- Did a request fail in a way that leaves open whether the server acted?
function pages.ambiguous(err) return err.code == "unavailable" or err.code == "timeout" end

return pages
