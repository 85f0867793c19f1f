/* JSON <-> value, through Jansson. Our own writer: Jansson's would need a copy of the
 * tree first. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/number.h"
#include "base/utf8.h"
#include "base/value.h"

#define DEFAULT_BYTES (64u << 20)
#define DEFAULT_DEPTH 200u
#define DEFAULT_NODES 4000000u

struct budget {
    size_t depth, nodes;
    const char *source;
    struct error *err;
};

static int convert(const json_t *json, struct value *out, struct budget *left, size_t depth)
{
    if (depth > left->depth)
        return error_set(left->err, ERR_TOO_LARGE, "%s: nested deeper than %zu", left->source,
                         left->depth);
    if (left->nodes-- == 0)
        return error_set(left->err, ERR_TOO_LARGE, "%s: too many values", left->source);
    switch (json_typeof(json)) {
    case JSON_NULL:
        value_set_nil(out);
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        value_set_bool(out, json_is_true(json));
        break;
    case JSON_INTEGER:
        value_set_int(out, json_integer_value(json));
        break;
    case JSON_REAL:
        value_set_real(out, json_real_value(json));
        break;
    case JSON_STRING:
        value_set_bytes(out, json_string_value(json), json_string_length(json));
        break;
    case JSON_ARRAY: {
        size_t index;
        json_t *item;
        value_set_array(out);
        json_array_foreach(json, index, item)
        {
            if (convert(item, value_push(out), left, depth + 1) < 0)
                return -1;
        }
        break;
    }
    case JSON_OBJECT: {
        value_set_map(out);
        for (void *it = json_object_iter((json_t *)json); it;
             it = json_object_iter_next((json_t *)json, it)) {
            if (convert(json_object_iter_value(it), value_put(out, json_object_iter_key(it)), left,
                        depth + 1) < 0)
                return -1;
        }
        break;
    }
    }
    return 0;
}

int value_from_json(const char *text, size_t len, const char *source,
                    const struct text_limits *limits, struct value *out, struct error *err)
{
    size_t bytes = limits && limits->bytes ? limits->bytes : DEFAULT_BYTES;
    struct budget left = {
        .depth = limits && limits->depth ? limits->depth : DEFAULT_DEPTH,
        .nodes = limits && limits->nodes ? limits->nodes : DEFAULT_NODES,
        .source = source ? source : "JSON",
        .err = err,
    };
    json_error_t where;

    value_set_nil(out);
    if (len > bytes)
        return error_set(err, ERR_TOO_LARGE, "%s: %zu bytes of JSON, at most %zu are allowed",
                         left.source, len, bytes);
    json_t *json =
        json_loadb(text, len, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &where);
    if (!json)
        return error_set(err, ERR_INVALID, "%s:%d:%d: not JSON: %s", left.source,
                         where.line > 0 ? where.line : 1, where.column > 0 ? where.column : 1,
                         where.text);
    int status = convert(json, out, &left, 0);
    json_decref(json);
    if (status < 0)
        value_free(out);
    return status;
}

void json_print_text(const char *text, size_t len, struct buf *out)
{
    buf_putc(out, '"');
    for (size_t i = 0; i < len; i++) {
        size_t plain = i;
        size_t bytes = 1;
        while (plain < len && (unsigned char)text[plain] >= 0x20 && text[plain] != '"' &&
               text[plain] != '\\' && text[plain] != 0x7f && bytes) {
            bytes = (unsigned char)text[plain] < 0x80 ? 1 : utf8_length(text + plain, len - plain);
            plain += bytes;
        }
        buf_append(out, text + i, plain - i);
        if ((i = plain) == len)
            break;
        unsigned char c = (unsigned char)text[i];
        switch (c) {
        case '"':
            buf_puts(out, "\\\"");
            break;
        case '\\':
            buf_puts(out, "\\\\");
            break;
        case '\n':
            buf_puts(out, "\\n");
            break;
        case '\r':
            buf_puts(out, "\\r");
            break;
        case '\t':
            buf_puts(out, "\\t");
            break;
        default:
            if (c < 0x80)
                buf_printf(out, "\\u%04x", c);
            else
                buf_puts(out, "\xef\xbf\xbd");
        }
    }
    buf_putc(out, '"');
}

static void put_int(int64_t i, struct buf *out)
{
    char text[NUMBER_ROOM];
    size_t len = int_print(i, text);

    buf_append(out, text, len);
}

void json_print_real(double d, struct buf *out)
{
    if (!isfinite(d)) {
        /* JSON has no such numbers; the services here spell them as strings. */
        buf_puts(out, isnan(d) ? "\"NaN\"" : d > 0 ? "\"Infinity\"" : "\"-Infinity\"");
        return;
    }
    char text[NUMBER_ROOM];
    size_t len = real_print(d, text);
    buf_append(out, text, len);
    if (!strpbrk(text, ".e"))
        buf_puts(out, ".0");
}

static int by_key(const void *a, const void *b)
{
    const struct value_pair *x = *(const struct value_pair *const *)a;
    const struct value_pair *y = *(const struct value_pair *const *)b;
    size_t len = x->key_len < y->key_len ? x->key_len : y->key_len;
    int order = memcmp(x->key, y->key, len);

    return order ? order : (x->key_len > y->key_len) - (x->key_len < y->key_len);
}

static void new_line(unsigned flags, int depth, struct buf *out)
{
    if (flags & TEXT_PRETTY)
        buf_printf(out, "\n%*s", depth * 2, "");
}

bool json_key_fits(const char *key, size_t len)
{
    size_t bytes;

    for (size_t i = 0; i < len; i += bytes) {
        bytes = (unsigned char)key[i] < 0x80 ? 1 : utf8_length(key + i, len - i);
        if (!key[i] || !bytes)
            return false;
    }
    return true;
}

/* The same with keys that fit; of two that become the same one, the later. */
static void fit_keys(const struct value *map, struct value *out)
{
    value_set_map(out);
    for (size_t i = 0; i < map->as.map.count; i++) {
        const struct value_pair *pair = &map->as.map.pairs[i];
        cleanup_buf struct buf key = BUF_INIT;
        for (size_t at = 0, bytes; at < pair->key_len; at += bytes ? bytes : 1) {
            bytes = pair->key[at] ? utf8_length(pair->key + at, pair->key_len - at) : 0;
            buf_append(&key, bytes ? pair->key + at : "\xef\xbf\xbd", bytes ? bytes : 3);
        }
        value_copy(value_put_n(out, key.data ? key.data : "", key.len), &pair->value);
    }
}

static void write_json(const struct value *v, unsigned flags, int depth, struct buf *out);

static void write_map(const struct value *v, unsigned flags, int depth, struct buf *out)
{
    size_t count = v->as.map.count;
    cleanup_value struct value fitting = {0};

    for (size_t i = 0; i < count; i++) {
        if (!json_key_fits(v->as.map.pairs[i].key, v->as.map.pairs[i].key_len)) {
            fit_keys(v, &fitting);
            write_map(&fitting, flags, depth, out);
            return;
        }
    }
    cleanup_free struct value_pair **order = mem_array(NULL, count ? count : 1, sizeof *order);

    for (size_t i = 0; i < count; i++)
        order[i] = &v->as.map.pairs[i];
    if ((flags & TEXT_SORTED) && count)
        qsort(order, count, sizeof *order, by_key);
    buf_putc(out, '{');
    for (size_t i = 0; i < count; i++) {
        if (i)
            buf_putc(out, ',');
        new_line(flags, depth + 1, out);
        json_print_text(order[i]->key, order[i]->key_len, out);
        buf_puts(out, flags & TEXT_PRETTY ? ": " : ":");
        write_json(&order[i]->value, flags, depth + 1, out);
    }
    if (count)
        new_line(flags, depth, out);
    buf_putc(out, '}');
}

static void write_json(const struct value *v, unsigned flags, int depth, struct buf *out)
{
    char handle[sizeof v->as.handle.type + 2];

    switch (v->kind) {
    case VALUE_NIL:
        buf_puts(out, "null");
        break;
    case VALUE_BOOL:
        buf_puts(out, v->as.boolean ? "true" : "false");
        break;
    case VALUE_INT:
        put_int(v->as.integer, out);
        break;
    case VALUE_REAL:
        json_print_real(v->as.real, out);
        break;
    case VALUE_STRING:
        json_print_text(v->as.string.data, v->as.string.len, out);
        break;
    case VALUE_ARRAY:
        buf_putc(out, '[');
        for (size_t i = 0; i < v->as.array.count; i++) {
            if (i)
                buf_putc(out, ',');
            new_line(flags, depth + 1, out);
            write_json(&v->as.array.items[i], flags, depth + 1, out);
        }
        if (v->as.array.count)
            new_line(flags, depth, out);
        buf_putc(out, ']');
        break;
    case VALUE_MAP:
        write_map(v, flags, depth, out);
        break;
    case VALUE_HANDLE:
        snprintf(handle, sizeof handle, "<%s>", v->as.handle.type);
        json_print_text(handle, strlen(handle), out);
        break;
    }
}

void value_to_json(const struct value *v, unsigned flags, struct buf *out)
{
    write_json(v, flags, 0, out);
}
