/*
 * Azure Machine Learning: model versions of a workspace, through Azure Resource Manager.
 * https://learn.microsoft.com/rest/api/azureml/model-versions, .../datastores
 */
#include "service/rows.h"

#define WORKSPACE                                                                                  \
    "/subscriptions/{subscription}/resourceGroups/{resource_group}/providers/"                     \
    "Microsoft.MachineLearningServices/"                                                           \
    "workspaces/{workspace}/"
#define ARGS                         "client:service subscription:string resource_group:string workspace:string "
#define VERSION                      .fixed_query = "api-version=2024-04-01"
#define ROW(row_name, row_args, ...) REST_ROW("azureml", row_name, ARGS row_args, __VA_ARGS__)

const struct primitive azureml_rows[] = {
    {.sign = {"azureml.connect", "endpoint:string? auth:map? token:secret?", "client:map",
              "a client for Azure ML: AZURE_TENANT_ID, AZURE_CLIENT_ID, AZURE_CLIENT_SECRET, or "
              "the profile's"},
     .module = MODULE_IO,
     .symbol = "prim_service_connect",
     .data = "azureml"},
    {.sign = {"azureml.token", "client:service scope:string?", "token:map",
              "a bearer token, as a secret"},
     .module = MODULE_IO,
     .symbol = "prim_service_token"},
    ROW("get_datastore", "name:string", "reply:map", "a datastore: account and container",
        .method = "GET", .path = WORKSPACE "datastores/{name}", VERSION),
    ROW("put_model_version", "name:string version:string properties:map", "reply:map",
        "create or replace a model version", .method = "PUT",
        .path = WORKSPACE "models/{name}/versions/{version}", .body = "properties", VERSION),
    ROW("get_model_version", "name:string version:string", "reply:map", "a model version",
        .method = "GET", .path = WORKSPACE "models/{name}/versions/{version}", VERSION),
    ROW("get_model", "name:string", "reply:map", "a model: its next version", .method = "GET",
        .path = WORKSPACE "models/{name}", VERSION),
    {.sign = {.name = NULL}},
};
