#include "oci/store_mark.h"

#include <string.h>

#include "base/mem.h"
#include "oci/store_internal.h"

static void mark(const struct value *v, struct path_set *digests)
{
    if (v->kind == VALUE_ARRAY) {
        for (size_t i = 0; i < v->as.array.count; i++)
            mark(&v->as.array.items[i], digests);
    } else if (v->kind == VALUE_MAP) {
        const char *digest = value_get_string(v, "digest", NULL);
        if (digest_kind(digest))
            path_set_add(digests, digest);
        for (size_t i = 0; i < v->as.map.count; i++)
            mark(&v->as.map.pairs[i].value, digests);
    }
}

void store_mark_json(const char *text, size_t len, struct path_set *digests)
{
    cleanup_value struct value json = {0};

    if (value_from_json(text ? text : "", len, "manifest", NULL, &json, NULL) == 0)
        mark(&json, digests);
}

/* Within one repository; 1: fn wants no more. */
static int each_of(struct store *store, const char *name, store_manifest_fn *fn, void *ctx,
                   struct error *err)
{
    cleanup_value struct value digests = {0};

    if (store_manifests(store, name, &digests, err) != 0)
        return -1;
    for (size_t i = 0; i < value_count(&digests); i++) {
        const char *digest = value_text(value_at(&digests, i), "");
        cleanup_buf struct buf content = BUF_INIT;
        struct error problem = {0};
        bool there = store_blob_read(store, digest, STORE_MANIFEST_LIMIT, &content, &problem) == 0;
        if (!there && problem.code != ERR_NOT_FOUND && problem.code != ERR_TOO_LARGE) {
            if (err)
                *err = problem;
            return -1;
        }
        if (!fn(ctx, name, digest, there ? &content : NULL))
            return 1;
    }
    return 0;
}

int store_each_manifest(struct store *store, store_manifest_fn *fn, void *ctx, struct error *err)
{
    cleanup_value struct value names = {0};

    if (store_repositories(store, &names, err) != 0)
        return -1;
    for (size_t i = 0; i < value_count(&names); i++) {
        int status = each_of(store, value_text(value_at(&names, i), ""), fn, ctx, err);
        if (status != 0)
            return status < 0 ? -1 : 0;
    }
    return 0;
}

/* ---- blobs as one repository sees them ---- */

/*
 * Blobs are one pool, and every repository sees all of it, so that nobody uploads what another one
 * has. Only DELETE makes a difference: repositories/<name>/_deleted/<hex> hides a blob from that
 * repository until it is uploaded or mounted there again.
 */
static char *hidden_path(const char *name, const char *digest)
{
    return mem_printf("repositories/%s/_deleted/%s", name, digest + 7);
}

bool store_blob_in(struct store *store, const char *name, const char *digest, uint64_t *size)
{
    if (!store_name_valid(name) || !store_blob_exists(store, digest, size))
        return false;
    cleanup_free char *path = hidden_path(name, digest);
    return !store_file_exists(store, path);
}

void store_blob_claim(struct store *store, const char *name, const char *digest)
{
    if (!store_name_valid(name) || !digest_kind(digest))
        return;
    cleanup_free char *path = hidden_path(name, digest);
    store_file_remove(store, path);
}

struct elsewhere {
    const char *name, *digest;
    bool found;
};

/* Does a manifest need the blob, other than the repository's own? It may also be a manifest. */
static bool look(void *ctx, const char *name, const char *digest, const struct buf *content)
{
    struct elsewhere *search = ctx;
    struct path_set named = {0};

    if (strcmp(digest, search->digest) == 0) {
        search->found = true;
    } else if (content && strcmp(name, search->name) != 0 &&
               memmem(content->data, content->len, search->digest + 7,
                      strlen(search->digest + 7))) {
        store_mark_json(content->data, content->len, &named);
        search->found = path_set_has(&named, search->digest);
        path_set_free(&named);
    }
    return !search->found;
}

int store_blob_forget(struct store *store, const char *name, const char *digest, struct error *err)
{
    struct elsewhere search = {.name = name, .digest = digest};

    if (!store_blob_in(store, name, digest, NULL))
        return error_set(err, ERR_NOT_FOUND, "blob %s is not in %s", digest, name);
    if (store_each_manifest(store, look, &search, err) != 0)
        return -1;
    if (!search.found)
        return store_blob_delete(store, digest, err);
    cleanup_free char *folder = mem_printf("repositories/%s/_deleted", name),
                      *path = hidden_path(name, digest);
    return store_make_dirs(store, folder, err) != 0 ? -1 : store_write(store, path, "", err);
}
