/* Digests of the files of a context, remembered from build to build. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "oci/build_cache.h"
#include "oci/context.h"
#include "oci/store_internal.h"
#include "oci/workers.h"

#define MAGIC       "mlhost-files 1\n"
#define MAGIC_LEN   (sizeof MAGIC - 1)
#define INDEX_LIMIT (512u << 20)
#define SUM         32
#define COARSE_NS   (2 * NS_PER_S)   /* what the coarsest file systems round times to */
#define FINE_NS     (30 * NS_PER_MS) /* several ticks of the kernel's clock */

enum state { UNKNOWN, WANTED, KNOWN };

struct known {
    uint8_t state;
    uint8_t sum[SUM];
};

struct context_known {
    struct store *store;
    char *path; /* of the index, below the store */
    bool changed;
    struct known *files; /* one for each of the context */
};

/* One of the index, followed by the path. All of it is of this machine: no byte order. */
struct record {
    uint8_t sum[SUM];
    uint64_t size, inode;
    int64_t modified_ns, changed_ns;
    uint32_t path_len, zero;
};

static int nibble(char c)
{
    return c <= '9' ? c - '0' : c - 'a' + 10;
}

static void sum_pack(const struct digest *digest, uint8_t out[SUM])
{
    for (size_t i = 0; i < SUM; i++)
        out[i] = (uint8_t)(nibble(digest->text[7 + 2 * i]) << 4 | nibble(digest->text[8 + 2 * i]));
}

static void sum_print(const uint8_t sum[SUM], struct digest *out)
{
    memcpy(out->text, "sha256:", 8);
    for (size_t i = 0; i < SUM; i++)
        snprintf(out->text + 7 + 2 * i, 3, "%02x", sum[i]);
}

static struct context_known *known_of(struct context *context)
{
    if (!context->known) {
        context->known = mem_alloc(sizeof *context->known);
        context->known->files = mem_alloc((context->count + 1) * sizeof(struct known));
    }
    return context->known;
}

void context_known_free(struct context_known *known)
{
    if (!known)
        return;
    free(known->path);
    free(known->files);
    free(known);
}

bool context_settled(const struct context *context, const struct context_file *file)
{
    int64_t last = file->modified_ns > file->changed_ns ? file->modified_ns : file->changed_ns;
    bool coarse = file->modified_ns % NS_PER_S == 0 && file->changed_ns % NS_PER_S == 0;

    return last < context->listed_ns - (coarse ? COARSE_NS : FINE_NS);
}

static bool same_still(const struct context *context, const struct context_file *file)
{
    struct context_file now = {0};
    struct stat st;

    if (fstatat(context->dir, file->path, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return false;
    context_file_stat(&now, &st);
    return now.mode == file->mode && now.size == file->size && now.inode == file->inode &&
           now.modified_ns == file->modified_ns && now.changed_ns == file->changed_ns;
}

bool context_unchanged(const struct context *context)
{
    for (size_t i = 0; i < context->count; i++)
        if (S_ISREG(context->files[i].mode) && !same_still(context, &context->files[i]))
            return false;
    return true;
}

void context_settle(struct context *context)
{
    const struct timespec pause = {.tv_nsec = FINE_NS + 5 * NS_PER_MS};
    int64_t now;
    size_t fresh = 0;

    for (size_t i = 0; i < context->count; i++)
        fresh += S_ISREG(context->files[i].mode) && !context_settled(context, &context->files[i]);
    if (!fresh)
        return;
    nanosleep(&pause, NULL);
    now = clock_wall_ms() * NS_PER_MS;
    for (size_t i = 0; i < context->count; i++)
        if (S_ISREG(context->files[i].mode) && !context_settled(context, &context->files[i]) &&
            !same_still(context, &context->files[i]))
            return;
    context->listed_ns = now;
}

static void take(struct context *context, const struct record *record, const char *path)
{
    cleanup_free char *name = mem_strndup(path, record->path_len);
    const struct context_file *file = context_find(context, name);

    if (!file || !S_ISREG(file->mode) || file->size != record->size ||
        file->inode != record->inode || file->modified_ns != record->modified_ns ||
        file->changed_ns != record->changed_ns)
        return;
    struct known *known = &context->known->files[file - context->files];
    known->state = KNOWN;
    memcpy(known->sum, record->sum, SUM);
}

/* What was cut or changed on its way through a disk is not believed: the file ends with its
 * digest. */
static void read_index(struct context *context, const struct buf *text)
{
    struct digest digest;
    uint8_t sum[SUM];

    if (text->len < MAGIC_LEN + SUM || memcmp(text->data, MAGIC, MAGIC_LEN) != 0)
        return;
    size_t end = text->len - SUM, at = MAGIC_LEN;
    digest_bytes(text->data, end, &digest);
    sum_pack(&digest, sum);
    if (memcmp(sum, text->data + end, SUM) != 0)
        return;
    while (end - at >= sizeof(struct record)) {
        struct record record;
        memcpy(&record, text->data + at, sizeof record);
        at += sizeof record;
        if (record.path_len > end - at)
            return;
        take(context, &record, text->data + at);
        at += record.path_len;
    }
}

void context_remember(struct context *context, struct store *store)
{
    cleanup_buf struct buf text = BUF_INIT;
    struct context_known *known = known_of(context);
    struct digest name;
    cleanup_free char *place =
        mem_printf("%s\n%s", context->path, context->ignore_file ? context->ignore_file : "");

    digest_bytes(place, strlen(place), &name);
    free(known->path);
    known->path = mem_printf(BUILD_CACHE_FILES "/%s", name.text + 7);
    known->store = store;
    if (file_read(store->dir, known->path, INDEX_LIMIT, &text, NULL) == 0) {
        build_cache_touch(store, known->path);
        read_index(context, &text);
    }
}

void context_known_save(struct context *context)
{
    struct context_known *known = context ? context->known : NULL;
    cleanup_buf struct buf text = BUF_INIT;
    struct digest digest;
    uint8_t sum[SUM];

    if (!known || !known->store || !known->changed ||
        store_make_dirs(known->store, BUILD_CACHE_FILES, NULL) != 0)
        return;
    buf_append(&text, MAGIC, MAGIC_LEN);
    for (size_t i = 0; i < context->count; i++) {
        const struct context_file *file = &context->files[i];
        if (known->files[i].state != KNOWN || !context_settled(context, file))
            continue;
        struct record record = {.size = file->size,
                                .inode = file->inode,
                                .modified_ns = file->modified_ns,
                                .changed_ns = file->changed_ns,
                                .path_len = (uint32_t)strlen(file->path)};
        memcpy(record.sum, known->files[i].sum, SUM);
        buf_append(&text, &record, sizeof record);
        buf_append(&text, file->path, record.path_len);
    }
    digest_bytes(text.data, text.len, &digest);
    sum_pack(&digest, sum);
    buf_append(&text, sum, SUM);
    file_write(known->store->dir, known->path, text.data, text.len, false, NULL);
    known->changed = false;
}

/* ---- digests ---- */

bool context_digest_known(const struct context *context, const struct context_file *file)
{
    return context->known && context->known->files[file - context->files].state == KNOWN;
}

struct reading {
    struct context *context;
    const struct context_file **files; /* each of them once: its thread writes its slot */
};

static int read_one(void *ctx, size_t index, struct error *err)
{
    struct reading *reading = ctx;
    const struct context_file *file = reading->files[index];
    struct known *known = &reading->context->known->files[file - reading->context->files];
    struct digest digest;

    cleanup_close int fd = context_open(reading->context, file->path, err);
    if (fd < 0)
        return -1;
    if (digest_file(fd, &digest, NULL, err) != 0)
        return error_wrap(err, "%s/%s", reading->context->path, file->path);
    sum_pack(&digest, known->sum);
    known->state = KNOWN;
    return 0;
}

int context_digest_all(struct context *context, const struct context_file *const *files,
                       size_t count, struct error *err)
{
    struct context_known *known = known_of(context);
    cleanup_free const struct context_file **unknown =
        mem_alloc((count + 1) * sizeof(struct context_file *));
    size_t todo = 0;

    for (size_t i = 0; i < count; i++) {
        struct known *slot = &known->files[files[i] - context->files];
        if (slot->state != UNKNOWN)
            continue;
        slot->state = WANTED;
        unknown[todo++] = files[i];
    }
    struct reading reading = {context, unknown};
    int status = workers_run(todo, read_one, &reading, err);
    for (size_t i = 0; i < todo; i++) {
        struct known *slot = &known->files[unknown[i] - context->files];
        if (slot->state == WANTED)
            slot->state = UNKNOWN;
    }
    known->changed = known->changed || todo;
    return status;
}

int context_digest(struct context *context, const struct context_file *file, struct digest *out,
                   struct error *err)
{
    if (context_digest_all(context, &file, 1, err) != 0)
        return -1;
    sum_print(context->known->files[file - context->files].sum, out);
    return 0;
}
