---@meta
-- The globals of a pipeline script and of a component's file, for editors with a Lua language server.

---@alias duration string|number # "500ms", "90s", "1h30m", or seconds

---What every failed call raises; try() gives it back.
---@class mlhost.Error
---@field service? string # "fs", "registry", ...; nil for the script's own
---@field code string # "not_found", "denied", "timeout", ...
---@field status? integer # HTTP status or exit status
---@field message string
---@field hint? string # what to do next
---@field retryable? boolean # the same call may succeed later
---@field file? string
---@field line? integer

---@class mlhost.Permissions
---@field read? string[] # files, and folders with all below them
---@field write? string[]
---@field net? string[] # "host", "host:port", "*.example.com"
---@field exec? string[] # names of commands, or paths
---@field env? string[] # names of variables, with *
---@field ci? string[] # "commands": what the stage prints may be commands to the build agent

---@class mlhost.Parameter
---@field type? "string"|"int"|"number"|"bool"|"list"
---@field default? any
---@field choices? any[]
---@field required? boolean
---@field description? string

---@class mlhost.Pipeline
---@field params? table<string, any|mlhost.Parameter>
---@field permissions? mlhost.Permissions
---@field timeout? duration
---@field description? string
---@field env? table<string, string>

---@class mlhost.Context
---@field params table<string, any>
---@field matrix table<string, any> # this cell's value of each axis
---@field needs table<string, any> # outputs of the stages that it needs
---@field attempt integer # 1, 2, ...
---@field run_id string
---@field stage string
---@field pipeline string
---@field workspace string
---@field profile string
---@field resumed boolean
---@field env table<string, string>
---@field effects table # what earlier attempts made outside
---@field status? "ok"|"failed"|"timeout"|"denied"|"cancelled" # in `always`
---@field error? mlhost.Error # in `always`
---@field output? any # in `always`
---@field out fun(name?: string): string # path in the stage's output folder

---@class mlhost.Retry
---@field max integer # further attempts
---@field backoff? duration # before the first of them; doubles

---@class mlhost.Stage
---@field run fun(cx: mlhost.Context): any
---@field needs? string[]
---@field matrix? table<string, any[]>
---@field when? fun(cx: mlhost.Context): boolean, string? # false skips the stage; the text says why
---@field retry? mlhost.Retry
---@field timeout? duration
---@field always? fun(cx: mlhost.Context) # in a fresh process when the stage is over, however it ended
---@field allow_failure? boolean
---@field permissions? mlhost.Permissions
---@field description? string

---pipeline "name" { ... }
---@param name string
---@return fun(spec: mlhost.Pipeline)
function pipeline(name) end

---stage "name" { run = function(cx) ... end }
---@param name string
---@return fun(spec: mlhost.Stage)
function stage(name) end

---@class mlhost.Component
---@field inputs? table<string, any> # name -> type, or { type, default =, optional =, description = }
---@field outputs? table<string, any>
---@field permissions? mlhost.Permissions
---@field description? string
---@field run fun(cx: mlhost.ComponentContext)

---@class mlhost.ComponentContext
---@field inputs table<string, any>
---@field outputs table<string, string> # paths
---@field folder string # the script's
---@field name string
---@field output fun(name: string, value: any)
---@field metadata fun(output: string, map: table)

---component "name" { ... }, in a file for `mlhost component`
---@param name string
---@return fun(spec: mlhost.Component)
function component(name) end

---A line on the stage's output.
---@param ... any
function print(...) end

---@class mlhost.Log
---@field debug fun(format: any, ...)
---@field info fun(format: any, ...)
---@field warning fun(format: any, ...)
---@field error fun(format: any, ...)
log = {}

---How far something is; total nil: unknown.
---@param label string
---@param done number
---@param total? number
---@param unit? string
function progress(label, done, total, unit) end

---Waits; ends early when the stage does.
---@param time duration
function sleep(time) end

---A variable for the CI system that runs mlhost.
---@param name string
---@param value string|number|boolean|mlhost.Handle
---@param options? { output?: boolean, secret?: boolean }
function set_variable(name, value, options) end

---@class mlhost.Report
---@field link fun(title: string, url: string)
---@field summary fun(markdown: string, title?: string)
---@field junit fun(path: string, title?: string)
report = {}

---What fn returns, or nil and the error.
---@generic T
---@param fn fun(...): T
---@param ... any
---@return T?, mlhost.Error?
function try(fn, ...) end

---Runs fn when the stage's function has ended, however it ended; the last one first.
---@param fn fun()
function defer(fn) end

---In a run with --debug the debugger opens here; else this is a debug line in the log.
function breakpoint() end

---Runs fn(item, index) for up to n items side by side; the results are in the order of the items.
---@generic T, R
---@param n integer
---@param items T[]
---@param fn fun(item: T, index: integer): R
---@return R[]
function parallel(n, items, fn) end
