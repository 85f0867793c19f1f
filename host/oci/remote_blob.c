/* From a registry: blobs, several at once, checked while they come, taken up again after a cut. */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "oci/remote.h"
#include "oci/workers.h"

#define CUTS_MAX  3  /* in a row without a byte in between */
#define TRIES_MAX 20 /* in all: a registry that sends a byte at a time is not fed for ever */

struct pull {
    struct remote *remote;
    struct store *store;
    const struct pull_watcher *watcher;
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
    void *watch;
    const struct http_response *response; /* of the present request */
    bool first;                           /* no byte of its body has been seen */
    bool whole;                           /* the registry does not know ranges */
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
    if (pull->watcher)
        pull->watcher->grown(piece->watch, store_upload_size(piece->upload));
    int64_t done = atomic_fetch_add(&pull->done, (int64_t)len) + (int64_t)len;
    call_progress(pull->remote->call, pull->label, done, pull->total, "B");
    return 0;
}

static int of_blob(const struct piece *piece, struct error *err)
{
    return error_wrap(err, "%s/%s: blob %s", piece->pull->remote->host, piece->pull->name,
                      piece->digest);
}

static int mismatch(const struct piece *piece, struct error *err)
{
    of_blob(piece, err);
    return error_hint(
        err, "the registry's storage, or a proxy on the way, is damaged: nothing was kept");
}

/* One request for what is still missing. */
static int request_rest(struct piece *piece, struct error *err)
{
    struct pull *pull = piece->pull;
    uint64_t have = store_upload_size(piece->upload);
    cleanup_free char *url = mem_printf("/v2/%s/blobs/%s", pull->name, piece->digest);
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
        return of_blob(piece, err);
    if (response.status != 200 && response.status != 206) {
        cleanup_free char *what =
            mem_printf("%s/%s: blob %s", pull->remote->host, pull->name, piece->digest);
        piece->whole = ranged;
        remote_refused(pull->remote, &request, &response, what, err);
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

static void blob_ended(const struct pull *pull, const char *digest, bool there)
{
    if (pull->watcher)
        pull->watcher->ended(pull->watcher->ctx, digest, there);
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
        blob_ended(pull, piece.digest, true);
        return 0;
    }
    piece.upload = store_blob_begin(pull->store, err);
    if (!piece.upload)
        return -1;
    if (pull->watcher)
        piece.watch =
            pull->watcher->begun(pull->watcher->ctx, piece.digest, store_upload_fd(piece.upload));
    int status = receive(&piece, err);
    if (status != 0)
        store_blob_abort(piece.upload);
    else if (store_blob_commit(piece.upload, piece.digest, NULL, err) != 0)
        status = mismatch(&piece, err);
    blob_ended(pull, piece.digest, status == 0);
    return status;
}

static int fetch(struct pull *pull, size_t count, struct error *err)
{
    for (size_t i = 0; i < count; i++)
        pull->total += value_get_int(pull->blobs[i], "size", 0);
    pull->scope = mem_printf("repository:%s:pull", pull->name);
    pull->label = mem_printf("pull %s", pull->name);
    int status = workers_run(count, fetch_blob, pull, err);
    free(pull->scope);
    free(pull->label);
    return status;
}

int remote_fetch_all(struct remote *remote, struct store *store, const char *name,
                     const struct value *manifest, const struct pull_watcher *watcher,
                     struct error *err)
{
    const struct value *layers = value_get(manifest, "layers");
    cleanup_free const struct value **blobs = mem_alloc((value_count(layers) + 1) * sizeof *blobs);
    struct pull pull = {
        .remote = remote, .store = store, .watcher = watcher, .name = name, .blobs = blobs};
    size_t count = 0;

    for (size_t i = 0; i <= value_count(layers); i++) {
        const struct value *blob = i ? value_at(layers, i - 1) : value_get(manifest, "config");
        bool twice = false;
        for (size_t k = 0; k < count && !twice; k++)
            twice = strcmp(value_get_string(blobs[k], "digest", ""),
                           value_get_string(blob, "digest", "")) == 0;
        if (!twice)
            blobs[count++] = blob;
    }
    if (watcher)
        watcher->manifest(watcher->ctx, manifest);
    return fetch(&pull, count, err);
}

int remote_fetch(struct remote *remote, struct store *store, const char *name,
                 const struct value *descriptor, struct error *err)
{
    struct pull pull = {.remote = remote, .store = store, .name = name, .blobs = &descriptor};

    return fetch(&pull, 1, err);
}
