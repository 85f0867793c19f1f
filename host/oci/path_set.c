#include "oci/path_set.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

static size_t slot_of(const struct path_set *set, const char *path)
{
    uint64_t hash = UINT64_C(14695981039346656037); /* FNV-1a */

    for (const char *at = path; *at; at++)
        hash = (hash ^ (unsigned char)*at) * UINT64_C(1099511628211);
    size_t slot = (size_t)hash & (set->room - 1);
    while (set->slots[slot] && strcmp(set->slots[slot], path) != 0)
        slot = (slot + 1) & (set->room - 1);
    return slot;
}

bool path_set_has(const struct path_set *set, const char *path)
{
    return set->room && set->slots[slot_of(set, path)];
}

static void grow(struct path_set *set)
{
    struct path_set bigger = {.room = set->room ? set->room * 2 : 64, .count = set->count};

    bigger.slots = mem_alloc(bigger.room * sizeof *bigger.slots);
    for (size_t i = 0; i < set->room; i++)
        if (set->slots[i])
            bigger.slots[slot_of(&bigger, set->slots[i])] = set->slots[i];
    free(set->slots);
    *set = bigger;
}

bool path_set_add(struct path_set *set, const char *path)
{
    if ((set->count + 1) * 2 > set->room)
        grow(set);
    size_t slot = slot_of(set, path);
    if (set->slots[slot])
        return false;
    set->slots[slot] = mem_strdup(path);
    set->count++;
    const char *slash = strrchr(path, '/');
    if (slash) {
        cleanup_free char *folder = mem_strndup(path, (size_t)(slash - path));
        path_set_add(set, folder);
    }
    return true;
}

void path_set_free(struct path_set *set)
{
    for (size_t i = 0; i < set->room; i++)
        free(set->slots[i]);
    free(set->slots);
    *set = (struct path_set){0};
}
