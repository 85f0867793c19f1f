#include "oci/inflate.h"

#include <errno.h>
#include <isa-l/igzip_lib.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>

#include "base/mem.h"

#define PIECE (256u * 1024)

enum coding { CODING_UNKNOWN, CODING_NONE, CODING_GZIP, CODING_ZSTD };

struct inflater {
    int fd;
    enum coding coding;
    bool ended;   /* no more bytes in the file */
    bool between; /* gzip, zstd: at the border of two members or frames */
    struct hasher *file, *stream;
    uint64_t total;
    struct inflate_state *gzip;
    ZSTD_DStream *zstd;
    const uint8_t *in; /* what is not yet used of `input` */
    size_t in_len;
    uint8_t *input, *output;
};

struct inflater *inflater_new(int fd)
{
    struct inflater *inflater = mem_alloc(sizeof *inflater);

    inflater->fd = fd;
    inflater->file = hasher_new();
    inflater->stream = hasher_new();
    inflater->input = mem_alloc(PIECE);
    inflater->output = mem_alloc(PIECE);
    return inflater;
}

void inflater_free(struct inflater *inflater)
{
    if (!inflater)
        return;
    hasher_drop(inflater->file);
    hasher_drop(inflater->stream);
    ZSTD_freeDStream(inflater->zstd);
    free(inflater->gzip);
    free(inflater->input);
    free(inflater->output);
    free(inflater);
}

uint64_t inflater_total(const struct inflater *inflater)
{
    return inflater->total;
}

/* More input, as long as there is less than a magic number of it. */
static int fill(struct inflater *inflater, struct error *err)
{
    if (inflater->in_len)
        memmove(inflater->input, inflater->in, inflater->in_len);
    inflater->in = inflater->input;
    while (!inflater->ended && inflater->in_len < 4) {
        ssize_t n =
            read(inflater->fd, inflater->input + inflater->in_len, PIECE - inflater->in_len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_errno(err, errno, "cannot read the layer");
        if (n == 0)
            inflater->ended = true;
        hasher_update(inflater->file, inflater->input + inflater->in_len, (size_t)n);
        inflater->in_len += (size_t)n;
    }
    return 0;
}

static void gzip_member(struct inflater *inflater)
{
    if (!inflater->gzip) {
        inflater->gzip = mem_alloc(sizeof *inflater->gzip);
        isal_inflate_init(inflater->gzip);
    } else {
        isal_inflate_reset(inflater->gzip);
    }
    inflater->gzip->crc_flag = ISAL_GZIP;
}

static void detect(struct inflater *inflater)
{
    const uint8_t *in = inflater->in;

    if (inflater->in_len >= 2 && in[0] == 0x1f && in[1] == 0x8b) {
        inflater->coding = CODING_GZIP;
        gzip_member(inflater);
    } else if (inflater->in_len >= 4 && memcmp(in, "\x28\xb5\x2f\xfd", 4) == 0) {
        inflater->coding = CODING_ZSTD;
        inflater->zstd = ZSTD_createDStream();
        if (!inflater->zstd)
            abort();
        ZSTD_initDStream(inflater->zstd);
    } else {
        inflater->coding = CODING_NONE;
    }
}

static int cut_short(struct error *err)
{
    return error_set(err, ERR_INVALID, "the layer ends in the middle of its compressed data");
}

static ssize_t gzip_next(struct inflater *inflater, struct error *err)
{
    struct inflate_state *gzip = inflater->gzip;

    for (;;) {
        if (inflater->in_len < 4 && fill(inflater, err) != 0)
            return -1;
        if (inflater->between) {
            if (!inflater->in_len)
                return 0;
            if (inflater->in_len < 2 || inflater->in[0] != 0x1f || inflater->in[1] != 0x8b)
                return error_set(err, ERR_INVALID, "the layer has garbage after its gzip data");
            gzip_member(inflater);
            inflater->between = false;
        }
        size_t before = inflater->in_len;
        gzip->next_in = (uint8_t *)(uintptr_t)inflater->in;
        gzip->avail_in = (uint32_t)inflater->in_len;
        gzip->next_out = inflater->output;
        gzip->avail_out = PIECE;
        int status = isal_inflate(gzip);
        inflater->in = gzip->next_in;
        inflater->in_len = gzip->avail_in;
        size_t got = PIECE - gzip->avail_out;
        if (status != ISAL_DECOMP_OK)
            return error_set(err, ERR_INVALID, "the layer's gzip data are damaged (%d)", status);
        inflater->between = gzip->block_state == ISAL_BLOCK_FINISH;
        if (got)
            return (ssize_t)got;
        if (!inflater->between && inflater->ended && inflater->in_len == before)
            return cut_short(err);
    }
}

static ssize_t zstd_next(struct inflater *inflater, struct error *err)
{
    for (;;) {
        if (!inflater->in_len && fill(inflater, err) != 0)
            return -1;
        if (!inflater->in_len && inflater->between)
            return 0;
        ZSTD_inBuffer in = {inflater->in, inflater->in_len, 0};
        ZSTD_outBuffer out = {inflater->output, PIECE, 0};
        size_t status = ZSTD_decompressStream(inflater->zstd, &out, &in);
        inflater->in += in.pos;
        inflater->in_len -= in.pos;
        if (ZSTD_isError(status))
            return error_set(err, ERR_INVALID, "the layer's zstd data are damaged: %s",
                             ZSTD_getErrorName(status));
        inflater->between = status == 0;
        if (out.pos)
            return (ssize_t)out.pos;
        if (!inflater->between && inflater->ended && !in.pos)
            return cut_short(err);
    }
}

ssize_t inflater_next(struct inflater *inflater, const void **data, struct error *err)
{
    ssize_t got;

    if (inflater->coding == CODING_UNKNOWN) {
        if (fill(inflater, err) != 0)
            return -1;
        detect(inflater);
    }
    switch (inflater->coding) {
    case CODING_GZIP:
        got = gzip_next(inflater, err);
        *data = inflater->output;
        break;
    case CODING_ZSTD:
        got = zstd_next(inflater, err);
        *data = inflater->output;
        break;
    default:
        if (!inflater->in_len && fill(inflater, err) != 0)
            return -1;
        got = (ssize_t)inflater->in_len;
        *data = inflater->in;
        inflater->in_len = 0;
    }
    if (got > 0) {
        hasher_update(inflater->stream, *data, (size_t)got);
        inflater->total += (uint64_t)got;
    }
    return got;
}

int inflater_finish(struct inflater *inflater, struct digest *file, struct digest *stream,
                    struct error *err)
{
    const void *data;
    ssize_t got;

    while ((got = inflater_next(inflater, &data, err)) > 0) {
    }
    if (got < 0)
        return -1;
    hasher_finish(inflater->file, file);
    hasher_finish(inflater->stream, stream);
    inflater->file = inflater->stream = NULL;
    return 0;
}
