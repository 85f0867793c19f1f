/* What build_copy.c and build_copy_cache.c share: the entries of a layer to be. */
#ifndef MLHOST_OCI_BUILD_COPY_H
#define MLHOST_OCI_BUILD_COPY_H

#include "oci/build_internal.h"

/* One entry of the layer to be. */
struct item {
    char *to;
    mode_t mode;
    uint32_t uid, gid;
    char *link;
    char *from; /* a file of the context, or of a stage's layer; NULL: in the spool */
    int layer;
    uint64_t offset, size;
    size_t order; /* of two for the same path the later one counts */
};

struct copy {
    struct builder *builder;
    struct stage *stage;
    const char *keyword;
    bool add;
    struct stage *from_stage; /* NULL: the context */
    struct stage image;       /* of COPY --from=image */
    struct tree context_tree;
    const struct tree *source;
    const struct tree_node **nodes;
    size_t node_count;
    bool owned, moded; /* --chown, --chmod */
    uint32_t uid, gid;
    mode_t mode;
    char *to; /* destination, links followed; "" is the root */
    bool to_folder;
    int spool;
    struct item *items;
    size_t count, room;
    bool unsettled; /* a file changed while it was read, or may have */
};

struct copy_keys {
    struct digest exact, shape, content;
    bool has_exact, has_content;
    bool known; /* found under `exact`: nothing to remember */
};

/* build_copy_cache.c, for sorted items */
/* 1: a layer of the same entries is there; 0: none; -1. *keys is for copy_keep. */
int copy_cached(struct copy *copy, struct copy_keys *keys, struct cached_layer *layer,
                struct error *err);
/* Remembers the layer, unless copy->unsettled: then what was read is in the layer and not in the
 * keys. */
int copy_keep(struct copy *copy, const struct copy_keys *keys, const struct cached_layer *layer,
              struct error *err);

#endif
