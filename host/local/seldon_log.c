#include "local/seldon_log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"

#define FLAGS (O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC)

int seldon_log_open(struct seldon_log *log, const char *path, uint64_t limit, struct error *err)
{
    *log = (struct seldon_log){.fd = open(path, FLAGS | O_TRUNC, 0644), .limit = limit};
    if (log->fd < 0)
        return error_errno(err, errno, "cannot write the log %s", path);
    log->path = mem_strdup(path);
    return 0;
}

static void rotate(struct seldon_log *log)
{
    cleanup_free char *older = mem_printf("%s.1", log->path);

    if (rename(log->path, older) < 0)
        return;
    int fd = open(log->path, FLAGS | O_TRUNC, 0644);
    if (fd < 0)
        return;
    close(log->fd);
    log->fd = fd;
    log->written = 0;
}

static void keep_tail(struct seldon_log *log, const char *data, size_t len)
{
    if (len > SELDON_LOG_TAIL) {
        data += len - SELDON_LOG_TAIL;
        len = SELDON_LOG_TAIL;
    }
    size_t over = log->tail_len + len > SELDON_LOG_TAIL ? log->tail_len + len - SELDON_LOG_TAIL : 0;
    memmove(log->tail, log->tail + over, log->tail_len - over);
    memcpy(log->tail + log->tail_len - over, data, len);
    log->tail_len += len - over;
    log->tail[log->tail_len] = '\0';
}

void seldon_log_write(struct seldon_log *log, const char *data, size_t len)
{
    keep_tail(log, data, len);
    if (log->written && log->written + len > log->limit)
        rotate(log);
    /* A log that cannot be written (a full disk) must not end the model that serves. */
    (void)fd_write_all(log->fd, data, len, NULL);
    log->written += len;
}

void seldon_log_close(struct seldon_log *log)
{
    fd_cleanup(&log->fd);
    log->fd = -1;
    free(log->path);
    log->path = NULL;
}
