/* Objects that live in the broker, by number. A script can make numbers up, so type and existence
 * are checked. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/vault.h"
#include "broker/internal.h"

#define HANDLES_MAX 100000
#define SECRETS_MAX (16u << 20) /* bytes */

static uint64_t add_locked(struct handles *handles, const char *type, void *object, size_t len)
{
    if (handles->count >= HANDLES_MAX)
        return 0;
    handles->items = mem_array(handles->items, handles->count + 1, sizeof *handles->items);
    struct handle_entry *entry = &handles->items[handles->count++];
    *entry = (struct handle_entry){.id = ++handles->next_id, .object = object, .len = len};
    strncpy(entry->type, type, sizeof entry->type - 1);
    return entry->id;
}

uint64_t handle_add(struct handles *handles, const char *type, void *object)
{
    pthread_mutex_lock(&handles->lock);
    uint64_t id = add_locked(handles, type, object, 0);
    pthread_mutex_unlock(&handles->lock);
    return id;
}

uint64_t handle_add_secret(struct handles *handles, const char *bytes, size_t len)
{
    uint64_t id = 0;

    pthread_mutex_lock(&handles->lock);
    if (handles->secret_bytes + len <= SECRETS_MAX) {
        if (!handles->vault)
            handles->vault = vault_new();
        id = add_locked(handles, "secret", vault_copy(handles->vault, bytes, len), len);
        handles->secret_bytes += len;
    }
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

const char *handle_within(const struct value *v, struct buf *path)
{
    size_t len = path->len;
    const char *type = v->kind == VALUE_HANDLE ? v->as.handle.type : NULL;

    for (size_t i = 0; !type && v->kind == VALUE_ARRAY && i < v->as.array.count; i++) {
        buf_printf(path, "[%zu]", i + 1);
        type = handle_within(&v->as.array.items[i], path);
        if (!type)
            path->len = len;
    }
    for (size_t i = 0; !type && v->kind == VALUE_MAP && i < v->as.map.count; i++) {
        buf_printf(path, "%s%s", len ? "." : "", v->as.map.pairs[i].key);
        type = handle_within(&v->as.map.pairs[i].value, path);
        if (!type)
            path->len = len;
    }
    if (path->data)
        path->data[path->len] = '\0';
    return type;
}
