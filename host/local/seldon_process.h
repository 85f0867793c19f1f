/*
 * The processes of the embedded Seldon: one per container of a pod, started from an unpacked image
 * in the sandbox (runner_exec), with its log and its probes. What becomes of them is told by events
 * in one queue, which the operator reads.
 *
 * Events are maps: { t = "started", id, pid }, { t = "ready", id }, { t = "unready", id, text },
 * { t = "unhealthy", id, text } (liveness or startup has failed: the operator restarts it),
 * { t = "exited", id, status, text (last output), error, hint, code }.
 */
#ifndef MLHOST_LOCAL_SELDON_PROCESS_H
#define MLHOST_LOCAL_SELDON_PROCESS_H

#include "base/clock.h"
#include "base/value.h"
#include "loop/http.h"

/* ---- the queue: any thread posts, one reads ---- */

struct seldon_queue;
struct seldon_queue *seldon_queue_new(void);
void seldon_queue_free(struct seldon_queue *queue);
/* Takes what is in *event, and leaves nil. */
void seldon_queue_post(struct seldon_queue *queue, struct value *event);
/* { t = kind, id } */
void seldon_queue_tell(struct seldon_queue *queue, const char *kind, int64_t id);
/* The oldest event, or false at the deadline. */
bool seldon_queue_take(struct seldon_queue *queue, int64_t deadline, struct value *out);

/* ---- processes ---- */

struct seldon_process;
/*
 * spec: what runner_exec takes, and
 *   log, log_limit     the file that its output goes to; at log_limit bytes it becomes "<log>.1",
 *                      and a new one is begun
 *   probes             { readiness = , liveness = , startup = }, each { port, path (nil: a
 * connection is enough), missing_ok (a server without that path is fine), headers { {name, value}
 * }, timeout_ms, period_ms, delay_ms, failures, successes } A process without a readiness probe is
 * ready once it has started. Until its first success a readiness or startup probe is tried in quick
 * succession. http: for probes; outlives the process.
 */
struct seldon_process *seldon_process_start(struct seldon_queue *queue, struct http *http,
                                            int64_t id, const struct value *spec,
                                            struct error *err);
/* SIGTERM, and SIGKILL for the whole tree after grace_ms of its spec. Returns at once: the event
 * "exited" follows. */
void seldon_process_stop(struct seldon_process *process);
/* Waits for the end of a process that has ended or was stopped. */
void seldon_process_free(struct seldon_process *process);

#endif
