-- luacheck: read globals FOLDER
-- The API over a real database; runs are not started here (tests/integration/serve_kfp.py does that).
local json = require "json"
local started, living = {}, {}
package.loaded.runner = {
  start = function(dir, id)
    started[#started + 1] = { dir = dir, id = id }
    living[dir] = true
    return true
  end,
  alive = function(dir) return living[dir] or false end,
  stop = function(dir) living[dir] = nil end,
  stop_all = function() end,
}
local sys = require "sys"
sys.mkdir(FOLDER .. "/kubeflow")
local service = (require "local.kubeflow")({ dir = FOLDER .. "/kubeflow", state = FOLDER, url = "http://127.0.0.1:1",
                                             workspace = FOLDER })

local function call(method, path, body, query, headers)
  local text = type(body) == "table" and json.encode(body) or body or ""
  local response = service.handle({ method = method, path = path, query = query or {}, headers = headers or {},
    body = text })
  return response.status, response.body and json.decode(response.body) or {}, response
end
local function good(...)
  local status, body = call(...)
  assert(status == 200, ("status %d: %s"):format(status, json.encode(body)))
  return body
end
local function bad(wanted, text, ...)
  local status, body = call(...)
  local message = body.details and body.details[1].message or body.error_message
  assert(status == wanted and tostring(message):find(text, 1, true), ("status %d: %s"):format(status,
    json.encode(body)))
end

local IR = [[
schemaVersion: 2.1.0
pipelineInfo: {name: hello}
root:
  dag: {tasks: {a: {componentRef: {name: comp-a}}}}
  inputDefinitions: {parameters: {n: {parameterType: NUMBER_INTEGER, defaultValue: 3.0}, s: {parameterType: STRING}}}
components: {comp-a: {executorLabel: exec-a}}
deploymentSpec: {executors: {exec-a: {container: {image: x}}}}
]]
local function upload(path, query, text, filename)
  local body = ('--b\r\nContent-Disposition: form-data; name="uploadfile"; filename="%s"\r\n'
                .. 'Content-Type: application/x-yaml\r\n\r\n%s\r\n--b--\r\n')
    :format(filename or "hello.yaml", text or IR)
  return "POST", path, body, query, { ["content-type"] = "multipart/form-data; boundary=b" }
end
local V2 = "/apis/v2beta1/"
local pipeline, version, experiment

return {
  { "health", function()
    assert(good("GET", V2 .. "healthz").multi_user == false and good("GET", "/apis/v1beta1/healthz"))
    good("GET", "/apis/v1beta1/auth")
    bad(404, "Not Found", "GET", V2 .. "nonsense")
    bad(501, "Method Not Allowed", "PUT", V2 .. "runs")
  end },
  { "experiments", function()
    local default = good("GET", V2 .. "experiments").experiments[1]
    assert(default.display_name == "Default" and default.storage_state == "AVAILABLE")
    experiment = good("POST", V2 .. "experiments", { displayName = "mine", description = "d" })
    assert(experiment.experiment_id and experiment.created_at:match("^%d+%-%d+%-%d+T.*Z$"))
    bad(409, "exists already", "POST", V2 .. "experiments", { display_name = "mine" })
    bad(400, "must not be empty", "POST", V2 .. "experiments", {})
    bad(400, "unknown field 'nmae'", "POST", V2 .. "experiments", { nmae = "x" })
    bad(400, "no JSON", "POST", V2 .. "experiments", "{")
    bad(404, "not found", "GET", V2 .. "experiments/none")
    good("POST", V2 .. "experiments/" .. experiment.experiment_id .. ":archive")
    assert(good("GET", V2 .. "experiments/" .. experiment.experiment_id).storage_state == "ARCHIVED")
    good("POST", V2 .. "experiments/" .. experiment.experiment_id .. ":unarchive")
  end },
  { "upload", function()
    pipeline = good(upload(V2 .. "pipelines/upload", { name = "p", tags = '{"team":"a"}' }))
    assert(pipeline.name == "p" and pipeline.display_name == "p" and pipeline.tags.team == "a")
    bad(409, "exists already", upload(V2 .. "pipelines/upload", { name = "p" }))
    version = good(upload(V2 .. "pipelines/upload_version", { name = "v2", pipelineid = pipeline.pipeline_id }))
    assert(version.pipeline_spec.pipelineInfo.name == "hello" and version.pipeline_id == pipeline.pipeline_id)
    bad(409, "has a version named 'v2'", upload(V2 .. "pipelines/upload_version", { name = "v2",
      pipelineid = pipeline.pipeline_id }))
    bad(404, "not found", upload(V2 .. "pipelines/upload_version", { name = "v3", pipelineid = "p" }))
    bad(400, "schemaVersion", upload(V2 .. "pipelines/upload", { name = "q" }, "schemaVersion: 2.0.0"))
    bad(400, "hello.yaml:3", upload(V2 .. "pipelines/upload", { name = "q" }, "a: 1\nb: [1"))
    bad(400, "file is empty", upload(V2 .. "pipelines/upload", { name = "q" }, ""))
    bad(400, "archives", upload(V2 .. "pipelines/upload", { name = "q" }, "PK\3\4xx", "x.zip"))
    bad(400, "uploadfile", "POST", V2 .. "pipelines/upload", "x", {}, { ["content-type"] = "text/plain" })
    assert(good(upload(V2 .. "pipelines/upload", {})).name == "hello.yaml")
  end },
  { "pipelines", function()
    assert(good("GET", V2 .. "pipelines/names/p").pipeline_id == pipeline.pipeline_id)
    bad(404, "no pipeline named", "GET", V2 .. "pipelines/names/none")
    local listed = good("GET", V2 .. "pipelines/" .. pipeline.pipeline_id .. "/versions", nil,
      { sort_by = "created_at desc" })
    assert(listed.total_size == 2 and listed.pipeline_versions[1].name == "v2")
    assert(good("PATCH", V2 .. "pipelines/" .. pipeline.pipeline_id, { display_name = "P" }).display_name == "P")
    local made = good("POST", V2 .. "pipelines", { display_name = "empty" })
    bad(404, "no version yet", "POST", V2 .. "runs", { display_name = "r",
        pipeline_version_reference = { pipeline_id = made.pipeline_id } })
    local by_spec = good("POST", V2 .. "pipelines/" .. made.pipeline_id .. "/versions",
                         { display_name = "v", pipeline_spec = version.pipeline_spec })
    bad(501, "package_url", "POST", V2 .. "pipelines/" .. made.pipeline_id .. "/versions",
        { display_name = "w", package_url = { pipeline_url = "https://x/y.yaml" } })
    bad(400, "cascade=true", "DELETE", V2 .. "pipelines/" .. made.pipeline_id)
    good("DELETE", V2 .. "pipelines/" .. made.pipeline_id .. "/versions/" .. by_spec.pipeline_version_id)
    good("DELETE", V2 .. "pipelines/" .. made.pipeline_id)
  end },
  { "listing: pages, order, filters", function()
    for i = 1, 25 do
      good("POST", V2 .. "experiments", { display_name = ("e%02d"):format(i) })
    end
    local seen, token, pages = {}, nil, 0
    repeat
      local page = good("GET", V2 .. "experiments", nil, { page_size = "10", page_token = token,
        sort_by = not token and "name desc" or nil })
      for _, one in ipairs(page.experiments) do
        seen[#seen + 1] = one.display_name
      end
      assert(page.total_size == 27)
      token, pages = page.next_page_token, pages + 1
    until not token
    assert(#seen == 27 and pages == 3 and seen[1] == "mine" and seen[2] == "e25" and seen[27] == "Default",
      table.concat(seen, " "))
    assert(#good("GET", V2 .. "experiments").experiments == 20)
    local page = good("GET", V2 .. "experiments", nil, { page_size = "1", sort_by = "name" })
    bad(400, "does not match", "GET", V2 .. "experiments", nil, { page_token = page.next_page_token, sort_by = "id" })
    bad(400, "page token", "GET", V2 .. "experiments", nil, { page_token = "%%%" })
    bad(400, "page_size", "GET", V2 .. "experiments", nil, { page_size = "-1" })
    bad(400, "sort_by", "GET", V2 .. "experiments", nil, { sort_by = "1; DROP TABLE runs" })
    local function filtered(predicate)
      return good("GET", V2 .. "experiments", nil, { filter = json.encode({ predicates = { predicate } }) }).total_size
    end
    assert(filtered({ operation = "EQUALS", key = "display_name", string_value = "e07" }) == 1)
    assert(filtered({ operation = "EQUALS", key = "display_name", stringValue = "' OR 1=1 --" }) == 0)
    assert(filtered({ op = 1, key = "name", string_value = "e07" }) == 1)
    assert(filtered({ operation = "NOT_EQUALS", key = "name", string_value = "e07" }) == 26)
    assert(filtered({ operation = "IS_SUBSTRING", key = "name", string_value = "e1" }) == 10)
    assert(filtered({ operation = "IN", key = "name", string_values = { values = { "e01", "e02" } } }) == 2)
    assert(filtered({ operation = "GREATER_THAN", key = "created_at", timestamp_value = "2001-01-01T00:00:00Z" }) == 27)
    bad(400, "unknown key", "GET", V2 .. "experiments", nil,
      { filter = '{"predicates":[{"operation":"EQUALS","key":"id) OR (1","string_value":"x"}]}' })
    bad(400, "unknown operation", "GET", V2 .. "experiments", nil,
      { filter = '{"predicates":[{"operation":"SQL","key":"name","string_value":"x"}]}' })
    bad(400, "filter must be JSON", "GET", V2 .. "experiments", nil, { filter = "{" })
    assert(good("GET", V2 .. "pipelines", nil,
      { filter = '{"predicates":[{"operation":"EQUALS","key":"tags.team","string_value":"a"}]}' }).total_size == 1)
  end },
  { "runs: what is wrong is said at once", function()
    local reference = { pipeline_id = pipeline.pipeline_id }
    bad(400, "display_name", "POST", V2 .. "runs", { pipeline_version_reference = reference })
    bad(400, "exactly one", "POST", V2 .. "runs", { display_name = "r" })
    bad(400, "'s' (STRING) is missing", "POST", V2 .. "runs", { display_name = "r",
      pipeline_version_reference = reference })
    bad(400, "has no parameter 'z'", "POST", V2 .. "runs", { display_name = "r", pipeline_version_reference = reference,
        runtime_config = { parameters = { s = "x", z = 1 } } })
    bad(400, "'n' must be an integer", "POST", V2 .. "runs", { display_name = "r",
      pipeline_version_reference = reference,
        runtime_config = { parameters = { s = "x", n = "1" } } })
    bad(404, "experiment none not found", "POST", V2 .. "runs", { display_name = "r",
      pipeline_version_reference = reference,
        experiment_id = "none", runtime_config = { parameters = { s = "x" } } })
    assert(#started == 0)
  end },
  { "runs: the life of one", function()
    local run = good("POST", V2 .. "runs", { display_name = "r", experiment_id = experiment.experiment_id,
      pipeline_version_reference = { pipeline_id = pipeline.pipeline_id,
        pipeline_version_id = version.pipeline_version_id },
      runtime_config = { parameters = { s = "at [[RunUUID]]" } } })
    assert(run.state == "PENDING" and run.pipeline_version_reference.pipeline_version_id == version.pipeline_version_id)
    local dir = started[1].dir
    local spec = json.decode(sys.read(dir .. "/spec.json"))
    assert(spec.parameters.s == "at " .. run.run_id and spec.parameters.n == 3
      and spec.serve_url == "http://127.0.0.1:1")
    sys.write(dir .. "/state.json", json.encode({ state = "RUNNING", tasks = {} }))
    assert(good("GET", V2 .. "runs/" .. run.run_id).state == "RUNNING")
    good("POST", V2 .. "runs/" .. run.run_id .. ":terminate")
    assert(not living[dir])
    sys.write(dir .. "/state.json", json.encode({ state = "FAILED", error = { code = 1, message = "terminated" },
      finished_at = 1e12,
      tasks = { { task_id = "t1", key = "root.a", name = "a", display_name = "A", pod_name = "root.a",
        state = "CANCELED",
                  create_time = 1e12, state_history = { { update_time = 1e12, state = "CANCELED" } } } } }))
    run = good("GET", V2 .. "runs/" .. run.run_id)
    assert(run.state == "FAILED" and run.error.message == "terminated" and run.finished_at == "2001-09-09T01:46:40Z")
    assert(run.run_details.task_details[1].display_name == "A" and #run.state_history == 4)
    bad(400, "ended already", "POST", V2 .. "runs/" .. run.run_id .. ":terminate")
    good("POST", V2 .. "runs/" .. run.run_id .. ":retry")
    assert(good("GET", V2 .. "runs/" .. run.run_id).state == "PENDING" and #started == 2)
    assert(json.decode(sys.read(dir .. "/spec.json")).retry == true)
    bad(400, "only a run that failed", "POST", V2 .. "runs/" .. run.run_id .. ":retry")
    living[dir] = nil -- killed: no last word
    run = good("GET", V2 .. "runs/" .. run.run_id)
    assert(run.state == "FAILED" and run.error.message:find("process ended before", 1, true))
    good("POST", V2 .. "runs/" .. run.run_id .. ":archive")
    local archived = '{"predicates":[{"operation":"EQUALS","key":"storage_state","string_value":"ARCHIVED"}]}'
    assert(good("GET", V2 .. "runs", nil, { filter = archived }).total_size == 1)
    assert(good("GET", V2 .. "runs", nil, { experiment_id = experiment.experiment_id }).total_size == 1)
    bad(404, "has no task", "GET", "/apis/v1alpha1/runs/" .. run.run_id .. "/nodes/zz/log")
    good("DELETE", V2 .. "runs/" .. run.run_id)
    assert(sys.stat(dir) == nil)
    bad(404, "not found", "GET", V2 .. "runs/" .. run.run_id)
  end },
}
