#include "model/model.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"
#include "base/mem.h"
#include "local/server.h"

#define SLOTS 512 /* of waiting requests, by id */

enum outcome { WAITING, REPLIED, LATE, GONE, FULL };

/* A request that is suspended until its reply is there. */
struct waiting {
    struct waiting *next;          /* in its slot */
    struct waiting *older, *newer; /* all have the same time, so this is the order of deadlines */
    struct request *rq;
    int64_t id, started, deadline;
    struct value reply;
    enum outcome outcome;
};

struct model {
    struct model_host host;
    struct service service;
    struct server *server;
    pthread_t clock;
    pthread_mutex_t lock;
    pthread_cond_t stopped;
    struct waiting *slots[SLOTS];
    struct waiting *oldest, *newest;
    unsigned count;
    int64_t next_id;
    bool vm_gone, stop;
};

/* ---- the table of those who wait ---- */

static struct waiting **place(struct model *model, int64_t id)
{
    struct waiting **at = &model->slots[(uint64_t)id % SLOTS];

    while (*at && (*at)->id != id)
        at = &(*at)->next;
    return at;
}

/* All under the lock. */
static void enter(struct model *model, struct waiting *own)
{
    own->id = ++model->next_id;
    *place(model, own->id) = own;
    own->older = model->newest;
    *(own->older ? &own->older->newer : &model->oldest) = own;
    model->newest = own;
    model->count++;
}

static void leave(struct model *model, struct waiting *own, enum outcome outcome)
{
    *place(model, own->id) = own->next;
    *(own->older ? &own->older->newer : &model->oldest) = own->newer;
    *(own->newer ? &own->newer->older : &model->newest) = own->older;
    model->count--;
    own->outcome = outcome;
}

/* Nobody waits any more. */
static void leave_all(struct model *model)
{
    while (model->oldest) {
        struct request *rq = model->oldest->rq;
        leave(model, model->oldest, GONE);
        request_resume(rq);
    }
}

/* Ends the wait of those whose time is over. All times are the same, so nothing that comes in while
 * it sleeps is over earlier, and nobody need wake it. */
static void *watch_time(void *ctx)
{
    struct model *model = ctx;
    int64_t time = model->host.serving->timeout_ns;

    pthread_mutex_lock(&model->lock);
    while (!model->stop) {
        int64_t now = clock_now();
        bool late = false;
        while (model->oldest && model->oldest->deadline <= now) {
            struct request *rq = model->oldest->rq;
            leave(model, model->oldest, LATE);
            request_resume(rq);
            late = true;
        }
        if (late)
            model->host.stuck(model->host.ctx);
        int64_t until = model->oldest ? model->oldest->deadline : now + time;
        struct timespec at = {.tv_sec = until / NS_PER_S, .tv_nsec = until % NS_PER_S};
        pthread_cond_timedwait(&model->stopped, &model->lock, &at);
    }
    pthread_mutex_unlock(&model->lock);
    return NULL;
}

/* 503 and 504 of our own, in the form that both protocols' clients read: `error` and `status`. */
static void refuse(struct request *rq, int status, const char *text)
{
    cleanup_value struct value body = {0};

    value_set_map(&body);
    value_put_string(&body, "error", text);
    struct value *detail = value_put(&body, "status");
    value_set_map(detail);
    value_put_int(detail, "code", status);
    value_put_string(detail, "info", text);
    value_put_string(detail, "reason", "MICROSERVICE_INTERNAL_ERROR");
    value_put_string(detail, "status", "FAILURE");
    if (status == 503)
        answer_header(rq, "Retry-After", "1");
    answer_json(rq, status, &body);
}

/* ---- routes ---- */

static enum model_route route_of(const char *path)
{
    static const struct {
        const char *end;
        enum model_route route;
    } routes[] = {{"/predict", ROUTE_PREDICT},
                  {"/predictions", ROUTE_PREDICT},
                  {"/infer", ROUTE_PREDICT},
                  {"/transform-input", ROUTE_TRANSFORM_INPUT},
                  {"/transform-output", ROUTE_TRANSFORM_OUTPUT},
                  {"/route", ROUTE_ROUTE},
                  {"/aggregate", ROUTE_AGGREGATE},
                  {"/send-feedback", ROUTE_FEEDBACK},
                  {"/feedback", ROUTE_FEEDBACK},
                  {"/explain", ROUTE_EXPLAIN},
                  {"/metadata", ROUTE_METADATA}};
    size_t len = strlen(path);

    for (size_t i = 0; i < sizeof routes / sizeof *routes; i++) {
        size_t end = strlen(routes[i].end);
        if (len >= end && strcmp(path + len - end, routes[i].end) == 0)
            return routes[i].route;
    }
    return ROUTE_OTHER;
}

static void print_metrics(struct request *rq, const struct model *model)
{
    cleanup_buf struct buf text = BUF_INIT;

    model_metrics_print(model->host.serving->metrics, model->host.serving->name, &text);
    answer(rq, 200, "text/plain; version=0.0.4; charset=utf-8", text.data, text.len);
}

/* What needs no script: it listens only once the script has loaded, so it is ready. */
static bool own_path(struct request *rq, const struct model *model)
{
    if (strcmp(rq->method, "GET") != 0 && strcmp(rq->method, "HEAD") != 0)
        return false;
    if (strcmp(rq->path, "/health/ping") == 0)
        answer_text(rq, 200, "pong");
    else if (strcmp(rq->path, "/ready") == 0 || strcmp(rq->path, "/live") == 0)
        answer_text(rq, 200, "ok");
    else if (strcmp(rq->path, "/metrics") == 0 || strcmp(rq->path, "/prometheus") == 0)
        print_metrics(rq, model);
    else
        return false;
    return true;
}

/* ---- a request's way to the VM and back ---- */

static void build(const struct request *rq, int64_t id, bool unloaded, struct value *frame)
{
    static const struct {
        const char *header, *key;
    } headers[] = {{"Content-Type", "type"},
                   {"Content-Encoding", "encoding"},
                   {"Seldon-Puid", "puid"},
                   {"Inference-Header-Content-Length", "json_len"}};

    value_set_map(frame);
    value_put_string(frame, "t", "request");
    value_put_int(frame, "id", id);
    value_put_string(frame, "method", rq->method);
    value_put_string(frame, "path", rq->path);
    value_put_string(frame, "json", request_query(rq, "json"));
    for (size_t i = 0; i < sizeof headers / sizeof *headers; i++)
        value_put_string(frame, headers[i].key, request_header(rq, headers[i].header));
    if (unloaded)
        value_put_bool(frame, "unloaded", true);
    value_set_bytes(value_put(frame, "body"), rq->body.len ? rq->body.data : "", rq->body.len);
}

static void give(struct request *rq, const struct value *reply)
{
    static const char *const headers[] = {"Seldon-Puid", "Inference-Header-Content-Length"};
    const struct value *body = value_get(reply, "body"), *extra = value_get(reply, "headers");

    for (size_t i = 0; i < sizeof headers / sizeof *headers; i++) {
        if (value_get_string(extra, headers[i], NULL))
            answer_header(rq, headers[i], value_get_string(extra, headers[i], NULL));
    }
    answer(rq, (int)value_get_int(reply, "status", 500),
           value_get_string(reply, "type", "application/json"),
           body && body->kind == VALUE_STRING ? body->as.string.data : "",
           body && body->kind == VALUE_STRING ? body->as.string.len : 0);
}

/* Suspends the request and hands it to the VM; WAITING unless that cannot be. */
static enum outcome ask(struct model *model, struct request *rq)
{
    const struct model_serving *serving = model->host.serving;
    cleanup_value struct value frame = {0};
    enum outcome outcome = WAITING;

    pthread_mutex_lock(&model->lock);
    if (model->vm_gone || model->count >= serving->queue)
        outcome = model->vm_gone ? GONE : FULL;
    if (outcome == WAITING) {
        struct waiting *own = rq->local = mem_alloc(sizeof *own);
        own->rq = rq;
        own->started = clock_now();
        own->deadline = own->started + serving->timeout_ns;
        enter(model, own);
        build(rq, own->id, atomic_load(&serving->metrics->unloaded), &frame);
        request_suspend(rq); /* before anybody can resume it */
    }
    pthread_mutex_unlock(&model->lock);
    if (outcome == WAITING)
        model->host.send(model->host.ctx, &frame);
    return outcome;
}

/* POST /v2/repository/models/NAME/unload, and load: for all workers. */
static void note_repository(const struct request *rq, struct model_metrics *metrics)
{
    static const char prefix[] = "/v2/repository/models/";
    const char *end = strrchr(rq->path, '/');

    if (rq->status != 200 || strncmp(rq->path, prefix, sizeof prefix - 1) != 0)
        return;
    if (strcmp(end, "/unload") == 0)
        atomic_store(&metrics->unloaded, true);
    else if (strcmp(end, "/load") == 0)
        atomic_store(&metrics->unloaded, false);
}

static void conclude(struct request *rq, struct model_metrics *metrics, enum outcome outcome)
{
    const struct waiting *own = rq->local;

    switch (outcome) {
    case REPLIED:
        give(rq, &own->reply);
        note_repository(rq, metrics);
        model_metrics_own(metrics, value_get(&own->reply, "metrics"));
        break;
    case LATE:
        refuse(rq, 504, "the model did not answer in time; the worker is replaced");
        break;
    case FULL:
        refuse(rq, 503, "too many requests wait for the model; try again");
        break;
    default:
        refuse(rq, 503, "the worker that had this request ended; try again");
        break;
    }
    model_metrics_count(metrics, route_of(rq->path), rq->status,
                        own ? clock_now() - own->started : 0);
}

/* Called twice: with the request, and when it is resumed. */
static void handle(struct request *rq)
{
    struct model *model = rq->service->state;
    struct model_metrics *metrics = model->host.serving->metrics;
    const struct waiting *own = rq->local;

    if (own) {
        conclude(rq, metrics, own->outcome);
        return;
    }
    if (own_path(rq, model))
        return;
    atomic_fetch_add(&metrics->in_flight, 1);
    enum outcome outcome = ask(model, rq);
    if (outcome == WAITING) /* rq is another thread's as soon as it is resumed */
        return;
    conclude(rq, metrics, outcome);
    atomic_fetch_sub(&metrics->in_flight, 1);
}

static void end(struct request *rq)
{
    struct model *model = rq->service->state;
    struct waiting *own = rq->local;

    atomic_fetch_sub(&model->host.serving->metrics->in_flight, 1);
    value_free(&own->reply);
    free(own);
}

void mlh_model_reply(struct model *model, struct value *frame)
{
    pthread_mutex_lock(&model->lock);
    struct waiting *own = *place(model, value_get_int(frame, "id", 0));
    if (own) { /* else it came too late: nobody waits any more */
        struct request *rq = own->rq;
        value_move(&own->reply, frame);
        leave(model, own, REPLIED);
        request_resume(rq);
    }
    pthread_mutex_unlock(&model->lock);
    value_free(frame);
}

static void give_up(struct service *service)
{
    struct model *model = service->state;

    pthread_mutex_lock(&model->lock);
    leave_all(model);
    pthread_mutex_unlock(&model->lock);
}

/* ---- start and stop ---- */

static void stop_clock(struct model *model)
{
    pthread_mutex_lock(&model->lock);
    model->stop = true;
    pthread_cond_signal(&model->stopped);
    pthread_mutex_unlock(&model->lock);
    pthread_join(model->clock, NULL);
}

struct model *mlh_model_start(const struct model_host *host, struct error *err)
{
    static const char *const all[] = {"/", NULL};
    const struct model_serving *serving = host->serving;
    struct model *model = mem_alloc(sizeof *model);
    struct service *services[] = {&model->service};
    int fds[] = {serving->listen_fd, serving->metrics_fd};

    model->host = *host;
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&model->stopped, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&model->lock, NULL);
    model->service = (struct service){.name = "model",
                                      .prefixes = all,
                                      .body_limit = serving->body_limit,
                                      .handle = handle,
                                      .end = end,
                                      .give_up = give_up,
                                      .state = model};
    unsigned options =
        SERVER_ANY_HOST | SERVER_LEAN | SERVER_SUSPENDS | (serving->verbose ? SERVER_VERBOSE : 0);
    int why = pthread_create(&model->clock, NULL, watch_time, model);
    if (why)
        error_errno(err, why, "cannot start a thread");
    else if ((model->server = server_start(fds, 2, services, 1, options, err)))
        return model;
    if (!why)
        stop_clock(model);
    free(model);
    return NULL;
}

void mlh_model_stop(struct model *model, bool vm_gone)
{
    if (vm_gone) {
        pthread_mutex_lock(&model->lock);
        model->vm_gone = true;
        leave_all(model);
        pthread_mutex_unlock(&model->lock);
    }
    server_stop(model->server, vm_gone ? 500 : (int)(model->host.serving->drain_ns / NS_PER_MS));
    stop_clock(model);
}
