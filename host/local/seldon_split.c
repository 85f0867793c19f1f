#include "local/seldon_split.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

struct item {
    char *name;
    int weight, current, share;
};

struct split {
    atomic_int refs;
    pthread_mutex_t lock;
    size_t count;
    struct item *items;
};

static bool same(const struct split *split, const struct split_item *items, size_t count)
{
    if (split->count != count)
        return false;
    for (size_t i = 0; i < count; i++) {
        if (split->items[i].weight != items[i].weight ||
            strcmp(split->items[i].name, items[i].name) != 0)
            return false;
    }
    return true;
}

static void inherit(struct item *item, struct split *before)
{
    for (size_t i = 0; i < before->count; i++) {
        if (strcmp(before->items[i].name, item->name) == 0)
            item->share = before->items[i].share;
    }
}

struct split *split_new(const struct split_item *items, size_t count, struct split *before)
{
    if (before && same(before, items, count)) {
        atomic_fetch_add(&before->refs, 1);
        return before;
    }
    struct split *split = mem_alloc(sizeof *split);
    atomic_init(&split->refs, 1);
    pthread_mutex_init(&split->lock, NULL);
    split->count = count;
    split->items = mem_alloc((count + 1) * sizeof *split->items);
    if (before)
        pthread_mutex_lock(&before->lock);
    for (size_t i = 0; i < count; i++) {
        split->items[i] =
            (struct item){.name = mem_strdup(items[i].name), .weight = items[i].weight};
        if (before)
            inherit(&split->items[i], before);
    }
    if (before)
        pthread_mutex_unlock(&before->lock);
    return split;
}

void split_unref(struct split *split)
{
    if (!split || atomic_fetch_sub(&split->refs, 1) > 1)
        return;
    for (size_t i = 0; i < split->count; i++)
        free(split->items[i].name);
    free(split->items);
    pthread_mutex_destroy(&split->lock);
    free(split);
}

int split_next(struct split *split)
{
    int total = 0, best = -1;

    pthread_mutex_lock(&split->lock);
    for (size_t i = 0; i < split->count; i++) {
        struct item *item = &split->items[i];
        if (item->weight <= 0)
            continue;
        item->current += item->weight;
        total += item->weight;
        if (best < 0 || item->current > split->items[best].current)
            best = (int)i;
    }
    if (best >= 0)
        split->items[best].current -= total;
    pthread_mutex_unlock(&split->lock);
    return best;
}

bool split_share(struct split *split, size_t index, int percent)
{
    bool taken;

    pthread_mutex_lock(&split->lock);
    struct item *item = &split->items[index];
    item->share += percent;
    taken = item->share >= 100;
    if (taken)
        item->share -= 100;
    pthread_mutex_unlock(&split->lock);
    return taken;
}
