#include "local/seldon_shadow.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "local/seldon_metrics.h"

#define WORKERS   2
#define MAX_ITEMS 256
#define MAX_BYTES ((size_t)32 << 20)

struct copy {
    struct copy *next;
    struct seldon_routes *routes;
    struct seldon_deployment *deployment;
    struct seldon_predictor *predictor;
    struct http_headers headers;
    struct buf body;
};

struct seldon_shadow {
    struct http *http;
    struct cancel cancel;
    pthread_mutex_t lock;
    pthread_cond_t more;
    struct copy *first, **last;
    size_t count, bytes;
    bool over;
    pthread_t workers[WORKERS];
    size_t worker_count;
};

static void copy_free(struct copy *copy)
{
    http_headers_free(&copy->headers);
    buf_free(&copy->body);
    seldon_routes_unref(copy->routes);
    free(copy);
}

static void perform(struct seldon_shadow *shadow, struct copy *copy)
{
    cleanup_message struct seldon_message message = {0};
    struct seldon_call call;
    int64_t started = clock_now();

    seldon_call_init(&call, shadow->http, copy->deployment, copy->predictor);
    call.headers = &copy->headers;
    call.cancel = &shadow->cancel;
    message.body = copy->body;
    copy->body = (struct buf)BUF_INIT;
    (void)seldon_predict(&call, &message); /* nobody waits for the reply; the series have it */
    seldon_metrics_server(copy->deployment, copy->predictor, "predictions", "post", message.status,
                          clock_now() - started);
    seldon_call_end(&call);
}

static void *work(void *ctx)
{
    struct seldon_shadow *shadow = ctx;

    pthread_mutex_lock(&shadow->lock);
    for (;;) {
        struct copy *copy = shadow->first;
        if (shadow->over)
            break;
        if (!copy) {
            pthread_cond_wait(&shadow->more, &shadow->lock);
            continue;
        }
        shadow->first = copy->next;
        if (!shadow->first)
            shadow->last = &shadow->first;
        shadow->count--;
        shadow->bytes -= copy->body.len;
        pthread_mutex_unlock(&shadow->lock);
        perform(shadow, copy);
        copy_free(copy);
        pthread_mutex_lock(&shadow->lock);
    }
    pthread_mutex_unlock(&shadow->lock);
    return NULL;
}

struct seldon_shadow *seldon_shadow_new(struct http *http, struct error *err)
{
    struct seldon_shadow *shadow = mem_alloc(sizeof *shadow);

    shadow->http = http;
    shadow->last = &shadow->first;
    pthread_mutex_init(&shadow->lock, NULL);
    pthread_cond_init(&shadow->more, NULL);
    if (cancel_init(&shadow->cancel) < 0) {
        error_errno(err, errno, "cannot make an eventfd");
        seldon_shadow_free(shadow);
        return NULL;
    }
    for (; shadow->worker_count < WORKERS; shadow->worker_count++) {
        int status = pthread_create(&shadow->workers[shadow->worker_count], NULL, work, shadow);
        if (status) {
            error_errno(err, status, "cannot start a thread");
            seldon_shadow_free(shadow);
            return NULL;
        }
    }
    return shadow;
}

static bool room_for(struct seldon_shadow *shadow, size_t bytes)
{
    return shadow->count < MAX_ITEMS && shadow->bytes + bytes <= MAX_BYTES;
}

static void offer(struct seldon_shadow *shadow, struct seldon_routes *routes,
                  struct seldon_deployment *deployment, struct seldon_predictor *predictor,
                  const struct http_headers *headers, const struct buf *body)
{
    pthread_mutex_lock(&shadow->lock);
    if (!room_for(shadow, body->len)) {
        pthread_mutex_unlock(&shadow->lock);
        seldon_metrics_dropped(deployment, predictor);
        return;
    }
    struct copy *copy = mem_alloc(sizeof *copy);
    copy->routes = seldon_routes_ref(routes);
    copy->deployment = deployment;
    copy->predictor = predictor;
    for (size_t i = 0; i < headers->count; i++)
        http_header_add(&copy->headers, headers->items[i].name, headers->items[i].value);
    buf_append(&copy->body, body->data ? body->data : "", body->len);
    *shadow->last = copy;
    shadow->last = &copy->next;
    shadow->count++;
    shadow->bytes += body->len;
    pthread_cond_signal(&shadow->more);
    pthread_mutex_unlock(&shadow->lock);
}

void seldon_shadow_offer(struct seldon_shadow *shadow, struct seldon_routes *routes,
                         struct seldon_deployment *deployment, const struct http_headers *headers,
                         const struct buf *body)
{
    for (size_t i = 0; i < deployment->predictor_count; i++) {
        struct seldon_predictor *one = &deployment->predictors[i];
        if (!one->shadow || !one->replica_count)
            continue;
        if (split_share(deployment->split, i, one->traffic))
            offer(shadow, routes, deployment, one, headers, body);
    }
}

void seldon_shadow_free(struct seldon_shadow *shadow)
{
    pthread_mutex_lock(&shadow->lock);
    shadow->over = true;
    pthread_cond_broadcast(&shadow->more);
    pthread_mutex_unlock(&shadow->lock);
    cancel_raise(&shadow->cancel);
    for (size_t i = 0; i < shadow->worker_count; i++)
        pthread_join(shadow->workers[i], NULL);
    while (shadow->first) {
        struct copy *copy = shadow->first;
        shadow->first = copy->next;
        copy_free(copy);
    }
    cancel_end(&shadow->cancel);
    pthread_cond_destroy(&shadow->more);
    pthread_mutex_destroy(&shadow->lock);
    free(shadow);
}
