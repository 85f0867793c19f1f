/* Manifests, by tag and by digest, and what refers to them. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "local/registry.h"

#define OCI_MANIFEST "application/vnd.oci.image.manifest.v1+json"
#define OCI_INDEX    "application/vnd.oci.image.index.v1+json"

#define TAGS_MAX     64 /* ?tag= of one push */
#define TYPE_LIMIT   255
#define TYPE_LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$&^_.+-"

/* The media type without its parameters: any type that is one (RFC 6838), for artifacts come with
 * manifests of their own; but not the signed ones of Docker's schema 1, whose digest is not that of
 * their bytes. Allocated; NULL for what is none. */
static char *media_type(const char *type)
{
    size_t len = strcspn(type, "; \t"), first = strspn(type, TYPE_LETTERS);
    static const char schema1[] = "application/vnd.docker.distribution.manifest.v1";

    if (len > TYPE_LIMIT || first == 0 || type[first] != '/' || first + 1 == len ||
        first + 1 + strspn(type + first + 1, TYPE_LETTERS) != len ||
        strncmp(type, schema1, sizeof schema1 - 1) == 0)
        return NULL;
    return mem_strndup(type, len);
}

static bool reference_valid(struct request *rq)
{
    const char *reference = registry_request_of(rq)->reference;

    if (strchr(reference, ':') ? digest_kind(reference) != DIGEST_NONE : store_tag_valid(reference))
        return true;
    if (strchr(reference, ':'))
        registry_refuse(rq, 400, "DIGEST_INVALID", "'%s' is no digest: " REGISTRY_DIGESTS,
                        reference);
    else /* no manifest can have that name */
        registry_refuse(rq, strcmp(rq->method, "PUT") == 0 ? 400 : 404,
                        strcmp(rq->method, "PUT") == 0 ? "TAG_INVALID" : "MANIFEST_UNKNOWN",
                        "'%s' is no tag", reference);
    return false;
}

static void get(struct request *rq)
{
    const struct registry_request *call = rq->local;
    struct store *store = registry_of(rq)->store;
    struct buf content = BUF_INIT;
    cleanup_free char *type = NULL;
    struct digest digest;
    struct error err = {0};

    if (store_manifest_get(store, call->name, call->reference, &content, &type, &digest, &err) <
        0) {
        buf_free(&content);
        registry_refuse_error(
            rq, store_repository_exists(store, call->name) ? "MANIFEST_UNKNOWN" : "NAME_UNKNOWN",
            &err);
        return;
    }
    answer_header(rq, "Docker-Content-Digest", digest.text);
    answer_headerf(rq, "ETag", "\"%s\"", digest.text);
    size_t len = content.len;
    answer_take(rq, 200, type, buf_steal(&content), len);
}

/* The media type to keep: the header's, which must be what the manifest says. NULL after having
 * answered. */
static char *manifest_type(struct request *rq, const struct value *manifest)
{
    const char *header = request_header(rq, "Content-Type"),
               *inside = value_get_string(manifest, "mediaType", NULL);
    cleanup_free char *type = media_type(header ? header : inside ? inside : OCI_MANIFEST);

    if (!type)
        registry_refuse(rq, 400, "MANIFEST_INVALID",
                        "Content-Type '%s' is no type of manifest that is kept here",
                        header ? header : inside);
    else if (inside && strcmp(inside, type) != 0)
        registry_refuse(rq, 400, "MANIFEST_INVALID", "mediaType is '%s', Content-Type '%s'", inside,
                        type);
    else if (value_get_int(manifest, "schemaVersion", store_type_known(type) ? 0 : 2) != 2)
        registry_refuse(rq, 400, "MANIFEST_INVALID", "schemaVersion must be 2");
    else
        return steal_ptr(&type);
    return NULL;
}

/* ?tag=a&tag=b of a push by digest: all must be tags. */
static bool tags_given(struct request *rq)
{
    const char *tag;

    for (size_t i = 0; (tag = request_query_next(rq, "tag", i)); i++) {
        if (i == TAGS_MAX) {
            registry_refuse(rq, 414, "TAG_INVALID", "at most %d tags in one push", TAGS_MAX);
            return false;
        }
        if (!store_tag_valid(tag)) {
            registry_refuse(rq, 400, "TAG_INVALID", "'%s' is no tag", tag);
            return false;
        }
    }
    return true;
}

static void put(struct request *rq)
{
    const struct registry_request *call = rq->local;
    cleanup_value struct value manifest = {0};
    struct digest digest;
    struct error err = {0};

    if (value_from_json(rq->body.data ? rq->body.data : "", rq->body.len, "manifest", NULL,
                        &manifest, &err) < 0) {
        registry_refuse(rq, 400, "MANIFEST_INVALID", "%s", err.message);
        return;
    }
    if (manifest.kind != VALUE_MAP) {
        registry_refuse(rq, 400, "MANIFEST_INVALID", "a manifest is a JSON object");
        return;
    }
    cleanup_free char *type = manifest_type(rq, &manifest);
    bool by_digest = digest_kind(call->reference) != DIGEST_NONE;
    if (!type || (by_digest && !tags_given(rq)))
        return;
    if (store_manifest_put(registry_of(rq)->store, call->name, call->reference, type, rq->body.data,
                           rq->body.len, false, &digest, &err) < 0) {
        registry_refuse_error(rq, "MANIFEST_BLOB_UNKNOWN", &err);
        return;
    }
    const char *subject = value_text(value_path(&manifest, "subject.digest"), NULL);
    if (digest_kind(subject))
        answer_header(rq, "OCI-Subject", subject);
    const char *tag;
    for (size_t i = 0; by_digest && (tag = request_query_next(rq, "tag", i)); i++) {
        if (store_tag_set(registry_of(rq)->store, call->name, tag, digest.text, &err) < 0) {
            registry_refuse_error(rq, "MANIFEST_UNKNOWN", &err);
            return;
        }
        answer_header(rq, "OCI-Tag", tag);
    }
    answer_headerf(rq, "Location", "/v2/%s/manifests/%s", call->name, digest.text);
    answer_header(rq, "Docker-Content-Digest", digest.text);
    answer(rq, 201, NULL, "", 0);
}

static void delete (struct request *rq)
{
    const struct registry_request *call = rq->local;
    struct store *store = registry_of(rq)->store;
    struct error err = {0};
    int status = strchr(call->reference, ':')
                     ? store_manifest_delete(store, call->name, call->reference, &err)
                     : store_tag_delete(store, call->name, call->reference, &err);

    if (status < 0)
        registry_refuse_error(
            rq, store_repository_exists(store, call->name) ? "MANIFEST_UNKNOWN" : "NAME_UNKNOWN",
            &err);
    else
        answer(rq, 202, NULL, "", 0);
}

void registry_manifest(struct request *rq)
{
    if (!reference_valid(rq))
        return;
    if (strcmp(rq->method, "GET") == 0 || strcmp(rq->method, "HEAD") == 0)
        get(rq);
    else if (strcmp(rq->method, "PUT") == 0)
        put(rq);
    else if (strcmp(rq->method, "DELETE") == 0)
        delete (rq);
    else
        registry_refuse(rq, 405, "UNSUPPORTED", "%s is not possible for a manifest", rq->method);
}

/* ---- referrers ---- */

/* The descriptor of one manifest of the repository, when its subject is `subject`. */
static void refer(struct request *rq, const char *digest, const char *subject, const char *wanted,
                  struct value *to)
{
    cleanup_buf struct buf content = BUF_INIT;
    cleanup_free char *type = NULL;
    cleanup_value struct value manifest = {0};
    struct error err = {0};

    if (store_manifest_get(registry_of(rq)->store, registry_request_of(rq)->name, digest, &content,
                           &type, NULL, &err) < 0)
        return;
    if (!memmem(content.data, content.len, "\"subject\"", 9) ||
        value_from_json(content.data, content.len, digest, NULL, &manifest, &err) < 0)
        return;
    if (strcmp(value_text(value_path(&manifest, "subject.digest"), ""), subject) != 0)
        return;
    const char *artifact = value_get_string(&manifest, "artifactType", NULL);
    if (!artifact || !*artifact)
        artifact = value_text(value_path(&manifest, "config.mediaType"), NULL);
    if (wanted && (!artifact || strcmp(artifact, wanted) != 0))
        return;
    struct value *descriptor = value_push(to);
    value_set_map(descriptor);
    value_put_string(descriptor, "mediaType", type);
    value_put_string(descriptor, "digest", digest);
    value_put_int(descriptor, "size", (int64_t)content.len);
    value_put_string(descriptor, "artifactType", artifact);
    const struct value *annotations = value_get(&manifest, "annotations");
    if (value_count(annotations))
        value_copy(value_put(descriptor, "annotations"), annotations);
}

void registry_referrers(struct request *rq)
{
    const struct registry_request *call = rq->local;
    const char *wanted = request_query(rq, "artifactType");
    cleanup_value struct value index = {0}, digests = {0};
    struct error err = {0};

    if (!digest_kind(call->reference)) {
        registry_refuse(rq, 400, "DIGEST_INVALID", "'%s' is no digest: " REGISTRY_DIGESTS,
                        call->reference);
        return;
    }
    if (store_manifests(registry_of(rq)->store, call->name, &digests, &err) < 0) {
        registry_refuse_error(rq, "NAME_UNKNOWN", &err);
        return;
    }
    value_set_map(&index);
    value_put_int(&index, "schemaVersion", 2);
    value_put_string(&index, "mediaType", OCI_INDEX);
    struct value *manifests = value_put(&index, "manifests");
    value_set_array(manifests);
    for (size_t i = 0; i < value_count(&digests); i++)
        refer(rq, value_text(value_at(&digests, i), ""), call->reference, wanted, manifests);
    if (wanted)
        answer_header(rq, "OCI-Filters-Applied", "artifactType");
    struct buf text = BUF_INIT;
    value_to_json(&index, 0, &text);
    size_t len = text.len;
    answer_take(rq, 200, OCI_INDEX, buf_steal(&text), len);
}
