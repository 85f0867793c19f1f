/*
 * Shares of a sequence of requests, exactly as declared: smooth weighted round robin, so that of
 * any 100 requests in a row a weight of 10 % gets 10, spread evenly.
 */
#ifndef MLHOST_LOCAL_SELDON_SPLIT_H
#define MLHOST_LOCAL_SELDON_SPLIT_H

#include <stdbool.h>
#include <stddef.h>

struct split; /* counted; any thread */

struct split_item {
    const char *name;
    int weight; /* 0: gets none */
};
/* `before` (may be NULL): with the same items it is returned itself, so that the sequence goes on;
 * with others a new sequence begins (shadows that stay keep theirs). */
struct split *split_new(const struct split_item *items, size_t count, struct split *before);
void split_unref(struct split *split); /* NULL is allowed */
/* The next one's index, or -1 when all weights are 0. */
int split_next(struct split *split);
/* Is the next one of item `index`'s own sequence among `percent` of 100? For shadows. */
bool split_share(struct split *split, size_t index, int percent);

#endif
