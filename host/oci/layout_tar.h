/* Tar archives of layouts, entry by entry; libarchive underneath. */
#ifndef MLHOST_OCI_LAYOUT_TAR_H
#define MLHOST_OCI_LAYOUT_TAR_H

#include "oci/layout.h"

struct archive;

/* One entry: its clean name, where a link leads (or NULL), its size. Content by layout_tar_data. */
struct layout_entry_info {
    const char *path, *link;
    uint64_t size;
    bool file;
};
typedef int layout_entry_fn(void *ctx, struct archive *archive,
                            const struct layout_entry_info *entry, struct error *err);
/* From the archive's start; 1 of the callback ends it early without an error. */
int layout_tar_each(const struct layout *layout, layout_entry_fn *each, void *ctx,
                    struct error *err);
/* The current entry's content to a receiver; limit: of bytes. */
typedef int layout_data_fn(void *ctx, const void *data, size_t len, struct error *err);
int layout_tar_data(const struct layout *layout, struct archive *archive, uint64_t limit,
                    layout_data_fn *take, void *ctx, struct error *err);

/* Writing. */
struct archive *layout_tar_begin(const struct layout *layout, struct error *err);
int layout_tar_text(struct archive *archive, const char *path, const char *text, size_t len,
                    struct error *err);
int layout_tar_file(const struct layout *layout, struct archive *archive, const char *path, int fd,
                    uint64_t size, struct error *err);
int layout_tar_end(struct archive *archive, int status, struct error *err);

#endif
