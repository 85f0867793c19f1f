/* The files of k8s_store.h: one JSON object each, and the counter's reserve. */
#ifndef MLHOST_LOCAL_K8S_FILES_H
#define MLHOST_LOCAL_K8S_FILES_H

#include <stdint.h>

#include "base/value.h"

/* "<resource>/<namespace>/<name>.json"; a name that is too long for a file has its digest at the
 * end. The caller's. */
char *k8s_file_path(const char *resource, const char *namespace, const char *name);
/* Synced with its folder, atomic, 0600; missing folders are made 0700. */
int k8s_file_write(int root, const char *path, const struct value *object, struct error *err);
/* A missing file is no error. */
int k8s_file_remove(int root, const char *path, struct error *err);

/* Calls `each` with every object under root; removes what an interrupted write has left. */
int k8s_files_read(int root, const char *shown,
                   int (*each)(void *context, const char *resource, struct value *object,
                               struct error *err),
                   void *context, struct error *err);

/* The number up to which the counter may have been given out: 0 without such a file. */
int k8s_reserve_read(int root, uint64_t *reserve, struct error *err);
int k8s_reserve_write(int root, uint64_t reserve, struct error *err);

#endif
