-- seldon.validate: each rule of Seldon's webhook, with the field that it names; and what it only warns of.
local t = require "test"
local json = require "json"
local validate = require "seldon.validate"

local function container(name, image) return { name = name, image = image or "mlhost.local/m:1" } end

local function predictor(name, more)
  local out = {
    name = name or "main", graph = { name = "m", type = "MODEL" },
    componentSpecs = { { spec = { containers = { container "m" } } } },
  }
  for key, value in pairs(more or {}) do out[key] = value end
  return out
end

local function sdep(predictors, spec)
  local out = { metadata = { name = "digits" }, kind = "SeldonDeployment", spec = { predictors = predictors } }
  for key, value in pairs(spec or {}) do out.spec[key] = value end
  return out
end

local function fields_of(list)
  local out = {}
  for i, one in ipairs(list) do out[i] = one.field end
  return out
end

--- Exactly this field is refused, with this in the message.
local function refused(object, field, part)
  local problems = validate(object)
  t.eq(fields_of(problems), { field })
  t.holds(problems[1].message, part)
end

local function good(object) t.eq(fields_of((validate(object))), {}) end

local function warned(object, field, part)
  local problems, warnings = validate(object)
  t.eq(fields_of(problems), {})
  for _, one in ipairs(warnings) do
    if one.field == field then return t.holds(one.message, part) end
  end
  error(("no warning at %s among %s"):format(field, json.encode(fields_of(warnings))))
end

t.case("a plain one is good, without warnings", function()
  local problems, warnings = validate(sdep { predictor() })
  t.eq({ problems, warnings }, { {}, {} })
  good(sdep({ predictor("main", { traffic = 100 }) }, { protocol = "v2", transport = "rest", serverType = "rpc", replicas = 2 }))
end)

t.case("null means absent", function()
  local none = json.null
  good(sdep({ predictor("main", { traffic = none, replicas = none, explainer = none, annotations = none }) },
    { protocol = none, transport = none, replicas = none }))
  good(sdep { predictor("main", { graph = { name = "m", type = none, children = none, logger = none, endpoint = none } }) })
end)

t.case("what is no deployment at all", function()
  refused("text", "", "'text'")
  refused({ metadata = { name = "x" } }, "spec.predictors", "at least one")
  refused({ metadata = { name = "x" }, spec = { predictors = "main" } }, "spec.predictors", "a list")
  t.eq(fields_of((validate { metadata = { name = "x" }, spec = { "a" } })), { "spec", "spec.predictors" })
  refused(sdep { "main" }, "spec.predictors[0]", "a map")
end)

t.case("names", function()
  local object = sdep { predictor() }
  object.metadata.name = "Digits_1"
  refused(object, "metadata.name", "'Digits_1'")
  refused(sdep { predictor("Main") }, "spec.predictors[0].name", "'Main'")
  refused(sdep { predictor("a", { traffic = 50 }), predictor("a", { traffic = 50 }) }, "spec.predictors[1].name",
    "spec.predictors[0]")
  local odd = predictor("main", { graph = { name = "My_model" }, componentSpecs = { { spec = {
    containers = { container "My_model" } } } } })
  t.eq(fields_of((validate(sdep { odd }))),
    { "spec.predictors[0].componentSpecs[0].spec.containers[0].name", "spec.predictors[0].graph.name",
      "spec.predictors[0].graph" })
end)

t.case("words that must be of a set, with the near miss", function()
  refused(sdep({ predictor() }, { protocol = "sheldon" }), "spec.protocol", "did you mean 'seldon'")
  refused(sdep({ predictor() }, { transport = "soap" }), "spec.transport", "grpc, rest")
  refused(sdep({ predictor() }, { serverType = 7 }), "spec.serverType", "is 7")
  refused(sdep { predictor("main", { graph = { name = "m", type = "MODLE" } }) }, "spec.predictors[0].graph.type", "'MODEL'")
  refused(sdep { predictor("main", { graph = { name = "m", methods = { "ROUTE", "ROUT" } } }) },
    "spec.predictors[0].graph.methods[1]", "'ROUTE'")
  refused(sdep { predictor("main", { graph = { name = "m", parameters = { { name = "a", value = "1", type = "INTEGER" } } } }) },
    "spec.predictors[0].graph.parameters[0].type", "'INTEGER'")
end)

t.case("counts", function()
  refused(sdep { predictor("main", { replicas = -1 }) }, "spec.predictors[0].replicas", "-1")
  refused(sdep { predictor("main", { replicas = 1.5 }) }, "spec.predictors[0].replicas", "1.5")
  refused(sdep { predictor("main", { traffic = 101 }) }, "spec.predictors[0].traffic", "0 to 100")
  refused(sdep { predictor("main", { shadow = "yes" }) }, "spec.predictors[0].shadow", "true or false")
end)

t.case("traffic", function()
  local function split(...)
    local list = {}
    for i, weight in ipairs { ... } do list[i] = predictor("p" .. i, { traffic = weight }) end
    return sdep(list)
  end
  good(split(0))
  good(split(100))
  refused(split(50), "spec.predictors[0].traffic", "50")
  good(split(90, 10))
  refused(split(90, 5), "spec.predictors", "100, not 95")
  refused(split(90, 20), "spec.predictors", "110")
  local shadow = predictor("copy", { shadow = true, traffic = 30 })
  good(sdep { predictor("main", { traffic = 100 }), shadow })
  good(sdep { predictor(), shadow })
  refused(sdep { shadow }, "spec.predictors", "only predictor")
  refused(sdep { predictor(), shadow, predictor("more", { shadow = true }) }, "spec.predictors", "2 of them")
end)

t.case("a node needs an implementation or a container", function()
  local bare = predictor("main", { graph = { name = "n" } })
  refused(sdep { bare }, "spec.predictors[0].graph", "node 'n'")
  local deep = predictor("main", { graph = { name = "m", children = { { name = "m2" } } } })
  refused(sdep { deep }, "spec.predictors[0].graph.children[0]", "did you mean 'm'?")
  good(sdep { predictor("main", { graph = { name = "x", implementation = "SIMPLE_MODEL" } }) })
  refused(sdep { predictor("main", { graph = { name = "x", implementation = "UNKNOWN_IMPLEMENTATION" } }) },
    "spec.predictors[0].graph", "node 'x'")
  refused(sdep { predictor("main", { graph = { name = "m", type = "UNKNOWN_TYPE" } }) }, "spec.predictors[0].graph.methods",
    "UNKNOWN_TYPE")
  good(sdep { predictor("main", { graph = { name = "m", type = "UNKNOWN_TYPE", methods = { "ROUTE" } } }) })
  refused(sdep { predictor("main", { graph = json.null }) }, "spec.predictors[0].graph", "is needed")
  refused(sdep { predictor("main", { graph = {} }) }, "spec.predictors[0].graph.name", "is needed")
end)

t.case("prepackaged servers", function()
  local function server(what, uri, protocol, more)
    local graph = { name = "c", implementation = what, modelUri = uri }
    for key, value in pairs(more or {}) do graph[key] = value end
    return sdep({ predictor("main", { graph = graph, componentSpecs = {} }) }, { protocol = protocol })
  end
  good(server("SKLEARN_SERVER", "s3://m/iris"))
  refused(server "SKLEARN_SERVER", "spec.predictors[0].graph.modelUri", "SKLEARN_SERVER")
  good(server "HUGGINGFACE_SERVER")
  for _, what in ipairs { "SKLEARN_SERVER", "XGBOOST_SERVER", "MLFLOW_SERVER", "HUGGINGFACE_SERVER" } do
    refused(server(what, "s3://m", "tensorflow"), "spec.predictors[0].graph.implementation", "tensorflow")
  end
  good(server("TENSORFLOW_SERVER", "gs://m", "tensorflow"))
  warned(server("SKLEARN_SERVR", "s3://m"), "spec.predictors[0].graph.implementation", "did you mean 'SKLEARN_SERVER'?")
  warned(server("TRITON_SERVER", "s3://m"), "spec.predictors[0].graph.implementation", "v2 only")
  warned(server("MLFLOW_SERVER", "s3://m"), "spec.predictors[0].graph.implementation", "conda")
  warned(server("MLFLOW_SERVER", "models:/digits/7", "v2"), "spec.predictors[0].graph.modelUri", "models:")
  local _, warnings = validate(server("MLFLOW_SERVER", "s3://m", "v2"))
  t.eq(warnings, {})
end)

t.case("parameters are texts with a type", function()
  local function with(parameter) return sdep { predictor("main", { graph = { name = "m", parameters = { parameter } } }) } end
  good(with { name = "a", value = "1", type = "INT" })
  refused(with { name = "a", value = 1, type = "INT" }, "spec.predictors[0].graph.parameters[0].value", "a text")
  refused(with { name = "a", type = "INT" }, "spec.predictors[0].graph.parameters[0].value", "needed")
  refused(with { value = "1" }, "spec.predictors[0].graph.parameters[0].name", "needed")
end)

t.case("one endpoint type, that of the transport", function()
  local function types(first, second, transport)
    return sdep({ predictor("main", {
      graph = { name = "m", endpoint = { type = first }, children = { { name = "n", endpoint = { type = second } } } },
      componentSpecs = { { spec = { containers = { container "m", container "n" } } } },
    }) }, { transport = transport })
  end
  good(types("REST", "REST", "rest"))
  refused(types("REST", "GRPC"), "spec.predictors[0].graph.children[0].endpoint.type", "another node has REST")
  refused(types("REST", nil, "grpc"), "spec.predictors[0].graph.endpoint.type", "transport is grpc")
  local two = sdep {
    predictor("a", { traffic = 50, graph = { name = "m", endpoint = { type = "REST" } } }),
    predictor("b", { traffic = 50, graph = { name = "m", endpoint = { type = "GRPC" } } }),
  }
  refused(two, "spec.predictors[1].graph.endpoint.type", "REST")
end)

t.case("a logger says what it logs", function()
  refused(sdep { predictor("main", { graph = { name = "m", logger = { url = "http://x" } } }) },
    "spec.predictors[0].graph.logger.mode", "all, request or response")
  refused(sdep { predictor("main", { graph = { name = "m", logger = { mode = "every" } } }) },
    "spec.predictors[0].graph.logger.mode", "'every'")
  good(sdep { predictor("main", { graph = { name = "m", logger = { mode = "all" } } }) })
end)

t.case("annotations that exclude something", function()
  local two = predictor("main", {
    annotations = { ["seldon.io/no-engine"] = "true" }, graph = { name = "m", children = { { name = "n" } } },
    componentSpecs = { { spec = { containers = { container "m", container "n" } } } },
  })
  refused(sdep { two }, "spec.predictors[0].annotations[seldon.io/no-engine]", "has 2")
  good(sdep { predictor("main", { annotations = { ["seldon.io/no-engine"] = "true" } }) })
  local service = { ["seldon.io/svc-name"] = "digits" }
  refused(sdep { predictor("a", { traffic = 50, annotations = service }), predictor("b", { traffic = 50, annotations = service }) },
    "spec.predictors[1].annotations[seldon.io/svc-name]", "spec.predictors[0]")
end)

t.case("scaling", function()
  local function with(component)
    component.spec = { containers = { container "m" } }
    return sdep { predictor("main", { componentSpecs = { component } }) }
  end
  local at = "spec.predictors[0].componentSpecs[0]."
  good(with { hpaSpec = { minReplicas = 1, maxReplicas = 3 } })
  refused(with { hpaSpec = { minReplicas = 1 } }, at .. "hpaSpec.maxReplicas", "nothing")
  refused(with { hpaSpec = { minReplicas = 4, maxReplicas = 3 } }, at .. "hpaSpec.minReplicas", "more than maxReplicas")
  refused(with { kedaSpec = {} }, at .. "kedaSpec.triggers", "at least one")
  refused(with { hpaSpec = { maxReplicas = 3 }, kedaSpec = { triggers = { {} } } }, at .. "kedaSpec", "exclude")
  refused(with { pdbSpec = { minAvailable = 1, maxUnavailable = 1 } }, at .. "pdbSpec", "one of them")
end)

t.case("kafka needs to know where", function()
  t.eq(#(validate(sdep({ predictor() }, { serverType = "kafka" }))), 3)
  local env = {}
  for i, name in ipairs { "BROKER", "INPUT_TOPIC", "OUTPUT_TOPIC" } do env[i] = { name = "KAFKA_" .. name, value = "x" } end
  good(sdep({ predictor("main", { svcOrchSpec = { env = env } }) }, { serverType = "kafka" }))
end)

t.case("warnings: what is taken, and is not what was meant", function()
  warned(sdep { predictor("main", { traffic = 100 }), predictor("canary", { traffic = 0 }) }, "spec.predictors[1].traffic",
    "Ambassador")
  local _, warnings = validate(sdep { predictor("main", { traffic = 0 }), predictor("canary", { traffic = 100 }) })
  t.eq(warnings, {}, "the first one gets the rest: no trap")
  warned(sdep({ predictor() }, { predictor = {} }), "spec.predictor", "did you mean 'predictors'?")
  warned(sdep { predictor("main", { replica = 3 }) }, "spec.predictors[0].replica", "did you mean 'replicas'?")
  warned(sdep { predictor("main", { graph = { name = "m", parameter = {} } }) }, "spec.predictors[0].graph.parameter", "parameters")
  warned(sdep { predictor("main", { explainer = { type = "AnchorTabula" } }) }, "spec.predictors[0].explainer.type",
    "did you mean 'AnchorTabular'?")
  local long = sdep { predictor() }
  long.metadata.name = ("d"):rep(60)
  warned(long, "spec.predictors[0]", "seldon-<digest>")
  warned(sdep { predictor("main", { graph = { name = "far", endpoint = { service_host = "other.default" } } }) },
    "spec.predictors[0].graph", "service_host")
end)

t.case("every problem is found at once", function()
  local problems = validate {
    metadata = { name = "X" },
    spec = { protocol = "soap", predictors = { { name = "a", graph = { name = "m" } }, { name = "a", graph = {} } } },
  }
  t.eq(fields_of(problems), {
    "metadata.name", "spec.protocol", "spec.predictors[0].graph", "spec.predictors[1].name", "spec.predictors[1].graph.name",
    "spec.predictors",
  })
end)
