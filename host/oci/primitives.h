/* Rows of host/broker/rows_registry.c name these. */
#ifndef MLHOST_OCI_PRIMITIVES_H
#define MLHOST_OCI_PRIMITIVES_H

#include "broker/primitive.h"
#include "oci/remote.h"

primitive_fn prim_registry_content_tag, prim_registry_build, prim_registry_base_image,
    prim_registry_dockerfile;
primitive_fn prim_registry_push, prim_registry_pull, prim_registry_exists, prim_registry_tags,
    prim_registry_manifest;
primitive_fn prim_registry_load, prim_registry_layer, prim_registry_export, prim_registry_squash,
    prim_registry_compose, prim_registry_compose_index, prim_registry_platform,
    prim_registry_verify, prim_registry_read_layout, prim_registry_write_layout;
primitive_fn prim_registry_inspect, prim_registry_unpack, prim_registry_reference;
primitive_fn prim_registry_collect;
primitive_fn prim_registry_catalog, prim_registry_referrers, prim_registry_delete,
    prim_registry_untag, prim_registry_delete_blob, prim_registry_artifact, prim_registry_files;
primitive_fn prim_registry_sbom, prim_registry_document, prim_registry_attach;

/* ---- what the two files of primitives share ---- */

/* Builds and pulls collect here: <state>/cache/oci. */
struct store *cache_store(struct call *call, struct error *err);
/* An image of the store to where the reference says; `out` becomes what registry.push returns.
 * from: repositories that may have blobs of it, or NULL. whole: an index with all that it leads to.
 */
int push_image(struct remote *remote, struct store *store, const char *digest,
               const struct image_reference *reference, const struct value *from, bool whole,
               struct value *out, struct error *err);

/* A reference of a script: without a host it means the active profile's registry, below its prefix
 * if it has one. */
int script_reference(struct call *call, const char *text, struct image_reference *out,
                     struct error *err);
struct build_spec;
struct build_result;
/* primitives_attest.c: the statement of how an image was made -> the store; its digest ->
 * out.provenance. Without the context's hash there is none, for it would not say what the image was
 * made of. started: ms, or 0. */
int note_provenance(const struct value *args, const struct build_spec *build,
                    const struct build_result *result, int64_t started, struct value *out,
                    struct error *err);
/* An image of the cache or of a registry, completely in `store` afterwards. */
int fetch_image(struct call *call, struct store *store, const struct image_reference *reference,
                struct digest *digest, struct error *err);

#endif
