/* A layer's tar stream, whatever it is compressed with (nothing, gzip, zstd), and both of its
 * digests in one pass. */
#ifndef MLHOST_OCI_INFLATE_H
#define MLHOST_OCI_INFLATE_H

#include <sys/types.h>

#include "base/digest.h"

struct inflater;
/* Reads from fd's current position; fd stays the caller's. */
struct inflater *inflater_new(int fd);
void inflater_free(struct inflater *inflater);
/* The next piece of the tar stream: its size, 0 at the end, -1. *data is valid until the next call.
 */
ssize_t inflater_next(struct inflater *inflater, const void **data, struct error *err);
/* Reads what is left, then: digest of the file, digest of the tar stream (the diff id). */
int inflater_finish(struct inflater *inflater, struct digest *file, struct digest *stream,
                    struct error *err);
uint64_t inflater_total(const struct inflater *inflater); /* bytes of the tar stream so far */

#endif
