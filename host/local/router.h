/*
 * What a service of the embedded server sees: requests by path prefix, and the means to answer
 * them.
 *
 * A service is a struct of functions. The server finds it by the longest of its prefixes that the
 * path starts with, on a thread of the connection's own, so a handler may block; two requests of
 * one service run at the same time.
 *
 *     begin(rq)       headers are here, the body is not. NULL: the server collects the body in
 *                     rq->body, up to body_limit bytes (413 beyond), and calls only handle.
 *     data(rq, p, n)  a piece of the body, as it comes in. Only with begin.
 *     handle(rq)      the body is whole: answer now.
 *     end(rq)         the request is over, answered or broken off: free rq->local. Only with begin.
 *
 * Whoever answers in begin or data ends the request there: the rest of the body is read and
 * dropped, handle is not called. A handler that answers twice keeps the first answer; one that does
 * not answer gives 500.
 */
#ifndef MLHOST_LOCAL_ROUTER_H
#define MLHOST_LOCAL_ROUTER_H

#include "base/value.h"

struct MHD_Connection;
struct MHD_Response;
struct service;

#define BODY_LIMIT     (64u << 20) /* of bodies that are held in memory */
#define LENGTH_UNKNOWN UINT64_MAX

struct request {
    const char *method;    /* "GET" ... as sent */
    const char *path;      /* decoded; starts with '/', no NUL in it; ".." is not resolved */
    const char *raw_path;  /* as sent, without the query */
    const char *raw_query; /* as sent, "" when there is none */
    const char *rest;      /* path after the prefix that matched */
    const char *origin;    /* "http://<Host>", this server as the client sees it */
    uint64_t length;       /* Content-Length; LENGTH_UNKNOWN when the body is chunked */
    struct buf body;       /* the whole body, for services without begin */
    void *local;           /* the service's own */
    const struct service *service;

    /* the server's own */
    struct MHD_Connection *connection;
    struct MHD_Response *response;
    struct request_field *fields; /* decoded query */
    size_t field_count;
    struct request_field *answers; /* headers of the answer */
    size_t answer_count;
    int status;
    bool too_large, begun, suspended;
    uint64_t dropped;
    int64_t started;
    char *storage[4];
};
struct request_field {
    char *name, *value;
};

struct service {
    const char *name;            /* for the access log */
    const char *const *prefixes; /* NULL-terminated; "/v2/" also takes "/v2" */
    size_t body_limit;           /* 0: BODY_LIMIT */
    void (*begin)(struct request *rq);
    void (*data)(struct request *rq, const void *bytes, size_t len);
    void (*handle)(struct request *rq);
    void (*end)(struct request *rq);
    /* The server is about to stop: end what waits, such as long streams. Any thread may still be in
     * the service. Optional. */
    void (*stopping)(struct service *service);
    /* The time to drain is over: resume what is suspended. Optional. */
    void (*give_up)(struct service *service);
    /* The server has stopped: free everything, the struct included. Optional. */
    void (*close)(struct service *service);
    void *state; /* the service's own: rq->service->state */
};

/* ---- reading ---- */

/* Any case of name; NULL when absent. */
const char *request_header(const struct request *rq, const char *name);
/* Decoded, the first of that name; NULL when absent. */
const char *request_query(const struct request *rq, const char *name);
/* The one after `skip` others of that name; NULL when there are not that many. */
const char *request_query_next(const struct request *rq, const char *name, size_t skip);
/* "n=5" -> 5; `otherwise` when absent, -1 when it is no number between 0 and max. */
int64_t request_query_int(const struct request *rq, const char *name, int64_t otherwise,
                          int64_t max);

/* ---- answering; each may be called from begin, data or handle ---- */

/* From `handle`, on a server with SERVER_SUSPENDS, instead of an answer: `handle` is called once
 * more after request_resume, which any thread may call (rq may be gone when it returns). `end` is
 * called for such requests, too; also where nobody waits for the answer any more, so that `handle`
 * was not called again. */
void request_suspend(struct request *rq);
void request_resume(struct request *rq);
void answer_header(struct request *rq, const char *name, const char *value);
void answer_headerf(struct request *rq, const char *name, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* type NULL: no Content-Type. Bytes are copied; answer_take takes what malloc gave. */
void answer(struct request *rq, int status, const char *type, const void *data, size_t len);
void answer_take(struct request *rq, int status, const char *type, char *data, size_t len);
void answer_text(struct request *rq, int status, const char *text); /* text/plain */
void answer_json(struct request *rq, int status, const struct value *v);
/* len bytes of fd from offset on, by sendfile; takes fd, also when it fails. */
void answer_file(struct request *rq, int status, const char *type, int fd, uint64_t offset,
                 uint64_t len);
/* Chunked: read gives bytes (>0), 0 at the end, -1 on failure; it may block. done frees context. */
void answer_stream(struct request *rq, int status, const char *type,
                   ssize_t (*read)(void *context, char *to, size_t max),
                   void (*done)(void *context), void *context);
/* The server's own form, where a service has none: {"error": {code, message, hint}}. */
void answer_error(struct request *rq, int status, const struct error *err);
/* The HTTP status that fits an error code. */
int error_http_status(enum error_code code);
bool request_answered(const struct request *rq);

/* ---- paths ---- */

/* A relative path whose parts are names: not empty, no "", ".", "..", NUL or backslash tricks, at
 * most 4096 bytes. */
bool path_is_plain(const char *path);

#endif
