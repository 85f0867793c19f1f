/*
 * What was in a folder before a command ran there, where no overlay keeps that apart: each path's
 * inode and time of change, which no command can set. A file that was written to counts as changed,
 * whatever was written.
 */
#ifndef MLHOST_OCI_BUILD_BEFORE_H
#define MLHOST_OCI_BUILD_BEFORE_H

#include <stdbool.h>
#include <sys/stat.h>

#include "base/error.h"

struct before;

/* Files that are changed from now on have another time of change: it waits for the clock. NULL with
 * an error. */
struct before *before_take(const char *folder, struct error *err);
void before_free(struct before *before); /* NULL is allowed */
/* Was this path the same? It counts as seen. */
bool before_same(struct before *before, const char *path, const struct stat *st);
/* Paths that were there and have not been seen, in folders that have. Those below one that is gone
 * are not named. */
typedef int before_gone_fn(void *ctx, const char *folder, const char *name);
int before_gone(struct before *before, before_gone_fn *fn, void *ctx);

#endif
