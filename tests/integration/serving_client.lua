-- Our inference client and the load test against seldon-core-microservice, MLServer and mlhost model, which all answer for the
-- same weights.
local fs = require "fs"
local json = require "json"
local seldon = require "seldon"

pipeline "serving-client" {
  params = { seldon = "", mlserver = "", own = "" },
  permissions = { net = { "127.0.0.1" } },
}

local function check(name, holds, detail)
  print(("%s - %s%s"):format(holds and "ok" or "not ok", name, holds and "" or ": " .. tostring(detail)))
end

local function close(a, b)
  if type(a) ~= "table" or type(b) ~= "table" then
    return type(a) == "number" and type(b) == "number" and math.abs(a - b) <= 1e-9 * math.max(1, math.abs(b))
  end
  if #a ~= #b then return false end
  for i = 1, #a do
    if not close(a[i], b[i]) then return false end
  end
  return true
end

local function files()
  return json.decode(fs.read "rows.json"), json.decode(fs.read "wanted.json")
end

-- A part that fails must not hide the others.
local function part(name, fn)
  local ok, err = pcall(fn)
  if not ok then check(name, false, err) end
end

stage "seldon" { run = function(cx)
  local rows, wanted = files()
  local client = seldon.client { url = cx.params.seldon, protocol = "seldon", path_style = "microservice" }
  check("seldon ready", client:ready())
  check("seldon live", client:live())
  for _, kind in ipairs { "ndarray", "tensor" } do -- tftensor takes a server with TensorFlow
    part("seldon " .. kind, function()
      local got = client:predict(rows, { kind = kind })
      check("seldon values of " .. kind, close(got.values, wanted), json.encode(got.raw))
      check("seldon names of " .. kind, table.concat(got.names, "") == "0123456789", json.encode(got.raw))
      check("seldon tags of " .. kind, got.meta.tags.model_version == "7", json.encode(got.raw))
    end)
  end
  part("seldon strData", function()
    local got = client:predict("hello", { kind = "strData" })
    check("seldon strData comes back", got.values == "hello", json.encode(got.raw))
  end)
  part("seldon binData", function()
    local got = client:predict("\0\1\255", { kind = "binData" })
    check("seldon binData comes back", got.values == "\0\1\255", json.encode(got.raw))
  end)
  part("seldon jsonData", function()
    local got = client:predict({ deep = { 1, "x" } }, { kind = "jsonData" })
    check("seldon jsonData comes back", got.values.deep[2] == "x", json.encode(got.raw))
  end)
  part("seldon feedback", function()
    local got = client:predict(rows)
    local told = client:feedback { request = rows, response = got, reward = 1, truth = { { 3 } } }
    check("seldon feedback is taken", type(told) == "table", told)
    local ok, err = pcall(client.feedback, client, { request = rows, response = got, reward = 0.5, truth = { { 3 } } })
    check("seldon feedback that the model refuses raises", not ok and err.status == 500 and tostring(err):find "reward of 1", err)
  end)
  part("seldon metadata", function()
    local metadata = client:metadata()
    check("seldon metadata tells the version", metadata.name == "digits" and metadata.versions[1] == "7", json.encode(metadata))
  end)
  local ok, err = pcall(client.predict, client, { { 1, 2 } })
  check("seldon a bad row raises", not ok and err.service == "seldon" and err.status == 500, err)
end }

stage "mlserver" { run = function(cx)
  local rows, wanted = files()
  local client = seldon.client { url = cx.params.mlserver, protocol = "v2", model = "digits" }
  check("mlserver ready", client:ready())
  check("mlserver live", client:live())
  part("mlserver predict", function()
    local got = client:predict(rows, { id = "r-7" })
    check("mlserver values", close(got.values, wanted), json.encode(got.raw))
    check("mlserver id", got.raw.id == "r-7", json.encode(got.raw))
    check("mlserver shape", got.shape[1] == #rows and got.shape[2] == 10, json.encode(got.raw))
  end)
  part("mlserver named input", function()
    local flat = {}
    for _, row in ipairs(rows) do
      for _, x in ipairs(row) do flat[#flat + 1] = x end
    end
    local input = { name = "x", datatype = "FP32", shape = { #rows, 64 }, data = flat }
    local got = client:predict({ input }, { outputs = { "predict" } })
    check("mlserver named output", close(got.values, wanted), json.encode(got.raw))
  end)
  part("mlserver metadata", function()
    local metadata = client:metadata()
    check("mlserver metadata", metadata.name == "digits", json.encode(metadata))
  end)
  local other = seldon.client { url = cx.params.mlserver, protocol = "v2", model = "nobody" }
  local ok, err = pcall(other.predict, other, rows)
  check("mlserver an unknown model raises", not ok and err.code == "not_found" and tostring(err):find "nobody", err)
end }

stage "own" { run = function(cx)
  local client = seldon.client { url = cx.params.own, protocol = "v2", model = "node" }
  for _, binary in ipairs { false, true } do
    part("own binary " .. tostring(binary), function()
      local got = client:predict({ { 1.5, 2.0 }, { 3.25, -4.0 } }, { binary = binary })
      check(("own values, binary = %s"):format(binary), close(got.values, { { 3.0, 1.0 }, { 6.5, -2.0 } }), json.encode(got.values))
    end)
  end
  local v1 = seldon.client { url = cx.params.own }
  for _, kind in ipairs { "ndarray", "tensor", "tftensor" } do
    part("own " .. kind, function()
      local got = v1:predict({ { 1.5, 2.0 }, { 3.25, -4.0 } }, { kind = kind })
      check("own values of " .. kind, got.kind == kind and close(got.values, { { 3.0, 1.0 }, { 6.5, -2.0 } }), json.encode(got.raw))
    end)
  end
  local ok, err = pcall(client.predict, client, { { -1.5, 2.0 } })
  check("own a bad request raises", not ok and err.status == 400 and tostring(err):find "negative", err)
end }

stage "load" { run = function(cx)
  local rows = files()
  local requests = {}
  for i, row in ipairs(rows) do requests[i] = { row } end
  for name, client in pairs {
    seldon = seldon.client { url = cx.params.seldon, path_style = "microservice" },
    mlserver = seldon.client { url = cx.params.mlserver, protocol = "v2", model = "digits" },
  } do
    local got = seldon.load_test { client = client, data = requests, count = 60, concurrency = 3,
      group_by = name == "seldon" and "meta.tags.model_version" or "model_version" }
    check(name .. " load without errors", got.count == 60 and got.errors == 0 and got.status["200"] == 60, json.encode(got))
    check(name .. " load in groups", got.groups["7"] and got.groups["7"].count == 60, json.encode(got))
    check(name .. " latency", got.latency.min > 0 and got.latency.p99 <= got.latency.max, json.encode(got))
  end
  local bad = seldon.load_test {
    client = seldon.client { url = cx.params.seldon, path_style = "microservice" }, data = { { { 1 } }, { rows[1] } }, count = 10,
  }
  check("load counts errors", bad.count == 10 and bad.errors == 5 and bad.status["500"] == 5 and #bad.first_errors == 5,
    json.encode(bad))
end }
