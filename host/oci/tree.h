/*
 * What the layers of an image add up to: every path with its attributes and the layer that its
 * content is in, without unpacking anything. The builder asks it where links lead, which folders
 * exist, and copies out of it (COPY --from).
 */
#ifndef MLHOST_OCI_TREE_H
#define MLHOST_OCI_TREE_H

#include <sys/stat.h>

#include "oci/store.h"

struct tree_node {
    char *path;  /* relative, clean */
    mode_t mode; /* 0: removed by a whiteout */
    uint32_t uid, gid;
    char *link;   /* symbolic link: where to */
    char *origin; /* the name under which `layer` holds the content, when another one (a hard link);
                     else NULL */
    int layer;    /* number of the layer, from 0 */
    uint64_t size;
};

struct tree {
    struct tree_node **slots;
    size_t count, room;
    int layers;
};

void tree_free(struct tree *tree); /* leaves an empty one */
/* Adds a layer file (tar, gzip, zstd) on top. */
int tree_add_layer(struct tree *tree, int fd, struct error *err);
/* Adds a layer of the store (tar, gzip, zstd) on top. What is in a large one is remembered there:
 * build/trees/ (tree_list.c). */
int tree_add_blob(struct tree *tree, struct store *store, const char *digest, struct error *err);
/* For tree_list.c: one entry of the layer; the layer, and each entry to somebody who keeps it. */
struct tar_entry;
void tree_add_entry(struct tree *tree, const struct tar_entry *entry);
typedef void tree_seen_fn(void *ctx, const struct tar_entry *entry);
int tree_add_seen(struct tree *tree, int fd, tree_seen_fn *seen, void *ctx, struct error *err);
/* Adds one entry to the topmost layer, for a builder that has just written it. */
void tree_put(struct tree *tree, const char *path, mode_t mode, uint32_t uid, uint32_t gid,
              const char *link, const char *origin, uint64_t size);
const struct tree_node *tree_get(const struct tree *tree,
                                 const char *path); /* NULL: not there. Links are not followed */
/* The path with all links on its way followed, the last component's too when `last`; what does not
 * exist stays as it is. NULL: ERR_INVALID (a loop of links). Allocated; "" is the root. */
char *tree_resolve(const struct tree *tree, const char *path, bool last, struct error *err);
/* All nodes that exist, sorted by path; free the array, not the nodes. */
const struct tree_node **tree_sorted(const struct tree *tree, size_t *count);

/* Copies the contents of files out of a layer into `to`, one after another. `wanted` maps names in
 * that layer to nil; each becomes { offset, size, attributes = { name = bytes }? }. */
int tree_spool(int layer_fd, struct value *wanted, int to, struct error *err);

/* "/a/./b//../c/" -> "a/c"; ".." stops at the root. Allocated. */
char *tree_clean(const char *path);

#endif
