/*
 * An image is unpacked while it is being pulled: a pull_watcher whose layers are unpacked, in their
 * order, as far as they have come. What has been made of a layer whose digest then turns out wrong
 * is removed with all the rest.
 */
#ifndef MLHOST_OCI_UNPACK_PULL_H
#define MLHOST_OCI_UNPACK_PULL_H

#include "oci/remote.h"
#include "oci/unpack.h"

struct unpack_pull;
/* All of these must outlive it. */
struct unpack_pull *unpack_pull_new(struct store *store, const char *target,
                                    const struct unpack_options *options);
const struct pull_watcher *unpack_pull_watcher(struct unpack_pull *unpack);
/* After the pull: waits for the rest. pulled: it succeeded; else what has been unpacked is removed.
 * 1: unpacked, 0: not begun, or the pull failed, whose error tells more, -1. */
int unpack_pull_wait(struct unpack_pull *unpack, bool pulled, struct error *err);
void unpack_pull_free(struct unpack_pull *unpack); /* after unpack_pull_wait(); NULL is allowed */

#endif
