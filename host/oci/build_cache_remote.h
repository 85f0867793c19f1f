/*
 * The layers of RUN in a registry, for builds on other machines: one OCI artifact.
 *
 *   manifest: artifactType BUILD_CACHE_TYPE, config of BUILD_CACHE_TABLE, layers: the image layers
 *   table:    { "version": "mlhost-build-cache 1", "entries": [
 *               { "key": "sha256:...", "layer": "sha256:...", "diffId": "sha256:..." },
 *               { "key": "sha256:...", "empty": true } ] }
 *
 * Layers of COPY are not in it: packing them again is quicker than any network.
 *
 * Trust. Everything that comes is checked: manifest, table and layers by digest and size, a layer's
 * tar stream by its diff id, and a table that names a layer which the manifest does not have, or
 * has at another place of the net, is refused. So nobody on the way can change anything. But that a
 * layer is what a RUN makes is what the writer of the artifact says: whoever may push to a
 * reference of cache_from decides what is in the images that are built with it, as with a base
 * image.
 */
#ifndef MLHOST_OCI_BUILD_CACHE_REMOTE_H
#define MLHOST_OCI_BUILD_CACHE_REMOTE_H

#include "oci/build_cache.h"
#include "oci/remote.h"

#define BUILD_CACHE_TYPE  "application/vnd.mlhost.buildcache.v1"
#define BUILD_CACHE_TABLE "application/vnd.mlhost.buildcache.table.v1+json"

/* Where a build looks, in this order. Nothing is asked until the first key is looked for. */
struct cache_sources;
/* references: array of strings. ERR_USAGE for what is no reference. */
struct cache_sources *cache_sources_new(struct call *call, struct store *store,
                                        const struct value *references, struct error *err);
void cache_sources_free(struct cache_sources *sources); /* NULL is allowed */
void cache_sources_cleanup(struct cache_sources **sources);
#define cleanup_cache_sources __attribute__((cleanup(cache_sources_cleanup)))
/* 1: found, the layer is in the store and checked; 0: nowhere. A source that cannot be used is
 * named in a warning, once, and not asked again. */
int cache_sources_find(struct cache_sources *sources, const struct digest *key,
                       struct cached_layer *out);

/* entries: what build_spec.used got. The artifact -> the store and the registry. */
int build_cache_push(struct call *call, struct store *store, const struct value *entries,
                     const char *reference, struct push_result *out, struct error *err);

/* A table, checked against the layers of its manifest: *out maps keys to { empty } or { digest,
 * size, mediaType, diffId }. */
int build_cache_table(const char *text, size_t len, const struct value *layers, struct value *out,
                      struct error *err);

#endif
