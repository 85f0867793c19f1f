/*
 * The operator: a thread with a Lua state of its own (lua/local/seldon/operator.lua), which makes
 * real what SeldonDeployments, Deployments and Pods of the store say, and writes their status. It
 * sleeps until the store changes, a process says something, or a time that it has set itself comes.
 */
#ifndef MLHOST_LOCAL_SELDON_OPERATOR_H
#define MLHOST_LOCAL_SELDON_OPERATOR_H

#include "local/lua_service.h"
#include "loop/http.h"

struct seldon_operator;

/* Needs the store of this process (k8s_store_here). http: for probes. */
struct seldon_operator *seldon_operator_start(const struct local_host *host, struct http *http,
                                              struct error *err);
/* Ends all processes that it has started, and itself. */
void seldon_operator_stop(struct seldon_operator *op);

#endif
