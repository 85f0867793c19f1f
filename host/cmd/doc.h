/* The rows' own documentation, for `mlhost help NAME` and the REPL's :doc. */
#ifndef MLHOST_CMD_DOC_H
#define MLHOST_CMD_DOC_H

#include <stdbool.h>

#include "base/buf.h"

/* A primitive, or all of an area ("" for all). False when there is none. */
bool doc_print(const char *name, struct buf *out);

#endif
