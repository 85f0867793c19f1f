/* An image's files as one tar stream, as a container of it would see them: upper layers hide lower
 * ones, whiteouts are gone. Nothing is unpacked; memory holds the paths only. */
#ifndef MLHOST_OCI_IMAGE_EXPORT_H
#define MLHOST_OCI_IMAGE_EXPORT_H

#include "loop/cancel.h"
#include "oci/store.h"

struct image_export {
    struct store *store;
    const struct value *layers; /* descriptors of the manifest, all in the store */
    int64_t deadline;
    const struct cancel *cancel;
};

/* To fd, which stays the caller's. Times, owners, extended attributes and hard links are kept. A
 * hard link whose file an upper layer hides becomes a file of its own. */
int image_export(const struct image_export *spec, int fd, struct error *err);

#endif
