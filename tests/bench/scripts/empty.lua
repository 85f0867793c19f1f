pipeline "empty" {}
stage "nothing" { run = function() end }
