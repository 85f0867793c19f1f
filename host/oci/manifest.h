/* Reading images of a store: index -> manifest -> config. Everything read is checked, for it came
 * from elsewhere. */
#ifndef MLHOST_OCI_MANIFEST_H
#define MLHOST_OCI_MANIFEST_H

#include "oci/store.h"

#define OCI_MANIFEST    "application/vnd.oci.image.manifest.v1+json"
#define OCI_INDEX       "application/vnd.oci.image.index.v1+json"
#define OCI_CONFIG      "application/vnd.oci.image.config.v1+json"
#define OCI_LAYER_GZIP  "application/vnd.oci.image.layer.v1.tar+gzip"
#define DOCKER_MANIFEST "application/vnd.docker.distribution.manifest.v2+json"
#define DOCKER_LIST     "application/vnd.docker.distribution.manifest.list.v2+json"

#define LEVELS_MAX 4 /* of indexes in indexes: more are nobody's image */

const char *oci_architecture(void); /* of this machine, as images name it: "amd64" */

bool oci_is_index(const struct value *document);
/* Syntax and required fields of a manifest or an index: schemaVersion, descriptors with sha256
 * digests and sizes. `source` names it in messages. */
int oci_manifest_parse(const char *text, size_t len, const char *source, struct value *out,
                       struct error *err);
/* A registry may not say another type of a document than the document says itself: one client would
 * see an image and the next one an index. 0 also for types that nobody knows. */
int oci_same_type(const char *text, size_t len, const char *said, const char *source,
                  struct error *err);
/* The descriptor of an index for linux on this machine; NULL: ERR_NOT_FOUND lists what there is. */
const struct value *oci_index_pick(const struct value *index, const char *source,
                                   struct error *err);

/* The image manifest (through an index when need be). `resolved` is its own digest; may be NULL. */
int oci_manifest_load(struct store *store, const char *digest, struct value *manifest,
                      struct digest *resolved, struct error *err);
/* The config of a manifest, with as many diff ids as the manifest has layers. */
int oci_config_load(struct store *store, const struct value *manifest, struct value *config,
                    struct error *err);

#endif
