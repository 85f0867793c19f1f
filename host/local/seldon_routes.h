/*
 * Where requests go: an immutable table of deployments, their predictors, and the processes behind
 * each node of their graphs. The operator makes a new one from what is ready, and puts it in the
 * place of the old one; requests that are under way finish with the table that they began with.
 *
 * A process is an endpoint: once no table in use names it any more, no request can be at it, and
 * the operator gets the event { t = "drained", id }.
 */
#ifndef MLHOST_LOCAL_SELDON_ROUTES_H
#define MLHOST_LOCAL_SELDON_ROUTES_H

#include <stdatomic.h>

#include "local/seldon_process.h"
#include "local/seldon_split.h"

#define SELDON_GRAPH_DEPTH 32

enum seldon_protocol { SELDON_V1, SELDON_V2, SELDON_TENSORFLOW };
enum seldon_type {
    SELDON_UNKNOWN,
    SELDON_MODEL,
    SELDON_ROUTER,
    SELDON_COMBINER,
    SELDON_TRANSFORMER,
    SELDON_OUTPUT_TRANSFORMER
};
enum seldon_builtin {
    SELDON_NO_BUILTIN,
    SELDON_SIMPLE_MODEL,
    SELDON_SIMPLE_ROUTER,
    SELDON_RANDOM_ABTEST,
    SELDON_AVERAGE_COMBINER
};
/* What a node does when it is asked: by its type, or by its methods. */
#define SELDON_PREDICT          1u
#define SELDON_TRANSFORM_INPUT  2u
#define SELDON_ROUTE            4u
#define SELDON_AGGREGATE        8u
#define SELDON_TRANSFORM_OUTPUT 16u
#define SELDON_FEEDBACK         32u

struct seldon_endpoint; /* one process, shared by tables */
const char *seldon_endpoint_url(const struct seldon_endpoint *endpoint); /* "http://127.0.0.1:N" */

/* Processes of which any will do. */
struct seldon_group {
    struct seldon_endpoint **items;
    size_t count;
    bool own; /* the first is the replica's own: others only when it cannot be reached */
    atomic_uint next;
};

struct seldon_node {
    char *name, *image;
    enum seldon_type type;
    enum seldon_builtin builtin;
    unsigned does; /* SELDON_PREDICT ... */
    double ratio;  /* of RANDOM_ABTEST: share of the first child */
    char *url;     /* of a service elsewhere; NULL: group */
    struct seldon_group group;
    struct seldon_node *children;
    size_t child_count;
};

struct seldon_predictor {
    char *name;
    int traffic; /* of a shadow: percent of requests that it gets a copy of */
    bool shadow;
    struct seldon_node *replicas; /* a graph each; all of them ready */
    size_t replica_count;
    atomic_uint next;
    struct seldon_group explainer;
};

struct seldon_deployment {
    char *namespace, *name;
    enum seldon_protocol protocol;
    int64_t timeout_ms;
    char *reason; /* why nobody answers, when nobody does */
    struct seldon_predictor *predictors;
    size_t predictor_count;
    struct split *split; /* over the predictors; shadows and those without replicas weigh 0 */
};

/* A Service object: of a predictor, or of a container of one. */
struct seldon_service {
    char *namespace, *name;
    size_t deployment, predictor; /* indexes; of the group's when there is one */
    bool whole;                   /* the predictor's graph; else the group */
    struct seldon_group group;
};

struct seldon_routes {
    atomic_int refs;
    struct seldon_deployment *deployments;
    size_t deployment_count;
    struct seldon_service *services;
    size_t service_count;
};

/*
 * Puts a new table in the place of the present one. spec:
 *   { deployments = { { namespace, name, protocol, timeout_ms, reason, predictors = { { name,
 *     traffic, shadow, replicas = { node }, explainer = { endpoint } } } } },
 *     services = { { namespace, name, deployment, predictor (numbers from 0) | endpoints } } }
 *   node      { name, type, implementation, methods, parameters, image, url, own, endpoints,
 *               children }
 *   endpoint  { id, port }
 * queue: gets the events "drained".
 */
int seldon_routes_set(struct seldon_queue *queue, const struct value *spec, struct error *err);
/* The present table, to be given back with unref. Never NULL. */
struct seldon_routes *seldon_routes_get(void);
struct seldon_routes *seldon_routes_ref(struct seldon_routes *routes);
void seldon_routes_unref(struct seldon_routes *routes);
/* An empty table again; for the end of the service. */
void seldon_routes_clear(void);

struct seldon_deployment *seldon_routes_find(const struct seldon_routes *routes,
                                             const char *namespace, const char *name);
struct seldon_service *seldon_routes_service(const struct seldon_routes *routes,
                                             const char *namespace, const char *name);
/* By the node's name; NULL when there is none. */
struct seldon_node *seldon_node_find(struct seldon_node *root, const char *name);

#endif
