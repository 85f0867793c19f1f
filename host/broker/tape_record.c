/* Writing the tape, while a stage runs. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/module.h"
#include "broker/internal.h"
#include "broker/tape.h"

struct waiting {
    uint64_t id;
    size_t call;
};

struct recorder {
    int fd;
    char *blobs;
    int64_t started;
    size_t calls, bytes;
    struct waiting *waiting; /* calls without an answer yet: at most what calls.c lets wait */
    size_t waiting_count, waiting_room;
};

/* A stage does not fail because it cannot be recorded; whoever looks for the tape is told why. */
static void give_up(struct broker *broker, const char *why)
{
    struct call call = {.broker = broker};
    struct recorder *recorder = broker->recorder;

    if (recorder->fd >= 0)
        close(recorder->fd);
    recorder->fd = -1;
    call_log(&call, "warning",
             "the record of this stage ends here: %s; mlhost replay will not see what follows",
             why);
}

/* One write for one entry, whole: what a killed host leaves is torn at most in its last one. */
static void put(struct broker *broker, struct value *entry)
{
    struct recorder *recorder = broker->recorder;
    struct error err = {0};
    cleanup_buf struct buf plain = BUF_INIT;
    cleanup_buf struct buf masked = BUF_INIT;

    value_put_int(entry, "us", (clock_now() - recorder->started) / 1000);
    frame_append(entry, &plain);
    mask_value(broker->masker, entry);
    frame_append(entry, &masked);
    if (plain.len != masked.len || memcmp(plain.data, masked.data, plain.len) != 0) {
        value_put_bool(entry, "masked", true);
        buf_clear(&masked);
        frame_append(entry, &masked);
    }
    if (masked.len >= TAPE_BLOB) {
        if (tape_blobs_out(recorder->blobs, entry, &err) < 0) {
            give_up(broker, err.message);
            return;
        }
        buf_clear(&masked);
        frame_append(entry, &masked);
    }
    recorder->bytes += masked.len;
    if (recorder->bytes > TAPE_MAX)
        give_up(broker, "it is larger than 64 MiB");
    else if (fd_write_all(recorder->fd, masked.data, masked.len, &err) < 0)
        give_up(broker, err.message);
}

static bool recording(const struct broker *broker)
{
    return broker->recorder && broker->recorder->fd >= 0;
}

static void begin(struct value *entry, const char *t)
{
    value_set_map(entry);
    value_put_string(entry, "t", t);
}

static int create(const char *path)
{
    const int flags = O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW;
    int fd = open(path, flags, 0600);

    if (fd < 0 && errno == ENOENT) {
        cleanup_free char *folder = mem_strndup(path, (size_t)(strrchr(path, '/') - path));
        if (dir_make(folder, NULL) == 0)
            fd = open(path, flags, 0600);
    }
    return fd;
}

void recorder_start(struct broker *broker, const struct value *start)
{
    const struct broker_spec *spec = broker->spec;
    cleanup_value struct value head = {0};
    struct recorder *recorder;

    if (!spec->tape)
        return;
    recorder = mem_alloc(sizeof *recorder);
    broker->recorder = recorder;
    recorder->blobs = mem_strdup(spec->blobs);
    recorder->started = clock_now();
    /* Owner only: replies hold what the stage was allowed to see. */
    recorder->fd = create(spec->tape);
    if (recorder->fd < 0) {
        give_up(broker, strerror(errno));
        return;
    }
    begin(&head, "tape");
    value_put_int(&head, "version", TAPE_VERSION);
    value_put_string(&head, "program", mlhost_version);
    value_put_string(&head, "run", spec->run_id);
    value_put_int(&head, "time", clock_wall_ms());
    struct value *copy = value_put(&head, "start");
    value_copy(copy, start);
    struct value *script = value_get(copy, "script");
    if (script)
        value_remove(script, "text");
    put(broker, &head);
}

void recorder_call(struct broker *broker, const struct value *frame)
{
    struct recorder *recorder = broker->recorder;
    cleanup_value struct value entry = {0};
    const struct value *args = value_get(frame, "args");

    if (!recording(broker))
        return;
    if (recorder->waiting_count == recorder->waiting_room) {
        recorder->waiting_room = recorder->waiting_room ? 2 * recorder->waiting_room : 8;
        recorder->waiting =
            mem_array(recorder->waiting, recorder->waiting_room, sizeof *recorder->waiting);
    }
    recorder->waiting[recorder->waiting_count++] =
        (struct waiting){(uint64_t)value_get_int(frame, "id", 0), recorder->calls++};
    begin(&entry, "call");
    value_put_string(&entry, "name", value_get_string(frame, "name", ""));
    value_put_string(&entry, "at", value_get_string(frame, "at", ""));
    if (args)
        value_copy(value_put(&entry, "args"), args);
    put(broker, &entry);
}

void recorder_reply(struct broker *broker, uint64_t id, struct value *frame)
{
    static const char *const parts[] = {"ok", "error"};
    struct recorder *recorder = broker->recorder;
    cleanup_value struct value entry = {0};
    size_t at = 0;

    if (!recording(broker))
        return;
    while (at < recorder->waiting_count && recorder->waiting[at].id != id)
        at++;
    if (at == recorder->waiting_count)
        return;
    begin(&entry, "reply");
    value_put_int(&entry, "call", (int64_t)recorder->waiting[at].call);
    recorder->waiting[at] = recorder->waiting[--recorder->waiting_count];
    for (size_t i = 0; i < 2; i++) {
        struct value *part = value_get(frame, parts[i]);
        if (part)
            value_move(value_put(&entry, parts[i]), part);
    }
    put(broker, &entry);
}

void recorder_clock(struct broker *broker, const struct value *now)
{
    cleanup_value struct value entry = {0};

    if (!recording(broker) || !now)
        return;
    begin(&entry, "clock");
    value_copy(value_put(&entry, "value"), now);
    put(broker, &entry);
}

void recorder_stop(struct broker *broker)
{
    cleanup_value struct value entry = {0};

    if (!recording(broker))
        return;
    begin(&entry, "stop");
    put(broker, &entry);
}

void recorder_done(struct broker *broker, const struct value *frame, bool by_host)
{
    cleanup_value struct value entry = {0};

    if (!recording(broker))
        return;
    value_copy(&entry, frame);
    value_put_string(&entry, "t", "done");
    if (by_host)
        value_put_bool(&entry, "by_host", true);
    put(broker, &entry);
    close(broker->recorder->fd);
    broker->recorder->fd = -1;
}
