/*
 * MLflow: https://mlflow.org/docs/latest/rest-api.html, one row per endpoint. lua/mlflow is made of
 * these.
 *
 * Which POSTs may be repeated: those that set (tags, parameters, aliases, stages, status), those
 * that search, and log-batch: a point of a metric has its time and step with it, and stores keep
 * the same point once. What creates something (runs/create, model-versions/create) may not:
 * lua/mlflow looks before it asks again.
 */
#include "broker/primitive.h"
#include "service/rest.h"

#define API   "/api/2.0/mlflow/"
#define AGAIN .repeat = HTTP_REPEAT_ALWAYS
#define ENDPOINT(...)                                                                              \
    &(const struct endpoint)                                                                       \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }
#define ROW(row_name, row_args, row_returns, row_doc, ...)                                         \
    {                                                                                              \
        .sign = {"mlflow." row_name, "client:service " row_args, row_returns, row_doc},            \
        .module = MODULE_IO, .symbol = "prim_rest", .data = ENDPOINT(__VA_ARGS__)                  \
    }

const struct primitive mlflow_rows[] = {
    {.sign = {"mlflow.connect", "endpoint:string? auth:map? token:secret?", "client:map",
              "a client for the MLflow tracking server: MLFLOW_TRACKING_URI, the profile's, or the "
              "embedded one"},
     .module = MODULE_IO,
     .symbol = "prim_service_connect",
     .data = "mlflow"},
    {.sign = {"mlflow.upload_artifact", "client:service artifact_uri:string from:path path:string?",
              "result:map", "stream a file or folder into a run's artifacts"},
     .module = MODULE_IO,
     .symbol = "prim_mlflow_upload"},
    {.sign = {"mlflow.download_artifact",
              "client:service run_id:string artifact_uri:string path:string to:path", "result:map",
              "stream one artifact into a file"},
     .module = MODULE_IO,
     .symbol = "prim_mlflow_download"},

    ROW("create_experiment", "name:string artifact_location:string? tags:array?", "reply:map",
        "create an experiment", .method = "POST", .path = API "experiments/create",
        .body = "name artifact_location tags"),
    ROW("search_experiments",
        "filter:string? order_by:array? max_results:int? page_token:string? view_type:string?",
        "page:map", "a page of experiments", .method = "POST", .path = API "experiments/search",
        .body = "filter order_by max_results page_token view_type", .items = "experiments", AGAIN),
    ROW("get_experiment", "experiment_id:string", "reply:map", "an experiment by id",
        .method = "GET", .path = API "experiments/get", .query = "experiment_id"),
    ROW("get_experiment_by_name", "experiment_name:string", "reply:map", "an experiment by name",
        .method = "GET", .path = API "experiments/get-by-name", .query = "experiment_name"),
    ROW("delete_experiment", "experiment_id:string", "reply:map",
        "delete an experiment (it can be restored)", .method = "POST",
        .path = API "experiments/delete", .body = "experiment_id"),
    ROW("restore_experiment", "experiment_id:string", "reply:map",
        "bring a deleted experiment back", .method = "POST", .path = API "experiments/restore",
        .body = "experiment_id"),
    ROW("update_experiment", "experiment_id:string new_name:string", "reply:map",
        "rename an experiment", .method = "POST", .path = API "experiments/update",
        .body = "experiment_id new_name", AGAIN),
    ROW("set_experiment_tag", "experiment_id:string key:string value:string", "reply:map",
        "set a tag of an experiment", .method = "POST",
        .path = API "experiments/set-experiment-tag", .body = "experiment_id key value", AGAIN),

    ROW("create_run",
        "experiment_id:string run_name:string? start_time:int? tags:array? user_id:string?",
        "reply:map", "create a run", .method = "POST", .path = API "runs/create",
        .body = "experiment_id run_name start_time tags user_id"),
    ROW("update_run", "run_id:string status:string? end_time:int? run_name:string?", "reply:map",
        "set status, end time or name of a run", .method = "POST", .path = API "runs/update",
        .body = "run_id status end_time run_name", AGAIN),
    ROW("get_run", "run_id:string", "reply:map", "a run with its params, tags and latest metrics",
        .method = "GET", .path = API "runs/get", .query = "run_id"),
    ROW("delete_run", "run_id:string", "reply:map", "delete a run (it can be restored)",
        .method = "POST", .path = API "runs/delete", .body = "run_id", AGAIN),
    ROW("restore_run", "run_id:string", "reply:map", "bring a deleted run back", .method = "POST",
        .path = API "runs/restore", .body = "run_id", AGAIN),
    ROW("search_runs",
        "experiment_ids:array filter:string? order_by:array? max_results:int? page_token:string? "
        "run_view_type:string?",
        "page:map", "a page of runs", .method = "POST", .path = API "runs/search",
        .body = "experiment_ids filter order_by max_results page_token run_view_type",
        .items = "runs", AGAIN),
    ROW("log_batch", "run_id:string metrics:array? params:array? tags:array?", "reply:map",
        "log metrics, params and tags together", .method = "POST", .path = API "runs/log-batch",
        .body = "run_id metrics params tags", AGAIN),
    ROW("delete_tag", "run_id:string key:string", "reply:map", "delete a tag of a run",
        .method = "POST", .path = API "runs/delete-tag", .body = "run_id key"),
    ROW("log_inputs", "run_id:string datasets:array", "reply:map",
        "name the data sets that a run used", .method = "POST", .path = API "runs/log-inputs",
        .body = "run_id datasets", AGAIN),
    ROW("get_metric_history", "run_id:string metric_key:string max_results:int? page_token:string?",
        "page:map", "all values of a metric", .method = "GET", .path = API "metrics/get-history",
        .query = "run_id metric_key max_results page_token", .items = "metrics"),
    ROW("list_artifacts", "run_id:string path:string? page_token:string?", "reply:map",
        "a folder of a run's artifacts", .method = "GET", .path = API "artifacts/list",
        .query = "run_id path page_token"),

    ROW("create_registered_model", "name:string description:string? tags:array?", "reply:map",
        "create a registered model", .method = "POST", .path = API "registered-models/create",
        .body = "name description tags"),
    ROW("get_registered_model", "name:string", "reply:map", "a registered model", .method = "GET",
        .path = API "registered-models/get", .query = "name"),
    ROW("update_registered_model", "name:string description:string", "reply:map",
        "describe a registered model", .method = "PATCH", .path = API "registered-models/update",
        .body = "name description", AGAIN),
    ROW("rename_registered_model", "name:string new_name:string", "reply:map",
        "rename a registered model", .method = "POST", .path = API "registered-models/rename",
        .body = "name new_name"),
    ROW("delete_registered_model", "name:string", "reply:map",
        "delete a registered model and its versions", .method = "DELETE",
        .path = API "registered-models/delete", .body = "name"),
    ROW("search_registered_models",
        "filter:string? order_by:array? max_results:int? page_token:string?", "page:map",
        "a page of registered models", .method = "GET", .path = API "registered-models/search",
        .query = "filter order_by max_results page_token", .items = "registered_models"),
    ROW("set_registered_model_tag", "name:string key:string value:string", "reply:map",
        "set a tag of a model", .method = "POST", .path = API "registered-models/set-tag",
        .body = "name key value", AGAIN),
    ROW("delete_registered_model_tag", "name:string key:string", "reply:map",
        "delete a tag of a model", .method = "DELETE", .path = API "registered-models/delete-tag",
        .body = "name key"),
    ROW("set_alias", "name:string alias:string version:string", "reply:map",
        "let an alias name a version", .method = "POST", .path = API "registered-models/alias",
        .body = "name alias version", AGAIN),
    ROW("delete_alias", "name:string alias:string", "reply:map", "delete an alias",
        .method = "DELETE", .path = API "registered-models/alias", .body = "name alias"),
    ROW("get_by_alias", "name:string alias:string", "reply:map", "the version that an alias names",
        .method = "GET", .path = API "registered-models/alias", .query = "name alias"),
    ROW("get_latest_versions", "name:string stages:array?", "reply:map",
        "the latest version of each stage", .method = "POST",
        .path = API "registered-models/get-latest-versions", .body = "name stages", AGAIN),

    ROW("create_model_version",
        "name:string source:string run_id:string? description:string? tags:array? run_link:string?",
        "reply:map", "register a version", .method = "POST", .path = API "model-versions/create",
        .body = "name source run_id description tags run_link"),
    ROW("get_model_version", "name:string version:string", "reply:map", "a version",
        .method = "GET", .path = API "model-versions/get", .query = "name version"),
    ROW("update_model_version", "name:string version:string description:string", "reply:map",
        "describe a version", .method = "PATCH", .path = API "model-versions/update",
        .body = "name version description", AGAIN),
    ROW("delete_model_version", "name:string version:string", "reply:map", "delete a version",
        .method = "DELETE", .path = API "model-versions/delete", .body = "name version"),
    ROW("search_model_versions",
        "filter:string? order_by:array? max_results:int? page_token:string?", "page:map",
        "a page of versions", .method = "GET", .path = API "model-versions/search",
        .query = "filter order_by max_results page_token", .items = "model_versions"),
    ROW("transition_stage",
        "name:string version:string stage:string archive_existing_versions:bool", "reply:map",
        "move a version to None, Staging, Production or Archived", .method = "POST",
        .path = API "model-versions/transition-stage",
        .body = "name version stage archive_existing_versions", AGAIN),
    ROW("get_download_uri", "name:string version:string", "reply:map",
        "where a version's artifacts are", .method = "GET",
        .path = API "model-versions/get-download-uri", .query = "name version"),
    ROW("set_model_version_tag", "name:string version:string key:string value:string", "reply:map",
        "set a tag of a version", .method = "POST", .path = API "model-versions/set-tag",
        .body = "name version key value", AGAIN),
    ROW("delete_model_version_tag", "name:string version:string key:string", "reply:map",
        "delete a tag of a version", .method = "DELETE", .path = API "model-versions/delete-tag",
        .body = "name version key"),
    {.sign = {.name = NULL}},
};
