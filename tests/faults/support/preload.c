/*
 * Loaded into the host (LD_PRELOAD) by the drivers here: it ends or fails the host at one chosen
 * place, which a signal from outside cannot hit. The program itself has no part of it. Children do
 * nothing of it but the clock.
 *
 *   FAULT_KILL=before:7 | after:7   SIGKILL at the 7th write to the journal
 *   FAULT_SLAY=mlhost-vm:7          after the 7th write, as soon as there is one: SIGKILL for the
 * processes below of that name FAULT_FAIL=28:7                 the 7th operation that may need room
 * on the disk below FAULT_UNDER fails with errno 28, and so does every later one (0: none, they are
 * only counted) FAULT_COUNT=FILE                how many operations there were, at the end
 *   FAULT_CLOCK=1                   each look at the wall clock is up to an hour off, in either
 * direction
 */
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static pid_t host;
static long journal_writes, operations;
static atomic_uint looks;

__attribute__((constructor)) static void begin(void)
{
    host = getpid();
}

static long setting(const char *name, const char *key)
{
    const char *text = getenv(name);
    size_t len = strlen(key);

    return text && strncmp(text, key, len) == 0 && text[len] == ':' ? atol(text + len + 1) : -1;
}

static int is_host(void)
{
    return getpid() == host;
}

/* ---- the journal ---- */

static int path_of(int fd, char *path, size_t room)
{
    char link[40];

    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, path, room - 1);
    path[len > 0 ? len : 0] = '\0';
    return len > 0;
}

static int is_journal(int fd)
{
    char path[PATH_MAX];

    return path_of(fd, path, sizeof path) && strlen(path) > 14 &&
           strcmp(path + strlen(path) - 14, "/journal.jsonl") == 0;
}

static pid_t parent_of(pid_t pid, char *name, size_t room)
{
    char path[64], text[512];
    int parent = 0;

    snprintf(path, sizeof path, "/proc/%ld/stat", (long)pid);
    int fd = open(path, O_RDONLY);
    ssize_t got = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (fd >= 0)
        close(fd);
    if (got <= 0)
        return 0;
    text[got] = '\0';
    char *open_at = strchr(text, '('), *close_at = strrchr(text, ')');
    snprintf(name, room, "%.*s", (int)(close_at - open_at - 1), open_at + 1);
    char state = 'Z';
    sscanf(close_at + 1, " %c %d", &state, &parent);
    return state == 'Z' ? 0 : parent;
}

/* Those of a name below us, children and theirs. */
static int slay(const char *wanted)
{
    int hit = 0;
    DIR *all = opendir("/proc");
    const struct dirent *entry;
    char name[64], ignored[64];

    while (all && (entry = readdir(all))) {
        pid_t pid = atoi(entry->d_name);
        pid_t parent = pid > 1 ? parent_of(pid, name, sizeof name) : 0;
        if (parent && strcmp(name, wanted) == 0 &&
            (parent == host || parent_of(parent, ignored, sizeof ignored) == host))
            hit += kill(pid, SIGKILL) == 0;
    }
    if (all)
        closedir(all);
    return hit;
}

static const char *due; /* to be slain as soon as it is there */

int epoll_wait(int fd, struct epoll_event *events, int room, int timeout)
{
    /* A process that was forked a moment ago has no name of its own yet. */
    for (int tries = 0; due && is_host() && tries < 40; tries++) {
        if (slay(due))
            due = NULL;
        else
            usleep(500);
    }
    return (int)syscall(SYS_epoll_pwait, fd, events, room, timeout, NULL, 0);
}

/* ---- room on the disk ---- */

static int below(const char *path)
{
    const char *under = getenv("FAULT_UNDER");
    size_t len = under ? strlen(under) : 0;

    return len && strncmp(path, under, len) == 0 && (path[len] == '/' || !path[len]);
}

/* Whether this operation is to fail; errno is set then. */
static int fails(const char *path)
{
    const char *text = getenv("FAULT_FAIL");
    char whole[PATH_MAX];

    if (!is_host() || !text)
        return 0;
    if (path[0] != '/') {
        char folder[PATH_MAX / 2];
        if (!getcwd(folder, sizeof folder))
            return 0;
        snprintf(whole, sizeof whole, "%s/%.2000s", folder, path);
        path = whole;
    }
    if (!below(path))
        return 0;
    long at = atol(strchr(text, ':') + 1);
    operations++;
    if (at == 0 || operations < at)
        return 0;
    errno = atoi(text);
    return 1;
}

static int fd_fails(int fd)
{
    char path[PATH_MAX];

    return is_host() && getenv("FAULT_FAIL") && path_of(fd, path, sizeof path) && fails(path);
}

__attribute__((destructor)) static void end(void)
{
    const char *path = getenv("FAULT_COUNT");
    FILE *out = path && is_host() ? fopen(path, "w") : NULL;

    if (out) {
        fprintf(out, "%ld %ld\n", journal_writes, operations);
        fclose(out);
    }
}

ssize_t write(int fd, const void *data, size_t len)
{
    int journal = is_host() && is_journal(fd);

    if (journal && ++journal_writes == setting("FAULT_KILL", "before"))
        kill(host, SIGKILL);
    if (fd_fails(fd)) {
        /* As a disk does it: the last write fits in part. */
        int why = errno;
        if (why == ENOSPC && operations == atol(strchr(getenv("FAULT_FAIL"), ':') + 1) && len > 1)
            return syscall(SYS_write, fd, data, len / 2);
        errno = why;
        return -1;
    }
    ssize_t got = syscall(SYS_write, fd, data, len);
    if (journal && journal_writes == setting("FAULT_KILL", "after"))
        kill(host, SIGKILL);
    static const char *const names[] = {"mlhost-vm", "mlhost-broker"};
    for (int i = 0; journal && i < 2; i++) {
        if (journal_writes == setting("FAULT_SLAY", names[i]))
            due = names[i];
    }
    return got;
}

#define NEXT(name) __typeof__(name) *next = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

int mkdir(const char *path, mode_t mode)
{
    NEXT(mkdir);
    return fails(path) ? -1 : next(path, mode);
}

int rename(const char *from, const char *to)
{
    NEXT(rename);
    return fails(to) ? -1 : next(from, to);
}

int renameat(int a, const char *from, int b, const char *to)
{
    NEXT(renameat);
    return fails(to) ? -1 : next(a, from, b, to);
}

int fsync(int fd)
{
    NEXT(fsync);
    return fd_fails(fd) ? -1 : next(fd);
}

int fdatasync(int fd)
{
    NEXT(fdatasync);
    return fd_fails(fd) ? -1 : next(fd);
}

static int open_it(int dir, const char *path, int flags, mode_t mode)
{
    struct stat status;

    if ((flags & O_CREAT) && fstatat(dir, path, &status, 0) < 0 && fails(path))
        return -1;
    return (int)syscall(SYS_openat, dir, path, flags, mode);
}

#define OPEN(name, before, dir)                                                                    \
    int name(before const char *path, int flags, ...)                                              \
    {                                                                                              \
        va_list args;                                                                              \
        va_start(args, flags);                                                                     \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(args, mode_t) : 0;                    \
        va_end(args);                                                                              \
        return open_it(dir, path, flags, mode);                                                    \
    }
#define NOTHING
#define FOLDER int dir,
OPEN(open, NOTHING, AT_FDCWD)
OPEN(open64, NOTHING, AT_FDCWD)
OPEN(openat, FOLDER, dir)
OPEN(openat64, FOLDER, dir)

/* ---- the wall clock ---- */

static long long skew(void)
{
    unsigned n = atomic_fetch_add(&looks, 1) + (unsigned)getpid() * 2654435761u;

    n = n * 1103515245u + 12345u;
    return (long long)((n >> 8) % 7200) - 3600;
}

int clock_gettime(clockid_t clock, struct timespec *to)
{
    int rc = (int)syscall(SYS_clock_gettime, clock, to);

    if (rc == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) &&
        getenv("FAULT_CLOCK"))
        to->tv_sec += skew();
    return rc;
}

time_t time(time_t *to)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    if (to)
        *to = now.tv_sec;
    return now.tv_sec;
}
