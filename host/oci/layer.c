#include "oci/layer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "oci/pack.h"

#define BLOCK          512u
#define OCTAL_SIZE_MAX UINT64_C(077777777777)
#define OCTAL_ID_MAX   07777777u

struct layer {
    struct upload *upload;
    struct pack *pack;
    const struct layer_watcher *watcher;
    void *watch;
    int64_t mtime;
    size_t entries;
    bool raw;
    int64_t deadline;
    const struct cancel *cancel;
};

static int keep(void *ctx, const void *data, size_t len, struct error *err)
{
    struct layer *layer = ctx;

    if (store_blob_write(layer->upload, data, len, err) != 0)
        return -1;
    if (layer->watcher)
        layer->watcher->grown(layer->watch, store_upload_size(layer->upload));
    return 0;
}

struct layer *layer_new(struct store *store, int64_t mtime, const struct layer_watcher *watcher,
                        struct error *err)
{
    struct upload *upload = store_blob_begin(store, err);

    if (!upload)
        return NULL;
    struct layer *layer = mem_alloc(sizeof *layer);
    layer->upload = upload;
    layer->pack = pack_new(keep, layer);
    layer->mtime = mtime < 0 ? 0 : mtime;
    layer->watcher = watcher;
    if (watcher)
        layer->watch = watcher->begin(watcher->ctx, store_upload_fd(upload));
    return layer;
}

size_t layer_entries(const struct layer *layer)
{
    return layer->entries;
}

static int put(struct layer *layer, const void *data, size_t len, struct error *err)
{
    return pack_write(layer->pack, data, len, err);
}

int layer_raw(struct layer *layer, const void *data, size_t len, struct error *err)
{
    layer->raw = true;
    return put(layer, data, len, err);
}

static int pad(struct layer *layer, uint64_t size, struct error *err)
{
    static const uint8_t zeros[BLOCK];
    size_t rest = (size_t)(size % BLOCK);

    return rest ? put(layer, zeros, BLOCK - rest, err) : 0;
}

struct header { /* POSIX.1-1988 ustar */
    char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], sum[8], type, link[100], magic[6],
        version[2], user[32], group[32], major[8], minor[8], prefix[155], rest[12];
};
_Static_assert(sizeof(struct header) == BLOCK, "a tar header is one block");

void attributes_copy(const struct layer_attribute *from, size_t count, struct layer_attribute **to)
{
    *to = count ? mem_alloc(count * sizeof **to) : NULL;
    for (size_t i = 0; i < count; i++) {
        (*to)[i] = (struct layer_attribute){mem_strdup(from[i].name), mem_alloc(from[i].len + 1),
                                            from[i].len};
        memcpy((*to)[i].data, from[i].data, from[i].len);
    }
}

void attributes_free(struct layer_attribute *attributes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(attributes[i].name);
        free(attributes[i].data);
    }
    free(attributes);
}

static void octal(char *field, size_t size, uint64_t n)
{
    field[--size] = '\0';
    while (size) {
        field[--size] = (char)('0' + (n & 7));
        n >>= 3;
    }
}

static void field_text(char *field, size_t size, const char *text, size_t len)
{
    memcpy(field, text, len < size ? len : size);
}

/* A name in name and prefix; false when it does not fit. */
static bool split_name(struct header *header, const char *name)
{
    size_t len = strlen(name);

    if (len <= sizeof header->name) {
        field_text(header->name, sizeof header->name, name, len);
        return true;
    }
    if (len > sizeof header->name + 1 + sizeof header->prefix)
        return false;
    for (size_t at = len - sizeof header->name - 1; at <= sizeof header->prefix && at + 1 < len;
         at++)
        if (at > 0 && name[at] == '/') {
            field_text(header->prefix, sizeof header->prefix, name, at);
            field_text(header->name, sizeof header->name, name + at + 1, len - at - 1);
            return true;
        }
    return false;
}

/* "<length> key=value\n", the length counting itself. */
static void pax_bytes(struct buf *out, const char *key, const void *data, size_t len)
{
    size_t body = strlen(key) + len + 3, total = body + 1;
    char digits[24];

    while ((size_t)snprintf(digits, sizeof digits, "%zu", total) + body != total)
        total++;
    buf_printf(out, "%zu %s=", total, key);
    buf_append(out, data, len);
    buf_putc(out, '\n');
}

static void pax_record(struct buf *out, const char *key, const char *text)
{
    pax_bytes(out, key, text, strlen(text));
}

static int put_header(struct layer *layer, struct header *header, struct error *err)
{
    unsigned sum = 0;

    memcpy(header->magic, "ustar", 6);
    memcpy(header->version, "00", 2);
    memset(header->sum, ' ', sizeof header->sum);
    for (size_t i = 0; i < BLOCK; i++)
        sum += ((const uint8_t *)header)[i];
    snprintf(header->sum, sizeof header->sum, "%06o", sum & 0777777);
    header->sum[7] = ' ';
    return put(layer, header, BLOCK, err);
}

static int put_pax(struct layer *layer, const struct buf *records, struct error *err)
{
    struct header header = {0};

    field_text(header.name, sizeof header.name, "././@PaxHeader", 14);
    octal(header.mode, sizeof header.mode, 0644);
    octal(header.uid, sizeof header.uid, 0);
    octal(header.gid, sizeof header.gid, 0);
    octal(header.size, sizeof header.size, records->len);
    octal(header.mtime, sizeof header.mtime, 0);
    header.type = 'x';
    if (put_header(layer, &header, err) != 0 || put(layer, records->data, records->len, err) != 0)
        return -1;
    return pad(layer, records->len, err);
}

static int go_on(const struct layer *layer, struct error *err)
{
    if (cancelled(layer->cancel))
        return error_set(err, ERR_CANCELLED, "making the layer was cancelled");
    if (layer->deadline && deadline_passed(layer->deadline))
        return error_set(err, ERR_TIMEOUT, "making the layer took too long");
    return 0;
}

static int put_content(struct layer *layer, const struct layer_entry *entry, struct error *err)
{
    if (entry->data || !entry->size)
        return put(layer, entry->data, (size_t)entry->size, err) == 0 ? pad(layer, entry->size, err)
                                                                      : -1;
    uint64_t at = 0;
    while (at < entry->size) {
        size_t room;
        if (go_on(layer, err) != 0)
            return error_wrap(err, "%s", entry->path);
        uint8_t *to = pack_space(layer->pack, &room);
        if (room > entry->size - at)
            room = (size_t)(entry->size - at);
        ssize_t n = pread(entry->fd, to, room, (off_t)(entry->offset + at));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_errno(err, errno, "cannot read %s", entry->path);
        if (n == 0) {
            error_set(err, ERR_CONFLICT, "%s became shorter while it was read", entry->path);
            return error_hint(err, "do not change files of the context during a build");
        }
        at += (uint64_t)n;
        if (pack_filled(layer->pack, (size_t)n, err) != 0)
            return -1;
    }
    return pad(layer, entry->size, err);
}

void layer_until(struct layer *layer, int64_t deadline, const struct cancel *cancel)
{
    layer->deadline = deadline;
    layer->cancel = cancel;
}

static char type_of(const struct layer_entry *entry)
{
    if (entry->hard)
        return '1';
    switch (entry->mode & S_IFMT) {
    case S_IFDIR:
        return '5';
    case S_IFLNK:
        return '2';
    case S_IFCHR:
        return '3';
    case S_IFBLK:
        return '4';
    case S_IFIFO:
        return '6';
    default:
        return '0';
    }
}

int layer_add(struct layer *layer, const struct layer_entry *entry, struct error *err)
{
    struct header header = {0};
    cleanup_buf struct buf pax = BUF_INIT;
    bool directory = S_ISDIR(entry->mode) && !entry->hard;
    bool content = S_ISREG(entry->mode) && !entry->hard;
    cleanup_free char *name = mem_printf("%s%s", entry->path, directory ? "/" : "");
    char number[24];

    if (!split_name(&header, name)) {
        pax_record(&pax, "path", name);
        field_text(header.name, sizeof header.name, name, strlen(name));
    }
    if (entry->link) {
        if (strlen(entry->link) > sizeof header.link)
            pax_record(&pax, "linkpath", entry->link);
        field_text(header.link, sizeof header.link, entry->link, strlen(entry->link));
    }
    uint64_t size = content ? entry->size : 0;
    if (size > OCTAL_SIZE_MAX) {
        snprintf(number, sizeof number, "%llu", (unsigned long long)size);
        pax_record(&pax, "size", number);
    }
    if (entry->uid > OCTAL_ID_MAX) {
        snprintf(number, sizeof number, "%u", entry->uid);
        pax_record(&pax, "uid", number);
    }
    if (entry->gid > OCTAL_ID_MAX) {
        snprintf(number, sizeof number, "%u", entry->gid);
        pax_record(&pax, "gid", number);
    }
    for (size_t i = 0; i < entry->attribute_count; i++) {
        cleanup_free char *key = mem_printf("SCHILY.xattr.%s", entry->attributes[i].name);
        pax_bytes(&pax, key, entry->attributes[i].data, entry->attributes[i].len);
    }
    if (pax.len && put_pax(layer, &pax, err) != 0)
        return -1;
    octal(header.mode, sizeof header.mode, entry->mode & 07777);
    octal(header.uid, sizeof header.uid, entry->uid > OCTAL_ID_MAX ? 0 : entry->uid);
    octal(header.gid, sizeof header.gid, entry->gid > OCTAL_ID_MAX ? 0 : entry->gid);
    octal(header.size, sizeof header.size, size > OCTAL_SIZE_MAX ? 0 : size);
    octal(header.mtime, sizeof header.mtime,
          (uint64_t)(!entry->own_time   ? layer->mtime
                     : entry->mtime > 0 ? entry->mtime
                                        : 0));
    header.type = type_of(entry);
    layer->entries++;
    if (put_header(layer, &header, err) != 0)
        return -1;
    return content ? put_content(layer, entry, err) : 0;
}

void layer_drop(struct layer *layer)
{
    if (!layer)
        return;
    pack_free(layer->pack); /* first: its threads write to the upload */
    if (layer->watcher)
        layer->watcher->end(layer->watch, NULL);
    store_blob_abort(layer->upload);
    free(layer);
}

int layer_finish(struct layer *layer, struct layer_result *out, struct error *err)
{
    static const uint8_t end[2 * BLOCK];
    int status = -1;

    if ((layer->raw || put(layer, end, sizeof end, err) == 0) &&
        pack_finish(layer->pack, &out->tar_size, &out->diff_id, err) == 0) {
        out->size = store_upload_size(layer->upload);
        out->entries = layer->entries;
        status = store_blob_commit(layer->upload, NULL, &out->digest, err);
        layer->upload = NULL;
    }
    if (status == 0 && layer->watcher) {
        layer->watcher->end(layer->watch, &out->digest);
        layer->watcher = NULL;
    }
    layer_drop(layer);
    return status;
}
