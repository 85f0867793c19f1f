#include "oci/layout_tar.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "oci/tree.h"

#define PIECE       ((size_t)1 << 20)
#define ENTRIES_MAX 100000
#define NAME_BYTES  4096 /* of an entry, and of where a link leads: readers keep them */

int layout_tar_each(const struct layout *layout, layout_entry_fn *each, void *ctx,
                    struct error *err)
{
    struct archive *archive = archive_read_new();
    struct archive_entry *entry;
    int status = ARCHIVE_FATAL, result = -1, entries = 0;

    if (!archive)
        return error_set(err, ERR_MEMORY, "no memory to read an archive");
    archive_read_support_format_tar(archive);
    archive_read_support_filter_gzip(archive);
    archive_read_support_filter_zstd(archive);
    if (lseek(layout->fd, 0, SEEK_SET) == 0)
        status = archive_read_open_fd(archive, layout->fd, PIECE);
    while (status == ARCHIVE_OK) {
        status = archive_read_next_header(archive, &entry);
        if (status != ARCHIVE_OK && status != ARCHIVE_WARN)
            break;
        const char *name = archive_entry_pathname(entry), *link = archive_entry_symlink(entry);
        cleanup_free char *path = tree_clean(name ? name : "");
        const struct layout_entry_info info = {.path = path,
                                               .link = link ? link : archive_entry_hardlink(entry),
                                               .size = (uint64_t)archive_entry_size(entry),
                                               .file = archive_entry_filetype(entry) == AE_IFREG &&
                                                       !archive_entry_hardlink(entry)};
        if (++entries > ENTRIES_MAX) {
            error_set(err, ERR_TOO_LARGE, "more than %d entries", ENTRIES_MAX);
            goto out;
        }
        if (strlen(path) > NAME_BYTES || (info.link && strlen(info.link) > NAME_BYTES)) {
            error_set(err, ERR_TOO_LARGE, "%.100s...: a name of more than %d bytes", path,
                      NAME_BYTES);
            goto out;
        }
        result = layout_go_on(layout, err) != 0 ? -1 : each(ctx, archive, &info, err);
        if (result != 0)
            goto out;
        result = -1;
        status = ARCHIVE_OK;
    }
    result = status == ARCHIVE_EOF
                 ? 0
                 : error_set(err, ERR_INVALID, "no readable tar archive: %s",
                             archive_error_string(archive) ? archive_error_string(archive) : "");
out:
    archive_read_free(archive);
    return result < 0 ? -1 : 0;
}

int layout_tar_data(const struct layout *layout, struct archive *archive, uint64_t limit,
                    layout_data_fn *take, void *ctx, struct error *err)
{
    cleanup_free char *piece = mem_alloc(PIECE);
    la_ssize_t got;

    while ((got = archive_read_data(archive, piece, PIECE)) > 0) {
        if ((uint64_t)got > limit)
            return error_set(err, ERR_TOO_LARGE, "an entry is larger than allowed");
        limit -= (uint64_t)got;
        if (layout_go_on(layout, err) != 0 || take(ctx, piece, (size_t)got, err) != 0)
            return -1;
    }
    return got < 0 ? error_set(err, ERR_INVALID, "the archive is damaged: %s",
                               archive_error_string(archive))
                   : 0;
}

struct archive *layout_tar_begin(const struct layout *layout, struct error *err)
{
    struct archive *archive = archive_write_new();

    if (!archive) {
        error_set(err, ERR_MEMORY, "no memory to write an archive");
        return NULL;
    }
    archive_write_set_format_pax_restricted(archive);
    archive_write_set_bytes_in_last_block(archive, 1);
    if (archive_write_open_fd(archive, layout->fd) == ARCHIVE_OK)
        return archive;
    error_set(err, ERR_IO, "cannot write the archive: %s", archive_error_string(archive));
    archive_write_free(archive);
    return NULL;
}

/* No owner but root, no time: one image gives one archive. */
static int header(struct archive *archive, const char *path, uint64_t size, struct error *err)
{
    struct archive_entry *entry = archive_entry_new();

    archive_entry_set_pathname(entry, path);
    archive_entry_set_filetype(entry, AE_IFREG);
    archive_entry_set_perm(entry, 0644);
    archive_entry_set_size(entry, (la_int64_t)size);
    archive_entry_set_mtime(entry, 0, 0);
    int status = archive_write_header(archive, entry);
    archive_entry_free(entry);
    return status < ARCHIVE_WARN
               ? error_set(err, ERR_IO, "cannot write %s: %s", path, archive_error_string(archive))
               : 0;
}

static int data(struct archive *archive, const char *path, const void *bytes, size_t len,
                struct error *err)
{
    return len && archive_write_data(archive, bytes, len) != (la_ssize_t)len
               ? error_set(err, ERR_IO, "cannot write %s: %s", path, archive_error_string(archive))
               : 0;
}

int layout_tar_text(struct archive *archive, const char *path, const char *text, size_t len,
                    struct error *err)
{
    return header(archive, path, len, err) == 0 ? data(archive, path, text, len, err) : -1;
}

int layout_tar_file(const struct layout *layout, struct archive *archive, const char *path, int fd,
                    uint64_t size, struct error *err)
{
    cleanup_free char *piece = mem_alloc(PIECE);
    ssize_t got = 1;

    if (header(archive, path, size, err) != 0)
        return -1;
    while (size && (got = read(fd, piece, PIECE < size ? PIECE : (size_t)size)) > 0) {
        size -= (uint64_t)got;
        if (layout_go_on(layout, err) != 0 || data(archive, path, piece, (size_t)got, err) != 0)
            return -1;
    }
    return size ? error_errno(err, got < 0 ? errno : EIO, "cannot read %s", path) : 0;
}

int layout_tar_end(struct archive *archive, int status, struct error *err)
{
    if (archive_write_close(archive) != ARCHIVE_OK && status == 0)
        status =
            error_set(err, ERR_IO, "cannot write the archive: %s", archive_error_string(archive));
    archive_write_free(archive);
    return status;
}
