/* What the store writes into metadata. */
#ifndef MLHOST_LOCAL_K8S_METADATA_H
#define MLHOST_LOCAL_K8S_METADATA_H

#include <stdint.h>

#include "base/value.h"

/* metadata.resourceVersion as a number. */
uint64_t k8s_version_of(const struct value *object);
void k8s_put_version(struct value *object, uint64_t version);
/* uid, creationTimestamp, resourceVersion and generation of `next`: as in `before`, or new. */
int k8s_fill(const char *resource, struct value *next, const struct value *before,
             struct error *err);
/* ERR_INVALID for what cannot be a part of a path; namespace "" is none. */
int k8s_check_names(const char *resource, const char *namespace, const char *name,
                    struct error *err);

#endif
