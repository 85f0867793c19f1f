/*
 * Writing a layer: a tar stream (ustar, with PAX records only where ustar has no room) through
 * SHA-256 (the diff id) and gzip into a blob of a store, in one pass and in bounded memory.
 *
 * Deterministic: entries in the caller's order (which must be sorted), one time for all, numeric
 * owners without names, a fixed gzip header, pieces of fixed size for the compressor.
 */
#ifndef MLHOST_OCI_LAYER_H
#define MLHOST_OCI_LAYER_H

#include <sys/stat.h>

#include "loop/cancel.h"
#include "oci/store.h"

struct layer_attribute {
    char *name;
    void *data;
    size_t len;
};

/* count 0 gives NULL. */
void attributes_copy(const struct layer_attribute *from, size_t count, struct layer_attribute **to);
void attributes_free(struct layer_attribute *attributes, size_t count);

struct layer_entry {
    const char *path; /* relative, without "./" and trailing slash */
    mode_t mode;      /* type and permissions: S_IFREG S_IFDIR S_IFLNK S_IFCHR S_IFBLK S_IFIFO */
    uint32_t uid, gid;
    const char *link; /* S_IFLNK: where to; with `hard`: the path of the entry that this is another
                         name of */
    bool hard;
    int fd; /* S_IFREG: read from `offset` on, when data is NULL */
    uint64_t offset;
    const void *data;
    uint64_t size;                            /* S_IFREG */
    bool own_time;                            /* mtime counts, not the layer's */
    int64_t mtime;                            /* Unix seconds */
    const struct layer_attribute *attributes; /* extended ones, sorted by name */
    size_t attribute_count;
};

struct layer_result {
    struct digest digest, diff_id;
    uint64_t size; /* compressed */
    uint64_t tar_size;
    size_t entries;
};

/* Somebody who looks on while the file of a layer grows. begin: its descriptor, and what the other
 * two get; grown: bytes that are in it; end: its digest, or NULL when there is no layer after all.
 * Called from one thread at a time. */
struct layer_watcher {
    void *(*begin)(void *ctx, int fd);
    void (*grown)(void *watch, uint64_t size);
    void (*end)(void *watch, const struct digest *digest);
    void *ctx;
};

struct layer;
/* mtime: of every entry, Unix seconds. watcher: may be NULL; must live as long as the layer. */
struct layer *layer_new(struct store *store, int64_t mtime, const struct layer_watcher *watcher,
                        struct error *err);
/* From now on layer_add gives up at the deadline (0: none) or cancel (may be NULL), in the midst of
 * a file, too. */
void layer_until(struct layer *layer, int64_t deadline, const struct cancel *cancel);
int layer_add(struct layer *layer, const struct layer_entry *entry, struct error *err);
/* Bytes of a tar stream that somebody else wrote, its end included: instead of entries. */
int layer_raw(struct layer *layer, const void *data, size_t len, struct error *err);
size_t layer_entries(const struct layer *layer);
/* Ends the stream; the blob is in the store. Frees the layer in any case. */
int layer_finish(struct layer *layer, struct layer_result *out, struct error *err);
void layer_drop(struct layer *layer); /* NULL is allowed */

#endif
