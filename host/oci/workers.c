#include "oci/workers.h"

#include <pthread.h>
#include <stdbool.h>

#define THREADS 6 /* what registries bear without throttling */

struct crew {
    pthread_mutex_t lock; /* guards next, failed, err */
    size_t next, count;
    worker_fn *fn;
    void *ctx;
    bool failed;
    struct error err;
};

static void *work(void *arg)
{
    struct crew *crew = arg;

    pthread_mutex_lock(&crew->lock);
    while (crew->next < crew->count && !crew->failed) {
        size_t index = crew->next++;
        pthread_mutex_unlock(&crew->lock);
        struct error err = {0};
        int status = crew->fn(crew->ctx, index, &err);
        pthread_mutex_lock(&crew->lock);
        if (status != 0 && !crew->failed) {
            crew->failed = true;
            crew->err = err;
        }
    }
    pthread_mutex_unlock(&crew->lock);
    return NULL;
}

int workers_run(size_t count, worker_fn *fn, void *ctx, struct error *err)
{
    struct crew crew = {.count = count, .fn = fn, .ctx = ctx};
    pthread_t threads[THREADS - 1];
    size_t started = 0;

    pthread_mutex_init(&crew.lock, NULL);
    while (started < THREADS - 1 && started + 1 < count &&
           pthread_create(&threads[started], NULL, work, &crew) == 0)
        started++;
    work(&crew); /* the caller works too, so that it goes on without any thread */
    for (size_t i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    pthread_mutex_destroy(&crew.lock);
    if (crew.failed && err)
        *err = crew.err;
    return crew.failed ? -1 : 0;
}
