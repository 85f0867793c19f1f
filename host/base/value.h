/*
 * The tagged tree that crosses every border: frames between VM, broker and supervisor, JSON, YAML,
 * configuration.
 *
 * A value owns everything under it. A zeroed struct value is nil. Maps keep insertion order and are
 * looked up linearly below a few dozen keys, by hash above; a key occurs once.
 */
#ifndef MLHOST_BASE_VALUE_H
#define MLHOST_BASE_VALUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"

enum value_kind {
    VALUE_NIL, /* JSON null, Lua json.null inside containers */
    VALUE_BOOL,
    VALUE_INT,
    VALUE_REAL,
    VALUE_STRING, /* bytes; may hold NUL */
    VALUE_ARRAY,
    VALUE_MAP,
    VALUE_HANDLE, /* names an object that lives in the broker: a secret, an image, a client */
};

struct value_pair;
struct value {
    enum value_kind kind;
    union {
        bool boolean;
        int64_t integer;
        double real;
        struct {
            char *data;
            size_t len;
        } string; /* data[len] is NUL */
        struct {
            struct value *items;
            size_t count, room;
        } array;
        struct {
            struct value_pair *pairs;
            size_t count, room;
            uint32_t *index;
        } map;
        struct {
            uint64_t id;
            char type[16];
        } handle; /* type: "secret", "image" ... */
    } as;
};
struct value_pair {
    char *key;
    size_t key_len;
    struct value value;
};

void value_free(struct value *value); /* leaves nil */
#define cleanup_value __attribute__((cleanup(value_free)))
void value_copy(struct value *to,
                const struct value *from);             /* to must be nil or uninitialised-as-zero */
void value_move(struct value *to, struct value *from); /* frees *to first; from becomes nil */
bool value_equal(const struct value *a,
                 const struct value *b); /* 1 == 1.0; maps regardless of order */

/* Constructors; each overwrites *v without freeing what was there (v is nil or fresh). */
void value_set_nil(struct value *v);
void value_set_bool(struct value *v, bool b);
void value_set_int(struct value *v, int64_t i);
void value_set_real(struct value *v, double d);
void value_set_string(struct value *v, const char *text);
void value_set_bytes(struct value *v, const void *data, size_t len);
void value_set_printf(struct value *v, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void value_take_string(struct value *v, char *owned); /* takes an allocated C string */
void value_set_array(struct value *v);
void value_set_map(struct value *v);
void value_set_handle(struct value *v, const char *type, uint64_t id);

/* Arrays. push returns the new, nil item. */
struct value *value_push(struct value *array);
void value_push_string(struct value *array, const char *text);
struct value *value_at(const struct value *array,
                       size_t index);      /* NULL when out of range or not an array */
size_t value_count(const struct value *v); /* of an array or map; else 0 */

/* Maps. put returns the (new or cleared) slot; get NULL when absent, when v is not a map, or when v
 * is NULL. */
struct value *value_put(struct value *map, const char *key);
struct value *value_put_n(struct value *map, const char *key, size_t key_len);
void value_put_string(struct value *map, const char *key,
                      const char *text); /* NULL text: nothing is put */
void value_put_int(struct value *map, const char *key, int64_t i);
void value_put_bool(struct value *map, const char *key, bool b);
void value_put_real(struct value *map, const char *key, double d);
struct value *value_get(const struct value *map, const char *key);
bool value_remove(struct value *map, const char *key);
/* "a.b.c", map by map. */
struct value *value_path(const struct value *map, const char *dotted);

/* Readers with a default; wrong kinds give the default. Pointers live as long as the value. */
const char *value_text(const struct value *v, const char *otherwise);
const char *value_get_string(const struct value *map, const char *key, const char *otherwise);
int64_t value_get_int(const struct value *map, const char *key, int64_t otherwise);
double value_get_real(const struct value *map, const char *key, double otherwise);
bool value_get_bool(const struct value *map, const char *key, bool otherwise);
const char *value_kind_name(
    const struct value *v); /* "nil" "boolean" "integer" "number" "string" "array" "map" "handle" */

/* ---- frames: the binary codec between our processes ---- */

#define VALUE_MAX_DEPTH 200
/* Bytes. A larger frame is a protocol error; heavy bytes never travel in frames. */
#define FRAME_MAX (64u << 20)

void value_encode(const struct value *v, struct buf *out);
/* Decodes exactly len bytes; ERR_INVALID on garbage, trailing bytes, depth over VALUE_MAX_DEPTH. */
int value_decode(const void *data, size_t len, struct value *out, struct error *err);
/* u32 little-endian length, then the encoded value. */
void frame_append(const struct value *v, struct buf *out);
/* Takes one frame off the front of *in: 1 taken, 0 more bytes needed, -1 error. */
int frame_take(struct buf *in, struct value *out, struct error *err);

/* ---- text forms ---- */

struct text_limits {
    size_t bytes, depth, nodes;
};                     /* 0: the default (64 MiB, 200, 4 million nodes) */
#define TEXT_PRETTY 1u /* indent by two */
#define TEXT_SORTED 2u /* keys sorted: one text for one value */

/* source names the text in errors ("mlhost.yaml"); errors carry line and column. */
int value_from_json(const char *text, size_t len, const char *source,
                    const struct text_limits *limits, struct value *out, struct error *err);
/* Handles are written as "<secret>"; NaN and infinities as the strings that MLflow uses; bytes that
 * are no UTF-8 as U+FFFD, and NUL in keys too: what is written can be read. */
void value_to_json(const struct value *v, unsigned flags, struct buf *out);
/* The parts of it: a text with its quotes, a number. */
void json_print_text(const char *text, size_t len, struct buf *out);
void json_print_real(double d, struct buf *out);
/* Can JSON have this key as it is: UTF-8 without NUL? */
bool json_key_fits(const char *key, size_t len);
/* YAML 1.2 core schema through libyaml; alias expansion counts against limits.nodes; duplicate keys
 * are errors. Several documents: *out is the array of them when `all`, else only one document is
 * allowed. */
int value_from_yaml(const char *text, size_t len, const char *source,
                    const struct text_limits *limits, bool all, struct value *out,
                    struct error *err);
void value_to_yaml(const struct value *v, struct buf *out);

#endif
