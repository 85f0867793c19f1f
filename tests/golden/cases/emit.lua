-- The text of compiled pipelines: what any YAML reader must take for the value that went in.
local compare = require "compare"
local yaml = require "yaml"

--- Texts that one YAML dialect or another reads as something else, or that end what they stand in.
local AWKWARD = {
  "", " ", "~", "null", "Null", "yes", "No", "on", "OFF", "y", "N", "true", "TRUE", ".nan", ".inf", "-.INF", "nan",
    "1", "01", "0x1F",
  "0o17", "0b1", "1e3", "1.0e-07", "1_000", "+1", "-1", ".5", "12:30:45", "2001-12-14",
    "2001-12-14t21:59:43.10-05:00", "=", "<<", "-",
  "- a", "? a", ": a", "a: b", "a #b", "#a", "a:", "'", "''", "\"", "\\", "it's", "%TAG", "@a", "`a`", "!a", "&a",
    "*a", "{a", "[a", "a]",
  "---", "...", "--- a", "a\n---\nb", "line\n", "\nline", "a\n\n\nb", "tab\there", "cr\rlf\r\n", "\0", "\27[31m",
    "\127", "trailing ",
  " leading", "é", "日本語", "😀", "\u{85}", "\u{2028}", "\u{FEFF}bom", "\u{FFFD}", ("long "):rep(400), ("x"):rep(3000),
    "a,b", "|", ">",
}

local function pipeline(kf, params, description)
  local echo = kf.component { name = "echo", image = "img", command = { "echo", kf.input "text" },
    inputs = { text = "string" } }
  return kf.pipeline "awkward" {
    description = description, params = params, build = function() echo { text = "x" } end,
  }
end

local function same(package)
  local text = package:yaml()
  local read = yaml.decode_all(text, "emitted")
  compare.documents(package, read)
  if text:find "[^\n\32-\126]" then error("the text is not plain ASCII", 0) end
  return text
end

return {
  {
    name = "emit_awkward_texts",
    run = function(kf)
      local map, list = {}, {}
      for i, text in ipairs(AWKWARD) do map["k" .. i], list[i] = text, text end
      for _, text in ipairs(AWKWARD) do map[text] = "as a key" end
      return same(kf.compile(pipeline(kf, {
        a_map = { "dict", default = map }, a_list = { "list", default = list }, nothing = { "dict", default = {} },
        empty = { "list", default = {} }, nested = { "list", default = { { { 1, 2 }, { a = { 1 } } }, { "x" } } },
      })))
    end,
  },
  {
    name = "emit_numbers",
    run = function(kf)
      local numbers = { 0, -0.0, 1, -1, 1.0, 0.1, 1e300, 1e-300, 1e16, 1e15, 123456789012345680, 2 ^ 53, 3.1415926,
        1 / 3, math.pi }
      return same(kf.compile(pipeline(kf, { numbers = { "list", default = numbers } })))
    end,
  },
  {
    name = "emit_header_holds_hostile_texts",
    run = function(kf)
      local text = same(kf.compile(pipeline(kf, {
        evil = { "string", default = "a\nroot: {}\n---\nb" }, other = { "string", default = "\u{2028}x: y\r\nz: 1" },
      }, "first line\nroot: evil\r\n\nlast\u{85}line")))
      if select(2, text:gsub("\nroot:", "")) ~= 1 then error("something got out of the header", 0) end
      return text
    end,
  },
  {
    name = "emit_is_the_same_every_time",
    run = function(kf)
      local texts = {}
      for i = 1, 3 do
        collectgarbage()
        package.loaded.training = nil
        texts[i] = kf.compile(require "training"):yaml()
        if texts[i] ~= texts[1] then error("two compilations differ", 0) end
      end
    end,
  },
  {
    name = "emit_images_are_replaced",
    run = function(kf)
      local plain = kf.compile(require "training")
      local package = kf.compile(require "training", {
        images = { training = "mlhost.local/training:1f2e", ["register-mlflow"] = "r.example/x@sha256:0" },
      })
      local executors = package.spec.deploymentSpec.executors
      local function is(label, image)
        local found = executors[label].container.image
        if found ~= image then error(("%s has the image %s"):format(label, found), 0) end
      end
      is("exec-training", "mlhost.local/training:1f2e")
      is("exec-evaluate", "mlhost.local/training:1f2e") -- another component of the same image
      is("exec-register-mlflow", "r.example/x@sha256:0")
      is("exec-preprocess", "mlhost.local/preprocess")
      if plain.spec.deploymentSpec.executors["exec-training"].container.image ~= "mlhost.local/training" then
        error("the other package changed too", 0)
      end
      if plain:digest_input() == package:digest_input() then error("the digest does not see images", 0) end
      if package:task_count() ~= 9 then error("task_count is " .. package:task_count(), 0) end
    end,
  },
}
