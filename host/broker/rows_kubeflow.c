/*
 * Kubeflow Pipelines, API v2beta1:
 * https://www.kubeflow.org/docs/components/pipelines/reference/api/kubeflow-pipeline-api-spec/.
 * A `filter` is { predicates = { { operation, key, string_value }, ... } }; listings are sorted by
 * created_at.
 */
#include "service/rows.h"

#define API        "/apis/v2beta1/"
#define LIST_ARGS  "page_token:string? page_size:int? sort_by:string? filter:map?"
#define LIST_QUERY "page_token page_size sort_by filter"
#define ROW(row_name, row_args, ...)                                                               \
    REST_ROW("kubeflow", row_name, "client:service " row_args, __VA_ARGS__)

const struct primitive kubeflow_rows[] = {
    {.sign = {"kubeflow.connect", "endpoint:string? auth:map? token:secret?", "client:map",
              "a client for Kubeflow Pipelines: KF_PIPELINES_ENDPOINT, the profile's, or the "
              "embedded one"},
     .module = MODULE_IO,
     .symbol = "prim_service_connect",
     .data = "kubeflow"},
    {.sign = {"kubeflow.token", "client:service scope:string?", "token:map",
              "the bearer token, as a secret"},
     .module = MODULE_IO,
     .symbol = "prim_service_token"},
    {.sign = {"kubeflow.upload",
              "client:service content:string? path:path? filename:string? pipeline_id:string? "
              "name:string? "
              "display_name:string? description:string? namespace:string? tags:map?",
              "reply:map",
              "upload a package as a new pipeline, or as a new version of pipeline_id"},
     .module = MODULE_IO,
     .symbol = "prim_kubeflow_upload"},

    ROW("health", "", "reply:map", "is the API server well?", .method = "GET",
        .path = API "healthz"),
    ROW("list_pipelines", "namespace:string? " LIST_ARGS, "page:map", "a page of pipelines",
        .method = "GET", .path = API "pipelines", .query = "namespace " LIST_QUERY,
        .items = "pipelines"),
    ROW("get_pipeline", "pipeline_id:string", "reply:map", "a pipeline", .method = "GET",
        .path = API "pipelines/{pipeline_id}"),
    ROW("delete_pipeline", "pipeline_id:string cascade:bool?", "reply:map",
        "delete a pipeline; cascade: its versions, too", .method = "DELETE",
        .path = API "pipelines/{pipeline_id}", .query = "cascade"),
    ROW("list_versions", "pipeline_id:string " LIST_ARGS, "page:map",
        "a page of a pipeline's versions", .method = "GET",
        .path = API "pipelines/{pipeline_id}/versions", .query = LIST_QUERY,
        .items = "pipeline_versions"),
    ROW("get_version", "pipeline_id:string version_id:string", "reply:map",
        "a version with its specification", .method = "GET",
        .path = API "pipelines/{pipeline_id}/versions/{version_id}"),
    ROW("delete_version", "pipeline_id:string version_id:string", "reply:map", "delete a version",
        .method = "DELETE", .path = API "pipelines/{pipeline_id}/versions/{version_id}"),

    ROW("list_experiments", "namespace:string? " LIST_ARGS, "page:map", "a page of experiments",
        .method = "GET", .path = API "experiments", .query = "namespace " LIST_QUERY,
        .items = "experiments"),
    ROW("get_experiment", "experiment_id:string", "reply:map", "an experiment", .method = "GET",
        .path = API "experiments/{experiment_id}"),
    ROW("create_experiment", "display_name:string description:string? namespace:string?",
        "reply:map", "create an experiment", .method = "POST", .path = API "experiments",
        .body = "display_name description namespace"),
    ROW("delete_experiment", "experiment_id:string", "reply:map",
        "delete an experiment; its runs stay", .method = "DELETE",
        .path = API "experiments/{experiment_id}"),
    ROW("archive_experiment", "experiment_id:string", "reply:map",
        "archive an experiment and its runs", .method = "POST",
        .path = API "experiments/{experiment_id}:archive", .repeat = HTTP_REPEAT_ALWAYS),
    ROW("unarchive_experiment", "experiment_id:string", "reply:map",
        "take an experiment out of the archive", .method = "POST",
        .path = API "experiments/{experiment_id}:unarchive", .repeat = HTTP_REPEAT_ALWAYS),

    ROW("list_runs", "namespace:string? experiment_id:string? " LIST_ARGS, "page:map",
        "a page of runs", .method = "GET", .path = API "runs",
        .query = "namespace experiment_id " LIST_QUERY, .items = "runs"),
    ROW("get_run", "run_id:string", "reply:map", "a run with its tasks", .method = "GET",
        .path = API "runs/{run_id}"),
    ROW("create_run", "run:map", "reply:map", "create a run", .method = "POST", .path = API "runs",
        .body = "*run"),
    ROW("delete_run", "run_id:string", "reply:map", "delete a run", .method = "DELETE",
        .path = API "runs/{run_id}"),
    ROW("terminate_run", "run_id:string", "reply:map", "end a run that is going on",
        .method = "POST", .path = API "runs/{run_id}:terminate", .repeat = HTTP_REPEAT_ALWAYS),
    ROW("retry_run", "run_id:string", "reply:map", "run the failed tasks of a run again",
        .method = "POST", .path = API "runs/{run_id}:retry"),
    ROW("archive_run", "run_id:string", "reply:map", "archive a run", .method = "POST",
        .path = API "runs/{run_id}:archive", .repeat = HTTP_REPEAT_ALWAYS),
    ROW("unarchive_run", "run_id:string", "reply:map", "take a run out of the archive",
        .method = "POST", .path = API "runs/{run_id}:unarchive", .repeat = HTTP_REPEAT_ALWAYS),
    ROW("node_log", "run_id:string node:string", "text:string", "what a task printed",
        .method = "GET", .path = "/apis/v1alpha1/runs/{run_id}/nodes/{node}/log",
        .reply = REST_TEXT),
    {.sign = {.name = NULL}},
};
