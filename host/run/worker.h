/*
 * One broker with its VM, seen from the supervisor: its frames become events, its end one result.
 *
 * The broker keeps the deadline itself; the worker is the last resort: at deadline + grace + 100 ms
 * it kills the whole tree.
 */
#ifndef MLHOST_RUN_WORKER_H
#define MLHOST_RUN_WORKER_H

#include "broker/broker.h"
#include "loop/loop.h"

#define WORKER_GRACE_NS (5 * NS_PER_S)

struct worker;
struct worker_result {
    bool skipped;
    bool ok;
    bool tidy;                 /* the broker ended by itself, and with it all that it had started */
    bool timed_out, cancelled; /* which of our own ends it met, if any */
    const char *reason;        /* why it was skipped, or NULL; lives as long as the call */
    struct value output;       /* the callback may take it */
    struct value error;        /* { code, message, hint, file, line, traceback ... } */
};
struct worker_handler {
    /* Events as docs/architecture.md lists them, but `output` comes line by line. */
    void (*event)(void *ctx, struct value *event);
    /* The last call; the worker's pointer is no longer valid after it. */
    void (*end)(void *ctx, struct worker_result *result);
    void *ctx;
};

struct worker *worker_start(struct loop *loop, const struct broker_spec *spec,
                            const struct worker_handler *handler, struct error *err);
/* The answer to an `ask` of a broker that has no run behind it: a plan, a component, a REPL. Nobody
 * is asked, but the daemon is started when it is wanted. */
void worker_answer(const struct config *config, const struct value *question, struct value *out);
/* A frame for the broker: the answer to an `ask`. */
void worker_send(struct worker *worker, const struct value *frame);
/* Ask for an end: clean-up code gets the grace period, then all is killed. timeout: it counts as
 * timed out. */
void worker_cancel(struct worker *worker, bool timeout);
void worker_kill(struct worker *worker);

/* Before the loop is freed: waits until every broker has closed its socket, which it does by ending
 * with all that it started. (What remains of it then is the kernel's to take apart; it costs
 * milliseconds, and nobody's.) */
void worker_settle(struct loop *loop);

/* struct error <-> the table that frames and journals hold. */
void error_to_value(const struct error *err, struct value *out);
void error_from_value(const struct value *v, struct error *err);

/* Runs one broker to its end (modes plan and check). on_event may be NULL. */
int worker_ask(struct loop *loop, const struct broker_spec *spec,
               void (*on_event)(void *ctx, struct value *event), void *ctx, struct value *result,
               struct error *err);

#endif
