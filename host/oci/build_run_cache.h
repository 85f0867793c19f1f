/*
 * The folders of RUN --mount=type=cache: beside the unpacked layers of a store,
 *
 *   cache.<32 hex>[.<n>]/data   what the command sees
 *   cache.<32 hex>[.<n>]/work   of an overlay, when the cache begins with files of an image
 *   cache.<32 hex>[.<n>]/lock   held shared (sharing=shared) or alone (locked, private)
 *
 * The name is a digest of id, and of what the cache begins with. Several private ones are numbered.
 */
#ifndef MLHOST_OCI_BUILD_RUN_CACHE_H
#define MLHOST_OCI_BUILD_RUN_CACHE_H

#include "base/value.h"
#include "loop/cancel.h"

struct run_cache {
    char *folder, *work;
    int lock; /* -1: none */
};

/* spec: { name, sharing, mode, uid, gid } of build_run_job.h. Waits until the lock is free. */
int run_cache_open(const char *root, const struct value *spec, int64_t deadline,
                   const struct cancel *cancel, struct run_cache *out, struct error *err);
void run_cache_end(struct run_cache *cache);

#endif
