#include "local/seldon_process.h"

#include <pthread.h>
#include <stdlib.h>

#include "base/mem.h"

struct item {
    struct item *next;
    struct value event;
};

struct seldon_queue {
    pthread_mutex_t lock;
    pthread_cond_t more;
    struct item *first, **last;
};

struct seldon_queue *seldon_queue_new(void)
{
    struct seldon_queue *queue = mem_alloc(sizeof *queue);
    pthread_condattr_t monotonic;

    pthread_mutex_init(&queue->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&queue->more, &monotonic);
    pthread_condattr_destroy(&monotonic);
    queue->last = &queue->first;
    return queue;
}

void seldon_queue_free(struct seldon_queue *queue)
{
    while (queue->first) {
        struct item *item = queue->first;
        queue->first = item->next;
        value_free(&item->event);
        free(item);
    }
    pthread_cond_destroy(&queue->more);
    pthread_mutex_destroy(&queue->lock);
    free(queue);
}

void seldon_queue_post(struct seldon_queue *queue, struct value *event)
{
    struct item *item = mem_alloc(sizeof *item);

    value_move(&item->event, event);
    pthread_mutex_lock(&queue->lock);
    *queue->last = item;
    queue->last = &item->next;
    pthread_cond_signal(&queue->more);
    pthread_mutex_unlock(&queue->lock);
}

void seldon_queue_tell(struct seldon_queue *queue, const char *kind, int64_t id)
{
    struct value event = {0};

    value_set_map(&event);
    value_put_string(&event, "t", kind);
    value_put_int(&event, "id", id);
    seldon_queue_post(queue, &event);
}

bool seldon_queue_take(struct seldon_queue *queue, int64_t deadline, struct value *out)
{
    struct timespec at = {.tv_sec = deadline / NS_PER_S, .tv_nsec = deadline % NS_PER_S};
    struct item *item;
    int status = 0;

    pthread_mutex_lock(&queue->lock);
    while (!queue->first && status == 0) {
        if (deadline == DEADLINE_NONE)
            pthread_cond_wait(&queue->more, &queue->lock);
        else
            status = pthread_cond_timedwait(&queue->more, &queue->lock, &at);
    }
    item = queue->first;
    if (item) {
        queue->first = item->next;
        if (!queue->first)
            queue->last = &queue->first;
    }
    pthread_mutex_unlock(&queue->lock);
    if (!item)
        return false;
    value_move(out, &item->event);
    free(item);
    return true;
}
