/* What the files of the HTTP client share: one attempt at one request, and the I/O thread that
 * carries attempts out. */
#ifndef MLHOST_LOOP_HTTP_INTERNAL_H
#define MLHOST_LOOP_HTTP_INTERNAL_H

#include <curl/curl.h>
#include <pthread.h>

#include "loop/http.h"

#define HTTP_ERROR_BODY  (64u << 10) /* bytes of a failed reply's body that are kept */
#define HTTP_ERROR_DRAIN (1u << 20)  /* bytes of it that are read at all */
#define HTTP_REPLY_LIMIT (16u << 20) /* default of reply_limit */

/* Why an attempt that curl did not fail by itself was ended. */
enum attempt_end { END_NONE, END_DEADLINE, END_STALL, END_CANCEL, END_CLOSED };

/*
 * One attempt: one URL, one exchange. The calling thread owns it and sleeps until `done`; the I/O
 * thread touches it only between attempt_run's hand-over and `done`.
 */
struct attempt {
    const struct http_request *request;
    struct http_response *response;
    const char *method;
    const char *url;
    const char *unix_socket; /* NULL after a redirect to another host */
    bool
        trusted_peer; /* same origin as the caller named: client certificate and `insecure` apply */
    bool with_body;
    bool proxied;

    CURL *easy;
    struct curl_slist *header_list, *connect_to;
    char error_text[CURL_ERROR_SIZE];
    char host[256];
    int port;

    int64_t last_activity; /* when a byte last moved; 0 before the request went out */
    bool paused;           /* the source has nothing yet */
    bool request_sent;     /* a connection was there and the request was handed to it */
    bool body_started;     /* bytes of the reply have reached fd or sink */
    uint64_t body_at;      /* position in the request body */
    uint64_t drained;      /* error body bytes seen */
    bool cut;              /* we stopped reading an error body */
    int64_t progress_at;
    struct error failure; /* set by a callback of ours: denied, too large, source or sink failed */

    enum attempt_end ended;
    CURLcode code;
    bool done;
    struct attempt *next;
};

/* Prepares attempt->easy from the request. -1 when curl refuses an option (bad URL, bad
 * proxy ...). */
int attempt_prepare(struct attempt *attempt, struct error *err);
void attempt_release(struct attempt *attempt);
/* Hands the attempt to the I/O thread and waits until it is over. */
int attempt_run(struct http *http, struct attempt *attempt, struct error *err);
/* 0 when a whole reply is there; else fills *err from the attempt. *repeatable: a further attempt
 * may help. */
int attempt_result(const struct attempt *attempt, bool *repeatable, struct error *err);

/* Milliseconds that a Retry-After header asks for, as seconds or as an HTTP date (RFC
 * 9110, 10.2.3), between 0 and RETRY_AFTER_CAP_MS; -1 when it says nothing. text may be NULL. */
#define RETRY_AFTER_CAP_MS (10 * 60 * 1000)
int64_t retry_after_ms(const char *text, int64_t wall_ms);

/* scheme://host:port/path of a URL: without user, password, query and fragment, which may hold
 * secrets. */
void url_print_safe(const char *url, struct buf *out);
/* Scheme, host and port are equal. */
bool url_same_origin(const char *a, const char *b);
/* The proxy for a URL by the usual variables, "" for none. Allocated. */
char *proxy_from_environment(const char *scheme, const char *host);

#endif
