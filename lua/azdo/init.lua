--- azdo: Azure DevOps, from inside a job (variables, summary, artifacts, tests) and from outside (callback, builds, pull requests).
---
---   azdo.set_variable("KF_RUN_ID", run.id, { output = true })
---   local client = azdo.connect { project = "ml" }
---   client:run_pipeline(12, { branch = "refs/heads/main" }):wait { timeout = "1h" }
---   client:pull_request():status { name = "model", state = "succeeded" }
---   local task = azdo.task(json.decode(cx.inputs.azdocallbackinfo))
---   task:complete "succeeded"
---
--- Variables, summaries, artifacts and test results are events of the run: on an agent they become logging commands.
--- Credentials: SYSTEM_ACCESSTOKEN on an agent, AZURE_DEVOPS_EXT_PAT or AZDO_PAT elsewhere, the service principal of
--- AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET, the workload identity of AZURE_FEDERATED_TOKEN_FILE or of a
--- service connection, or the profile's.
--- REST: https://learn.microsoft.com/rest/api/azure/devops/
local connection = require "azdo.connection"
require "azdo.builds"
require "azdo.pulls"
require "azdo.tests"

local azdo = { task = require("azdo.task").task }

--- azdo.connect{ endpoint?, auth?, token?, pat?, project? } -> client
---   endpoint  string  collection URL, "https://dev.azure.com/acme"; default SYSTEM_COLLECTIONURI or the profile's
---   pat       secret  a personal access token, short for basic authentication with an empty user
---   project   string  name or id; default: the profile's
function azdo.connect(options) return connection.open(options or {}) end

--- azdo.set_variable(name, value, { output?, secret? }): for later steps; output: for other jobs, too
function azdo.set_variable(name, value, options) set_variable(name, value, options) end

--- azdo.summary(markdown, title?): for the run's summary page
function azdo.summary(text, title) report.summary(text, title) end

return azdo
