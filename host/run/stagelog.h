/* A stage's log.txt: its output and log lines, each with the time, bounded. */
#ifndef MLHOST_RUN_STAGELOG_H
#define MLHOST_RUN_STAGELOG_H

#include "base/value.h"

#define STAGELOG_MAX (64u << 20)

struct stagelog {
    int fd; /* -1 until the first line */
    uint64_t size;
    bool full;
    char *trouble; /* why lines are missing in it, once; who says so takes it */
    bool failed;   /* ... which was noted */
    struct buf pending;
};
#define STAGELOG_INIT                                                                              \
    {                                                                                              \
        .fd = -1, .pending = BUF_INIT                                                              \
    }

/* Adds an `output`, `log` or stage event; dir is the stage's folder, created on demand. */
void stagelog_event(struct stagelog *log, const char *dir, const struct value *event);
void stagelog_flush(struct stagelog *log);
void stagelog_close(struct stagelog *log);

#endif
