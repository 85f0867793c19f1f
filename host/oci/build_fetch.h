/* What ADD of a URL gets, over the host's own client and with the script's rights. */
#ifndef MLHOST_OCI_BUILD_FETCH_H
#define MLHOST_OCI_BUILD_FETCH_H

#include "broker/primitive.h"

/* The body of a GET, redirects followed, into fd. *modified: Last-Modified as Unix seconds, or -1.
 */
int build_fetch(struct call *call, const char *url, int fd, int64_t *modified, struct error *err);

/* A commit of a git repository (a branch, a tag, a commit, HEAD) with its submodules, through the
 * machine's git, which the script must be allowed to run. *folder: below the stage's output folder,
 * the caller's to remove; *commit: its number. */
int build_clone(struct call *call, const char *url, const char *ref, char **folder, char **commit,
                struct error *err);

#endif
