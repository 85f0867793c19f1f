/*
 * The binary codec of a value, and frames.
 *
 *   nil 'n' | true 't' | false 'f' | int 'i' + 8 bytes | real 'd' + 8 bytes | string 's' + u32 +
 * bytes array 'a' + u32 count + items | map 'm' + u32 count + (u32 key length, key, value)* |
 * handle 'h' + 16 + 8 bytes
 *
 * Little-endian throughout. Counts are checked against the bytes that are left before anything is
 * allocated.
 */
#include <endian.h>
#include <string.h>

#include "base/value.h"

static void put_u32(struct buf *out, size_t n)
{
    uint32_t le = htole32((uint32_t)n);
    buf_append(out, &le, sizeof le);
}

static void put_u64(struct buf *out, uint64_t n)
{
    uint64_t le = htole64(n);
    buf_append(out, &le, sizeof le);
}

void value_encode(const struct value *v, struct buf *out)
{
    uint64_t bits;

    switch (v->kind) {
    case VALUE_NIL:
        buf_putc(out, 'n');
        break;
    case VALUE_BOOL:
        buf_putc(out, v->as.boolean ? 't' : 'f');
        break;
    case VALUE_INT:
        buf_putc(out, 'i');
        put_u64(out, (uint64_t)v->as.integer);
        break;
    case VALUE_REAL:
        buf_putc(out, 'd');
        memcpy(&bits, &v->as.real, sizeof bits);
        put_u64(out, bits);
        break;
    case VALUE_STRING:
        buf_putc(out, 's');
        put_u32(out, v->as.string.len);
        buf_append(out, v->as.string.data, v->as.string.len);
        break;
    case VALUE_ARRAY:
        buf_putc(out, 'a');
        put_u32(out, v->as.array.count);
        for (size_t i = 0; i < v->as.array.count; i++)
            value_encode(&v->as.array.items[i], out);
        break;
    case VALUE_MAP:
        buf_putc(out, 'm');
        put_u32(out, v->as.map.count);
        for (size_t i = 0; i < v->as.map.count; i++) {
            const struct value_pair *pair = &v->as.map.pairs[i];
            put_u32(out, pair->key_len);
            buf_append(out, pair->key, pair->key_len);
            value_encode(&pair->value, out);
        }
        break;
    case VALUE_HANDLE:
        buf_putc(out, 'h');
        buf_append(out, v->as.handle.type, sizeof v->as.handle.type);
        put_u64(out, v->as.handle.id);
        break;
    }
}

struct reader {
    const unsigned char *at, *end;
    struct error *err;
};

static int broken(struct reader *r, const char *what)
{
    return error_set(r->err, ERR_INVALID, "frame: %s", what);
}

static int take(struct reader *r, void *to, size_t len)
{
    if ((size_t)(r->end - r->at) < len)
        return broken(r, "ends in the middle of a value");
    memcpy(to, r->at, len);
    r->at += len;
    return 0;
}

static int take_u32(struct reader *r, uint32_t *n)
{
    if (take(r, n, sizeof *n) < 0)
        return -1;
    *n = le32toh(*n);
    return 0;
}

static int take_u64(struct reader *r, uint64_t *n)
{
    if (take(r, n, sizeof *n) < 0)
        return -1;
    *n = le64toh(*n);
    return 0;
}

static int decode(struct reader *r, struct value *out, int depth);

static int decode_items(struct reader *r, struct value *out, bool map, int depth)
{
    uint32_t count = 0, key_len = 0;

    if (take_u32(r, &count) < 0)
        return -1;
    /* An item takes at least one byte, a pair five: a count that cannot be true is refused before
     * it costs. */
    if (count > (size_t)(r->end - r->at) / (map ? 5 : 1))
        return broken(r, "has a count that its length cannot hold");
    for (uint32_t i = 0; i < count; i++) {
        struct value *slot;
        if (map) {
            if (take_u32(r, &key_len) < 0)
                return -1;
            if (key_len > (size_t)(r->end - r->at))
                return broken(r, "ends in the middle of a key");
            slot = value_put_n(out, (const char *)r->at, key_len);
            r->at += key_len;
        } else {
            slot = value_push(out);
        }
        if (decode(r, slot, depth + 1) < 0)
            return -1;
    }
    return 0;
}

static int decode(struct reader *r, struct value *out, int depth)
{
    unsigned char tag = 0;
    uint64_t bits = 0;
    uint32_t len = 0;

    if (depth > VALUE_MAX_DEPTH)
        return broken(r, "is nested too deeply");
    if (take(r, &tag, 1) < 0)
        return -1;
    switch (tag) {
    case 'n':
        value_set_nil(out);
        return 0;
    case 't':
    case 'f':
        value_set_bool(out, tag == 't');
        return 0;
    case 'i':
        if (take_u64(r, &bits) < 0)
            return -1;
        value_set_int(out, (int64_t)bits);
        return 0;
    case 'd':
        if (take_u64(r, &bits) < 0)
            return -1;
        value_set_real(out, 0);
        memcpy(&out->as.real, &bits, sizeof bits);
        return 0;
    case 's':
        if (take_u32(r, &len) < 0)
            return -1;
        if (len > (size_t)(r->end - r->at))
            return broken(r, "ends in the middle of a string");
        value_set_bytes(out, r->at, len);
        r->at += len;
        return 0;
    case 'a':
        value_set_array(out);
        return decode_items(r, out, false, depth);
    case 'm':
        value_set_map(out);
        return decode_items(r, out, true, depth);
    case 'h':
        value_set_handle(out, "", 0);
        if (take(r, out->as.handle.type, sizeof out->as.handle.type) < 0)
            return -1;
        out->as.handle.type[sizeof out->as.handle.type - 1] = '\0';
        return take_u64(r, &out->as.handle.id);
    default:
        return broken(r, "has an unknown tag");
    }
}

int value_decode(const void *data, size_t len, struct value *out, struct error *err)
{
    struct reader r = {data, (const unsigned char *)data + len, err};

    value_set_nil(out);
    if (decode(&r, out, 0) == 0) {
        if (r.at == r.end)
            return 0;
        broken(&r, "has bytes after its value");
    }
    value_free(out);
    return -1;
}

void frame_append(const struct value *v, struct buf *out)
{
    size_t start = out->len;

    put_u32(out, 0);
    value_encode(v, out);
    uint32_t le = htole32((uint32_t)(out->len - start - sizeof le));
    memcpy(out->data + start, &le, sizeof le);
}

int frame_take(struct buf *in, struct value *out, struct error *err)
{
    uint32_t len = 0;

    if (in->len < sizeof len)
        return 0;
    memcpy(&len, in->data, sizeof len);
    len = le32toh(len);
    if (len > FRAME_MAX)
        return error_set(err, ERR_INVALID, "frame: %u bytes, at most %u are allowed", len,
                         FRAME_MAX);
    if (in->len < sizeof len + len)
        return 0;
    if (value_decode(in->data + sizeof len, len, out, err) < 0)
        return -1;
    buf_consume(in, sizeof len + len);
    return 1;
}
