/* One exchange: a request turned into curl options, the callbacks that move its bytes, and what
 * came of it. */
#include "loop/http_internal.h"

#include "base/mem.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

static void touch(struct attempt *attempt)
{
    attempt->last_activity = clock_now();
}

/* ---- the request's body ---- */

static size_t on_read(char *data, size_t size, size_t count, void *ctx)
{
    struct attempt *attempt = ctx;
    const struct http_request *request = attempt->request;
    size_t room = size * count;
    ssize_t got;

    touch(attempt);
    if (request->source) {
        got = request->source(request->source_ctx, data, room);
        if (got == HTTP_SOURCE_LATER) {
            attempt->paused = true;
            return CURL_READFUNC_PAUSE;
        }
        if (got < 0) {
            if (!attempt->failure.code)
                error_set(&attempt->failure, ERR_IO, "the request's body could not be produced");
            return CURL_READFUNC_ABORT;
        }
        return (size_t)got;
    }
    if (room > request->body_size - attempt->body_at)
        room = (size_t)(request->body_size - attempt->body_at);
    if (room == 0)
        return 0;
    got = pread(request->body_fd, data, room, (off_t)(request->body_offset + attempt->body_at));
    if (got <= 0) {
        if (got < 0)
            error_errno(&attempt->failure, errno, "cannot read the file that is being sent");
        else
            error_set(&attempt->failure, ERR_IO,
                      "the file that is being sent became shorter meanwhile");
        return CURL_READFUNC_ABORT;
    }
    attempt->body_at += (uint64_t)got;
    return (size_t)got;
}

/* curl rewinds when it sends the body again, by itself, as a connection that was kept has ended.
 * Who wants no repeats does not want that one either: a part of the body may have arrived. */
static int on_seek(void *ctx, curl_off_t offset, int origin)
{
    struct attempt *attempt = ctx;

    if (attempt->request->source || origin != SEEK_SET ||
        (attempt->request->repeat == HTTP_REPEAT_NEVER && attempt->body_at > (uint64_t)offset))
        return CURL_SEEKFUNC_CANTSEEK;
    attempt->body_at = (uint64_t)offset;
    return CURL_SEEKFUNC_OK;
}

/* ---- the reply ---- */

static size_t on_header(char *data, size_t size, size_t count, void *ctx)
{
    struct attempt *attempt = ctx;
    size_t len = size * count;
    size_t end = len;
    const char *colon;

    touch(attempt);
    while (end && (data[end - 1] == '\r' || data[end - 1] == '\n'))
        end--;
    if (end >= 5 && strncasecmp(data, "HTTP/", 5) == 0) {
        /* a new block: what came before was "100 Continue" or a proxy's answer to CONNECT */
        http_headers_free(&attempt->response->headers);
        return len;
    }
    colon = memchr(data, ':', end);
    if (!colon || attempt->response->headers.count >= 1000)
        return len;
    cleanup_free char *name = mem_strndup(data, (size_t)(colon - data));
    const char *value = colon + 1;
    while (value < data + end && (*value == ' ' || *value == '\t'))
        value++;
    cleanup_free char *text = mem_strndup(value, (size_t)(data + end - value));
    http_header_add(&attempt->response->headers, name, text);
    return len;
}

static size_t deliver(struct attempt *attempt, const char *data, size_t len)
{
    const struct http_request *request = attempt->request;
    size_t limit = request->reply_limit ? request->reply_limit : HTTP_REPLY_LIMIT;

    if (request->sink) {
        attempt->body_started = true;
        if (request->sink(request->sink_ctx, data, len) == 0)
            return len;
        if (!attempt->failure.code)
            error_set(&attempt->failure, ERR_IO, "the reply's receiver stopped the transfer");
        return 0;
    }
    if (request->reply_fd >= 0) {
        attempt->body_started = true;
        return fd_write_all(request->reply_fd, data, len, &attempt->failure) == 0 ? len : 0;
    }
    if (attempt->response->body.len + len > limit) {
        error_set(&attempt->failure, ERR_TOO_LARGE, "the reply is larger than %zu bytes", limit);
        return 0;
    }
    buf_append(&attempt->response->body, data, len);
    return len;
}

static size_t on_write(char *data, size_t size, size_t count, void *ctx)
{
    struct attempt *attempt = ctx;
    size_t len = size * count;
    long status = 0;

    touch(attempt);
    curl_easy_getinfo(attempt->easy, CURLINFO_RESPONSE_CODE, &status);
    if (status >= 200 && status < 300)
        return deliver(attempt, data, len);
    size_t room = HTTP_ERROR_BODY - attempt->response->body.len;
    buf_append(&attempt->response->body, data, len < room ? len : room);
    attempt->drained += len;
    if (attempt->drained > HTTP_ERROR_DRAIN) {
        attempt->cut = true;
        return 0;
    }
    return len;
}

static int on_progress(void *ctx, curl_off_t get_total, curl_off_t got, curl_off_t send_total,
                       curl_off_t sent)
{
    struct attempt *attempt = ctx;
    int64_t now = clock_now();

    if (now - attempt->progress_at < 100 * NS_PER_MS && !(got == get_total && sent == send_total))
        return 0;
    attempt->progress_at = now;
    attempt->request->progress(attempt->request->progress_ctx, sent,
                               send_total > 0 ? send_total : -1, got,
                               get_total > 0 ? get_total : -1);
    return 0;
}

/* ---- the connection ---- */

/* The last word on where bytes go: the address that the name resolved to, so that a name cannot
 * smuggle one in. */
static curl_socket_t on_socket(void *ctx, curlsocktype purpose, struct curl_sockaddr *address)
{
    struct attempt *attempt = ctx;
    const struct http_request *request = attempt->request;
    char text[INET6_ADDRSTRLEN] = "";

    (void)purpose;
    const char *host = attempt->proxied ? request->proxy_host : attempt->host;
    int port = attempt->proxied ? request->proxy_port : attempt->port;
    if (request->allow && host && address->family != AF_UNIX) {
        if (address->family == AF_INET6) {
            struct sockaddr_in6 in;
            memcpy(&in, &address->addr, sizeof(in));
            inet_ntop(AF_INET6, &in.sin6_addr, text, sizeof(text));
        } else {
            struct sockaddr_in in;
            memcpy(&in, &address->addr, sizeof(in));
            inet_ntop(AF_INET, &in.sin_addr, text, sizeof(text));
        }
        if (request->allow(request->allow_ctx, host, port, text, &attempt->failure) != 0) {
            if (!attempt->failure.code)
                error_set(&attempt->failure, ERR_DENIED, "%s:%d (%s) is not allowed", host, port,
                          text);
            return CURL_SOCKET_BAD;
        }
    }
    return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

static int on_connected(void *ctx, char *peer, char *local, int peer_port, int local_port)
{
    struct attempt *attempt = ctx;

    (void)peer;
    (void)local;
    (void)peer_port;
    (void)local_port;
    attempt->request_sent = true;
    touch(attempt);
    return CURL_PREREQFUNC_OK;
}

/* ---- set-up ---- */

/* Headers that say nothing about who asks; all others stay with the origin that the
 * caller named. */
static bool header_may_cross(const char *name)
{
    static const char *const harmless[] = {"Accept",       "Accept-Encoding", "Accept-Language",
                                           "Content-Type", "Content-Range",   "Range",
                                           "If-Match",     "If-None-Match",   "User-Agent"};

    for (size_t i = 0; i < sizeof(harmless) / sizeof(harmless[0]); i++)
        if (strcasecmp(name, harmless[i]) == 0)
            return true;
    return false;
}

static int add_headers(struct attempt *attempt, struct error *err)
{
    const struct http_request *request = attempt->request;
    cleanup_buf struct buf line = BUF_INIT;

    for (size_t i = 0; i < request->headers.count; i++) {
        const struct http_header *header = &request->headers.items[i];
        if (!attempt->trusted_peer && !header_may_cross(header->name))
            continue;
        if (!attempt->with_body && strcasecmp(header->name, "Content-Type") == 0)
            continue;
        if (strpbrk(header->name, "\r\n: ") || strpbrk(header->value, "\r\n"))
            return error_set(
                err, ERR_USAGE,
                "the HTTP header '%s' holds a line break or another forbidden character",
                header->name);
        buf_clear(&line);
        /* curl's spelling of a header without a value is a semicolon */
        buf_printf(&line, *header->value ? "%s: %s" : "%s;%s", header->name, header->value);
        attempt->header_list = curl_slist_append(attempt->header_list, line.data);
    }
    /* "Expect: 100-continue" costs a second with servers that do not answer it. */
    attempt->header_list = curl_slist_append(attempt->header_list, "Expect:");
    if (attempt->with_body && !http_header_get(&request->headers, "Content-Type"))
        attempt->header_list = curl_slist_append(attempt->header_list, "Content-Type:");
    curl_easy_setopt(attempt->easy, CURLOPT_HTTPHEADER, attempt->header_list);
    return 0;
}

static void set_body(struct attempt *attempt)
{
    const struct http_request *request = attempt->request;
    CURL *easy = attempt->easy;

    if (!attempt->with_body) {
        if (strcmp(attempt->method, "HEAD") == 0) {
            curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
        } else if (strcmp(attempt->method, "POST") == 0 || strcmp(attempt->method, "PUT") == 0 ||
                   strcmp(attempt->method, "PATCH") == 0) {
            curl_easy_setopt(easy, CURLOPT_POSTFIELDS,
                             ""); /* says Content-Length: 0, which servers insist on */
            curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)0);
        }
    } else if (request->source || request->body_fd >= 0) {
        curl_off_t size =
            request->source ? (curl_off_t)request->source_size : (curl_off_t)request->body_size;
        curl_easy_setopt(easy, CURLOPT_UPLOAD, 1L);
        curl_easy_setopt(easy, CURLOPT_READFUNCTION, on_read);
        curl_easy_setopt(easy, CURLOPT_READDATA, attempt);
        curl_easy_setopt(easy, CURLOPT_SEEKFUNCTION, on_seek);
        curl_easy_setopt(easy, CURLOPT_SEEKDATA, attempt);
        curl_easy_setopt(easy, CURLOPT_INFILESIZE_LARGE, size);
        curl_easy_setopt(easy, CURLOPT_UPLOAD_BUFFERSIZE, 256L << 10);
    } else {
        curl_easy_setopt(easy, CURLOPT_POSTFIELDS, request->body);
        curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)request->body_len);
    }
    if (strcmp(attempt->method, "HEAD") != 0)
        curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, attempt->method);
}

static int set_tls(struct attempt *attempt, struct error *err)
{
    const struct http_request *request = attempt->request;
    CURL *easy = attempt->easy;
    bool verify = !(request->insecure && attempt->trusted_peer);

    if (request->ca_file) {
        /* CAINFO replaces the system's bundle file; the system's certificates still count through
         * CAPATH. */
        if (access(request->ca_file, R_OK) != 0)
            return error_errno(err, errno, "cannot read the CA file '%s'", request->ca_file);
        curl_easy_setopt(easy, CURLOPT_CAINFO, request->ca_file);
    }
    if (attempt->trusted_peer && request->client_cert) {
        if (access(request->client_cert, R_OK) != 0)
            return error_errno(err, errno, "cannot read the client certificate '%s'",
                               request->client_cert);
        curl_easy_setopt(easy, CURLOPT_SSLCERT, request->client_cert);
        curl_easy_setopt(easy, CURLOPT_SSLKEY,
                         request->client_key ? request->client_key : request->client_cert);
    }
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, verify ? 1L : 0L);
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, verify ? 2L : 0L);
    return 0;
}

/* Another name in the handshake than the one that is connected to: curl takes both from the URL, so
 * the URL gets the name, and the connection and the Host header the address. */
static int set_tls_name(struct attempt *attempt, CURLU *url, struct error *err)
{
    bool colons = strchr(attempt->host, ':') && attempt->host[0] != '[';
    cleanup_free char *peer =
        mem_printf(colons ? "[%s]:%d" : "%s:%d", attempt->host, attempt->port);
    cleanup_free char *to = mem_printf("::%s", peer);
    cleanup_free char *header = mem_printf("Host: %s", peer);
    struct curl_slist *connect = curl_slist_append(attempt->connect_to, to);
    struct curl_slist *headers = curl_slist_append(attempt->header_list, header);
    char *text = NULL;

    if (connect)
        attempt->connect_to = connect;
    if (headers)
        attempt->header_list = headers;
    if (!connect || !headers ||
        curl_url_set(url, CURLUPART_HOST, attempt->request->tls_name, 0) != CURLUE_OK ||
        curl_url_get(url, CURLUPART_URL, &text, 0) != CURLUE_OK)
        return error_set(err, ERR_INVALID, "'%s' is not a name that a certificate can have",
                         attempt->request->tls_name);
    curl_easy_setopt(attempt->easy, CURLOPT_URL, text);
    curl_easy_setopt(attempt->easy, CURLOPT_CONNECT_TO, attempt->connect_to);
    curl_free(text);
    return 0;
}

/* Host, port and scheme out of the URL; refuses what is not HTTP. */
static int set_target(struct attempt *attempt, struct error *err)
{
    const struct http_request *request = attempt->request;
    CURLU *url = curl_url();
    char *scheme = NULL;
    char *host = NULL;
    char *port = NULL;
    int result = -1;
    cleanup_buf struct buf shown = BUF_INIT;

    url_print_safe(attempt->url, &shown);
    const char *shown_url = shown.len ? shown.data : "";
    if (!url ||
        curl_url_set(url, CURLUPART_URL, attempt->url, CURLU_NON_SUPPORT_SCHEME) != CURLUE_OK ||
        curl_url_get(url, CURLUPART_SCHEME, &scheme, 0) != CURLUE_OK) {
        error_set(err, ERR_USAGE, "'%s' is not a URL", shown_url);
        error_hint(err, "write http://host[:port]/path or https://host[:port]/path");
        goto out;
    }
    if (strcmp(scheme, "http") != 0 && strcmp(scheme, "https") != 0) {
        error_set(err, ERR_USAGE, "'%s': only http and https are spoken here, not %s", shown_url,
                  scheme);
        goto out;
    }
    if (curl_url_get(url, CURLUPART_HOST, &host, 0) != CURLUE_OK ||
        curl_url_get(url, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) != CURLUE_OK ||
        strlen(host) > 255) {
        error_set(err, ERR_USAGE, "'%s' names no host", shown_url);
        goto out;
    }
    memcpy(attempt->host, host, strlen(host) + 1);
    attempt->port = atoi(port);
    if (!attempt->unix_socket) {
        cleanup_free char *proxy =
            request->proxy ? mem_strdup(request->proxy) : proxy_from_environment(scheme, host);
        attempt->proxied = *proxy != '\0';
        curl_easy_setopt(attempt->easy, CURLOPT_PROXY, proxy);
        if (request->allow &&
            request->allow(request->allow_ctx, attempt->host, attempt->port, NULL, err) != 0) {
            if (err && !err->code)
                error_set(err, ERR_DENIED, "%s:%d is not allowed", attempt->host, attempt->port);
            goto out;
        }
    } else {
        curl_easy_setopt(attempt->easy, CURLOPT_PROXY, "");
        curl_easy_setopt(attempt->easy, CURLOPT_UNIX_SOCKET_PATH, attempt->unix_socket);
    }
    curl_easy_setopt(attempt->easy, CURLOPT_NOPROXY, "");
    if (attempt->trusted_peer && request->tls_name && set_tls_name(attempt, url, err) != 0)
        goto out;
    if (strcmp(scheme, "https") == 0)
        curl_easy_setopt(attempt->easy, CURLOPT_PIPEWAIT,
                         1L); /* rather share an HTTP/2 connection than open one */
    result = 0;
out:
    curl_free(scheme);
    curl_free(host);
    curl_free(port);
    curl_url_cleanup(url);
    return result;
}

int attempt_prepare(struct attempt *attempt, struct error *err)
{
    const struct http_request *request = attempt->request;
    CURL *easy = attempt->easy = curl_easy_init();
    int64_t left = deadline_left_ms(request->deadline);

    if (!easy)
        return error_set(err, ERR_INTERNAL, "curl_easy_init failed");
    curl_easy_setopt(easy, CURLOPT_PRIVATE, attempt);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, attempt->error_text);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L); /* we follow: see http_perform */
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_2TLS);
    curl_easy_setopt(easy, CURLOPT_USERAGENT, "mlhost");
    if (curl_easy_setopt(easy, CURLOPT_URL, attempt->url) != CURLE_OK)
        return error_set(err, ERR_USAGE, "curl refuses the URL");
    if (set_target(attempt, err) != 0 || set_tls(attempt, err) != 0)
        return -1;
    set_body(attempt);
    if (add_headers(attempt, err) != 0)
        return -1;
    /* Decoding changes what Range and digests of streamed content mean, so only replies kept in
     * memory ask for it. */
    if (!request->sink && request->reply_fd < 0 && !http_header_get(&request->headers, "Range") &&
        !http_header_get(&request->headers, "Accept-Encoding"))
        curl_easy_setopt(easy, CURLOPT_ACCEPT_ENCODING, "");
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS,
                     (long)(request->connect_ms ? request->connect_ms : 10000));
    if (left != INT64_MAX)
        curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS,
                         left > INT32_MAX ? (long)INT32_MAX
                         : left < 1       ? 1L
                                          : (long)left);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, attempt);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_write);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, attempt);
    curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, 256L << 10);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, on_socket);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, attempt);
    curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, on_connected);
    curl_easy_setopt(easy, CURLOPT_PREREQDATA, attempt);
    if (request->progress) {
        curl_easy_setopt(easy, CURLOPT_XFERINFOFUNCTION, on_progress);
        curl_easy_setopt(easy, CURLOPT_XFERINFODATA, attempt);
        curl_easy_setopt(easy, CURLOPT_NOPROGRESS, 0L);
    }
    return 0;
}

void attempt_release(struct attempt *attempt)
{
    curl_easy_cleanup(attempt->easy);
    curl_slist_free_all(attempt->header_list);
    curl_slist_free_all(attempt->connect_to);
    attempt->connect_to = NULL;
    attempt->easy = NULL;
    attempt->header_list = NULL;
}

/* ---- the outcome ---- */

static int unreachable(const struct attempt *attempt, const char *what, struct error *err)
{
    const struct http_request *request = attempt->request;
    cleanup_buf struct buf url = BUF_INIT;
    const char *detail =
        *attempt->error_text ? attempt->error_text : curl_easy_strerror(attempt->code);

    url_print_safe(attempt->url, &url);
    error_set(err, ERR_UNAVAILABLE, "%s %s: %s: %s", attempt->method, url.data, what, detail);
    if (err)
        err->retryable = true;
    if (attempt->unix_socket)
        return error_hint(
            err, "the embedded services should answer at the socket %s; look at `mlhost doctor`",
            attempt->unix_socket);
    if (attempt->code == CURLE_COULDNT_RESOLVE_HOST)
        return error_hint(err, "is the host name '%s' right, and does this machine's DNS know it?",
                          attempt->host);
    return error_hint(err, "is a server listening at %s:%d?%s", attempt->host, attempt->port,
                      request->proxy || attempt->proxied ? " (a proxy is in use)" : "");
}

int attempt_result(const struct attempt *attempt, bool *repeatable, struct error *err)
{
    const struct http_request *request = attempt->request;
    cleanup_buf struct buf url = BUF_INIT;

    *repeatable = false;
    if (attempt->ended == END_NONE && (attempt->code == CURLE_OK || attempt->cut))
        return 0;
    url_print_safe(attempt->url, &url);
    if (attempt->ended == END_CANCEL)
        return error_set(err, ERR_CANCELLED, "%s %s: cancelled", attempt->method, url.data);
    if (attempt->ended == END_CLOSED)
        return error_set(err, ERR_CANCELLED, "%s %s: the HTTP client was shut down",
                         attempt->method, url.data);
    if (attempt->failure.code) {
        if (err)
            *err = attempt->failure;
        return error_wrap(err, "%s %s", attempt->method, url.data);
    }
    if (attempt->ended == END_DEADLINE ||
        (attempt->code == CURLE_OPERATION_TIMEDOUT && deadline_passed(request->deadline))) {
        error_set(err, ERR_TIMEOUT, "%s %s: no complete reply before the deadline", attempt->method,
                  url.data);
        return error_hint(
            err, "give the call or its stage a longer `timeout`, or look why the service is slow");
    }
    *repeatable = true;
    if (attempt->ended == END_STALL) {
        error_set(err, ERR_TIMEOUT, "%s %s: no byte moved for %lld seconds", attempt->method,
                  url.data, (long long)((request->stall_ms ? request->stall_ms : 60000) / 1000));
        if (err)
            err->retryable = true;
        return error_hint(err,
                          "the service accepted the connection and fell silent; look at its log");
    }
    switch (attempt->code) {
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
        return unreachable(attempt, "no address", err);
    case CURLE_COULDNT_CONNECT:
        return unreachable(attempt, "nothing answers", err);
    case CURLE_OPERATION_TIMEDOUT:
        return unreachable(attempt, "no connection in time", err);
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_ISSUER_ERROR:
        *repeatable = false;
        error_set(err, ERR_UNAUTHORIZED, "%s %s: the server's certificate is not trusted: %s",
                  attempt->method, url.data, attempt->error_text);
        return error_hint(
            err, "put the issuing authority's PEM file into `ca` of this service in mlhost.yaml");
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CERTPROBLEM:
        *repeatable = false;
        return error_set(err, ERR_INVALID, "%s %s: %s", attempt->method, url.data,
                         attempt->error_text);
    case CURLE_PARTIAL_FILE:
    case CURLE_GOT_NOTHING:
    case CURLE_RECV_ERROR:
    case CURLE_HTTP2_STREAM:
        return unreachable(attempt, "the connection ended before the reply was complete", err);
    case CURLE_BAD_CONTENT_ENCODING:
    case CURLE_WEIRD_SERVER_REPLY:
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_URL_MALFORMAT:
        *repeatable = false;
        return error_set(err, ERR_INVALID, "%s %s: %s", attempt->method, url.data,
                         *attempt->error_text ? attempt->error_text
                                              : curl_easy_strerror(attempt->code));
    default:
        return unreachable(attempt, "failed", err);
    }
}
