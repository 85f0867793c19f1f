-- Compiles the cases with our compiler and compares with what the official one made, as data.
--
--   lua5.4 tests/golden/run.lua [--emit FOLDER] [NAME...]     from the root of the tree
--
-- --emit writes each compiled case to FOLDER, for load_with_sdk.py. It needs plain Lua and a Python with PyYAML
-- (KFP_PYTHON); the host's modules are stood in for by shim/.
package.path = "tests/golden/shim/?.lua;lua/?.lua;lua/?/init.lua;tests/golden/?.lua;pipelines/?.lua;" .. package.path

local folder
local wanted = {}
do
  local i = 1
  while arg[i] do
    if arg[i] == "--emit" then
      folder, i = arg[i + 1], i + 2
    else
      wanted[arg[i]], i = true, i + 1
    end
  end
end

local compare = require "compare"
local yaml = require "yaml"
local fs = require "fs"
local kubeflow = require "kubeflow"

local suites = { require "cases.container", require "cases.control", require "cases.kubernetes",
  require "cases.training" }
local errors = require "cases.errors"

local texts = require "cases.emit"

local passed, failed = 0, 0
local function report(name, ok, message)
  if ok then
    passed = passed + 1
    print("ok    " .. name)
  else
    failed = failed + 1
    print("FAIL  " .. name .. "\n      " .. tostring(message):gsub("\n", "\n      "))
  end
end

local files = {}
for _, suite in ipairs(suites) do
  for _, case in ipairs(suite) do files[#files + 1] = "tests/golden/kfp/" .. case.golden end
end
yaml.preload(files)

for _, suite in ipairs(suites) do
  for _, case in ipairs(suite) do
    if not next(wanted) or wanted[case.name] then
      report(case.name, pcall(function()
        local golden = yaml.decode_all(fs.read("tests/golden/kfp/" .. case.golden), case.golden)
        local package = case.compile(kubeflow, compare.executors(golden))
        compare.documents(package, golden)
        if folder then
          local file = assert(io.open(("%s/%s.yaml"):format(folder, case.name), "wb"))
          file:write(package:yaml())
          file:close()
        end
      end))
    end
  end
end
for _, case in ipairs(errors) do
  if not next(wanted) or wanted[case.name] then
    report(case.name, pcall(function() compare.error(case, kubeflow) end))
  end
end
for _, case in ipairs(texts) do
  if not next(wanted) or wanted[case.name] then
    report(case.name, pcall(function()
      local text = case.run(kubeflow)
      if folder and text then
        local file = assert(io.open(("%s/%s.yaml"):format(folder, case.name), "wb"))
        file:write(text)
        file:close()
      end
    end))
  end
end

print(("%d passed, %d failed"):format(passed, failed))
os.exit(failed == 0)
