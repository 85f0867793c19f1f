/* One blob to a registry: a session is begun, gets the bytes, and is closed with the digest
 * (distribution-spec v1.1, "Pushing blobs"). */
#ifndef MLHOST_OCI_REMOTE_UPLOAD_H
#define MLHOST_OCI_REMOTE_UPLOAD_H

#include "oci/remote.h"

/* A session: where it goes on, as its last reply said. */
struct remote_upload {
    char *location;     /* NULL: there is none */
    uint64_t min_chunk; /* OCI-Chunk-Min-Length: no smaller pieces but the last; 0: says nothing */
};
void remote_upload_free(struct remote_upload *upload);
#define cleanup_upload __attribute__((cleanup(remote_upload_free)))

/* Begins a session. from: a repository of the same registry that may have the blob `digest`
 * already, or NULL; a registry that refuses to mount it is asked again without. 1: it has been
 * mounted from there, 0: *out goes on, -1. */
int remote_upload_begin(struct remote *remote, const char *name, const char *digest,
                        const char *from, struct remote_upload *out, struct error *err);
/* The whole blob, in the request that closes the session. When that breaks off, the session is
 * asked how far it got and goes on from there by pieces, as long as it advances. An error is
 * retryable where another session may help. */
int remote_upload_file(struct remote *remote, const char *name, struct remote_upload *upload,
                       const char *digest, int fd, uint64_t size, http_progress_fn *progress,
                       void *progress_ctx, struct error *err);
/* Bytes of unknown number, from a source that may say HTTP_SOURCE_LATER. */
int remote_upload_stream(struct remote *remote, const char *name, struct remote_upload *upload,
                         http_source_fn *source, void *source_ctx, struct error *err);
/* Closes a session that has all bytes. */
int remote_upload_close(struct remote *remote, const char *name, struct remote_upload *upload,
                        const char *digest, struct error *err);
/* Gives a session up; what the registry says to it does not matter. */
void remote_upload_cancel(struct remote *remote, const char *name, struct remote_upload *upload);

#endif
