/*
 * The embedded services for commands that have no loop of their own (repl, test): a small process
 * listens in their stead, and starts the services with the first client, as in a run
 * (run/services.h).
 */
#ifndef MLHOST_RUN_SERVICES_APART_H
#define MLHOST_RUN_SERVICES_APART_H

#include <sys/types.h>

#include "base/config.h"

struct services_apart {
    pid_t pid;    /* 0: there is none */
    char *socket; /* for broker_spec.local_socket; NULL where the active profile is not the local
                     one */
};

/* -1 with an error when the process or its socket cannot be made. It also ends with the caller. */
int services_apart_open(const struct config *config, struct services_apart *out, struct error *err);
/* Ends the services and waits for that. */
void services_apart_close(struct services_apart *apart);

#endif
