/*
 * Removes from a store what nothing needs any more: blobs that no manifest names, manifests without
 * a tag (when asked to), uploads that nobody went on with, unpacked layers that were not used.
 *
 * Safe beside pushes, pulls and builds of any process. What is younger than the grace period stays,
 * and every look whether a blob is there makes it young again; the look and the removal exclude
 * each other by a lock on the store. So a manifest that was accepted never misses a blob. A push
 * that takes longer than the grace period between a blob and its manifest is told that the blob is
 * unknown, as registries do.
 */
#ifndef MLHOST_OCI_STORE_GC_H
#define MLHOST_OCI_STORE_GC_H

#include "loop/cancel.h"
#include "oci/store.h"

#define STORE_GC_GRACE_S (24 * 3600)
#define STORE_GC_MIN_S   2 /* a shorter grace is taken as this */

struct store_gc_options {
    int64_t grace_s;
    bool untagged;    /* manifests, too: those that no tag, index or kept subject leads to */
    bool dry_run;     /* counts what would go */
    int64_t deadline; /* 0: none */
    const struct cancel *cancel; /* may be NULL */
    /* Told of each thing that goes: "manifest", "blob", "upload", "layer" or "image". May be NULL.
     */
    void (*each)(void *ctx, const char *kind, const char *name, uint64_t bytes);
    void *ctx;
};

struct store_gc_count {
    uint64_t count, bytes;
};

struct store_gc_result {
    struct store_gc_count manifests, blobs, uploads, layers; /* gone; of a dry run: would be */
    struct store_gc_count kept;                              /* blobs that are needed */
    struct store_gc_count young; /* blobs that nothing needs, within the grace period */
};

/* 0, or why the collection ends now. */
int store_gc_stopped(const struct store_gc_options *options, struct error *err);

/* Counts are added to *out. */
int store_gc(struct store *store, const struct store_gc_options *options,
             struct store_gc_result *out, struct error *err);

/* The same for a folder of unpacked folders (32 to 64 hexadecimal digits), each with a file
 * <name>.lock that whoever uses one touches while he holds its lock. One that a process of this
 * machine has mounted is in use, however old. A missing root is no error. */
int store_gc_folders(const char *root, const char *kind, const struct store_gc_options *options,
                     struct store_gc_count *out, struct error *err);

/* All that a state folder keeps of images; what is not there counts as empty. */
struct image_gc_result {
    struct store_gc_result registry; /* <state>/local/registry: the embedded registry */
    struct store_gc_result cache;    /* <state>/cache/oci: pulls and builds */
    struct store_gc_count images;    /* <state>/local/kubeflow/rootfs: unpacked for tasks */
};
int image_gc(const char *state_dir, const struct store_gc_options *options,
             struct image_gc_result *out, struct error *err);

#endif
