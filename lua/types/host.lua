---@meta host
-- Written by `mlhost help --format luals`.

---An object that lives in the host: a secret, a client. It can be passed on, not looked into.
---@class mlhost.Handle

---@class host
local host = {}

---@class host.approval
host.approval = {}

---a person's yes: asked at the terminal, or given before with --approve NAME
---@param name string
---@param question string
---@param timeout? string|number # duration
---@return table answer
---@overload fun(args: { name: string, question: string, timeout?: string|number }): table
function host.approval.ask(name, question, timeout) end

---@class host.azdo
host.azdo = {}

---results of a test run
---@param client mlhost.Handle # service
---@param project string
---@param run_id integer # int
---@param results any[] # array
---@return table reply
---@overload fun(args: { client: mlhost.Handle, project: string, run_id: integer, results: any[] }): table
function host.azdo.add_test_results(client, project, run_id, results) end

---a client for Azure DevOps: SYSTEM_COLLECTIONURI with SYSTEM_ACCESSTOKEN, or the profile's
---@param endpoint? string
---@param auth? table # map
---@param token? string|mlhost.Handle # secret
---@return table client
---@overload fun(args: { endpoint?: string, auth?: table, token?: string|mlhost.Handle }): table
function host.azdo.connect(endpoint, auth, token) end

---a test run
---@param client mlhost.Handle # service
---@param project string
---@param run table # map
---@return table reply
---@overload fun(args: { client: mlhost.Handle, project: string, run: table }): table
function host.azdo.create_test_run(client, project, run) end

---start a comment thread
---@param client mlhost.Handle # service
---@param project string
---@param repository string
---@param pull integer # int
---@param thread table # map
---@return table reply
---@overload fun(args: { client: mlhost.Handle, project: string, repository: string, pull: integer, thread: table }): table
function host.azdo.create_thread(client, project, repository, pull, thread) end

---a file that the service names by an address of its own, e.g. an artifact as zip
---@param client mlhost.Handle # service
---@param url string
---@param to string # path
---@return table bytes
---@overload fun(args: { client: mlhost.Handle, url: string, to: string }): table
function host.azdo.download(client, url, to) end

---a run of a pipeline
---@param client mlhost.Handle # service
---@param project string
---@param pipeline_id integer # int
---@param run_id integer # int
---@return table reply
---@overload fun(args: { client: mlhost.Handle, project: string, pipeline_id: integer, run_id: integer }): table
function host.azdo.get_pipeline_run(client, project, pipeline_id, run_id) end

---stages, jobs and tasks of a build with their issues
---@param client mlhost.Handle # service
---@param project string
---@param build_id integer # int
---@return table reply
---@overload fun(args: { client: mlhost.Handle, project: string, build_id: integer }): table
function host.azdo.get_timeline(client, project, build_id) end

---approvals of the project's pipelines
---@param client mlhost.Handle # service
---@param project string
---@param state? string
---@param user? string
---@return table reply
---@overload fun(args: { client: mlhost.Handle, project: string, state?: string, user?: string }): table
function host.azdo.list_approvals(client, project, state, user) end

---the artifacts of a build, or one by name
---@param client mlhost.Handle # service
---@param project string
---@param build_id integer # int
---@param name? string
---@return table reply
---@overload fun(args: { client: mlhost.Handle, project: string, build_id: integer, name?: string }): table
function host.azdo.list_artifacts(client, project, build_id, name) end

---the statuses of a pull request
---@param client mlhost.Handle # service
---@param project string
---@param repository string
---@param pull integer # int
---@return table reply
---@overload fun(args: { client: mlhost.Handle, project: string, repository: string, pull: integer }): table
function host.azdo.list_pull_statuses(client, project, repository, pull) end

---the comment threads of a pull request
---@param client mlhost.Handle # service
---@param project string
---@param repository string
---@param pull integer # int
---@return table reply
---@overload fun(args: { client: mlhost.Handle, project: string, repository: string, pull: integer }): table
function host.azdo.list_threads(client, project, repository, pull) end

---append to a log
---@param client mlhost.Handle # service
---@param project_id string
---@param hub string
---@param plan_id string
---@param log_id integer # int
---@param text string
---@return table reply
---@overload fun(args: { client: mlhost.Handle, project_id: string, hub: string, plan_id: string, log_id: integer, text: string }): table
function host.azdo.plan_append_log(client, project_id, hub, plan_id, log_id, text) end

---a log of a waiting task
---@param client mlhost.Handle # service
---@param project_id string
---@param hub string
---@param plan_id string
---@param path string
---@return table reply
---@overload fun(args: { client: mlhost.Handle, project_id: string, hub: string, plan_id: string, path: string }): table
function host.azdo.plan_create_log(client, project_id, hub, plan_id, path) end

---TaskAssigned, TaskStarted or TaskCompleted of a waiting task
---@param client mlhost.Handle # service
---@param project_id string
---@param hub string
---@param plan_id string
---@param name string
---@param task_id string
---@param job_id string
---@param result? string
---@return table reply
---@overload fun(args: { client: mlhost.Handle, project_id: string, hub: string, plan_id: string, name: string, task_id: string, job_id: string, result?: string }): table
function host.azdo.plan_event(client, project_id, hub, plan_id, name, task_id, job_id, result) end

---lines for the live log of a waiting task
---@param client mlhost.Handle # service
---@param project_id string
---@param hub string
---@param plan_id string
---@param timeline_id string
---@param record_id string
---@param count integer # int
---@param value any[] # array
---@return table reply
---@overload fun(args: { client: mlhost.Handle, project_id: string, hub: string, plan_id: string, timeline_id: string, record_id: string, count: integer, value: any[] }): table
function host.azdo.plan_feed(client, project_id, hub, plan_id, timeline_id, record_id, count, value) end

---state, log and variables of timeline records
---@param client mlhost.Handle # service
---@param project_id string
---@param hub string
---@param plan_id string
---@param timeline_id string
---@param count integer # int
---@param value any[] # array
---@return table reply
---@overload fun(args: { client: mlhost.Handle, project_id: string, hub: string, plan_id: string, timeline_id: string, count: integer, value: any[] }): table
function host.azdo.plan_update_records(client, project_id, hub, plan_id, timeline_id, count, value) end

---start a pipeline
---@param client mlhost.Handle # service
---@param project string
---@param pipeline_id integer # int
---@param run table # map
---@return table reply
---@overload fun(args: { client: mlhost.Handle, project: string, pipeline_id: integer, run: table }): table
function host.azdo.run_pipeline(client, project, pipeline_id, run) end

---a status of a pull request
---@param client mlhost.Handle # service
---@param project string
---@param repository string
---@param pull integer # int
---@param status table # map
---@return table reply
---@overload fun(args: { client: mlhost.Handle, project: string, repository: string, pull: integer, status: table }): table
function host.azdo.set_pull_status(client, project, repository, pull, status) end

---approve or reject: { approvalId, status, comment }
---@param client mlhost.Handle # service
---@param project string
---@param approvals any[] # array
---@return table reply
---@overload fun(args: { client: mlhost.Handle, project: string, approvals: any[] }): table
function host.azdo.update_approvals(client, project, approvals) end

---change a build; status cancelling ends it
---@param client mlhost.Handle # service
---@param project string
---@param build_id integer # int
---@param status string
---@return table reply
---@overload fun(args: { client: mlhost.Handle, project: string, build_id: integer, status: string }): table
function host.azdo.update_build(client, project, build_id, status) end

---change a comment's text
---@param client mlhost.Handle # service
---@param project string
---@param repository string
---@param pull integer # int
---@param thread integer # int
---@param comment integer # int
---@param content string
---@return table reply
---@overload fun(args: { client: mlhost.Handle, project: string, repository: string, pull: integer, thread: integer, comment: integer, content: string }): table
function host.azdo.update_comment(client, project, repository, pull, thread, comment, content) end

---end a test run: Completed or Aborted
---@param client mlhost.Handle # service
---@param project string
---@param run_id integer # int
---@param state string
---@return table reply
---@overload fun(args: { client: mlhost.Handle, project: string, run_id: integer, state: string }): table
function host.azdo.update_test_run(client, project, run_id, state) end

---open or close a thread
---@param client mlhost.Handle # service
---@param project string
---@param repository string
---@param pull integer # int
---@param thread integer # int
---@param status string
---@return table reply
---@overload fun(args: { client: mlhost.Handle, project: string, repository: string, pull: integer, thread: integer, status: string }): table
function host.azdo.update_thread(client, project, repository, pull, thread, status) end

---@class host.azureml
host.azureml = {}

---a client for Azure ML: AZURE_TENANT_ID, AZURE_CLIENT_ID, AZURE_CLIENT_SECRET, or the profile's
---@param endpoint? string
---@param auth? table # map
---@param token? string|mlhost.Handle # secret
---@return table client
---@overload fun(args: { endpoint?: string, auth?: table, token?: string|mlhost.Handle }): table
function host.azureml.connect(endpoint, auth, token) end

---a datastore: account and container
---@param client mlhost.Handle # service
---@param subscription string
---@param resource_group string
---@param workspace string
---@param name string
---@return table reply
---@overload fun(args: { client: mlhost.Handle, subscription: string, resource_group: string, workspace: string, name: string }): table
function host.azureml.get_datastore(client, subscription, resource_group, workspace, name) end

---a model: its next version
---@param client mlhost.Handle # service
---@param subscription string
---@param resource_group string
---@param workspace string
---@param name string
---@return table reply
---@overload fun(args: { client: mlhost.Handle, subscription: string, resource_group: string, workspace: string, name: string }): table
function host.azureml.get_model(client, subscription, resource_group, workspace, name) end

---a model version
---@param client mlhost.Handle # service
---@param subscription string
---@param resource_group string
---@param workspace string
---@param name string
---@param version string
---@return table reply
---@overload fun(args: { client: mlhost.Handle, subscription: string, resource_group: string, workspace: string, name: string, version: string }): table
function host.azureml.get_model_version(client, subscription, resource_group, workspace, name, version) end

---create or replace a model version
---@param client mlhost.Handle # service
---@param subscription string
---@param resource_group string
---@param workspace string
---@param name string
---@param version string
---@param properties table # map
---@return table reply
---@overload fun(args: { client: mlhost.Handle, subscription: string, resource_group: string, workspace: string, name: string, version: string, properties: table }): table
function host.azureml.put_model_version(client, subscription, resource_group, workspace, name, version, properties) end

---a bearer token, as a secret
---@param client mlhost.Handle # service
---@param scope? string
---@return table token
---@overload fun(args: { client: mlhost.Handle, scope?: string }): table
function host.azureml.token(client, scope) end

---@class host.databricks
host.databricks = {}

---end a run
---@param client mlhost.Handle # service
---@param run_id integer # int
---@return table reply
---@overload fun(args: { client: mlhost.Handle, run_id: integer }): table
function host.databricks.cancel_run(client, run_id) end

---a client for Databricks: DATABRICKS_HOST with DATABRICKS_TOKEN, or the profile's
---@param endpoint? string
---@param auth? table # map
---@param token? string|mlhost.Handle # secret
---@return table client
---@overload fun(args: { endpoint?: string, auth?: table, token?: string|mlhost.Handle }): table
function host.databricks.connect(endpoint, auth, token) end

---state and tasks of a run
---@param client mlhost.Handle # service
---@param run_id integer # int
---@return table reply
---@overload fun(args: { client: mlhost.Handle, run_id: integer }): table
function host.databricks.get_run(client, run_id) end

---what a task's notebook returned
---@param client mlhost.Handle # service
---@param run_id integer # int
---@return table reply
---@overload fun(args: { client: mlhost.Handle, run_id: integer }): table
function host.databricks.get_run_output(client, run_id) end

---put a notebook or file into the workspace
---@param client mlhost.Handle # service
---@param to string
---@param content? string
---@param path? string # path
---@param format? string
---@param language? string
---@param overwrite? boolean # bool
---@return table reply
---@overload fun(args: { client: mlhost.Handle, to: string, content?: string, path?: string, format?: string, language?: string, overwrite?: boolean }): table
function host.databricks.import(client, to, content, path, format, language, overwrite) end

---make a workspace folder
---@param client mlhost.Handle # service
---@param path string
---@return table reply
---@overload fun(args: { client: mlhost.Handle, path: string }): table
function host.databricks.mkdirs(client, path) end

---start a one-time run
---@param client mlhost.Handle # service
---@param run table # map
---@return table reply
---@overload fun(args: { client: mlhost.Handle, run: table }): table
function host.databricks.submit_run(client, run) end

---start a one-time run that carries an idempotency_token
---@param client mlhost.Handle # service
---@param run table # map
---@return table reply
---@overload fun(args: { client: mlhost.Handle, run: table }): table
function host.databricks.submit_run_once(client, run) end

---@class host.env
host.env = {}

---an environment variable that was granted; nil when not set
---@param name string
---@return string? value
---@overload fun(args: { name: string }): string?
function host.env.get(name) end

---@class host.event
host.event = {}

---something outside was made: kept for --resume
---@param key string
---@param value any
---@overload fun(args: { key: string, value: any })
function host.event.effect(key, value) end

---a finding at a place in a file
---@param level string
---@param message string
---@param file? string
---@param line? integer # int
---@param column? integer # int
---@param rule? string
---@param hint? string
---@overload fun(args: { level: string, message: string, file?: string, line?: integer, column?: integer, rule?: string, hint?: string })
function host.event.issue(level, message, file, line, column, rule, hint) end

---a line with a level in the run's log
---@param level string
---@param text string
---@param at? string
---@overload fun(args: { level: string, text: string, at?: string })
function host.event.log(level, text, at) end

---text on the stage's output
---@param text string
---@overload fun(args: { text: string })
function host.event.print(text) end

---how far something is
---@param label string
---@param done integer # int
---@param total? integer # int
---@param unit? string
---@overload fun(args: { label: string, done: integer, total?: integer, unit?: string })
function host.event.progress(label, done, total, unit) end

---a link, a summary or a JUnit file for the run's report
---@param kind string
---@param path? string # path
---@param text? string
---@param url? string
---@param title? string
---@overload fun(args: { kind: string, path?: string, text?: string, url?: string, title?: string })
function host.event.report(kind, path, text, url, title) end

---a variable for the CI system that runs mlhost
---@param name string
---@param value string|mlhost.Handle # secret
---@param secret? boolean # bool
---@param output? boolean # bool
---@overload fun(args: { name: string, value: string|mlhost.Handle, secret?: boolean, output?: boolean })
function host.event.variable(name, value, secret, output) end

---@class host.exec
host.exec = {}

---where a command is that the script may run; nil when it is not installed, or not granted
---@param name string
---@return string? path
---@overload fun(args: { name: string }): string?
function host.exec.find(name) end

---run a command that the permission exec names; no shell in between
---@param argv any[] # array
---@param env? table # map
---@param input? string|mlhost.Handle # secret
---@param timeout? string|number # duration
---@param cwd? string # path
---@param check? boolean # bool
---@param quiet? boolean # bool
---@param memory? any
---@param processes? integer # int
---@param cpus? number
---@return table result
---@overload fun(args: { argv: any[], env?: table, input?: string|mlhost.Handle, timeout?: string|number, cwd?: string, check?: boolean, quiet?: boolean, memory?: any, processes?: integer, cpus?: number }): table
function host.exec.run(argv, env, input, timeout, cwd, check, quiet, memory, processes, cpus) end

---@class host.fs
host.fs = {}

---copy a file
---@param from string # path
---@param to string # path
---@overload fun(args: { from: string, to: string })
function host.fs.copy(from, to) end

---is there something at this path?
---@param path string # path
---@return boolean yes
---@overload fun(args: { path: string }): boolean
function host.fs.exists(path) end

---paths that match * ? [..] and ** over folders, sorted
---@param pattern string
---@return any[] paths
---@overload fun(args: { pattern: string }): any[]
function host.fs.glob(pattern) end

---names in a folder, sorted
---@param path string # path
---@return any[] names
---@overload fun(args: { path: string }): any[]
function host.fs.list(path) end

---make a folder and those above it
---@param path string # path
---@overload fun(args: { path: string })
function host.fs.mkdir(path) end

---a file's content, at most limit bytes (16 MiB)
---@param path string # path
---@param limit? integer # int
---@return string text
---@overload fun(args: { path: string, limit?: integer }): string
function host.fs.read(path, limit) end

---remove a file, or a folder with all that is in it
---@param path string # path
---@overload fun(args: { path: string })
function host.fs.remove(path) end

---kind, size, modified (Unix ms), mode
---@param path string # path
---@return table info
---@overload fun(args: { path: string }): table
function host.fs.stat(path) end

---write a file, atomically unless it appends
---@param path string # path
---@param text string
---@param append? boolean # bool
---@overload fun(args: { path: string, text: string, append?: boolean })
function host.fs.write(path, text, append) end

---@class host.hash
host.hash = {}

---SHA-256 of a text or a file, in hex
---@param content? string
---@param path? string # path
---@return string digest
---@overload fun(args: { content?: string, path?: string }): string
function host.hash.sha256(content, path) end

---@class host.host
host.host = {}

---the text of a module, for require
---@param name string
---@param builtin? boolean # bool
---@return table? module
---@overload fun(args: { name: string, builtin?: boolean }): table?
function host.host.module(name, builtin) end

---@class host.http
host.http = {}

---an HTTP request to a host that the permission net names
---@param url string
---@param method? string
---@param headers? table # map
---@param bearer? string|mlhost.Handle # secret
---@param body? string|mlhost.Handle # secret
---@param from? string # path
---@param to? string # path
---@param limit? integer # int
---@param timeout? string|number # duration
---@param follow? boolean # bool
---@param retry? boolean # bool
---@param check? boolean # bool
---@return table reply
---@overload fun(args: { url: string, method?: string, headers?: table, bearer?: string|mlhost.Handle, body?: string|mlhost.Handle, from?: string, to?: string, limit?: integer, timeout?: string|number, follow?: boolean, retry?: boolean, check?: boolean }): table
function host.http.request(url, method, headers, bearer, body, from, to, limit, timeout, follow, retry, check) end

---@class host.k8s
host.k8s = {}

---a client for a Kubernetes API: the profile's, a kubeconfig's, the pod's own or the embedded one
---@param endpoint? string
---@param kubeconfig? string # path
---@param context? string
---@param namespace? string
---@param auth? table # map
---@param token? string|mlhost.Handle # secret
---@return table client
---@overload fun(args: { endpoint?: string, kubeconfig?: string, context?: string, namespace?: string, auth?: table, token?: string|mlhost.Handle }): table
function host.k8s.connect(endpoint, kubeconfig, context, namespace, auth, token) end

---one request to the Kubernetes API
---@param client mlhost.Handle # service
---@param method string
---@param path string
---@param body? any
---@param content_type? string
---@param accept? string
---@param limit? integer # int
---@param headers? table # map
---@param check? boolean # bool
---@param timeout? string|number # duration
---@return table reply
---@overload fun(args: { client: mlhost.Handle, method: string, path: string, body?: any, content_type?: string, accept?: string, limit?: integer, headers?: table, check?: boolean, timeout?: string|number }): table
function host.k8s.request(client, method, path, body, content_type, accept, limit, headers, check, timeout) end

---ends a watch
---@param watch mlhost.Handle # k8s_watch
---@return table done
---@overload fun(args: { watch: mlhost.Handle }): table
function host.k8s.watch_close(watch) end

---what has come; waits for the first of them, for so long at most
---@param watch mlhost.Handle # k8s_watch
---@param wait string|number # duration
---@return table events
---@overload fun(args: { watch: mlhost.Handle, wait: string|number }): table
function host.k8s.watch_next(watch, wait) end

---a stream of events; path says of what, and from which resourceVersion
---@param client mlhost.Handle # service
---@param path string
---@return table watch
---@overload fun(args: { client: mlhost.Handle, path: string }): table
function host.k8s.watch_open(client, path) end

---@class host.kubeflow
host.kubeflow = {}

---archive an experiment and its runs
---@param client mlhost.Handle # service
---@param experiment_id string
---@return table reply
---@overload fun(args: { client: mlhost.Handle, experiment_id: string }): table
function host.kubeflow.archive_experiment(client, experiment_id) end

---archive a run
---@param client mlhost.Handle # service
---@param run_id string
---@return table reply
---@overload fun(args: { client: mlhost.Handle, run_id: string }): table
function host.kubeflow.archive_run(client, run_id) end

---a client for Kubeflow Pipelines: KF_PIPELINES_ENDPOINT, the profile's, or the embedded one
---@param endpoint? string
---@param auth? table # map
---@param token? string|mlhost.Handle # secret
---@return table client
---@overload fun(args: { endpoint?: string, auth?: table, token?: string|mlhost.Handle }): table
function host.kubeflow.connect(endpoint, auth, token) end

---create an experiment
---@param client mlhost.Handle # service
---@param display_name string
---@param description? string
---@param namespace? string
---@return table reply
---@overload fun(args: { client: mlhost.Handle, display_name: string, description?: string, namespace?: string }): table
function host.kubeflow.create_experiment(client, display_name, description, namespace) end

---create a run
---@param client mlhost.Handle # service
---@param run table # map
---@return table reply
---@overload fun(args: { client: mlhost.Handle, run: table }): table
function host.kubeflow.create_run(client, run) end

---delete an experiment; its runs stay
---@param client mlhost.Handle # service
---@param experiment_id string
---@return table reply
---@overload fun(args: { client: mlhost.Handle, experiment_id: string }): table
function host.kubeflow.delete_experiment(client, experiment_id) end

---delete a pipeline; cascade: its versions, too
---@param client mlhost.Handle # service
---@param pipeline_id string
---@param cascade? boolean # bool
---@return table reply
---@overload fun(args: { client: mlhost.Handle, pipeline_id: string, cascade?: boolean }): table
function host.kubeflow.delete_pipeline(client, pipeline_id, cascade) end

---delete a run
---@param client mlhost.Handle # service
---@param run_id string
---@return table reply
---@overload fun(args: { client: mlhost.Handle, run_id: string }): table
function host.kubeflow.delete_run(client, run_id) end

---delete a version
---@param client mlhost.Handle # service
---@param pipeline_id string
---@param version_id string
---@return table reply
---@overload fun(args: { client: mlhost.Handle, pipeline_id: string, version_id: string }): table
function host.kubeflow.delete_version(client, pipeline_id, version_id) end

---an experiment
---@param client mlhost.Handle # service
---@param experiment_id string
---@return table reply
---@overload fun(args: { client: mlhost.Handle, experiment_id: string }): table
function host.kubeflow.get_experiment(client, experiment_id) end

---a pipeline
---@param client mlhost.Handle # service
---@param pipeline_id string
---@return table reply
---@overload fun(args: { client: mlhost.Handle, pipeline_id: string }): table
function host.kubeflow.get_pipeline(client, pipeline_id) end

---a run with its tasks
---@param client mlhost.Handle # service
---@param run_id string
---@return table reply
---@overload fun(args: { client: mlhost.Handle, run_id: string }): table
function host.kubeflow.get_run(client, run_id) end

---a version with its specification
---@param client mlhost.Handle # service
---@param pipeline_id string
---@param version_id string
---@return table reply
---@overload fun(args: { client: mlhost.Handle, pipeline_id: string, version_id: string }): table
function host.kubeflow.get_version(client, pipeline_id, version_id) end

---is the API server well?
---@param client mlhost.Handle # service
---@return table reply
---@overload fun(args: { client: mlhost.Handle }): table
function host.kubeflow.health(client) end

---a page of experiments
---@param client mlhost.Handle # service
---@param namespace? string
---@param page_token? string
---@param page_size? integer # int
---@param sort_by? string
---@param filter? table # map
---@return table page
---@overload fun(args: { client: mlhost.Handle, namespace?: string, page_token?: string, page_size?: integer, sort_by?: string, filter?: table }): table
function host.kubeflow.list_experiments(client, namespace, page_token, page_size, sort_by, filter) end

---a page of pipelines
---@param client mlhost.Handle # service
---@param namespace? string
---@param page_token? string
---@param page_size? integer # int
---@param sort_by? string
---@param filter? table # map
---@return table page
---@overload fun(args: { client: mlhost.Handle, namespace?: string, page_token?: string, page_size?: integer, sort_by?: string, filter?: table }): table
function host.kubeflow.list_pipelines(client, namespace, page_token, page_size, sort_by, filter) end

---a page of runs
---@param client mlhost.Handle # service
---@param namespace? string
---@param experiment_id? string
---@param page_token? string
---@param page_size? integer # int
---@param sort_by? string
---@param filter? table # map
---@return table page
---@overload fun(args: { client: mlhost.Handle, namespace?: string, experiment_id?: string, page_token?: string, page_size?: integer, sort_by?: string, filter?: table }): table
function host.kubeflow.list_runs(client, namespace, experiment_id, page_token, page_size, sort_by, filter) end

---a page of a pipeline's versions
---@param client mlhost.Handle # service
---@param pipeline_id string
---@param page_token? string
---@param page_size? integer # int
---@param sort_by? string
---@param filter? table # map
---@return table page
---@overload fun(args: { client: mlhost.Handle, pipeline_id: string, page_token?: string, page_size?: integer, sort_by?: string, filter?: table }): table
function host.kubeflow.list_versions(client, pipeline_id, page_token, page_size, sort_by, filter) end

---what a task printed
---@param client mlhost.Handle # service
---@param run_id string
---@param node string
---@return string text
---@overload fun(args: { client: mlhost.Handle, run_id: string, node: string }): string
function host.kubeflow.node_log(client, run_id, node) end

---run the failed tasks of a run again
---@param client mlhost.Handle # service
---@param run_id string
---@return table reply
---@overload fun(args: { client: mlhost.Handle, run_id: string }): table
function host.kubeflow.retry_run(client, run_id) end

---end a run that is going on
---@param client mlhost.Handle # service
---@param run_id string
---@return table reply
---@overload fun(args: { client: mlhost.Handle, run_id: string }): table
function host.kubeflow.terminate_run(client, run_id) end

---the bearer token, as a secret
---@param client mlhost.Handle # service
---@param scope? string
---@return table token
---@overload fun(args: { client: mlhost.Handle, scope?: string }): table
function host.kubeflow.token(client, scope) end

---take an experiment out of the archive
---@param client mlhost.Handle # service
---@param experiment_id string
---@return table reply
---@overload fun(args: { client: mlhost.Handle, experiment_id: string }): table
function host.kubeflow.unarchive_experiment(client, experiment_id) end

---take a run out of the archive
---@param client mlhost.Handle # service
---@param run_id string
---@return table reply
---@overload fun(args: { client: mlhost.Handle, run_id: string }): table
function host.kubeflow.unarchive_run(client, run_id) end

---upload a package as a new pipeline, or as a new version of pipeline_id
---@param client mlhost.Handle # service
---@param content? string
---@param path? string # path
---@param filename? string
---@param pipeline_id? string
---@param name? string
---@param display_name? string
---@param description? string
---@param namespace? string
---@param tags? table # map
---@return table reply
---@overload fun(args: { client: mlhost.Handle, content?: string, path?: string, filename?: string, pipeline_id?: string, name?: string, display_name?: string, description?: string, namespace?: string, tags?: table }): table
function host.kubeflow.upload(client, content, path, filename, pipeline_id, name, display_name, description, namespace, tags) end

---@class host.mlflow
host.mlflow = {}

---a client for the MLflow tracking server: MLFLOW_TRACKING_URI, the profile's, or the embedded one
---@param endpoint? string
---@param auth? table # map
---@param token? string|mlhost.Handle # secret
---@return table client
---@overload fun(args: { endpoint?: string, auth?: table, token?: string|mlhost.Handle }): table
function host.mlflow.connect(endpoint, auth, token) end

---create an experiment
---@param client mlhost.Handle # service
---@param name string
---@param artifact_location? string
---@param tags? any[] # array
---@return table reply
---@overload fun(args: { client: mlhost.Handle, name: string, artifact_location?: string, tags?: any[] }): table
function host.mlflow.create_experiment(client, name, artifact_location, tags) end

---register a version
---@param client mlhost.Handle # service
---@param name string
---@param source string
---@param run_id? string
---@param description? string
---@param tags? any[] # array
---@param run_link? string
---@return table reply
---@overload fun(args: { client: mlhost.Handle, name: string, source: string, run_id?: string, description?: string, tags?: any[], run_link?: string }): table
function host.mlflow.create_model_version(client, name, source, run_id, description, tags, run_link) end

---create a registered model
---@param client mlhost.Handle # service
---@param name string
---@param description? string
---@param tags? any[] # array
---@return table reply
---@overload fun(args: { client: mlhost.Handle, name: string, description?: string, tags?: any[] }): table
function host.mlflow.create_registered_model(client, name, description, tags) end

---create a run
---@param client mlhost.Handle # service
---@param experiment_id string
---@param run_name? string
---@param start_time? integer # int
---@param tags? any[] # array
---@param user_id? string
---@return table reply
---@overload fun(args: { client: mlhost.Handle, experiment_id: string, run_name?: string, start_time?: integer, tags?: any[], user_id?: string }): table
function host.mlflow.create_run(client, experiment_id, run_name, start_time, tags, user_id) end

---delete an alias
---@param client mlhost.Handle # service
---@param name string
---@param alias string
---@return table reply
---@overload fun(args: { client: mlhost.Handle, name: string, alias: string }): table
function host.mlflow.delete_alias(client, name, alias) end

---delete an experiment (it can be restored)
---@param client mlhost.Handle # service
---@param experiment_id string
---@return table reply
---@overload fun(args: { client: mlhost.Handle, experiment_id: string }): table
function host.mlflow.delete_experiment(client, experiment_id) end

---delete a version
---@param client mlhost.Handle # service
---@param name string
---@param version string
---@return table reply
---@overload fun(args: { client: mlhost.Handle, name: string, version: string }): table
function host.mlflow.delete_model_version(client, name, version) end

---delete a tag of a version
---@param client mlhost.Handle # service
---@param name string
---@param version string
---@param key string
---@return table reply
---@overload fun(args: { client: mlhost.Handle, name: string, version: string, key: string }): table
function host.mlflow.delete_model_version_tag(client, name, version, key) end

---delete a registered model and its versions
---@param client mlhost.Handle # service
---@param name string
---@return table reply
---@overload fun(args: { client: mlhost.Handle, name: string }): table
function host.mlflow.delete_registered_model(client, name) end

---delete a tag of a model
---@param client mlhost.Handle # service
---@param name string
---@param key string
---@return table reply
---@overload fun(args: { client: mlhost.Handle, name: string, key: string }): table
function host.mlflow.delete_registered_model_tag(client, name, key) end

---delete a run (it can be restored)
---@param client mlhost.Handle # service
---@param run_id string
---@return table reply
---@overload fun(args: { client: mlhost.Handle, run_id: string }): table
function host.mlflow.delete_run(client, run_id) end

---delete a tag of a run
---@param client mlhost.Handle # service
---@param run_id string
---@param key string
---@return table reply
---@overload fun(args: { client: mlhost.Handle, run_id: string, key: string }): table
function host.mlflow.delete_tag(client, run_id, key) end

---stream one artifact into a file
---@param client mlhost.Handle # service
---@param run_id string
---@param artifact_uri string
---@param path string
---@param to string # path
---@return table result
---@overload fun(args: { client: mlhost.Handle, run_id: string, artifact_uri: string, path: string, to: string }): table
function host.mlflow.download_artifact(client, run_id, artifact_uri, path, to) end

---the version that an alias names
---@param client mlhost.Handle # service
---@param name string
---@param alias string
---@return table reply
---@overload fun(args: { client: mlhost.Handle, name: string, alias: string }): table
function host.mlflow.get_by_alias(client, name, alias) end

---where a version's artifacts are
---@param client mlhost.Handle # service
---@param name string
---@param version string
---@return table reply
---@overload fun(args: { client: mlhost.Handle, name: string, version: string }): table
function host.mlflow.get_download_uri(client, name, version) end

---an experiment by id
---@param client mlhost.Handle # service
---@param experiment_id string
---@return table reply
---@overload fun(args: { client: mlhost.Handle, experiment_id: string }): table
function host.mlflow.get_experiment(client, experiment_id) end

---an experiment by name
---@param client mlhost.Handle # service
---@param experiment_name string
---@return table reply
---@overload fun(args: { client: mlhost.Handle, experiment_name: string }): table
function host.mlflow.get_experiment_by_name(client, experiment_name) end

---the latest version of each stage
---@param client mlhost.Handle # service
---@param name string
---@param stages? any[] # array
---@return table reply
---@overload fun(args: { client: mlhost.Handle, name: string, stages?: any[] }): table
function host.mlflow.get_latest_versions(client, name, stages) end

---all values of a metric
---@param client mlhost.Handle # service
---@param run_id string
---@param metric_key string
---@param max_results? integer # int
---@param page_token? string
---@return table page
---@overload fun(args: { client: mlhost.Handle, run_id: string, metric_key: string, max_results?: integer, page_token?: string }): table
function host.mlflow.get_metric_history(client, run_id, metric_key, max_results, page_token) end

---a version
---@param client mlhost.Handle # service
---@param name string
---@param version string
---@return table reply
---@overload fun(args: { client: mlhost.Handle, name: string, version: string }): table
function host.mlflow.get_model_version(client, name, version) end

---a registered model
---@param client mlhost.Handle # service
---@param name string
---@return table reply
---@overload fun(args: { client: mlhost.Handle, name: string }): table
function host.mlflow.get_registered_model(client, name) end

---a run with its params, tags and latest metrics
---@param client mlhost.Handle # service
---@param run_id string
---@return table reply
---@overload fun(args: { client: mlhost.Handle, run_id: string }): table
function host.mlflow.get_run(client, run_id) end

---a folder of a run's artifacts
---@param client mlhost.Handle # service
---@param run_id string
---@param path? string
---@param page_token? string
---@return table reply
---@overload fun(args: { client: mlhost.Handle, run_id: string, path?: string, page_token?: string }): table
function host.mlflow.list_artifacts(client, run_id, path, page_token) end

---log metrics, params and tags together
---@param client mlhost.Handle # service
---@param run_id string
---@param metrics? any[] # array
---@param params? any[] # array
---@param tags? any[] # array
---@return table reply
---@overload fun(args: { client: mlhost.Handle, run_id: string, metrics?: any[], params?: any[], tags?: any[] }): table
function host.mlflow.log_batch(client, run_id, metrics, params, tags) end

---name the data sets that a run used
---@param client mlhost.Handle # service
---@param run_id string
---@param datasets any[] # array
---@return table reply
---@overload fun(args: { client: mlhost.Handle, run_id: string, datasets: any[] }): table
function host.mlflow.log_inputs(client, run_id, datasets) end

---rename a registered model
---@param client mlhost.Handle # service
---@param name string
---@param new_name string
---@return table reply
---@overload fun(args: { client: mlhost.Handle, name: string, new_name: string }): table
function host.mlflow.rename_registered_model(client, name, new_name) end

---bring a deleted experiment back
---@param client mlhost.Handle # service
---@param experiment_id string
---@return table reply
---@overload fun(args: { client: mlhost.Handle, experiment_id: string }): table
function host.mlflow.restore_experiment(client, experiment_id) end

---bring a deleted run back
---@param client mlhost.Handle # service
---@param run_id string
---@return table reply
---@overload fun(args: { client: mlhost.Handle, run_id: string }): table
function host.mlflow.restore_run(client, run_id) end

---a page of experiments
---@param client mlhost.Handle # service
---@param filter? string
---@param order_by? any[] # array
---@param max_results? integer # int
---@param page_token? string
---@param view_type? string
---@return table page
---@overload fun(args: { client: mlhost.Handle, filter?: string, order_by?: any[], max_results?: integer, page_token?: string, view_type?: string }): table
function host.mlflow.search_experiments(client, filter, order_by, max_results, page_token, view_type) end

---a page of versions
---@param client mlhost.Handle # service
---@param filter? string
---@param order_by? any[] # array
---@param max_results? integer # int
---@param page_token? string
---@return table page
---@overload fun(args: { client: mlhost.Handle, filter?: string, order_by?: any[], max_results?: integer, page_token?: string }): table
function host.mlflow.search_model_versions(client, filter, order_by, max_results, page_token) end

---a page of registered models
---@param client mlhost.Handle # service
---@param filter? string
---@param order_by? any[] # array
---@param max_results? integer # int
---@param page_token? string
---@return table page
---@overload fun(args: { client: mlhost.Handle, filter?: string, order_by?: any[], max_results?: integer, page_token?: string }): table
function host.mlflow.search_registered_models(client, filter, order_by, max_results, page_token) end

---a page of runs
---@param client mlhost.Handle # service
---@param experiment_ids any[] # array
---@param filter? string
---@param order_by? any[] # array
---@param max_results? integer # int
---@param page_token? string
---@param run_view_type? string
---@return table page
---@overload fun(args: { client: mlhost.Handle, experiment_ids: any[], filter?: string, order_by?: any[], max_results?: integer, page_token?: string, run_view_type?: string }): table
function host.mlflow.search_runs(client, experiment_ids, filter, order_by, max_results, page_token, run_view_type) end

---let an alias name a version
---@param client mlhost.Handle # service
---@param name string
---@param alias string
---@param version string
---@return table reply
---@overload fun(args: { client: mlhost.Handle, name: string, alias: string, version: string }): table
function host.mlflow.set_alias(client, name, alias, version) end

---set a tag of an experiment
---@param client mlhost.Handle # service
---@param experiment_id string
---@param key string
---@param value string
---@return table reply
---@overload fun(args: { client: mlhost.Handle, experiment_id: string, key: string, value: string }): table
function host.mlflow.set_experiment_tag(client, experiment_id, key, value) end

---set a tag of a version
---@param client mlhost.Handle # service
---@param name string
---@param version string
---@param key string
---@param value string
---@return table reply
---@overload fun(args: { client: mlhost.Handle, name: string, version: string, key: string, value: string }): table
function host.mlflow.set_model_version_tag(client, name, version, key, value) end

---set a tag of a model
---@param client mlhost.Handle # service
---@param name string
---@param key string
---@param value string
---@return table reply
---@overload fun(args: { client: mlhost.Handle, name: string, key: string, value: string }): table
function host.mlflow.set_registered_model_tag(client, name, key, value) end

---move a version to None, Staging, Production or Archived
---@param client mlhost.Handle # service
---@param name string
---@param version string
---@param stage string
---@param archive_existing_versions boolean # bool
---@return table reply
---@overload fun(args: { client: mlhost.Handle, name: string, version: string, stage: string, archive_existing_versions: boolean }): table
function host.mlflow.transition_stage(client, name, version, stage, archive_existing_versions) end

---rename an experiment
---@param client mlhost.Handle # service
---@param experiment_id string
---@param new_name string
---@return table reply
---@overload fun(args: { client: mlhost.Handle, experiment_id: string, new_name: string }): table
function host.mlflow.update_experiment(client, experiment_id, new_name) end

---describe a version
---@param client mlhost.Handle # service
---@param name string
---@param version string
---@param description string
---@return table reply
---@overload fun(args: { client: mlhost.Handle, name: string, version: string, description: string }): table
function host.mlflow.update_model_version(client, name, version, description) end

---describe a registered model
---@param client mlhost.Handle # service
---@param name string
---@param description string
---@return table reply
---@overload fun(args: { client: mlhost.Handle, name: string, description: string }): table
function host.mlflow.update_registered_model(client, name, description) end

---set status, end time or name of a run
---@param client mlhost.Handle # service
---@param run_id string
---@param status? string
---@param end_time? integer # int
---@param run_name? string
---@return table reply
---@overload fun(args: { client: mlhost.Handle, run_id: string, status?: string, end_time?: integer, run_name?: string }): table
function host.mlflow.update_run(client, run_id, status, end_time, run_name) end

---stream a file or folder into a run's artifacts
---@param client mlhost.Handle # service
---@param artifact_uri string
---@param from string # path
---@param path? string
---@return table result
---@overload fun(args: { client: mlhost.Handle, artifact_uri: string, from: string, path?: string }): table
function host.mlflow.upload_artifact(client, artifact_uri, from, path) end

---@class host.registry
host.registry = {}

---files as an artifact in a registry
---@param ref? string
---@param type string
---@param files any[] # array
---@param annotations? table # map
---@param subject? string
---@return table result
---@overload fun(args: { ref?: string, type: string, files: any[], annotations?: table, subject?: string }): table
function host.registry.artifact(ref, type, files, annotations, subject) end

---a document that refers to an image, beside it in its registry
---@param ref string
---@param type string
---@param blob? string
---@param text? string
---@param annotations? table # map
---@return table result
---@overload fun(args: { ref: string, type: string, blob?: string, text?: string, annotations?: table }): table
function host.registry.attach(ref, type, blob, text, annotations) end

---build the image that holds this program (mlhost/base) into the build cache
---@return table image
function host.registry.base_image() end

---build an image from a Dockerfile, without a daemon, into the build cache
---@param context string # path
---@param dockerfile? string # path
---@param name? string
---@param tag? string
---@param args? table # map
---@param labels? table # map
---@param target? string
---@param cache? boolean # bool
---@param no_cache? boolean # bool
---@param cache_from? any[] # array
---@param cache_to? string
---@param secrets? table # map
---@param memory? any
---@param processes? integer # int
---@param push? string
---@param provenance? table # map
---@return table image
---@overload fun(args: { context: string, dockerfile?: string, name?: string, tag?: string, args?: table, labels?: table, target?: string, cache?: boolean, no_cache?: boolean, cache_from?: any[], cache_to?: string, secrets?: table, memory?: any, processes?: integer, push?: string, provenance?: table }): table
function host.registry.build(context, dockerfile, name, tag, args, labels, target, cache, no_cache, cache_from, cache_to, secrets, memory, processes, push, provenance) end

---the repositories that a registry shows
---@param host? string
---@param limit? integer # int
---@param last? string
---@return any[] repositories
---@overload fun(args: { host?: string, limit?: integer, last?: string }): any[]
function host.registry.catalog(host, limit, last) end

---remove what no image needs any more from this machine's stores of images
---@param dry_run? boolean # bool
---@param untagged? boolean # bool
---@param grace? integer # int
---@return table result
---@overload fun(args: { dry_run?: boolean, untagged?: boolean, grace?: integer }): table
function host.registry.collect(dry_run, untagged, grace) end

---an image of a config and of layers in the build cache
---@param config table # map
---@param layers any[] # array
---@param annotations? table # map
---@return table image
---@overload fun(args: { config: table, layers: any[], annotations?: table }): table
function host.registry.compose(config, layers, annotations) end

---an index of images in the build cache
---@param images any[] # array
---@param annotations? table # map
---@return table image
---@overload fun(args: { images: any[], annotations?: table }): table
function host.registry.compose_index(images, annotations) end

---a tag that names the content of a build context
---@param context string # path
---@param dockerfile? string # path
---@param args? table # map
---@param salt? string
---@return string tag
---@overload fun(args: { context: string, dockerfile?: string, args?: table, salt?: string }): string
function host.registry.content_tag(context, dockerfile, args, salt) end

---delete a manifest from its registry, with every tag of it
---@param ref string
---@return string digest
---@overload fun(args: { ref: string }): string
function host.registry.delete(ref) end

---take a blob from a repository
---@param ref string
---@overload fun(args: { ref: string })
function host.registry.delete_blob(ref) end

---a Dockerfile as data, with its problems
---@param path string # path
---@return table parsed
---@overload fun(args: { path: string }): table
function host.registry.dockerfile(path) end

---a JSON document of the build cache
---@param blob string
---@return table document
---@overload fun(args: { blob: string }): table
function host.registry.document(blob) end

---the digest that a tag names, or nil
---@param ref string
---@return string digest
---@overload fun(args: { ref: string }): string
function host.registry.exists(ref) end

---the files of an image of the build cache as one tar archive
---@param digest string
---@param to string # path
---@return table result
---@overload fun(args: { digest: string, to: string }): table
function host.registry.export(digest, to) end

---the files of an artifact, in a folder
---@param ref string
---@param to string # path
---@return any[] files
---@overload fun(args: { ref: string, to: string }): any[]
function host.registry.files(ref, to) end

---config and layers of an image, without pulling it
---@param ref string
---@return table image
---@overload fun(args: { ref: string }): table
function host.registry.inspect(ref) end

---a folder or a tar archive as a layer in the build cache
---@param path string # path
---@param to? string
---@param push? string
---@return table layer
---@overload fun(args: { path: string, to?: string, push?: string }): table
function host.registry.layer(path, to, push) end

---an image in the build cache, manifest and config as data
---@param ref? string
---@param digest? string
---@return table image
---@overload fun(args: { ref?: string, digest?: string }): table
function host.registry.load(ref, digest) end

---an image's manifest or index as data
---@param ref string
---@return table reply
---@overload fun(args: { ref: string }): table
function host.registry.manifest(ref) end

---os and architecture of this machine, as images name them
---@return table platform
function host.registry.platform() end

---pull an image into the build cache, every digest checked
---@param ref string
---@param all? boolean # bool
---@return table image
---@overload fun(args: { ref: string, all?: boolean }): table
function host.registry.pull(ref, all) end

---push an image; what is there already is skipped
---@param digest string
---@param ref string
---@param from? string
---@param all? boolean # bool
---@return table result
---@overload fun(args: { digest: string, ref: string, from?: string, all?: boolean }): table
function host.registry.push(digest, ref, from, all) end

---an image of an OCI layout or a docker archive into the build cache
---@param kind string
---@param path string # path
---@param tag? string
---@return table image
---@overload fun(args: { kind: string, path: string, tag?: string }): table
function host.registry.read_layout(kind, path, tag) end

---what a reference means under the active profile
---@param ref string
---@return table parts
---@overload fun(args: { ref: string }): table
function host.registry.reference(ref) end

---the artifacts that refer to an image
---@param ref string
---@param type? string
---@return any[] descriptors
---@overload fun(args: { ref: string, type?: string }): any[]
function host.registry.referrers(ref, type) end

---what is in an image, as SPDX 2.3
---@param digest? string
---@param ref? string
---@param name? string
---@return table result
---@overload fun(args: { digest?: string, ref?: string, name?: string }): table
function host.registry.sbom(digest, ref, name) end

---one layer of all that an image of the build cache holds
---@param digest string
---@return table layer
---@overload fun(args: { digest: string }): table
function host.registry.squash(digest) end

---the tags of a repository
---@param repository string
---@param limit? integer # int
---@param last? string
---@return any[] tags
---@overload fun(args: { repository: string, limit?: integer, last?: string }): any[]
function host.registry.tags(repository, limit, last) end

---an image's files in a folder
---@param ref string
---@param to string # path
---@return table image
---@overload fun(args: { ref: string, to: string }): table
function host.registry.unpack(ref, to) end

---take a tag from its repository; the manifest stays
---@param ref string
---@overload fun(args: { ref: string })
function host.registry.untag(ref) end

---reads an image of the build cache again, checked
---@param digest string
---@return table result
---@overload fun(args: { digest: string }): table
function host.registry.verify(digest) end

---an image of the build cache into an OCI layout or a docker archive
---@param digest string
---@param kind string
---@param path string # path
---@param tag? string
---@return table image
---@overload fun(args: { digest: string, kind: string, path: string, tag?: string }): table
function host.registry.write_layout(digest, kind, path, tag) end

---@class host.runs
host.runs = {}

---the newest run of a pipeline in this workspace that ended well, with its outputs
---@param pipeline string
---@return table? run
---@overload fun(args: { pipeline: string }): table?
function host.runs.latest(pipeline) end

---@class host.secret
host.secret = {}

---a new secret: the base64 form of one
---@param value string|mlhost.Handle # secret
---@return mlhost.Handle handle
---@overload fun(args: { value: string|mlhost.Handle }): mlhost.Handle
function host.secret.base64(value) end

---a secret from a file that the script may read
---@param path string # path
---@return mlhost.Handle handle
---@overload fun(args: { path: string }): mlhost.Handle
function host.secret.file(path) end

---a new secret of texts and secrets
---@param format string
---@param values any[] # array
---@return mlhost.Handle handle
---@overload fun(args: { format: string, values: any[] }): mlhost.Handle
function host.secret.format(format, values) end

---a secret from an environment variable that was granted
---@param name string
---@return mlhost.Handle? handle
---@overload fun(args: { name: string }): mlhost.Handle?
function host.secret.get(name) end

---@class host.seldon
host.seldon = {}

---a client for Seldon's ingress: SELDON_INGRESS, the profile's, or an endpoint
---@param endpoint? string
---@param auth? table # map
---@param token? string|mlhost.Handle # secret
---@return table client
---@overload fun(args: { endpoint?: string, auth?: table, token?: string|mlhost.Handle }): table
function host.seldon.connect(endpoint, auth, token) end

---send load and measure latency, throughput and errors
---@param client mlhost.Handle # service
---@param path string
---@param method? string
---@param headers? table # map
---@param bodies? any[] # array
---@param content_type? string
---@param count? integer # int
---@param duration? string|number # duration
---@param concurrency? integer # int
---@param rate? number
---@param request_timeout? string|number # duration
---@param group_by? string
---@param max_reply? integer # int
---@param max_errors? integer # int
---@return table result
---@overload fun(args: { client: mlhost.Handle, path: string, method?: string, headers?: table, bodies?: any[], content_type?: string, count?: integer, duration?: string|number, concurrency?: integer, rate?: number, request_timeout?: string|number, group_by?: string, max_reply?: integer, max_errors?: integer }): table
function host.seldon.load(client, path, method, headers, bodies, content_type, count, duration, concurrency, rate, request_timeout, group_by, max_reply, max_errors) end

---one request to a model; any HTTP status is a reply
---@param client mlhost.Handle # service
---@param method string
---@param path string
---@param headers? table # map
---@param body? any
---@param content_type? string
---@param timeout? string|number # duration
---@param limit? integer # int
---@return table reply
---@overload fun(args: { client: mlhost.Handle, method: string, path: string, headers?: table, body?: any, content_type?: string, timeout?: string|number, limit?: integer }): table
function host.seldon.request(client, method, path, headers, body, content_type, timeout, limit) end

---@class host.service
host.service = {}

---is there an address for this service?
---@param service string
---@return boolean yes
---@overload fun(args: { service: string }): boolean
function host.service.configured(service) end

---@class host.time
host.time = {}

---Unix time in milliseconds
---@return integer ms
function host.time.now() end

---wait; ends early when the stage does
---@param duration string|number # duration
---@overload fun(args: { duration: string|number })
function host.time.sleep(duration) end

return host
