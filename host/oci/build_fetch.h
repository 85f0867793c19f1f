/* What ADD of a URL gets, over the host's own client and with the script's rights. */
#ifndef MLHOST_OCI_BUILD_FETCH_H
#define MLHOST_OCI_BUILD_FETCH_H

#include "broker/primitive.h"

/* The body of a GET, redirects followed, into fd. *modified: Last-Modified as Unix seconds, or -1.
 */
int build_fetch(struct call *call, const char *url, int fd, int64_t *modified, struct error *err);

#endif
