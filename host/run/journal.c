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
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "run/text.h"

#define LINE_MAX_BYTES (FRAME_MAX * 2u)
#define SEQ_MAX        INT64_C(1000000000000)
#define ORPHANS_NS     (15 * NS_PER_S) /* for the stages of a killed host to end */
#define LOCK_FD_LEAST  64              /* the lower numbers have their places in a broker */
#define DYING_NS       NS_PER_S        /* for a host that was killed a moment ago to be gone */
#define LOOK_NS        (20 * NS_PER_MS)

/* ---- who works on a run ---- */

/* When a process began, in ticks since the boot: its pid may be another's by now. 0: it is gone, or
 * only waits for its parent to hear of it. */
static long long process_start(pid_t pid)
{
    cleanup_free char *path = mem_printf("/proc/%ld/stat", (long)pid);
    cleanup_buf struct buf text = BUF_INIT;
    long long start = 0;

    if (file_read(AT_FDCWD, path, 4096, &text, NULL) < 0)
        return 0;
    const char *at = strrchr(text.data, ')'); /* the name before it may hold anything */
    if (!at || strspn(at + 1, " ZX") > 1)
        return 0;
    for (int field = 2; at && field < 22; field++)
        at = strchr(at + 1, ' ');
    if (!at || sscanf(at, "%lld", &start) != 1)
        return 0;
    return start;
}

/* What the holder of a lock wrote about itself. A full disk may have kept it from doing so. */
static void read_holder(int fd, struct value *holder)
{
    char text[512];
    ssize_t got = pread(fd, text, sizeof text, 0);

    if (got > 0)
        (void)value_from_json(text, (size_t)got, "lock", NULL, holder, NULL);
}

static void write_holder(int fd)
{
    cleanup_value struct value holder = {0};
    cleanup_buf struct buf text = BUF_INIT;
    struct utsname name;

    value_set_map(&holder);
    value_put_int(&holder, "pid", getpid());
    value_put_int(&holder, "start", process_start(getpid()));
    value_put_string(&holder, "host", uname(&name) == 0 ? name.nodename : "");
    value_put_int(&holder, "since", clock_wall_ms());
    value_to_json(&holder, 0, &text);
    buf_putc(&text, '\n');
    /* It is for people: the lock holds without it, on a full disk too. */
    if (ftruncate(fd, 0) == 0)
        (void)!pwrite(fd, text.data, text.len, 0);
}

/* Is the host itself alive, not only what it left behind? One on another machine may be. */
static bool host_lives(const struct value *holder)
{
    struct utsname name;
    pid_t pid = (pid_t)value_get_int(holder, "pid", 0);
    const char *host = value_get_string(holder, "host", "");

    if (holder->kind != VALUE_MAP || pid <= 0)
        return false;
    if (uname(&name) < 0 || strcmp(name.nodename, host) != 0)
        return true;
    return process_start(pid) == value_get_int(holder, "start", 0);
}

static int conflict(const char *dir, const struct value *holder, bool lives, struct error *err)
{
    cleanup_buf struct buf since = BUF_INIT;
    int64_t pid = value_get_int(holder, "pid", 0);

    if (!lives) {
        error_set(err, ERR_CONFLICT,
                  "another process is still working on this run: it holds %s/lock", dir);
        return error_hint(err, "fuser -v %s/lock names it; end it, and resume again", dir);
    }
    time_print(value_get_int(holder, "since", 0), &since);
    error_set(err, ERR_CONFLICT,
              "another mlhost is working on this run: process %lld on %s, since %s", (long long)pid,
              value_get_string(holder, "host", "?"), since.data);
    return error_hint(err,
                      "wait for it to end, end it (kill %lld), or start a new run without "
                      "--resume",
                      (long long)pid);
}

int run_lock(const char *dir, int *out, struct error *err)
{
    cleanup_free char *path = path_join(dir, "lock");
    cleanup_close int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    int64_t deadline = deadline_in(ORPHANS_NS), dying = deadline_in(DYING_NS);

    if (fd < 0)
        return error_errno(err, errno, "cannot open %s", path);
    while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        if (errno == EINTR)
            continue;
        if (errno != EWOULDBLOCK)
            return error_errno(err, errno, "cannot lock %s", path);
        cleanup_value struct value holder = {0};
        read_holder(fd, &holder);
        bool lives = host_lives(&holder);
        if (deadline_passed(lives ? dying : deadline))
            return conflict(dir, &holder, lives, err);
        struct timespec pause = {.tv_nsec = LOOK_NS};
        (void)nanosleep(&pause, NULL);
    }
    write_holder(fd);
    *out = fcntl(fd, F_DUPFD_CLOEXEC, LOCK_FD_LEAST);
    return *out < 0 ? error_errno(err, errno, "%s", path) : 0;
}

bool run_locked(const char *dir)
{
    cleanup_free char *path = path_join(dir, "lock");
    cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC);

    return fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK;
}

/* ---- the journal ---- */

/* Offset after the last newline, so that a line torn by a crash does not swallow the next one. */
static int cut_torn_line(int fd, const char *path, struct error *err)
{
    char piece[4096];
    off_t end = lseek(fd, 0, SEEK_END);
    off_t keep = 0;

    for (off_t at = end; at > 0 && keep == 0;) {
        size_t want = at < (off_t)sizeof piece ? (size_t)at : sizeof piece;
        at -= (off_t)want;
        ssize_t got = pread(fd, piece, want, at);
        if (got < 0)
            return error_errno(err, errno, "cannot read %s", path);
        for (ssize_t i = got; i-- > 0 && keep == 0;) {
            if (piece[i] == '\n')
                keep = at + i + 1;
        }
    }
    if (end > keep && ftruncate(fd, keep) < 0)
        return error_errno(err, errno, "cannot cut the torn last line off %s", path);
    return 0;
}

int journal_open(struct journal *journal, const char *dir, struct error *err)
{
    cleanup_free char *path = path_join(dir, "journal.jsonl");
    cleanup_close int fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666);

    if (fd < 0)
        return error_errno(err, errno, "cannot open %s", path);
    if (cut_torn_line(fd, path, err) < 0)
        return -1;
    journal->fd = steal_fd(&fd);
    journal->path = steal_ptr(&path);
    journal->seq = 0;
    return 0;
}

int journal_write(struct journal *journal, struct value *event, bool sync, struct error *err)
{
    value_put_int(event, "seq", ++journal->seq);
    buf_clear(&journal->line);
    text_json(event, 0, &journal->line);
    buf_putc(&journal->line, '\n');
    if (fd_write_all(journal->fd, journal->line.data, journal->line.len, err) < 0)
        return error_wrap(err, "%s", journal->path);
    if (sync && fdatasync(journal->fd) < 0 && errno != EINVAL)
        return error_errno(err, errno, "cannot sync %s", journal->path);
    return 0;
}

void journal_close(struct journal *journal)
{
    fd_cleanup(&journal->fd);
    journal->fd = -1;
    mem_cleanup(&journal->path);
    buf_free(&journal->line);
}

/* What is wrong with a whole line, or NULL. *seq is that of the line before and becomes that of
 * this one; *fresh: the event may be counted all the same. */
static const char *damage(const char *line, size_t len, struct value *event, int64_t *seq,
                          bool *fresh)
{
    int64_t due = *seq + 1;

    *fresh = false;
    if (len > LINE_MAX_BYTES || value_from_json(line, len, "journal", NULL, event, NULL) < 0 ||
        event->kind != VALUE_MAP || !value_get_string(event, "t", NULL)) {
        *seq = due;
        return len > LINE_MAX_BYTES ? "the line is too long" : "not an event";
    }
    int64_t got = value_get_int(event, "seq", due);
    if (got < due || got > SEQ_MAX)
        return "an event that was there before";
    *seq = got;
    *fresh = true;
    return got == due ? NULL : "the events before it are missing";
}

int journal_read(const char *dir, journal_fn *fn, void *ctx, struct error *err)
{
    cleanup_free char *path = path_join(dir, "journal.jsonl");
    cleanup_file FILE *file = fopen(path, "re");
    cleanup_free char *line = NULL;
    size_t room = 0;
    int64_t seq = 0;
    int number = 0, first = 0, bad = 0;
    const char *why = NULL;
    ssize_t len;

    if (!file)
        return error_errno(err, errno, "cannot open %s", path);
    while ((len = getline(&line, &room, file)) > 0 && line[len - 1] == '\n') {
        cleanup_value struct value event = {0};
        bool fresh;
        const char *what = damage(line, (size_t)len, &event, &seq, &fresh);
        number++;
        if (what && bad++ == 0) {
            first = number;
            why = what;
        }
        if (fresh)
            fn(ctx, &event);
    }
    if (ferror(file))
        return error_errno(err, errno, "cannot read %s", path);
    if (!bad)
        return 0;
    error_set(err, ERR_INVALID, "%s:%d: %s", path, first, why);
    if (bad > 1)
        error_wrap(err, "%d damaged lines, the first is", bad);
    return error_hint(err,
                      "something else has changed the journal, so the run cannot go on: start a "
                      "new one; mlhost logs still shows this one");
}

/* The time that a run's id tells, in Unix ms; -1: it is no id. */
static int64_t time_of_id(const char *id)
{
    struct tm tm = {0};
    int ms = 0;
    char end = 0;

    if (strlen(id) != 22 ||
        sscanf(id, "%4d%2d%2d-%2d%2d%2d-%3d%*3[0-9a-f]%c", &tm.tm_year, &tm.tm_mon, &tm.tm_mday,
               &tm.tm_hour, &tm.tm_min, &tm.tm_sec, &ms, &end) != 7)
        return -1;
    tm.tm_year -= 1900;
    tm.tm_mon--;
    time_t seconds = timegm(&tm);
    return seconds < 0 ? -1 : (int64_t)seconds * 1000 + ms;
}

/* Ids sort in the order of their runs, so none is before what is there: the clock may have been set
 * back. */
static int64_t time_of_next(const struct config *config)
{
    int64_t now = clock_wall_ms();
    cleanup_value struct value runs = {0};

    run_list(config, &runs);
    for (size_t i = 0; i < value_count(&runs); i++) {
        int64_t other = time_of_id(value_text(value_at(&runs, i), ""));
        if (other >= 0)
            return other >= now ? other + 1 : now;
    }
    return now;
}

int run_create(const struct config *config, char **id, char **dir, struct error *err)
{
    cleanup_free char *runs = path_join(config->state, "runs");

    if (dir_make(runs, err) < 0)
        return -1;
    for (int tries = 0; tries < 20; tries++) {
        int64_t now = time_of_next(config);
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
            return error_errno(err, errno, "cannot make folder %s", path);
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
