/* The walk through a graph. */
#include "local/seldon_graph.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/mem.h"
#include "local/seldon_metrics.h"
#include "local/router.h"

#define REPLY_LIMIT ((size_t)64 << 20)

void seldon_call_init(struct seldon_call *call, struct http *http,
                      struct seldon_deployment *deployment, struct seldon_predictor *predictor)
{
    unsigned next = atomic_fetch_add(&predictor->next, 1);

    *call = (struct seldon_call){.http = http,
                                 .deployment = deployment,
                                 .predictor = predictor,
                                 .graph = &predictor->replicas[next % predictor->replica_count],
                                 .method = "POST",
                                 .query = "",
                                 .deadline = deadline_in(deployment->timeout_ms * NS_PER_MS)};
    pthread_mutex_init(&call->lock, NULL);
    value_set_map(&call->routing);
    value_set_map(&call->request_path);
}

void seldon_call_end(struct seldon_call *call)
{
    pthread_mutex_destroy(&call->lock);
    value_free(&call->routing);
    value_free(&call->request_path);
}

/* ---- errors ---- */

void seldon_error_body(enum seldon_protocol protocol, int status, const char *text, struct buf *out)
{
    cleanup_value struct value body = {0};

    value_set_map(&body);
    if (protocol == SELDON_V1) {
        struct value *inner = value_put(&body, "status");
        value_set_map(inner);
        value_put_int(inner, "code", status);
        value_put_string(inner, "info", text);
        value_put_string(inner, "status", "FAILURE");
    } else {
        value_put_string(&body, "error", text);
    }
    value_to_json(&body, 0, out);
}

int seldon_fail(const struct seldon_call *call, struct seldon_message *reply, int status,
                const char *format, ...)
{
    cleanup_buf struct buf text = BUF_INIT;
    va_list args;

    va_start(args, format);
    buf_vprintf(&text, format, args);
    va_end(args);
    seldon_message_free(reply);
    *reply = (struct seldon_message){.status = status};
    seldon_error_body(call->deployment->protocol, status, text.data, &reply->body);
    return -1;
}

/* ---- one node ---- */

static int once(struct seldon_call *call, const char *base, const char *method, const char *path,
                const void *body, size_t len, struct http_response *response, struct error *err)
{
    cleanup_free char *url = mem_printf("%s%s", base, path);
    struct http_request request = HTTP_REQUEST_INIT;

    request.method = method;
    request.url = url;
    request.proxy = "";
    if (call->headers)
        request.headers = *call->headers;
    request.body = len || strcmp(method, "POST") == 0 ? body : NULL;
    request.body_len = len;
    request.repeat = HTTP_REPEAT_NEVER;
    request.reply_limit = REPLY_LIMIT;
    request.deadline = call->deadline;
    request.stall_ms = call->deployment->timeout_ms;
    request.cancel = call->cancel;
    return http_perform(call->http, &request, response, err);
}

int seldon_send(struct seldon_call *call, struct seldon_group *group, const char *url,
                const char *method, const char *path, const void *body, size_t len,
                struct seldon_message *reply, struct error *err)
{
    size_t count = url ? 1 : group->count;
    unsigned first = url || group->own ? 0 : atomic_fetch_add(&group->next, 1);

    if (!count)
        return error_set(err, ERR_UNAVAILABLE, "no process of it is ready");
    for (size_t i = 0; i < count; i++) {
        cleanup_response struct http_response response = {0};
        struct error why = {0};
        const char *base =
            url ? url : seldon_endpoint_url(group->items[(first + i) % group->count]);
        if (once(call, base, method, path, body, len, &response, &why) == 0) {
            reply->status = response.status;
            reply->body = response.body;
            reply->headers = response.headers;
            response.body = (struct buf)BUF_INIT;
            response.headers = (struct http_headers){0};
            return 0;
        }
        /* Nothing came back: whoever is next can do it. */
        if (why.code != ERR_UNAVAILABLE || i + 1 == count) {
            *err = why;
            return -1;
        }
    }
    return -1;
}

static char *path_of(const struct seldon_call *call, const struct seldon_node *node, unsigned what)
{
    const char *v1 = "/predict", *suffix = "infer", *tf = "predict";

    switch (what) {
    case SELDON_TRANSFORM_INPUT:
        v1 = "/transform-input";
        break;
    case SELDON_TRANSFORM_OUTPUT:
        v1 = "/transform-output";
        break;
    case SELDON_ROUTE:
        v1 = "/route";
        suffix = tf = "route";
        break;
    case SELDON_AGGREGATE:
        v1 = "/aggregate";
        suffix = tf = "aggregate";
        break;
    case SELDON_FEEDBACK:
        v1 = "/send-feedback";
        suffix = tf = "feedback";
        break;
    default:
        break;
    }
    if (call->deployment->protocol == SELDON_V2)
        return mem_printf("/v2/models/%s/%s", node->name, suffix);
    if (call->deployment->protocol == SELDON_TENSORFLOW)
        return mem_printf("/v1/models/%s:%s", node->name, tf);
    return mem_strdup(v1);
}

static void note_path(struct seldon_call *call, const struct seldon_node *node)
{
    pthread_mutex_lock(&call->lock);
    value_put_string(&call->request_path, node->name, node->image);
    pthread_mutex_unlock(&call->lock);
}

/* Asks a node; the reply's bytes are in *reply. */
static int ask(struct seldon_call *call, struct seldon_node *node, unsigned what, const void *body,
               size_t len, struct seldon_message *reply)
{
    cleanup_free char *path = path_of(call, node, what);
    struct error err = {0};
    int64_t started = clock_now();

    int status = seldon_send(call, &node->group, node->url, "POST", path, body, len, reply, &err);
    seldon_metrics_client(call, node, path, status < 0 ? 503 : reply->status,
                          clock_now() - started);
    if (status < 0) {
        int code = err.code == ERR_TIMEOUT ? 504 : err.code == ERR_UNAVAILABLE ? 503 : 500;
        return seldon_fail(call, reply, code, "node %s: %s", node->name, err.message);
    }
    note_path(call, node);
    return reply->status >= 200 && reply->status < 300 ? 0 : -1;
}

static int parse(const struct seldon_call *call, const char *source, int status,
                 struct seldon_message *message)
{
    struct error err = {0};

    if (message->tree.kind != VALUE_NIL)
        return 0;
    if (value_from_json(message->body.data ? message->body.data : "", message->body.len, source,
                        NULL, &message->tree, &err) < 0)
        return seldon_fail(call, message, status, "%s", err.message);
    buf_clear(&message->body);
    return 0;
}

/* The message goes to a node and its reply takes the message's place, with what the message's meta
 * knew. */
static int exchange(struct seldon_call *call, struct seldon_node *node, unsigned what,
                    struct seldon_message *message)
{
    cleanup_message struct seldon_message reply = {0};
    cleanup_buf struct buf text = BUF_INIT;

    seldon_message_text(message, &text);
    if (ask(call, node, what, text.data ? text.data : "", text.len, &reply) < 0 ||
        parse(call, node->name, 500, &reply) < 0) {
        seldon_message_free(message);
        *message = reply;
        reply = (struct seldon_message){0};
        return -1;
    }
    if (call->deployment->protocol == SELDON_V1)
        seldon_meta_merge(&reply.tree, value_get(&message->tree, "meta"));
    seldon_message_free(message);
    *message = reply;
    reply = (struct seldon_message){0};
    return 0;
}

/* ---- the steps ---- */

static int take_in(struct seldon_call *call, struct seldon_node *node,
                   struct seldon_message *message)
{
    if (node->builtin == SELDON_SIMPLE_MODEL) {
        struct value reply = {0};
        seldon_simple_model(&reply);
        seldon_meta_merge(&reply, value_get(&message->tree, "meta"));
        value_move(&message->tree, &reply);
        note_path(call, node);
        return 0;
    }
    if (!(node->does & (SELDON_PREDICT | SELDON_TRANSFORM_INPUT)))
        return 0;
    if (exchange(call, node, node->does & SELDON_PREDICT ? SELDON_PREDICT : SELDON_TRANSFORM_INPUT,
                 message) < 0)
        return -1;
    if (call->deployment->protocol == SELDON_V2 && node->child_count)
        seldon_chain_v2(&message->tree);
    return 0;
}

static bool heads(double ratio)
{
    uint32_t random = 0;

    if (getrandom(&random, sizeof random, 0) != (ssize_t)sizeof random)
        random = (uint32_t)clock_now();
    return (double)random / 4294967296.0 < ratio;
}

static int route(struct seldon_call *call, struct seldon_node *node, struct seldon_message *message,
                 int *branch)
{
    cleanup_message struct seldon_message reply = {0};
    cleanup_buf struct buf text = BUF_INIT;
    struct error err = {0};

    *branch = -1;
    if (node->builtin == SELDON_SIMPLE_ROUTER) {
        *branch = 0;
    } else if (node->builtin == SELDON_RANDOM_ABTEST) {
        *branch = heads(node->ratio) ? 0 : 1;
    } else if (node->does & SELDON_ROUTE) {
        seldon_message_text(message, &text);
        if (ask(call, node, SELDON_ROUTE, text.data, text.len, &reply) < 0 ||
            parse(call, node->name, 500, &reply) < 0) {
            seldon_message_free(message);
            *message = reply;
            reply = (struct seldon_message){0};
            return -1;
        }
        if (seldon_branch(&reply.tree, branch, &err) < 0)
            return seldon_fail(call, message, 500, "node %s: %s", node->name, err.message);
        if (call->deployment->protocol == SELDON_V1)
            seldon_meta_merge(&message->tree, value_get(&reply.tree, "meta"));
    }
    if (*branch < -2 || *branch >= (int)node->child_count)
        return seldon_fail(call, message, 500, "node %s: branch %d of %zu children", node->name,
                           *branch, node->child_count);
    pthread_mutex_lock(&call->lock);
    value_put_int(&call->routing, node->name, *branch);
    pthread_mutex_unlock(&call->lock);
    return 0;
}

static int walk(struct seldon_call *call, struct seldon_node *node, struct seldon_message *message);

struct branch {
    struct seldon_call *call;
    struct seldon_node *node;
    struct seldon_message message;
    int status;
    pthread_t thread;
    bool threaded;
};

static void *walk_branch(void *ctx)
{
    struct branch *branch = ctx;

    branch->status = walk(branch->call, branch->node, &branch->message);
    return NULL;
}

static int aggregate(struct seldon_call *call, struct seldon_node *node, struct branch *branches,
                     size_t count, struct seldon_message *message)
{
    cleanup_message struct seldon_message all = {0};
    struct error err = {0};
    int status = 0;

    if (!(node->does & SELDON_AGGREGATE)) {
        *message = branches[0].message;
        branches[0].message = (struct seldon_message){0};
        return 0;
    }
    value_set_array(&all.tree);
    for (size_t i = 0; i < count; i++)
        value_copy(value_push(&all.tree), &branches[i].message.tree);
    if (node->builtin == SELDON_AVERAGE_COMBINER) {
        if (seldon_average(&all.tree, &message->tree, &err) < 0)
            return seldon_fail(call, message, 500, "node %s: %s", node->name, err.message);
        note_path(call, node);
    } else {
        status = exchange(call, node, SELDON_AGGREGATE, &all);
        *message = all;
        all = (struct seldon_message){0};
    }
    for (size_t i = 0; status == 0 && i < count && call->deployment->protocol == SELDON_V1; i++)
        seldon_meta_merge(&message->tree, value_get(&branches[i].message.tree, "meta"));
    return status;
}

/* All children, side by side. */
static int fan_out(struct seldon_call *call, struct seldon_node *node,
                   struct seldon_message *message)
{
    size_t count = node->child_count;
    cleanup_free struct branch *branches = mem_alloc(count * sizeof *branches);
    int status = 0;

    for (size_t i = 0; i < count; i++) {
        branches[i] = (struct branch){.call = call, .node = &node->children[i]};
        value_copy(&branches[i].message.tree, &message->tree);
        branches[i].threaded =
            i > 0 && pthread_create(&branches[i].thread, NULL, walk_branch, &branches[i]) == 0;
    }
    for (size_t i = 0; i < count; i++) {
        if (branches[i].threaded)
            pthread_join(branches[i].thread, NULL);
        else
            walk_branch(&branches[i]);
    }
    seldon_message_free(message);
    *message = (struct seldon_message){0};
    for (size_t i = 0; status == 0 && i < count; i++) {
        status = branches[i].status;
        if (status < 0) {
            *message = branches[i].message;
            branches[i].message = (struct seldon_message){0};
        }
    }
    if (status == 0)
        status = aggregate(call, node, branches, count, message);
    for (size_t i = 0; i < count; i++)
        seldon_message_free(&branches[i].message);
    return status;
}

static int go_down(struct seldon_call *call, struct seldon_node *node,
                   struct seldon_message *message)
{
    int branch;

    if (!node->child_count)
        return 0;
    if (route(call, node, message, &branch) < 0)
        return -1;
    if (branch == -2)
        return 0;
    if (branch == -1)
        return fan_out(call, node, message);
    struct branch one = {.call = call, .node = &node->children[branch]};
    one.message = *message;
    *message = (struct seldon_message){0};
    if (walk(call, one.node, &one.message) < 0) {
        *message = one.message;
        return -1;
    }
    int status = aggregate(call, node, &one, 1, message);
    seldon_message_free(&one.message);
    return status;
}

static int walk(struct seldon_call *call, struct seldon_node *node, struct seldon_message *message)
{
    if (take_in(call, node, message) < 0 || go_down(call, node, message) < 0)
        return -1;
    if (!(node->does & SELDON_TRANSFORM_OUTPUT))
        return 0;
    if (call->deployment->protocol == SELDON_V2)
        seldon_chain_v2(&message->tree);
    return exchange(call, node, SELDON_TRANSFORM_OUTPUT, message);
}

/* ---- whole requests ---- */

/* A graph of one model: its bytes are the client's. */
static int hand_through(struct seldon_call *call, struct seldon_message *message)
{
    cleanup_message struct seldon_message reply = {0};
    cleanup_free char *bare = path_of(call, call->graph, SELDON_PREDICT);
    cleanup_free char *path = mem_printf("%s%s%s", bare, *call->query ? "?" : "", call->query);
    struct error err = {0};
    int64_t started = clock_now();

    int status =
        seldon_send(call, &call->graph->group, call->graph->url, call->method, path,
                    message->body.data ? message->body.data : "", message->body.len, &reply, &err);
    seldon_metrics_client(call, call->graph, bare, status < 0 ? 503 : reply.status,
                          clock_now() - started);
    if (status < 0) {
        int code = err.code == ERR_TIMEOUT ? 504 : err.code == ERR_UNAVAILABLE ? 503 : 500;
        return seldon_fail(call, message, code, "node %s: %s", call->graph->name, err.message);
    }
    seldon_message_free(message);
    *message = reply;
    reply = (struct seldon_message){0};
    return message->status >= 200 && message->status < 300 ? 0 : -1;
}

int seldon_predict(struct seldon_call *call, struct seldon_message *message)
{
    const struct seldon_node *root = call->graph;

    if (!root->child_count && !root->builtin && root->does & SELDON_PREDICT &&
        message->tree.kind == VALUE_NIL)
        return hand_through(call, message);
    if (parse(call, "the request", 400, message) < 0 || walk(call, call->graph, message) < 0)
        return -1;
    if (call->deployment->protocol == SELDON_V1 && message->tree.kind == VALUE_MAP) {
        cleanup_value struct value meta = {0};
        value_set_map(&meta);
        value_move(value_put(&meta, "routing"), &call->routing);
        value_move(value_put(&meta, "requestPath"), &call->request_path);
        seldon_meta_merge(&message->tree, &meta);
    }
    message->status = 200;
    return 0;
}

/* Children first, along the path that the prediction took. */
static int feed(struct seldon_call *call, struct seldon_node *node, const struct value *routing,
                const char *text, size_t len, struct seldon_message *reply)
{
    int64_t branch = value_get_int(routing, node->name, -1);

    for (size_t i = 0; i < node->child_count; i++) {
        if ((branch == -1 || branch == (int64_t)i) &&
            feed(call, &node->children[i], routing, text, len, reply) < 0)
            return -1;
    }
    if (!(node->does & SELDON_FEEDBACK) || node->builtin)
        return 0;
    seldon_message_free(reply);
    *reply = (struct seldon_message){0};
    return ask(call, node, SELDON_FEEDBACK, text, len, reply);
}

int seldon_feedback(struct seldon_call *call, struct seldon_message *message)
{
    cleanup_message struct seldon_message reply = {0};
    cleanup_buf struct buf text = BUF_INIT;

    if (parse(call, "the feedback", 400, message) < 0)
        return -1;
    seldon_message_text(message, &text);
    int status = feed(call, call->graph, value_path(&message->tree, "response.meta.routing"),
                      text.data, text.len, &reply);
    seldon_message_free(message);
    *message = reply;
    reply = (struct seldon_message){0};
    if (status == 0 && !message->status) {
        buf_puts(&message->body, "{}"); /* nobody in the graph wanted it */
        message->status = 200;
    }
    return status;
}

int seldon_get(struct seldon_call *call, struct seldon_node *node, const char *path,
               struct seldon_message *reply)
{
    struct error err = {0};

    if (seldon_send(call, &node->group, node->url, "GET", path, NULL, 0, reply, &err) < 0)
        return seldon_fail(call, reply, 503, "node %s: %s", node->name, err.message);
    return reply->status >= 200 && reply->status < 300 ? 0 : -1;
}

/* ---- metadata ---- */

static int gather(struct seldon_call *call, struct seldon_node *node, struct value *models,
                  struct seldon_message *failure)
{
    if (!node->builtin) {
        cleanup_free char *path = call->deployment->protocol == SELDON_V2
                                      ? mem_printf("/v2/models/%s", node->name)
                                      : mem_strdup("/metadata");
        if (seldon_get(call, node, path, failure) < 0 || parse(call, node->name, 500, failure) < 0)
            return -1;
        value_move(value_put(models, node->name), &failure->tree);
        seldon_message_free(failure);
        *failure = (struct seldon_message){0};
    }
    for (size_t i = 0; i < node->child_count; i++) {
        if (gather(call, &node->children[i], models, failure) < 0)
            return -1;
    }
    return 0;
}

/* The node whose inputs (or outputs) are the graph's: the first that works on data itself. */
static const struct seldon_node *edge(const struct seldon_node *node, unsigned what)
{
    while (!(node->does & what) && node->child_count)
        node = &node->children[0];
    return node;
}

static const struct seldon_node *last_node(const struct seldon_node *node)
{
    while (!(node->does & (SELDON_TRANSFORM_OUTPUT | SELDON_AGGREGATE)) && node->child_count)
        node = &node->children[0];
    return node;
}

int seldon_metadata(struct seldon_call *call, struct seldon_message *reply)
{
    cleanup_value struct value whole = {0};

    value_set_map(&whole);
    value_put_string(&whole, "name", call->predictor->name);
    struct value *models = value_put(&whole, "models");
    value_set_map(models);
    if (gather(call, call->graph, models, reply) < 0)
        return -1;
    const struct seldon_node *first = edge(call->graph, SELDON_PREDICT | SELDON_TRANSFORM_INPUT);
    const struct value *inputs = value_get(value_get(models, first->name), "inputs");
    const struct value *outputs =
        value_get(value_get(models, last_node(call->graph)->name), "outputs");
    cleanup_value struct value in = {0}, out = {0};
    if (inputs)
        value_copy(&in, inputs);
    if (outputs)
        value_copy(&out, outputs);
    value_move(value_put(&whole, "graphinputs"), &in);
    value_move(value_put(&whole, "graphoutputs"), &out);
    value_move(&reply->tree, &whole);
    reply->status = 200;
    return 0;
}
