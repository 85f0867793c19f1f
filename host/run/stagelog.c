#include "run/stagelog.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "run/text.h"

/* A full disk must not end the stage: what it prints also went to the renderer. */
static void note(struct stagelog *log, const struct error *err)
{
    if (!log->failed)
        log->trouble = mem_printf("the stage's log is not whole: %s%s%s", err->message,
                                  err->hint[0] ? "; " : "", err->hint);
    log->failed = true;
}

static int open_log(struct stagelog *log, const char *dir, struct error *err)
{
    struct stat status;

    if (log->fd >= 0)
        return 0;
    if (dir_make(dir, err) < 0)
        return -1;
    cleanup_free char *path = path_join(dir, "log.txt");
    log->fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (log->fd < 0 || fstat(log->fd, &status) < 0)
        return error_errno(err, errno, "cannot open %s", path);
    log->size = (uint64_t)status.st_size;
    return 0;
}

void stagelog_event(struct stagelog *log, const char *dir, const struct value *event)
{
    const char *t = value_get_string(event, "t", "");
    const struct value *text = value_get(event, "text");
    const char *level = strcmp(t, "log") == 0 ? value_get_string(event, "level", "info") : "info";
    struct error err = {0};

    if (log->full)
        return;
    if (open_log(log, dir, &err) < 0) {
        note(log, &err);
        return;
    }
    size_t before = log->pending.len;
    time_print(value_get_int(event, "time", 0), &log->pending);
    buf_putc(&log->pending, ' ');
    if (strcmp(level, "info") != 0)
        buf_printf(&log->pending, "%s: ", level);
    if (text && text->kind == VALUE_STRING)
        text_harmless(text->as.string.data, text->as.string.len, &log->pending);
    buf_putc(&log->pending, '\n');
    log->size += log->pending.len - before;
    if (log->size > STAGELOG_MAX) {
        log->full = true;
        log->pending.len = before;
        buf_puts(&log->pending, "(truncated: the log has reached 64 MiB)\n");
    }
    if (log->pending.len > 32 * 1024)
        stagelog_flush(log);
}

void stagelog_flush(struct stagelog *log)
{
    struct error err = {0};

    if (log->fd >= 0 && log->pending.len &&
        fd_write_all(log->fd, log->pending.data, log->pending.len, &err) < 0) {
        error_wrap(&err, "log.txt");
        note(log, &err);
    }
    buf_clear(&log->pending);
}

void stagelog_close(struct stagelog *log)
{
    stagelog_flush(log);
    fd_cleanup(&log->fd);
    log->fd = -1;
    buf_free(&log->pending);
}
