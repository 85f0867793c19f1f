local cel = require "local.runner.cel"

local parameters = { s = "heads", n = 3.0, i = 7, d = 0.5, yes = true, no = false, q = "it's", list = { 1, 2 },
                     ["pipelinechannel--flip-Output"] = "heads" }
local p = function(name) return "inputs.parameter_values['" .. name .. "']" end

local truths = {
  { p "s" .. " == 'heads'", true }, { p "s" .. ' == "tails"', false }, { p "s" .. " != 'tails'", true },
  { p "pipelinechannel--flip-Output" .. " == 'heads'", true },
  { "int(" .. p "n" .. ") == 3", true }, { "int(" .. p "n" .. ") > 3", false }, { p "n" .. " == 3", true },
  { "double(" .. p "i" .. ") <= 7.0", true }, { p "d" .. " < 1", true }, { "int('12') == 12", true },
  { "double('1e3') == 1000.0", true }, { "int(-2.7) == -2", true }, { "-1 < 0", true },
  { p "yes", true }, { "!" .. p "yes", false }, { "!(" .. p "no" .. ")", true }, { p "yes" .. " == true", true },
  { p "yes" .. " == 1", false }, -- kinds that differ are never equal
  { p "s" .. " == 3", false }, { "'1' == 1", false }, { "1 == 1.0", true },
  { "true || false && false", true }, { "(true || false) && false", false },
  { "!(1 == 2) && 2 == 2", true }, { "1 < 2 && 2 <= 2 && 3 > 2 && 3 >= 3 && 1 != 2", true },
  { "'a' < 'b'", true }, { [['it\'s' == "it's"]], true }, { p "q" .. [[ == "it's"]], true },
  { [["\x41\u00e9" == "A\303\251"]], false }, { "r'a\\n' == 'a\\\\n'", true },
  { "'b' in ['a', 'b']", true }, { "3 in " .. p "list", false }, { "2 in " .. p "list", true },
  { "size(" .. p "list" .. ") == 2", true }, { "string(3) == '3'", true }, { "inputs.parameter_values.s == 'heads'",
    true },
  { "9007199254740993 == 9007199254740992.0", false }, -- exact across kinds
  -- either side decides alone
  { "true || " .. p "absent" .. " == 1", true }, { p "absent" .. " == 1 || true", true },
  { p "absent" .. " == 1 && false", false }, { "false && 'a' < 1", false },
}

local errors = {
  { p "absent" .. " == 1", "no parameter 'absent'" }, { "'a' < 1", "cannot order a string and a int" },
  { "1", "wants true or false, not a int" }, { "1 && true", "wants true or false" }, { "!3", "wants true or false" },
  { "int('x') == 1", "int(...) cannot convert the string x" }, { "false || 'a' < 1", "cannot order" },
  { "inputs.parameter_values['s'] != 'it's'", "column 38" }, { "1 ==", "ends too early" }, { "(1 == 1",
    "expected ')'" },
  { "'open", "not closed" }, { "inputs.other['x']", "only inputs.parameter_values" }, { "a == b", "unexpected 'a'" },
  { "1 == 1 1", "after the end" }, { "os.execute('x')", "unexpected 'os'" }, { "99999999999999999999 == 1",
    "out of range" },
  { "'int(inputs.parameter_values['x'])' == '1'", "unexpected 'x' after the end" }, { "", "ends too early" },
  { ("("):rep(200) .. "1" .. (")"):rep(200), "nested more than" }, { "1 = 1", "unexpected '='" },
}

local tests = {}
for _, case in ipairs(truths) do
  tests[#tests + 1] = { case[1], function()
    local value, why = cel.test(case[1], parameters)
    assert(value == case[2], ("gave %s (%s)"):format(tostring(value), tostring(why)))
    assert(cel.check(case[1]))
  end }
end
for _, case in ipairs(errors) do
  tests[#tests + 1] = { case[1], function()
    local value, why = cel.test(case[1], parameters)
    assert(value == nil and why and why:find(case[2], 1, true), ("gave %s: %s"):format(tostring(value), tostring(why)))
  end }
end
return tests
