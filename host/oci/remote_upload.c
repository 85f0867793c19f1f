#include "oci/remote_upload.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

static char *push_scope(const char *name)
{
    return mem_printf("repository:%s:pull,push", name);
}

static char *what_blob(const struct remote *remote, const char *name, const char *digest)
{
    return digest ? mem_printf("%s/%s: blob %s", remote->host, name, digest)
                  : mem_printf("%s/%s: a blob", remote->host, name);
}

int remote_upload_begin(struct remote *remote, const char *name, const char *digest,
                        const char *from, char **location, struct error *err)
{
    cleanup_free char *url =
        from ? mem_printf("/v2/%s/blobs/uploads/?mount=%s&from=%s", name, digest, from)
             : mem_printf("/v2/%s/blobs/uploads/", name);
    cleanup_free char *own = push_scope(name);
    cleanup_free char *scope =
        from ? mem_printf("%s repository:%s:pull", own, from) : mem_strdup(own);
    cleanup_free char *what = what_blob(remote, name, digest);
    cleanup_response struct http_response response = {0};
    struct http_request request = HTTP_REQUEST_INIT;

    request.method = "POST";
    request.url = url;
    request.body = "";
    request.repeat = HTTP_REPEAT_ALWAYS; /* a session that nobody uses ends by itself */
    if (remote_send(remote, scope, &request, &response, err) != 0)
        return error_wrap(err, "%s", what);
    if (from && response.status == 201)
        return 1;
    if (from && response.status >= 400 && response.status < 500 && response.status != 429)
        return remote_upload_begin(remote, name, digest, NULL, location, err);
    const char *where = http_header_get(&response.headers, "Location");
    if (response.status != 202)
        return remote_refused(remote, &request, &response, what, err);
    if (!where || !*where) {
        error_set(err, ERR_INVALID, "%s: the registry began an upload without saying where", what);
        if (err)
            err->retryable = true; /* the connection may have ended within the reply's head */
        return -1;
    }
    *location = mem_strdup(where);
    return 0;
}

/* PUT with the digest: with the file, or without a body. */
static int put(struct remote *remote, const char *name, const char *location, const char *digest,
               struct http_request *request, struct error *err)
{
    cleanup_free char *url =
        mem_printf("%s%cdigest=%s", location, strchr(location, '?') ? '&' : '?', digest);
    cleanup_free char *scope = push_scope(name);
    cleanup_free char *what = what_blob(remote, name, digest);
    cleanup_response struct http_response response = {0};

    request->method = "PUT";
    request->url = url;
    /* Half a body may have arrived: a new session is begun instead. */
    request->repeat = HTTP_REPEAT_NEVER;
    http_header_add(&request->headers, "Content-Type", "application/octet-stream");
    int status = remote_send(remote, scope, request, &response, err);
    http_headers_free(&request->headers);
    if (status != 0)
        return error_wrap(err, "%s", what);
    if (response.status == 201)
        return 0;
    remote_refused(remote, request, &response, what, err);
    /* A connection that broke may have left a session that is over, or half of the bytes; another
     * session mends both. */
    if (err && (response.status == 400 || response.status == 404 || response.status == 416))
        err->retryable = true;
    return -1;
}

int remote_upload_file(struct remote *remote, const char *name, const char *location,
                       const char *digest, int fd, uint64_t size, http_progress_fn *progress,
                       void *progress_ctx, struct error *err)
{
    struct http_request request = HTTP_REQUEST_INIT;

    request.body_fd = fd;
    request.body_size = size;
    request.progress = progress;
    request.progress_ctx = progress_ctx;
    return put(remote, name, location, digest, &request, err);
}

int remote_upload_close(struct remote *remote, const char *name, const char *location,
                        const char *digest, struct error *err)
{
    struct http_request request = HTTP_REQUEST_INIT;

    request.body = "";
    return put(remote, name, location, digest, &request, err);
}

int remote_upload_stream(struct remote *remote, const char *name, char **location,
                         http_source_fn *source, void *source_ctx, struct error *err)
{
    cleanup_free char *scope = push_scope(name);
    cleanup_free char *what = what_blob(remote, name, NULL);
    cleanup_response struct http_response response = {0};
    struct http_request request = HTTP_REQUEST_INIT;

    request.method = "PATCH";
    request.url = *location;
    request.source = source;
    request.source_ctx = source_ctx;
    http_header_add(&request.headers, "Content-Type", "application/octet-stream");
    int status = remote_send(remote, scope, &request, &response, err);
    http_headers_free(&request.headers);
    if (status != 0)
        return error_wrap(err, "%s", what);
    /* 202 by the specification; 201 and 204 are what ECR and GCR say. */
    if (response.status < 200 || response.status > 204)
        return remote_refused(remote, &request, &response, what, err);
    const char *where = http_header_get(&response.headers, "Location");
    if (where && *where) {
        free(*location);
        *location = mem_strdup(where);
    }
    return 0;
}

void remote_upload_cancel(struct remote *remote, const char *name, const char *location)
{
    cleanup_free char *scope = push_scope(name);
    cleanup_response struct http_response response = {0};
    struct http_request request = HTTP_REQUEST_INIT;

    request.method = "DELETE";
    request.url = location;
    request.attempts = 1;
    (void)remote_send(remote, scope, &request, &response, NULL);
}
