/* Tar archives entry by entry: layers (plain, gzip, zstd), and what ADD unpacks (besides bzip2,
 * xz). libarchive underneath. */
#ifndef MLHOST_OCI_TAR_READ_H
#define MLHOST_OCI_TAR_READ_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "base/error.h"
#include "oci/layer.h"

struct tar_entry {
    const char *path; /* clean and relative; valid until the next entry. "" is the root */
    mode_t mode;
    uint32_t uid, gid;
    uint64_t size;
    const char *symlink;  /* NULL when it is none */
    const char *hardlink; /* clean; NULL when it is none */
    /* Of a regular file: security.capability and user.*, sorted by name; valid like path. */
    const struct layer_attribute *attributes;
    size_t attribute_count;
};

struct tar_reader;
/* fd: read from its current position; stays the caller's. */
struct tar_reader *tar_reader_new(int fd, struct error *err);
void tar_reader_free(struct tar_reader *reader);
/* 1 an entry, 0 the end, -1. Entries whose names lead out ("..") are errors. */
int tar_reader_next(struct tar_reader *reader, struct tar_entry *entry, struct error *err);
/* The content of the current entry into a file; its size or -1. */
int64_t tar_reader_copy(struct tar_reader *reader, int to, struct error *err);
/* Is it a tar archive in one of the forms above? Leaves the position at the start. */
bool tar_is_archive(int fd);

#endif
