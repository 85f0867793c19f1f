/* The rows' own documentation, for `mlhost help NAME` and the REPL's :doc. */
#ifndef MLHOST_CMD_DOC_H
#define MLHOST_CMD_DOC_H

#include <stdbool.h>

#include "base/buf.h"

/* A primitive, or all of an area ("" for all). False when there is none. */
bool doc_print(const char *name, struct buf *out);
/* All primitives as "markdown" (tables of docs/api.md) or "luals" (lua/types/host.lua). False for
 * another format. */
bool doc_format(const char *format, struct buf *out);

#endif
