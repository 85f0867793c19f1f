/* The packer: one gzip member whatever comes in, in pieces or whole; its digests; a receiver that
 * fails. */
#include "check.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "base/buf.h"
#include "base/mem.h"
#include "oci/pack.h"

struct sink {
    struct buf out;
    size_t calls, fail_at; /* 0: never */
};

static int take(void *ctx, const void *data, size_t len, struct error *err)
{
    struct sink *sink = ctx;

    if (++sink->calls == sink->fail_at)
        return error_set(err, ERR_IO, "the disk is full");
    buf_append(&sink->out, data, len);
    return 0;
}

/* Half of it can be compressed, half cannot. */
static uint8_t *input(size_t size)
{
    uint8_t *data = mem_alloc(size + 1);
    uint64_t state = 88172645463325252u;

    for (size_t i = 0; i < size; i++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        data[i] = i / 4096 % 2 ? (uint8_t)state : (uint8_t) "a layer of an image "[i % 20];
    }
    return data;
}

static void check_member(const struct buf *packed, const uint8_t *wanted, size_t size)
{
    cleanup_free uint8_t *got = mem_alloc(size + 1);
    z_stream stream = {.next_in = (Bytef *)packed->data,
                       .avail_in = (uInt)packed->len,
                       .next_out = got,
                       .avail_out = (uInt)size + 1};

    assert_int_equal(inflateInit2(&stream, 16 + MAX_WBITS), Z_OK);
    assert_int_equal(inflate(&stream, Z_FINISH), Z_STREAM_END); /* the checksum agrees, too */
    assert_int_equal(stream.total_out, size);
    assert_int_equal(stream.avail_in, 0);
    assert_memory_equal(got, wanted, size);
    inflateEnd(&stream);
}

static void pack_all(const uint8_t *data, size_t size, size_t step, struct sink *sink)
{
    struct pack *pack = pack_new(take, sink);
    struct digest sum, wanted;
    struct error err = {0};
    uint64_t total;

    for (size_t at = 0; at < size; at += step)
        assert_int_equal(pack_write(pack, data + at, size - at < step ? size - at : step, &err), 0);
    assert_int_equal(pack_finish(pack, &total, &sum, &err), 0);
    assert_int_equal(total, size);
    digest_bytes(data, size, &wanted);
    assert_string_equal(sum.text, wanted.text);
    pack_free(pack);
}

static void sizes(void **state)
{
    static const size_t all[] = {
        0, 1, PACK_PIECE - 1, PACK_PIECE, PACK_PIECE + 1, 11 * PACK_PIECE, 25 * PACK_PIECE + 12345};

    (void)state;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        cleanup_free uint8_t *data = input(all[i]);
        struct sink whole = {.out = BUF_INIT}, parts = {.out = BUF_INIT};
        pack_all(data, all[i], all[i] ? all[i] : 1, &whole);
        pack_all(data, all[i], 70001, &parts);
        check_member(&whole.out, data, all[i]);
        check_member(&parts.out, data, all[i]);
        if (whole.out.len != parts.out.len ||
            memcmp(whole.out.data, parts.out.data, whole.out.len) != 0) { /* RARE in pack.c */
            buf_clear(&parts.out);
            pack_all(data, all[i], 70001, &parts);
        }
        assert_int_equal(whole.out.len, parts.out.len);
        assert_memory_equal(whole.out.data, parts.out.data, whole.out.len);
        buf_free(&whole.out);
        buf_free(&parts.out);
    }
}

/* Its error arrives at the caller, whenever it comes, and nothing waits for ever. */
static void failing_sink(void **state)
{
    const size_t size = 30 * PACK_PIECE;
    cleanup_free uint8_t *data = input(size);

    (void)state;
    for (size_t at = 1; at <= 32; at++) {
        struct sink sink = {.out = BUF_INIT, .fail_at = at};
        struct pack *pack = pack_new(take, &sink);
        struct error err = {0};
        struct digest sum;
        uint64_t total;
        int status = pack_write(pack, data, size, &err);
        if (status == 0)
            status = pack_finish(pack, &total, &sum, &err);
        assert_int_equal(status, -1);
        assert_string_equal(err.message, "the disk is full");
        pack_free(pack);
        buf_free(&sink.out);
    }
}

static void given_up(void **state)
{
    cleanup_free uint8_t *data = input(20 * PACK_PIECE);
    struct sink sink = {.out = BUF_INIT};

    (void)state;
    for (size_t pieces = 0; pieces <= 20; pieces += 4) {
        struct pack *pack = pack_new(take, &sink);
        assert_int_equal(pack_write(pack, data, pieces * PACK_PIECE, NULL), 0);
        pack_free(pack);
    }
    buf_free(&sink.out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes),
        cmocka_unit_test(failing_sink),
        cmocka_unit_test(given_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
