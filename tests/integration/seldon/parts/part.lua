-- Every part of tests/integration/seldon/graph.lua's graph; what a node's parameters say makes them differ.
local function each(rows, fn)
  local out = {}
  for i, row in ipairs(rows) do
    out[i] = {}
    for k, x in ipairs(row) do out[i][k] = fn(x) end
  end
  return out
end

model "part" {
  metadata = { platform = "mlhost", versions = { "7" } },
  load = function(cx)
    if cx.parameters.weights then error(("the weights %s are not there"):format(cx.parameters.weights)) end
    return { add = cx.parameters.add or 0, times = cx.parameters.times or 1, version = cx.parameters.version or "1" }
  end,
  transform_input = function(self, rows) return each(rows, function(x) return x + self.add end) end,
  predict = function(self, rows)
    if rows[1][1] == 13 then bad_request "13 is no number that this takes" end
    return each(rows, function(x) return x * self.times end)
  end,
  route = function(_, rows) return rows[1][1] > 10 and 1 or 0 end,
  aggregate = function(_, list)
    local sum = list[1]
    for i = 2, #list do
      for r, row in ipairs(list[i]) do
        for k, x in ipairs(row) do sum[r][k] = sum[r][k] + x end
      end
    end
    return sum
  end,
  feedback = function(_, _, _, reward) print(("rewarded with %g"):format(reward)) end,
  explain = function(_, rows) return { because = rows[1][1] } end,
  tags = function(self) return { version = self.version } end,
}
