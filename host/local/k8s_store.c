/*
 * Two locks: `writing` lets one change at a time through, file included; `lock` guards what is in
 * memory and is held for moments only, so that nobody who reads waits for a disk. Only who holds
 * `writing` changes anything, and so may look without `lock`.
 *
 * Stored objects never change: a change puts another one in the place. The log and the table share
 * them by count.
 */
#include "local/k8s_store.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "local/k8s_files.h"
#include "local/k8s_metadata.h"

#define LOG_EVENTS 4096 /* a power of two */
#define RESERVE    1000 /* numbers that one write of the counter's file covers */

struct object {
    unsigned refs; /* under lock */
    char *resource, *namespace, *name;
    struct value value;
};

struct change {
    uint64_t version;
    enum k8s_change change;
    struct object *object, *before;
};

struct k8s_store {
    pthread_mutex_t writing, lock;
    pthread_cond_t changed;
    int root;
    uint64_t version, reserved;
    uint64_t forgotten; /* the log holds all events above this number */
    bool woken;
    struct object **objects; /* by resource, namespace, name */
    size_t count;
    struct change log[LOG_EVENTS];
    size_t log_first, log_count;
    int *listeners;
    size_t listener_count;
};

static struct k8s_store *here;
static pthread_mutex_t here_lock = PTHREAD_MUTEX_INITIALIZER;

/* ---- the table ---- */

static struct object *keep(struct object *object)
{
    if (object)
        object->refs++;
    return object;
}

static void drop(struct object *object)
{
    if (!object || --object->refs)
        return;
    free(object->resource);
    free(object->namespace);
    free(object->name);
    value_free(&object->value);
    free(object);
}

/* A new object with one reference; takes *value. */
static struct object *make(const char *resource, const char *namespace, const char *name,
                           struct value *value)
{
    struct object *object = mem_alloc(sizeof *object);

    object->refs = 1;
    object->resource = mem_strdup(resource);
    object->namespace = mem_strdup(namespace);
    object->name = mem_strdup(name);
    value_move(&object->value, value);
    return object;
}

static int compare(const struct object *object, const char *resource, const char *namespace,
                   const char *name)
{
    int order = strcmp(object->resource, resource);

    if (!order)
        order = strcmp(object->namespace, namespace);
    return order ? order : strcmp(object->name, name);
}

/* The first place at or behind that key. */
static size_t place_of(const struct k8s_store *store, const char *resource, const char *namespace,
                       const char *name)
{
    size_t low = 0, high = store->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (compare(store->objects[middle], resource, namespace, name) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static struct object *find(const struct k8s_store *store, const char *resource,
                           const char *namespace, const char *name)
{
    size_t at = place_of(store, resource, namespace, name);

    if (at < store->count && compare(store->objects[at], resource, namespace, name) == 0)
        return store->objects[at];
    return NULL;
}

/* ---- the log ---- */

static void remember(struct k8s_store *store, enum k8s_change change, struct object *object,
                     struct object *before)
{
    if (store->log_count == LOG_EVENTS) {
        struct change *oldest = &store->log[store->log_first];
        store->forgotten = oldest->version;
        drop(oldest->object);
        drop(oldest->before);
        store->log_first = (store->log_first + 1) % LOG_EVENTS;
        store->log_count--;
    }
    store->log[(store->log_first + store->log_count++) % LOG_EVENTS] =
        (struct change){.version = store->version,
                        .change = change,
                        .object = keep(object),
                        .before = keep(before)};
}

static void tell(struct k8s_store *store)
{
    static const uint64_t one = 1;

    pthread_cond_broadcast(&store->changed);
    for (size_t i = 0; i < store->listener_count; i++) {
        if (write(store->listeners[i], &one, sizeof one) < 0)
            continue; /* EAGAIN: it is readable anyway */
    }
}

/* Puts `next` (NULL: nothing) in the place of `before` (NULL: nothing was there). `gone`: the
 * deleted object as watchers see it. Takes next and gone. */
static void commit(struct k8s_store *store, struct object *next, struct object *before,
                   struct object *gone)
{
    const struct object *key = next ? next : before;

    pthread_mutex_lock(&store->lock);
    size_t at = place_of(store, key->resource, key->namespace, key->name);
    store->version++;
    if (next && !before) {
        store->objects = mem_array(store->objects, store->count + 1, sizeof(struct object *));
        memmove(store->objects + at + 1, store->objects + at,
                (store->count - at) * sizeof(struct object *));
        store->count++;
    }
    if (next) {
        store->objects[at] = next;
        remember(store, before ? K8S_MODIFIED : K8S_ADDED, next, before);
    } else {
        memmove(store->objects + at, store->objects + at + 1,
                (store->count - at - 1) * sizeof(struct object *));
        store->count--;
        remember(store, K8S_DELETED, gone, before);
        drop(gone);
    }
    drop(before);
    tell(store);
    pthread_mutex_unlock(&store->lock);
}

/* Makes sure that the next number may be given out. */
static int reserve(struct k8s_store *store, struct error *err)
{
    if (store->version + 1 <= store->reserved)
        return 0;
    if (k8s_reserve_write(store->root, store->version + RESERVE, err) < 0)
        return -1;
    store->reserved = store->version + RESERVE;
    return 0;
}

/* ---- reading ---- */

int k8s_store_get(struct k8s_store *store, const char *resource, const char *namespace,
                  const char *name, struct value *out)
{
    pthread_mutex_lock(&store->lock);
    struct object *object = keep(find(store, resource, namespace ? namespace : "", name));
    pthread_mutex_unlock(&store->lock);
    if (!object)
        return 0;
    value_free(out);
    value_copy(out, &object->value);
    pthread_mutex_lock(&store->lock);
    drop(object);
    pthread_mutex_unlock(&store->lock);
    return 1;
}

void k8s_store_list(struct k8s_store *store, const char *resource, const char *namespace,
                    struct value *out, uint64_t *version)
{
    value_free(out);
    value_set_array(out);
    pthread_mutex_lock(&store->lock);
    for (size_t at = place_of(store, resource, namespace ? namespace : "", "");
         at < store->count && strcmp(store->objects[at]->resource, resource) == 0 &&
         (!namespace || strcmp(store->objects[at]->namespace, namespace) == 0);
         at++)
        value_copy(value_push(out), &store->objects[at]->value);
    if (version)
        *version = store->version;
    pthread_mutex_unlock(&store->lock);
}

/* ---- writing ---- */

static int put_locked(struct k8s_store *store, const char *resource, const struct value *object,
                      uint64_t expected, struct value *out, struct error *err)
{
    const char *name = value_text(value_path(object, "metadata.name"), "");
    const char *namespace = value_text(value_path(object, "metadata.namespace"), "");
    cleanup_value struct value next = {0};

    if (k8s_check_names(resource, namespace, name, err) < 0)
        return -1;
    struct object *before = find(store, resource, namespace, name);
    if (expected == K8S_ABSENT && before)
        return error_set(err, ERR_EXISTS, "%s \"%s\" already exists", resource, name);
    if (expected && expected != K8S_ABSENT &&
        (!before || k8s_version_of(&before->value) != expected))
        return error_set(err, ERR_CONFLICT, "%s \"%s\" has been modified since", resource, name);
    value_copy(&next, object);
    if (k8s_fill(resource, &next, before ? &before->value : NULL, err) < 0)
        return -1;
    if (before && value_equal(&next, &before->value)) {
        if (out) {
            value_free(out);
            value_move(out, &next);
        }
        return 0;
    }
    cleanup_free char *path = k8s_file_path(resource, namespace, name);
    k8s_put_version(&next, store->version + 1);
    if (reserve(store, err) < 0 || k8s_file_write(store->root, path, &next, err) < 0)
        return error_wrap(err, "%s \"%s\" is not stored", resource, name);
    struct object *made = make(resource, namespace, name, &next);
    if (out) { /* perhaps the caller's own object, in which the names stand */
        value_free(out);
        value_copy(out, &made->value);
    }
    commit(store, made, before, NULL);
    return 0;
}

int k8s_store_put(struct k8s_store *store, const char *resource, const struct value *object,
                  uint64_t expected, struct value *out, struct error *err)
{
    pthread_mutex_lock(&store->writing);
    int status = put_locked(store, resource, object, expected, out, err);
    pthread_mutex_unlock(&store->writing);
    return status;
}

int k8s_store_put_status(struct k8s_store *store, const char *resource, const char *namespace,
                         const char *name, const struct value *status, struct error *err)
{
    cleanup_value struct value next = {0};
    int result;

    pthread_mutex_lock(&store->writing);
    const struct object *before = find(store, resource, namespace ? namespace : "", name);
    if (before) {
        value_copy(&next, &before->value);
        value_copy(value_put(&next, "status"), status);
        result = put_locked(store, resource, &next, 0, NULL, err);
    } else {
        result = error_set(err, ERR_NOT_FOUND, "%s \"%s\" is not there", resource, name);
    }
    pthread_mutex_unlock(&store->writing);
    return result;
}

static int delete_locked(struct k8s_store *store, const char *resource, const char *namespace,
                         const char *name, struct error *err)
{
    cleanup_value struct value last = {0};
    struct object *before = find(store, resource, namespace, name);

    if (!before)
        return 0;
    cleanup_free char *path = k8s_file_path(resource, namespace, name);
    if (reserve(store, err) < 0 || k8s_file_remove(store->root, path, err) < 0)
        return error_wrap(err, "%s \"%s\" is not removed", resource, name);
    value_copy(&last, &before->value);
    k8s_put_version(&last, store->version + 1);
    commit(store, NULL, before, make(resource, namespace, name, &last));
    return 1;
}

int k8s_store_delete(struct k8s_store *store, const char *resource, const char *namespace,
                     const char *name, struct error *err)
{
    pthread_mutex_lock(&store->writing);
    int status = delete_locked(store, resource, namespace ? namespace : "", name, err);
    pthread_mutex_unlock(&store->writing);
    return status;
}

/* ---- waiting and events ---- */

uint64_t k8s_store_version(struct k8s_store *store)
{
    pthread_mutex_lock(&store->lock);
    uint64_t version = store->version;
    pthread_mutex_unlock(&store->lock);
    return version;
}

uint64_t k8s_store_wait(struct k8s_store *store, uint64_t after, int64_t deadline)
{
    struct timespec at = {.tv_sec = deadline / NS_PER_S, .tv_nsec = deadline % NS_PER_S};

    pthread_mutex_lock(&store->lock);
    while (store->version <= after && !store->woken) {
        int why = deadline == DEADLINE_NONE
                      ? pthread_cond_wait(&store->changed, &store->lock)
                      : pthread_cond_timedwait(&store->changed, &store->lock, &at);
        if (why == ETIMEDOUT)
            break;
    }
    uint64_t version = store->version;
    pthread_mutex_unlock(&store->lock);
    return version;
}

void k8s_store_wake(struct k8s_store *store)
{
    pthread_mutex_lock(&store->lock);
    store->woken = true;
    tell(store);
    pthread_mutex_unlock(&store->lock);
}

bool k8s_store_woken(struct k8s_store *store)
{
    pthread_mutex_lock(&store->lock);
    bool woken = store->woken;
    pthread_mutex_unlock(&store->lock);
    return woken;
}

int k8s_store_listen(struct k8s_store *store, struct error *err)
{
    cleanup_close int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

    if (fd < 0)
        return error_errno(err, errno, "cannot make an eventfd");
    pthread_mutex_lock(&store->lock);
    store->listeners =
        mem_array(store->listeners, store->listener_count + 1, sizeof *store->listeners);
    store->listeners[store->listener_count++] = fd;
    if (store->woken)
        tell(store);
    pthread_mutex_unlock(&store->lock);
    return steal_fd(&fd);
}

void k8s_store_unlisten(struct k8s_store *store, int fd)
{
    pthread_mutex_lock(&store->lock);
    for (size_t i = 0; i < store->listener_count; i++) {
        if (store->listeners[i] == fd)
            store->listeners[i--] = store->listeners[--store->listener_count];
    }
    pthread_mutex_unlock(&store->lock);
    close(fd);
}

int k8s_store_events(struct k8s_store *store, uint64_t after, const char *resource,
                     const char *namespace, struct k8s_event *events, size_t room, uint64_t *next)
{
    size_t count = 0;

    pthread_mutex_lock(&store->lock);
    if (after < store->forgotten || after > store->version) {
        pthread_mutex_unlock(&store->lock);
        return -1;
    }
    *next = store->version;
    size_t at = 0;
    for (size_t high = store->log_count; at < high;) { /* the first one above `after` */
        size_t middle = at + (high - at) / 2;
        if (store->log[(store->log_first + middle) % LOG_EVENTS].version <= after)
            at = middle + 1;
        else
            high = middle;
    }
    for (; at < store->log_count; at++) {
        const struct change *change = &store->log[(store->log_first + at) % LOG_EVENTS];
        const struct object *object = change->object;
        if ((resource && strcmp(object->resource, resource) != 0) ||
            (namespace && strcmp(object->namespace, namespace) != 0))
            continue;
        if (count == room) {
            *next = events[count - 1].version;
            break;
        }
        struct k8s_event *event = &events[count++];
        *event = (struct k8s_event){.version = change->version,
                                    .change = change->change,
                                    .resource = mem_strdup(object->resource),
                                    .namespace = mem_strdup(object->namespace),
                                    .name = mem_strdup(object->name)};
        value_copy(&event->object, &object->value);
        if (change->before)
            value_copy(&event->before, &change->before->value);
    }
    pthread_mutex_unlock(&store->lock);
    return (int)count;
}

void k8s_event_free(struct k8s_event *event)
{
    free(event->resource);
    free(event->namespace);
    free(event->name);
    value_free(&event->object);
    value_free(&event->before);
    *event = (struct k8s_event){0};
}

/* ---- open and close ---- */

static int load(void *context, const char *resource, struct value *object, struct error *err)
{
    struct k8s_store *store = context;
    const char *name = value_text(value_path(object, "metadata.name"), "");
    const char *namespace = value_text(value_path(object, "metadata.namespace"), "");

    if (k8s_check_names(resource, namespace, name, err) < 0)
        return -1;
    uint64_t version = k8s_version_of(object);
    if (find(store, resource, namespace, name))
        return error_set(err, ERR_INVALID, "%s \"%s\" is there twice", resource, name);
    if (version > store->version)
        store->version = version;
    size_t at = place_of(store, resource, namespace, name);
    store->objects = mem_array(store->objects, store->count + 1, sizeof(struct object *));
    memmove(store->objects + at + 1, store->objects + at,
            (store->count - at) * sizeof(struct object *));
    store->count++;
    store->objects[at] = make(resource, namespace, name, object);
    return 0;
}

struct k8s_store *k8s_store_open(const char *folder, struct error *err)
{
    struct k8s_store *store = mem_alloc(sizeof *store);
    pthread_condattr_t monotonic;

    pthread_mutex_init(&store->writing, NULL);
    pthread_mutex_init(&store->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&store->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    store->root = -1;
    if (dir_make(folder, err) < 0)
        goto undo;
    store->root = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (store->root < 0 || fchmod(store->root, 0700) < 0) {
        error_errno(err, errno, "cannot open %s", folder);
        goto undo;
    }
    if (k8s_reserve_read(store->root, &store->reserved, err) < 0) {
        error_wrap(err, "%s", folder);
        goto undo;
    }
    store->version = store->reserved;
    if (k8s_files_read(store->root, folder, load, store, err) < 0)
        goto undo;
    /* What happened before is not in the log, so every number from then on is a new one. */
    store->version++;
    if (reserve(store, err) < 0)
        goto undo;
    store->forgotten = store->version;
    return store;
undo:
    k8s_store_close(store);
    return NULL;
}

void k8s_store_close(struct k8s_store *store)
{
    pthread_mutex_lock(&here_lock);
    if (here == store)
        here = NULL;
    pthread_mutex_unlock(&here_lock);
    for (size_t i = 0; i < store->log_count; i++) {
        struct change *change = &store->log[(store->log_first + i) % LOG_EVENTS];
        drop(change->object);
        drop(change->before);
    }
    for (size_t i = 0; i < store->count; i++)
        drop(store->objects[i]);
    free(store->objects);
    free(store->listeners);
    if (store->root >= 0)
        close(store->root);
    pthread_cond_destroy(&store->changed);
    pthread_mutex_destroy(&store->lock);
    pthread_mutex_destroy(&store->writing);
    free(store);
}

struct k8s_store *k8s_store_here(void)
{
    pthread_mutex_lock(&here_lock);
    struct k8s_store *store = here;
    pthread_mutex_unlock(&here_lock);
    return store;
}

void k8s_store_set_here(struct k8s_store *store)
{
    pthread_mutex_lock(&here_lock);
    here = store;
    pthread_mutex_unlock(&here_lock);
}
