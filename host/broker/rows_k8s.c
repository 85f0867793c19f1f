/*
 * Kubernetes: requests of any kind, and watches. What they mean is in lua/k8s.
 * https://kubernetes.io/docs/reference/using-api/api-concepts/
 */
#include "broker/primitive.h"

const struct primitive k8s_rows[] = {
    {.sign = {"k8s.connect",
              "endpoint:string? kubeconfig:path? context:string? namespace:string? auth:map? "
              "token:secret?",
              "client:map",
              "a client for a Kubernetes API: the profile's, a kubeconfig's, the pod's own or the "
              "embedded one"},
     .module = MODULE_IO,
     .symbol = "prim_k8s_connect",
     .data = "k8s"},
    {.sign = {"k8s.request",
              "client:service method:string path:string body:any? content_type:string? "
              "accept:string? limit:int? headers:map? check:bool? timeout:duration?",
              "reply:map", "one request to the Kubernetes API"},
     .module = MODULE_IO,
     .symbol = "prim_k8s_request"},
    {.sign = {"k8s.watch_open", "client:service path:string", "watch:map",
              "a stream of events; path says of what, and from which resourceVersion"},
     .module = MODULE_IO,
     .symbol = "prim_k8s_watch_open"},
    {.sign = {"k8s.watch_next", "watch:k8s_watch wait:duration", "events:map",
              "what has come; waits for the first of them, for so long at most"},
     .module = MODULE_IO,
     .symbol = "prim_k8s_watch_next"},
    {.sign = {"k8s.watch_close", "watch:k8s_watch", "done:map", "ends a watch"},
     .module = MODULE_IO,
     .symbol = "prim_k8s_watch_close"},
    {.sign = {.name = NULL}},
};
