/*
 * The engine behind every service client: one table row per endpoint, one function for all of them.
 *
 * A row's function is prim_rest and its data a `struct endpoint`: where arguments go (path, query,
 * body), what may be repeated, how pages are named. A `service` handle, made by
 * prim_service_connect, holds address, TLS and credentials, so the script that uses it sees none of
 * them. Part of the io module; endpoint tables stand in broker/rows_<service>.c.
 */
#ifndef MLHOST_SERVICE_REST_H
#define MLHOST_SERVICE_REST_H

#include "broker/primitive.h"
#include "loop/http.h"

enum rest_reply { REST_JSON, REST_TEXT };

struct endpoint {
    const char *method;
    const char *path;  /* "/api/2.0/x/{name}": {name} is the argument, percent-encoded ({+name}:
                          slashes kept) */
    const char *query; /* words "argument" or "argument=wire_name"; arrays repeat, maps go as JSON;
                          or NULL */
    const char *
        body; /* the same for the JSON body; "*name": the whole body; "@name": raw bytes; or NULL */
    const char *items; /* a listing: the reply becomes { items = [...], next = token or absent } */
    const char *fixed_query; /* "api-version=7.1", sent as it is; or NULL */
    enum http_repeat repeat;
    enum rest_reply reply;
};

/* Rows name these as symbols of the io module. */
primitive_fn prim_rest; /* data: struct endpoint; arguments: client, and what the endpoint names */
primitive_fn prim_service_connect; /* data: the service's name; see host/service/client.c */
primitive_fn prim_service_token;   /* client -> { token = secret }: the bearer token that requests
                                      would carry */
primitive_fn prim_service_configured; /* service -> bool: is there an address for it? */
primitive_fn prim_http_request;
primitive_fn prim_mlflow_upload, prim_mlflow_download;
primitive_fn prim_kubeflow_upload;
primitive_fn prim_databricks_import;
primitive_fn prim_content_hash;
primitive_fn prim_k8s_connect, prim_k8s_request;
primitive_fn prim_k8s_watch_open, prim_k8s_watch_next, prim_k8s_watch_close;
primitive_fn prim_azdo_download;
primitive_fn prim_seldon_request, prim_seldon_load;

/* ---- for the primitives of this folder ---- */

struct rest_client;
/* The client of a call: its argument `client`. Lives until the broker ends. */
struct rest_client *rest_client_arg(struct call *call, const struct value *args, struct error *err);
const char *rest_client_url(const struct rest_client *client);
/*
 * Sends a request and wants a 2xx. request->url is a path below the client's base URL; headers,
 * body, reply and progress are the caller's; address, TLS, credentials, deadline, cancel and the
 * permission check are filled in here. A deadline of the request's own takes the place of the
 * client's timeout. A 401 makes a refreshable token be fetched anew, once. Any other status is an
 * error with the service's own message.
 */
int rest_send(struct call *call, struct rest_client *client, const struct http_request *request,
              struct http_response *response, struct error *err);
/* The same, and any status is a reply. */
int rest_exchange(struct call *call, struct rest_client *client, const struct http_request *request,
                  struct http_response *response, struct error *err);
/* For those who carry a request out themselves: the request with everything that the client knows
 * filled in, but for the deadline. `target` owns URL and headers, and must stay where it is until
 * rest_target_close. `fresh`: a cached token has been refused. */
struct rest_target {
    struct call *call;
    const struct rest_client *client;
    char *url;
    struct http_headers headers;
};
int rest_target_open(struct call *call, struct rest_client *client, bool fresh,
                     struct http_request *request, struct rest_target *target, struct error *err);
void rest_target_close(struct rest_target *target);
/* { name = text or int } of a script. */
int rest_add_headers(const struct value *map, struct http_headers *headers, struct error *err);
/* The reply's JSON object; {} when the body is empty. */
int rest_json(struct rest_client *client, const struct http_response *response, struct value *out,
              struct error *err);
/* The text that a service gave with an error, in any of the known forms; *out stays empty when
 * there is none. *code becomes what the service's own code means, where that is more exact than the
 * status. */
void rest_error_text(const struct buf *body, struct buf *out, enum error_code *code);

#endif
