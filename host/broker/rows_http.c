/* Plain HTTP, and what all services share. */
#include "broker/primitive.h"

const struct primitive http_rows[] = {
    {.sign = {"http.request",
              "url:string method:string? headers:map? bearer:secret? body:secret? from:path? "
              "to:path? limit:int? "
              "timeout:duration? follow:bool? retry:bool? check:bool?",
              "reply:map", "an HTTP request to a host that the permission net names"},
     .module = MODULE_IO,
     .symbol = "prim_http_request"},
    {.sign = {"service.configured", "service:string", "yes:bool",
              "is there an address for this service?"},
     .module = MODULE_IO,
     .symbol = "prim_service_configured"},
    {.sign = {.name = NULL}},
};
