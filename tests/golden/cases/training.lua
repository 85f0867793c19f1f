-- The training pipeline of this project, against its twin in the official Python DSL (official/training.py).
return {
  {
    name = "training", golden = "training.yaml",
    compile = function(kf) return kf.compile(require "training") end,
  },
}
