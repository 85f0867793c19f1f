-- The codec that scripts see: its quick way for what is in order, and the other for the rest, must not differ.
local json = require "json"
local test = require "test"

local function refused(text, ...)
  local ok, err = pcall(json.decode, text, "x.json")
  test.eq(ok, false, text)
  for _, part in ipairs { ... } do
    if not tostring(err):find(part, 1, true) then test.eq(tostring(err), part) end
  end
end

test.case("numbers", function()
  for text, value in pairs {
    ["0"] = 0, ["-0"] = 0, ["12"] = 12, ["-7"] = -7, ["999999999999999999"] = 999999999999999999,
    ["9223372036854775807"] = math.maxinteger, ["-9223372036854775808"] = math.mininteger,
    ["0.1"] = 0.1, ["-2.5e3"] = -2500.0, ["1E2"] = 100.0, ["1e-7"] = 1e-7, ["123456789.123456789"] = 123456789.123456789,
    ["0.30000000000000004"] = 0.1 + 0.2, ["5e-324"] = 5e-324, ["1.7976931348623157e308"] = 1.7976931348623157e308,
    ["9007199254740993.0"] = 9007199254740992.0, ["0.00000000000000000000000000001"] = 1e-29,
  } do
    local got = json.decode(text)
    test.eq(got, value, text)
    test.eq(math.type(got), math.type(value), text)
    test.eq(json.decode("[ " .. text .. " ]")[1], value, text)
  end
  for _, bad in ipairs { "01", "1.", ".5", "+1", "1e", "-", "0x10", "1 2", "NaN", "1e999", "92233720368547758080" } do
    refused(bad, "x.json")
  end
end)

test.case("texts", function()
  for text, value in pairs {
    ['""'] = "", ['"abc"'] = "abc", ['"\\n\\u0041\\ud83d\\ude00"'] = "\nA\u{1F600}", ['"\195\164"'] = "\195\164",
    ['"\127"'] = "\127", ['"a\\u0000b"'] = "a\0b",
  } do
    test.eq(json.decode(text), value, text)
    test.eq(json.decode(json.encode(value)), value, text)
  end
  for _, bad in ipairs { '"', '"abc', '"\n"', '"\\x"', '"\255"', '"a"b' } do refused(bad) end
end)

test.case("lists and maps", function()
  local got = json.decode ' { "a" : [ 1 , [ ] , { } , null , true , false , "x" ] , "b" : { "c" : [ [ 1 , 2 ] , [ 3 ] ] } } '
  test.eq(#got.a, 7)
  test.eq(json.is_array(got.a[2]), true)
  test.eq(json.is_array(got.a[3]), false)
  test.eq(got.a[4], json.null)
  test.eq(got.b.c[2][1], 3)
  test.eq(json.encode(got), '{"a":[1,[],{},null,true,false,"x"],"b":{"c":[[1,2],[3]]}}')
  for _, bad in ipairs { "[1,]", "[1 2]", "{", "[", '{"a" 1}', '{"a":1,}', "{1:2}", "]", "", "nul", "[1]]", "tru" } do
    refused(bad, "x.json:")
  end
  refused('{"a":1,"a":2}', "duplicate")
  local deep = ("["):rep(150) .. ("]"):rep(150)
  test.eq(json.encode(json.decode(deep)), deep)
  refused(("["):rep(250) .. ("]"):rep(250))
end)

test.case("what is written", function()
  test.eq(json.encode { z = 1, a = 0.5, ["a b"] = 2.0, a0 = 1e300 }, '{"a":0.5,"a b":2.0,"a0":1e+300,"z":1}')
  test.eq(json.encode { 1 / 0, -1 / 0, 0 / 0 }, '["Infinity","-Infinity","NaN"]')
  test.eq(json.encode 'a"\\\r\1\127', '"a\\"\\\\\\r\\u0001\\u007f"')
  test.eq(json.encode(json.array()), "[]")
  test.eq(json.encode { list = json.array {}, map = {} }, '{"list":[],"map":{}}')
  local many, keys = {}, {}
  for i = 1, 100 do
    keys[i] = ('"k%03d":%d'):format(i, i)
    many[("k%03d"):format(i)] = i
  end
  test.eq(json.encode(many), "{" .. table.concat(keys, ",") .. "}")
  local backwards = {}
  for i = 20, 1, -1 do backwards[i] = i end
  test.eq(json.encode(backwards), "[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20]")
  for part, bad in pairs {
    holes = { 1, nil, 3, [9] = 1 }, ["a.b"] = { a = { b = print } }, named = { 1, x = 2 }, number = { [1.5] = 1 },
  } do
    local ok, err = pcall(json.encode, bad)
    test.eq(ok, false, part)
    if not tostring(err):find(part, 1, true) then test.eq(tostring(err), part) end
  end
  local circle = {}
  circle.me = circle
  test.eq(pcall(json.encode, circle), false)
end)
