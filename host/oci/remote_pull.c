/* From a registry: manifests, tags, whole images. Blobs are checked while they come, and taken up
 * again after a cut. */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "oci/manifest.h"
#include "oci/remote.h"
#include "oci/remote_list.h"
#include "oci/workers.h"

#define ACCEPT    OCI_MANIFEST ", " OCI_INDEX ", " DOCKER_MANIFEST ", " DOCKER_LIST
#define CUTS_MAX  3  /* in a row without a byte in between */
#define TRIES_MAX 20 /* in all: a registry that sends a byte at a time is not fed for ever */

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
    const char *said = http_header_get(&response.headers, "Content-Type");
    cleanup_free char *type = said ? mem_strndup(said, strcspn(said, "; ")) : NULL;
    if (type && oci_same_type(response.body.data ? response.body.data : "", response.body.len, type,
                              what, err) != 0)
        return -1;
    if (media_type)
        *media_type = type ? steal_ptr(&type) : mem_strdup(OCI_MANIFEST);
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

/* One blob under way. */
struct piece {
    struct pull *pull;
    const char *digest;
    uint64_t size;
    struct upload *upload;
    const struct http_response *response; /* of the present request */
    bool first;                           /* no byte of its body has been seen */
    bool whole;                           /* the registry refuses ranges */
    uint64_t skip; /* bytes that come again, as it sends the blob from its start */
    struct error err;
};

/* Where the body begins: a registry may answer a range with all of the blob. */
static int begin_body(struct piece *piece)
{
    uint64_t have = store_upload_size(piece->upload);
    const char *range = http_header_get(&piece->response->headers, "Content-Range");
    unsigned long long from = 0;

    piece->first = false;
    if (range && (sscanf(range, "bytes %llu-", &from) != 1 || from > have))
        return error_set(&piece->err, ERR_INVALID,
                         "the registry sent the range '%.60s', wanted was bytes %llu-", range,
                         (unsigned long long)have);
    piece->skip = have - from;
    return 0;
}

static int take_piece(void *ctx, const char *data, size_t len)
{
    struct piece *piece = ctx;
    struct pull *pull = piece->pull;

    if (piece->first && begin_body(piece) != 0)
        return -1;
    size_t again = piece->skip < len ? (size_t)piece->skip : len;
    piece->skip -= again;
    data += again;
    len -= again;
    if (store_upload_size(piece->upload) + len > piece->size)
        return error_set(&piece->err, ERR_DIGEST,
                         "the blob is larger than its manifest says (%llu bytes)",
                         (unsigned long long)piece->size);
    if (store_blob_write(piece->upload, data, len, &piece->err) != 0)
        return -1;
    int64_t done = atomic_fetch_add(&pull->done, (int64_t)len) + (int64_t)len;
    call_progress(pull->remote->call, pull->label, done, pull->total, "B");
    return 0;
}

static int mismatch(const struct piece *piece, struct error *err)
{
    error_wrap(err, "%s/%s: blob %s", piece->pull->remote->host, piece->pull->name, piece->digest);
    return error_hint(
        err, "the registry's storage, or a proxy on the way, is damaged: nothing was kept");
}

/* One request for what is still missing. */
static int request_rest(struct piece *piece, struct error *err)
{
    struct pull *pull = piece->pull;
    uint64_t have = store_upload_size(piece->upload);
    cleanup_free char *url = mem_printf("/v2/%s/blobs/%s", pull->name, piece->digest);
    cleanup_free char *what =
        mem_printf("%s/%s: blob %s", pull->remote->host, pull->name, piece->digest);
    cleanup_response struct http_response response = {0};
    struct http_request request = HTTP_REQUEST_INIT;
    char range[48];

    piece->response = &response;
    piece->first = true;
    piece->skip = 0;
    piece->err = (struct error){0};
    request.url = url;
    request.follow = true;
    request.sink = take_piece;
    request.sink_ctx = piece;
    snprintf(range, sizeof range, "bytes=%llu-", (unsigned long long)have);
    bool ranged = have && !piece->whole;
    if (ranged)
        http_header_add(&request.headers, "Range", range);
    int status = remote_send(pull->remote, pull->scope, &request, &response, err);
    http_headers_free(&request.headers);
    if (piece->err.code) {
        if (err)
            *err = piece->err;
        return mismatch(piece, err);
    }
    if (status != 0)
        return error_wrap(err, "%s", what);
    if (response.status != 200 && response.status != 206) {
        remote_refused(pull->remote, &request, &response, what, err);
        piece->whole = ranged;
        if (ranged && err)
            err->code = ERR_UNAVAILABLE; /* it may have the blob and not like the range */
        return -1;
    }
    if (store_upload_size(piece->upload) != piece->size) {
        error_set(err, ERR_DIGEST, "%llu bytes came, the manifest says %llu",
                  (unsigned long long)store_upload_size(piece->upload),
                  (unsigned long long)piece->size);
        return mismatch(piece, err);
    }
    return 0;
}

/* The whole of it, in as many requests as cuts make necessary. */
static int receive(struct piece *piece, struct error *err)
{
    const struct call *call = piece->pull->remote->call;
    struct error problem = {0};
    int cuts = 0;

    for (int tries = 1;; tries++) {
        uint64_t had = store_upload_size(piece->upload);
        problem = (struct error){0};
        if (request_rest(piece, &problem) == 0)
            return 0;
        cuts = store_upload_size(piece->upload) > had ? 1 : cuts + 1;
        if (problem.code != ERR_UNAVAILABLE || cuts >= CUTS_MAX || tries >= TRIES_MAX ||
            cancelled(call->cancel) || deadline_passed(call->deadline))
            break;
    }
    if (err)
        *err = problem;
    return -1;
}

static int fetch_blob(void *ctx, size_t index, struct error *err)
{
    struct pull *pull = ctx;
    const struct value *descriptor = pull->blobs[index];
    struct piece piece = {.pull = pull,
                          .digest = value_get_string(descriptor, "digest", ""),
                          .size = (uint64_t)value_get_int(descriptor, "size", 0)};

    if (store_blob_exists(pull->store, piece.digest, NULL)) {
        atomic_fetch_add(&pull->done, (int64_t)piece.size);
        return 0;
    }
    piece.upload = store_blob_begin(pull->store, err);
    if (!piece.upload)
        return -1;
    if (receive(&piece, err) != 0) {
        store_blob_abort(piece.upload);
        return -1;
    }
    return store_blob_commit(piece.upload, piece.digest, NULL, err) == 0 ? 0
                                                                         : mismatch(&piece, err);
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
    remote->reading = true;
    return pull_document(remote, store, name, ref, store_name, 0, digest, err);
}
