/*
 * The executor: what stands in front of each predictor. It walks the predictor's graph for a
 * request: transform input (or predict) -> route -> children (all at once for -1) -> aggregate ->
 * transform output, as Seldon Core 1's executor does.
 */
#ifndef MLHOST_LOCAL_SELDON_GRAPH_H
#define MLHOST_LOCAL_SELDON_GRAPH_H

#include <pthread.h>

#include "local/seldon_routes.h"

/* One request at one predictor. */
struct seldon_call {
    struct http *http;
    struct seldon_deployment *deployment;
    struct seldon_predictor *predictor;
    struct seldon_node *graph;    /* of the replica that was chosen */
    struct http_headers *headers; /* handed on to each node */
    const char *method, *query;   /* of a request that one node answers alone */
    int64_t deadline;
    const struct cancel *cancel;

    pthread_mutex_t lock; /* of what follows: children run side by side */
    struct value routing, request_path;
};
/* Fills *call; the next replica of the predictor, which must have one. */
void seldon_call_init(struct seldon_call *call, struct http *http,
                      struct seldon_deployment *deployment, struct seldon_predictor *predictor);
void seldon_call_end(struct seldon_call *call);

/* A request or a reply: bytes, or (tree not nil) a parsed document. */
struct seldon_message {
    int status; /* of a reply */
    struct buf body;
    struct value tree;
    struct http_headers headers; /* of a reply that is handed through */
};
void seldon_message_free(struct seldon_message *message);
/* The bytes; made from the tree when there is one. */
void seldon_message_text(struct seldon_message *message, struct buf *out);
#define cleanup_message __attribute__((cleanup(seldon_message_free)))

/*
 * Both take the request in *message and leave the reply there. -1: the reply is an error's: what a
 * node said, or one of ours in the protocol's form.
 */
int seldon_predict(struct seldon_call *call, struct seldon_message *message);
int seldon_feedback(struct seldon_call *call, struct seldon_message *message);
/* GET of a node's own path, e.g. "/metadata". */
int seldon_get(struct seldon_call *call, struct seldon_node *node, const char *path,
               struct seldon_message *reply);
/* The metadata of the whole graph: { name, models, graphinputs, graphoutputs }. */
int seldon_metadata(struct seldon_call *call, struct seldon_message *reply);

/* One request to one process of a group (or to url), and to the next one when nothing came back. */
int seldon_send(struct seldon_call *call, struct seldon_group *group, const char *url,
                const char *method, const char *path, const void *body, size_t len,
                struct seldon_message *reply, struct error *err);
/* An error's reply in the form of the deployment's protocol. Returns -1. */
int seldon_fail(const struct seldon_call *call, struct seldon_message *reply, int status,
                const char *format, ...) __attribute__((format(printf, 4, 5)));
void seldon_error_body(enum seldon_protocol protocol, int status, const char *text,
                       struct buf *out);

/* ---- documents (seldon_message.c): no requests in here ---- */

/* What `from` (a meta) knows and the message's own meta does not: tags, requestPath, routing, puid.
 */
void seldon_meta_merge(struct value *message, const struct value *from);
/* The branch that a router's reply names: data.ndarray, data.tensor or a bare list. 0 or -1. */
int seldon_branch(const struct value *reply, int *branch, struct error *err);
/* The mean of the children's data, in the form of the first. */
int seldon_average(const struct value *replies, struct value *out, struct error *err);
/* The reply of SIMPLE_MODEL. */
void seldon_simple_model(struct value *out);
/* A reply of Open Inference as the next node's request: its outputs are the inputs. */
void seldon_chain_v2(struct value *message);

#endif
