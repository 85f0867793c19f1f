#include "local/seldon_routes.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

struct seldon_endpoint {
    struct seldon_endpoint *next;
    int64_t id;
    int refs; /* under lock */
    struct seldon_queue *queue;
    char url[40];
};

/* Of this process: one operator, one table. */
static struct {
    pthread_mutex_t lock;
    struct seldon_endpoint *endpoints;
    struct seldon_routes *present;
} here = {.lock = PTHREAD_MUTEX_INITIALIZER};

const char *seldon_endpoint_url(const struct seldon_endpoint *endpoint)
{
    return endpoint->url;
}

/* ---- endpoints ---- */

static struct seldon_endpoint *endpoint_take(struct seldon_queue *queue, int64_t id, int port)
{
    struct seldon_endpoint *endpoint;

    pthread_mutex_lock(&here.lock);
    for (endpoint = here.endpoints; endpoint && endpoint->id != id;)
        endpoint = endpoint->next;
    if (!endpoint) {
        endpoint = mem_alloc(sizeof *endpoint);
        endpoint->id = id;
        endpoint->queue = queue;
        snprintf(endpoint->url, sizeof endpoint->url, "http://127.0.0.1:%d", port);
        endpoint->next = here.endpoints;
        here.endpoints = endpoint;
    }
    endpoint->refs++;
    pthread_mutex_unlock(&here.lock);
    return endpoint;
}

static void endpoint_drop(struct seldon_endpoint *endpoint)
{
    struct seldon_endpoint **at = &here.endpoints;

    pthread_mutex_lock(&here.lock);
    bool last = --endpoint->refs == 0;
    if (last) {
        while (*at != endpoint)
            at = &(*at)->next;
        *at = endpoint->next;
    }
    pthread_mutex_unlock(&here.lock);
    if (!last)
        return;
    seldon_queue_tell(endpoint->queue, "drained", endpoint->id);
    free(endpoint);
}

static void group_free(struct seldon_group *group)
{
    for (size_t i = 0; i < group->count; i++)
        endpoint_drop(group->items[i]);
    free(group->items);
}

static void group_make(struct seldon_group *group, struct seldon_queue *queue,
                       const struct value *list)
{
    size_t count = value_count(list);

    group->items = mem_array(NULL, count + 1, sizeof(struct seldon_endpoint *));
    for (size_t i = 0; i < count; i++) {
        const struct value *one = value_at(list, i);
        group->items[group->count++] =
            endpoint_take(queue, value_get_int(one, "id", 0), (int)value_get_int(one, "port", 0));
    }
}

/* ---- nodes ---- */

static void node_free(struct seldon_node *node)
{
    for (size_t i = 0; i < node->child_count; i++)
        node_free(&node->children[i]);
    free(node->children);
    group_free(&node->group);
    free(node->name);
    free(node->image);
    free(node->url);
}

static int index_of(const char *const *names, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(names[i], name) == 0)
            return (int)i;
    }
    return 0;
}

static unsigned duties(const struct seldon_node *node, const struct value *methods)
{
    static const unsigned by_type[] = {
        [SELDON_MODEL] = SELDON_PREDICT | SELDON_FEEDBACK,
        [SELDON_ROUTER] = SELDON_ROUTE | SELDON_FEEDBACK,
        [SELDON_COMBINER] = SELDON_AGGREGATE,
        [SELDON_TRANSFORMER] = SELDON_TRANSFORM_INPUT,
        [SELDON_OUTPUT_TRANSFORMER] = SELDON_TRANSFORM_OUTPUT,
    };
    static const char *const names[] = {"TRANSFORM_INPUT",  "ROUTE",         "AGGREGATE",
                                        "TRANSFORM_OUTPUT", "SEND_FEEDBACK", "PREDICT"};
    static const unsigned bits[] = {SELDON_TRANSFORM_INPUT,  SELDON_ROUTE,    SELDON_AGGREGATE,
                                    SELDON_TRANSFORM_OUTPUT, SELDON_FEEDBACK, SELDON_PREDICT};
    static const unsigned by_builtin[] = {[SELDON_SIMPLE_MODEL] = SELDON_PREDICT,
                                          [SELDON_SIMPLE_ROUTER] = SELDON_ROUTE,
                                          [SELDON_RANDOM_ABTEST] = SELDON_ROUTE,
                                          [SELDON_AVERAGE_COMBINER] = SELDON_AGGREGATE};
    unsigned does = node->builtin ? by_builtin[node->builtin] : by_type[node->type];

    for (size_t i = 0; i < value_count(methods); i++) {
        for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
            if (strcmp(value_text(value_at(methods, i), ""), names[k]) == 0)
                does |= bits[k];
        }
    }
    return does;
}

static double ratio_of(const struct value *parameters)
{
    for (size_t i = 0; i < value_count(parameters); i++) {
        const struct value *one = value_at(parameters, i);
        if (strcmp(value_get_string(one, "name", ""), "ratioA") == 0)
            return strtod(value_get_string(one, "value", "0.5"), NULL);
    }
    return 0.5;
}

static int node_make(struct seldon_node *node, struct seldon_queue *queue, const struct value *from,
                     int depth, struct error *err)
{
    static const char *const types[] = {"",         "MODEL",       "ROUTER",
                                        "COMBINER", "TRANSFORMER", "OUTPUT_TRANSFORMER"};
    static const char *const builtins[] = {"", "SIMPLE_MODEL", "SIMPLE_ROUTER", "RANDOM_ABTEST",
                                           "AVERAGE_COMBINER"};
    const struct value *children = value_get(from, "children");

    node->name = mem_strdup(value_get_string(from, "name", ""));
    node->image = mem_strdup(value_get_string(from, "image", ""));
    node->url = mem_strdup(value_get_string(from, "url", NULL));
    node->type = (enum seldon_type)index_of(types, sizeof types / sizeof *types,
                                            value_get_string(from, "type", ""));
    node->builtin = (enum seldon_builtin)index_of(builtins, sizeof builtins / sizeof *builtins,
                                                  value_get_string(from, "implementation", ""));
    node->does = duties(node, value_get(from, "methods"));
    node->ratio = ratio_of(value_get(from, "parameters"));
    node->group.own = value_get_bool(from, "own", false);
    group_make(&node->group, queue, value_get(from, "endpoints"));
    if (depth >= SELDON_GRAPH_DEPTH && value_count(children))
        return error_set(err, ERR_INVALID, "the graph is more than %d nodes deep",
                         SELDON_GRAPH_DEPTH);
    node->children = mem_alloc((value_count(children) + 1) * sizeof *node->children);
    for (size_t i = 0; i < value_count(children); i++) {
        node->child_count++;
        if (node_make(&node->children[i], queue, value_at(children, i), depth + 1, err) < 0)
            return -1;
    }
    return 0;
}

struct seldon_node *seldon_node_find(struct seldon_node *root, const char *name)
{
    if (strcmp(root->name, name) == 0)
        return root;
    for (size_t i = 0; i < root->child_count; i++) {
        struct seldon_node *found = seldon_node_find(&root->children[i], name);
        if (found)
            return found;
    }
    return NULL;
}

/* ---- deployments ---- */

static void predictor_free(struct seldon_predictor *predictor)
{
    for (size_t i = 0; i < predictor->replica_count; i++)
        node_free(&predictor->replicas[i]);
    free(predictor->replicas);
    group_free(&predictor->explainer);
    free(predictor->name);
}

static int predictor_make(struct seldon_predictor *predictor, struct seldon_queue *queue,
                          const struct value *from, struct error *err)
{
    const struct value *replicas = value_get(from, "replicas");

    predictor->name = mem_strdup(value_get_string(from, "name", ""));
    predictor->traffic = (int)value_get_int(from, "traffic", 0);
    predictor->shadow = value_get_bool(from, "shadow", false);
    group_make(&predictor->explainer, queue, value_get(from, "explainer"));
    predictor->replicas = mem_alloc((value_count(replicas) + 1) * sizeof *predictor->replicas);
    for (size_t i = 0; i < value_count(replicas); i++) {
        predictor->replica_count++;
        if (node_make(&predictor->replicas[i], queue, value_at(replicas, i), 0, err) < 0)
            return -1;
    }
    return 0;
}

static void split_make(struct seldon_deployment *deployment, const struct seldon_routes *before)
{
    struct seldon_deployment *old =
        before ? seldon_routes_find(before, deployment->namespace, deployment->name) : NULL;
    cleanup_free struct split_item *items =
        mem_array(NULL, deployment->predictor_count + 1, sizeof *items);

    int total = 0;
    for (size_t i = 0; i < deployment->predictor_count; i++) {
        const struct seldon_predictor *one = &deployment->predictors[i];
        bool open = !one->shadow && one->replica_count;
        items[i] = (struct split_item){.name = one->name, .weight = open ? one->traffic : 0};
        total += items[i].weight;
    }
    /* Those that are to get the requests are not ready yet: until then whoever is answers. */
    for (size_t i = 0; total == 0 && i < deployment->predictor_count; i++)
        items[i].weight =
            !deployment->predictors[i].shadow && deployment->predictors[i].replica_count;
    deployment->split = split_new(items, deployment->predictor_count, old ? old->split : NULL);
}

static void deployment_free(struct seldon_deployment *deployment)
{
    for (size_t i = 0; i < deployment->predictor_count; i++)
        predictor_free(&deployment->predictors[i]);
    free(deployment->predictors);
    split_unref(deployment->split);
    free(deployment->namespace);
    free(deployment->name);
    free(deployment->reason);
}

static int deployment_make(struct seldon_deployment *deployment, struct seldon_queue *queue,
                           const struct value *from, const struct seldon_routes *before,
                           struct error *err)
{
    const struct value *predictors = value_get(from, "predictors");
    const char *protocol = value_get_string(from, "protocol", "seldon");

    deployment->namespace = mem_strdup(value_get_string(from, "namespace", ""));
    deployment->name = mem_strdup(value_get_string(from, "name", ""));
    deployment->reason = mem_strdup(value_get_string(from, "reason", "it is being started"));
    deployment->timeout_ms = value_get_int(from, "timeout_ms", 60000);
    deployment->protocol = strcmp(protocol, "v2") == 0 || strcmp(protocol, "kfserving") == 0
                               ? SELDON_V2
                           : strcmp(protocol, "tensorflow") == 0 ? SELDON_TENSORFLOW
                                                                 : SELDON_V1;
    deployment->predictors =
        mem_alloc((value_count(predictors) + 1) * sizeof *deployment->predictors);
    for (size_t i = 0; i < value_count(predictors); i++) {
        deployment->predictor_count++;
        if (predictor_make(&deployment->predictors[i], queue, value_at(predictors, i), err) < 0)
            return -1;
    }
    split_make(deployment, before);
    return 0;
}

static void service_make(struct seldon_service *service, struct seldon_queue *queue,
                         const struct value *from)
{
    service->namespace = mem_strdup(value_get_string(from, "namespace", ""));
    service->name = mem_strdup(value_get_string(from, "name", ""));
    service->whole = value_get(from, "predictor") != NULL;
    service->deployment = (size_t)value_get_int(from, "deployment", 0);
    service->predictor = (size_t)value_get_int(from, "predictor", 0);
    group_make(&service->group, queue, value_get(from, "endpoints"));
}

/* ---- the table ---- */

static void routes_free(struct seldon_routes *routes)
{
    for (size_t i = 0; i < routes->deployment_count; i++)
        deployment_free(&routes->deployments[i]);
    for (size_t i = 0; i < routes->service_count; i++) {
        free(routes->services[i].namespace);
        free(routes->services[i].name);
        group_free(&routes->services[i].group);
    }
    free(routes->deployments);
    free(routes->services);
    free(routes);
}

static int routes_make(struct seldon_routes *routes, struct seldon_queue *queue,
                       const struct value *spec, const struct seldon_routes *before,
                       struct error *err)
{
    const struct value *deployments = value_get(spec, "deployments"),
                       *services = value_get(spec, "services");

    routes->deployments = mem_alloc((value_count(deployments) + 1) * sizeof *routes->deployments);
    for (size_t i = 0; i < value_count(deployments); i++) {
        routes->deployment_count++;
        if (deployment_make(&routes->deployments[i], queue, value_at(deployments, i), before, err) <
            0)
            return -1;
    }
    routes->services = mem_alloc((value_count(services) + 1) * sizeof *routes->services);
    for (size_t i = 0; i < value_count(services); i++) {
        struct seldon_service *service = &routes->services[routes->service_count++];
        service_make(service, queue, value_at(services, i));
        if (service->whole &&
            (service->deployment >= routes->deployment_count ||
             service->predictor >= routes->deployments[service->deployment].predictor_count))
            return error_set(err, ERR_INTERNAL, "service %s is of no predictor", service->name);
    }
    return 0;
}

static struct seldon_routes *swap(struct seldon_routes *routes)
{
    pthread_mutex_lock(&here.lock);
    struct seldon_routes *before = here.present;
    here.present = routes;
    pthread_mutex_unlock(&here.lock);
    return before;
}

int seldon_routes_set(struct seldon_queue *queue, const struct value *spec, struct error *err)
{
    struct seldon_routes *routes = mem_alloc(sizeof *routes), *before = seldon_routes_get();

    atomic_init(&routes->refs, 1);
    int status = routes_make(routes, queue, spec, before, err);
    if (status == 0)
        seldon_routes_unref(swap(routes));
    else
        routes_free(routes);
    seldon_routes_unref(before);
    return status;
}

struct seldon_routes *seldon_routes_get(void)
{
    pthread_mutex_lock(&here.lock);
    if (!here.present) {
        here.present = mem_alloc(sizeof *here.present);
        atomic_init(&here.present->refs, 1);
    }
    struct seldon_routes *routes = seldon_routes_ref(here.present);
    pthread_mutex_unlock(&here.lock);
    return routes;
}

struct seldon_routes *seldon_routes_ref(struct seldon_routes *routes)
{
    atomic_fetch_add(&routes->refs, 1);
    return routes;
}

void seldon_routes_unref(struct seldon_routes *routes)
{
    if (routes && atomic_fetch_sub(&routes->refs, 1) == 1)
        routes_free(routes);
}

void seldon_routes_clear(void)
{
    seldon_routes_unref(swap(NULL));
}

struct seldon_deployment *seldon_routes_find(const struct seldon_routes *routes,
                                             const char *namespace, const char *name)
{
    for (size_t i = 0; i < routes->deployment_count; i++) {
        struct seldon_deployment *one = &routes->deployments[i];
        if (strcmp(one->name, name) == 0 && strcmp(one->namespace, namespace) == 0)
            return one;
    }
    return NULL;
}

struct seldon_service *seldon_routes_service(const struct seldon_routes *routes,
                                             const char *namespace, const char *name)
{
    for (size_t i = 0; i < routes->service_count; i++) {
        struct seldon_service *one = &routes->services[i];
        if (strcmp(one->name, name) == 0 && strcmp(one->namespace, namespace) == 0)
            return one;
    }
    return NULL;
}
