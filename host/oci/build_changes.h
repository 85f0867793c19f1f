/* The upper folder of an overlay -> a layer: what was made and changed, and whiteouts for what was
 * removed (image-spec, layer.md). */
#ifndef MLHOST_OCI_BUILD_CHANGES_H
#define MLHOST_OCI_BUILD_CHANGES_H

#include "oci/build_before.h"
#include "oci/layer.h"

struct changes_spec {
    struct store *store;
    const struct layer_watcher *watcher; /* may be NULL */
    const char *upper;
    /* NULL: upper is an overlay's. Else it is a whole root file system, and these are the files
     * that it had before. */
    struct before *before;
    int64_t deadline; /* 0: none */
    const struct cancel *cancel;
    int64_t epoch; /* of the layer, for what has no time of its own */
    int64_t clamp; /* files made after it get it (SOURCE_DATE_EPOCH); < 0: none do */
};

/* out->entries 0: nothing changed, and no layer was made. Device nodes are errors (ERR_INVALID);
 * sockets are left out, for no tar can hold one. Times, owners, hard links, file capabilities and
 * user.* attributes are kept. */
int build_changes(const struct changes_spec *spec, struct layer_result *out, struct error *err);

#endif
