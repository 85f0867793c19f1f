/*
 * Compression on all processors: bytes in, one gzip member out, in order, and the SHA-256 of what
 * went in. Pieces of 1 MiB are compressed on their own (each ends at a byte, RFC 1951 section
 * 3.2.4), so the output is the same whatever the number of processors. At most 24 MiB of memory.
 *
 * The caller fills pieces; threads compress and hash them; one thread hands the output on. Streams
 * of one piece never start a thread.
 */
#ifndef MLHOST_OCI_PACK_H
#define MLHOST_OCI_PACK_H

#include <stddef.h>
#include <stdint.h>

#include "base/digest.h"

#define PACK_PIECE ((size_t)1 << 20)

/* Gets the output piece by piece, from one thread at a time. -1 ends the packing with its error. */
typedef int pack_sink_fn(void *ctx, const void *data, size_t len, struct error *err);

struct pack;
struct pack *pack_new(pack_sink_fn *sink, void *ctx);
void pack_free(struct pack *pack); /* NULL is allowed; stops what is under way */
/* Where the next bytes go, and how many have room there: at least one. */
uint8_t *pack_space(struct pack *pack, size_t *room);
/* `len` bytes have been put there. May wait for the threads. -1: the sink's error, or that of the
 * compressor. */
int pack_filled(struct pack *pack, size_t len, struct error *err);
int pack_write(struct pack *pack, const void *data, size_t len, struct error *err);
/* The last bytes and the trailer are out. size: of the input; sum: its digest. */
int pack_finish(struct pack *pack, uint64_t *size, struct digest *sum, struct error *err);

#endif
