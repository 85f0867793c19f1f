/* What the manifests of a store name: for those who want to remove something from it. */
#ifndef MLHOST_OCI_STORE_MARK_H
#define MLHOST_OCI_STORE_MARK_H

#include "oci/path_set.h"
#include "oci/store.h"

/* Every digest that the JSON text names as the "digest" of some object, at any depth: of config,
 * layers, manifests, subject, and of what later kinds of manifests may have. The content is not
 * looked at otherwise; what is no JSON names nothing. */
void store_mark_json(const char *text, size_t len, struct path_set *digests);

/* Calls fn for every manifest of every repository until it returns false. `content` is NULL where
 * the blob is gone or too large to be a manifest. */
typedef bool store_manifest_fn(void *ctx, const char *name, const char *digest,
                               const struct buf *content);
int store_each_manifest(struct store *store, store_manifest_fn *fn, void *ctx, struct error *err);

#endif
