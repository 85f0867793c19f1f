/* The patterns of ${x#p} ${x%p} ${x/p/y}: "*" and "?", and the escape before them. */
#ifndef MLHOST_OCI_DOCKERFILE_PATTERN_H
#define MLHOST_OCI_DOCKERFILE_PATTERN_H

#include "base/buf.h"

/* The value less what `pattern` matches at its start, or (`suffix`) its end; the longest such part,
 * or the shortest. ERR_INVALID: the pattern; ERR_TOO_LARGE: it takes too long. */
int pattern_trim(const char *value, const char *pattern, char escape, bool suffix, bool longest,
                 struct buf *out, struct error *err);
/* The first longest match, or each (`all`), becomes `with`. */
int pattern_replace(const char *value, const char *pattern, char escape, bool all, const char *with,
                    struct buf *out, struct error *err);

#endif
