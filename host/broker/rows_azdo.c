/*
 * Azure DevOps: the calls of an agentless task's callback, and starting a pipeline.
 * https://learn.microsoft.com/rest/api/azure/devops/distributedtask/, .../pipelines/runs; the order
 * of the callback's calls is that of microsoft/azure-pipelines-extensions, ServerTaskHelper. The
 * plan_ rows want a client that was connected to the plan's PlanUri.
 */
#include "service/rows.h"

#define PLAN      "/{project_id}/_apis/distributedtask/hubs/{hub}/plans/{plan_id}/"
#define PLAN_ARGS "project_id:string hub:string plan_id:string "
#define VERSION   .fixed_query = "api-version=7.1"
#define ROW(row_name, row_args, ...)                                                               \
    REST_ROW("azdo", row_name, "client:service " row_args, __VA_ARGS__)

const struct primitive azdo_rows[] = {
    {.sign = {"azdo.connect", "endpoint:string? auth:map? token:secret?", "client:map",
              "a client for Azure DevOps: SYSTEM_COLLECTIONURI with SYSTEM_ACCESSTOKEN, or the "
              "profile's"},
     .module = MODULE_IO,
     .symbol = "prim_service_connect",
     .data = "azdo"},
    /* Posting an event twice tells the server the same thing twice, which it takes. */
    ROW("plan_event", PLAN_ARGS "name:string task_id:string job_id:string result:string?",
        "reply:map", "TaskStarted or TaskCompleted of a waiting task", .method = "POST",
        .path = PLAN "events", .body = "name task_id=taskId job_id=jobId result", VERSION,
        .repeat = HTTP_REPEAT_ALWAYS),
    ROW("plan_feed", PLAN_ARGS "timeline_id:string record_id:string count:int value:array",
        "reply:map", "lines for the live log of a waiting task", .method = "POST",
        .path = PLAN "timelines/{timeline_id}/records/{record_id}/feed", .body = "count value",
        VERSION),
    ROW("plan_create_log", PLAN_ARGS "path:string", "reply:map", "a log of a waiting task",
        .method = "POST", .path = PLAN "logs", .body = "path", VERSION),
    ROW("plan_append_log", PLAN_ARGS "log_id:int text:string", "reply:map", "append to a log",
        .method = "POST", .path = PLAN "logs/{log_id}", .body = "@text", VERSION),
    ROW("plan_update_records", PLAN_ARGS "timeline_id:string count:int value:array", "reply:map",
        "state, log and variables of timeline records", .method = "PATCH",
        .path = PLAN "timelines/{timeline_id}/records", .body = "count value", VERSION,
        .repeat = HTTP_REPEAT_ALWAYS),
    ROW("run_pipeline", "project:string pipeline_id:int run:map", "reply:map", "start a pipeline",
        .method = "POST", .path = "/{project}/_apis/pipelines/{pipeline_id}/runs", .body = "*run",
        VERSION),
    ROW("get_pipeline_run", "project:string pipeline_id:int run_id:int", "reply:map",
        "a run of a pipeline", .method = "GET",
        .path = "/{project}/_apis/pipelines/{pipeline_id}/runs/{run_id}", VERSION),
    {.sign = {.name = NULL}},
};
