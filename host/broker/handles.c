/* Objects that live in the broker, by number. A script can make numbers up, so type and existence
 * are checked. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "broker/internal.h"

#define HANDLES_MAX 100000

uint64_t handle_add(struct handles *handles, const char *type, void *object, size_t len,
                    void (*drop)(void *))
{
    pthread_mutex_lock(&handles->lock);
    if (handles->count >= HANDLES_MAX) {
        pthread_mutex_unlock(&handles->lock);
        return 0;
    }
    handles->items = mem_array(handles->items, handles->count + 1, sizeof *handles->items);
    struct handle_entry *entry = &handles->items[handles->count++];
    *entry =
        (struct handle_entry){.id = ++handles->next_id, .object = object, .len = len, .drop = drop};
    strncpy(entry->type, type, sizeof entry->type - 1);
    uint64_t id = entry->id;
    pthread_mutex_unlock(&handles->lock);
    return id;
}

void *handle_get(struct handles *handles, uint64_t id, const char *type, size_t *len)
{
    void *object = NULL;

    pthread_mutex_lock(&handles->lock);
    /* Ids are given in order and never taken back: entry i has id i + 1. */
    if (id >= 1 && id <= handles->count && strcmp(handles->items[id - 1].type, type) == 0) {
        object = handles->items[id - 1].object;
        if (len)
            *len = handles->items[id - 1].len;
    }
    pthread_mutex_unlock(&handles->lock);
    return object;
}

void handles_drop(struct handles *handles)
{
    for (size_t i = 0; i < handles->count; i++) {
        struct handle_entry *entry = &handles->items[i];
        if (strcmp(entry->type, "secret") == 0)
            explicit_bzero(entry->object, entry->len);
        if (entry->drop)
            entry->drop(entry->object);
    }
    free(handles->items);
    handles->items = NULL;
    handles->count = 0;
}
