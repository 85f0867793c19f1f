#include "oci/pack.h"

#include <isa-l/crc.h>
#include <isa-l/igzip_lib.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "base/mem.h"

#define PACKED_MAX  (PACK_PIECE + PACK_PIECE / 8) /* deflate never makes more of it */
#define SLOTS       11
#define COMPRESSORS 8
#define GZIP_OS     255 /* unknown: the same on every system */

/* ISA-L looks a few bytes past its input, and what it finds there decides between two ways to say
 * the same: they must be the same bytes always, or a layer's digest is not. */
#define TAIL 64

/* RARE: about once in 7,000 pieces ISA-L 2.30 misses a match that it finds at other times, with the
 * same bytes in the same place: the gzip bytes differ then, what they unpack to does not (GKL's
 * release notes tell of the same). A layer is packed once and kept, so its digest stays; a layer
 * that is made anew may, as rarely, get another. Tests that compare the bytes try again. */

struct slot {
    uint8_t *in, *out;
    size_t in_len, out_len;
    uint32_t crc;
    bool packed;
};

struct pack {
    pack_sink_fn *sink;
    void *ctx;
    struct hasher *hasher;
    struct slot slots[SLOTS];
    size_t room_used; /* of the piece that is being filled */
    uint64_t size;
    uint32_t crc; /* of all that was handed on */

    pthread_mutex_t lock; /* guards what follows, and the slots' packed */
    pthread_cond_t changed;
    /* Numbers of pieces, ever growing: piece n is in slot n % SLOTS. */
    uint64_t filled, taken, hashed, written;
    bool ended, failed;
    struct error err;

    pthread_t threads[COMPRESSORS + 2];
    size_t thread_count;
    bool started;
};

static void fail(struct pack *pack, const struct error *err)
{
    pthread_mutex_lock(&pack->lock);
    if (!pack->failed) {
        pack->failed = true;
        pack->err = *err;
    }
    pthread_cond_broadcast(&pack->changed);
    pthread_mutex_unlock(&pack->lock);
}

/* ---- one piece ---- */

struct compressor {
    struct isal_zstream stream;
    uint8_t level[ISAL_DEF_LVL1_DEFAULT];
};

static int compress_piece(struct compressor *compressor, struct slot *slot, struct error *err)
{
    struct isal_zstream *stream = &compressor->stream;

    if (!slot->out)
        slot->out = mem_alloc(PACKED_MAX);
    memset(slot->in + slot->in_len, 0, TAIL);
    isal_deflate_init(stream);
    stream->level = 1;
    stream->level_buf = compressor->level;
    stream->level_buf_size = sizeof compressor->level;
    stream->gzip_flag = IGZIP_DEFLATE;
    stream->flush = FULL_FLUSH;
    stream->next_in = slot->in;
    stream->avail_in = (uint32_t)slot->in_len;
    stream->next_out = slot->out;
    stream->avail_out = PACKED_MAX;
    int status = isal_deflate(stream);
    if (status != COMP_OK || stream->avail_in || !stream->avail_out)
        return error_set(err, ERR_INTERNAL, "cannot compress the layer (%d)", status);
    slot->out_len = PACKED_MAX - stream->avail_out;
    slot->crc = crc32_gzip_refl(0, slot->in, slot->in_len);
    return 0;
}

static int hand_on(struct pack *pack, const struct slot *slot, struct error *err)
{
    pack->crc = (uint32_t)crc32_combine(pack->crc, slot->crc, (z_off_t)slot->in_len);
    return pack->sink(pack->ctx, slot->out, slot->out_len, err);
}

/* ---- the threads: each waits for its number to fall behind ---- */

/* A piece to compress, or false at the end. */
static bool take(struct pack *pack, struct slot **slot)
{
    pthread_mutex_lock(&pack->lock);
    while (pack->taken == pack->filled && !pack->ended && !pack->failed)
        pthread_cond_wait(&pack->changed, &pack->lock);
    bool got = pack->taken < pack->filled && !pack->failed;
    if (got)
        *slot = &pack->slots[pack->taken++ % SLOTS];
    pthread_mutex_unlock(&pack->lock);
    return got;
}

static void *compress_thread(void *arg)
{
    struct pack *pack = arg;
    cleanup_free struct compressor *compressor = mem_alloc(sizeof *compressor);
    struct slot *slot;

    while (take(pack, &slot)) {
        struct error err = {0};
        if (compress_piece(compressor, slot, &err) != 0)
            fail(pack, &err);
        pthread_mutex_lock(&pack->lock);
        slot->packed = true;
        pthread_cond_broadcast(&pack->changed);
        pthread_mutex_unlock(&pack->lock);
    }
    return NULL;
}

/* The piece number *done, once it is there; `packed`: and compressed. */
static bool next(struct pack *pack, const uint64_t *done, bool packed, struct slot **slot)
{
    pthread_mutex_lock(&pack->lock);
    for (;;) {
        *slot = &pack->slots[*done % SLOTS];
        if (pack->failed || (*done < pack->filled && (!packed || (*slot)->packed)))
            break;
        if (*done == pack->filled && pack->ended)
            break;
        pthread_cond_wait(&pack->changed, &pack->lock);
    }
    bool got = *done < pack->filled && !pack->failed;
    pthread_mutex_unlock(&pack->lock);
    return got;
}

static void advance(struct pack *pack, uint64_t *done)
{
    pthread_mutex_lock(&pack->lock);
    ++*done;
    pthread_cond_broadcast(&pack->changed);
    pthread_mutex_unlock(&pack->lock);
}

static void *hash_thread(void *arg)
{
    struct pack *pack = arg;
    struct slot *slot;

    while (next(pack, &pack->hashed, false, &slot)) {
        hasher_update(pack->hasher, slot->in, slot->in_len);
        advance(pack, &pack->hashed);
    }
    return NULL;
}

static void *write_thread(void *arg)
{
    struct pack *pack = arg;
    struct slot *slot;

    while (next(pack, &pack->written, true, &slot)) {
        struct error err = {0};
        if (hand_on(pack, slot, &err) != 0) {
            fail(pack, &err);
            break;
        }
        slot->packed = false; /* nobody else looks at it before the next line */
        advance(pack, &pack->written);
    }
    return NULL;
}

static int start(struct pack *pack, struct error *err)
{
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    size_t compressors = processors < 1             ? 1
                         : processors < COMPRESSORS ? (size_t)processors
                                                    : COMPRESSORS;

    pack->started = true;
    for (size_t i = 0; i < compressors + 2; i++) {
        void *(*fn)(void *) = i == 0 ? write_thread : i == 1 ? hash_thread : compress_thread;
        int status = pthread_create(&pack->threads[i], NULL, fn, pack);
        if (status == 0)
            pack->thread_count++;
        else if (i < 3) /* one of each kind is enough */
            return error_errno(err, status, "cannot start a thread");
        else
            break;
    }
    return 0;
}

/* ---- the caller's side ---- */

struct pack *pack_new(pack_sink_fn *sink, void *ctx)
{
    struct pack *pack = mem_alloc(sizeof *pack);

    pack->sink = sink;
    pack->ctx = ctx;
    pack->hasher = hasher_new();
    pthread_mutex_init(&pack->lock, NULL);
    pthread_cond_init(&pack->changed, NULL);
    return pack;
}

static void join(struct pack *pack)
{
    for (size_t i = 0; i < pack->thread_count; i++)
        pthread_join(pack->threads[i], NULL);
    pack->thread_count = 0;
}

void pack_free(struct pack *pack)
{
    static const struct error stopped = {.code = ERR_CANCELLED};

    if (!pack)
        return;
    if (pack->thread_count)
        fail(pack, &stopped);
    join(pack);
    for (size_t i = 0; i < SLOTS; i++) {
        free(pack->slots[i].in);
        free(pack->slots[i].out);
    }
    hasher_drop(pack->hasher);
    pthread_cond_destroy(&pack->changed);
    pthread_mutex_destroy(&pack->lock);
    free(pack);
}

uint8_t *pack_space(struct pack *pack, size_t *room)
{
    struct slot *slot = &pack->slots[pack->filled % SLOTS];

    if (!slot->in)
        slot->in = mem_alloc(PACK_PIECE + TAIL);
    *room = PACK_PIECE - pack->room_used;
    return slot->in + pack->room_used;
}

static int error_of(struct pack *pack, struct error *err)
{
    if (err)
        *err = pack->err;
    return -1;
}

static int put_header(struct pack *pack, struct error *err)
{
    static const uint8_t header[] = {0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4 /* fastest */, GZIP_OS};

    return pack->sink(pack->ctx, header, sizeof header, err);
}

/* The piece is whole: to the threads, and wait until the next one's slot is free. */
static int hand_over(struct pack *pack, struct error *err)
{
    if (!pack->started && (put_header(pack, err) != 0 || start(pack, err) != 0))
        return -1;
    pthread_mutex_lock(&pack->lock);
    pack->slots[pack->filled % SLOTS].in_len = pack->room_used;
    pack->filled++;
    pthread_cond_broadcast(&pack->changed);
    while (!pack->failed &&
           (pack->filled - pack->written == SLOTS || pack->filled - pack->hashed == SLOTS))
        pthread_cond_wait(&pack->changed, &pack->lock);
    bool failed = pack->failed;
    pthread_mutex_unlock(&pack->lock);
    pack->room_used = 0;
    return failed ? error_of(pack, err) : 0;
}

int pack_filled(struct pack *pack, size_t len, struct error *err)
{
    pack->room_used += len;
    pack->size += len;
    return pack->room_used == PACK_PIECE ? hand_over(pack, err) : 0;
}

int pack_write(struct pack *pack, const void *data, size_t len, struct error *err)
{
    const uint8_t *from = data;

    while (len) {
        size_t room;
        uint8_t *to = pack_space(pack, &room);
        size_t n = room < len ? room : len;
        memcpy(to, from, n);
        from += n;
        len -= n;
        if (pack_filled(pack, n, err) != 0)
            return -1;
    }
    return 0;
}

/* A stream of less than a piece. */
static int pack_inline(struct pack *pack, struct error *err)
{
    cleanup_free struct compressor *compressor = mem_alloc(sizeof *compressor);
    struct slot *slot = &pack->slots[0];

    if (put_header(pack, err) != 0)
        return -1;
    if (!pack->room_used)
        return 0;
    slot->in_len = pack->room_used;
    hasher_update(pack->hasher, slot->in, slot->in_len);
    return compress_piece(compressor, slot, err) == 0 ? hand_on(pack, slot, err) : -1;
}

static void little_endian(uint8_t *to, uint32_t n)
{
    for (int i = 0; i < 4; i++)
        to[i] = (uint8_t)(n >> (8 * i));
}

/* An empty last block, then the checksum and the size of the input. */
static int put_trailer(struct pack *pack, struct error *err)
{
    uint8_t trailer[10] = {3, 0};

    little_endian(trailer + 2, pack->crc);
    little_endian(trailer + 6, (uint32_t)pack->size);
    return pack->sink(pack->ctx, trailer, sizeof trailer, err);
}

int pack_finish(struct pack *pack, uint64_t *size, struct digest *sum, struct error *err)
{
    if (!pack->started) {
        if (pack_inline(pack, err) != 0)
            return -1;
    } else {
        if (pack->room_used && hand_over(pack, err) != 0)
            return -1;
        pthread_mutex_lock(&pack->lock);
        pack->ended = true;
        pthread_cond_broadcast(&pack->changed);
        pthread_mutex_unlock(&pack->lock);
        join(pack);
        if (pack->failed)
            return error_of(pack, err);
    }
    if (put_trailer(pack, err) != 0)
        return -1;
    *size = pack->size;
    hasher_finish(pack->hasher, sum);
    pack->hasher = NULL;
    return 0;
}
