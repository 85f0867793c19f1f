/*
 * HTTP(S) client: libcurl's multi interface on one I/O thread with an event loop of its own,
 * connections kept and shared.
 *
 * http_perform() blocks its caller (any thread) until the reply is there, its deadline has passed,
 * or it was cancelled. Part of the io module.
 */
#ifndef MLHOST_LOOP_HTTP_H
#define MLHOST_LOOP_HTTP_H

#include <stdint.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/error.h"
#include "loop/cancel.h"

struct http; /* a client: the I/O thread, its connections */

struct http_header {
    char *name;
    char *value;
};
struct http_headers {
    struct http_header *items;
    size_t count, room;
};
void http_header_add(struct http_headers *headers, const char *name,
                     const char *value); /* copies */
const char *http_header_get(const struct http_headers *headers,
                            const char *name); /* any case; NULL */
void http_headers_free(struct http_headers *headers);

/* Called for progress, from the I/O thread; totals are -1 while unknown. */
typedef void http_progress_fn(void *ctx, int64_t sent, int64_t send_total, int64_t got,
                              int64_t get_total);
/* Body by pieces. source: bytes put into data (0 at the end), -1 fails, HTTP_SOURCE_LATER: none
 * yet, http_feed() will say when to ask again. sink: 0 goes on, -1 fails the transfer. Both are
 * called from the I/O thread and must not block. */
#define HTTP_SOURCE_LATER (-2)
typedef ssize_t http_source_fn(void *ctx, char *data, size_t room);
typedef int http_sink_fn(void *ctx, const char *data, size_t len);
/* Is this address allowed? Asked for the URL's host and each redirect, and again for the resolved
 * address. 0 or -1. */
typedef int http_allow_fn(void *ctx, const char *host, int port, const char *address,
                          struct error *err);

enum http_repeat {
    HTTP_REPEAT_SAFE, /* the default: GET HEAD PUT DELETE OPTIONS are repeated after a failure that
                         allows it */
    HTTP_REPEAT_NEVER,
    HTTP_REPEAT_ALWAYS /* a POST that is known to be idempotent */
};

struct http_request {
    const char *method; /* "GET" when NULL */
    const char *url;
    const char *unix_socket;     /* connect here instead of to the URL's host */
    struct http_headers headers; /* the caller's; not freed */

    /* the body: none, bytes, a part of a file, or a source (a source is not repeated) */
    const void *body;
    size_t body_len;
    int body_fd;
    uint64_t body_offset, body_size; /* body_fd < 0: none. HTTP_REQUEST_INIT sets -1 */
    http_source_fn *source;
    void *source_ctx;
    int64_t source_size; /* -1: chunked */

    /* the reply's body: into the response (up to reply_limit), a file, or a sink. Files and sinks
     * get 2xx bodies only; an error's body always goes to the response, cut at 64 KiB. */
    size_t reply_limit; /* 0: 16 MiB */
    int reply_fd;       /* < 0: none */
    http_sink_fn *sink;
    void *sink_ctx;

    const char *ca_file; /* PEM bundle besides the system's */
    const char *client_cert, *client_key;
    const char *tls_name;   /* whom the certificate must name, when it is not the URL's host */
    const char *proxy;      /* NULL: the usual variables; "" : none */
    const char *proxy_host; /* not NULL: somebody else than the operator named the proxy, and */
    int proxy_port;         /* `allow` is asked for the address that its name leads to */
    bool insecure;          /* no TLS verification: only where the configuration says so */
    bool follow;            /* follow redirects (at most 10); Authorization never crosses hosts */
    enum http_repeat repeat;
    int attempts;       /* 0: 5 in all */
    int64_t deadline;   /* for all attempts together */
    int64_t connect_ms; /* 0: 10 000 per attempt */
    int64_t stall_ms;   /* 0: 60 000 without a byte ends an attempt */
    const struct cancel *cancel;
    http_allow_fn *allow;
    void *allow_ctx;
    http_progress_fn *progress;
    void *progress_ctx;
};
#define HTTP_REQUEST_INIT                                                                          \
    {                                                                                              \
        .body_fd = -1, .reply_fd = -1, .source_size = -1, .deadline = DEADLINE_NONE                \
    }

struct http_response {
    int status;
    struct http_headers headers;
    struct buf body;
    char *url; /* the last one, after redirects */
    int attempts;
};
void http_response_free(struct http_response *response);
#define cleanup_response __attribute__((cleanup(http_response_free)))

struct http *http_new(struct error *err); /* starts the thread at the first request */
void http_free(struct http *http);
/* 0 with any HTTP status once a reply is there (retried statuses: 408 425 429 500 502 503 504,
 * honouring Retry-After, exponential backoff with full jitter); -1 when none came: ERR_UNAVAILABLE,
 * ERR_TIMEOUT, ERR_CANCELLED, ERR_DENIED. The message names method and URL without query secrets;
 * the hint says what to try. */
int http_perform(struct http *http, const struct http_request *request,
                 struct http_response *response, struct error *err);
/* Sources that had nothing yet are asked again. Any thread. */
void http_feed(struct http *http);
/* An error for a reply that the caller does not accept: 401 -> ERR_UNAUTHORIZED, 404 ->
 * ERR_NOT_FOUND, 429 ...; quotes `detail` or the start of the body. Returns -1. */
int http_status_error(const struct http_request *request, const struct http_response *response,
                      const char *detail, struct error *err);
/* Percent-encoding of a path segment or query value. */
void url_escape(const char *text, size_t len, struct buf *out);

#endif
