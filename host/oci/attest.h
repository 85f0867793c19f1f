/*
 * Documents about an image, beside it in its registry: artifacts with a subject (image-spec v1.1),
 * which the referrers API lists, or, where a registry has none, the index under the tag
 * "sha256-<hex>" (distribution-spec, "Referrers Tag Schema").
 */
#ifndef MLHOST_OCI_ATTEST_H
#define MLHOST_OCI_ATTEST_H

#include "oci/remote.h"

struct attachment {
    const char *type;   /* artifactType, and the media type of the document */
    struct digest blob; /* the document, in the store */
    uint64_t size;
    const struct value *annotations; /* map of texts, or NULL: of the artifact */
};

/* The manifest or index name@ref (tag or digest) gets the document; *out is the artifact's digest.
 * The same document attached twice is there once. */
int remote_attach(struct remote *remote, struct store *store, const char *name, const char *ref,
                  const struct attachment *attachment, struct digest *out, struct error *err);
/* Descriptors of what refers to a digest: array. artifact_type: only those, or NULL. */
int remote_attached(struct remote *remote, const char *name, const char *digest,
                    const char *artifact_type, struct value *out, struct error *err);

#endif
