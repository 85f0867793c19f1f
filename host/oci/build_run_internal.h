/* What build_run.c (the command and what is around it) and build_run_attach.c (its mounts) share.
 */
#ifndef MLHOST_OCI_BUILD_RUN_INTERNAL_H
#define MLHOST_OCI_BUILD_RUN_INTERNAL_H

#include "broker/mask.h"
#include "oci/build_internal.h"
#include "oci/build_run_job.h"
#include "oci/build_run_mount.h"
#include "oci/scratch_dir.h"

struct run {
    struct builder *builder;
    struct stage *stage;
    const struct value *instruction;
    struct value job; /* build_run_job.h */
    struct run_mounts mounts;
    struct scratch_dir context; /* copies of parts of the build context */
    struct masker *masker;      /* NULL: no secrets */
    struct buf tails[2];        /* of the command's streams: what may begin a secret */
};

/* A new mount of the job, to be filled in: build_run_job.h. Until the next one. */
struct value *run_add_mount(struct run *run, const char *kind, const char *target);
/* "NAME=text" behind the others. */
void run_put_env(struct run *run, const char *name, const char *text);
/* The stage's layers -> map.layers. */
void run_put_layers(struct value *map, const struct stage *stage);
/* Places of /proc, /dev, /etc/hosts and /etc/resolv.conf, and what the latter two say. */
int run_take_places(struct run *run, bool network, struct error *err);
/* What --mount asks for. */
int run_take_mounts(struct run *run, struct error *err);
/* build_run_user.c: for messages. Until the next call. */
const char *run_user_name(void);
/* Frees a value whose texts may be secrets. */
void run_wipe(struct value *v);

#endif
