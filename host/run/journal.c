#include "run/journal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"

#define LINE_MAX_BYTES (FRAME_MAX * 2u)

/* Offset after the last newline, so that a line torn by a crash does not swallow the next one. */
static int cut_torn_line(int fd, struct error *err)
{
    char piece[4096];
    off_t end = lseek(fd, 0, SEEK_END);
    off_t keep = 0;

    for (off_t at = end; at > 0 && keep == 0;) {
        size_t want = at < (off_t)sizeof piece ? (size_t)at : sizeof piece;
        at -= (off_t)want;
        ssize_t got = pread(fd, piece, want, at);
        if (got < 0)
            return error_errno(err, errno, "reading the journal");
        for (ssize_t i = got; i-- > 0 && keep == 0;) {
            if (piece[i] == '\n')
                keep = at + i + 1;
        }
    }
    if (end > keep && ftruncate(fd, keep) < 0)
        return error_errno(err, errno, "cutting the journal's torn last line");
    return 0;
}

int journal_open(struct journal *journal, const char *dir, struct error *err)
{
    cleanup_free char *path = path_join(dir, "journal.jsonl");
    cleanup_close int fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666);

    if (fd < 0)
        return error_errno(err, errno, "%s", path);
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        if (errno != EWOULDBLOCK)
            return error_errno(err, errno, "locking %s", path);
        error_set(err, ERR_CONFLICT, "another mlhost is working on this run (%s is locked)", path);
        return error_hint(err, "wait for it to end, or start a new run without --resume");
    }
    if (cut_torn_line(fd, err) < 0)
        return -1;
    journal->fd = steal_fd(&fd);
    journal->seq = 0;
    return 0;
}

int journal_write(struct journal *journal, struct value *event, bool sync, struct error *err)
{
    value_put_int(event, "seq", ++journal->seq);
    buf_clear(&journal->line);
    value_to_json(event, 0, &journal->line);
    buf_putc(&journal->line, '\n');
    if (fd_write_all(journal->fd, journal->line.data, journal->line.len, err) < 0)
        return error_wrap(err, "writing the journal");
    if (sync && fdatasync(journal->fd) < 0 && errno != EINVAL && errno != EROFS)
        return error_errno(err, errno, "syncing the journal");
    return 0;
}

void journal_close(struct journal *journal)
{
    fd_cleanup(&journal->fd);
    journal->fd = -1;
    buf_free(&journal->line);
}

int journal_read(const char *dir, journal_fn *fn, void *ctx, struct error *err)
{
    cleanup_free char *path = path_join(dir, "journal.jsonl");
    cleanup_file FILE *file = fopen(path, "re");
    cleanup_free char *line = NULL;
    size_t room = 0;
    int number = 0;
    ssize_t len;

    if (!file)
        return error_errno(err, errno, "%s", path);
    while ((len = getline(&line, &room, file)) > 0) {
        struct value event = {0};
        number++;
        if (line[len - 1] != '\n')
            break;
        if ((size_t)len > LINE_MAX_BYTES)
            return error_set(err, ERR_TOO_LARGE, "%s:%d: line too long", path, number);
        struct error parse = {0};
        if (value_from_json(line, (size_t)len, path, NULL, &event, &parse) < 0 ||
            event.kind != VALUE_MAP) {
            value_free(&event);
            error_set(err, ERR_INVALID, "%s:%d: not an event", path, number);
            return error_hint(err, "the journal was changed by something else; start a new run");
        }
        fn(ctx, &event);
        value_free(&event);
    }
    return 0;
}

int run_create(const struct config *config, char **id, char **dir, struct error *err)
{
    cleanup_free char *runs = path_join(config->state, "runs");

    if (dir_make(runs, err) < 0)
        return -1;
    for (int tries = 0; tries < 20; tries++) {
        int64_t now = clock_wall_ms();
        time_t seconds = (time_t)(now / 1000);
        struct tm tm;
        uint16_t random = 0;
        char stamp[32];

        gmtime_r(&seconds, &tm);
        strftime(stamp, sizeof stamp, "%Y%m%d-%H%M%S", &tm);
        if (getrandom(&random, sizeof random, GRND_NONBLOCK) != (ssize_t)sizeof random)
            random = (uint16_t)(clock_now() ^ getpid());
        cleanup_free char *name =
            mem_printf("%s-%03d%03x", stamp, (int)(now % 1000), random & 0xfffu);
        cleanup_free char *path = path_join(runs, name);
        if (mkdir(path, 0777) == 0) {
            *id = steal_ptr(&name);
            *dir = steal_ptr(&path);
            return 0;
        }
        if (errno != EEXIST)
            return error_errno(err, errno, "%s", path);
    }
    return error_set(err, ERR_EXISTS, "cannot make a new folder under %s", runs);
}

static int newest_first(const void *a, const void *b)
{
    const struct value *x = a, *y = b;
    return strcmp(y->as.string.data, x->as.string.data);
}

void run_list(const struct config *config, struct value *out)
{
    cleanup_free char *runs = path_join(config->state, "runs");
    DIR *dir = opendir(runs);
    const struct dirent *entry;

    value_set_array(out);
    if (!dir)
        return;
    while ((entry = readdir(dir))) {
        if (entry->d_name[0] >= '0' && entry->d_name[0] <= '9')
            value_push_string(out, entry->d_name);
    }
    closedir(dir);
    if (out->as.array.count > 1)
        qsort(out->as.array.items, out->as.array.count, sizeof *out->as.array.items, newest_first);
}

char *run_find(const struct config *config, const char *id, char **full_id, struct error *err)
{
    struct value runs = {0};
    const char *found = NULL;
    int matches = 0;
    char *path = NULL;

    run_list(config, &runs);
    for (size_t i = 0; i < value_count(&runs); i++) {
        const char *name = runs.as.array.items[i].as.string.data;
        if (strcmp(name, id) == 0) {
            found = name;
            matches = 1;
            break;
        }
        if (id[0] && strncmp(name, id, strlen(id)) == 0) {
            found = name;
            matches++;
        }
    }
    if (matches == 1) {
        path = mem_printf("%s/runs/%s", config->state, found);
        if (full_id)
            *full_id = mem_strdup(found);
    } else {
        error_set(err, ERR_USAGE, matches ? "several runs begin with '%s'" : "there is no run '%s'",
                  id);
        error_hint(err, "mlhost runs lists them");
    }
    value_free(&runs);
    return path;
}

void cell_folder(const char *cell, struct buf *out)
{
    size_t from = out->len;
    uint32_t hash = 2166136261u;
    bool changed = false;

    for (const char *s = cell; *s; s++) {
        hash = (hash ^ (unsigned char)*s) * 16777619u;
        bool plain = (*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z') ||
                     (*s >= '0' && *s <= '9') || strchr("_-=,[].", *s) != NULL;
        if ((*s == '.' && out->len == from) || out->len - from >= 180)
            plain = false;
        changed = changed || !plain;
        if (out->len - from < 180)
            buf_putc(out, plain ? *s : '_');
    }
    if (changed)
        buf_printf(out, "-%08x", hash);
}
