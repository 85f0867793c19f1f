/* From a registry: manifests, tags, whole images. */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "oci/manifest.h"
#include "oci/remote.h"
#include "oci/remote_list.h"
#include "oci/workers.h"

#define ACCEPT        OCI_MANIFEST ", " OCI_INDEX ", " DOCKER_MANIFEST ", " DOCKER_LIST
#define BLOB_ATTEMPTS 3

static char *pull_scope(const char *name)
{
    return mem_printf("repository:%s:pull", name);
}

int remote_resolve(struct remote *remote, const char *name, const char *ref, struct digest *out,
                   struct error *err)
{
    cleanup_free char *url = mem_printf("/v2/%s/manifests/%s", name, ref);
    cleanup_free char *scope = pull_scope(name);
    cleanup_response struct http_response response = {0};
    struct http_request request = HTTP_REQUEST_INIT;

    request.method = "HEAD";
    request.url = url;
    request.follow = true;
    http_header_add(&request.headers, "Accept", ACCEPT);
    int status = remote_send(remote, scope, &request, &response, err);
    http_headers_free(&request.headers);
    if (status != 0)
        return -1;
    if (response.status == 404)
        return 0;
    if (response.status != 200) {
        cleanup_free char *what = mem_printf("%s/%s:%s", remote->host, name, ref);
        return remote_refused(remote, &request, &response, what, err);
    }
    const char *digest = http_header_get(&response.headers, "Docker-Content-Digest");
    if (digest_valid(digest)) {
        memcpy(out->text, digest, strlen(digest) + 1);
        return 1;
    }
    /* Old servers leave the header out. */
    return remote_manifest(remote, name, ref, NULL, NULL, out, err) == 0 ? 1 : -1;
}

int remote_manifest(struct remote *remote, const char *name, const char *ref, struct buf *text,
                    char **media_type, struct digest *digest, struct error *err)
{
    cleanup_free char *url = mem_printf("/v2/%s/manifests/%s", name, ref);
    cleanup_free char *scope = pull_scope(name);
    cleanup_free char *what =
        mem_printf("%s/%s%s%s", remote->host, name, digest_valid(ref) ? "@" : ":", ref);
    cleanup_response struct http_response response = {0};
    struct http_request request = HTTP_REQUEST_INIT;
    struct digest sum;

    request.url = url;
    request.follow = true;
    request.reply_limit = STORE_MANIFEST_LIMIT;
    http_header_add(&request.headers, "Accept", ACCEPT);
    int status = remote_send(remote, scope, &request, &response, err);
    http_headers_free(&request.headers);
    if (status != 0)
        return -1;
    if (response.status != 200)
        return remote_refused(remote, &request, &response, what, err);
    digest_bytes(response.body.data, response.body.len, &sum);
    const char *promised =
        digest_valid(ref) ? ref : http_header_get(&response.headers, "Docker-Content-Digest");
    if (promised && digest_valid(promised) && strcmp(promised, sum.text) != 0) {
        error_set(err, ERR_DIGEST,
                  "%s: the manifest that came has the digest %s, it should have %s", what, sum.text,
                  promised);
        return error_hint(
            err, "the registry's storage, or a proxy on the way, is damaged: nothing was kept");
    }
    if (media_type) {
        const char *type = http_header_get(&response.headers, "Content-Type");
        *media_type =
            mem_strndup(type ? type : OCI_MANIFEST, strcspn(type ? type : OCI_MANIFEST, "; "));
    }
    if (digest)
        *digest = sum;
    if (text)
        buf_append(text, response.body.data, response.body.len);
    return 0;
}

static int compare_tags(const void *a, const void *b)
{
    return strcmp(value_text(a, ""), value_text(b, ""));
}

int remote_tags(struct remote *remote, const char *name, size_t limit, const char *last,
                struct value *out, struct error *err)
{
    cleanup_free char *scope = pull_scope(name);
    cleanup_free char *path = mem_printf("/v2/%s/tags/list", name);

    if (remote_list(remote, scope, path, "tags", limit, last, out, err) != 0)
        return -1;
    /* The specification wants them sorted; not every registry sorts. */
    if (value_count(out))
        qsort(out->as.array.items, value_count(out), sizeof *out->as.array.items, compare_tags);
    return 0;
}

/* ---- blobs ---- */

struct pull {
    struct remote *remote;
    struct store *store;
    const char *name;
    char *scope, *label;
    const struct value **blobs; /* descriptors */
    int64_t total;
    _Atomic int64_t done;
};

struct piece {
    struct pull *pull;
    struct upload *upload;
    uint64_t size;
    struct error *err;
};

static int take_piece(void *ctx, const char *data, size_t len)
{
    struct piece *piece = ctx;

    if (store_upload_size(piece->upload) + len > piece->size)
        return error_set(piece->err, ERR_DIGEST,
                         "the blob is larger than its manifest says (%llu bytes)",
                         (unsigned long long)piece->size);
    if (store_blob_write(piece->upload, data, len, piece->err) != 0)
        return -1;
    int64_t done = atomic_fetch_add(&piece->pull->done, (int64_t)len) + (int64_t)len;
    call_progress(piece->pull->remote->call, piece->pull->label, done, piece->pull->total, "B");
    return 0;
}

static int mismatch(struct pull *pull, const char *digest, struct error *err)
{
    error_wrap(err, "%s/%s: blob %s", pull->remote->host, pull->name, digest);
    return error_hint(
        err, "the registry's storage, or a proxy on the way, is damaged: nothing was kept");
}

static int fetch_once(struct pull *pull, const struct value *descriptor, struct error *err)
{
    const char *digest = value_get_string(descriptor, "digest", "");
    cleanup_free char *url = mem_printf("/v2/%s/blobs/%s", pull->name, digest);
    cleanup_response struct http_response response = {0};
    struct error inner = {0};
    struct piece piece = {
        .pull = pull, .size = (uint64_t)value_get_int(descriptor, "size", 0), .err = &inner};
    struct http_request request = HTTP_REQUEST_INIT;

    piece.upload = store_blob_begin(pull->store, err);
    if (!piece.upload)
        return -1;
    request.url = url;
    request.follow = true;
    request.sink = take_piece;
    request.sink_ctx = &piece;
    int status = remote_send(pull->remote, pull->scope, &request, &response, err);
    uint64_t got = store_upload_size(piece.upload);
    if (status != 0 || response.status != 200 || got != piece.size) {
        store_blob_abort(piece.upload);
        atomic_fetch_sub(&pull->done, (int64_t)got);
    }
    if (inner.code) {
        if (err)
            *err = inner;
        return mismatch(pull, digest, err);
    }
    if (status != 0)
        return error_wrap(err, "%s/%s: blob %s", pull->remote->host, pull->name, digest);
    if (response.status != 200) {
        cleanup_free char *what =
            mem_printf("%s/%s: blob %s", pull->remote->host, pull->name, digest);
        return remote_refused(pull->remote, &request, &response, what, err);
    }
    if (got != piece.size) {
        error_set(err, ERR_DIGEST, "%llu bytes came, the manifest says %llu",
                  (unsigned long long)got, (unsigned long long)piece.size);
        return mismatch(pull, digest, err);
    }
    if (store_blob_commit(piece.upload, digest, NULL, err) != 0)
        return mismatch(pull, digest, err);
    return 0;
}

static int fetch_blob(void *ctx, size_t index, struct error *err)
{
    struct pull *pull = ctx;
    const struct value *descriptor = pull->blobs[index];
    struct error problem = {0};

    if (store_blob_exists(pull->store, value_get_string(descriptor, "digest", ""), NULL)) {
        atomic_fetch_add(&pull->done, value_get_int(descriptor, "size", 0));
        return 0;
    }
    for (int attempt = 1;; attempt++) {
        problem = (struct error){0};
        if (fetch_once(pull, descriptor, &problem) == 0)
            return 0;
        if (attempt == BLOB_ATTEMPTS || problem.code != ERR_UNAVAILABLE ||
            deadline_passed(pull->remote->call->deadline))
            break;
    }
    if (err)
        *err = problem;
    return -1;
}

static int fetch_blobs(struct remote *remote, struct store *store, const char *name,
                       const struct value *manifest, struct error *err)
{
    const struct value *layers = value_get(manifest, "layers");
    size_t count = value_count(layers) + 1;
    cleanup_free const struct value **blobs = mem_alloc(count * sizeof *blobs);
    struct pull pull = {.remote = remote,
                        .store = store,
                        .name = name,
                        .blobs = blobs,
                        .scope = pull_scope(name),
                        .label = mem_printf("pull %s", name)};

    blobs[0] = value_get(manifest, "config");
    for (size_t i = 1; i < count; i++)
        blobs[i] = value_at(layers, i - 1);
    for (size_t i = 0; i < count; i++)
        pull.total += value_get_int(blobs[i], "size", 0);
    int status = workers_run(count, fetch_blob, &pull, err);
    free(pull.scope);
    free(pull.label);
    return status;
}

int remote_fetch(struct remote *remote, struct store *store, const char *name,
                 const struct value *descriptor, struct error *err)
{
    struct pull pull = {.remote = remote,
                        .store = store,
                        .name = name,
                        .blobs = &descriptor,
                        .total = value_get_int(descriptor, "size", 0),
                        .scope = pull_scope(name),
                        .label = mem_printf("pull %s", name)};
    int status = fetch_blob(&pull, 0, err);

    free(pull.scope);
    free(pull.label);
    return status;
}

int remote_pull(struct remote *remote, struct store *store, const char *name, const char *ref,
                const char *store_name, struct digest *digest, struct error *err)
{
    cleanup_free char *wanted = mem_strdup(ref);

    remote->reading = true;
    for (int level = 0; level < 4; level++) {
        cleanup_buf struct buf text = BUF_INIT;
        cleanup_free char *media_type = NULL;
        cleanup_value struct value manifest = {0};
        cleanup_free char *source = mem_printf("%s/%s:%s", remote->host, name, wanted);
        struct digest sum;
        /* What has its digest for a name and is here needs no asking. */
        bool have = digest_valid(wanted) && store_manifest_get(store, store_name, wanted, &text,
                                                               &media_type, &sum, NULL) == 0;
        if (!have && remote_manifest(remote, name, wanted, &text, &media_type, &sum, err) != 0)
            return -1;
        if (oci_manifest_parse(text.data ? text.data : "", text.len, source, &manifest, err) != 0)
            return -1;
        bool index = oci_is_index(&manifest);
        if (!index && fetch_blobs(remote, store, name, &manifest, err) != 0)
            return -1;
        const char *own_type = value_get_string(&manifest, "mediaType", media_type);
        if (store_manifest_put(store, store_name, level == 0 ? ref : sum.text, own_type, text.data,
                               text.len, index, NULL, err) != 0)
            return error_wrap(err, "%s", source);
        if (!index) {
            *digest = sum;
            return 0;
        }
        const struct value *descriptor = oci_index_pick(&manifest, source, err);
        if (!descriptor)
            return -1;
        char *next = mem_strdup(value_get_string(descriptor, "digest", ""));
        free(wanted);
        wanted = next;
    }
    return error_set(err, ERR_INVALID, "%s/%s:%s: too many nested indexes", remote->host, name,
                     ref);
}

static int pull_document(struct remote *remote, struct store *store, const char *name,
                         const char *ref, const char *store_name, int level, struct digest *digest,
                         struct error *err)
{
    cleanup_buf struct buf text = BUF_INIT;
    cleanup_free char *media_type = NULL;
    cleanup_value struct value manifest = {0};
    cleanup_free char *source = mem_printf("%s/%s:%s", remote->host, name, ref);

    if (level > LEVELS_MAX)
        return error_set(err, ERR_INVALID, "%s: too many nested indexes", source);
    if (remote_manifest(remote, name, ref, &text, &media_type, digest, err) != 0 ||
        oci_manifest_parse(text.data ? text.data : "", text.len, source, &manifest, err) != 0)
        return -1;
    const struct value *children = value_get(&manifest, "manifests");
    bool index = oci_is_index(&manifest);
    for (size_t i = 0; index && i < value_count(children); i++) {
        struct digest child;
        const char *next = value_get_string(value_at(children, i), "digest", "");
        if (pull_document(remote, store, name, next, store_name, level + 1, &child, err) != 0)
            return -1;
    }
    if (!index && fetch_blobs(remote, store, name, &manifest, err) != 0)
        return -1;
    return store_manifest_put(store, store_name, ref,
                              value_get_string(&manifest, "mediaType", media_type), text.data,
                              text.len, false, NULL, err) == 0
               ? 0
               : error_wrap(err, "%s", source);
}

int remote_pull_whole(struct remote *remote, struct store *store, const char *name, const char *ref,
                      const char *store_name, struct digest *digest, struct error *err)
{
    return pull_document(remote, store, name, ref, store_name, 0, digest, err);
}
