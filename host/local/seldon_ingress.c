/* HTTP of the ingress: paths, headers, and which predictor gets a request. */
#include "local/seldon_ingress.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>

#include <microhttpd.h>

#include "base/mem.h"
#include "local/seldon_metrics.h"
#include "local/seldon_operator.h"
#include "local/seldon_shadow.h"

struct ingress {
    struct service service;
    struct http *http;
    struct seldon_shadow *shadow;
    struct seldon_operator *operator;
};

/* Of this process; for seldon_forward, which another service calls. */
static struct ingress *here;

/* One request on its way through. */
struct passage {
    struct request *rq;
    struct ingress *ingress;
    struct seldon_routes *routes;
    struct seldon_deployment *deployment;
    struct http_headers headers;
};

/* ---- headers ---- */

static bool stays_here(const char *name)
{
    static const char *const own[] = {
        "Host",           "Connection", "Content-Length",      "Transfer-Encoding",
        "Expect",         "Keep-Alive", "Proxy-Connection",    "TE",
        "Trailer",        "Upgrade",    "Proxy-Authorization", "Proxy-Authenticate",
        "Accept-Encoding"};

    for (size_t i = 0; i < sizeof own / sizeof *own; i++) {
        if (strcasecmp(name, own[i]) == 0)
            return true;
    }
    return false;
}

static enum MHD_Result add_header(void *cls, enum MHD_ValueKind kind, const char *name,
                                  const char *value)
{
    (void)kind;
    if (!stays_here(name))
        http_header_add(cls, name, value ? value : "");
    return MHD_YES;
}

static void make_puid(char *out, size_t room)
{
    unsigned char random[16] = {0};

    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random)
        memcpy(random, &(int64_t){clock_now()}, sizeof(int64_t));
    random[6] = (unsigned char)((random[6] & 0x0f) | 0x40);
    random[8] = (unsigned char)((random[8] & 0x3f) | 0x80);
    snprintf(out, room, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
             random[0], random[1], random[2], random[3], random[4], random[5], random[6], random[7],
             random[8], random[9], random[10], random[11], random[12], random[13], random[14],
             random[15]);
}

static void take_headers(struct passage *passage)
{
    char puid[40];

    MHD_get_connection_values(passage->rq->connection, MHD_HEADER_KIND, add_header,
                              &passage->headers);
    if (!http_header_get(&passage->headers, "Seldon-Puid")) {
        make_puid(puid, sizeof puid);
        http_header_add(&passage->headers, "Seldon-Puid", puid);
    }
}

/* ---- answers ---- */

static void refuse(struct passage *passage, int status, const char *text)
{
    cleanup_buf struct buf body = BUF_INIT;

    seldon_error_body(passage->deployment->protocol, status, text, &body);
    answer(passage->rq, status, "application/json", body.data, body.len);
}

static void give(struct passage *passage, struct seldon_message *message)
{
    const char *type = http_header_get(&message->headers, "Content-Type");
    const char *puid = http_header_get(&passage->headers, "Seldon-Puid");
    struct buf body = BUF_INIT;

    for (size_t i = 0; i < message->headers.count; i++) {
        const struct http_header *header = &message->headers.items[i];
        if (!stays_here(header->name) && strcasecmp(header->name, "Content-Type") != 0 &&
            strcasecmp(header->name, "Seldon-Puid") != 0 && strcasecmp(header->name, "Date") != 0)
            answer_header(passage->rq, header->name, header->value);
    }
    if (puid)
        answer_header(passage->rq, "Seldon-Puid", puid);
    if (message->tree.kind == VALUE_NIL) {
        body = message->body;
        message->body = (struct buf)BUF_INIT;
    } else {
        seldon_message_text(message, &body);
    }
    size_t len = body.len;
    answer_take(passage->rq, message->status ? message->status : 500,
                type ? type : "application/json", buf_steal(&body), len);
}

static struct seldon_predictor *choose(struct passage *passage)
{
    cleanup_free char *why = NULL;
    int index = split_next(passage->deployment->split);

    if (index >= 0)
        return &passage->deployment->predictors[index];
    why = mem_printf("deployment %s has no process that is ready: %s", passage->deployment->name,
                     passage->deployment->reason);
    refuse(passage, 503, why);
    return NULL;
}

/* ---- the executor's paths ---- */

enum task { PREDICT, FEEDBACK, METADATA, NODE_GET, READY, LIVE, METRICS, UNKNOWN };

struct target {
    enum task task;
    const char *service; /* label of the series */
    char *node;          /* allocated; NULL: the graph's root, or no node at all */
    const char *suffix;  /* of the node's own path */
};

static bool take(const char **path, const char *prefix)
{
    size_t len = strlen(prefix);

    if (strncmp(*path, prefix, len) != 0)
        return false;
    *path += len;
    return true;
}

static void target_v1(const char *path, struct target *out)
{
    if (!take(&path, "/api/v1.0") && !take(&path, "/api/v0.1"))
        return;
    if (strcmp(path, "/predictions") == 0)
        *out = (struct target){.task = PREDICT, .service = "predictions"};
    else if (strcmp(path, "/feedback") == 0)
        *out = (struct target){.task = FEEDBACK, .service = "feedback"};
    else if (strcmp(path, "/metadata") == 0 || strcmp(path, "/metadata/") == 0)
        *out = (struct target){.task = METADATA, .service = "metadata"};
    else if (take(&path, "/metadata/"))
        *out = (struct target){.task = NODE_GET,
                               .service = "metadata",
                               .node = mem_strdup(path),
                               .suffix = "/metadata"};
    else if (strcmp(path, "/health/status") == 0 || strcmp(path, "/status") == 0)
        *out = (struct target){.task = NODE_GET, .service = "status", .suffix = "/health/status"};
    else if (take(&path, "/status/"))
        *out = (struct target){.task = NODE_GET,
                               .service = "status",
                               .node = mem_strdup(path),
                               .suffix = "/health/status"};
}

static void target_v2(const char *path, struct target *out)
{
    if (strcmp(path, "/v2/models/infer") == 0) {
        *out = (struct target){.task = PREDICT, .service = "infer"};
    } else if (strcmp(path, "/api/v1.0/feedback") == 0) {
        *out = (struct target){.task = FEEDBACK, .service = "feedback"};
    } else if (strcmp(path, "/v2/health/live") == 0) {
        *out = (struct target){.task = LIVE};
    } else if (strcmp(path, "/v2/health/ready") == 0) {
        *out = (struct target){.task = READY};
    } else if (strcmp(path, "/v2/metadata") == 0 || strcmp(path, "/api/v1.0/metadata") == 0) {
        *out = (struct target){.task = METADATA, .service = "metadata"};
    } else if (take(&path, "/v2/models/")) {
        size_t name = strcspn(path, "/");
        const char *verb = path + name;
        *out = (struct target){.node = mem_strndup(path, name), .service = "infer"};
        if (strcmp(verb, "/infer") == 0)
            out->task = PREDICT;
        else if (strcmp(verb, "") == 0 || strcmp(verb, "/ready") == 0)
            out->task = NODE_GET, out->suffix = verb, out->service = "metadata";
        else
            out->task = UNKNOWN;
    }
}

static void target_tensorflow(const char *path, struct target *out)
{
    if (strcmp(path, "/v1/models:predict") == 0) {
        *out = (struct target){.task = PREDICT, .service = "predictions"};
    } else if (take(&path, "/v1/models/")) {
        size_t name = strcspn(path, ":/");
        *out = (struct target){.node = mem_strndup(path, name), .service = "predictions"};
        if (strcmp(path + name, ":predict") == 0)
            out->task = PREDICT;
        else if (strcmp(path + name, "") == 0 || strcmp(path + name, "/metadata") == 0)
            out->task = NODE_GET, out->suffix = path + name;
        else
            out->task = UNKNOWN;
    }
}

static void find_target(enum seldon_protocol protocol, const char *path, struct target *out)
{
    *out = (struct target){.task = UNKNOWN};
    if (strcmp(path, "/ready") == 0)
        out->task = READY;
    else if (strcmp(path, "/live") == 0)
        out->task = LIVE;
    else if (strcmp(path, "/prometheus") == 0 || strcmp(path, "/metrics") == 0)
        out->task = METRICS;
    else if (protocol == SELDON_V1)
        target_v1(path, out);
    else if (protocol == SELDON_V2)
        target_v2(path, out);
    else
        target_tensorflow(path, out);
}

static int node_get(struct seldon_call *call, const struct target *target,
                    struct seldon_message *message)
{
    struct seldon_node *node =
        target->node ? seldon_node_find(call->graph, target->node) : call->graph;
    cleanup_free char *path = NULL;

    if (!node)
        return seldon_fail(call, message, 404, "the graph has no node '%s'; its root is '%s'",
                           target->node, call->graph->name);
    if (node->builtin)
        return seldon_fail(call, message, 404, "node '%s' is built in: it has no such page",
                           node->name);
    if (call->deployment->protocol == SELDON_V2)
        path = mem_printf("/v2/models/%s%s", node->name, target->suffix);
    else if (call->deployment->protocol == SELDON_TENSORFLOW)
        path = mem_printf("/v1/models/%s%s", node->name, target->suffix);
    else
        path = mem_strdup(target->suffix);
    return seldon_get(call, node, path, message);
}

static void run(struct passage *passage, struct seldon_predictor *predictor,
                const struct target *target)
{
    cleanup_message struct seldon_message message = {0};
    struct request *rq = passage->rq;
    struct seldon_call call;
    int64_t started = clock_now();

    seldon_call_init(&call, passage->ingress->http, passage->deployment, predictor);
    call.headers = &passage->headers;
    call.method = rq->method;
    call.query = rq->raw_query;
    if (target->task == PREDICT || target->task == FEEDBACK) {
        message.body = rq->body;
        rq->body = (struct buf)BUF_INIT;
    }
    if (target->task == PREDICT && target->node && !seldon_node_find(call.graph, target->node))
        seldon_fail(&call, &message, 404, "the graph has no model '%s'; its root is '%s'",
                    target->node, call.graph->name);
    else if (target->task == PREDICT)
        (void)seldon_predict(&call, &message); /* the reply says what went wrong */
    else if (target->task == FEEDBACK)
        (void)seldon_feedback(&call, &message);
    else if (target->task == METADATA)
        (void)seldon_metadata(&call, &message);
    else
        (void)node_get(&call, target, &message);
    seldon_metrics_server(passage->deployment, predictor, target->service,
                          strcmp(rq->method, "GET") == 0 ? "get" : "post", message.status,
                          clock_now() - started);
    seldon_call_end(&call);
    give(passage, &message);
}

static void not_here(struct passage *passage, const char *path)
{
    static const char *const paths[] = {
        [SELDON_V1] = "/api/v1.0/predictions, /api/v1.0/feedback, /api/v1.0/metadata",
        [SELDON_V2] = "/v2/models/<node>/infer, /v2/models/<node>, /v2/models/<node>/ready",
        [SELDON_TENSORFLOW] = "/v1/models/<node>:predict"};
    cleanup_free char *text =
        mem_printf("nothing is served at %s; by its spec.protocol this deployment answers at %s",
                   path, paths[passage->deployment->protocol]);

    refuse(passage, 404, text);
}

/* only: this predictor, or NULL to choose by weight. */
static void serve(struct passage *passage, struct seldon_predictor *only, const char *path)
{
    struct target target;
    bool get = strcmp(passage->rq->method, "GET") == 0;

    find_target(passage->deployment->protocol, path, &target);
    if (target.task == METRICS) {
        cleanup_buf struct buf text = BUF_INIT;
        seldon_metrics_print(passage->deployment->namespace, passage->deployment->name, &text);
        answer(passage->rq, 200, "text/plain; version=0.0.4", text.data, text.len);
    } else if (target.task == LIVE) {
        answer(passage->rq, 200, NULL, "", 0);
    } else if (target.task == UNKNOWN) {
        not_here(passage, path);
    } else if (!get && target.task != PREDICT && target.task != FEEDBACK) {
        refuse(passage, 405, "this path answers GET only");
    } else if (get && target.task == FEEDBACK) {
        refuse(passage, 405, "feedback is sent with POST");
    } else {
        struct seldon_predictor *predictor = only ? only : choose(passage);
        if (predictor && !predictor->replica_count)
            refuse(passage, 503, passage->deployment->reason);
        else if (predictor && target.task == READY)
            answer(passage->rq, 200, NULL, "", 0);
        else if (predictor) {
            take_headers(passage);
            if (target.task == PREDICT && !only)
                seldon_shadow_offer(passage->ingress->shadow, passage->routes, passage->deployment,
                                    &passage->headers, &passage->rq->body);
            run(passage, predictor, &target);
        }
    }
    free(target.node);
}

/* One process of a group gets the request as it is. */
static void relay(struct passage *passage, struct seldon_group *group, const char *path)
{
    cleanup_message struct seldon_message message = {0};
    struct request *rq = passage->rq;
    cleanup_free char *whole = mem_printf("%s%s%s", path, *rq->raw_query ? "?" : "", rq->raw_query);
    struct seldon_call call = {.http = passage->ingress->http,
                               .deployment = passage->deployment,
                               .headers = &passage->headers,
                               .deadline =
                                   deadline_in(passage->deployment->timeout_ms * NS_PER_MS)};
    struct error err = {0};

    take_headers(passage);
    if (seldon_send(&call, group, NULL, rq->method, whole, rq->body.data ? rq->body.data : "",
                    rq->body.len, &message, &err) < 0)
        refuse(passage, err.code == ERR_TIMEOUT ? 504 : 503, err.message);
    else
        give(passage, &message);
}

static void passage_end(struct passage *passage)
{
    http_headers_free(&passage->headers);
    seldon_routes_unref(passage->routes);
}
#define cleanup_passage __attribute__((cleanup(passage_end)))

/* ---- /seldon/<namespace>/<name>/<rest> ---- */

static void no_deployment(struct request *rq, const char *namespace, const char *name)
{
    struct error err = {0};

    error_set(&err, ERR_NOT_FOUND, "there is no SeldonDeployment '%s' in namespace '%s' here", name,
              namespace);
    error_hint(&err, "seldon.connect{ namespace = \"%s\" }:list() tells what there is", namespace);
    answer_error(rq, 404, &err);
}

/* <name>-explainer/<predictor>/<rest>; false when it is none. */
static bool serve_explainer(struct passage *passage, const char *namespace, const char *name,
                            const char *rest)
{
    static const char ending[] = "-explainer";
    size_t len = strlen(name), more = sizeof ending - 1;

    if (len <= more || strcmp(name + len - more, ending) != 0 || rest[0] != '/')
        return false;
    cleanup_free char *base = mem_strndup(name, len - more);
    size_t predictor = strcspn(rest + 1, "/");
    passage->deployment = seldon_routes_find(passage->routes, namespace, base);
    for (size_t i = 0; passage->deployment && i < passage->deployment->predictor_count; i++) {
        struct seldon_predictor *one = &passage->deployment->predictors[i];
        if (strlen(one->name) == predictor && strncmp(one->name, rest + 1, predictor) == 0) {
            relay(passage, &one->explainer, rest + 1 + predictor);
            return true;
        }
    }
    return false;
}

static void handle(struct request *rq)
{
    cleanup_passage struct passage passage = {
        .rq = rq, .ingress = rq->service->state, .routes = seldon_routes_get()};
    const char *path = rq->raw_path + strlen("/seldon/");
    size_t namespace_len = strcspn(path, "/");
    const char *after = path + namespace_len + (path[namespace_len] == '/');
    size_t name_len = strcspn(after, "/");
    cleanup_free char *namespace = mem_strndup(path, namespace_len),
                      *name = mem_strndup(after, name_len);
    const char *rest = after + name_len;

    passage.deployment = seldon_routes_find(passage.routes, namespace, name);
    if (passage.deployment)
        serve(&passage, NULL, rest);
    else if (!serve_explainer(&passage, namespace, name, rest))
        no_deployment(rq, namespace, name);
}

int seldon_forward(struct request *rq, const char *ns, const char *service, const char *rest)
{
    cleanup_passage struct passage passage = {.rq = rq, .ingress = here};
    cleanup_free char *path = mem_printf("%s%s", rest[0] == '/' ? "" : "/", rest);

    if (!here)
        return -1;
    passage.routes = seldon_routes_get();
    struct seldon_service *found = seldon_routes_service(passage.routes, ns, service);
    if (!found)
        return -1;
    passage.deployment = &passage.routes->deployments[found->deployment];
    if (found->whole)
        serve(&passage, &passage.deployment->predictors[found->predictor], path);
    else
        relay(&passage, &found->group, path);
    return 0;
}

/* ---- the service ---- */

static void close_ingress(struct service *service)
{
    struct ingress *ingress = service->state;

    here = NULL;
    if (ingress->shadow)
        seldon_shadow_free(ingress->shadow);
    if (ingress->operator)
        seldon_operator_stop(ingress->operator);
    if (ingress->http)
        http_free(ingress->http);
    seldon_metrics_free();
    free(ingress);
}

struct service *seldon_ingress_open(const struct local_host *host, struct error *err)
{
    static const char *const prefixes[] = {"/seldon/", NULL};
    struct ingress *ingress = mem_alloc(sizeof *ingress);

    ingress->service = (struct service){.name = "seldon",
                                        .prefixes = prefixes,
                                        .handle = handle,
                                        .close = close_ingress,
                                        .state = ingress};
    ingress->http = http_new(err);
    if (ingress->http)
        ingress->shadow = seldon_shadow_new(ingress->http, err);
    if (ingress->shadow)
        ingress->operator= seldon_operator_start(host, ingress->http, err);
    if (!ingress->operator) {
        close_ingress(&ingress->service);
        return NULL;
    }
    here = ingress;
    return &ingress->service;
}
