/* Layers that are made of something else than instructions. */
#ifndef MLHOST_OCI_IMAGE_LAYER_H
#define MLHOST_OCI_IMAGE_LAYER_H

#include "loop/cancel.h"
#include "oci/layer.h"

struct image_layer {
    struct store *store;
    int64_t epoch;
    const struct layer_watcher *watcher; /* may be NULL */
    int64_t deadline;
    const struct cancel *cancel;
};

/* A tar archive, plain or compressed by gzip or zstd, from fd's position on: its stream as it is,
 * so that its times, owners and order stay. `name` is for messages. */
int image_layer_tar(const struct image_layer *spec, int fd, const char *name,
                    struct layer_result *out, struct error *err);
/* The files of a folder, below `to` in the image, owned by root, as COPY would put them there. */
int image_layer_folder(const struct image_layer *spec, const char *folder, const char *to,
                       struct layer_result *out, struct error *err);

#endif
