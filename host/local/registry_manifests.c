/* Manifests, by tag and by digest, and what refers to them. */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "local/registry.h"

#define OCI_MANIFEST "application/vnd.oci.image.manifest.v1+json"
#define OCI_INDEX    "application/vnd.oci.image.index.v1+json"

static const char *const media_types[] = {
    OCI_MANIFEST,
    OCI_INDEX,
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
};

static const char *known_type(const char *type)
{
    size_t len = strcspn(type, "; ");

    for (size_t i = 0; i < sizeof media_types / sizeof *media_types; i++) {
        if (strlen(media_types[i]) == len && strncmp(media_types[i], type, len) == 0)
            return media_types[i];
    }
    return NULL;
}

static bool reference_valid(struct request *rq)
{
    const char *reference = registry_request_of(rq)->reference;

    if (strchr(reference, ':') ? digest_valid(reference) : store_tag_valid(reference))
        return true;
    if (strchr(reference, ':'))
        registry_refuse(rq, 400, "DIGEST_INVALID",
                        "'%s' is no digest: sha256:<64 lower-case hexadecimal digits>", reference);
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

/* The media type to keep: the header's, which must be known and say what the manifest says. NULL
 * after having answered. */
static const char *manifest_type(struct request *rq, const struct value *manifest)
{
    const char *header = request_header(rq, "Content-Type"),
               *inside = value_get_string(manifest, "mediaType", NULL);
    const char *type = known_type(header ? header : inside ? inside : OCI_MANIFEST);

    if (!type)
        registry_refuse(rq, 400, "MANIFEST_INVALID",
                        "Content-Type '%s' is no type of manifest that is kept here",
                        header ? header : inside);
    else if (inside && strcmp(inside, type) != 0)
        registry_refuse(rq, 400, "MANIFEST_INVALID", "mediaType is '%s', Content-Type '%s'", inside,
                        type);
    else if (value_get_int(manifest, "schemaVersion", 0) != 2)
        registry_refuse(rq, 400, "MANIFEST_INVALID", "schemaVersion must be 2");
    else
        return type;
    return NULL;
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
    const char *type = manifest_type(rq, &manifest);
    if (!type)
        return;
    if (store_manifest_put(registry_of(rq)->store, call->name, call->reference, type, rq->body.data,
                           rq->body.len, false, &digest, &err) < 0) {
        registry_refuse_error(rq, "MANIFEST_BLOB_UNKNOWN", &err);
        return;
    }
    const char *subject = value_text(value_path(&manifest, "subject.digest"), NULL);
    if (subject && digest_valid(subject))
        answer_header(rq, "OCI-Subject", subject);
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
static void refer(struct request *rq, const char *hex, const char *subject, const char *wanted,
                  struct value *to)
{
    cleanup_buf struct buf content = BUF_INIT;
    cleanup_free char *type = NULL;
    cleanup_free char *digest = mem_printf("sha256:%s", hex);
    cleanup_value struct value manifest = {0};
    struct error err = {0};

    if (!digest_valid(digest) ||
        store_manifest_get(registry_of(rq)->store, registry_request_of(rq)->name, digest, &content,
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
    cleanup_free char *folder =
        mem_printf("%s/repositories/%s/_manifests", registry_of(rq)->root, call->name);
    cleanup_value struct value index = {0};
    struct dirent **names = NULL;

    if (!digest_valid(call->reference)) {
        registry_refuse(rq, 400, "DIGEST_INVALID",
                        "'%s' is no digest: sha256:<64 lower-case hexadecimal digits>",
                        call->reference);
        return;
    }
    value_set_map(&index);
    value_put_int(&index, "schemaVersion", 2);
    value_put_string(&index, "mediaType", OCI_INDEX);
    struct value *manifests = value_put(&index, "manifests");
    value_set_array(manifests);
    int count = scandir(folder, &names, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        refer(rq, names[i]->d_name, call->reference, wanted, manifests);
        free(names[i]);
    }
    free(names);
    if (wanted)
        answer_header(rq, "OCI-Filters-Applied", "artifactType");
    struct buf text = BUF_INIT;
    value_to_json(&index, 0, &text);
    size_t len = text.len;
    answer_take(rq, 200, OCI_INDEX, buf_steal(&text), len);
}
