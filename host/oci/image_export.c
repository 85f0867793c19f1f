#include "oci/image_export.h"

#include <archive.h>
#include <archive_entry.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "oci/path_set.h"
#include "oci/tree.h"

#define READ_BLOCK (1u << 20)
#define WHITEOUT   ".wh."
#define OPAQUE     ".wh..wh..opq"

/* A text of a header: as bytes, or, where this locale has no such characters, as UTF-8. */
#define HEADER_TEXT(entry, field)                                                                  \
    (archive_entry_##field(entry) ? archive_entry_##field(entry)                                   \
                                  : archive_entry_##field##_utf8(entry))

/* A hard link of this layer to a file that an upper layer hides: path -> the name that holds the
 * content. */
struct orphan {
    char *path, *target;
};

struct export
{
    const struct image_export *spec;
    struct archive *to;
    struct value done;                 /* paths that are decided: as keys */
    struct value closed;               /* paths below which lower layers have nothing */
    struct value now_done, now_closed; /* of the layer that is being read */
    struct orphan *orphans;
    size_t orphan_count;
};

static int go_on(const struct export *export, struct error *err)
{
    if (cancelled(export->spec->cancel))
        return error_set(err, ERR_CANCELLED, "the export was cancelled");
    if (export->spec->deadline && deadline_passed(export->spec->deadline))
        return error_set(err, ERR_TIMEOUT, "the export took too long");
    return 0;
}

/* Does an upper layer hide it? */
static bool hidden(const struct export *export, const char *path)
{
    cleanup_free char *above = mem_strdup(path);

    if (value_get(&export->done, path) || value_get(&export->closed, ""))
        return true;
    for (char *slash = strrchr(above, '/'); slash; slash = strrchr(above, '/')) {
        *slash = '\0';
        if (value_get(&export->closed, above))
            return true;
    }
    return false;
}

static void decide(struct export *export, const char *path, bool directory)
{
    value_put_bool(&export->now_done, path, true);
    if (!directory)
        value_put_bool(&export->now_closed, path, true);
}

/* True: it was one, and is dealt with. */
static bool whiteout(struct export *export, const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *leaf = slash ? slash + 1 : path;

    if (strncmp(leaf, WHITEOUT, strlen(WHITEOUT)) != 0)
        return false;
    size_t folder = slash ? (size_t)(slash - path) : 0;
    if (strcmp(leaf, OPAQUE) == 0) {
        cleanup_free char *name = mem_strndup(path, folder);
        value_put_bool(&export->now_closed, name, true);
        return true;
    }
    cleanup_free char *name =
        mem_printf("%.*s%s%s", (int)folder, path, folder ? "/" : "", leaf + strlen(WHITEOUT));
    decide(export, name, false);
    return true;
}

static int copy_content(struct export *export, struct archive *from, const char *path,
                        struct error *err)
{
    const void *data;
    size_t len;
    la_int64_t offset;
    int status;

    while ((status = archive_read_data_block(from, &data, &len, &offset)) == ARCHIVE_OK) {
        if (go_on(export, err) != 0)
            return -1;
        if (archive_write_data(export->to, data, len) < 0)
            return error_set(err, ERR_IO, "cannot write %s: %s", path,
                             archive_error_string(export->to));
    }
    return status == ARCHIVE_EOF
               ? 0
               : error_set(err, ERR_INVALID, "%s: %s", path, archive_error_string(from));
}

static int write_entry(struct export *export, struct archive *from, struct archive_entry *entry,
                       const char *path, struct error *err)
{
    /* What makes two exports of one image differ, or says nothing. */
    archive_entry_unset_atime(entry);
    archive_entry_unset_ctime(entry);
    archive_entry_unset_birthtime(entry);
    archive_entry_sparse_clear(entry);
    if (archive_write_header(export->to, entry) < ARCHIVE_WARN)
        return error_set(err, ERR_IO, "cannot write %s: %s", path,
                         archive_error_string(export->to));
    return archive_entry_size(entry) > 0 ? copy_content(export, from, path, err) : 0;
}

static int add_entry(struct export *export, struct archive *from, struct archive_entry *entry,
                     struct error *err)
{
    const char *name = HEADER_TEXT(entry, pathname), *link = HEADER_TEXT(entry, hardlink);
    bool directory = archive_entry_filetype(entry) == AE_IFDIR && !link;
    cleanup_free char *path = tree_clean(name ? name : "");

    if (go_on(export, err) != 0)
        return -1;
    if (!*path || whiteout(export, path) || hidden(export, path) ||
        value_get(&export->now_done, path))
        return 0;
    decide(export, path, directory);
    cleanup_free char *shown = mem_printf("%s%s", path, directory ? "/" : "");
    archive_entry_copy_pathname(entry, shown);
    if (link) {
        cleanup_free char *target = tree_clean(link);
        if (hidden(export, target)) {
            export->orphans =
                mem_array(export->orphans, export->orphan_count + 1, sizeof *export->orphans);
            export->orphans[export->orphan_count++] =
                (struct orphan){mem_strdup(path), mem_strdup(target)};
            return 0;
        }
        archive_entry_copy_hardlink(entry, target);
        archive_entry_set_size(entry, 0);
    }
    return write_entry(export, from, entry, path, err);
}

/* The files of links whose own name is hidden. */
static int add_orphan(struct export *export, struct archive *from, struct archive_entry *entry,
                      struct error *err)
{
    const char *name = HEADER_TEXT(entry, pathname);
    cleanup_free char *path = tree_clean(name ? name : "");
    const char *first = NULL;

    if (archive_entry_hardlink(entry))
        return 0;
    for (size_t i = 0; i < export->orphan_count; i++) {
        const struct orphan *orphan = &export->orphans[i];
        if (strcmp(orphan->target, path) != 0)
            continue;
        archive_entry_copy_pathname(entry, orphan->path);
        if (first) {
            archive_entry_copy_hardlink(entry, first);
            archive_entry_set_size(entry, 0);
        }
        if (write_entry(export, from, entry, orphan->path, err) != 0)
            return -1;
        first = orphan->path;
    }
    return 0;
}

typedef int entry_fn(struct export *export, struct archive *from, struct archive_entry *entry,
                     struct error *err);

static int read_layer(struct export *export, const char *digest, entry_fn *each, struct error *err)
{
    struct archive_entry *entry;
    int status, result = -1;

    cleanup_close int fd = store_blob_open(export->spec->store, digest, NULL, err);
    if (fd < 0)
        return -1;
    struct archive *from = archive_read_new();
    if (!from)
        return error_set(err, ERR_MEMORY, "no memory to read a layer");
    archive_read_support_format_tar(from);
    archive_read_support_format_empty(from);
    archive_read_support_filter_gzip(from);
    archive_read_support_filter_zstd(from);
    status = archive_read_open_fd(from, fd, READ_BLOCK);
    while (status == ARCHIVE_OK &&
           ((status = archive_read_next_header(from, &entry)) == ARCHIVE_OK ||
            status == ARCHIVE_WARN)) {
        if (each(export, from, entry, err) != 0)
            goto out;
        status = ARCHIVE_OK;
    }
    result = status == ARCHIVE_EOF
                 ? 0
                 : error_set(err, ERR_INVALID, "layer %s: %s", digest, archive_error_string(from));
out:
    archive_read_free(from);
    return result;
}

static void merge(struct value *into, struct value *from)
{
    for (size_t i = 0; i < value_count(from); i++)
        value_put_bool(into, from->as.map.pairs[i].key, true);
    value_free(from);
    value_set_map(from);
}

static void orphans_free(struct export *export)
{
    for (size_t i = 0; i < export->orphan_count; i++) {
        free(export->orphans[i].path);
        free(export->orphans[i].target);
    }
    free(export->orphans);
    export->orphans = NULL;
    export->orphan_count = 0;
}

static int export_layers(struct export *export, struct error *err)
{
    for (size_t i = value_count(export->spec->layers); i-- > 0;) {
        const char *digest = value_get_string(value_at(export->spec->layers, i), "digest", "");
        if (read_layer(export, digest, add_entry, err) != 0 ||
            (export->orphan_count && read_layer(export, digest, add_orphan, err) != 0))
            return -1;
        orphans_free(export);
        merge(&export->done, &export->now_done);
        merge(&export->closed, &export->now_closed);
    }
    return 0;
}

int image_export(const struct image_export *spec, int fd, struct error *err)
{
    struct export export = {.spec = spec, .to = archive_write_new()};
    struct value *sets[] = {&export.done, &export.closed, &export.now_done, &export.now_closed};

    if (!export.to)
        return error_set(err, ERR_MEMORY, "no memory to write a tar archive");
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++)
        value_set_map(sets[i]);
    archive_write_set_format_pax_restricted(export.to);
    archive_write_set_bytes_in_last_block(export.to, 1);
    int status =
        archive_write_open_fd(export.to, fd) == ARCHIVE_OK ? export_layers(&export, err) : -1;
    if (archive_write_close(export.to) != ARCHIVE_OK && status == 0)
        status =
            error_set(err, ERR_IO, "cannot write the archive: %s", archive_error_string(export.to));
    archive_write_free(export.to);
    orphans_free(&export);
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++)
        value_free(sets[i]);
    return status;
}
