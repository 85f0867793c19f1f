/* A layer's tar stream, whatever it is compressed with (nothing, gzip, zstd), and its digests in
 * one pass. Threads of its own read and decompress ahead and hash, when there is more than a piece:
 * at most 10 MiB of memory. */
#ifndef MLHOST_OCI_INFLATE_H
#define MLHOST_OCI_INFLATE_H

#include <sys/types.h>

#include "base/digest.h"

/* The layer's bytes in order, as read(2): 0 at the end, -1 with *err. */
typedef ssize_t inflate_source_fn(void *ctx, void *to, size_t len, struct error *err);

struct inflater;
/* Reads from fd's current position; fd stays the caller's. whole: the file's own digest is wanted,
 * too. */
struct inflater *inflater_new(int fd, bool whole);
struct inflater *inflater_new_from(inflate_source_fn *source, void *ctx, bool whole);
/* Waits for the source when it is being read: make it end first. NULL is allowed. */
void inflater_free(struct inflater *inflater);
/* The next piece of the tar stream: its size, 0 at the end, -1. *data is valid until the next call.
 */
ssize_t inflater_next(struct inflater *inflater, const void **data, struct error *err);
/* Reads what is left, then: digest of the file (may be NULL; only when it was wanted), digest of
 * the tar stream (the diff id). */
int inflater_finish(struct inflater *inflater, struct digest *file, struct digest *stream,
                    struct error *err);
uint64_t inflater_total(const struct inflater *inflater); /* bytes of the tar stream so far */

#endif
