/* Seldon: a client of an ingress or a model server, plain requests to it, and load. The protocols
 * are Lua (lua/seldon). */
#include "service/rest.h"

const struct primitive seldon_rows[] = {
    {.sign = {"seldon.connect", "endpoint:string? auth:map? token:secret?", "client:map",
              "a client for Seldon's ingress: SELDON_INGRESS, the profile's, or an endpoint"},
     .module = MODULE_IO,
     .symbol = "prim_service_connect",
     .data = "seldon"},
    {.sign = {"seldon.request",
              "client:service method:string path:string headers:map? body:any? "
              "content_type:string? timeout:duration? limit:int?",
              "reply:map", "one request to a model; any HTTP status is a reply"},
     .module = MODULE_IO,
     .symbol = "prim_seldon_request"},
    {.sign = {"seldon.load",
              "client:service path:string method:string? headers:map? bodies:array? "
              "content_type:string? count:int? duration:duration? concurrency:int? rate:number? "
              "request_timeout:duration? group_by:string? max_reply:int? max_errors:int?",
              "result:map", "send load and measure latency, throughput and errors"},
     .module = MODULE_IO,
     .symbol = "prim_seldon_load"},
    {.sign = {.name = NULL}},
};
