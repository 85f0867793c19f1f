#include "oci/remote_upload.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/mem.h"
#include "oci/remote_header.h"

#define STALLS_MAX   3 /* tries to go on that bring nothing */
#define ASK_ATTEMPTS 3
#define CANCEL_NS    (5 * NS_PER_S)
#define SMALL_CHUNK  ((uint64_t)4 << 20) /* the most that some registries take with a range */
#define MIN_LIMIT    ((uint64_t)1 << 30) /* what a registry may ask for as the least */

void remote_upload_free(struct remote_upload *upload)
{
    free(upload->location);
    *upload = (struct remote_upload){0};
}

static char *push_scope(const char *name)
{
    return mem_printf("repository:%s:pull,push", name);
}

static char *what_blob(const struct remote *remote, const char *name, const char *digest)
{
    return digest ? mem_printf("%s/%s: blob %s", remote->host, name, digest)
                  : mem_printf("%s/%s: a blob", remote->host, name);
}

static int retryable(struct error *err)
{
    if (err)
        err->retryable = true;
    return -1;
}

/* 202 by the specification; 201 and 204 are what ECR and GCR say. */
static bool taken(int status)
{
    return status >= 200 && status <= 204;
}

/* Location may be relative to the request that it answers. */
static void follow(const struct http_response *response, struct remote_upload *upload)
{
    const char *where = http_header_get(&response->headers, "Location");

    if (!where || !*where)
        return;
    char *next = location_resolve(response->url, where);
    if (!next)
        return;
    free(upload->location);
    upload->location = next;
}

int remote_upload_begin(struct remote *remote, const char *name, const char *digest,
                        const char *from, struct remote_upload *out, struct error *err)
{
    cleanup_free char *url =
        from ? mem_printf("/v2/%s/blobs/uploads/?mount=%s&from=%s", name, digest, from)
             : mem_printf("/v2/%s/blobs/uploads/", name);
    cleanup_free char *own = push_scope(name);
    cleanup_free char *scope =
        from ? mem_printf("%s repository:%s:pull", own, from) : mem_strdup(own);
    cleanup_free char *what = what_blob(remote, name, digest);
    cleanup_response struct http_response response = {0};
    struct error problem = {0};
    struct http_request request = HTTP_REQUEST_INIT;

    request.method = "POST";
    request.url = url;
    request.body = "";
    request.repeat = HTTP_REPEAT_ALWAYS; /* a session that nobody uses ends by itself */
    if (remote_send(remote, scope, &request, &response, &problem) != 0) {
        /* a token service that grants nothing of the other repository */
        if (from && (problem.code == ERR_UNAUTHORIZED || problem.code == ERR_DENIED ||
                     problem.code == ERR_NOT_FOUND || problem.code == ERR_INVALID))
            return remote_upload_begin(remote, name, digest, NULL, out, err);
        if (err)
            *err = problem;
        return error_wrap(err, "%s", what);
    }
    if (from && response.status == 201)
        return 1;
    if (from && response.status >= 400 && response.status < 500 && response.status != 429)
        return remote_upload_begin(remote, name, digest, NULL, out, err);
    if (response.status != 202)
        return remote_refused(remote, &request, &response, what, err);
    remote_upload_free(out);
    follow(&response, out);
    if (!out->location) {
        error_set(err, ERR_INVALID, "%s: the registry began an upload without saying where", what);
        return retryable(err); /* the connection may have ended within the reply's head */
    }
    const char *least = http_header_get(&response.headers, "OCI-Chunk-Min-Length");
    unsigned long long bytes = least ? strtoull(least, NULL, 10) : 0;
    out->min_chunk = bytes > MIN_LIMIT ? MIN_LIMIT : bytes;
    return 0;
}

/* PUT with the digest: with the file, or without a body. */
static int put(struct remote *remote, const char *name, const struct remote_upload *upload,
               const char *digest, struct http_request *request, struct error *err)
{
    const char *location = upload->location;
    cleanup_free char *url =
        mem_printf("%s%cdigest=%s", location, strchr(location, '?') ? '&' : '?', digest);
    cleanup_free char *scope = push_scope(name);
    cleanup_free char *what = what_blob(remote, name, digest);
    cleanup_response struct http_response response = {0};

    request->method = "PUT";
    request->url = url;
    /* Half a body may have arrived: the session is asked instead. */
    request->repeat = HTTP_REPEAT_NEVER;
    http_header_add(&request->headers, "Content-Type", "application/octet-stream");
    int status = remote_send(remote, scope, request, &response, err);
    http_headers_free(&request->headers);
    if (status != 0)
        return error_wrap(err, "%s", what);
    if (response.status == 201 || response.status == 204)
        return 0;
    remote_refused(remote, request, &response, what, err);
    /* A connection that broke may have left a session that is over, or half of the bytes; another
     * session mends both. */
    if (response.status == 400 || response.status == 404 || response.status == 416)
        return retryable(err);
    return -1;
}

struct shifted {
    http_progress_fn *progress;
    void *ctx;
    uint64_t base;
};

static void on_shifted(void *ctx, int64_t sent, int64_t send_total, int64_t got, int64_t get_total)
{
    struct shifted *shifted = ctx;

    if (shifted->progress)
        shifted->progress(shifted->ctx, (int64_t)shifted->base + sent, send_total, got, get_total);
}

/* How many bytes the session has, *at; follows it. -1: it is over, or does not say. */
static int ask_progress(struct remote *remote, const char *name, struct remote_upload *upload,
                        uint64_t *at)
{
    cleanup_free char *scope = push_scope(name);
    cleanup_response struct http_response response = {0};
    struct http_request request = HTTP_REQUEST_INIT;

    request.url = upload->location;
    request.attempts = ASK_ATTEMPTS;
    if (remote_send(remote, scope, &request, &response, NULL) != 0 || !taken(response.status))
        return -1;
    follow(&response, upload);
    return range_end(http_header_get(&response.headers, "Range"), at) ? 0 : -1;
}

/* One piece with its place; *status: what the registry said, 0 when nothing came. */
static int send_piece(struct remote *remote, const char *name, struct remote_upload *upload,
                      const char *digest, int fd, uint64_t from, uint64_t len,
                      struct shifted *shifted, int *status, struct error *err)
{
    cleanup_free char *scope = push_scope(name);
    cleanup_free char *what = what_blob(remote, name, digest);
    cleanup_free char *range =
        mem_printf("%llu-%llu", (unsigned long long)from, (unsigned long long)(from + len - 1));
    cleanup_response struct http_response response = {0};
    struct http_request request = HTTP_REQUEST_INIT;

    shifted->base = from;
    request.method = "PATCH";
    request.url = upload->location;
    request.body_fd = fd;
    request.body_offset = from;
    request.body_size = len;
    request.repeat = HTTP_REPEAT_NEVER;
    request.progress = on_shifted;
    request.progress_ctx = shifted;
    http_header_add(&request.headers, "Content-Type", "application/octet-stream");
    http_header_add(&request.headers, "Content-Range", range);
    int sent = remote_send(remote, scope, &request, &response, err);
    http_headers_free(&request.headers);
    *status = sent == 0 ? response.status : 0;
    if (sent != 0)
        return error_wrap(err, "%s", what);
    if (!taken(response.status))
        return remote_refused(remote, &request, &response, what, err);
    follow(&response, upload);
    return 0;
}

/* What is missing of a session that broke off, by pieces. */
static int go_on(struct remote *remote, const char *name, struct remote_upload *upload,
                 const char *digest, int fd, uint64_t size, struct shifted *shifted,
                 struct error *err)
{
    uint64_t chunk = size, before = 0, at = 0;
    struct http_request request = HTTP_REQUEST_INIT;
    struct error problem = {0};

    for (int stalls = 0;;) {
        if (ask_progress(remote, name, upload, &at) != 0 || at > size || at < before)
            break;
        stalls = at > before ? 0 : stalls + 1;
        before = at;
        if (stalls >= STALLS_MAX || cancelled(remote->call->cancel) ||
            deadline_passed(remote->call->deadline))
            break;
        bool whole = true;
        while (at < size && whole) {
            int status;
            uint64_t len = size - at < chunk ? size - at : chunk;
            problem = (struct error){0};
            whole = send_piece(remote, name, upload, digest, fd, at, len, shifted, &status,
                               &problem) == 0;
            at += whole ? len : 0;
            if (status == 416 || status == 413) /* too much at once, perhaps */
                chunk = upload->min_chunk > SMALL_CHUNK ? upload->min_chunk : SMALL_CHUNK;
            else if (status >= 400 && status < 500)
                goto over;
        }
        if (!whole)
            continue;
        request.body = "";
        return put(remote, name, upload, digest, &request, err);
    }
over:
    if (err && problem.code)
        *err = problem; /* else it is that of the first try */
    return retryable(err);
}

int remote_upload_file(struct remote *remote, const char *name, struct remote_upload *upload,
                       const char *digest, int fd, uint64_t size, http_progress_fn *progress,
                       void *progress_ctx, struct error *err)
{
    struct shifted shifted = {.progress = progress, .ctx = progress_ctx};
    struct http_request request = HTTP_REQUEST_INIT;
    struct error problem = {0};

    request.body_fd = fd;
    request.body_size = size;
    request.progress = on_shifted;
    request.progress_ctx = &shifted;
    if (put(remote, name, upload, digest, &request, &problem) == 0)
        return 0;
    if (err)
        *err = problem;
    /* Only what broke off goes on: a refusal is an answer. */
    if (problem.code != ERR_UNAVAILABLE && !problem.retryable)
        return -1;
    return go_on(remote, name, upload, digest, fd, size, &shifted, err);
}

int remote_upload_close(struct remote *remote, const char *name, struct remote_upload *upload,
                        const char *digest, struct error *err)
{
    struct http_request request = HTTP_REQUEST_INIT;

    request.body = "";
    return put(remote, name, upload, digest, &request, err);
}

int remote_upload_stream(struct remote *remote, const char *name, struct remote_upload *upload,
                         http_source_fn *source, void *source_ctx, struct error *err)
{
    cleanup_free char *scope = push_scope(name);
    cleanup_free char *what = what_blob(remote, name, NULL);
    cleanup_response struct http_response response = {0};
    struct http_request request = HTTP_REQUEST_INIT;

    request.method = "PATCH";
    request.url = upload->location;
    request.source = source;
    request.source_ctx = source_ctx;
    http_header_add(&request.headers, "Content-Type", "application/octet-stream");
    int status = remote_send(remote, scope, &request, &response, err);
    http_headers_free(&request.headers);
    if (status != 0)
        return error_wrap(err, "%s", what);
    if (!taken(response.status))
        return remote_refused(remote, &request, &response, what, err);
    follow(&response, upload);
    return 0;
}

void remote_upload_cancel(struct remote *remote, const char *name, struct remote_upload *upload)
{
    cleanup_free char *scope = push_scope(name);
    cleanup_response struct http_response response = {0};
    struct http_request request = HTTP_REQUEST_INIT;

    if (!upload->location)
        return;
    request.method = "DELETE";
    request.url = upload->location;
    request.attempts = 1;
    request.deadline = deadline_in(CANCEL_NS);
    (void)remote_send(remote, scope, &request, &response, NULL);
}
