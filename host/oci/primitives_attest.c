/* registry.*: documents about images. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "oci/attest.h"
#include "oci/manifest.h"
#include "oci/primitives.h"
#include "oci/provenance.h"
#include "oci/sbom.h"

#define DOCUMENT_LIMIT (32u << 20)

static const char *ref_of(const struct image_reference *reference)
{
    return reference->digest ? reference->digest : reference->tag;
}

/* The image of a call in the build cache: its digest there, or what a reference names. */
static int image_of(struct call *call, struct store *store, const struct value *args,
                    struct digest *out, struct error *err)
{
    const char *digest = value_get_string(args, "digest", NULL),
               *ref = value_get_string(args, "ref", NULL);
    cleanup_image_reference struct image_reference reference = {0};

    if (digest && digest_valid(digest)) {
        memcpy(out->text, digest, strlen(digest) + 1);
        return 0;
    }
    if (digest)
        return error_set(err, ERR_USAGE, "'%.100s' is no digest", digest);
    if (!ref)
        return error_set(err, ERR_USAGE, "an image is needed: digest or ref");
    if (script_reference(call, ref, &reference, err) != 0)
        return -1;
    return fetch_image(call, store, &reference, out, err);
}

/*
 * registry.sbom(digest?, ref?, name?) -> { document, blob, size }
 *
 * What is in an image, as SPDX 2.3 (host/oci/sbom.h). digest: of an image in the build cache; ref:
 * of one that is fetched. The document is in the build cache, too, as `blob`, for registry.attach.
 */
int prim_registry_sbom(struct call *call, const struct value *args, struct value *out,
                       struct error *err)
{
    cleanup_store struct store *store = cache_store(call, err);
    cleanup_value struct value document = {0};
    cleanup_buf struct buf text = BUF_INIT;
    struct digest image, blob;
    const char *name = value_get_string(args, "name", value_get_string(args, "ref", NULL));

    if (!store || image_of(call, store, args, &image, err) != 0 ||
        oci_sbom(store, image.text, name, &document, err) != 0)
        return -1;
    value_to_json(&document, 0, &text);
    if (store_blob_put(store, text.data, text.len, &blob, err) != 0)
        return -1;
    value_set_map(out);
    value_put_string(out, "blob", blob.text);
    value_put_int(out, "size", (int64_t)text.len);
    value_move(value_put(out, "document"), &document);
    return 0;
}

int note_provenance(const struct value *args, const struct build_spec *build,
                    const struct build_result *result, int64_t started, struct value *out,
                    struct error *err)
{
    const struct value *wanted = value_get(args, "provenance");
    cleanup_value struct value statement = {0};
    cleanup_buf struct buf text = BUF_INIT;
    struct digest digest;

    for (size_t i = 0; i < value_count(build->materials); i++) {
        const struct value *material = value_at(build->materials, i);
        if (!value_get(material, "digest") && !value_get(material, "dirHash"))
            return 0;
    }
    struct provenance_spec spec = {.build = build,
                                   .image = &result->manifest,
                                   .name = value_get_string(args, "name", NULL),
                                   .context = value_get_string(args, "context", ""),
                                   .materials = build->materials,
                                   .builder = value_get_string(wanted, "builder", NULL),
                                   .invocation = value_get_string(wanted, "invocation", NULL),
                                   .started_ms = started,
                                   .finished_ms = started ? clock_wall_ms() : 0};
    oci_provenance(&spec, &statement);
    value_to_json(&statement, 0, &text);
    if (store_blob_put(build->store, text.data, text.len, &digest, err) != 0)
        return -1;
    value_put_string(out, "provenance", digest.text);
    return 0;
}

/* registry.document(blob) -> map: a JSON document of the build cache, such as the provenance that
 * registry.build left there. */
int prim_registry_document(struct call *call, const struct value *args, struct value *out,
                           struct error *err)
{
    cleanup_store struct store *store = cache_store(call, err);
    cleanup_buf struct buf text = BUF_INIT;
    const char *blob = value_get_string(args, "blob", "");

    if (!store || store_blob_read(store, blob, DOCUMENT_LIMIT, &text, err) != 0)
        return -1;
    return value_from_json(text.data ? text.data : "", text.len, blob, NULL, out, err);
}

/*
 * registry.attach(ref, type, blob?, text?, annotations?) -> { digest }
 *
 * A document becomes an artifact that refers to the image `ref` (image-spec v1.1, subject): type is
 * its artifactType, e.g. application/spdx+json. blob: of the build cache; text: the document
 * itself.
 */
int prim_registry_attach(struct call *call, const struct value *args, struct value *out,
                         struct error *err)
{
    cleanup_image_reference struct image_reference reference = {0};
    const char *blob = value_get_string(args, "blob", NULL),
               *type = value_get_string(args, "type", "");
    const struct value *text = value_get(args, "text");
    struct attachment attachment = {.type = type, .annotations = value_get(args, "annotations")};
    struct digest digest;

    if (!strchr(type, '/') || strpbrk(type, " \t\r\n;,"))
        return error_set(err, ERR_USAGE, "'%.100s' is no media type, such as application/spdx+json",
                         type);
    if (!blob == !text)
        return error_set(err, ERR_USAGE, "registry.attach needs blob or text");
    cleanup_store struct store *store = cache_store(call, err);
    if (!store || script_reference(call, value_get_string(args, "ref", ""), &reference, err) != 0)
        return -1;
    if (text && store_blob_put(store, text->as.string.data, text->as.string.len, &attachment.blob,
                               err) != 0)
        return -1;
    if (blob && !digest_valid(blob))
        return error_set(err, ERR_USAGE, "'%.100s' is no digest", blob);
    if (blob)
        memcpy(attachment.blob.text, blob, strlen(blob) + 1);
    if (!store_blob_exists(store, attachment.blob.text, &attachment.size))
        return error_set(err, ERR_NOT_FOUND, "the build cache has no %s", attachment.blob.text);
    cleanup_remote struct remote *remote = remote_new(call, reference.host, err);
    if (!remote || remote_attach(remote, store, reference.name, ref_of(&reference), &attachment,
                                 &digest, err) != 0)
        return -1;
    value_set_map(out);
    value_put_string(out, "digest", digest.text);
    return 0;
}
