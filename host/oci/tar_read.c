#include "oci/tar_read.h"

#include <archive.h>
#include <archive_entry.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/mem.h"
#include "oci/tree.h"

#define BLOCK_SIZE    (256u * 1024)
#define ENTRIES_MAX   4000000
#define ATTRIBUTE_MAX 65536

struct tar_reader {
    struct archive *archive;
    char *path, *hardlink;
    struct layer_attribute *attributes;
    size_t attribute_count;
    size_t entries;
};

static struct archive *open_archive(int fd)
{
    struct archive *archive = archive_read_new();

    if (!archive)
        return NULL;
    archive_read_support_format_tar(archive);
    archive_read_support_filter_gzip(archive);
    archive_read_support_filter_bzip2(archive);
    archive_read_support_filter_xz(archive);
    archive_read_support_filter_zstd(archive);
    if (archive_read_open_fd(archive, fd, BLOCK_SIZE) == ARCHIVE_OK)
        return archive;
    archive_read_free(archive);
    return NULL;
}

struct tar_reader *tar_reader_new(int fd, struct error *err)
{
    struct archive *archive = open_archive(fd);

    if (!archive) {
        error_set(err, ERR_INVALID, "this is no readable tar archive");
        return NULL;
    }
    struct tar_reader *reader = mem_alloc(sizeof *reader);
    reader->archive = archive;
    return reader;
}

void tar_reader_free(struct tar_reader *reader)
{
    if (!reader)
        return;
    archive_read_free(reader->archive);
    free(reader->path);
    free(reader->hardlink);
    attributes_free(reader->attributes, reader->attribute_count);
    free(reader);
}

/* As bytes, or, where this locale has no such characters, as the UTF-8 that it is. */
#define TEXT(entry, field)                                                                         \
    (archive_entry_##field(entry) ? archive_entry_##field(entry)                                   \
                                  : archive_entry_##field##_utf8(entry))

static bool leads_out(const char *path)
{
    for (const char *at = path; (at = strstr(at, "..")); at += 2)
        if ((at == path || at[-1] == '/') && (at[2] == '/' || at[2] == '\0'))
            return true;
    return false;
}

static int compare_attributes(const void *a, const void *b)
{
    return strcmp(((const struct layer_attribute *)a)->name,
                  ((const struct layer_attribute *)b)->name);
}

/* What a program or package put there; others (security labels, overlays) are this machine's. */
static void take_attributes(struct tar_reader *reader, struct archive_entry *from)
{
    int count = archive_entry_filetype(from) == AE_IFREG ? archive_entry_xattr_reset(from) : 0;
    const char *name;
    const void *data;
    size_t size;

    attributes_free(reader->attributes, reader->attribute_count);
    reader->attributes = NULL;
    reader->attribute_count = 0;
    if (count <= 0)
        return;
    reader->attributes = mem_alloc((size_t)count * sizeof *reader->attributes);
    while ((int)reader->attribute_count < count &&
           archive_entry_xattr_next(from, &name, &data, &size) == ARCHIVE_OK) {
        if (!name || !data || size > ATTRIBUTE_MAX || strpbrk(name, "=\n") ||
            (strcmp(name, "security.capability") != 0 && strncmp(name, "user.", 5) != 0))
            continue;
        struct layer_attribute *to = &reader->attributes[reader->attribute_count++];
        to->name = mem_strdup(name);
        to->data = mem_alloc(size + 1);
        to->len = size;
        memcpy(to->data, data, size);
    }
    qsort(reader->attributes, reader->attribute_count, sizeof *reader->attributes,
          compare_attributes);
}

int tar_reader_next(struct tar_reader *reader, struct tar_entry *entry, struct error *err)
{
    struct archive_entry *from;
    int status = archive_read_next_header(reader->archive, &from);

    if (status == ARCHIVE_EOF)
        return 0;
    if (status != ARCHIVE_OK && status != ARCHIVE_WARN)
        return error_set(err, ERR_INVALID, "the archive is damaged: %s",
                         archive_error_string(reader->archive));
    if (++reader->entries > ENTRIES_MAX)
        return error_set(err, ERR_TOO_LARGE, "the archive has more than %d entries", ENTRIES_MAX);
    const char *path = TEXT(from, pathname), *hardlink = TEXT(from, hardlink);
    if (!path)
        return error_set(err, ERR_INVALID, "the archive holds an entry without a name");
    if (leads_out(path) || (hardlink && leads_out(hardlink)))
        return error_set(err, ERR_INVALID,
                         "the archive holds the name '%.200s', which leads out of it", path);
    free(reader->path);
    free(reader->hardlink);
    take_attributes(reader, from);
    reader->path = tree_clean(path);
    reader->hardlink = hardlink ? tree_clean(hardlink) : NULL;
    *entry = (struct tar_entry){
        .path = reader->path,
        .mode = archive_entry_mode(from),
        .uid = (uint32_t)archive_entry_uid(from),
        .gid = (uint32_t)archive_entry_gid(from),
        .size = (uint64_t)(archive_entry_size(from) > 0 ? archive_entry_size(from) : 0),
        .symlink = archive_entry_filetype(from) == AE_IFLNK ? TEXT(from, symlink) : NULL,
        .hardlink = reader->hardlink,
        .attributes = reader->attributes,
        .attribute_count = reader->attribute_count,
    };
    return 1;
}

int64_t tar_reader_copy(struct tar_reader *reader, int to, struct error *err)
{
    cleanup_free char *piece = mem_alloc(BLOCK_SIZE);
    int64_t total = 0;

    for (;;) {
        la_ssize_t n = archive_read_data(reader->archive, piece, BLOCK_SIZE);
        if (n < 0)
            return error_set(err, ERR_INVALID, "the archive is damaged: %s",
                             archive_error_string(reader->archive));
        if (n == 0)
            return total;
        if (fd_write_all(to, piece, (size_t)n, err) != 0)
            return -1;
        total += n;
    }
}

bool tar_is_archive(int fd)
{
    struct archive_entry *entry;
    struct archive *archive = open_archive(fd);
    int status = archive ? archive_read_next_header(archive, &entry) : ARCHIVE_FATAL;

    if (archive)
        archive_read_free(archive);
    lseek(fd, 0, SEEK_SET);
    return status == ARCHIVE_OK || status == ARCHIVE_WARN;
}
