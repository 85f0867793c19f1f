/* The reader of layers: plain, gzip of one and of several members, zstd; both digests; streams that
 * are cut, damaged, or left half-read; sources that trickle and that fail. */
#include "check.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include "base/buf.h"
#include "base/mem.h"
#include "oci/inflate.h"

#define MIB ((size_t)1 << 20)

struct input {
    const uint8_t *data;
    size_t len, at;
    size_t step;    /* at most so many bytes at a time */
    size_t fail_at; /* 0: never */
};

static ssize_t give(void *ctx, void *to, size_t len, struct error *err)
{
    struct input *input = ctx;
    size_t left = input->len - input->at;

    if (input->fail_at && input->at >= input->fail_at)
        return error_set(err, ERR_UNAVAILABLE, "the cable is cut");
    if (len > input->step)
        len = input->step;
    if (len > left)
        len = left;
    if (len) /* an input without bytes has no data */
        memcpy(to, input->data + input->at, len);
    input->at += len;
    return (ssize_t)len;
}

static void fill(struct buf *out, size_t size)
{
    uint64_t state = 88172645463325252u;

    for (size_t i = 0; i < size; i++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        buf_putc(out, i / 4096 % 2 ? (char)state : "a layer of an image "[i % 20]);
    }
}

static void gzip(struct buf *out, const char *data, size_t size)
{
    size_t room = size + size / 8 + 64;
    cleanup_free uint8_t *packed = mem_alloc(room);
    z_stream stream = {.next_in = (Bytef *)(uintptr_t)data,
                       .avail_in = (uInt)size,
                       .next_out = packed,
                       .avail_out = (uInt)room};

    assert_int_equal(deflateInit2(&stream, 1, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY),
                     Z_OK);
    assert_int_equal(deflate(&stream, Z_FINISH), Z_STREAM_END);
    buf_append(out, packed, stream.total_out);
    deflateEnd(&stream);
}

static void zstd(struct buf *out, const char *data, size_t size)
{
    size_t room = ZSTD_compressBound(size);
    cleanup_free char *packed = mem_alloc(room);
    size_t got = ZSTD_compress(packed, room, data, size, 1);

    assert_false(ZSTD_isError(got));
    buf_append(out, packed, got);
}

static void read_all(const struct buf *packed, const struct buf *wanted, size_t step)
{
    struct input input = {(const uint8_t *)packed->data, packed->len, 0, step, 0};
    struct inflater *inflater = inflater_new_from(give, &input, true);
    struct digest file, stream, wanted_file, wanted_stream;
    struct error err = {0};
    const void *data;
    size_t at = 0;
    ssize_t got;

    while ((got = inflater_next(inflater, &data, &err)) > 0) {
        assert_true(at + (size_t)got <= wanted->len);
        assert_memory_equal(data, wanted->data + at, (size_t)got);
        at += (size_t)got;
    }
    assert_int_equal(got, 0);
    assert_int_equal(at, wanted->len);
    assert_int_equal(inflater_next(inflater, &data, &err), 0); /* the end stays the end */
    assert_int_equal(inflater_total(inflater), wanted->len);
    assert_int_equal(inflater_finish(inflater, &file, &stream, &err), 0);
    digest_bytes(packed->data, packed->len, &wanted_file);
    digest_bytes(wanted->data, wanted->len, &wanted_stream);
    assert_string_equal(file.text, wanted_file.text);
    assert_string_equal(stream.text, wanted_stream.text);
    inflater_free(inflater);
}

static void all_codings(void **state)
{
    static const size_t sizes[] = {0, 1, 1000, MIB - 1, MIB, MIB + 1, 2 * MIB, 21 * MIB + 7};

    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        cleanup_buf struct buf raw = BUF_INIT, packed = BUF_INIT;
        fill(&raw, sizes[i]);
        const char *text = raw.data ? raw.data : "";
        read_all(&raw, &raw, sizes[i] < MIB ? 1 : 70000);
        gzip(&packed, text, raw.len);
        read_all(&packed, &raw, sizes[i] < MIB / 2 ? 1 : 70000);
        buf_clear(&packed);
        zstd(&packed, text, raw.len);
        read_all(&packed, &raw, sizes[i] < MIB / 2 ? 1 : 70000);
        buf_clear(&packed);
        for (size_t at = 0; at < raw.len; at += 700000) /* members, frames */
            gzip(&packed, text + at, raw.len - at < 700000 ? raw.len - at : 700000);
        read_all(&packed, &raw, 70000);
    }
}

static void breaks(const struct buf *packed, size_t len, size_t fail_at, const char *wanted)
{
    struct input input = {(const uint8_t *)packed->data, len, 0, 50000, fail_at};
    struct inflater *inflater = inflater_new_from(give, &input, false);
    struct digest stream;
    struct error err = {0};

    assert_int_equal(inflater_finish(inflater, NULL, &stream, &err), -1);
    if (!strstr(err.message, wanted))
        fail_msg("'%s' does not say '%s'", err.message, wanted);
    inflater_free(inflater);
}

static void broken(void **state)
{
    cleanup_buf struct buf raw = BUF_INIT, packed = BUF_INIT, framed = BUF_INIT;

    (void)state;
    fill(&raw, 12 * MIB);
    gzip(&packed, raw.data, raw.len);
    zstd(&framed, raw.data, raw.len);
    breaks(&packed, packed.len - 9, 0, "ends in the middle");
    breaks(&packed, packed.len / 2, 0, "ends in the middle");
    breaks(&framed, framed.len - 1, 0, "ends in the middle");
    breaks(&packed, packed.len, packed.len / 2, "the cable is cut");
    breaks(&packed, packed.len, 1, "the cable is cut");
    packed.data[packed.len - 6] ^= 1; /* of the checksum */
    breaks(&packed, packed.len, 0, "damaged");
    packed.data[packed.len - 6] ^= 1;
    buf_puts(&packed, "garbage");
    breaks(&packed, packed.len, 0, "garbage");
}

static void left_half_read(void **state)
{
    cleanup_buf struct buf raw = BUF_INIT, packed = BUF_INIT;

    (void)state;
    fill(&raw, 40 * MIB);
    gzip(&packed, raw.data, raw.len);
    for (int pieces = 0; pieces < 12; pieces += 3) {
        struct input input = {(const uint8_t *)packed.data, packed.len, 0, packed.len, 0};
        struct inflater *inflater = inflater_new_from(give, &input, true);
        struct error err = {0};
        const void *data;
        for (int i = 0; i < pieces; i++)
            assert_true(inflater_next(inflater, &data, &err) > 0);
        inflater_free(inflater);
    }
    inflater_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_codings),
        cmocka_unit_test(broken),
        cmocka_unit_test(left_half_read),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
