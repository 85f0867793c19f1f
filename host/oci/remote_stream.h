/*
 * Layers go to the registry while they are being made: a layer_watcher whose layers are sent as
 * far as they are compressed, each on its own connection, from the file that the store has of them.
 *
 * It only takes work away from a later remote_push(), which finds the blobs there: whatever goes
 * wrong here is no error, the blob is then sent as any other.
 */
#ifndef MLHOST_OCI_REMOTE_STREAM_H
#define MLHOST_OCI_REMOTE_STREAM_H

#include "oci/layer.h"
#include "oci/remote.h"

struct remote_streams;
/* name: the repository; both must outlive the streams. */
struct remote_streams *remote_streams_new(struct remote *remote, const char *name);
const struct layer_watcher *remote_streams_watcher(struct remote_streams *streams);
/* Waits for what is under way, which must have ended on the layers' side. *sent, *bytes: blobs that
 * are there now. May be called once, before the push. */
void remote_streams_wait(struct remote_streams *streams, size_t *sent, uint64_t *bytes);
void remote_streams_free(struct remote_streams *streams); /* NULL is allowed */

#endif
