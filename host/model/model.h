/*
 * The HTTP side of a model server: libmicrohttpd in a worker's broker, requests as frames to its
 * sealed VM, replies as frames back. Runs no Lua, reads no body: what a client sent is looked into
 * inside the sandbox only. Part of the model module.
 *
 * A connection's thread sends its request and waits for the reply of that id; a reply that does
 * not come within the time makes the worker stuck: its requests are answered with 504 and 503, and
 * the worker is replaced.
 */
#ifndef MLHOST_MODEL_MODEL_H
#define MLHOST_MODEL_MODEL_H

#include "base/value.h"
#include "model/metrics.h"

struct model;

/* What a worker serves with; fields of one struct, since supervisor, broker and module share it. */
struct model_serving {
    int listen_fd, metrics_fd; /* shared by all workers; metrics_fd -1: no port of its own */
    const char *name;          /* PREDICTIVE_UNIT_ID */
    size_t body_limit;
    int64_t timeout_ns, drain_ns;
    unsigned queue; /* requests that may wait for one VM */
    bool verbose;
    struct model_metrics *metrics; /* in memory that all workers share */
};

struct model_host {
    const struct model_serving *serving;
    void *ctx;
    void (*send)(void *ctx, const struct value *frame); /* to the VM; any thread */
    void (*stuck)(void *ctx);                           /* a request's time is over; any thread */
};

/* Exported by the module as "mlh_model_start", "mlh_model_reply", "mlh_model_stop". */
struct model *mlh_model_start(const struct model_host *host, struct error *err);
/* A `response` frame of the VM. Takes *frame. */
void mlh_model_reply(struct model *model, struct value *frame);
/* Takes no more connections and waits for what is in hand. vm_gone: nothing will come any more,
 * so what waits is answered now. */
void mlh_model_stop(struct model *model, bool vm_gone);

#endif
