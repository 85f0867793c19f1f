/* What unpack.c and unpack_path.c share. Functions without *err say why in errno. */
#ifndef MLHOST_OCI_UNPACK_INTERNAL_H
#define MLHOST_OCI_UNPACK_INTERNAL_H

#include <stdbool.h>

#include "base/error.h"
#include "oci/tree.h"

#define PATH_LIMIT 4096

/* An entry's name without leading "/", "./" and doubled slashes; "." for the root. NULL for one
 * with "..". Allocated. */
char *unpack_clean(const char *name, struct error *err);
/* Where a layer goes. */
struct unpack_place {
    int root;
    const struct tree *below; /* the layers below it, when they are elsewhere: a folder that is
                                 missing here is as it is there, link or attributes; or NULL */
    bool implied;             /* a folder was made that had not come yet */
};
/* An O_PATH descriptor of a folder below root. Links are followed as the image would see them:
 * never out of root. */
int unpack_open_dir(struct unpack_place *place, const char *path, bool make);
/* The folder that holds `path`, and the last component. */
int unpack_parent(struct unpack_place *place, const char *path, bool make, const char **leaf);
/* rm -rf parent/leaf, no link followed; what is not there is no error. */
int unpack_remove(int parent, const char *leaf);
/* Removes what is in a folder, the folder itself stays, and so does what `keep` wants (with what
 * leads to it). */
int unpack_clear(int root, const char *path, bool (*keep)(void *ctx, const char *path), void *ctx);

/* In an overlay's folder: folder/leaf removes what lies below it. */
int unpack_overlay_whiteout(struct unpack_place *place, const char *folder, const char *leaf);
/* The folder hides all that lies below it; what is no folder does so anyway. */
int unpack_overlay_opaque(struct unpack_place *place, const char *path);
/* Of the folder of a whole layer: the kernel does not look at the mark there. */
bool unpack_overlay_is_opaque(const char *folder);
/* The extended attributes of an entry that belong to an image: user.* and file capabilities. What
 * means something to an overlay is left out, for it would lead elsewhere. */
struct archive_entry;
int unpack_attributes(struct archive_entry *entry, int parent, const char *leaf);

#endif
