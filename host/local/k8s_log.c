/*
 * Pod logs: <container>.log and <container>.previous.log in the folder that the pod's annotation
 * mlhost.io/log-dir names. The writer starts a new file when one is full, so a follower looks for
 * another file under the name whenever something happens in the folder (inotify).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "local/k8s_serve.h"

#define LOG_DIR       "mlhost.io/log-dir"
#define TAIL_WINDOW   (64 * 1024)
#define CHECK_SECONDS 5 /* a follower whose pod has gone */

struct follow {
    struct k8s_store *store;
    char *namespace, *pod, *uid, *path;
    int fd, folder; /* the file; inotify on its folder */
    int connection;
    bool unlimited, follow;
    uint64_t left; /* of limitBytes */
};

static void follow_free(void *context)
{
    struct follow *follow = context;

    if (follow->fd >= 0)
        close(follow->fd);
    if (follow->folder >= 0)
        close(follow->folder);
    free(follow->namespace);
    free(follow->pod);
    free(follow->uid);
    free(follow->path);
    free(follow);
}

/* The same pod is still there, and this is the file that its container writes. */
static bool pod_there(const struct follow *follow)
{
    cleanup_value struct value pod = {0};

    return !k8s_store_woken(follow->store) &&
           k8s_store_get(follow->store, "pods", follow->namespace, follow->pod, &pod) &&
           strcmp(value_text(value_path(&pod, "metadata.uid"), ""), follow->uid) == 0;
}

/* Goes on with the file that has the name now, if that is another one. */
static bool next_file(struct follow *follow)
{
    struct stat old, new;
    cleanup_close int fd = open(follow->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

    if (fd < 0 || fstat(fd, &new) < 0)
        return false;
    if (follow->fd >= 0 && fstat(follow->fd, &old) == 0 && old.st_ino == new.st_ino &&
        old.st_dev == new.st_dev)
        return false;
    if (follow->fd >= 0)
        close(follow->fd);
    follow->fd = steal_fd(&fd);
    return true;
}

/* Waits until the folder has news. False when the log is over. */
static bool wait_for_more(struct follow *follow)
{
    char events[4096];

    if (follow->folder < 0 || !pod_there(follow))
        return false;
    int ready = k8s_wait_readable(follow->folder, follow->connection,
                                  deadline_in(CHECK_SECONDS * NS_PER_S));
    if (ready > 0 && read(follow->folder, events, sizeof events) < 0 && errno != EAGAIN)
        return false;
    return ready >= 0;
}

static ssize_t follow_read(void *context, char *to, size_t max)
{
    struct follow *follow = context;

    if (!follow->unlimited && max > follow->left)
        max = (size_t)follow->left;
    while (max) {
        ssize_t n = follow->fd < 0 ? 0 : read(follow->fd, to, max);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        if (n > 0) {
            follow->left -= follow->unlimited ? 0 : (uint64_t)n;
            return n;
        }
        if (!follow->follow || (!next_file(follow) && !wait_for_more(follow)))
            return 0;
    }
    return 0;
}

/* Where the last `lines` lines begin. */
static off_t tail_start(int fd, off_t size, int64_t lines)
{
    char window[TAIL_WINDOW];
    off_t at = size;
    bool last = true; /* the line break that ends the file begins no line */

    if (lines == 0)
        return size;
    while (at > 0) {
        size_t len = at < (off_t)sizeof window ? (size_t)at : sizeof window;
        at -= (off_t)len;
        if (pread(fd, window, len, at) != (ssize_t)len)
            return 0;
        for (size_t i = len; i-- > 0;) {
            if (window[i] == '\n' && !last && --lines == 0)
                return at + (off_t)i + 1;
            last = false;
        }
    }
    return 0;
}

/* The container that was asked for, or the only one; else *why says which there are. */
static const char *container_of(const struct value *pod, const char *asked, struct buf *why)
{
    const struct value *containers = value_path(pod, "spec.containers");
    size_t count = value_count(containers);

    if (!asked && count == 1)
        return value_get_string(value_at(containers, 0), "name", "");
    for (size_t i = 0; i < count; i++) {
        const char *name = value_get_string(value_at(containers, i), "name", "");
        if (asked && strcmp(name, asked) == 0)
            return name;
        buf_printf(why, "%s%s", why->len ? " " : "", name);
    }
    if (!why->len)
        buf_puts(why, "");
    return NULL;
}

static bool query_number(struct request *rq, const char *name, int64_t *value)
{
    *value = request_query_int(rq, name, -2, INT64_MAX / 2000);
    if (*value != -1)
        return true;
    k8s_answer_status(rq, 400, "BadRequest", "%s is a number of zero or more", name);
    return false;
}

/* Seconds since 1970 from which lines count, or 0. */
static bool query_since(struct request *rq, int64_t *since)
{
    const char *time = request_query(rq, "sinceTime");
    struct tm tm = {0};

    if (!query_number(rq, "sinceSeconds", since))
        return false;
    if (*since >= 0) {
        *since = clock_wall_ms() / 1000 - *since;
    } else if (time && *time) {
        if (!strptime(time, "%Y-%m-%dT%H:%M:%S", &tm)) {
            k8s_answer_status(rq, 400, "BadRequest",
                              "sinceTime is a time like 2026-01-31T12:00:00Z");
            return false;
        }
        *since = (int64_t)timegm(&tm);
    } else {
        *since = 0;
    }
    return true;
}

static void answer_log(struct request *rq, struct k8s_store *store, const struct k8s_path *path,
                       const struct value *pod, const char *file)
{
    int64_t lines, limit, since;
    struct stat st;

    if (!query_number(rq, "tailLines", &lines) || !query_number(rq, "limitBytes", &limit) ||
        !query_since(rq, &since))
        return;
    struct follow *follow = mem_alloc(sizeof *follow);
    *follow = (struct follow){
        .store = store,
        .namespace = mem_strdup(path->namespace),
        .pod = mem_strdup(path->name),
        .uid = mem_strdup(value_text(value_path(pod, "metadata.uid"), "")),
        .path = mem_strdup(file),
        .fd = open(file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW),
        .folder = -1,
        .unlimited = limit < 0,
        .left = limit < 0 ? 0 : (uint64_t)limit,
        .follow = request_query(rq, "follow") && k8s_query_true(rq, "follow") &&
                  !(request_query(rq, "previous") && k8s_query_true(rq, "previous")),
    };
    if (follow->fd >= 0 && fstat(follow->fd, &st) == 0) {
        /* Lines have no time of their own: a log that nobody has written to since has none. */
        off_t start = since && st.st_mtim.tv_sec < since ? st.st_size
                      : lines >= 0                       ? tail_start(follow->fd, st.st_size, lines)
                                                         : 0;
        lseek(follow->fd, start, SEEK_SET);
    }
    if (follow->follow) {
        cleanup_free char *folder = mem_strndup(file, (size_t)(strrchr(file, '/') - file));
        follow->folder = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
        if (follow->folder >= 0 &&
            inotify_add_watch(follow->folder, folder,
                              IN_MODIFY | IN_CREATE | IN_MOVED_TO | IN_DELETE_SELF) < 0) {
            close(follow->folder);
            follow->folder = -1;
        }
        follow->connection = k8s_keep_open(rq);
    }
    answer_stream(rq, 200, "text/plain", follow_read, follow_free, follow);
}

void k8s_log(struct request *rq, struct k8s_store *store, const struct k8s_path *path)
{
    cleanup_value struct value pod = {0};
    cleanup_buf struct buf names = BUF_INIT;
    const char *asked = request_query(rq, "container");
    bool previous = request_query(rq, "previous") && k8s_query_true(rq, "previous");

    if (!k8s_store_get(store, "pods", path->namespace, path->name, &pod)) {
        k8s_answer_status(rq, 404, "NotFound", "pods \"%s\" not found", path->name);
        return;
    }
    const char *container = container_of(&pod, asked && *asked ? asked : NULL, &names);
    if (!container && asked && *asked) {
        k8s_answer_status(rq, 400, "BadRequest", "container %s is not valid for pod %s", asked,
                          path->name);
        return;
    }
    if (!container) {
        k8s_answer_status(rq, 400, "BadRequest",
                          "a container name must be specified for pod %s, choose one of: [%s]",
                          path->name, names.data ? names.data : "");
        return;
    }
    const char *folder = value_get_string(value_path(&pod, "metadata.annotations"), LOG_DIR, NULL);
    cleanup_free char *file =
        mem_printf("%s/%s%s.log", folder ? folder : "", container, previous ? ".previous" : "");
    if (!folder || strchr(container, '/') || (previous && access(file, R_OK) < 0)) {
        k8s_answer_status(rq, 400, "BadRequest",
                          previous ? "previous terminated container \"%s\" in pod \"%s\" not found"
                                   : "container \"%s\" in pod \"%s\" is waiting to start",
                          container, path->name);
        return;
    }
    answer_log(rq, store, path, &pod, file);
}
