/* The parts of the embedded Kubernetes API that are not Lua: what blocks, and what streams. */
#ifndef MLHOST_LOCAL_K8S_SERVE_H
#define MLHOST_LOCAL_K8S_SERVE_H

#include <lua.h>

#include "local/k8s_resources.h"
#include "local/k8s_store.h"
#include "local/router.h"

/* The module `k8s` of the service's Lua state (kubernetes.c), over k8s_store_here. */
int luaopen_mlh_k8s(lua_State *L);

/* A Status object of the Kubernetes API: reason "NotFound", "BadRequest" ... */
void k8s_status(struct value *out, int code, const char *reason, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
void k8s_answer_status(struct request *rq, int code, const char *reason, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* "true", "1" and "" (a name alone) are true. */
bool k8s_query_true(const struct request *rq, const char *name);

/*
 * Waits until fd (an eventfd of the store, an inotify queue) has something, the client has gone,
 * or the deadline: 1, -1, 0. connection: the request's socket.
 */
int k8s_wait_readable(int fd, int connection, int64_t deadline);
/* The client's socket of a request; the server's idle time no longer ends the request. */
int k8s_keep_open(struct request *rq);

/* GET of a collection or an object with watch=true: answers with the stream of events. */
void k8s_watch(struct request *rq, struct k8s_store *store, const struct k8s_path *path);
/* GET .../pods/<name>/log. */
void k8s_log(struct request *rq, struct k8s_store *store, const struct k8s_path *path);

/* Deletes what only a deleted object owned, and ends foreground deletions: a thread. */
struct k8s_collector;
struct k8s_collector *k8s_collector_start(struct k8s_store *store, struct error *err);
/* After k8s_store_wake. */
void k8s_collector_stop(struct k8s_collector *collector);

#endif
