/*
 * One RUN as data, and its execution: in this process when it may mount, else in one of its own
 * that has a user namespace (build_run_user.c). Nothing in here knows of Dockerfiles.
 *
 *   layers    [ { digest, diff_id } ]   of the root, the lowest first
 *   argv, env [ text ]; cwd text; uid, gid int; groups [ int ]
 *   network   bool
 *   memory    int, bytes of all of its processes; 0: no limit. processes int
 *   stubs     [ text ]   places of mounts that the image does not have, outermost first: taken away
 *                        again unless the command put something there
 *   hosts, resolv   texts of /etc/hosts and /etc/resolv.conf; places of both and of proc, dev are
 *                   in `places` { hosts, resolv, proc, dev }, links followed
 *   mounts    [ { kind, target, ... } ]
 *     bind      source (folder or file of this machine), read_only
 *     overlay   layers or folder, sub, read_only; what is written to it is dropped
 *     cache     name, sharing 0..2, mode, uid, gid, read_only; and layers, sub: what it begins with
 *     tmpfs     size
 *     file      data, mode, uid, gid
 *   epoch, clamp int   of the layer, as in build_changes.h
 */
#ifndef MLHOST_OCI_BUILD_RUN_JOB_H
#define MLHOST_OCI_BUILD_RUN_JOB_H

#include "loop/cancel.h"
#include "loop/exec.h"
#include "oci/layer.h"

struct run_setting {
    struct store *store;
    const struct layer_watcher *watcher; /* may be NULL; not heard of as a user */
    exec_output_fn *output;              /* may be NULL */
    void *ctx;
    int64_t deadline; /* 0: none */
    const struct cancel *cancel;
};

#define RUN_SAID "it said: " /* begins the hint; the end of what the command printed follows */

/* out->entries 0: the command changed no file. ERR_FAILED with the command's last words in the
 * hint, ERR_TIMEOUT, ERR_CANCELLED, or why it could not be started. */
int run_job(const struct run_setting *setting, const struct value *job, struct layer_result *out,
            struct error *err);
/* The same in a process with a user namespace. Where this user has no other ids than its own, all
 * files belong to root. */
int run_job_as_user(const struct run_setting *setting, const struct value *job,
                    struct layer_result *out, struct error *err);
/* That process: the job comes as a frame from `in`, frames go to `out` (build_run_user.c). The exit
 * status. */
int mlh_build_step_main(int in, int out);

#endif
