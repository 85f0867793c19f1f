local hash, host = require "hash", require "host"

pipeline "greet" {
  params = { name = "world" },
}

stage "greet" {
  run = function(cx)
    local greeting = host.example.greet { name = cx.params.name, times = 2 }
    print(greeting.text, #greeting.all)
    print("letters l in this file:", host.example.count("greet.lua", "l") > 0)
    return { text = greeting.text, stage = greeting.stage, digest = hash.sha256(greeting.text) }
  end,
}

stage "fails" {
  needs = { "greet" },
  run = function()
    local _, err = try(host.example.greet, "you", 11)
    print(err.service, err.code, err.hint)
    local _, denied = try(host.example.count, "/etc/passwd", "l")
    print(denied.code)
  end,
}
