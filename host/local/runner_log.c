#include "local/runner.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define MASKED          "***"
#define SHORTEST_SECRET 4 /* shorter ones would tear holes into everything */

int runner_log_open(struct runner_log *log, const char *path, uint64_t limit,
                    const struct value *mask, struct error *err)
{
    *log = (struct runner_log){.fd = -1, .left = limit, .mask = mask};
    for (size_t i = 0; i < value_count(mask); i++) {
        const struct value *secret = value_at(mask, i);
        if (secret->kind == VALUE_STRING && secret->as.string.len > log->longest)
            log->longest = secret->as.string.len;
    }
    log->fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    return log->fd < 0 ? error_errno(err, errno, "cannot write the log %s", path) : 0;
}

static void keep_tail(struct runner_log *log, const char *data, size_t len)
{
    if (len >= RUNNER_TAIL) {
        memcpy(log->tail, data + len - RUNNER_TAIL, RUNNER_TAIL);
        log->tail_len = RUNNER_TAIL;
    } else {
        size_t over = log->tail_len + len > RUNNER_TAIL ? log->tail_len + len - RUNNER_TAIL : 0;
        memmove(log->tail, log->tail + over, log->tail_len - over);
        memcpy(log->tail + log->tail_len - over, data, len);
        log->tail_len += len - over;
    }
    log->tail[log->tail_len] = '\0';
}

static void write_out(struct runner_log *log, const char *data, size_t len)
{
    static const char full[] = "\n[mlhost] the log is full; the rest of the output is dropped\n";

    keep_tail(log, data, len);
    if (log->full || len == 0)
        return;
    size_t now = len < log->left ? len : (size_t)log->left;
    /* A log that cannot be written (a full disk) must not end the task; its outputs will say what
     * is wrong. */
    (void)fd_write_all(log->fd, data, now, NULL);
    log->left -= now;
    if (now < len) {
        log->full = true;
        (void)fd_write_all(log->fd, full, sizeof full - 1, NULL);
    }
}

/* The secret that begins at data, or 0. */
static size_t secret_at(const struct runner_log *log, const char *data, size_t len)
{
    size_t found = 0;

    for (size_t i = 0; i < value_count(log->mask); i++) {
        const struct value *secret = value_at(log->mask, i);
        if (secret->kind != VALUE_STRING)
            continue;
        size_t size = secret->as.string.len;
        if (size >= SHORTEST_SECRET && size <= len && size > found &&
            memcmp(data, secret->as.string.data, size) == 0)
            found = size;
    }
    return found;
}

static void flush(struct runner_log *log, struct buf *pending, bool last)
{
    size_t at = 0, from = 0;

    while (at < pending->len && (last || pending->len - at >= log->longest)) {
        size_t size = secret_at(log, pending->data + at, pending->len - at);
        if (size == 0) {
            at++;
            continue;
        }
        write_out(log, pending->data + from, at - from);
        write_out(log, MASKED, sizeof MASKED - 1);
        at += size;
        from = at;
    }
    write_out(log, pending->data + from, at - from);
    buf_consume(pending, at);
}

void runner_log_output(void *ctx, int stream, const char *data, size_t len)
{
    struct runner_log *log = ctx;

    if (log->longest < SHORTEST_SECRET) {
        write_out(log, data, len);
        return;
    }
    buf_append(&log->pending[stream - 1], data, len);
    flush(log, &log->pending[stream - 1], false);
}

void runner_log_close(struct runner_log *log)
{
    for (int i = 0; i < 2; i++) {
        if (log->pending[i].len)
            flush(log, &log->pending[i], true);
        buf_free(&log->pending[i]);
    }
    if (log->fd >= 0)
        close(log->fd);
    log->fd = -1;
}
