/*
 * Watches: a JSON object per line, {"type", "object"}, read from the store's log. A watcher has a
 * thread of its own (the connection's), which waits in poll(2) for the store, for its client to go,
 * and for its deadline.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include <microhttpd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "local/k8s_selector.h"
#include "local/k8s_serve.h"
#include "local/k8s_table.h"

#define WATCH_SECONDS                                                                              \
    1800 /* without timeoutSeconds: as much again at random, as in kube-apiserver */
#define BOOKMARK_SECONDS 60
#define BATCH            64

struct watch {
    struct k8s_store *store;
    const struct k8s_resource *resource;
    struct k8s_selector *selector;
    char *namespace; /* NULL: all */
    char *name;      /* NULL: all */
    uint64_t at;     /* events up to this number were sent */
    int64_t deadline, bookmark_at;
    bool bookmarks, ended, table;
    enum k8s_rows rows;
    int changes, connection;
    struct buf out;
    size_t sent;
};

static void watch_free(void *context)
{
    struct watch *watch = context;

    if (watch->changes >= 0)
        k8s_store_unlisten(watch->store, watch->changes);
    k8s_selector_free(watch->selector);
    free(watch->namespace);
    free(watch->name);
    buf_free(&watch->out);
    free(watch);
}

static void say(struct watch *watch, const char *type, const struct value *object)
{
    buf_printf(&watch->out, "{\"type\":\"%s\",\"object\":", type);
    value_to_json(object, 0, &watch->out);
    buf_puts(&watch->out, "}\n");
}

static void say_object(struct watch *watch, const char *type, const struct value *object)
{
    cleanup_value struct value table = {0};

    if (watch->table)
        k8s_table(watch->resource, object, NULL, watch->rows, &table);
    say(watch, type, watch->table ? &table : object);
}

/* `initial`: the one that ends the list of what was there. */
static void bookmark(struct watch *watch, bool initial)
{
    cleanup_value struct value object = {0};
    char version[160];

    k8s_api_version(watch->resource, version, sizeof version);
    value_set_map(&object);
    value_put_string(&object, "kind", watch->resource->kind);
    value_put_string(&object, "apiVersion", version);
    struct value *metadata = value_put(&object, "metadata");
    value_set_map(metadata);
    value_set_printf(value_put(metadata, "resourceVersion"), "%" PRIu64, watch->at);
    value_set_nil(value_put(metadata, "creationTimestamp"));
    if (initial) {
        struct value *annotations = value_put(metadata, "annotations");
        value_set_map(annotations);
        value_put_string(annotations, "k8s.io/initial-events-end", "true");
    }
    say(watch, "BOOKMARK", &object);
    watch->bookmark_at = deadline_in(BOOKMARK_SECONDS * NS_PER_S);
}

static bool wanted(const struct watch *watch, const struct value *object)
{
    return object->kind == VALUE_MAP &&
           (!watch->name ||
            strcmp(watch->name, value_text(value_path(object, "metadata.name"), "")) == 0) &&
           k8s_selector_matches(watch->selector, object);
}

/* An object that no longer fits the selector is gone for this watcher, one that now fits is new. */
static void tell(struct watch *watch, struct k8s_event *event)
{
    bool now = event->change != K8S_DELETED && wanted(watch, &event->object);
    bool before = wanted(watch, &event->before);

    if (now)
        say_object(watch, before ? "MODIFIED" : "ADDED", &event->object);
    else if (before)
        say_object(watch, "DELETED", &event->object);
}

static void gone(struct watch *watch)
{
    cleanup_value struct value status = {0};

    k8s_status(&status, 410, "Expired", "too old resource version: %" PRIu64 " (%" PRIu64 ")",
               watch->at, k8s_store_version(watch->store));
    say(watch, "ERROR", &status);
    watch->ended = true;
}

static void take_events(struct watch *watch)
{
    struct k8s_event events[BATCH];
    uint64_t next;
    int count = k8s_store_events(watch->store, watch->at, watch->resource->store, watch->namespace,
                                 events, BATCH, &next);

    if (count < 0) {
        gone(watch);
        return;
    }
    for (int i = 0; i < count; i++) {
        tell(watch, &events[i]);
        k8s_event_free(&events[i]);
    }
    watch->at = next;
}

int k8s_wait_readable(int fd, int connection, int64_t deadline)
{
    struct pollfd fds[2] = {{.fd = fd, .events = POLLIN}, {.fd = connection, .events = POLLRDHUP}};

    for (;;) {
        int ready = poll(fds, 2, deadline_poll_ms(deadline));
        if (ready < 0 && errno == EINTR)
            continue;
        if (ready < 0 || fds[1].revents)
            return -1;
        return ready > 0;
    }
}

/* Until there is something to send, or the watch is over. */
static void fill(struct watch *watch)
{
    while (!watch->ended && !watch->out.len) {
        uint64_t count;
        if (read(watch->changes, &count, sizeof count) < 0 && errno != EAGAIN)
            watch->ended = true;
        take_events(watch);
        if (watch->out.len || watch->ended)
            return;
        if (deadline_passed(watch->deadline) || k8s_store_woken(watch->store)) {
            if (watch->bookmarks)
                bookmark(watch, false);
            watch->ended = true;
        } else if (watch->bookmarks && deadline_passed(watch->bookmark_at)) {
            bookmark(watch, false);
        } else if (k8s_wait_readable(watch->changes, watch->connection,
                                     watch->bookmarks
                                         ? deadline_min(watch->deadline, watch->bookmark_at)
                                         : watch->deadline) < 0) {
            watch->ended = true;
        }
    }
}

static ssize_t watch_read(void *context, char *to, size_t max)
{
    struct watch *watch = context;

    if (watch->sent == watch->out.len) {
        buf_clear(&watch->out);
        watch->sent = 0;
        fill(watch);
    }
    size_t len = watch->out.len - watch->sent;
    if (len > max)
        len = max;
    if (len)
        memcpy(to, watch->out.data + watch->sent, len);
    watch->sent += len;
    return (ssize_t)len;
}

/* What is there now, as ADDED events. */
static void list_first(struct watch *watch)
{
    cleanup_value struct value objects = {0};

    k8s_store_list(watch->store, watch->resource->store, watch->namespace, &objects, &watch->at);
    for (size_t i = 0; i < value_count(&objects); i++) {
        const struct value *object = value_at(&objects, i);
        if (wanted(watch, object))
            say_object(watch, "ADDED", object);
    }
}

int k8s_keep_open(struct request *rq)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(rq->connection, MHD_CONNECTION_INFO_CONNECTION_FD);

    MHD_set_connection_option(rq->connection, MHD_CONNECTION_OPTION_TIMEOUT, 0u);
    return info ? info->connect_fd : -1;
}

static int64_t watch_seconds(int64_t asked)
{
    uint16_t random = 0;

    if (asked > 0)
        return asked;
    if (getrandom(&random, sizeof random, 0) != (ssize_t)sizeof random)
        random = 0;
    return WATCH_SECONDS + random % WATCH_SECONDS;
}

void k8s_watch(struct request *rq, struct k8s_store *store, const struct k8s_path *path)
{
    const char *from = request_query(rq, "resourceVersion");
    int64_t seconds = request_query_int(rq, "timeoutSeconds", 0, 1000000);
    bool initial =
        request_query(rq, "sendInitialEvents") != NULL && k8s_query_true(rq, "sendInitialEvents");
    const char *accept = request_header(rq, "Accept");
    struct error err = {0};
    char *end = NULL;

    errno = 0;
    uint64_t version = from && *from ? strtoull(from, &end, 10) : 0;
    if (errno || (end && *end) || (from && *from == '-')) {
        k8s_answer_status(rq, 400, "BadRequest", "invalid resource version '%.60s'", from);
        return;
    }
    if (seconds < 0) {
        k8s_answer_status(rq, 400, "BadRequest", "timeoutSeconds is a number of seconds");
        return;
    }
    struct k8s_selector *selector =
        k8s_selector_parse(path->resource, request_query(rq, "labelSelector"),
                           request_query(rq, "fieldSelector"), &err);
    if (!selector) {
        k8s_answer_status(rq, 400, "BadRequest", "%s", err.message);
        return;
    }
    struct watch *watch = mem_alloc(sizeof *watch);
    *watch = (struct watch){
        .store = store,
        .resource = path->resource,
        .selector = selector,
        .namespace = *path->namespace ? mem_strdup(path->namespace) : NULL,
        .name = *path->name ? mem_strdup(path->name) : NULL,
        .at = version,
        .deadline = deadline_in(watch_seconds(seconds) * NS_PER_S),
        .bookmark_at = deadline_in(BOOKMARK_SECONDS * NS_PER_S),
        .bookmarks =
            request_query(rq, "allowWatchBookmarks") && k8s_query_true(rq, "allowWatchBookmarks"),
        .table = accept && strstr(accept, "as=Table"),
        .rows = k8s_rows_of(request_query(rq, "includeObject")),
        .changes = k8s_store_listen(store, &err),
    };
    if (watch->changes < 0) {
        k8s_answer_status(rq, 500, "InternalError", "%s", err.message);
        watch_free(watch);
        return;
    }
    if (!version || initial)
        list_first(watch);
    if (initial && watch->bookmarks)
        bookmark(watch, true);
    watch->connection = k8s_keep_open(rq);
    answer_stream(rq, 200, "application/json", watch_read, watch_free, watch);
}
