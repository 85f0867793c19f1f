/* Lists of a registry that come by pages (distribution-spec v1.1, "Content Discovery"), and what is
 * taken away from it ("Content Management"). */
#ifndef MLHOST_OCI_REMOTE_LIST_H
#define MLHOST_OCI_REMOTE_LIST_H

#include "oci/remote.h"

/*
 * The texts under `key` of all pages that begin at `path` ("/v2/x/tags/list"), by Link headers: an
 * array. limit: no more than that many, 0: all (100 000 at the most). last: behind that one, or
 * NULL.
 */
int remote_list(struct remote *remote, const char *scope, const char *path, const char *key,
                size_t limit, const char *last, struct value *out, struct error *err);
/* The repositories that the registry shows us, sorted. */
int remote_catalog(struct remote *remote, size_t limit, const char *last, struct value *out,
                   struct error *err);

/*
 * Deletes a manifest by its digest, and with it every tag that names it; one that refers to a
 * subject leaves the subject's fallback index, too. ERR_UNSUPPORTED where the registry deletes
 * nothing.
 */
int remote_delete(struct remote *remote, const char *name, const char *digest, struct error *err);
/* Takes a tag away; its manifest stays. ERR_UNSUPPORTED where tags cannot be deleted. */
int remote_untag(struct remote *remote, const char *name, const char *tag, struct error *err);
int remote_delete_blob(struct remote *remote, const char *name, const char *digest,
                       struct error *err);

#endif
