#include "oci/unpack_pull.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "oci/manifest.h"

#define GLANCE_NS (100 * NS_PER_MS)     /* so often a wait looks for a cancel */
#define MORSEL    (UINT64_C(256) << 10) /* less is not worth waking up for */

/* A blob that comes, or has come. */
struct coming {
    struct coming *next;
    struct unpack_pull *unpack;
    char *digest;
    int fd;              /* -1: in the store */
    uint64_t size, told; /* bytes that are there; those at which the reader was woken */
    bool ended, there;
};

struct unpack_pull {
    struct store *store;
    const char *target;
    const struct unpack_options *options;
    struct pull_watcher watcher;
    struct value manifest;
    pthread_t thread;
    bool started;

    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t changed;
    struct coming *list;
    bool abandoned; /* by the pull: nothing more comes */
    int status;
    struct error err;

    /* The thread's: what it reads. */
    struct coming *reading;
    int fd;
    uint64_t at;
};

static int did_not_come(struct error *err)
{
    return error_set(err, ERR_UNAVAILABLE, "the layer did not come");
}

/* With the lock. -1: it is over, with a reason. */
static int wait_change(struct unpack_pull *unpack, struct error *err)
{
    struct timespec until;

    if (unpack->abandoned)
        return did_not_come(err);
    if (cancelled(unpack->options->cancel))
        return error_set(err, ERR_CANCELLED, "unpacking was cancelled");
    if (unpack->options->deadline && deadline_passed(unpack->options->deadline))
        return error_set(err, ERR_TIMEOUT, "unpacking took too long");
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += GLANCE_NS;
    if (until.tv_nsec >= NS_PER_S) {
        until.tv_nsec -= NS_PER_S;
        until.tv_sec++;
    }
    pthread_cond_timedwait(&unpack->changed, &unpack->lock, &until);
    return 0;
}

static struct coming *find(struct unpack_pull *unpack, const char *digest)
{
    for (struct coming *at = unpack->list; at; at = at->next)
        if (strcmp(at->digest, digest) == 0)
            return at;
    return NULL;
}

/* Waits until a blob has begun to come, or, `whole`, has come. */
static struct coming *await(struct unpack_pull *unpack, const char *digest, bool whole,
                            struct error *err)
{
    struct coming *found;
    int status = 0;

    pthread_mutex_lock(&unpack->lock);
    while ((!(found = find(unpack, digest)) || (whole && !found->ended)) && status == 0)
        status = wait_change(unpack, err);
    if (status == 0 && found->ended && !found->there)
        status = did_not_come(err);
    pthread_mutex_unlock(&unpack->lock);
    return status == 0 ? found : NULL;
}

/* ---- reading what comes ---- */

static ssize_t read_coming(void *ctx, void *to, size_t len, struct error *err)
{
    struct unpack_pull *unpack = ctx;
    struct coming *coming = unpack->reading;
    int status = 0;

    pthread_mutex_lock(&unpack->lock);
    while (coming->size - unpack->at < MORSEL && !coming->ended && status == 0)
        status = wait_change(unpack, err);
    uint64_t size = coming->size;
    /* The end is one only when the digest was right. */
    if (status == 0 && size == unpack->at && !coming->there)
        status = did_not_come(err);
    pthread_mutex_unlock(&unpack->lock);
    if (status != 0)
        return -1;
    uint64_t left = size - unpack->at;
    ssize_t n;
    do
        n = pread(unpack->fd, to, left < len ? (size_t)left : len, (off_t)unpack->at);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return error_errno(err, errno, "cannot read the layer");
    unpack->at += (uint64_t)n;
    return n;
}

static struct inflater *coming_layer(void *ctx, const char *digest, bool whole, struct error *err)
{
    struct unpack_pull *unpack = ctx;
    struct coming *coming = await(unpack, digest, false, err);

    if (unpack->fd >= 0)
        close(unpack->fd);
    unpack->fd = -1;
    if (!coming)
        return NULL;
    if (coming->fd < 0) {
        unpack->fd = store_blob_open(unpack->store, digest, NULL, err);
        return unpack->fd < 0 ? NULL : inflater_new(unpack->fd, whole);
    }
    unpack->fd = fcntl(coming->fd, F_DUPFD_CLOEXEC, 0);
    if (unpack->fd < 0) {
        error_errno(err, errno, "cannot read the layer");
        return NULL;
    }
    unpack->reading = coming;
    unpack->at = 0;
    return inflater_new_from(read_coming, unpack, whole);
}

static int unpack_all(struct unpack_pull *unpack, struct error *err)
{
    cleanup_value struct value config = {0};
    const char *digest = value_get_string(value_get(&unpack->manifest, "config"), "digest", "");

    if (!await(unpack, digest, true, err) ||
        oci_config_load(unpack->store, &unpack->manifest, &config, err) != 0)
        return -1;
    return oci_unpack_from(coming_layer, unpack, &unpack->manifest, &config, unpack->target,
                           unpack->options, err);
}

static void *unpack_thread(void *arg)
{
    struct unpack_pull *unpack = arg;
    struct error err = {0};
    int status = unpack_all(unpack, &err);

    pthread_mutex_lock(&unpack->lock);
    unpack->status = status;
    unpack->err = err;
    pthread_mutex_unlock(&unpack->lock);
    return NULL;
}

/* ---- the watcher ---- */

static void on_manifest(void *ctx, const struct value *manifest)
{
    struct unpack_pull *unpack = ctx;

    if (unpack->started)
        return;
    value_copy(&unpack->manifest, manifest);
    unpack->started = pthread_create(&unpack->thread, NULL, unpack_thread, unpack) == 0;
}

/* With the lock. */
static struct coming *add(struct unpack_pull *unpack, const char *digest, int fd)
{
    struct coming *coming = mem_alloc(sizeof *coming);

    coming->unpack = unpack;
    coming->digest = mem_strdup(digest);
    coming->fd = fd;
    coming->next = unpack->list;
    unpack->list = coming;
    return coming;
}

static void *on_begun(void *ctx, const char *digest, int fd)
{
    struct unpack_pull *unpack = ctx;
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);

    if (copy < 0)
        return NULL; /* it is read from the store, later */
    pthread_mutex_lock(&unpack->lock);
    struct coming *coming = add(unpack, digest, copy);
    pthread_cond_broadcast(&unpack->changed);
    pthread_mutex_unlock(&unpack->lock);
    return coming;
}

static void on_grown(void *watch, uint64_t size)
{
    struct coming *coming = watch;

    if (!coming)
        return;
    pthread_mutex_lock(&coming->unpack->lock);
    coming->size = size;
    if (size - coming->told >= MORSEL) {
        coming->told = size;
        pthread_cond_broadcast(&coming->unpack->changed);
    }
    pthread_mutex_unlock(&coming->unpack->lock);
}

static void on_ended(void *ctx, const char *digest, bool there)
{
    struct unpack_pull *unpack = ctx;

    pthread_mutex_lock(&unpack->lock);
    struct coming *coming = find(unpack, digest);
    if (!coming)
        coming = add(unpack, digest, -1);
    coming->ended = true;
    coming->there = there;
    pthread_cond_broadcast(&unpack->changed);
    pthread_mutex_unlock(&unpack->lock);
}

/* ---- the caller's side ---- */

struct unpack_pull *unpack_pull_new(struct store *store, const char *target,
                                    const struct unpack_options *options)
{
    struct unpack_pull *unpack = mem_alloc(sizeof *unpack);
    pthread_condattr_t attributes;

    unpack->store = store;
    unpack->target = target;
    unpack->options = options;
    unpack->fd = -1;
    unpack->watcher = (struct pull_watcher){on_manifest, on_begun, on_grown, on_ended, unpack};
    pthread_mutex_init(&unpack->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&unpack->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    return unpack;
}

const struct pull_watcher *unpack_pull_watcher(struct unpack_pull *unpack)
{
    return &unpack->watcher;
}

int unpack_pull_wait(struct unpack_pull *unpack, bool pulled, struct error *err)
{
    if (!unpack->started)
        return 0;
    if (!pulled) {
        pthread_mutex_lock(&unpack->lock);
        unpack->abandoned = true;
        pthread_cond_broadcast(&unpack->changed);
        pthread_mutex_unlock(&unpack->lock);
    }
    pthread_join(unpack->thread, NULL);
    if (!pulled) {
        if (unpack->status == 0)
            dir_remove(unpack->target, NULL);
        return 0;
    }
    if (unpack->status == 0)
        return 1;
    if (err)
        *err = unpack->err;
    return -1;
}

void unpack_pull_free(struct unpack_pull *unpack)
{
    if (!unpack)
        return;
    while (unpack->list) {
        struct coming *next = unpack->list->next;
        if (unpack->list->fd >= 0)
            close(unpack->list->fd);
        free(unpack->list->digest);
        free(unpack->list);
        unpack->list = next;
    }
    if (unpack->fd >= 0)
        close(unpack->fd);
    value_free(&unpack->manifest);
    pthread_cond_destroy(&unpack->changed);
    pthread_mutex_destroy(&unpack->lock);
    free(unpack);
}
