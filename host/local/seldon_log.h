/* The log of a container: a file that is never longer than a limit. At the limit it becomes
 * "<path>.1" (the one before goes), and a new one is begun. */
#ifndef MLHOST_LOCAL_SELDON_LOG_H
#define MLHOST_LOCAL_SELDON_LOG_H

#include <stdint.h>

#include "base/buf.h"

#define SELDON_LOG_TAIL 2048 /* bytes that are kept for status messages */

struct seldon_log {
    int fd;
    char *path;
    uint64_t limit, written;
    char tail[SELDON_LOG_TAIL + 1];
    size_t tail_len;
};
int seldon_log_open(struct seldon_log *log, const char *path, uint64_t limit, struct error *err);
void seldon_log_write(struct seldon_log *log, const char *data, size_t len);
void seldon_log_close(struct seldon_log *log);

#endif
