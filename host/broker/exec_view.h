/* Which of the host's files a command does not see, though it was granted the folder above them. */
#ifndef MLHOST_BROKER_EXEC_VIEW_H
#define MLHOST_BROKER_EXEC_VIEW_H

#include <glob.h>

#include "broker/primitive.h"
#include "sandbox/sandbox.h"

struct exec_view {
    struct sandbox_mount *mounts;
    size_t count;
    glob_t sockets;
    bool globbed;
};

/*
 * Mounts for a command's sandbox: an empty folder in the place of the host's state (.mlhost), with
 * the stage's own output folder and those of the stages it needs; mlhost.yaml and the policy file
 * read-only; what the operator denies hidden, or read-only; the sockets of embedded services
 * hidden. The paths live as long as the policy.
 */
void exec_view_make(struct call *call, struct exec_view *view);
void exec_view_free(struct exec_view *view);
#define cleanup_exec_view __attribute__((cleanup(exec_view_free)))

#endif
