/* struct mlhost_value is struct value, seen from outside. */
#include "base/value.h"

#include <assert.h>
#include <string.h>

#include "mlhost/mlhost.h"

static_assert((int)MLHOST_NIL == (int)VALUE_NIL && (int)MLHOST_BOOL == (int)VALUE_BOOL &&
                  (int)MLHOST_INT == (int)VALUE_INT && (int)MLHOST_REAL == (int)VALUE_REAL &&
                  (int)MLHOST_STRING == (int)VALUE_STRING &&
                  (int)MLHOST_ARRAY == (int)VALUE_ARRAY && (int)MLHOST_MAP == (int)VALUE_MAP &&
                  (int)MLHOST_HANDLE == (int)VALUE_HANDLE,
              "the kinds are the same");

static const struct value *in(const struct mlhost_value *value)
{
    return (const struct value *)value;
}

/* The slot, emptied. */
static struct value *slot(struct mlhost_value *value)
{
    value_free((struct value *)value);
    return (struct value *)value;
}

enum mlhost_kind mlhost_kind(const struct mlhost_value *value)
{
    return value ? (enum mlhost_kind)in(value)->kind : MLHOST_NIL;
}

const char *mlhost_string(const struct mlhost_value *value, size_t *len, const char *otherwise)
{
    if (mlhost_kind(value) != MLHOST_STRING) {
        if (len)
            *len = otherwise ? strlen(otherwise) : 0;
        return otherwise;
    }
    if (len)
        *len = in(value)->as.string.len;
    return in(value)->as.string.data;
}

int64_t mlhost_int(const struct mlhost_value *value, int64_t otherwise)
{
    return mlhost_kind(value) == MLHOST_INT ? in(value)->as.integer : otherwise;
}

double mlhost_number(const struct mlhost_value *value, double otherwise)
{
    if (mlhost_kind(value) == MLHOST_INT)
        return (double)in(value)->as.integer;
    return mlhost_kind(value) == MLHOST_REAL ? in(value)->as.real : otherwise;
}

bool mlhost_bool(const struct mlhost_value *value, bool otherwise)
{
    return mlhost_kind(value) == MLHOST_BOOL ? in(value)->as.boolean : otherwise;
}

size_t mlhost_count(const struct mlhost_value *value)
{
    return value ? value_count(in(value)) : 0;
}

const struct mlhost_value *mlhost_at(const struct mlhost_value *value, size_t index)
{
    if (index >= mlhost_count(value))
        return NULL;
    if (mlhost_kind(value) == MLHOST_MAP)
        return (const struct mlhost_value *)&in(value)->as.map.pairs[index].value;
    return (const struct mlhost_value *)value_at(in(value), index);
}

const char *mlhost_key_at(const struct mlhost_value *map, size_t index)
{
    return mlhost_kind(map) == MLHOST_MAP && index < mlhost_count(map)
               ? in(map)->as.map.pairs[index].key
               : NULL;
}

const struct mlhost_value *mlhost_get(const struct mlhost_value *map, const char *key)
{
    return (const struct mlhost_value *)value_get(in(map), key);
}

void mlhost_set_bool(struct mlhost_value *value, bool b)
{
    value_set_bool(slot(value), b);
}

void mlhost_set_int(struct mlhost_value *value, int64_t i)
{
    value_set_int(slot(value), i);
}

void mlhost_set_number(struct mlhost_value *value, double d)
{
    value_set_real(slot(value), d);
}

void mlhost_set_string(struct mlhost_value *value, const char *text)
{
    value_set_string(slot(value), text);
}

void mlhost_set_bytes(struct mlhost_value *value, const void *data, size_t len)
{
    value_set_bytes(slot(value), data, len);
}

void mlhost_set_array(struct mlhost_value *value)
{
    value_set_array(slot(value));
}

void mlhost_set_map(struct mlhost_value *value)
{
    value_set_map(slot(value));
}

struct mlhost_value *mlhost_push(struct mlhost_value *array)
{
    return (struct mlhost_value *)value_push((struct value *)array);
}

struct mlhost_value *mlhost_put(struct mlhost_value *map, const char *key)
{
    return (struct mlhost_value *)value_put((struct value *)map, key);
}
