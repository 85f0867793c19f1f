#include "oci/build_fetch.h"

#include <errno.h>
#include <time.h>
#include <unistd.h>

#include "loop/http.h"

#define BODY_MAX (INT64_C(32) << 30)
#define CUTS_MAX 3

struct body {
    int fd;
    int64_t got;
};

static int take(void *ctx, const char *data, size_t len)
{
    struct body *body = ctx;

    body->got += (int64_t)len;
    return body->got > BODY_MAX ? -1 : fd_write_all(body->fd, data, len, NULL);
}

/* "Sun, 06 Nov 1994 08:49:37 GMT", the one form of HTTP dates that is still sent. */
static int64_t date_of(const char *text)
{
    struct tm tm = {0};

    if (!text || !strptime(text, "%a, %d %b %Y %H:%M:%S GMT", &tm))
        return -1;
    return (int64_t)timegm(&tm);
}

static int fetch_once(struct call *call, struct http *http, const char *url, struct body *body,
                      int64_t *modified, struct error *err)
{
    struct http_request request = HTTP_REQUEST_INIT;
    cleanup_response struct http_response response = {0};

    request.url = url;
    request.follow = true;
    request.sink = take;
    request.sink_ctx = body;
    request.deadline = call->deadline ? call->deadline : DEADLINE_NONE;
    request.cancel = call->cancel;
    request.allow = call_http_allow;
    request.allow_ctx = call;
    if (http_perform(http, &request, &response, err) != 0)
        return -1;
    if (response.status != 200)
        return http_status_error(&request, &response, NULL, err);
    *modified = date_of(http_header_get(&response.headers, "Last-Modified"));
    return 0;
}

int build_fetch(struct call *call, const char *url, int fd, int64_t *modified, struct error *err)
{
    struct http *http = call_http(call, err);
    off_t start = lseek(fd, 0, SEEK_CUR);
    struct error problem = {0};

    if (!http)
        return -1;
    for (int attempt = 0; attempt < CUTS_MAX; attempt++) {
        struct body body = {.fd = fd};
        if (fetch_once(call, http, url, &body, modified, &problem) == 0)
            return 0;
        if (body.got > BODY_MAX) {
            error_set(&problem, ERR_TOO_LARGE, "%s has more than %lld bytes", url,
                      (long long)BODY_MAX);
            break;
        }
        /* What was cut in the middle begins anew; all else the client has repeated itself. */
        if (!body.got || !problem.retryable)
            break;
        if (ftruncate(fd, start) < 0 || lseek(fd, start, SEEK_SET) < 0)
            return error_errno(err, errno, "cannot begin %s anew", url);
    }
    if (err)
        *err = problem;
    return -1;
}
