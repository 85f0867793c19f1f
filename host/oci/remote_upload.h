/* One blob to a registry: a session is begun, gets the bytes, and is closed with the digest
 * (distribution-spec v1.1, "Pushing blobs"). */
#ifndef MLHOST_OCI_REMOTE_UPLOAD_H
#define MLHOST_OCI_REMOTE_UPLOAD_H

#include "oci/remote.h"

/* Begins a session. from: a repository of the same registry that may have the blob `digest`
 * already, or NULL. 1: it has been mounted from there, 0: *location (allocated) is where to go on,
 * -1. */
int remote_upload_begin(struct remote *remote, const char *name, const char *digest,
                        const char *from, char **location, struct error *err);
/* The whole blob in the request that closes the session. An error is retryable where another
 * session may help. */
int remote_upload_file(struct remote *remote, const char *name, const char *location,
                       const char *digest, int fd, uint64_t size, http_progress_fn *progress,
                       void *progress_ctx, struct error *err);
/* Bytes of unknown number, from a source that may say HTTP_SOURCE_LATER; *location becomes where to
 * go on. */
int remote_upload_stream(struct remote *remote, const char *name, char **location,
                         http_source_fn *source, void *source_ctx, struct error *err);
/* Closes a session that has all bytes. */
int remote_upload_close(struct remote *remote, const char *name, const char *location,
                        const char *digest, struct error *err);
/* Gives a session up; what the registry says to it does not matter. */
void remote_upload_cancel(struct remote *remote, const char *name, const char *location);

#endif
