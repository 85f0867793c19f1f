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

/* A request whose thread waits for its reply. */
struct waiting {
    struct waiting *next;
    int64_t id;
    struct value reply;
    bool answered;
    pthread_cond_t changed;
};

struct model {
    struct model_host host;
    struct service service;
    struct server *server;
    pthread_mutex_t lock;
    struct waiting *slots[SLOTS];
    unsigned count;
    int64_t next_id;
    bool vm_gone;
};

/* ---- the table of those who wait ---- */

static struct waiting **place(struct model *model, int64_t id)
{
    struct waiting **at = &model->slots[(uint64_t)id % SLOTS];

    while (*at && (*at)->id != id)
        at = &(*at)->next;
    return at;
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

enum outcome { REPLIED, LATE, GONE, FULL };

static enum outcome ask(struct model *model, struct request *rq, struct waiting *own)
{
    const struct model_serving *serving = model->host.serving;
    cleanup_value struct value frame = {0};
    int64_t deadline = clock_now() + serving->timeout_ns;
    struct timespec until = {.tv_sec = deadline / NS_PER_S, .tv_nsec = deadline % NS_PER_S};
    enum outcome outcome = FULL;

    pthread_mutex_lock(&model->lock);
    if (model->vm_gone || model->count >= serving->queue) {
        outcome = model->vm_gone ? GONE : FULL;
        pthread_mutex_unlock(&model->lock);
        return outcome;
    }
    own->id = ++model->next_id;
    *place(model, own->id) = own;
    model->count++;
    pthread_mutex_unlock(&model->lock);

    build(rq, own->id, atomic_load(&serving->metrics->unloaded), &frame);
    model->host.send(model->host.ctx, &frame);

    pthread_mutex_lock(&model->lock);
    while (!own->answered && !model->vm_gone &&
           pthread_cond_timedwait(&own->changed, &model->lock, &until) == 0)
        continue;
    outcome = own->answered ? REPLIED : model->vm_gone ? GONE : LATE;
    struct waiting **at = place(model, own->id);
    if (*at)
        *at = own->next;
    model->count--;
    pthread_mutex_unlock(&model->lock);
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

static void handle(struct request *rq)
{
    struct model *model = rq->service->state;
    struct model_metrics *metrics = model->host.serving->metrics;
    struct waiting own = {0};
    pthread_condattr_t monotonic;
    int64_t started = clock_now();

    if (own_path(rq, model))
        return;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&own.changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    atomic_fetch_add(&metrics->in_flight, 1);
    switch (ask(model, rq, &own)) {
    case REPLIED:
        give(rq, &own.reply);
        note_repository(rq, metrics);
        model_metrics_own(metrics, value_get(&own.reply, "metrics"));
        break;
    case LATE:
        refuse(rq, 504, "the model did not answer in time; the worker is replaced");
        model->host.stuck(model->host.ctx);
        break;
    case GONE:
        refuse(rq, 503, "the worker that had this request ended; try again");
        break;
    case FULL:
        refuse(rq, 503, "too many requests wait for the model; try again");
        break;
    }
    atomic_fetch_sub(&metrics->in_flight, 1);
    model_metrics_count(metrics, route_of(rq->path), rq->status, clock_now() - started);
    value_free(&own.reply);
    pthread_cond_destroy(&own.changed);
}

void mlh_model_reply(struct model *model, struct value *frame)
{
    pthread_mutex_lock(&model->lock);
    struct waiting *own = *place(model, value_get_int(frame, "id", 0));
    if (own) { /* else it came too late: nobody waits any more */
        value_move(&own->reply, frame);
        own->answered = true;
        pthread_cond_signal(&own->changed);
    }
    pthread_mutex_unlock(&model->lock);
    value_free(frame);
}

/* ---- start and stop ---- */

struct model *mlh_model_start(const struct model_host *host, struct error *err)
{
    static const char *const all[] = {"/", NULL};
    const struct model_serving *serving = host->serving;
    struct model *model = mem_alloc(sizeof *model);
    struct service *services[] = {&model->service};
    int fds[] = {serving->listen_fd, serving->metrics_fd};

    model->host = *host;
    pthread_mutex_init(&model->lock, NULL);
    model->service = (struct service){.name = "model",
                                      .prefixes = all,
                                      .body_limit = serving->body_limit,
                                      .handle = handle,
                                      .state = model};
    model->server = server_start(fds, 2, services, 1,
                                 SERVER_ANY_HOST | (serving->verbose ? SERVER_VERBOSE : 0), err);
    if (model->server)
        return model;
    pthread_mutex_destroy(&model->lock);
    free(model);
    return NULL;
}

void mlh_model_stop(struct model *model, bool vm_gone)
{
    if (vm_gone) {
        pthread_mutex_lock(&model->lock);
        model->vm_gone = true;
        for (size_t i = 0; i < SLOTS; i++) {
            for (struct waiting *one = model->slots[i]; one; one = one->next)
                pthread_cond_signal(&one->changed);
        }
        pthread_mutex_unlock(&model->lock);
    }
    server_stop(model->server, vm_gone ? 500 : (int)(model->host.serving->drain_ns / NS_PER_MS));
}
