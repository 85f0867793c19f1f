/*
 * Azure DevOps: the calls of an agentless task's callback, builds, artifacts, approvals, pull
 * requests and test runs. https://learn.microsoft.com/rest/api/azure/devops/; the order of the
 * callback's calls is that of microsoft/azure-pipelines-extensions, ServerTaskHelper. The plan_
 * rows want a client that was connected to the plan's PlanUri.
 */
#include "service/rows.h"

#define PLAN      "/{project_id}/_apis/distributedtask/hubs/{hub}/plans/{plan_id}/"
#define PLAN_ARGS "project_id:string hub:string plan_id:string "
#define PULL      "/{project}/_apis/git/repositories/{repository}/pullRequests/{pull}/"
#define PULL_ARGS "project:string repository:string pull:int "
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
    {.sign = {"azdo.download", "client:service url:string to:path", "bytes:map",
              "a file that the service names by an address of its own, e.g. an artifact as zip"},
     .module = MODULE_IO,
     .symbol = "prim_azdo_download"},
    /* Posting an event twice tells the server the same thing twice, which it takes. */
    ROW("plan_event", PLAN_ARGS "name:string task_id:string job_id:string result:string?",
        "reply:map", "TaskAssigned, TaskStarted or TaskCompleted of a waiting task",
        .method = "POST", .path = PLAN "events", .body = "name task_id=taskId job_id=jobId result",
        VERSION, .repeat = HTTP_REPEAT_ALWAYS),
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
    ROW("update_build", "project:string build_id:int status:string", "reply:map",
        "change a build; status cancelling ends it", .method = "PATCH",
        .path = "/{project}/_apis/build/builds/{build_id}", .body = "status", VERSION,
        .repeat = HTTP_REPEAT_ALWAYS),
    ROW("get_timeline", "project:string build_id:int", "reply:map",
        "stages, jobs and tasks of a build with their issues", .method = "GET",
        .path = "/{project}/_apis/build/builds/{build_id}/timeline", VERSION),
    ROW("list_artifacts", "project:string build_id:int name:string?", "reply:map",
        "the artifacts of a build, or one by name", .method = "GET",
        .path = "/{project}/_apis/build/builds/{build_id}/artifacts", .query = "name=artifactName",
        VERSION),
    ROW("list_approvals", "project:string state:string? user:string?", "reply:map",
        "approvals of the project's pipelines", .method = "GET",
        .path = "/{project}/_apis/pipelines/approvals", .query = "state user=userIds", VERSION),
    ROW("update_approvals", "project:string approvals:array", "reply:map",
        "approve or reject: { approvalId, status, comment }", .method = "PATCH",
        .path = "/{project}/_apis/pipelines/approvals", .body = "*approvals", VERSION),

    /* The newest status of a genre and name is the one that counts. */
    ROW("set_pull_status", PULL_ARGS "status:map", "reply:map", "a status of a pull request",
        .method = "POST", .path = PULL "statuses", .body = "*status", VERSION,
        .repeat = HTTP_REPEAT_ALWAYS),
    ROW("list_pull_statuses", PULL_ARGS, "reply:map", "the statuses of a pull request",
        .method = "GET", .path = PULL "statuses", VERSION),
    ROW("list_threads", PULL_ARGS, "reply:map", "the comment threads of a pull request",
        .method = "GET", .path = PULL "threads", VERSION),
    ROW("create_thread", PULL_ARGS "thread:map", "reply:map", "start a comment thread",
        .method = "POST", .path = PULL "threads", .body = "*thread", VERSION),
    ROW("update_thread", PULL_ARGS "thread:int status:string", "reply:map",
        "open or close a thread", .method = "PATCH", .path = PULL "threads/{thread}",
        .body = "status", VERSION, .repeat = HTTP_REPEAT_ALWAYS),
    ROW("update_comment", PULL_ARGS "thread:int comment:int content:string", "reply:map",
        "change a comment's text", .method = "PATCH",
        .path = PULL "threads/{thread}/comments/{comment}", .body = "content", VERSION,
        .repeat = HTTP_REPEAT_ALWAYS),

    ROW("create_test_run", "project:string run:map", "reply:map", "a test run", .method = "POST",
        .path = "/{project}/_apis/test/runs", .body = "*run", VERSION),
    ROW("add_test_results", "project:string run_id:int results:array", "reply:map",
        "results of a test run", .method = "POST",
        .path = "/{project}/_apis/test/runs/{run_id}/results", .body = "*results", VERSION),
    ROW("update_test_run", "project:string run_id:int state:string", "reply:map",
        "end a test run: Completed or Aborted", .method = "PATCH",
        .path = "/{project}/_apis/test/runs/{run_id}", .body = "state", VERSION,
        .repeat = HTTP_REPEAT_ALWAYS),
    {.sign = {.name = NULL}},
};
