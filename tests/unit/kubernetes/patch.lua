-- The three kinds of patch, with the examples of their RFCs and of Kubernetes' documentation.
local json = require "json"
local patch = require "local.kubernetes.patch"

local function check(kind, live, change, wanted)
  local before = json.encode(json.decode(live))
  local document = json.decode(live)
  local got = json.encode(patch[kind](document, json.decode(change)))
  wanted = json.encode(json.decode(wanted))
  assert(got == wanted, ("%s with %s: %s, wanted %s"):format(live, change, got, wanted))
  assert(json.encode(document) == before, "the patch has changed what it was given")
end

local function refuse(kind, live, change, code, text)
  local ok, err = pcall(patch[kind], json.decode(live), json.decode(change))
  assert(not ok, change .. " was not refused")
  assert(type(err) == "table" and err.kubernetes.code == code and err.kubernetes.message:find(text, 1, true),
    json.encode(type(err) == "table" and err.kubernetes or { err }))
end

return {
  { "RFC 6902, appendix A", function()
    check("json", '{"foo":"bar"}', '[{"op":"add","path":"/baz","value":"qux"}]', '{"baz":"qux","foo":"bar"}')
    check("json", '{"foo":["bar","baz"]}', '[{"op":"add","path":"/foo/1","value":"qux"}]', '{"foo":["bar","qux","baz"]}')
    check("json", '{"baz":"qux","foo":"bar"}', '[{"op":"remove","path":"/baz"}]', '{"foo":"bar"}')
    check("json", '{"foo":["bar","qux","baz"]}', '[{"op":"remove","path":"/foo/1"}]', '{"foo":["bar","baz"]}')
    check("json", '{"baz":"qux","foo":"bar"}', '[{"op":"replace","path":"/baz","value":"boo"}]',
      '{"baz":"boo","foo":"bar"}')
    check("json", '{"foo":{"bar":"baz","waldo":"fred"},"qux":{"corge":"grault"}}',
      '[{"op":"move","from":"/foo/waldo","path":"/qux/thud"}]',
      '{"foo":{"bar":"baz"},"qux":{"corge":"grault","thud":"fred"}}')
    check("json", '{"foo":["all","grass","cows","eat"]}', '[{"op":"move","from":"/foo/1","path":"/foo/3"}]',
      '{"foo":["all","cows","eat","grass"]}')
    check("json", '{"baz":"qux","foo":["a",2,"c"]}', '[{"op":"test","path":"/baz","value":"qux"},'
      .. '{"op":"test","path":"/foo/1","value":2}]', '{"baz":"qux","foo":["a",2,"c"]}')
    refuse("json", '{"baz":"qux"}', '[{"op":"test","path":"/baz","value":"bar"}]', 422, "/baz")
    check("json", '{"foo":"bar"}', '[{"op":"add","path":"/child","value":{"grandchild":{}}}]',
      '{"foo":"bar","child":{"grandchild":{}}}')
    refuse("json", '{"foo":"bar"}', '[{"op":"add","path":"/baz/bat","value":"qux"}]', 422, "/baz/bat")
    check("json", '{"/":9,"~1":10}', '[{"op":"test","path":"/~01","value":10}]', '{"/":9,"~1":10}')
    refuse("json", '{"/":9,"~1":10}', '[{"op":"test","path":"/~01","value":"10"}]', 422, "/~01")
    check("json", '{"foo":["bar"]}', '[{"op":"add","path":"/foo/-","value":["abc","def"]}]',
      '{"foo":["bar",["abc","def"]]}')
    check("json", '{"a":{"b":1}}', '[{"op":"copy","from":"/a","path":"/c"},{"op":"replace","path":"/c/b","value":2}]',
      '{"a":{"b":1},"c":{"b":2}}')
    check("json", '{"a":[]}', '[{"op":"add","path":"/a/0","value":null}]', '{"a":[null]}')
  end },
  { "a JSON patch that does not fit", function()
    refuse("json", "{}", "{}", 400, "list")
    refuse("json", "{}", '[{"op":"put","path":"/a"}]', 422, "operation")
    refuse("json", "{}", '[{"op":"remove","path":"/a"}]', 422, "/a")
    refuse("json", "{}", '[{"op":"replace","path":"/a","value":1}]', 422, "/a")
    refuse("json", "{}", '[{"op":"add","path":"a","value":1}]', 422, "pointer")
    refuse("json", '{"a":[1]}', '[{"op":"add","path":"/a/2","value":1}]', 422, "/a/2")
    refuse("json", '{"a":[1,2]}', '[{"op":"remove","path":"/a/01"}]', 422, "/a/01")
    refuse("json", '{"a":[1]}', '[{"op":"remove","path":"/a/-"}]', 422, "/a/-")
    refuse("json", '{"a":{"b":{}}}', '[{"op":"move","from":"/a","path":"/a/b/c"}]', 422, "itself")
    refuse("json", "{}", '[{"op":"add","path":"/a"}]', 422, "no value")
    refuse("json", "{}", '[{"op":"copy","path":"/a"}]', 422, "operation")
  end },
  { "RFC 7386, appendix A", function()
    check("merge", '{"a":"b"}', '{"a":"c"}', '{"a":"c"}')
    check("merge", '{"a":"b"}', '{"b":"c"}', '{"a":"b","b":"c"}')
    check("merge", '{"a":"b"}', '{"a":null}', '{}')
    check("merge", '{"a":"b","b":"c"}', '{"a":null}', '{"b":"c"}')
    check("merge", '{"a":["b"]}', '{"a":"c"}', '{"a":"c"}')
    check("merge", '{"a":"c"}', '{"a":["b"]}', '{"a":["b"]}')
    check("merge", '{"a":{"b":"c"}}', '{"a":{"b":"d","c":null}}', '{"a":{"b":"d"}}')
    check("merge", '{"a":[{"b":"c"}]}', '{"a":[1]}', '{"a":[1]}')
    check("merge", '["a","b"]', '["c","d"]', '["c","d"]')
    check("merge", '{"e":null}', '{"a":1}', '{"e":null,"a":1}')
    check("merge", '[1,2]', '{"a":"b","c":null}', '{"a":"b"}')
    check("merge", '{}', '{"a":{"bb":{"ccc":null}}}', '{"a":{"bb":{}}}')
  end },
  { "lists merge by key", function()
    check("strategic", '{"containers":[{"name":"a","image":"1"}]}', '{"containers":[{"name":"b","image":"2"}]}',
      '{"containers":[{"name":"a","image":"1"},{"name":"b","image":"2"}]}')
    check("strategic", '{"containers":[{"name":"a","image":"1","env":[{"name":"X","value":"1"}]}]}',
      '{"containers":[{"name":"a","image":"2","env":[{"name":"Y","value":"2"}]}]}',
      '{"containers":[{"name":"a","image":"2","env":[{"name":"X","value":"1"},{"name":"Y","value":"2"}]}]}')
    check("strategic", '{"containers":[{"name":"a"},{"name":"b"}]}', '{"containers":[{"name":"a","$patch":"delete"}]}',
      '{"containers":[{"name":"b"}]}')
    check("strategic", '{"containers":[{"name":"a"},{"name":"b"}]}',
      '{"containers":[{"name":"c"},{"$patch":"replace"}]}', '{"containers":[{"name":"c"}]}')
    check("strategic", '{"containers":[{"name":"a","image":"1","tty":true}]}',
      '{"containers":[{"name":"a","image":"2","$patch":"replace"}]}', '{"containers":[{"name":"a","image":"2"}]}')
    check("strategic", '{"ports":[{"containerPort":80},{"containerPort":81}]}',
      '{"ports":[{"containerPort":81,"$patch":"delete"},{"containerPort":80,"name":"http"}]}',
      '{"ports":[{"containerPort":80,"name":"http"}]}')
    check("strategic", '{"ports":[{"port":80,"protocol":"TCP"}]}', '{"ports":[{"port":80,"targetPort":90}]}',
      '{"ports":[{"port":80,"protocol":"TCP","targetPort":90}]}')
    check("strategic", '{"args":["a"]}', '{"args":["b"]}', '{"args":["b"]}')
    check("strategic", '{"tolerations":[{"key":"a"}]}', '{"tolerations":[{"key":"b"}]}', '{"tolerations":[{"key":"b"}]}')
  end },
  { "directives", function()
    check("strategic", '{"spec":{"a":1,"b":2}}', '{"spec":{"$patch":"replace","c":3}}', '{"spec":{"c":3}}')
    check("strategic", '{"s":{"type":"R","rollingUpdate":{"m":1}}}', '{"s":{"$retainKeys":["type"],"type":"Recreate"}}',
      '{"s":{"type":"Recreate"}}')
    check("strategic", '{"metadata":{"finalizers":["a","b"]}}',
      '{"metadata":{"$deleteFromPrimitiveList/finalizers":["a"],"finalizers":["c"]}}',
      '{"metadata":{"finalizers":["b","c"]}}')
    check("strategic", '{"containers":[{"name":"a"},{"name":"b"}]}',
      '{"$setElementOrder/containers":[{"name":"b"},{"name":"a"}],"containers":[{"name":"a","image":"x"}]}',
      '{"containers":[{"name":"b"},{"name":"a","image":"x"}]}')
    check("strategic", '{"a":1,"b":{"c":1}}', '{"a":null,"b":{"c":null}}', '{"b":{}}')
    refuse("strategic", "{}", "[]", 400, "map")
  end },
}
