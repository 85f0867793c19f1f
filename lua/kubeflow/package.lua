-- A compiled pipeline: the documents, and their text.
local emit = require "kubeflow.emit"
local fail = require "kubeflow.fail"
local merge = require "kubeflow.merge"
local types = require "kubeflow.types"

local package = {}

local Package = {}
Package.__index = Package

local SCHEMA, SDK = "2.1.0", "mlhost-1"

local function with_defaults(root, params)
  if not params then return root end
  root = merge.copy(root)
  local known = root.inputDefinitions and root.inputDefinitions.parameters or {}
  for name, value in pairs(params) do
    if not known[name] then
      fail.raise("compile: the pipeline has no parameter '%s'%s", name, fail.near(name, fail.sorted_keys(known)))
    end
    known[name].defaultValue = value
  end
  return root
end

--- mlhost.local/training:1f2e -> training
local function last_part(image)
  return (image:match "([^/]*)$":gsub("@.*$", ""):gsub(":.*$", ""))
end

--- Executors with other images: by component, by the whole reference, or by the image's own name.
local function with_images(compiled, images)
  if not images or next(images) == nil then return compiled.executors end
  for name, image in pairs(images) do
    if type(image) ~= "string" or image == "" then
      fail.raise("compile: images: the reference for '%s' is a text, not %s", tostring(name), tostring(image))
    end
  end
  local executors = {}
  for label, executor in pairs(compiled.executors) do
    local container, name = executor.container, compiled.image_of[label]
    local image = container and name and (images[name] or images[container.image] or images[last_part(container.image)])
    if image then
      container = merge.copy(container)
      container.image = image
      executor = { container = container }
    end
    executors[label] = executor
  end
  return executors
end

--- new(compiled, { name?, display_name?, params?, images?, note? }) -> package
---   package.name      string
---   package.spec      table   PipelineSpec; to be read only, since packages of one pipeline share parts
---   package.platform  table   platform document, or nil
function package.new(compiled, options)
  local spec = {
    components = next(compiled.components) and compiled.components or nil,
    deploymentSpec = next(compiled.executors) and { executors = with_images(compiled, options.images) } or nil,
    pipelineInfo = {
      name = options.name or compiled.name, displayName = options.display_name or compiled.display_name,
      description = compiled.description,
    },
    root = with_defaults(compiled.root, options.params),
    defaultPipelineRoot = compiled.pipeline_root,
    schemaVersion = SCHEMA,
    sdkVersion = SDK,
  }
  local kubernetes = {
    deploymentSpec = next(compiled.platform) and { executors = compiled.platform } or nil,
    pipelineConfig = compiled.config,
  }
  return setmetatable({
    name = spec.pipelineInfo.name, spec = spec, tasks = compiled.tasks, note = options.note,
    platform = next(kubernetes) and { platforms = { kubernetes = kubernetes } } or nil,
  }, Package)
end

-- ---- header ----

--- One line of a comment: nothing in it can end the comment.
local function comment(text) return (text:gsub("[%c\127-\255]", function(char)
  return char == "\t" and " " or ("\\x%02X"):format(char:byte())
end)) end

local function shown_default(value)
  if type(value) == "string" then return "'" .. value .. "'" end
  return emit.spaced(value)
end

local function signature(lines, title, definitions)
  if not definitions then return end
  local entries = {}
  for name, p in pairs(definitions.parameters or {}) do
    local text = ("%s: %s"):format(name, types.short_parameter(p.parameterType))
    if p.defaultValue ~= nil then text = ("%s [Default: %s]"):format(text, shown_default(p.defaultValue)) end
    entries[#entries + 1] = text
  end
  for name, a in pairs(definitions.artifacts or {}) do
    entries[#entries + 1] = ("%s: %s"):format(name, a.artifactType.schemaTitle)
  end
  table.sort(entries)
  lines[#lines + 1] = title
  for _, entry in ipairs(entries) do lines[#lines + 1] = "#    " .. comment(entry) end
end

local function header(self)
  local lines = { "# PIPELINE DEFINITION", "# Name: " .. comment(self.name) }
  local lead = "# Description: "
  for line in (self.note or ""):gmatch "[^\r\n]+" do
    lines[#lines + 1] = lead .. comment(line)
    lead = "#              "
  end
  signature(lines, "# Inputs:", self.spec.root.inputDefinitions)
  signature(lines, "# Outputs:", self.spec.root.outputDefinitions)
  return table.concat(lines, "\n") .. "\n"
end

--- package:yaml() -> text, as the official SDK and servers read it: the pipeline, and the platform document if any
function Package:yaml()
  local text = header(self) .. emit.yaml(self.spec)
  if self.platform then text = text .. "---\n" .. emit.yaml(self.platform) end
  return text
end

--- package:json() -> text; with a platform document { pipeline_spec, platform_spec }, as the API takes both in one
function Package:json()
  return emit.json(self.platform and { pipeline_spec = self.spec, platform_spec = self.platform } or self.spec) .. "\n"
end

--- package:digest_input() -> text that is equal for equal pipelines, to be hashed
function Package:digest_input()
  return emit.canonical { pipeline_spec = self.spec, platform_spec = self.platform }
end

--- package:task_count() -> number of tasks, those of nested pipelines too
function Package:task_count() return self.tasks end

return package
