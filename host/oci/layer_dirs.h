/*
 * Layers of a store, unpacked for overlays: <store>/layers/<name>, one folder for each diff id.
 * Made once, by whoever needs it first, and shared by all builds. Nobody but the owner of the store
 * may look into them, for setuid bits and file capabilities are as the image has them.
 */
#ifndef MLHOST_OCI_LAYER_DIRS_H
#define MLHOST_OCI_LAYER_DIRS_H

#include "oci/store.h"
#include "oci/unpack.h"

#define LAYER_DIR_NAME 33

/* The folder that holds all of them; made. Another one for each way in which owners are written
 * down there: as they are, by a user namespace (layers-user), not at all (layers-one). Allocated.
 */
char *layer_dirs_root(struct store *store, struct error *err);
/* The layer `digest`, whose tar stream must be `diff_id`, as a folder below root; its name to
 * `name`. Waits for another process that is at it. */
int layer_dir_make(struct store *store, const char *root, const char *digest, const char *diff_id,
                   const struct unpack_options *options, char name[LAYER_DIR_NAME],
                   struct error *err);
/* A folder on the same file system, of which the layer was made, becomes it: nothing is unpacked
 * later. `folder` is gone or left, as it happens; that is no error. */
void layer_dir_adopt(const char *root, const char *diff_id, const char *folder);

#endif
