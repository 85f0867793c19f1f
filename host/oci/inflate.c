#include "oci/inflate.h"

#include <errno.h>
#include <isa-l/igzip_lib.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>

#include "base/mem.h"

#define INPUT ((size_t)256 << 10)
#define PIECE ((size_t)1 << 20)
#define SLOTS 8

enum coding { CODING_UNKNOWN, CODING_NONE, CODING_GZIP, CODING_ZSTD };

struct slot {
    uint8_t *data;
    size_t len;
};

struct inflater {
    inflate_source_fn *source;
    void *ctx;
    int fd;
    enum coding coding;
    bool ended;   /* no more bytes in the file */
    bool between; /* gzip, zstd: at the border of two members or frames */
    struct hasher *file, *stream;
    struct inflate_state *gzip;
    ZSTD_DStream *zstd;
    const uint8_t *in; /* what is not yet used of `input` */
    size_t in_len;
    uint8_t *input;
    uint64_t total;

    struct slot slots[SLOTS];
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t changed;
    /* Numbers of pieces, ever growing: piece n is in slot n % SLOTS. */
    uint64_t made, hashed, used;
    bool complete; /* no piece comes after those that are made */
    bool failed, stopped;
    struct error err;

    pthread_t threads[2];
    size_t thread_count;
    bool begun, lent; /* lent: the caller looks at piece `used` */
};

static ssize_t read_fd(void *ctx, void *to, size_t len, struct error *err)
{
    const int *fd = ctx;
    ssize_t n;

    do
        n = read(*fd, to, len);
    while (n < 0 && errno == EINTR);
    return n < 0 ? error_errno(err, errno, "cannot read the layer") : n;
}

struct inflater *inflater_new_from(inflate_source_fn *source, void *ctx, bool whole)
{
    struct inflater *inflater = mem_alloc(sizeof *inflater);

    inflater->source = source;
    inflater->ctx = ctx;
    inflater->file = whole ? hasher_new() : NULL;
    inflater->stream = hasher_new();
    inflater->input = mem_alloc(INPUT);
    pthread_mutex_init(&inflater->lock, NULL);
    pthread_cond_init(&inflater->changed, NULL);
    return inflater;
}

struct inflater *inflater_new(int fd, bool whole)
{
    struct inflater *inflater = inflater_new_from(read_fd, NULL, whole);

    inflater->fd = fd;
    inflater->ctx = &inflater->fd;
    return inflater;
}

void inflater_free(struct inflater *inflater)
{
    if (!inflater)
        return;
    pthread_mutex_lock(&inflater->lock);
    inflater->stopped = true;
    pthread_cond_broadcast(&inflater->changed);
    pthread_mutex_unlock(&inflater->lock);
    for (size_t i = 0; i < inflater->thread_count; i++)
        pthread_join(inflater->threads[i], NULL);
    for (size_t i = 0; i < SLOTS; i++)
        free(inflater->slots[i].data);
    hasher_drop(inflater->file);
    hasher_drop(inflater->stream);
    ZSTD_freeDStream(inflater->zstd);
    free(inflater->gzip);
    free(inflater->input);
    pthread_cond_destroy(&inflater->changed);
    pthread_mutex_destroy(&inflater->lock);
    free(inflater);
}

uint64_t inflater_total(const struct inflater *inflater)
{
    return inflater->total;
}

/* ---- decompression ---- */

/* More input, as long as there is less than a magic number of it. */
static int fill(struct inflater *inflater, struct error *err)
{
    if (inflater->in_len)
        memmove(inflater->input, inflater->in, inflater->in_len);
    inflater->in = inflater->input;
    while (!inflater->ended && inflater->in_len < 4) {
        ssize_t n = inflater->source(inflater->ctx, inflater->input + inflater->in_len,
                                     INPUT - inflater->in_len, err);
        if (n < 0)
            return -1;
        if (n == 0)
            inflater->ended = true;
        if (inflater->file)
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

static ssize_t gzip_next(struct inflater *inflater, uint8_t *to, size_t room, struct error *err)
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
        gzip->next_out = to;
        gzip->avail_out = (uint32_t)room;
        int status = isal_inflate(gzip);
        inflater->in = gzip->next_in;
        inflater->in_len = gzip->avail_in;
        size_t got = room - gzip->avail_out;
        if (status != ISAL_DECOMP_OK)
            return error_set(err, ERR_INVALID, "the layer's gzip data are damaged (%d)", status);
        inflater->between = gzip->block_state == ISAL_BLOCK_FINISH;
        if (got)
            return (ssize_t)got;
        if (!inflater->between && inflater->ended && inflater->in_len == before)
            return cut_short(err);
    }
}

static ssize_t zstd_next(struct inflater *inflater, uint8_t *to, size_t room, struct error *err)
{
    for (;;) {
        if (!inflater->in_len && fill(inflater, err) != 0)
            return -1;
        if (!inflater->in_len && inflater->between)
            return 0;
        ZSTD_inBuffer in = {inflater->in, inflater->in_len, 0};
        ZSTD_outBuffer out = {to, room, 0};
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

static ssize_t plain_next(struct inflater *inflater, uint8_t *to, size_t room, struct error *err)
{
    if (!inflater->in_len && fill(inflater, err) != 0)
        return -1;
    size_t n = inflater->in_len < room ? inflater->in_len : room;
    memcpy(to, inflater->in, n);
    inflater->in += n;
    inflater->in_len -= n;
    return (ssize_t)n;
}

static ssize_t decode(struct inflater *inflater, uint8_t *to, size_t room, struct error *err)
{
    switch (inflater->coding) {
    case CODING_GZIP:
        return gzip_next(inflater, to, room, err);
    case CODING_ZSTD:
        return zstd_next(inflater, to, room, err);
    default:
        return plain_next(inflater, to, room, err);
    }
}

/* A whole piece, or the last one; *complete: nothing comes after it. */
static int make_piece(struct inflater *inflater, struct slot *slot, bool *complete,
                      struct error *err)
{
    if (inflater->coding == CODING_UNKNOWN) {
        if (fill(inflater, err) != 0)
            return -1;
        detect(inflater);
    }
    if (!slot->data)
        slot->data = mem_alloc(PIECE);
    slot->len = 0;
    *complete = false;
    while (slot->len < PIECE) {
        ssize_t got = decode(inflater, slot->data + slot->len, PIECE - slot->len, err);
        if (got < 0)
            return -1;
        if (got == 0) {
            *complete = true;
            break;
        }
        slot->len += (size_t)got;
    }
    return 0;
}

/* ---- threads ---- */

/* Makes the next piece and tells. false: nothing is to follow. */
static bool produce(struct inflater *inflater)
{
    struct error err = {0};
    bool complete = false;
    int status = make_piece(inflater, &inflater->slots[inflater->made % SLOTS], &complete, &err);

    pthread_mutex_lock(&inflater->lock);
    if (status == 0) {
        inflater->made++;
        inflater->complete = complete;
    } else {
        inflater->failed = true;
        inflater->err = err;
    }
    pthread_cond_broadcast(&inflater->changed);
    pthread_mutex_unlock(&inflater->lock);
    return status == 0 && !complete;
}

static void *produce_thread(void *arg)
{
    struct inflater *inflater = arg;

    do {
        pthread_mutex_lock(&inflater->lock);
        while (!inflater->stopped && (inflater->made - inflater->used == SLOTS ||
                                      inflater->made - inflater->hashed == SLOTS))
            pthread_cond_wait(&inflater->changed, &inflater->lock);
        bool stopped = inflater->stopped;
        pthread_mutex_unlock(&inflater->lock);
        if (stopped)
            break;
    } while (produce(inflater));
    return NULL;
}

static void hash_piece(struct inflater *inflater)
{
    const struct slot *slot = &inflater->slots[inflater->hashed % SLOTS];

    hasher_update(inflater->stream, slot->data, slot->len);
    pthread_mutex_lock(&inflater->lock);
    inflater->hashed++;
    pthread_cond_broadcast(&inflater->changed);
    pthread_mutex_unlock(&inflater->lock);
}

static void *hash_thread(void *arg)
{
    struct inflater *inflater = arg;

    for (;;) {
        pthread_mutex_lock(&inflater->lock);
        while (inflater->hashed == inflater->made && !inflater->complete && !inflater->failed &&
               !inflater->stopped)
            pthread_cond_wait(&inflater->changed, &inflater->lock);
        bool go_on = inflater->hashed < inflater->made && !inflater->stopped;
        pthread_mutex_unlock(&inflater->lock);
        if (!go_on)
            return NULL;
        hash_piece(inflater);
    }
}

/* A layer of one piece needs no threads. */
static int begin(struct inflater *inflater, struct error *err)
{
    static void *(*const work[])(void *) = {hash_thread, produce_thread};

    inflater->begun = true;
    bool more = produce(inflater);
    if (!more && inflater->made)
        hash_piece(inflater);
    for (size_t i = 0; more && i < 2; i++) {
        int status = pthread_create(&inflater->threads[i], NULL, work[i], inflater);
        if (status != 0)
            return error_errno(err, status, "cannot start a thread");
        inflater->thread_count++;
    }
    return 0;
}

ssize_t inflater_next(struct inflater *inflater, const void **data, struct error *err)
{
    if (!inflater->begun && begin(inflater, err) != 0)
        return -1;
    pthread_mutex_lock(&inflater->lock);
    if (inflater->lent) {
        inflater->lent = false;
        inflater->used++;
        pthread_cond_broadcast(&inflater->changed);
    }
    while (inflater->used == inflater->made && !inflater->complete && !inflater->failed)
        pthread_cond_wait(&inflater->changed, &inflater->lock);
    bool there = inflater->used < inflater->made;
    bool failed = !there && inflater->failed;
    if (failed && err)
        *err = inflater->err;
    pthread_mutex_unlock(&inflater->lock);
    if (!there)
        return failed ? -1 : 0;
    const struct slot *slot = &inflater->slots[inflater->used % SLOTS];
    if (!slot->len) /* an empty stream, or one that ends with a piece */
        return 0;
    inflater->lent = true;
    *data = slot->data;
    inflater->total += slot->len;
    return (ssize_t)slot->len;
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
    pthread_mutex_lock(&inflater->lock);
    while (inflater->hashed < inflater->made)
        pthread_cond_wait(&inflater->changed, &inflater->lock);
    pthread_mutex_unlock(&inflater->lock);
    if (file && inflater->file) {
        hasher_finish(inflater->file, file);
        inflater->file = NULL;
    }
    hasher_finish(inflater->stream, stream);
    inflater->stream = NULL;
    return 0;
}
