/* A flag that ends waiting: every blocking call of the host takes a deadline and one of these (or
 * NULL). */
#ifndef MLHOST_LOOP_CANCEL_H
#define MLHOST_LOOP_CANCEL_H

#include <stdatomic.h>
#include <stdbool.h>

struct cancel {
    atomic_bool raised;
    int fd; /* eventfd, readable once raised; never read, so that every waiter sees it */
};

int cancel_init(struct cancel *cancel);   /* -1 and errno when no eventfd can be had */
void cancel_raise(struct cancel *cancel); /* async-signal-safe, any thread */
void cancel_end(struct cancel *cancel);

static inline bool cancelled(const struct cancel *cancel)
{
    return cancel && atomic_load(&((struct cancel *)cancel)->raised);
}

#endif
