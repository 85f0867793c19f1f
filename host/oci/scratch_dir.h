/* Folders for the time of one piece of work. Those of a process that died are removed by whoever
 * makes the next one beside them. */
#ifndef MLHOST_OCI_SCRATCH_DIR_H
#define MLHOST_OCI_SCRATCH_DIR_H

#include "base/error.h"

struct scratch_dir {
    char *path;
    int lock; /* held while it is in use */
};
#define SCRATCH_DIR_NONE                                                                           \
    {                                                                                              \
        NULL, -1                                                                                   \
    }

/* parent/run.XXXXXX, mode 0700; the parent exists. */
int scratch_dir_make(const char *parent, struct scratch_dir *out, struct error *err);
/* Removes it; one that was never made is allowed. */
void scratch_dir_end(struct scratch_dir *dir);

#endif
