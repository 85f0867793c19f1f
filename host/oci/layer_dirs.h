/*
 * Layers of a store, unpacked for overlays: <store>/layers/<name>, one folder for each diff id.
 * Made once, by whoever needs it first, and shared by all builds. Nobody but the owner of the store
 * may look into them, for setuid bits and file capabilities are as the image has them.
 */
#ifndef MLHOST_OCI_LAYER_DIRS_H
#define MLHOST_OCI_LAYER_DIRS_H

#include "base/strings.h"
#include "oci/store.h"
#include "oci/unpack.h"

#define LAYER_DIR_NAME 33

/* The folder that holds all of them; made. Another one for each way in which owners are written
 * down there: as they are, by a user namespace (layers-user), not at all (layers-one). Allocated.
 */
char *layer_dirs_root(struct store *store, struct error *err);
/*
 * layers: [ { digest, diff_id } ], the lowest first; each tar stream must be its diff id. Their
 * folders below root, the topmost first -> *names. Waits for another process that is at it.
 *
 * A layer may have entries without the folders that they are in, which are in layers below. Such a
 * folder, made in an overlay, would hide its owner and mode, or the link that is in its place (bin
 * -> usr/bin). So such a layer is unpacked with a look at those below it.
 */
int layer_dirs_make(struct store *store, const char *root, const struct value *layers,
                    const struct unpack_options *options, struct strings *names, struct error *err);
/* A folder on the same file system, of which the layer was made, becomes it: nothing is unpacked
 * later. `folder` is gone or left, as it happens; that is no error. */
void layer_dir_adopt(const char *root, const char *diff_id, const char *folder);

#endif
