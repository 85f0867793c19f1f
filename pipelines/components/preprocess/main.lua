-- Fetch, verify, split. The split is stratified: each digit is spread over the three parts in the same proportions.
local fs = require "fs"
local hash = require "hash"
local http = require "http"

local PACKED = {
  digits = {
    path = "data/digits.csv",
    sha256 = "6ebb3d2fee246a4e99363262ddf8a00a3c41bee6014c373ed9d9216ba7f651b8",
  },
}
local PIXELS, DARKEST, CLASSES = 64, 16, 10
local LARGEST = 64 << 20

--- The text of the data set, and its SHA-256.
local function fetch(dataset, beside)
  local packed = PACKED[dataset]
  if packed then
    local path = beside .. "/" .. packed.path
    local text = fs.read(path)
    local digest = hash.sha256(text)
    if digest ~= packed.sha256 then
      error(("%s: SHA-256 is %s, %s was expected: the image is damaged, build it again"):format(path, digest, packed.sha256))
    end
    return text, digest
  end
  if not dataset:match "^https?://" then
    error(("unknown data set '%s'; known: digits, or the URL of a CSV file"):format(dataset))
  end
  log.info("fetching %s", dataset)
  local text = http.get(dataset, { limit = LARGEST }).body
  return text, hash.sha256(text)
end

--- Rows by digit. Whatever is not 64 pixels and a digit stops here, with its line.
local function verify(text)
  local by_digit, line_number = {}, 0
  for digit = 0, CLASSES - 1 do by_digit[digit] = {} end
  for line in text:gmatch "[^\r\n]+" do
    line_number = line_number + 1
    local count, last = 0, nil
    for field in (line .. ","):gmatch "([^,]*)," do
      count = count + 1
      last = math.tointeger(tonumber(field))
      local most = count > PIXELS and CLASSES - 1 or DARKEST
      if not last or last < 0 or last > most then
        error(("line %d, field %d: '%s' is not a whole number from 0 to %d"):format(line_number, count, field, most))
      end
    end
    if count ~= PIXELS + 1 then
      error(("line %d has %d fields, not %d"):format(line_number, count, PIXELS + 1))
    end
    table.insert(by_digit[last], line)
  end
  for digit = 0, CLASSES - 1 do
    if #by_digit[digit] < 10 then error(("only %d rows show the digit %d"):format(#by_digit[digit], digit)) end
  end
  return by_digit, line_number
end

local function shuffler(seed)
  local state = seed * 2654435761 + 1
  return function(list)
    for i = #list, 2, -1 do
      state = (state * 6364136223846793005 + 1442695040888963407)
      local j = (state >> 33) % i + 1
      list[i], list[j] = list[j], list[i]
    end
    return list
  end
end

local function split(by_digit, cx)
  local shuffle = shuffler(cx.inputs.seed)
  local parts = { train = {}, validation = {}, test = {} }
  for digit = 0, CLASSES - 1 do
    local rows = shuffle(by_digit[digit])
    local validation = math.floor(#rows * cx.inputs.validation_fraction + 0.5)
    local test = math.floor(#rows * cx.inputs.test_fraction + 0.5)
    for i, row in ipairs(rows) do
      local part = i <= test and "test" or i <= test + validation and "validation" or "train"
      table.insert(parts[part], row)
    end
  end
  for _, name in ipairs { "train", "validation", "test" } do shuffle(parts[name]) end
  return parts
end

component "preprocess" {
  inputs = {
    dataset = { "string", default = "digits" },
    seed = { "int", default = 42 },
    validation_fraction = { "float", default = 0.15 },
    test_fraction = { "float", default = 0.15 },
  },
  outputs = { train = "path", validation = "path", test = "path", digest = "string" },
  permissions = { net = { "*" } },
  run = function(cx)
    local held_out = cx.inputs.validation_fraction + cx.inputs.test_fraction
    if cx.inputs.validation_fraction <= 0 or cx.inputs.test_fraction <= 0 or held_out >= 0.9 then
      error("validation_fraction and test_fraction must be above 0 and leave at least a tenth for training")
    end
    local text, digest = fetch(cx.inputs.dataset, cx.folder)
    local by_digit, count = verify(text)
    local parts = split(by_digit, cx)
    for name, rows in pairs(parts) do
      fs.write(cx.outputs[name], table.concat(rows, "\n") .. "\n")
      log.info("%s: %d of %d rows", name, #rows, count)
    end
    cx.output("digest", digest)
  end,
}
