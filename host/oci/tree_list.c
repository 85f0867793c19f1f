/* Lists of what is in a layer, kept so that a layer is decompressed once for its names, not at
 * every build: <store>/build/trees/<hex of the layer>. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "oci/build_cache.h"
#include "oci/store_internal.h"
#include "oci/tar_read.h"
#include "oci/tree.h"

#define MAGIC      "mlhost-layer 1\n"
#define MAGIC_LEN  (sizeof MAGIC - 1)
#define LIST_LIMIT (64u << 20)  /* bytes: a layer with more names is read each time */
#define SMALL      (256u << 10) /* bytes: reading such a layer costs no more than reading its list */
#define DIGEST_LEN (sizeof "sha256:" - 1 + 64)

enum link_kind { LINK_NONE, LINK_SYMBOLIC, LINK_HARD };

/* Followed by the path and the link, each with its NUL. Of this machine: no byte order. */
struct record {
    uint64_t size;
    uint32_t mode, uid, gid, path_len, link_len, link_kind;
};

static void add_record(void *ctx, const struct tar_entry *entry)
{
    struct buf *out = ctx;
    if (out->len >= LIST_LIMIT)
        return;
    const char *link = entry->hardlink ? entry->hardlink : entry->symlink;
    struct record record = {.size = entry->size,
                            .mode = entry->mode,
                            .uid = entry->uid,
                            .gid = entry->gid,
                            .path_len = (uint32_t)strlen(entry->path),
                            .link_len = link ? (uint32_t)strlen(link) : 0,
                            .link_kind = entry->hardlink  ? LINK_HARD
                                         : entry->symlink ? LINK_SYMBOLIC
                                                          : LINK_NONE};

    buf_append(out, &record, sizeof record);
    buf_append(out, entry->path, record.path_len + 1);
    buf_append(out, link ? link : "", record.link_len + 1);
}

/* The next text of that length, which must end where it says. */
static const char *take_text(const char **at, const char *end, uint32_t len)
{
    const char *text = *at;

    if ((size_t)(end - text) <= len || text[len] != '\0' || strlen(text) != len)
        return NULL;
    *at = text + len + 1;
    return text;
}

/* One record -> entry; false: that is none. */
static bool take_record(const char **at, const char *end, struct tar_entry *entry)
{
    struct record record;

    if ((size_t)(end - *at) < sizeof record)
        return false;
    memcpy(&record, *at, sizeof record);
    *at += sizeof record;
    const char *path = take_text(at, end, record.path_len);
    const char *link = path ? take_text(at, end, record.link_len) : NULL;
    if (!link)
        return false;
    *entry = (struct tar_entry){.path = path,
                                .mode = record.mode,
                                .uid = record.uid,
                                .gid = record.gid,
                                .size = record.size,
                                .symlink = record.link_kind == LINK_SYMBOLIC ? link : NULL,
                                .hardlink = record.link_kind == LINK_HARD ? link : NULL};
    return true;
}

static char *place_of(const char *digest)
{
    return mem_printf(BUILD_CACHE_TREES "/%s", digest + 7);
}

/* The file ends with the digest of what comes before: a list that was cut or changed is none. */
static bool load(struct store *store, const char *place, struct buf *out)
{
    struct digest sum;

    if (file_read(store->dir, place, LIST_LIMIT + DIGEST_LEN, out, NULL) != 0 ||
        out->len < MAGIC_LEN + DIGEST_LEN || memcmp(out->data, MAGIC, MAGIC_LEN) != 0)
        return false;
    out->len -= DIGEST_LEN;
    digest_bytes(out->data, out->len, &sum);
    return memcmp(sum.text, out->data + out->len, DIGEST_LEN) == 0;
}

static bool add_list(struct tree *tree, const struct buf *list)
{
    const char *at = list->data + MAGIC_LEN, *end = list->data + list->len;
    struct tar_entry entry;

    while (at < end) {
        if (!take_record(&at, end, &entry))
            return false;
        tree_add_entry(tree, &entry);
    }
    tree->layers++;
    return true;
}

static void keep(struct store *store, const char *place, struct buf *list)
{
    struct digest sum;

    digest_bytes(list->data, list->len, &sum);
    buf_append(list, sum.text, DIGEST_LEN);
    if (store_make_dirs(store, BUILD_CACHE_TREES, NULL) == 0)
        file_write(store->dir, place, list->data, list->len, false, NULL);
}

int tree_add_blob(struct tree *tree, struct store *store, const char *digest, struct error *err)
{
    cleanup_buf struct buf list = BUF_INIT;
    uint64_t size;

    cleanup_close int fd = store_blob_open(store, digest, &size, err);
    if (fd < 0)
        return error_wrap(err, "layer %s", digest);
    cleanup_free char *place = place_of(digest);
    if (size > SMALL && load(store, place, &list)) {
        build_cache_touch(store, place);
        if (add_list(tree, &list))
            return 0;
        return error_set(err, ERR_INTERNAL, "%s/%s is damaged: remove it", store->root, place);
    }
    buf_clear(&list);
    buf_append(&list, MAGIC, MAGIC_LEN);
    if (tree_add_seen(tree, fd, size > SMALL ? add_record : NULL, &list, err) != 0)
        return error_wrap(err, "layer %s", digest);
    if (size > SMALL && list.len < LIST_LIMIT)
        keep(store, place, &list);
    return 0;
}
