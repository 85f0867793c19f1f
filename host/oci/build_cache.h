/*
 * Layers that were made before, by what they were made of.
 *
 *   <store>/build/<64 hex>   one line: "layer <media type> <digest> <size> <diff id>", "empty" or
 *                            "seen"; the name is the SHA-256 of everything that the layer comes
 * from
 *
 * A key says what goes in, never where in a Dockerfile it stands: what a RUN sees (the layers
 * below, words, environment, user, mounts), what a COPY writes (paths, modes, owners, contents). So
 * a LABEL, a comment or a stage's name in between changes nothing, and when a stage is made anew
 * and comes out the same, all that builds on it is still there.
 *
 * How an instruction uses it:
 *   stage_find(builder, &key, &layer) == 1: nothing is to be done, stage_add_layer(..., true) takes
 *   it over and logs it as CACHED; else it is done, and stage_keep(builder, &key, &layer) remembers
 *   it (build_internal.h). Below these are build_cache_get and build_cache_put.
 *
 * Entries appear by rename. One whose blob is gone, or has another size, is no hit. Whoever can
 * write into the folder decides what images contain: it is as private as the store that it is in.
 */
#ifndef MLHOST_OCI_BUILD_CACHE_H
#define MLHOST_OCI_BUILD_CACHE_H

#include "oci/store.h"

/* Beside the entries: digests of files of contexts (context_known.c), what is in layers
 * (tree_list.c). Such a file lives as long as an entry, from its last use on. */
#define BUILD_CACHE_FILES "build/files"
#define BUILD_CACHE_TREES "build/trees"
/* Another rule for keys or for layers makes all entries before it strangers. */
#define BUILD_CACHE_VERSION "mlhost-build-cache 1"

/* ---- keys ---- */

/* Collects what a layer is made of. Each field has a name and a length, so no two lists of fields
 * mix the same. `kind` begins it: "run", "copy", ... */
struct cache_key;
struct cache_key *cache_key_new(const char *kind);
void cache_key_bytes(struct cache_key *key, const char *field, const void *data, size_t len);
void cache_key_text(struct cache_key *key, const char *field, const char *text); /* NULL: no text */
void cache_key_number(struct cache_key *key, const char *field, int64_t number);
void cache_key_value(struct cache_key *key, const char *field, const struct value *value);
void cache_key_finish(struct cache_key *key, struct digest *out); /* frees the key */

/* ---- entries ---- */

enum cached_kind {
    CACHED_LAYER,
    CACHED_EMPTY, /* the instruction changes no file */
    CACHED_SEEN,  /* a mark without a layer */
};

struct cached_layer {
    enum cached_kind kind;
    const char *media_type; /* one of OCI's two compressed types; NULL: gzip */
    struct digest digest, diff_id;
    uint64_t size; /* compressed */
};

/* The type of a layer that may be kept, as a constant; NULL: none of them. */
const char *build_cache_layer_type(const char *type);
/* 1 found (and its blob is there), 0 not. What is wrong with an entry makes it none. */
int build_cache_get(struct store *store, const struct digest *key, struct cached_layer *out);
int build_cache_put(struct store *store, const struct digest *key, const struct cached_layer *layer,
                    struct error *err);

#define BUILD_CACHE_MAX_AGE_S   (30 * 24 * 3600)
#define BUILD_CACHE_MAX_ENTRIES 20000u
#define BUILD_CACHE_MAX_BYTES   (UINT64_C(32) << 30)
/* It was used: `path` is below the store. */
void build_cache_touch(struct store *store, const char *path);
/* Forgets entries that were not used for max_age_s, then the longest unused ones until what is left
 * names at most max_bytes of layers in max_entries. Blobs are left to the store's own collection.
 * Returns how many went. */
size_t build_cache_prune(struct store *store, int64_t max_age_s, size_t max_entries,
                         uint64_t max_bytes);
/* The same with the limits above, at most once a day. */
void build_cache_tidy(struct store *store);
/* Every entry with a layer: what a collection of unused blobs must leave alone. */
typedef void build_cache_each_fn(void *ctx, const char *key, const struct cached_layer *layer);
void build_cache_each(struct store *store, build_cache_each_fn *fn, void *ctx);

#endif
