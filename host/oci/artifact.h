/* Artifacts: files in a registry that are no image (image-spec v1.1, "Guidelines for Artifact
 * Usage"): a manifest with an artifactType, the files as layers, each named by its annotation
 * org.opencontainers.image.title. */
#ifndef MLHOST_OCI_ARTIFACT_H
#define MLHOST_OCI_ARTIFACT_H

#include "oci/remote.h"

#define OCI_EMPTY "application/vnd.oci.empty.v1+json"
#define OCI_TITLE "org.opencontainers.image.title"

/* Bytes of a file -> the store, and their descriptor -> *slot. title: its name, or NULL. */
int artifact_add(struct store *store, int fd, const char *media_type, const char *title,
                 struct value *slot, struct error *err);
/* The manifest -> the store. layers: descriptors; subject: descriptor of what it refers to, or
 * NULL; annotations: map of texts, or NULL. */
int artifact_write(struct store *store, const char *type, const struct value *layers,
                   const struct value *subject, const struct value *annotations, struct digest *out,
                   struct error *err);
/* May a file of that name be made in a folder? "a.json" or "a/b.json", nothing that leads out. */
bool artifact_title_valid(const char *title);

#endif
