/*
 * RUN --mount=...: what a line of a Dockerfile asks for, checked and with defaults filled in.
 * Nothing is mounted here. Keys and defaults are those of docs.docker.com/reference/dockerfile, so
 * is what is refused (a cache in the root, a mode for a bind, ...).
 */
#ifndef MLHOST_OCI_BUILD_RUN_MOUNT_H
#define MLHOST_OCI_BUILD_RUN_MOUNT_H

#include <sys/types.h>

#include "base/value.h"

enum run_mount_kind { RUN_MOUNT_BIND, RUN_MOUNT_CACHE, RUN_MOUNT_TMPFS, RUN_MOUNT_SECRET };
enum run_sharing { RUN_SHARED, RUN_PRIVATE, RUN_LOCKED };

struct run_mount {
    enum run_mount_kind kind;
    char *target; /* absolute and clean; NULL: a secret that is only a variable */
    char *from;   /* stage, image or named context; NULL: the context (bind), nothing (cache) */
    char *source; /* path inside of `from`, without leading slash; "" is all of it */
    char *id;     /* cache, secret */
    char *env;    /* secret: the variable to set, or NULL */
    enum run_sharing sharing;
    bool read_only, required;
    mode_t mode;
    uint32_t uid, gid;
    uint64_t size; /* tmpfs: bytes; 0: the kernel's limit */
};
struct run_mounts {
    struct run_mount *items;
    size_t count;
};

/* One word with its variables expanded. Allocated; NULL with an error. */
typedef char *run_expand_fn(void *ctx, const char *word, struct error *err);

/* flag: the text behind --mount=, an array of such texts, or NULL. folder: the WORKDIR, to which
 * targets are relative. ERR_INVALID or ERR_UNSUPPORTED, with the mount's text in the message. */
int run_mounts_parse(const struct value *flag, const char *folder, run_expand_fn *expand, void *ctx,
                     struct run_mounts *out, struct error *err);
void run_mounts_free(struct run_mounts *mounts);
#define cleanup_run_mounts __attribute__((cleanup(run_mounts_free)))

#endif
