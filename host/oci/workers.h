/* A few threads over a list of independent jobs. */
#ifndef MLHOST_OCI_WORKERS_H
#define MLHOST_OCI_WORKERS_H

#include <stddef.h>

#include "base/error.h"

typedef int worker_fn(void *ctx, size_t index, struct error *err);
/* Runs fn for 0 .. count-1, several at a time; after the first failure no further one is begun, and
 * its error is returned. */
int workers_run(size_t count, worker_fn *fn, void *ctx, struct error *err);

#endif
