/* An image of a store becomes a folder. */
#ifndef MLHOST_OCI_UNPACK_H
#define MLHOST_OCI_UNPACK_H

#include "loop/cancel.h"
#include "oci/inflate.h"
#include "oci/store.h"

struct tree;

struct unpack_options {
    uint64_t max_bytes;   /* of all files together; 0: 64 GiB */
    uint64_t max_entries; /* 0: 4 million */
    int64_t deadline;     /* 0: none */
    const struct cancel *cancel;
    /* A folder for an overlay: whiteouts become what the kernel takes for one, modes keep their
     * setuid bits, and files their extended attributes. Nobody but the caller may look into it. */
    bool overlay;
    bool attributes; /* setuid bits and extended attributes are kept, as with overlay */
    /* With it: what the layers below hold, for entries whose folder is not in the layer itself, so
     * that it does not hide a link or the folder's attributes. *implied: there were such. */
    const struct tree *below;
    bool *implied; /* may be NULL */
};

/*
 * Unpacks all layers of the manifest (an index is resolved to linux and this machine's
 * architecture) into `target`, which is made and must be empty; its parent must exist. Layers may
 * be plain, gzip or zstd; each is checked against its diff id (or its digest, where the config has
 * none). Whiteouts and opaque
 * folders remove what lower layers left. As root, owners are kept; otherwise the files are the
 * caller's, and devices are left out. Nothing is ever made outside of target, whatever links and
 * names the layers hold. On failure target is removed again. options may be NULL.
 */
int oci_unpack(struct store *store, const char *manifest_digest, const char *target,
               const struct unpack_options *options, struct error *err);

/* The same, with layers from elsewhere. source: the layer `digest`, opened (`whole`: its digest is
 * asked for), or NULL; called for each layer in turn, once the one before has been freed. */
typedef struct inflater *unpack_source_fn(void *ctx, const char *digest, bool whole,
                                          struct error *err);
int oci_unpack_from(unpack_source_fn *source, void *ctx, const struct value *manifest,
                    const struct value *config, const char *target,
                    const struct unpack_options *options, struct error *err);

/* One layer file into a folder that is there; for the builder too. `digest`, `diff_id` may be NULL:
 * not checked. */
int oci_unpack_layer(int layer_fd, int target_dirfd, const char *digest, const char *diff_id,
                     bool whiteouts, const struct unpack_options *options, struct error *err);

#endif
