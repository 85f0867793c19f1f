/* OCI layouts as folders, and what layouts of all kinds have in common. */
#include "oci/layout.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "oci/manifest.h"

#define REF_NAME "org.opencontainers.image.ref.name"
#define PIECE    ((size_t)1 << 20)

int layout_go_on(const struct layout *layout, struct error *err)
{
    if (cancelled(layout->cancel))
        return error_set(err, ERR_CANCELLED, "copying was cancelled");
    if (layout->deadline && deadline_passed(layout->deadline))
        return error_set(err, ERR_TIMEOUT, "copying took too long");
    return 0;
}

static const char *name_of(const struct value *descriptor)
{
    return value_get_string(value_get(descriptor, "annotations"), REF_NAME, NULL);
}

const struct value *layout_pick(const struct layout *layout, const struct value *index,
                                struct error *err)
{
    const struct value *list = value_get(index, "manifests");
    cleanup_buf struct buf have = BUF_INIT;

    for (size_t i = 0; i < value_count(list); i++) {
        const char *name = name_of(value_at(list, i));
        if (layout->tag ? name && strcmp(name, layout->tag) == 0 : value_count(list) == 1)
            return value_at(list, i);
        buf_printf(&have, "%s%.100s", have.len ? ", " : "", name ? name : "(without a name)");
    }
    if (layout->tag)
        error_set(err, ERR_NOT_FOUND, "%s has no image '%s'", layout->name, layout->tag);
    else
        error_set(err, ERR_NOT_FOUND, "%s has %zu images: say which", layout->name,
                  value_count(list));
    error_hint(err, "it has: %s", have.len ? have.data : "nothing");
    return NULL;
}

static int closure(struct store *store, const char *digest, int level, struct value *out,
                   struct error *err)
{
    cleanup_buf struct buf text = BUF_INIT;
    cleanup_value struct value document = {0};

    if (level > LEVELS_MAX)
        return error_set(err, ERR_INVALID, "%s: too many nested indexes", digest);
    if (store_blob_read(store, digest, STORE_MANIFEST_LIMIT, &text, err) != 0 ||
        oci_manifest_parse(text.data ? text.data : "", text.len, digest, &document, err) != 0)
        return -1;
    value_put_bool(out, digest, true);
    const struct value *children = value_get(&document, "manifests"),
                       *layers = value_get(&document, "layers");
    if (oci_is_index(&document)) {
        for (size_t i = 0; i < value_count(children); i++)
            if (closure(store, value_get_string(value_at(children, i), "digest", ""), level + 1,
                        out, err) != 0)
                return -1;
        return 0;
    }
    for (size_t i = 0; i <= value_count(layers); i++) {
        const struct value *one = i ? value_at(layers, i - 1) : value_get(&document, "config");
        const char *blob = value_get_string(one, "digest", "");
        uint64_t size;
        if (!store_blob_exists(store, blob, &size))
            return error_set(err, ERR_NOT_FOUND, "%s: its blob %s is not there", digest, blob);
        if ((int64_t)size != value_get_int(one, "size", -1))
            return error_set(err, ERR_DIGEST, "%s: its blob %s has another size", digest, blob);
        value_put_bool(out, blob, true);
    }
    return 0;
}

int layout_closure(struct store *store, const char *digest, struct value *out, struct error *err)
{
    value_set_map(out);
    return closure(store, digest, 0, out, err);
}

int layout_entry(const struct layout *layout, const char *digest, struct value *out,
                 struct error *err)
{
    cleanup_buf struct buf text = BUF_INIT;
    cleanup_value struct value document = {0};

    if (store_blob_read(layout->store, digest, STORE_MANIFEST_LIMIT, &text, err) != 0 ||
        oci_manifest_parse(text.data ? text.data : "", text.len, digest, &document, err) != 0)
        return -1;
    value_set_map(out);
    value_put_string(out, "mediaType",
                     value_get_string(&document, "mediaType",
                                      oci_is_index(&document) ? OCI_INDEX : OCI_MANIFEST));
    value_put_string(out, "digest", digest);
    value_put_int(out, "size", (int64_t)text.len);
    struct value *annotations = value_put(out, "annotations");
    value_set_map(annotations);
    value_put_string(annotations, REF_NAME, layout->tag ? layout->tag : "latest");
    return 0;
}

/* ---- folders ---- */

static int blob_name(const char *digest, char out[96], struct error *err)
{
    if (!digest_valid(digest))
        return error_set(err, ERR_INVALID, "'%.100s' is no digest", digest);
    snprintf(out, 96, "blobs/sha256/%s", digest + strlen("sha256:"));
    return 0;
}

/* Of a folder that somebody else made: no link is followed. */
static int open_plain(int folder, const char *path, struct error *err)
{
    cleanup_close int blobs =
        openat(folder, "blobs", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    cleanup_close int kind =
        blobs < 0 ? -1 : openat(blobs, "sha256", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    int fd = kind < 0 ? -1
                      : openat(kind, strrchr(path, '/') + 1,
                               O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    struct stat st;

    if (fd < 0)
        return error_errno(err, errno, "%s", path);
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
        return fd;
    close(fd);
    return error_set(err, ERR_INVALID, "%s is no file", path);
}

static int take_blob(const struct layout *layout, const char *digest, struct error *err)
{
    char path[96];

    if (store_blob_exists(layout->store, digest, NULL))
        return 0;
    if (blob_name(digest, path, err) != 0)
        return -1;
    cleanup_close int fd = open_plain(layout->fd, path, err);
    if (fd < 0)
        return -1;
    struct upload *upload = store_blob_begin(layout->store, err);
    if (!upload)
        return -1;
    cleanup_free char *piece = mem_alloc(PIECE);
    ssize_t got;
    while ((got = read(fd, piece, PIECE)) > 0)
        if (layout_go_on(layout, err) != 0 ||
            store_blob_write(upload, piece, (size_t)got, err) != 0) {
            store_blob_abort(upload);
            return -1;
        }
    if (got < 0) {
        store_blob_abort(upload);
        return error_errno(err, errno, "cannot read %s", path);
    }
    return store_blob_commit(upload, digest, NULL, err);
}

static int take_document(const struct layout *layout, const char *digest, int level,
                         struct error *err)
{
    cleanup_buf struct buf text = BUF_INIT;
    cleanup_value struct value document = {0};

    if (level > LEVELS_MAX)
        return error_set(err, ERR_INVALID, "too many nested indexes");
    if (take_blob(layout, digest, err) != 0 ||
        store_blob_read(layout->store, digest, STORE_MANIFEST_LIMIT, &text, err) != 0 ||
        oci_manifest_parse(text.data ? text.data : "", text.len, digest, &document, err) != 0)
        return -1;
    const struct value *children = value_get(&document, "manifests"),
                       *layers = value_get(&document, "layers");
    if (oci_is_index(&document)) {
        for (size_t i = 0; i < value_count(children); i++)
            if (take_document(layout, value_get_string(value_at(children, i), "digest", ""),
                              level + 1, err) != 0)
                return -1;
        return 0;
    }
    for (size_t i = 0; i <= value_count(layers); i++) {
        const struct value *one = i ? value_at(layers, i - 1) : value_get(&document, "config");
        if (take_blob(layout, value_get_string(one, "digest", ""), err) != 0)
            return -1;
    }
    return 0;
}

static int read_folder(const struct layout *layout, struct digest *digest, struct error *err)
{
    cleanup_buf struct buf text = BUF_INIT;
    cleanup_value struct value index = {0}, all = {0};

    if (file_read(layout->fd, "index.json", STORE_MANIFEST_LIMIT, &text, err) != 0) {
        error_hint(err, "a layout is a folder with oci-layout, index.json and blobs/");
        return -1;
    }
    if (value_from_json(text.data ? text.data : "", text.len, "index.json", NULL, &index, err) != 0)
        return -1;
    const struct value *picked = layout_pick(layout, &index, err);
    const char *named = picked ? value_get_string(picked, "digest", "") : "";
    if (!picked)
        return -1;
    if (!digest_valid(named))
        return error_set(err, ERR_INVALID, "index.json: '%.100s' is no digest", named);
    memcpy(digest->text, named, strlen(named) + 1);
    return take_document(layout, named, 0, err) == 0
               ? layout_closure(layout->store, named, &all, err)
               : -1;
}

int layout_copy(const struct layout *layout, int from, int to, struct error *err)
{
    cleanup_free char *piece = mem_alloc(PIECE);
    ssize_t got;

    while ((got = read(from, piece, PIECE)) > 0)
        if (layout_go_on(layout, err) != 0 || fd_write_all(to, piece, (size_t)got, err) != 0)
            return -1;
    return got < 0 ? error_errno(err, errno, "cannot read a blob") : 0;
}

static int give_blob(const struct layout *layout, const char *digest, struct error *err)
{
    char path[96], part[112];
    struct stat st;

    if (blob_name(digest, path, err) != 0)
        return -1;
    if (fstatat(layout->fd, path, &st, AT_SYMLINK_NOFOLLOW) == 0)
        return 0;
    cleanup_close int from = store_blob_open(layout->store, digest, NULL, err);
    if (from < 0)
        return -1;
    snprintf(part, sizeof part, "%s.part", path);
    unlinkat(layout->fd, part, 0);
    cleanup_close int to =
        openat(layout->fd, part, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (to < 0)
        return error_errno(err, errno, "cannot make %s", part);
    if (layout_copy(layout, from, to, err) != 0)
        return -1;
    return renameat(layout->fd, part, layout->fd, path) < 0
               ? error_errno(err, errno, "cannot rename %s", part)
               : 0;
}

/* The entries of an index.json that is there, less the one of this tag. */
static int other_entries(const struct layout *layout, struct value *out, struct error *err)
{
    cleanup_buf struct buf text = BUF_INIT;
    cleanup_value struct value index = {0};
    struct stat st;

    value_set_array(out);
    if (fstatat(layout->fd, "index.json", &st, AT_SYMLINK_NOFOLLOW) != 0)
        return 0;
    if (file_read(layout->fd, "index.json", STORE_MANIFEST_LIMIT, &text, err) != 0 ||
        value_from_json(text.data ? text.data : "", text.len, "index.json", NULL, &index, err) != 0)
        return -1;
    const struct value *list = value_get(&index, "manifests");
    for (size_t i = 0; i < value_count(list); i++) {
        const char *name = name_of(value_at(list, i));
        if (!name || strcmp(name, layout->tag ? layout->tag : "latest") != 0)
            value_copy(value_push(out), value_at(list, i));
    }
    return 0;
}

static int write_folder(const struct layout *layout, const char *digest, struct error *err)
{
    cleanup_value struct value all = {0}, index = {0};
    cleanup_buf struct buf text = BUF_INIT;

    if (layout_closure(layout->store, digest, &all, err) != 0)
        return -1;
    if ((mkdirat(layout->fd, "blobs", 0755) < 0 && errno != EEXIST) ||
        (mkdirat(layout->fd, "blobs/sha256", 0755) < 0 && errno != EEXIST))
        return error_errno(err, errno, "cannot make the folder blobs");
    for (size_t i = 0; i < value_count(&all); i++)
        if (give_blob(layout, all.as.map.pairs[i].key, err) != 0)
            return -1;
    value_set_map(&index);
    value_put_int(&index, "schemaVersion", 2);
    value_put_string(&index, "mediaType", OCI_INDEX);
    struct value *list = value_put(&index, "manifests");
    if (other_entries(layout, list, err) != 0 ||
        layout_entry(layout, digest, value_push(list), err) != 0)
        return -1;
    value_to_json(&index, 0, &text);
    if (file_write(layout->fd, "oci-layout", LAYOUT_MARK, strlen(LAYOUT_MARK), false, err) != 0)
        return -1;
    return file_write(layout->fd, "index.json", text.data, text.len, false, err);
}

int layout_read(const struct layout *layout, struct digest *digest, struct error *err)
{
    int status = layout->kind == LAYOUT_FOLDER    ? read_folder(layout, digest, err)
                 : layout->kind == LAYOUT_ARCHIVE ? layout_read_archive(layout, digest, err)
                                                  : layout_read_docker(layout, digest, err);

    return status == 0 ? 0 : error_wrap(err, "%s", layout->name);
}

int layout_write(const struct layout *layout, const char *digest, struct error *err)
{
    int status = layout->kind == LAYOUT_FOLDER    ? write_folder(layout, digest, err)
                 : layout->kind == LAYOUT_ARCHIVE ? layout_write_archive(layout, digest, err)
                                                  : layout_write_docker(layout, digest, err);

    return status == 0 ? 0 : error_wrap(err, "%s", layout->name);
}
