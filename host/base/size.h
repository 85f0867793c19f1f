/* Amounts of memory as people write them. */
#ifndef MLHOST_BASE_SIZE_H
#define MLHOST_BASE_SIZE_H

#include <stdint.h>

#include "base/buf.h"

/* "1048576", "512k", "16m", "1g", "512Ki", "256MiB", "2GiB": powers of 1024, any case. ERR_USAGE
 * for nothing, zero, more than 1 TiB, and units that could mean 1000 or 1024 (MB). */
int size_parse(const char *text, uint64_t *bytes, struct error *err);
/* "256 MiB", "1.5 GiB", "100 bytes" */
void size_print(uint64_t bytes, struct buf *out);

#endif
