/* Databricks: notebooks into the workspace, one-time runs.
 * https://docs.databricks.com/api/workspace/jobs, .../workspace */
#include "service/rows.h"

#define ROW(row_name, row_args, ...)                                                               \
    REST_ROW("databricks", row_name, "client:service " row_args, __VA_ARGS__)

const struct primitive databricks_rows[] = {
    {.sign = {"databricks.connect", "endpoint:string? auth:map? token:secret?", "client:map",
              "a client for Databricks: DATABRICKS_HOST with DATABRICKS_TOKEN, or the profile's"},
     .module = MODULE_IO,
     .symbol = "prim_service_connect",
     .data = "databricks"},
    {.sign = {"databricks.import",
              "client:service to:string content:string? path:path? format:string? language:string? "
              "overwrite:bool?",
              "reply:map", "put a notebook or file into the workspace"},
     .module = MODULE_IO,
     .symbol = "prim_databricks_import"},
    ROW("mkdirs", "path:string", "reply:map", "make a workspace folder", .method = "POST",
        .path = "/api/2.0/workspace/mkdirs", .body = "path", .repeat = HTTP_REPEAT_ALWAYS),
    /* A submission that carries an idempotency token may be sent again: the same token gives the
       same run. */
    ROW("submit_run", "run:map", "reply:map", "start a one-time run", .method = "POST",
        .path = "/api/2.1/jobs/runs/submit", .body = "*run"),
    ROW("submit_run_once", "run:map", "reply:map",
        "start a one-time run that carries an idempotency_token", .method = "POST",
        .path = "/api/2.1/jobs/runs/submit", .body = "*run", .repeat = HTTP_REPEAT_ALWAYS),
    ROW("get_run", "run_id:int", "reply:map", "state and tasks of a run", .method = "GET",
        .path = "/api/2.1/jobs/runs/get", .query = "run_id"),
    ROW("get_run_output", "run_id:int", "reply:map", "what a task's notebook returned",
        .method = "GET", .path = "/api/2.1/jobs/runs/get-output", .query = "run_id"),
    ROW("cancel_run", "run_id:int", "reply:map", "end a run", .method = "POST",
        .path = "/api/2.1/jobs/runs/cancel", .body = "run_id", .repeat = HTTP_REPEAT_ALWAYS),
    {.sign = {.name = NULL}},
};
