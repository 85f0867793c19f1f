#include "oci/attest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "oci/artifact.h"
#include "oci/manifest.h"
#include "oci/remote_header.h"

#define PAGES_MAX    100
#define WRITES_MAX   4 /* of the index, when others write it at the same time */
#define FALLBACK_ID  80
#define ANY_MANIFEST OCI_INDEX ", " OCI_MANIFEST ", " DOCKER_MANIFEST ", " DOCKER_LIST

/* ---- reading ---- */

static int take_page(const struct http_response *response, const char *what,
                     const char *artifact_type, struct value *out, struct error *err)
{
    cleanup_value struct value index = {0};

    if (oci_manifest_parse(response->body.data ? response->body.data : "", response->body.len, what,
                           &index, err) != 0)
        return -1;
    if (!oci_is_index(&index))
        return error_set(err, ERR_INVALID, "%s is no index", what);
    const struct value *list = value_get(&index, "manifests");
    for (size_t i = 0; i < value_count(list); i++) {
        const struct value *descriptor = value_at(list, i);
        if (!artifact_type ||
            strcmp(value_get_string(descriptor, "artifactType", ""), artifact_type) == 0)
            value_copy(value_push(out), descriptor);
    }
    return 0;
}

/* 1 the registry has the API, 0 it has not, -1. */
static int by_api(struct remote *remote, const char *name, const char *digest,
                  const char *artifact_type, struct value *out, struct error *err)
{
    cleanup_free char *scope = mem_printf("repository:%s:pull", name);
    cleanup_free char *what = mem_printf("referrers of %s/%s@%s", remote->host, name, digest);
    cleanup_buf struct buf query = BUF_INIT;

    buf_printf(&query, "/v2/%s/referrers/%s", name, digest);
    if (artifact_type) {
        buf_puts(&query, "?artifactType=");
        url_escape(artifact_type, strlen(artifact_type), &query);
    }
    cleanup_free char *url = mem_strdup(query.data);
    for (int page = 0; url && page < PAGES_MAX; page++) {
        cleanup_response struct http_response response = {0};
        struct http_request request = HTTP_REQUEST_INIT;
        request.url = url;
        request.reply_limit = STORE_MANIFEST_LIMIT;
        if (remote_send(remote, scope, &request, &response, err) != 0)
            return -1;
        bool none = response.status == 404 || response.status == 405 || response.status == 501;
        if (none && page == 0)
            return 0;
        if (response.status != 200)
            return remote_refused(remote, &request, &response, what, err);
        /* A page of another kind comes from a server that answers every path. */
        const char *type = http_header_get(&response.headers, "Content-Type");
        if (page == 0 && (!type || strncmp(type, OCI_INDEX, strlen(OCI_INDEX)) != 0))
            return 0;
        if (take_page(&response, what, artifact_type, out, err) != 0)
            return -1;
        cleanup_free char *next = link_next(&response.headers);
        free(url);
        url = next ? location_resolve(response.url, next) : NULL;
    }
    return 1;
}

static void fallback_tag(const char *digest, char out[FALLBACK_ID])
{
    snprintf(out, FALLBACK_ID, "sha256-%s", digest + 7);
}

/* The index under the fallback tag; empty when there is none. etag is allocated, or NULL. */
static int fallback_index(struct remote *remote, const char *name, const char *digest,
                          struct value *index, char **etag, struct error *err)
{
    char tag[FALLBACK_ID];
    fallback_tag(digest, tag);
    cleanup_free char *scope = mem_printf("repository:%s:pull", name);
    cleanup_free char *url = mem_printf("/v2/%s/manifests/%s", name, tag);
    cleanup_free char *what = mem_printf("%s/%s:%s", remote->host, name, tag);
    cleanup_response struct http_response response = {0};
    struct http_request request = HTTP_REQUEST_INIT;
    struct digest sum;

    *etag = NULL;
    request.url = url;
    request.reply_limit = STORE_MANIFEST_LIMIT;
    http_header_add(&request.headers, "Accept",
                    ANY_MANIFEST); /* else an image there is "unknown" */
    int status = remote_send(remote, scope, &request, &response, err);
    http_headers_free(&request.headers);
    if (status != 0)
        return -1;
    if (response.status != 404 && response.status != 200)
        return remote_refused(remote, &request, &response, what, err);
    digest_bytes(response.body.data ? response.body.data : "", response.body.len, &sum);
    /* Some registries take the tag for the digest itself and give the image. */
    if (response.status == 404 || strcmp(sum.text, digest) == 0) {
        value_set_map(index);
        value_put_int(index, "schemaVersion", 2);
        value_put_string(index, "mediaType", OCI_INDEX);
        value_set_array(value_put(index, "manifests"));
        return 0;
    }
    if (oci_manifest_parse(response.body.data ? response.body.data : "", response.body.len, what,
                           index, err) != 0)
        return -1;
    if (!oci_is_index(index)) {
        error_set(err, ERR_CONFLICT, "%s is no index", what);
        return error_hint(err, "that tag is for what refers to the image; something else has it");
    }
    *etag = mem_strdup(http_header_get(&response.headers, "ETag"));
    return 0;
}

int remote_attached(struct remote *remote, const char *name, const char *digest,
                    const char *artifact_type, struct value *out, struct error *err)
{
    cleanup_value struct value index = {0};
    cleanup_free char *etag = NULL;

    value_set_array(out);
    int known = by_api(remote, name, digest, artifact_type, out, err);
    if (known != 0)
        return known < 0 ? -1 : 0;
    if (fallback_index(remote, name, digest, &index, &etag, err) != 0)
        return -1;
    const struct value *list = value_get(&index, "manifests");
    for (size_t i = 0; i < value_count(list); i++)
        if (!artifact_type ||
            strcmp(value_get_string(value_at(list, i), "artifactType", ""), artifact_type) == 0)
            value_copy(value_push(out), value_at(list, i));
    return 0;
}

/* ---- writing ---- */

static void put_descriptor(struct value *slot, const char *type, const char *digest, int64_t size)
{
    value_set_map(slot);
    value_put_string(slot, "mediaType", type);
    value_put_string(slot, "digest", digest);
    value_put_int(slot, "size", size);
}

static bool listed(const struct value *list, const char *digest)
{
    for (size_t i = 0; i < value_count(list); i++)
        if (strcmp(value_get_string(value_at(list, i), "digest", ""), digest) == 0)
            return true;
    return false;
}

/* 1 written, 0 somebody else was quicker, -1. */
static int put_index(struct remote *remote, const char *name, const char *tag,
                     const struct value *index, const char *etag, struct error *err)
{
    cleanup_free char *scope = mem_printf("repository:%s:pull,push", name);
    cleanup_free char *url = mem_printf("/v2/%s/manifests/%s", name, tag);
    cleanup_free char *what = mem_printf("%s/%s:%s", remote->host, name, tag);
    cleanup_response struct http_response response = {0};
    cleanup_buf struct buf text = BUF_INIT;
    struct http_request request = HTTP_REQUEST_INIT;

    value_to_json(index, 0, &text);
    request.method = "PUT";
    request.url = url;
    request.body = text.data;
    request.body_len = text.len;
    http_header_add(&request.headers, "Content-Type", OCI_INDEX);
    if (etag)
        http_header_add(&request.headers, "If-Match", etag);
    int status = remote_send(remote, scope, &request, &response, err);
    http_headers_free(&request.headers);
    if (status != 0)
        return -1;
    if (response.status == 412)
        return 0;
    return response.status == 201 || response.status == 200
               ? 1
               : remote_refused(remote, &request, &response, what, err);
}

static int add_to_fallback(struct remote *remote, const char *name, const char *subject,
                           const struct value *descriptor, struct error *err)
{
    char tag[FALLBACK_ID];

    fallback_tag(subject, tag);
    for (int attempt = 0; attempt < WRITES_MAX; attempt++) {
        cleanup_value struct value index = {0};
        cleanup_free char *etag = NULL;
        if (fallback_index(remote, name, subject, &index, &etag, err) != 0)
            return -1;
        struct value *list = value_get(&index, "manifests");
        if (listed(list, value_get_string(descriptor, "digest", "")))
            return 0;
        value_copy(value_push(list), descriptor);
        int written = put_index(remote, name, tag, &index, etag, err);
        if (written != 0)
            return written < 0 ? -1 : 0;
    }
    return error_set(err, ERR_CONFLICT, "%s/%s:%s changes all the time", remote->host, name, tag);
}

int remote_forget_referrer(struct remote *remote, const char *name, const char *subject,
                           const char *digest, struct error *err)
{
    cleanup_value struct value there = {0};
    char tag[FALLBACK_ID];

    value_set_array(&there);
    int api = by_api(remote, name, subject, NULL, &there, err);
    if (api != 0)
        return api < 0 ? -1 : 0;
    fallback_tag(subject, tag);
    for (int attempt = 0; attempt < WRITES_MAX; attempt++) {
        cleanup_value struct value index = {0};
        cleanup_value struct value left = {0};
        cleanup_free char *etag = NULL;
        if (fallback_index(remote, name, subject, &index, &etag, err) != 0)
            return -1;
        struct value *list = value_get(&index, "manifests");
        if (!listed(list, digest))
            return 0;
        value_set_array(&left);
        for (size_t i = 0; i < value_count(list); i++)
            if (strcmp(value_get_string(value_at(list, i), "digest", ""), digest) != 0)
                value_copy(value_push(&left), value_at(list, i));
        value_move(list, &left);
        int written = put_index(remote, name, tag, &index, etag, err);
        if (written != 0)
            return written < 0 ? -1 : 0;
    }
    return error_set(err, ERR_CONFLICT, "%s/%s:%s changes all the time", remote->host, name, tag);
}

int remote_note_referrer(struct remote *remote, const char *name, const struct value *manifest,
                         const char *digest, size_t size, struct error *err)
{
    const char *subject = value_get_string(value_get(manifest, "subject"), "digest", "");
    const char *own = value_get_string(manifest, "mediaType", OCI_MANIFEST);
    const struct value *annotations = value_get(manifest, "annotations");
    cleanup_value struct value there = {0};
    cleanup_value struct value descriptor = {0};

    if (!digest_valid(subject))
        return 0;
    value_set_array(&there);
    int api = by_api(remote, name, subject, NULL, &there, err);
    if (api < 0)
        return -1;
    /* A registry with the API lists it by itself. */
    if (api == 1 && listed(&there, digest))
        return 0;
    put_descriptor(&descriptor, own, digest, (int64_t)size);
    const char *type =
        value_get_string(manifest, "artifactType",
                         value_get_string(value_get(manifest, "config"), "mediaType", NULL));
    value_put_string(&descriptor, "artifactType", type);
    if (value_count(annotations))
        value_copy(value_put(&descriptor, "annotations"), annotations);
    return add_to_fallback(remote, name, subject, &descriptor, err);
}

static int write_artifact(struct store *store, const struct attachment *attachment,
                          const struct value *subject, struct digest *digest, struct error *err)
{
    cleanup_value struct value layers = {0};

    value_set_array(&layers);
    put_descriptor(value_push(&layers), attachment->type, attachment->blob.text,
                   (int64_t)attachment->size);
    return artifact_write(store, attachment->type, &layers, subject, attachment->annotations,
                          digest, err);
}

int remote_attach(struct remote *remote, struct store *store, const char *name, const char *ref,
                  const struct attachment *attachment, struct digest *out, struct error *err)
{
    cleanup_buf struct buf text = BUF_INIT;
    cleanup_buf struct buf own = BUF_INIT;
    cleanup_free char *media_type = NULL;
    cleanup_value struct value subject = {0};
    cleanup_value struct value manifest = {0};
    struct push_result pushed;
    struct digest digest;

    if (remote_manifest(remote, name, ref, &text, &media_type, &digest, err) != 0)
        return -1;
    put_descriptor(&subject, media_type, digest.text, (int64_t)text.len);
    /* By its digest: artifacts have no tag. */
    if (write_artifact(store, attachment, &subject, out, err) != 0 ||
        remote_push(remote, store, out->text, name, out->text, NULL, &pushed, err) != 0)
        return -1;
    if (!pushed.skipped)
        return 0;
    /* It was there, but whoever sent it may have died before it was in the list. */
    if (store_blob_read(store, out->text, STORE_MANIFEST_LIMIT, &own, err) != 0 ||
        oci_manifest_parse(own.data, own.len, out->text, &manifest, err) != 0)
        return -1;
    return remote_note_referrer(remote, name, &manifest, out->text, own.len, err);
}
