#include "base/value.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>

#include "base/mem.h"

/* Maps up to this many keys are searched one by one; larger ones get an index of slots (open
 * addressing). */
#define LINEAR_KEYS 16

void value_free(struct value *value)
{
    switch (value->kind) {
    case VALUE_STRING:
        free(value->as.string.data);
        break;
    case VALUE_ARRAY:
        for (size_t i = 0; i < value->as.array.count; i++)
            value_free(&value->as.array.items[i]);
        free(value->as.array.items);
        break;
    case VALUE_MAP:
        for (size_t i = 0; i < value->as.map.count; i++) {
            free(value->as.map.pairs[i].key);
            value_free(&value->as.map.pairs[i].value);
        }
        free(value->as.map.pairs);
        free(value->as.map.index);
        break;
    default:
        break;
    }
    *value = (struct value){0};
}

void value_copy(struct value *to, const struct value *from)
{
    *to = (struct value){0};
    switch (from->kind) {
    case VALUE_STRING:
        value_set_bytes(to, from->as.string.data, from->as.string.len);
        break;
    case VALUE_ARRAY:
        value_set_array(to);
        for (size_t i = 0; i < from->as.array.count; i++)
            value_copy(value_push(to), &from->as.array.items[i]);
        break;
    case VALUE_MAP:
        value_set_map(to);
        for (size_t i = 0; i < from->as.map.count; i++) {
            const struct value_pair *pair = &from->as.map.pairs[i];
            value_copy(value_put_n(to, pair->key, pair->key_len), &pair->value);
        }
        break;
    default:
        *to = *from;
    }
}

void value_move(struct value *to, struct value *from)
{
    struct value moved = *from;

    *from = (struct value){0};
    value_free(to);
    *to = moved;
}

static struct value *get_n(const struct value *map, const char *key, size_t len);

static bool number_of(const struct value *v, double *out)
{
    if (v->kind == VALUE_INT)
        *out = (double)v->as.integer;
    else if (v->kind == VALUE_REAL)
        *out = v->as.real;
    else
        return false;
    return true;
}

bool value_equal(const struct value *a, const struct value *b)
{
    double x, y;

    if (a->kind == VALUE_INT && b->kind == VALUE_INT)
        return a->as.integer == b->as.integer;
    if (number_of(a, &x) && number_of(b, &y))
        return !(x < y) && !(x > y) && !isnan(x) && !isnan(y);
    if (a->kind != b->kind)
        return false;
    switch (a->kind) {
    case VALUE_NIL:
        return true;
    case VALUE_BOOL:
        return a->as.boolean == b->as.boolean;
    case VALUE_STRING:
        return a->as.string.len == b->as.string.len &&
               memcmp(a->as.string.data, b->as.string.data, a->as.string.len) == 0;
    case VALUE_ARRAY:
        if (a->as.array.count != b->as.array.count)
            return false;
        for (size_t i = 0; i < a->as.array.count; i++) {
            if (!value_equal(&a->as.array.items[i], &b->as.array.items[i]))
                return false;
        }
        return true;
    case VALUE_MAP:
        if (a->as.map.count != b->as.map.count)
            return false;
        for (size_t i = 0; i < a->as.map.count; i++) {
            const struct value_pair *pair = &a->as.map.pairs[i];
            const struct value *other = get_n(b, pair->key, pair->key_len);
            if (!other || !value_equal(&pair->value, other))
                return false;
        }
        return true;
    case VALUE_HANDLE:
        return a->as.handle.id == b->as.handle.id &&
               strcmp(a->as.handle.type, b->as.handle.type) == 0;
    default:
        return false;
    }
}

/* ---- constructors ---- */

void value_set_nil(struct value *v)
{
    *v = (struct value){0};
}

void value_set_bool(struct value *v, bool b)
{
    *v = (struct value){.kind = VALUE_BOOL, .as.boolean = b};
}

void value_set_int(struct value *v, int64_t i)
{
    *v = (struct value){.kind = VALUE_INT, .as.integer = i};
}

void value_set_real(struct value *v, double d)
{
    *v = (struct value){.kind = VALUE_REAL, .as.real = d};
}

void value_set_bytes(struct value *v, const void *data, size_t len)
{
    *v = (struct value){.kind = VALUE_STRING};
    v->as.string.data = mem_strndup(data, len);
    v->as.string.len = len;
}

void value_set_string(struct value *v, const char *text)
{
    value_set_bytes(v, text, strlen(text));
}

void value_take_string(struct value *v, char *owned)
{
    *v = (struct value){.kind = VALUE_STRING};
    v->as.string.data = owned;
    v->as.string.len = strlen(owned);
}

void value_set_printf(struct value *v, const char *format, ...)
{
    struct buf text = BUF_INIT;
    va_list args;

    va_start(args, format);
    buf_vprintf(&text, format, args);
    va_end(args);
    value_take_string(v, buf_steal(&text));
}

void value_set_array(struct value *v)
{
    *v = (struct value){.kind = VALUE_ARRAY};
}

void value_set_map(struct value *v)
{
    *v = (struct value){.kind = VALUE_MAP};
}

void value_set_handle(struct value *v, const char *type, uint64_t id)
{
    *v = (struct value){.kind = VALUE_HANDLE};
    v->as.handle.id = id;
    snprintf(v->as.handle.type, sizeof v->as.handle.type, "%s", type);
}

/* ---- arrays ---- */

struct value *value_push(struct value *array)
{
    if (array->kind == VALUE_NIL)
        value_set_array(array);
    if (array->as.array.count == array->as.array.room) {
        array->as.array.room = array->as.array.room ? array->as.array.room * 2 : 4;
        array->as.array.items =
            mem_array(array->as.array.items, array->as.array.room, sizeof(struct value));
    }
    struct value *item = &array->as.array.items[array->as.array.count++];
    *item = (struct value){0};
    return item;
}

void value_push_string(struct value *array, const char *text)
{
    value_set_string(value_push(array), text);
}

struct value *value_at(const struct value *array, size_t index)
{
    if (!array || array->kind != VALUE_ARRAY || index >= array->as.array.count)
        return NULL;
    return &array->as.array.items[index];
}

size_t value_count(const struct value *v)
{
    if (!v)
        return 0;
    return v->kind == VALUE_ARRAY ? v->as.array.count : v->kind == VALUE_MAP ? v->as.map.count : 0;
}

/* ---- maps ---- */

/* Another one in each process tree, so that nobody can make up keys that all fall into one slot. */
static uint32_t hash_start;

__attribute__((constructor)) static void choose_hash_start(void)
{
    const void *random = (const void *)getauxval(AT_RANDOM); /* 16 bytes of the kernel's */

    if (random)
        memcpy(&hash_start, random, sizeof hash_start);
}

static uint32_t key_hash(const char *key, size_t len)
{
    uint32_t hash = 2166136261u ^ hash_start;

    for (size_t i = 0; i < len; i++)
        hash = (hash ^ (unsigned char)key[i]) * 16777619u;
    return hash;
}

/* The index has as many slots as twice the room of pairs, a power of two; a slot is a pair's number
 * + 1. */
static void index_add(struct value *map, size_t number)
{
    const struct value_pair *pair = &map->as.map.pairs[number];
    size_t mask = map->as.map.room * 2 - 1;
    size_t slot = key_hash(pair->key, pair->key_len) & mask;

    while (map->as.map.index[slot])
        slot = (slot + 1) & mask;
    map->as.map.index[slot] = (uint32_t)number + 1;
}

static void index_rebuild(struct value *map)
{
    free(map->as.map.index);
    map->as.map.index = NULL;
    if (map->as.map.room <= LINEAR_KEYS)
        return;
    map->as.map.index = mem_alloc(map->as.map.room * 2 * sizeof(uint32_t));
    for (size_t i = 0; i < map->as.map.count; i++)
        index_add(map, i);
}

static struct value *get_n(const struct value *map, const char *key, size_t len)
{
    if (!map || map->kind != VALUE_MAP)
        return NULL;
    struct value_pair *pairs = map->as.map.pairs;
    if (!map->as.map.index) {
        for (size_t i = 0; i < map->as.map.count; i++) {
            if (pairs[i].key_len == len && memcmp(pairs[i].key, key, len) == 0)
                return &pairs[i].value;
        }
        return NULL;
    }
    size_t mask = map->as.map.room * 2 - 1;
    for (size_t slot = key_hash(key, len) & mask; map->as.map.index[slot];
         slot = (slot + 1) & mask) {
        struct value_pair *pair = &pairs[map->as.map.index[slot] - 1];
        if (pair->key_len == len && memcmp(pair->key, key, len) == 0)
            return &pair->value;
    }
    return NULL;
}

struct value *value_get(const struct value *map, const char *key)
{
    return get_n(map, key, strlen(key));
}

struct value *value_put_n(struct value *map, const char *key, size_t key_len)
{
    if (map->kind == VALUE_NIL)
        value_set_map(map);
    struct value *there = get_n(map, key, key_len);
    if (there) {
        value_free(there);
        return there;
    }
    if (map->as.map.count == map->as.map.room) {
        map->as.map.room = map->as.map.room ? map->as.map.room * 2 : 4;
        map->as.map.pairs =
            mem_array(map->as.map.pairs, map->as.map.room, sizeof(struct value_pair));
        index_rebuild(map);
    }
    struct value_pair *pair = &map->as.map.pairs[map->as.map.count++];
    *pair = (struct value_pair){.key = mem_strndup(key, key_len), .key_len = key_len};
    if (map->as.map.index)
        index_add(map, map->as.map.count - 1);
    return &pair->value;
}

struct value *value_put(struct value *map, const char *key)
{
    return value_put_n(map, key, strlen(key));
}

void value_put_string(struct value *map, const char *key, const char *text)
{
    if (text)
        value_set_string(value_put(map, key), text);
}

void value_put_int(struct value *map, const char *key, int64_t i)
{
    value_set_int(value_put(map, key), i);
}

void value_put_bool(struct value *map, const char *key, bool b)
{
    value_set_bool(value_put(map, key), b);
}

void value_put_real(struct value *map, const char *key, double d)
{
    value_set_real(value_put(map, key), d);
}

bool value_remove(struct value *map, const char *key)
{
    struct value *there = value_get(map, key);

    if (!there)
        return false;
    struct value_pair *pair =
        (struct value_pair *)(void *)((char *)there - offsetof(struct value_pair, value));
    size_t number = (size_t)(pair - map->as.map.pairs);
    free(pair->key);
    value_free(&pair->value);
    memmove(pair, pair + 1, (map->as.map.count - number - 1) * sizeof *pair);
    map->as.map.count--;
    index_rebuild(map);
    return true;
}

struct value *value_path(const struct value *map, const char *dotted)
{
    const struct value *at = map;

    while (at) {
        size_t len = strcspn(dotted, ".");
        struct value *next = get_n(at, dotted, len);
        if (!dotted[len])
            return next;
        at = next;
        dotted += len + 1;
    }
    return NULL;
}

/* ---- readers ---- */

const char *value_text(const struct value *v, const char *otherwise)
{
    return v && v->kind == VALUE_STRING ? v->as.string.data : otherwise;
}

const char *value_get_string(const struct value *map, const char *key, const char *otherwise)
{
    return value_text(value_get(map, key), otherwise);
}

int64_t value_get_int(const struct value *map, const char *key, int64_t otherwise)
{
    const struct value *v = value_get(map, key);

    if (v && v->kind == VALUE_INT)
        return v->as.integer;
    if (v && v->kind == VALUE_REAL && v->as.real >= -9.2e18 && v->as.real <= 9.2e18)
        return (int64_t)v->as.real;
    return otherwise;
}

double value_get_real(const struct value *map, const char *key, double otherwise)
{
    const struct value *v = value_get(map, key);
    double number;

    return v && number_of(v, &number) ? number : otherwise;
}

bool value_get_bool(const struct value *map, const char *key, bool otherwise)
{
    const struct value *v = value_get(map, key);

    return v && v->kind == VALUE_BOOL ? v->as.boolean : otherwise;
}

const char *value_kind_name(const struct value *v)
{
    static const char *const kinds[] = {"nil",    "boolean", "integer", "number",
                                        "string", "array",   "map",     "handle"};

    return v && (size_t)v->kind < sizeof kinds / sizeof *kinds ? kinds[v->kind] : "nil";
}
