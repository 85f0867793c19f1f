/*
 * A watch: one long reply whose lines are events. A thread of its own keeps the request; lines
 * become values there, in a queue that the script empties. A queue that is not emptied ends the
 * watch: the script starts again from the last version that it has seen.
 */
#include "service/k8s_config.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/mem.h"
#include "loop/cancel.h"

#define TYPE        "k8s_watch"
#define LINE_LIMIT  (8u << 20)
#define QUEUE_BYTES (32u << 20)
#define AT_ONCE     256
#define STALL_MS    400000 /* longer than the server lets a watch last */

struct item {
    struct item *next;
    struct value event;
    size_t size;
};

struct watch {
    struct call call; /* the opening one's, with a cancel of its own and no deadline */
    struct rest_client *client;
    char *path;
    struct cancel cancel;
    pthread_t thread;
    pthread_mutex_t lock;
    int ready; /* eventfd: something was queued, or the watch has ended */
    struct item *first, **last;
    size_t queued;
    struct buf line; /* the thread's */
    bool ended;
    bool closed;   /* nothing is given out any more */
    bool released; /* thread, descriptors and queue are gone */
    int users;     /* calls of watch_next */
    struct error failure;
};

static int fail(struct watch *watch, enum error_code code, const char *text)
{
    pthread_mutex_lock(&watch->lock);
    error_set(&watch->failure, code, "%s", text);
    pthread_mutex_unlock(&watch->lock);
    return -1;
}

static int queue_line(struct watch *watch, const char *text, size_t len)
{
    struct item *item = mem_alloc(sizeof *item);
    struct error err = {0};
    int rc = 0;

    if (value_from_json(text, len, "a watch", NULL, &item->event, &err) < 0) {
        free(item);
        return fail(watch, err.code, err.message);
    }
    k8s_drop_nulls(&item->event);
    item->size = len;
    pthread_mutex_lock(&watch->lock);
    if (watch->queued + len > QUEUE_BYTES) {
        error_set(&watch->failure, ERR_TOO_LARGE, "events come quicker than the script takes them");
        value_free(&item->event);
        free(item);
        rc = -1;
    } else {
        watch->queued += len;
        *watch->last = item;
        watch->last = &item->next;
    }
    pthread_mutex_unlock(&watch->lock);
    (void)eventfd_write(watch->ready, 1);
    return rc;
}

static int on_bytes(void *ctx, const char *data, size_t len)
{
    struct watch *watch = ctx;
    size_t at = 0;

    buf_append(&watch->line, data, len);
    for (;;) {
        const char *end = memchr(watch->line.data + at, '\n', watch->line.len - at);
        if (!end)
            break;
        size_t line = (size_t)(end - watch->line.data) - at;
        if (line && queue_line(watch, watch->line.data + at, line) < 0)
            return -1;
        at += line + 1;
    }
    buf_consume(&watch->line, at);
    if (watch->line.len <= LINE_LIMIT)
        return 0;
    return fail(watch, ERR_TOO_LARGE, "an event is larger than 8 MiB");
}

static void *run(void *ctx)
{
    struct watch *watch = ctx;
    struct http_request request = HTTP_REQUEST_INIT;
    cleanup_response struct http_response response = {0};
    struct error err = {0};

    request.url = watch->path;
    request.sink = on_bytes;
    request.sink_ctx = watch;
    request.repeat = HTTP_REPEAT_NEVER;
    request.stall_ms = STALL_MS;
    http_header_add(&request.headers, "Accept", "application/json");
    int rc = rest_send(&watch->call, watch->client, &request, &response, &err);
    http_headers_free(&request.headers);
    pthread_mutex_lock(&watch->lock);
    if (rc < 0 && watch->failure.code == ERR_NONE)
        watch->failure = err;
    watch->ended = true;
    pthread_mutex_unlock(&watch->lock);
    (void)eventfd_write(watch->ready, 1);
    return NULL;
}

/* A script may open watches by the hundred, and a handle stays until the stage ends: what a watch
 * costs goes when it is closed. The cancel has been raised. */
static void release(struct watch *watch)
{
    pthread_join(watch->thread, NULL);
    while (watch->first) {
        struct item *item = watch->first;
        watch->first = item->next;
        value_free(&item->event);
        free(item);
    }
    buf_free(&watch->line);
    cancel_end(&watch->cancel);
    close(watch->ready);
}

static bool enter(struct watch *watch)
{
    pthread_mutex_lock(&watch->lock);
    bool open = !watch->closed;
    watch->users += open;
    pthread_mutex_unlock(&watch->lock);
    return open;
}

/* The last one out releases: with the lock held, true once. */
static bool last_out(struct watch *watch)
{
    bool last = watch->closed && !watch->users && !watch->released;

    watch->released |= last;
    return last;
}

static void leave(struct watch *watch)
{
    pthread_mutex_lock(&watch->lock);
    watch->users--;
    bool last = last_out(watch);
    pthread_mutex_unlock(&watch->lock);
    if (last)
        release(watch);
}

static void end(struct watch *watch)
{
    pthread_mutex_lock(&watch->lock);
    if (!watch->closed)
        cancel_raise(&watch->cancel);
    watch->closed = true;
    bool last = last_out(watch);
    pthread_mutex_unlock(&watch->lock);
    if (last)
        release(watch);
}

static void drop(void *object)
{
    struct watch *watch = object;

    end(watch);
    pthread_mutex_destroy(&watch->lock);
    free(watch->path);
    free(watch);
}

/*
 * k8s.watch_open(client, path) -> { watch }
 *
 *   path  string  "/api/v1/pods?watch=1&resourceVersion=42&allowWatchBookmarks=true"
 * errors  nothing is sent yet: watch_next tells how it went
 */
int prim_k8s_watch_open(struct call *call, const struct value *args, struct value *out,
                        struct error *err)
{
    struct rest_client *client = rest_client_arg(call, args, err);
    struct watch *watch = client ? mem_alloc(sizeof *watch) : NULL;

    if (!watch)
        return -1;
    watch->ready = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (watch->ready < 0 || cancel_init(&watch->cancel) < 0) {
        error_errno(err, errno, "eventfd");
        if (watch->ready >= 0)
            close(watch->ready);
        free(watch);
        return -1;
    }
    watch->call = *call;
    watch->call.cancel = &watch->cancel;
    watch->call.deadline = DEADLINE_NONE;
    watch->client = client;
    watch->path = mem_strdup(value_get_string(args, "path", ""));
    watch->last = &watch->first;
    pthread_mutex_init(&watch->lock, NULL);
    int rc = pthread_create(&watch->thread, NULL, run, watch);
    if (rc != 0) {
        cancel_end(&watch->cancel);
        close(watch->ready);
        watch->closed = watch->released = true;
        drop(watch);
        return error_errno(err, rc, "a thread for the watch");
    }
    value_set_map(out);
    call_handle_new(call, TYPE, watch, drop, value_put(out, "watch"));
    return 0;
}

static int take(struct watch *watch, struct value *out, struct error *err)
{
    struct value *events = value_put(out, "events");
    size_t count = 0;

    value_set_array(events);
    pthread_mutex_lock(&watch->lock);
    while (watch->first && count++ < AT_ONCE) {
        struct item *item = watch->first;
        watch->first = item->next;
        if (!watch->first)
            watch->last = &watch->first;
        watch->queued -= item->size;
        value_move(value_push(events), &item->event);
        free(item);
    }
    bool over = watch->ended && !watch->first;
    struct error failure = watch->failure;
    pthread_mutex_unlock(&watch->lock);
    if (over && failure.code != ERR_NONE && count == 0) {
        *err = failure;
        return -1;
    }
    value_put_bool(out, "ended", over && failure.code == ERR_NONE);
    return count || over ? 1 : 0;
}

/* Fills events and ended as soon as there is something to tell, at the latest at `until`. */
static int await(struct call *call, struct watch *watch, int64_t until, struct value *out,
                 struct error *err)
{
    for (;;) {
        eventfd_t ignored;
        (void)eventfd_read(watch->ready, &ignored);
        int taken = take(watch, out, err);
        if (taken < 0)
            return error_wrap(err, "watch");
        if (taken > 0)
            return 0;
        if (cancelled(call->cancel))
            return error_set(err, ERR_CANCELLED, "cancelled while watching");
        if (deadline_passed(until))
            return 0;
        struct pollfd fds[] = {{.fd = watch->ready, .events = POLLIN},
                               {.fd = call->cancel->fd, .events = POLLIN}};
        if (poll(fds, 2, deadline_poll_ms(until)) < 0 && errno != EINTR)
            return error_errno(err, errno, "watching");
    }
}

/*
 * k8s.watch_next(watch, wait) -> { events, ended }
 *
 *   wait  duration  for the first event; none in that time is no error
 * returns  ended: the server has ended the watch, and all its events were given
 * errors   what the request came to: forbidden, invalid, unavailable ...
 */
int prim_k8s_watch_next(struct call *call, const struct value *args, struct value *out,
                        struct error *err)
{
    struct watch *watch = call_handle(call, value_get(args, "watch"), TYPE, err);
    const struct value *wait = value_get(args, "wait");
    int64_t ns = 0;

    if (!watch)
        return -1;
    if (wait->kind == VALUE_STRING && duration_parse(wait->as.string.data, &ns, err) < 0)
        return error_wrap(err, "k8s.watch_next");
    if (wait->kind != VALUE_STRING)
        ns = (int64_t)((wait->kind == VALUE_INT ? (double)wait->as.integer : wait->as.real) *
                       (double)NS_PER_S);
    value_set_map(out);
    if (!enter(watch)) {
        value_set_array(value_put(out, "events"));
        value_put_bool(out, "ended", true);
        return 0;
    }
    int rc = await(call, watch, deadline_min(deadline_in(ns), call->deadline), out, err);
    leave(watch);
    return rc;
}

/* k8s.watch_close(watch): ends the request; the handle stays, and says that it has ended. */
int prim_k8s_watch_close(struct call *call, const struct value *args, struct value *out,
                         struct error *err)
{
    struct watch *watch = call_handle(call, value_get(args, "watch"), TYPE, err);

    if (!watch)
        return -1;
    end(watch);
    value_set_map(out);
    return 0;
}
