/*
 * Script memory: a hard budget, beyond which allocations fail and Lua raises "not enough memory".
 *
 * Lua tells the size of what it gives back, so small blocks need no header: they come from chunks,
 * and go to a list for each size when they are free. That is quicker than malloc, which takes its
 * locks in a process that was forked from one with threads. A chunk is never given back: what is
 * charged is the chunks, and the large blocks as they are.
 *
 * With sanitizers every block is malloc's own, so that they see each use of a freed one.
 */
#include <stdlib.h>
#include <string.h>

#include "vm/state.h"

#define CHUNK_FIRST (16u << 10)
#define CHUNK_MOST  (256u << 10)

#ifdef MLHOST_SANITIZED
#define IS_SMALL(size) ((void)(size), false)
#else
#define IS_SMALL(size) ((size) <= BUDGET_SMALL)
#endif

static size_t class_of(size_t size)
{
    return (size - 1) / BUDGET_STEP;
}

static bool charge(struct budget *budget, size_t bytes)
{
    if (budget->held > budget->limit || bytes > budget->limit - budget->held)
        return false;
    budget->held += bytes;
    if (budget->held > budget->peak)
        budget->peak = budget->held;
    return true;
}

static void small_free(struct budget *budget, void *block, size_t size)
{
    memcpy(block, &budget->free[class_of(size)], sizeof(void *));
    budget->free[class_of(size)] = block;
}

static bool new_chunk(struct budget *budget)
{
    size_t size = budget->chunk ? budget->chunk : CHUNK_FIRST;

    if (!charge(budget, size))
        return false;
    char *chunk = malloc(size);
    if (!chunk) {
        budget->held -= size;
        return false;
    }
    if (budget->left) /* less than a small block, and whole steps */
        small_free(budget, budget->at, budget->left);
    budget->at = chunk;
    budget->left = size;
    budget->chunk = size < CHUNK_MOST ? size * 2 : size;
    return true;
}

static void *small_alloc(struct budget *budget, size_t size)
{
    void *block = budget->free[class_of(size)];
    size_t whole = (class_of(size) + 1) * BUDGET_STEP;

    if (block) {
        memcpy(&budget->free[class_of(size)], block, sizeof(void *));
        return block;
    }
    if (budget->left < whole && !new_chunk(budget))
        return NULL;
    block = budget->at;
    budget->at += whole;
    budget->left -= whole;
    return block;
}

static void *get(struct budget *budget, size_t size)
{
    if (IS_SMALL(size))
        return small_alloc(budget, size);
    if (!charge(budget, size))
        return NULL;
    void *block = malloc(size);
    if (!block)
        budget->held -= size;
    return block;
}

static void put(struct budget *budget, void *block, size_t size)
{
    if (IS_SMALL(size)) {
        small_free(budget, block, size);
    } else {
        free(block);
        budget->held -= size;
    }
}

static void *resize_large(struct budget *budget, void *block, size_t old_size, size_t new_size)
{
    if (new_size > old_size && !charge(budget, new_size - old_size))
        return NULL;
    void *moved = realloc(block, new_size);
    if (!moved) {
        if (new_size > old_size)
            budget->held -= new_size - old_size;
        return new_size > old_size ? NULL : block;
    }
    if (new_size < old_size)
        budget->held -= old_size - new_size;
    return moved;
}

static void *move(struct budget *budget, void *block, size_t old_size, size_t new_size)
{
    void *moved = get(budget, new_size);

    /* Lua counts on it that making a block smaller never fails. The large one stays charged, and
     * serves as a small one from now on. */
    if (!moved)
        return new_size < old_size ? block : NULL;
    memcpy(moved, block, old_size < new_size ? old_size : new_size);
    put(budget, block, old_size);
    return moved;
}

void *budget_alloc(void *ctx, void *block, size_t old_size, size_t new_size)
{
    struct budget *budget = ctx;
    void *result;

    if (!block) { /* then old_size is the kind of object */
        if (!new_size)
            return NULL;
        result = get(budget, new_size);
        budget->used += result ? new_size : 0;
        return result;
    }
    if (!new_size) {
        put(budget, block, old_size);
        budget->used -= old_size;
        return NULL;
    }
    if (IS_SMALL(old_size) && IS_SMALL(new_size) && class_of(old_size) == class_of(new_size))
        result = block;
    else if (!IS_SMALL(old_size) && !IS_SMALL(new_size))
        result = resize_large(budget, block, old_size, new_size);
    else
        result = move(budget, block, old_size, new_size);
    if (result)
        budget->used = budget->used - old_size + new_size;
    return result;
}
