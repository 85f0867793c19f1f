-- Pipelines and their versions: uploaded IR, checked before it is stored.
local errors = require "local.kubeflow.errors"
local ir = require "local.runner.ir"
local json = require "local.json"
local list = require "local.kubeflow.list"
local message = require "local.kubeflow.message"
local multipart = require "local.kubeflow.multipart"
local yaml = require "yaml"

local pipelines = {}

local UPLOAD_LIMIT = 32 << 20

local fields = {
  id = "id", pipeline_id = "id", name = "name", display_name = "display_name", created_at = "created_at",
  description = "description", namespace = "namespace", ["tags."] = true,
}
local version_fields = {
  id = "id", pipeline_version_id = "id", name = "name", display_name = "display_name", created_at = "created_at",
  description = "description", status = "status", pipeline_spec = "spec", ["tags."] = true,
}

local function tags_of(row)
  return row.tags and row.tags ~= "" and json.decode(row.tags) or nil
end

local function shown(row)
  return {
    pipeline_id = row.id, name = row.name, display_name = row.display_name, description = message.text(row.description),
    created_at = list.print_time(row.created_at), namespace = message.text(row.namespace), tags = tags_of(row),
  }
end

--- A stored { pipeline_spec, platform_spec } as the API gives it: the IR alone where there is no platform part.
function pipelines.spec_shown(text)
  local spec = json.decode(text)
  return spec.platform_spec and spec or spec.pipeline_spec
end

local function version_shown(row)
  return {
    pipeline_id = row.pipeline_id, pipeline_version_id = row.id, name = row.name, display_name = row.display_name,
    description = message.text(row.description), created_at = list.print_time(row.created_at),
    code_source_url = message.text(row.code_source_url), tags = tags_of(row),
    pipeline_spec = pipelines.spec_shown(row.spec),
  }
end

local function find(service, id)
  return service.db:one("SELECT * FROM pipelines WHERE id = ?", id)
         or errors.raise(errors.NOT_FOUND, "pipeline %s not found", id)
end

local function find_version(service, id, version_id)
  return service.db:one("SELECT * FROM versions WHERE id = ? AND pipeline_id = ?", version_id, id)
         or errors.raise(errors.NOT_FOUND, "pipeline %s has no version %s", id, version_id)
end

--- The version that a run names; without a version id the newest one.
function pipelines.version(service, id, version_id)
  if version_id and version_id ~= "" then
    return id and id ~= "" and find_version(service, id, version_id)
           or service.db:one("SELECT * FROM versions WHERE id = ?", version_id)
           or errors.raise(errors.NOT_FOUND, "pipeline version %s not found", version_id)
  end
  find(service, id)
  return service.db:one("SELECT * FROM versions WHERE pipeline_id = ? ORDER BY created_at DESC, rowid DESC LIMIT 1", id)
         or errors.raise(errors.NOT_FOUND, "pipeline %s has no version yet", id)
end

--- Checks a spec (IR alone, or { pipeline_spec, platform_spec }) and gives it in the stored form.
function pipelines.checked(tree)
  local spec, why = ir.from_documents({ tree })
  why = why or ir.problem(spec.pipeline_spec)
  if why then
    errors.raise(errors.INVALID, "invalid pipeline spec: %s", why)
  end
  return spec
end

local function parse_file(part)
  if #part.data > UPLOAD_LIMIT then
    errors.raise(errors.INVALID, "the file is larger than 32 MiB")
  elseif part.data:sub(1, 4) == "PK\3\4" or part.data:sub(1, 2) == "\31\139" then
    errors.raise(errors.INVALID, "archives are not taken here: upload the pipeline's .yaml or .json itself")
  elseif not part.data:find("%S") then
    errors.raise(errors.INVALID, "the file is empty")
  end
  local documents, why = yaml.decode(part.data, part.filename ~= "" and part.filename or "pipeline.yaml")
  if not documents then
    errors.raise(errors.INVALID, "invalid pipeline file: %s", why)
  end
  local spec
  spec, why = ir.from_documents(documents)
  why = why or ir.problem(spec.pipeline_spec)
  if why then
    errors.raise(errors.INVALID, "invalid pipeline spec: %s", why)
  end
  return spec
end

local function read_tags(text)
  if not text or text == "" then
    return nil
  end
  local ok, tags = pcall(json.decode, text)
  if not ok or not json.is_object(tags) then
    errors.raise(errors.INVALID, "tags must be a JSON map of texts")
  end
  for name, value in pairs(tags) do
    if type(value) ~= "string" or #name > 63 or #value > 253 then
      errors.raise(errors.INVALID, "tag '%s': tags are texts, names up to 63 bytes, values up to 253", tostring(name))
    end
  end
  return text
end

local function add_pipeline(service, given)
  local name = given.name
  if not name or name == "" then
    errors.raise(errors.INVALID, "the pipeline needs a name")
  elseif #name > 128 then
    errors.raise(errors.INVALID, "the pipeline's name is longer than 128 bytes")
  elseif service.db:one("SELECT id FROM pipelines WHERE name = ?", name) then
    errors.raise(errors.EXISTS, "a pipeline named '%s' exists already: upload a new version of it", name)
  end
  local id = service.new_id()
  service.db:run("INSERT INTO pipelines (id, name, display_name, description, created_at, namespace, tags) "
                 .. "VALUES (?, ?, ?, ?, ?, ?, ?)", id, name, given.display_name or name, given.description or "",
                 service.now(), given.namespace or "", given.tags)
  return id
end

local function add_version(service, pipeline_id, given, spec)
  local name = given.name
  if not name or name == "" then
    errors.raise(errors.INVALID, "the pipeline version needs a name")
  elseif service.db:one("SELECT id FROM versions WHERE pipeline_id = ? AND name = ?", pipeline_id, name) then
    errors.raise(errors.EXISTS, "the pipeline has a version named '%s' already", name)
  end
  local id = service.new_id()
  service.db:run("INSERT INTO versions (id, pipeline_id, name, display_name, description, created_at, "
                 .. "code_source_url, tags, spec) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", id, pipeline_id, name,
                 given.display_name or name,
                 given.description or "", service.now(), given.code_source_url or "", given.tags, json.encode(spec))
  return id
end

local function uploaded(request)
  local part, why = multipart.part(request.headers["content-type"], request.body, "uploadfile")
  if not part then
    errors.raise(errors.INVALID, "%s", why)
  end
  local query = request.query
  local function given(name)
    return query[name] ~= "" and query[name] or nil
  end
  local name = given("name") or given("display_name") or part.filename:match("([^/]+)$")
  return parse_file(part), {
    name = name, display_name = given("display_name") or name, description = given("description"),
    namespace = given("namespace"), code_source_url = given("code_source_url"), tags = read_tags(query.tags),
  }
end

function pipelines.upload(service, request)
  local spec, given = uploaded(request)
  local id
  service.db:transaction(function()
    id = add_pipeline(service, given)
    add_version(service, id, given, spec)
  end)
  return shown(find(service, id))
end

function pipelines.upload_version(service, request)
  local spec, given = uploaded(request)
  local id = request.query.pipelineid
  if not id or id == "" then
    errors.raise(errors.INVALID, "the query must name the pipeline: pipelineid=...")
  end
  find(service, id)
  local version_id
  service.db:transaction(function() version_id = add_version(service, id, given, spec) end)
  return version_shown(find_version(service, id, version_id))
end

function pipelines.create(service, request)
  local given = message.read(request.body, "Pipeline")
  given.name = given.name or given.display_name
  given.tags = given.tags and read_tags(json.encode(given.tags))
  return shown(find(service, add_pipeline(service, given)))
end

function pipelines.create_with_version(service, request)
  local given = message.read(request.body, "CreatePipelineAndVersionRequest")
  local pipeline, version = given.pipeline or {}, given.pipeline_version or {}
  local id
  pipeline.name = pipeline.name or pipeline.display_name
  pipeline.tags = pipeline.tags and read_tags(json.encode(pipeline.tags))
  service.db:transaction(function()
    id = add_pipeline(service, pipeline)
    version.name = version.name or version.display_name or pipeline.name
    pipelines.add_given_version(service, id, version)
  end)
  return shown(find(service, id))
end

--- A version from a message. A package_url would make this server fetch from the net; it does not.
function pipelines.add_given_version(service, id, given)
  if not given.pipeline_spec then
    errors.raise(given.package_url and errors.UNIMPLEMENTED or errors.INVALID,
                 "pipeline_version.pipeline_spec is missing: the embedded service fetches no package_url; send "
                 .. "the spec, or upload the file to /apis/v2beta1/pipelines/upload_version")
  end
  given.name = given.name or given.display_name
  given.tags = given.tags and read_tags(json.encode(given.tags))
  return add_version(service, id, given, pipelines.checked(given.pipeline_spec))
end

function pipelines.create_version(service, request, id)
  find(service, id)
  local given = message.read(request.body, "PipelineVersion")
  local version_id
  service.db:transaction(function() version_id = pipelines.add_given_version(service, id, given) end)
  return version_shown(find_version(service, id, version_id))
end

function pipelines.list(service, request)
  local rows, token, total = list.rows({ db = service.db, from = "pipelines", fields = fields, query = request.query })
  local items = json.array({})
  for i, row in ipairs(rows) do
    items[i] = shown(row)
  end
  return { pipelines = #items > 0 and items or nil, next_page_token = token, total_size = total }
end

function pipelines.get(service, _, id)
  return shown(find(service, id))
end

function pipelines.by_name(service, _, name)
  local row = service.db:one("SELECT * FROM pipelines WHERE name = ?", name)
  return shown(row or errors.raise(errors.NOT_FOUND, "there is no pipeline named '%s'", name))
end

local function update(service, table_name, row, request, kind)
  local given = message.read(request.body, kind)
  local tags = given.tags and read_tags(json.encode(given.tags))
  service.db:run(("UPDATE %s SET display_name = ?, tags = ? WHERE id = ?"):format(table_name),
                 given.display_name or row.display_name, tags or row.tags, row.id)
end

function pipelines.update(service, request, id)
  update(service, "pipelines", find(service, id), request, "Pipeline")
  return shown(find(service, id))
end

function pipelines.update_version(service, request, id, version_id)
  update(service, "versions", find_version(service, id, version_id), request, "PipelineVersion")
  return version_shown(find_version(service, id, version_id))
end

function pipelines.delete(service, request, id)
  find(service, id)
  local count = service.db:value("SELECT count(*) FROM versions WHERE pipeline_id = ?", id)
  if count > 0 and request.query.cascade ~= "true" then
    errors.raise(errors.INVALID, "the pipeline has %d versions: delete them first, or send cascade=true", count)
  end
  service.db:transaction(function()
    service.db:run("DELETE FROM versions WHERE pipeline_id = ?", id)
    service.db:run("DELETE FROM pipelines WHERE id = ?", id)
  end)
  return {}
end

function pipelines.list_versions(service, request, id)
  find(service, id)
  local rows, token, total = list.rows({ db = service.db, from = "versions", fields = version_fields,
    query = request.query,
                                         where = { "pipeline_id = ?" }, arguments = { id } })
  local items = json.array({})
  for i, row in ipairs(rows) do
    items[i] = version_shown(row)
  end
  return { pipeline_versions = #items > 0 and items or nil, next_page_token = token, total_size = total }
end

function pipelines.get_version(service, _, id, version_id)
  return version_shown(find_version(service, id, version_id))
end

function pipelines.delete_version(service, _, id, version_id)
  find_version(service, id, version_id)
  service.db:run("DELETE FROM versions WHERE id = ?", version_id)
  return {}
end

return pipelines
