/* Layers of COPY, ADD and WORKDIR that were made before. */
#include <errno.h>
#include <unistd.h>

#include "base/mem.h"
#include "oci/build_copy.h"

/* Everything of an entry but its content. */
static void mix_item(struct cache_key *key, const struct item *item)
{
    cache_key_text(key, "path", item->to);
    cache_key_number(key, "mode", item->mode);
    cache_key_number(key, "uid", item->uid);
    cache_key_number(key, "gid", item->gid);
    cache_key_text(key, "link", item->link);
    if (item->hard)
        cache_key_text(key, "hard", item->hard);
    if (item->own_time)
        cache_key_number(key, "time", item->mtime);
    for (size_t i = 0; i < item->attribute_count; i++) {
        cache_key_text(key, "attribute", item->attributes[i].name);
        cache_key_bytes(key, "value", item->attributes[i].data, item->attributes[i].len);
    }
    cache_key_number(key, "size", S_ISREG(item->mode) ? (int64_t)item->size : 0);
}

static const struct context_file *context_item(const struct copy *copy, const struct item *item)
{
    return S_ISREG(item->mode) && item->from && !copy->from_stage
               ? context_find(copy->builder->context, item->from)
               : NULL;
}

/* What is in the spool came out of an archive: it has to be looked at. */
static int mix_spooled(struct copy *copy, struct cache_key *key, const struct item *item,
                       struct error *err)
{
    struct hasher *hasher = hasher_new();
    struct digest digest;
    char piece[65536];
    uint64_t at = 0;

    while (at < item->size) {
        size_t want = item->size - at < sizeof piece ? (size_t)(item->size - at) : sizeof piece;
        ssize_t n = pread(copy->spool, piece, want, (off_t)(item->offset + at));
        if (n <= 0) {
            hasher_drop(hasher);
            return error_errno(err, n < 0 ? errno : EIO, "cannot read %s back", item->to);
        }
        hasher_update(hasher, piece, (size_t)n);
        at += (uint64_t)n;
    }
    hasher_finish(hasher, &digest);
    cache_key_text(key, "content", digest.text);
    return 0;
}

/* One of three keys over the entries: EXACT names files by inode and times, so nothing is read;
 * CONTENT by what is in them; SHAPE leaves that open. */
enum key_kind { EXACT, CONTENT, SHAPE };

static int copy_key(struct copy *copy, enum key_kind kind, struct digest *out, struct error *err)
{
    static const char *const names[] = {"copy files", "copy content", "copy shape"};
    struct cache_key *key = cache_key_new(names[kind]);
    int status = 0;

    cache_key_number(key, "epoch", copy->builder->spec->epoch);
    for (size_t i = 0; status == 0 && i < copy->count; i++) {
        const struct item *item = &copy->items[i];
        const struct context_file *file = context_item(copy, item);
        struct digest digest;
        mix_item(key, item);
        if (!S_ISREG(item->mode) || kind == SHAPE)
            continue;
        if (file && kind == EXACT) {
            cache_key_text(key, "context", copy->builder->context->path);
            cache_key_text(key, "file", file->path);
            cache_key_number(key, "inode", (int64_t)file->inode);
            cache_key_number(key, "modified", file->modified_ns);
            cache_key_number(key, "changed", file->changed_ns);
        } else if (file) {
            status = context_digest(copy->builder->context, file, &digest, err);
            cache_key_text(key, "content", status == 0 ? digest.text : "");
        } else if (item->from) {
            const struct value *layer = value_at(&copy->from_stage->layers, (size_t)item->layer);
            cache_key_text(key, "layer", value_get_string(layer, "digest", ""));
            cache_key_text(key, "file", item->from);
        } else {
            status = mix_spooled(copy, key, item, err);
        }
    }
    cache_key_finish(key, out);
    return status;
}

#define HASHED_ANYWAY (UINT64_C(64) << 20)

/* Whether reading the files for their digests can pay: a layer of large files is packed about as
 * fast as they are read, so these are read only when one with the same paths and sizes is there. */
static int unknown_contents(struct copy *copy, struct copy_keys *keys, struct error *err)
{
    struct context *context = copy->builder->context;
    cleanup_free const struct context_file **files =
        mem_alloc((copy->count + 1) * sizeof(struct context_file *));
    uint64_t unknown = 0;
    size_t count = 0;
    struct cached_layer seen;

    for (size_t i = 0; i < copy->count; i++) {
        const struct context_file *file = context_item(copy, &copy->items[i]);
        if (!file || context_digest_known(context, file))
            continue;
        unknown += file->size;
        files[count++] = file;
    }
    if (unknown > HASHED_ANYWAY &&
        !build_cache_get(copy->builder->spec->store, &keys->shape, &seen))
        return 0;
    keys->has_content = true;
    return count ? context_digest_all(context, files, count, err) : 0;
}

int copy_cached(struct copy *copy, struct copy_keys *keys, struct cached_layer *layer,
                struct error *err)
{
    struct store *store = copy->builder->spec->store;

    for (size_t i = 0; i < copy->count; i++) {
        const struct context_file *file = context_item(copy, &copy->items[i]);
        if (file && !context_settled(copy->builder->context, file))
            copy->unsettled = true;
    }
    keys->has_exact = !copy->unsettled;
    if (copy_key(copy, EXACT, &keys->exact, err) != 0 ||
        copy_key(copy, SHAPE, &keys->shape, err) != 0)
        return -1;
    if (build_cache_reads(copy->builder->spec) && keys->has_exact &&
        build_cache_get(store, &keys->exact, layer)) {
        keys->known = true;
        return 1;
    }
    if (unknown_contents(copy, keys, err) != 0 ||
        (keys->has_content && copy_key(copy, CONTENT, &keys->content, err) != 0))
        return -1;
    return build_cache_reads(copy->builder->spec) && keys->has_content &&
           build_cache_get(store, &keys->content, layer);
}

int copy_keep(struct copy *copy, const struct copy_keys *keys, const struct cached_layer *layer,
              struct error *err)
{
    static const struct cached_layer seen = {.kind = CACHED_SEEN};
    struct store *store = copy->builder->spec->store;

    if (copy->unsettled || keys->known)
        return 0;
    if ((keys->has_exact && build_cache_put(store, &keys->exact, layer, err) != 0) ||
        (keys->has_content && build_cache_put(store, &keys->content, layer, err) != 0))
        return -1;
    return build_cache_put(store, &keys->shape, &seen, err);
}
