--- azdo.tests: test runs from a JUnit file. On an agent report.junit does it by a logging command; this works from anywhere.
--- https://learn.microsoft.com/rest/api/azure/devops/test/
local connection = require "azdo.connection"
local fs = require "fs"

local Client = connection.Client
local call = connection.call
local PART = 100 -- results in one request
local TEXT_MAX = 4000 -- bytes of a message; the service cuts what is longer

local ENTITIES = { lt = "<", gt = ">", amp = "&", quot = '"', apos = "'" }

local function decode(text)
  return (text:gsub("&(#?)(x?)(%w+);", function(sharp, hex, name)
    if sharp == "" then return ENTITIES[hex .. name] end
    local code = tonumber(name, hex == "x" and 16 or 10)
    return code and code <= 0x10FFFF and utf8.char(code) or nil
  end))
end

local function attributes(text)
  local map = {}
  for name, _, value in text:gmatch "([%w_:.-]+)%s*=%s*([\"'])(.-)%2" do map[name] = decode(value) end
  return map
end

--- The text inside of an element; CDATA as it is.
local function content(text)
  local out, at = {}, 1
  while true do
    local first, last, data = text:find("<!%[CDATA%[(.-)%]%]>", at)
    out[#out + 1] = decode((text:sub(at, (first or 0) - 1):gsub("<[^>]*>", "")))
    if not first then break end
    out[#out + 1] = data
    at = last + 1
  end
  return table.concat(out)
end

--- Calls fn(name, attributes, closed) for each start tag and fn("/" .. name, nil, nil, text) for each end tag.
local function walk(text, fn)
  local at, inside = 1, {}
  while true do
    local first = text:find("<", at, true)
    if not first then break end
    if text:sub(first, first + 8) == "<![CDATA[" then
      local _, last = text:find("]]>", first, true)
      at = (last or #text) + 1
    elseif text:sub(first, first + 3) == "<!--" then
      local _, last = text:find("-->", first, true)
      at = (last or #text) + 1
    else
      local last = first + 1 -- a ">" may stand in an attribute
      while last <= #text and text:sub(last, last) ~= ">" do
        local quote = text:match("^[\"']", last)
        last = (quote and text:find(quote, last + 1, true) or last) + 1
      end
      local tag = text:sub(first + 1, last - 1)
      local slash, name, rest = tag:match "^(/?)([%w_:.-]+)(.*)$"
      if name and slash == "/" then
        local open = table.remove(inside)
        fn("/" .. name, nil, nil, open and text:sub(open, first - 1))
      elseif name then
        local closed = rest:sub(-1) == "/"
        fn(name, attributes(rest), closed)
        if not closed then inside[#inside + 1] = last + 1 end
      end
      at = last + 1
    end
  end
end

--- azdo.tests.parse(xml) -> list of results in the service's form
local function parse(xml)
  local results, case = {}, nil
  walk(xml, function(name, attrs, closed, text)
    if name == "testcase" then
      case = {
        testCaseTitle = attrs.name or "?",
        automatedTestName = (attrs.classname and attrs.classname ~= "" and attrs.classname .. "." or "") .. (attrs.name or "?"),
        automatedTestStorage = attrs.classname, durationInMs = math.floor((tonumber(attrs.time) or 0) * 1000 + 0.5),
        outcome = "Passed", state = "Completed",
      }
      results[#results + 1] = case
      if closed then case = nil end
    elseif name == "/testcase" then
      case = nil
    elseif case and (name == "failure" or name == "error") then
      case.outcome, case.errorMessage = "Failed", (attrs.message or attrs.type or ""):sub(1, TEXT_MAX)
    elseif case and name == "skipped" then
      case.outcome, case.errorMessage = "NotExecuted", attrs.message
    elseif case and (name == "/failure" or name == "/error") then
      case.stackTrace = content(text or ""):sub(1, TEXT_MAX)
    end
  end)
  return results
end

--- client:publish_tests{ path, name, build? } -> { id, total, failed }: a test run with the results of a JUnit file
---   path   string   JUnit XML (permission read)
---   build  integer  the build that it belongs to
--- A run whose results could not all be sent is marked Aborted.
function Client:publish_tests(options)
  local results, failed = parse(fs.read(options.path)), 0
  if #results == 0 then error(("azdo: %s holds no testcase"):format(options.path), 2) end
  for _, result in ipairs(results) do
    if result.outcome == "Failed" then failed = failed + 1 end
  end
  local run = call(self, "create_test_run", { run = {
    name = options.name or "mlhost", isAutomated = true, state = "InProgress",
    build = options.build and { id = tostring(options.build) } or nil,
  } })
  local _, err = try(function()
    for first = 1, #results, PART do
      local part = table.move(results, first, math.min(first + PART - 1, #results), 1, {})
      call(self, "add_test_results", { run_id = run.id, results = part })
    end
  end)
  call(self, "update_test_run", { run_id = run.id, state = err and "Aborted" or "Completed" })
  if err then error(err, 0) end
  return { id = run.id, total = #results, failed = failed }
end

return { parse = parse }
