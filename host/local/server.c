/*
 * libmicrohttpd underneath: a thread per connection, so handlers may block (a model server has one
 * thread, and suspends what waits), and bodies come in pieces. One MHD daemon per listening socket,
 * all with the same services.
 */
#include "local/server.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <microhttpd.h>

#include "base/clock.h"
#include "base/mem.h"

#define MAX_FDS      4
#define CONNECTIONS  1024
#define IDLE_SECONDS 300
#define HEADER_BYTES (128 * 1024) /* of a connection: header block, and the pieces of a body */
#define LEAN_BYTES   (24 * 1024)  /* MHD clears all of it after each request */
#define DROP_LIMIT   (256u << 20) /* of a body that nobody wants */
#define STACK_BYTES  (1024 * 1024)

/* Takes connections for a daemon without threads of their own. Several processes may wait on the
 * same socket: the kernel gives each connection to the one that has waited longest, where MHD would
 * take all that are there. */
struct acceptor {
    struct MHD_Daemon *daemon; /* NULL: MHD listens itself */
    int fd;
    pthread_t thread;
};

struct server {
    struct MHD_Daemon *daemons[MAX_FDS];
    struct acceptor acceptors[MAX_FDS];
    size_t daemon_count;
    struct service **services;
    size_t service_count;
    bool verbose, any_host;
    pthread_mutex_t lock;
    pthread_cond_t idle;
    unsigned active; /* requests in hand; under lock */
};

int server_listen(int *port, struct error *err)
{
    cleanup_close int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int one = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)*port)};
    socklen_t len = sizeof address;

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0)
        return error_errno(err, errno, "cannot make a socket");
    if (*port)
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0) {
        int why = errno;
        error_errno(err, why, "cannot listen on 127.0.0.1:%d", *port);
        if (why == EADDRINUSE)
            error_hint(err, "another program has that port; --port 0 takes any free one");
        return -1;
    }
    if (listen(fd, SOMAXCONN) < 0 || getsockname(fd, (struct sockaddr *)&address, &len) < 0)
        return error_errno(err, errno, "cannot listen on 127.0.0.1:%d", *port);
    *port = ntohs(address.sin_port);
    return steal_fd(&fd);
}

int server_port(int fd)
{
    struct sockaddr_in address = {0};
    socklen_t len = sizeof address;

    return getsockname(fd, (struct sockaddr *)&address, &len) == 0 ? ntohs(address.sin_port) : 0;
}

/* ---- one request ---- */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* NULL when a NUL is hidden in it; a lone % stands for itself. */
static char *decoded(const char *text, size_t len, bool plus)
{
    char *out = mem_alloc(len + 1), *to = out;

    for (size_t i = 0; i < len; i++) {
        int high = i + 2 < len ? hex_digit(text[i + 1]) : -1,
            low = high >= 0 ? hex_digit(text[i + 2]) : -1;
        if (text[i] == '%' && low >= 0) {
            if (high == 0 && low == 0) {
                free(out);
                return NULL;
            }
            *to++ = (char)(high * 16 + low);
            i += 2;
        } else {
            *to++ = text[i] == '+' && plus ? ' ' : text[i];
        }
    }
    return out;
}

static bool read_query(struct request *rq, const char *query)
{
    for (const char *part = query; *part;) {
        size_t len = strcspn(part, "&"), name = strcspn(part, "=&");
        if (len) {
            struct request_field field = {
                .name = decoded(part, name, true),
                .value =
                    name < len ? decoded(part + name + 1, len - name - 1, true) : mem_strdup(""),
            };
            rq->fields = mem_array(rq->fields, rq->field_count + 1, sizeof *rq->fields);
            rq->fields[rq->field_count++] = field;
            if (!field.name || !field.value)
                return false;
        }
        part += len + (part[len] == '&');
    }
    return true;
}

/* MHD's first sight of a request: the only place where the target is still as it was sent. */
static void *first_line(void *cls, const char *uri, struct MHD_Connection *connection)
{
    struct request *rq = mem_alloc(sizeof *rq);
    size_t len = strcspn(uri, "?");

    (void)cls;
    rq->connection = connection;
    rq->length = LENGTH_UNKNOWN;
    rq->started = clock_now();
    rq->raw_path = rq->storage[0] = mem_strndup(uri, len);
    rq->raw_query = rq->storage[1] = mem_strdup(uri[len] ? uri + len + 1 : "");
    rq->path = rq->storage[2] = decoded(uri, len, false);
    return rq;
}

static const struct service *find_service(const struct server *server, struct request *rq)
{
    const struct service *best = NULL;
    size_t best_len = 0;

    for (size_t i = 0; i < server->service_count; i++) {
        for (const char *const *prefix = server->services[i]->prefixes; *prefix; prefix++) {
            size_t len = strlen(*prefix);
            bool whole = strncmp(rq->path, *prefix, len) == 0;
            if (!whole && len && (*prefix)[len - 1] == '/' &&
                strncmp(rq->path, *prefix, len - 1) == 0 && rq->path[len - 1] == '\0')
                whole = true, len--;
            if (whole && len > best_len) {
                best = server->services[i];
                best_len = len;
            }
        }
    }
    rq->rest = rq->path + best_len;
    return best;
}

static bool loopback_name(const char *host, size_t len)
{
    static const char *const names[] = {"localhost", "127.0.0.1", "[::1]", "mlhost.local"};

    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (len == strlen(names[i]) && strncasecmp(host, names[i], len) == 0)
            return true;
    }
    return false;
}

/* A web page that a browser on this machine shows must not reach these services: neither by a name
 * of its own that resolves to 127.0.0.1 (Host), nor by a request from its own origin (Origin). */
static bool from_here(const struct request *rq)
{
    const char *host = request_header(rq, "Host"), *origin = request_header(rq, "Origin");

    if (host) {
        size_t len = host[0] == '[' ? strcspn(host, "]") + 1 : strcspn(host, ":");
        if (len > strlen(host) || !loopback_name(host, len))
            return false;
    }
    if (origin) {
        const char *name = strstr(origin, "://");
        if (!name)
            return false;
        name += 3;
        return loopback_name(name, name[0] == '[' ? strcspn(name, "]") + 1 : strcspn(name, ":"));
    }
    return true;
}

/* Paths of the server itself. `version` makes the mlflow client use the calls of its 3.x series;
 * clients of Kubernetes, which ask there for JSON, get the answer of that service. */
static bool own_path(struct request *rq)
{
    bool get = strcmp(rq->method, "GET") == 0 || strcmp(rq->method, "HEAD") == 0;
    const char *accept = request_header(rq, "Accept");

    if (get && (strcmp(rq->path, "/health") == 0 || strcmp(rq->path, "/healthz") == 0))
        answer(rq, 200, "text/html; charset=utf-8", "OK", 2);
    else if (get && strcmp(rq->path, "/version") == 0 &&
             !(rq->service && accept && strstr(accept, "application/json")))
        answer(rq, 200, "text/html; charset=utf-8", "3.0.0", 5);
    else
        return false;
    return true;
}

static void start_request(const struct server *server, struct request *rq, const char *method)
{
    struct error err = {0};
    const char *length, *host;

    rq->method = rq->storage[3] = mem_strdup(method);
    if (!rq->path || rq->path[0] != '/' || !read_query(rq, rq->raw_query)) {
        error_set(&err, ERR_INVALID, "the request's path or query cannot be decoded");
        answer_error(rq, 400, &err);
        return;
    }
    length = request_header(rq, "Content-Length");
    if (length)
        rq->length = strtoull(length, NULL, 10);
    else if (!request_header(rq, "Transfer-Encoding"))
        rq->length = 0;
    if (!server->any_host && !from_here(rq)) {
        error_set(&err, ERR_FORBIDDEN,
                  "requests for another host or from another origin are not answered");
        error_hint(&err, "use http://127.0.0.1 or http://localhost");
        answer_error(rq, 403, &err);
        return;
    }
    host = request_header(rq, "Host");
    rq->origin = mem_printf("http://%s", host ? host : "localhost");
    rq->service = find_service(server, rq);
    if (!server->any_host && own_path(rq))
        return;
    if (!rq->service) {
        error_set(&err, ERR_NOT_FOUND, "nothing is served at %s", rq->raw_path);
        error_hint(
            &err,
            "/v2/ is the registry, /api/2.0/mlflow/ MLflow, /apis/v2beta1/ Kubeflow Pipelines");
        answer_error(rq, 404, &err);
        return;
    }
    if (rq->service->begin) {
        rq->begun = true;
        rq->service->begin(rq);
        return;
    }
    size_t limit = rq->service->body_limit ? rq->service->body_limit : BODY_LIMIT;
    if (rq->length != LENGTH_UNKNOWN && rq->length > limit)
        rq->too_large = true;
}

static void take_piece(struct request *rq, const char *data, size_t len)
{
    if (rq->response || rq->too_large) {
        rq->dropped += len;
    } else if (rq->service->begin) {
        if (rq->service->data)
            rq->service->data(rq, data, len);
    } else {
        size_t limit = rq->service->body_limit ? rq->service->body_limit : BODY_LIMIT;
        if (len > limit - rq->body.len) {
            rq->too_large = true;
            buf_free(&rq->body);
        } else {
            buf_append(&rq->body, data, len);
        }
    }
}

static void finish(struct request *rq)
{
    struct error err = {0};

    if (rq->response)
        return;
    if (rq->too_large) {
        error_set(&err, ERR_TOO_LARGE, "the body is larger than the %zu bytes that are taken here",
                  rq->service->body_limit ? rq->service->body_limit : (size_t)BODY_LIMIT);
        answer_error(rq, 413, &err);
        return;
    }
    rq->service->handle(rq);
    if (!rq->response && !rq->suspended) {
        error_set(&err, ERR_INTERNAL, "%s gave no answer", rq->service->name);
        answer_error(rq, 500, &err);
    }
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *connection, const char *url,
                                  const char *method, const char *http_version, const char *upload,
                                  size_t *upload_len, void **state)
{
    struct server *server = cls;
    struct request *rq = *state;

    (void)url;
    (void)http_version;
    if (!rq->method) {
        pthread_mutex_lock(&server->lock);
        server->active++;
        pthread_mutex_unlock(&server->lock);
        start_request(server, rq, method);
        /* A client that waits for "100 Continue" need not send a body that nobody wants. */
        if (rq->response && request_header(rq, "Expect") && rq->length != 0)
            return MHD_queue_response(connection, (unsigned)rq->status, rq->response);
        return MHD_YES;
    }
    if (*upload_len) {
        take_piece(rq, upload, *upload_len);
        *upload_len = 0;
        return rq->dropped > DROP_LIMIT ? MHD_NO : MHD_YES;
    }
    finish(rq);
    if (!rq->response) /* suspended */
        return MHD_YES;
    return MHD_queue_response(connection, (unsigned)rq->status, rq->response);
}

static void free_fields(struct request_field *fields, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(fields[i].name);
        free(fields[i].value);
    }
    free(fields);
}

static void on_completed(void *cls, struct MHD_Connection *connection, void **state,
                         enum MHD_RequestTerminationCode how)
{
    struct server *server = cls;
    struct request *rq = *state;

    (void)connection;
    if (!rq)
        return;
    *state = NULL;
    if ((rq->begun || rq->suspended) && rq->service->end)
        rq->service->end(rq);
    if (server->verbose && rq->method) {
        fprintf(stderr, "%s %s %s%s%s %d %.1f ms%s\n", rq->service ? rq->service->name : "server",
                rq->method, rq->raw_path, *rq->raw_query ? "?" : "", rq->raw_query, rq->status,
                (double)(clock_now() - rq->started) / 1e6,
                how == MHD_REQUEST_TERMINATED_COMPLETED_OK ? "" : " (broken off)");
    }
    if (rq->response)
        MHD_destroy_response(rq->response);
    free_fields(rq->fields, rq->field_count);
    free_fields(rq->answers, rq->answer_count);
    buf_free(&rq->body);
    free((void *)rq->origin);
    for (size_t i = 0; i < sizeof rq->storage / sizeof *rq->storage; i++)
        free(rq->storage[i]);
    bool counted = rq->method != NULL;
    free(rq);
    if (!counted)
        return;
    pthread_mutex_lock(&server->lock);
    if (--server->active == 0)
        pthread_cond_broadcast(&server->idle);
    pthread_mutex_unlock(&server->lock);
}

/* MHD would unescape the path in place; the raw form is what first_line read. */
static size_t no_unescape(void *cls, struct MHD_Connection *connection, char *text)
{
    (void)cls;
    (void)connection;
    return strlen(text);
}

static void on_log(void *cls, const char *format, va_list args)
{
    const struct server *server = cls;

    if (!server->verbose)
        return;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    vfprintf(stderr, format, args);
#pragma GCC diagnostic pop
}

void request_suspend(struct request *rq)
{
    rq->suspended = true;
    MHD_suspend_connection(rq->connection);
}

void request_resume(struct request *rq)
{
    MHD_resume_connection(rq->connection);
}

/* ---- start and stop ---- */

static void *accept_all(void *ctx)
{
    struct acceptor *own = ctx;
    int state;

    for (;;) {
        struct sockaddr_storage address;
        socklen_t len = sizeof address;
        int fd = accept4(own->fd, (struct sockaddr *)&address, &len, SOCK_CLOEXEC); /* cancelled */
        pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
        if (fd >= 0)
            MHD_add_connection(own->daemon, fd, (struct sockaddr *)&address, len);
        else if (errno != EINTR && errno != ECONNABORTED)
            poll(NULL, 0, 50); /* no descriptors left: one may be closed soon */
        pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &state);
    }
    return NULL;
}

static int start_acceptor(struct acceptor *own, struct MHD_Daemon *daemon, int fd)
{
    int flags = fcntl(fd, F_GETFL);

    if (flags < 0 || fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) < 0)
        return -1;
    *own = (struct acceptor){.daemon = daemon, .fd = fd};
    if (pthread_create(&own->thread, NULL, accept_all, own) == 0)
        return 0;
    own->daemon = NULL;
    return -1;
}

static int stop_acceptor(struct acceptor *own)
{
    pthread_cancel(own->thread);
    pthread_join(own->thread, NULL);
    return own->fd;
}

struct server *server_start(const int *fds, size_t fd_count, struct service *const *services,
                            size_t service_count, unsigned options, struct error *err)
{
    struct server *server = mem_alloc(sizeof *server);
    unsigned threads =
        options & SERVER_SUSPENDS
            ? MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME
            : MHD_USE_THREAD_PER_CONNECTION | MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_POLL;

    server->verbose = options & SERVER_VERBOSE;
    server->any_host = options & SERVER_ANY_HOST;
    server->services = mem_array(NULL, service_count + 1, sizeof *server->services);
    memcpy(server->services, services, service_count * sizeof *services);
    server->service_count = service_count;
    pthread_mutex_init(&server->lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&server->idle, &monotonic);
    pthread_condattr_destroy(&monotonic);
    for (size_t i = 0; i < fd_count && server->daemon_count < MAX_FDS; i++) {
        if (fds[i] < 0)
            continue;
        struct MHD_Daemon *daemon = MHD_start_daemon(
            threads | MHD_USE_ITC | MHD_USE_ERROR_LOG, 0, NULL, NULL, on_request, server,
            MHD_OPTION_EXTERNAL_LOGGER, on_log, server, MHD_OPTION_LISTEN_SOCKET,
            options & SERVER_SUSPENDS ? -1 : fds[i], MHD_OPTION_URI_LOG_CALLBACK, first_line,
            server, MHD_OPTION_NOTIFY_COMPLETED, on_completed, server, MHD_OPTION_UNESCAPE_CALLBACK,
            no_unescape, server, MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS,
            MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)IDLE_SECONDS,
            MHD_OPTION_CONNECTION_MEMORY_LIMIT,
            (size_t)(options & SERVER_LEAN ? LEAN_BYTES : HEADER_BYTES),
            MHD_OPTION_THREAD_STACK_SIZE, (size_t)STACK_BYTES, MHD_OPTION_END);
        if (!daemon) {
            error_set(err, ERR_IO, "the HTTP server does not start on socket %d", fds[i]);
            server_stop(server, 0);
            return NULL;
        }
        size_t at = server->daemon_count++;
        server->daemons[at] = daemon;
        if (options & SERVER_SUSPENDS &&
            start_acceptor(&server->acceptors[at], daemon, fds[i]) < 0) {
            error_set(err, ERR_IO, "no thread for the connections of socket %d", fds[i]);
            server_stop(server, 0);
            return NULL;
        }
    }
    return server;
}

static void await_idle(struct server *server, int ms)
{
    int64_t until = clock_now() + ms * NS_PER_MS;
    struct timespec at = {.tv_sec = until / NS_PER_S, .tv_nsec = until % NS_PER_S};

    pthread_mutex_lock(&server->lock);
    while (server->active && pthread_cond_timedwait(&server->idle, &server->lock, &at) == 0)
        continue;
    pthread_mutex_unlock(&server->lock);
}

void server_stop(struct server *server, int drain_ms)
{
    int listening[MAX_FDS];

    for (size_t i = 0; i < server->daemon_count; i++)
        listening[i] = server->acceptors[i].daemon ? stop_acceptor(&server->acceptors[i])
                                                   : MHD_quiesce_daemon(server->daemons[i]);
    for (size_t i = 0; i < server->service_count; i++) {
        if (server->services[i]->stopping)
            server->services[i]->stopping(server->services[i]);
    }
    await_idle(server, drain_ms);
    for (size_t i = 0; i < server->service_count; i++) {
        if (server->services[i]->give_up) {
            server->services[i]->give_up(server->services[i]);
            await_idle(server, 500); /* until those who waited have been told */
        }
    }
    for (size_t i = 0; i < server->daemon_count; i++) {
        MHD_stop_daemon(server->daemons[i]);
        if (listening[i] >= 0)
            close(listening[i]);
    }
    /* Last opened, first closed: a service may use those that were opened before it. */
    for (size_t i = server->service_count; i-- > 0;) {
        if (server->services[i]->close)
            server->services[i]->close(server->services[i]);
    }
    pthread_cond_destroy(&server->idle);
    pthread_mutex_destroy(&server->lock);
    free(server->services);
    free(server);
}
