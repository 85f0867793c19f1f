-- Components alone, and their placeholders, types and command lines.
return {
  {
    name = "container_no_input", golden = "container_no_input.yaml",
    compile = function(kf)
      return kf.compile(kf.component {
        name = "container_no_input", image = "registry.access.redhat.com/ubi9/python-311:latest", command = { "echo", "hello world" },
      })
    end,
  },
}
