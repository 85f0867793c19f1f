/* Repositories: manifests and tags. */
#include "oci/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "oci/store_internal.h"

#define DEPTH_MAX 32 /* components of a name: 255 bytes would allow 128 */

static bool is_alnum(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

/* Skips one separator between alphanumerics: '.', '_', '__' or dashes. 0 when there is none. */
static size_t separator(const char *at)
{
    if (*at == '.')
        return 1;
    if (*at == '_')
        return at[1] == '_' ? 2 : 1;
    return strspn(at, "-");
}

bool store_name_valid(const char *name)
{
    size_t depth = 1;

    if (!name || strlen(name) > 255)
        return false;
    for (const char *at = name;;) {
        if (!is_alnum(*at))
            return false;
        while (is_alnum(*at))
            at++;
        if (*at == '\0')
            return true;
        if (*at == '/') {
            at++;
            if (++depth > DEPTH_MAX)
                return false;
            continue;
        }
        size_t skip = separator(at);
        if (!skip)
            return false;
        at += skip;
    }
}

bool store_tag_valid(const char *tag)
{
    static const char allowed[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-";
    size_t len = tag ? strlen(tag) : 0;

    return len >= 1 && len <= 128 && *tag != '.' && *tag != '-' && strspn(tag, allowed) == len;
}

static int check_name(const char *name, struct error *err)
{
    if (store_name_valid(name))
        return 0;
    error_set(err, ERR_INVALID, "'%.255s' is no repository name", name ? name : "");
    return error_hint(
        err, "components of lower-case letters and digits, joined by . _ __ or -, separated by /");
}

static int check_tag(const char *tag, struct error *err)
{
    if (store_tag_valid(tag))
        return 0;
    error_set(err, ERR_INVALID, "'%.128s' is no tag", tag ? tag : "");
    return error_hint(err, "up to 128 letters, digits, _ . and -, not beginning with . or -");
}

static int unknown(const char *name, const char *ref, struct error *err)
{
    return error_set(err, ERR_NOT_FOUND, "no such image: %s%s%s", name,
                     digest_kind(ref) ? "@" : ":", ref);
}

static int marker_put(struct store *store, const char *name, const char *kind, const char *leaf,
                      const char *text, struct error *err)
{
    cleanup_free char *folder = mem_printf("repositories/%s/%s", name, kind);
    cleanup_free char *path = mem_printf("%s/%s", folder, leaf);

    if (store_make_dirs(store, folder, err) != 0)
        return -1;
    return store_write(store, path, text, err);
}

/* The text of a marker without its line end; NULL with ERR_NOT_FOUND. */
static char *marker_get(struct store *store, const char *name, const char *kind, const char *leaf,
                        struct error *err)
{
    cleanup_free char *path = mem_printf("repositories/%s/%s/%s", name, kind, leaf);
    cleanup_buf struct buf text = BUF_INIT;

    if (store_read(store, path, 4096, &text, err) != 0)
        return NULL;
    char *out = text.len ? buf_steal(&text) : mem_strdup("");
    out[strcspn(out, "\r\n")] = '\0';
    return out;
}

static bool has_manifest(struct store *store, const char *name, const char *digest)
{
    cleanup_free char *path = mem_printf("repositories/%s/_manifests/%s", name, digest + 7);

    return store_file_exists(store, path);
}

/* Under the store's lock, shared: a collection that removes manifests without tags sees this tag,
 * or came before it. Who deletes the manifest takes the marker first, then the tags: when it is
 * gone by now, that may have been before this tag was there. */
static int tag_put(struct store *store, const char *name, const char *tag, const char *digest,
                   struct error *err)
{
    cleanup_free char *text = mem_printf("%s\n", digest);

    if (marker_put(store, name, "_tags", tag, text, err) != 0)
        return -1;
    if (has_manifest(store, name, digest))
        return 0;
    store_tag_delete(store, name, tag, NULL);
    return unknown(name, digest, err);
}

int store_tag_set(struct store *store, const char *name, const char *tag, const char *digest,
                  struct error *err)
{
    if (check_name(name, err) != 0 || check_tag(tag, err) != 0)
        return -1;
    if (!digest_kind(digest))
        return error_set(err, ERR_INVALID, "'%.100s' is no digest", digest);
    cleanup_close int held = store_lock(store, false, err);
    if (held < 0)
        return -1;
    return has_manifest(store, name, digest) ? tag_put(store, name, tag, digest, err)
                                             : unknown(name, digest, err);
}

int store_tag_resolve(struct store *store, const char *name, const char *tag, struct digest *out,
                      struct error *err)
{
    struct error problem = {0};

    if (check_name(name, err) != 0 || check_tag(tag, err) != 0)
        return -1;
    cleanup_free char *text = marker_get(store, name, "_tags", tag, &problem);
    if (!text) {
        if (problem.code == ERR_NOT_FOUND)
            return unknown(name, tag, err);
        if (err)
            *err = problem;
        return -1;
    }
    if (!digest_kind(text))
        return error_set(err, ERR_INVALID, "%s: the tag %s of %s names no digest", store->root, tag,
                         name);
    memcpy(out->text, text, strlen(text) + 1);
    return 0;
}

int store_tag_delete(struct store *store, const char *name, const char *tag, struct error *err)
{
    if (check_name(name, err) != 0 || check_tag(tag, err) != 0)
        return -1;
    cleanup_free char *path = mem_printf("repositories/%s/_tags/%s", name, tag);
    if (unlinkat(store->dir, path, 0) == 0)
        return 0;
    return errno == ENOENT ? unknown(name, tag, err)
                           : error_errno(err, errno, "cannot delete %s:%s", name, tag);
}

/* ---- manifests ---- */

bool store_type_known(const char *media_type)
{
    static const char *const known[] = {
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    };

    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(media_type, known[i]) == 0)
            return true;
    return false;
}

/* Is what a descriptor names in this repository? */
static int check_descriptor(struct store *store, const char *name, const struct value *descriptor,
                            const char *what, bool manifest, struct error *err)
{
    const char *digest = value_get_string(descriptor, "digest", "");

    if (!digest_kind(digest))
        return error_set(err, ERR_INVALID, "the manifest's %s has no sha256 or sha512 digest",
                         what);
    /* Layers of elsewhere (urls) need not be here. */
    if (value_get(descriptor, "urls") ||
        (manifest ? store_blob_exists(store, digest, NULL) && has_manifest(store, name, digest)
                  : store_blob_in(store, name, digest, NULL)))
        return 0;
    error_set(err, ERR_NOT_FOUND, "the manifest's %s %s is not in the registry", what, digest);
    return error_hint(err, "push blobs before the manifest that names them");
}

static int check_list(struct store *store, const char *name, const struct value *manifest,
                      const char *key, const char *what, bool manifests, struct error *err)
{
    const struct value *list = value_get(manifest, key);

    for (size_t i = 0; i < value_count(list); i++)
        if (check_descriptor(store, name, value_at(list, i), what, manifests, err) != 0)
            return -1;
    return 0;
}

int store_manifest_put(struct store *store, const char *name, const char *ref,
                       const char *media_type, const void *data, size_t len, bool loose,
                       struct digest *out, struct error *err)
{
    cleanup_value struct value manifest = {0};
    enum digest_kind named = digest_kind(ref);
    bool by_digest = named != DIGEST_NONE;
    struct digest sum;

    if (check_name(name, err) != 0 || (!by_digest && check_tag(ref, err) != 0))
        return -1;
    if (len > STORE_MANIFEST_LIMIT)
        return error_set(err, ERR_TOO_LARGE, "the manifest has %zu bytes, the limit is %u", len,
                         STORE_MANIFEST_LIMIT);
    if (value_from_json(data, len, "manifest", NULL, &manifest, err) != 0)
        return -1;
    const char *own = value_get_string(&manifest, "mediaType", media_type);
    int64_t otherwise = own && !store_type_known(own) ? 2 : 0;
    if (manifest.kind != VALUE_MAP || value_get_int(&manifest, "schemaVersion", otherwise) != 2)
        return error_set(err, ERR_INVALID, "the manifest is not of schemaVersion 2");
    if (media_type && strcmp(own, media_type) != 0)
        return error_set(err, ERR_INVALID, "the manifest says it is %s, the request %s", own,
                         media_type);
    cleanup_close int held = store_lock(store, false, err);
    if (held < 0)
        return -1;
    if (!loose) {
        const struct value *config = value_get(&manifest, "config");
        if (config && check_descriptor(store, name, config, "config", false, err) != 0)
            return -1;
        if (check_list(store, name, &manifest, "layers", "layer", false, err) != 0 ||
            check_list(store, name, &manifest, "manifests", "manifest", true, err) != 0)
            return -1;
    }
    digest_bytes_of(by_digest ? named : DIGEST_SHA256, data, len, &sum);
    if (by_digest && strcmp(ref, sum.text) != 0)
        return error_set(err, ERR_DIGEST, "the manifest has the digest %s, expected was %s",
                         sum.text, ref);
    if (store_blob_put_as(store, by_digest ? named : DIGEST_SHA256, data, len, &sum, err) != 0 ||
        marker_put(store, name, "_manifests", sum.text + 7,
                   own ? own : "application/vnd.oci.image.manifest.v1+json", err) != 0)
        return -1;
    if (!by_digest && tag_put(store, name, ref, sum.text, err) != 0)
        return -1;
    if (out)
        *out = sum;
    return 0;
}

int store_manifest_get(struct store *store, const char *name, const char *ref, struct buf *content,
                       char **media_type, struct digest *digest, struct error *err)
{
    struct error problem = {0};
    struct digest sum;

    if (digest_kind(ref)) {
        if (check_name(name, err) != 0)
            return -1;
        memcpy(sum.text, ref, strlen(ref) + 1);
    } else if (store_tag_resolve(store, name, ref, &sum, err) != 0) {
        return -1;
    }
    cleanup_free char *type = marker_get(store, name, "_manifests", sum.text + 7, &problem);
    if (!type)
        return unknown(name, ref, err);
    if (content && store_blob_read(store, sum.text, STORE_MANIFEST_LIMIT, content, err) != 0)
        return error_wrap(err, "%s", name);
    if (media_type)
        *media_type = steal_ptr(&type);
    if (digest)
        *digest = sum;
    return 0;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const struct value *)a)->as.string.data,
                  ((const struct value *)b)->as.string.data);
}

static void sort_names(struct value *list)
{
    if (value_count(list))
        qsort(list->as.array.items, list->as.array.count, sizeof *list->as.array.items,
              compare_names);
}

static int list_folder(struct store *store, const char *path, struct value *out, struct error *err)
{
    int fd = openat(store->dir, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *folder = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *entry;

    if (!folder) {
        int problem = errno;
        if (fd >= 0)
            close(fd);
        return error_errno(err, problem, "cannot list %s/%s", store->root, path);
    }
    while ((entry = readdir(folder)))
        if (entry->d_name[0] != '.' && entry->d_type != DT_LNK)
            value_push_string(out, entry->d_name);
    closedir(folder);
    sort_names(out);
    return 0;
}

int store_manifests(struct store *store, const char *name, struct value *out, struct error *err)
{
    cleanup_value struct value entries = {0};
    struct error problem = {0};

    if (check_name(name, err) != 0)
        return -1;
    value_set_array(out);
    value_set_array(&entries);
    cleanup_free char *path = mem_printf("repositories/%s/_manifests", name);
    if (list_folder(store, path, &entries, &problem) != 0 && problem.code != ERR_NOT_FOUND) {
        if (err)
            *err = problem;
        return -1;
    }
    for (size_t i = 0; i < value_count(&entries); i++) {
        const char *hex = value_text(value_at(&entries, i), "");
        cleanup_free char *digest =
            mem_printf("%s:%s", strlen(hex) == 128 ? "sha512" : "sha256", hex);
        if (digest_kind(digest)) /* else it is the half-written file of somebody who died */
            value_push_string(out, digest);
    }
    return 0;
}

bool store_repository_exists(struct store *store, const char *name)
{
    struct stat st;

    if (!store_name_valid(name))
        return false;
    cleanup_free char *path = mem_printf("repositories/%s/_manifests", name);
    return fstatat(store->dir, path, &st, 0) == 0 && S_ISDIR(st.st_mode);
}

int store_tags(struct store *store, const char *name, struct value *out, struct error *err)
{
    struct error problem = {0};

    if (check_name(name, err) != 0)
        return -1;
    value_set_array(out);
    cleanup_free char *path = mem_printf("repositories/%s/_tags", name);
    if (list_folder(store, path, out, &problem) == 0)
        return 0;
    if (problem.code == ERR_NOT_FOUND && store_repository_exists(store, name))
        return 0;
    value_free(out);
    if (problem.code == ERR_NOT_FOUND)
        return error_set(err, ERR_NOT_FOUND, "no such repository: %s", name);
    if (err)
        *err = problem;
    return -1;
}

int store_manifest_delete(struct store *store, const char *name, const char *digest,
                          struct error *err)
{
    cleanup_value struct value tags = {0};

    if (check_name(name, err) != 0)
        return -1;
    if (!digest_kind(digest))
        return error_set(err, ERR_INVALID, "'%.100s' is no digest", digest);
    cleanup_free char *path = mem_printf("repositories/%s/_manifests/%s", name, digest + 7);
    if (unlinkat(store->dir, path, 0) < 0)
        return errno == ENOENT ? unknown(name, digest, err)
                               : error_errno(err, errno, "cannot delete %s", path);
    if (store_tags(store, name, &tags, NULL) == 0) {
        for (size_t i = 0; i < value_count(&tags); i++) {
            const char *tag = value_text(value_at(&tags, i), "");
            struct digest sum;
            if (store_tag_resolve(store, name, tag, &sum, NULL) == 0 &&
                strcmp(sum.text, digest) == 0)
                store_tag_delete(store, name, tag, NULL);
        }
    }
    return 0;
}

static void walk(struct store *store, const char *name, int depth, struct value *out)
{
    cleanup_value struct value entries = {0};
    cleanup_free char *path = mem_printf("repositories%s%s", *name ? "/" : "", name);

    value_set_array(&entries);
    if (depth > DEPTH_MAX || list_folder(store, path, &entries, NULL) != 0)
        return;
    if (*name && store_repository_exists(store, name))
        value_push_string(out, name);
    for (size_t i = 0; i < value_count(&entries); i++) {
        const char *entry = value_text(value_at(&entries, i), "");
        cleanup_free char *below = mem_printf("%s%s%s", name, *name ? "/" : "", entry);
        if (store_name_valid(below))
            walk(store, below, depth + 1, out);
    }
}

int store_repositories(struct store *store, struct value *out, struct error *err)
{
    struct stat st;

    if (fstatat(store->dir, "repositories", &st, 0) < 0)
        return error_errno(err, errno, "cannot list %s/repositories", store->root);
    value_set_array(out);
    walk(store, "", 0, out);
    sort_names(out);
    return 0;
}
