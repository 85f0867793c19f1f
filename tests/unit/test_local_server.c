/* The embedded server: routing, bodies, answers, its drain. Spoken to with raw HTTP on its socket.
 */
#include "check.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "local/server.h"

static atomic_int handled, ended, closed;
static atomic_ullong streamed;

/* ---- two services: one that gets whole bodies, one that takes them piece by piece ---- */

static void echo(struct request *rq)
{
    cleanup_value struct value v = {0};

    handled++;
    value_set_map(&v);
    value_put_string(&v, "method", rq->method);
    value_put_string(&v, "path", rq->path);
    value_put_string(&v, "rest", rq->rest);
    value_put_string(&v, "query", request_query(rq, "q"));
    value_put_int(&v, "n", request_query_int(rq, "n", 7, 100));
    value_put_int(&v, "body", (int64_t)rq->body.len);
    if (strcmp(rq->rest, "slow") == 0)
        usleep(300 * 1000);
    if (strcmp(rq->rest, "silent") != 0)
        answer_json(rq, 200, &v);
}

static ssize_t count_down(void *context, char *to, size_t max)
{
    int *left = context;

    if (*left == 0 || max == 0)
        return 0;
    to[0] = (char)('0' + (*left)--);
    return 1;
}

static void piece_begin(struct request *rq)
{
    if (strcmp(rq->rest, "refuse") == 0)
        answer_text(rq, 403, "no");
    rq->local = mem_alloc(1);
}

static void piece_data(struct request *rq, const void *bytes, size_t len)
{
    (void)bytes;
    streamed += len;
    if (strcmp(rq->rest, "enough") == 0)
        answer_text(rq, 413, "enough");
}

static void piece_handle(struct request *rq)
{
    if (strcmp(rq->rest, "count") == 0) {
        int *left = mem_alloc(sizeof *left);
        *left = 3;
        answer_stream(rq, 200, "text/plain", count_down, free, left);
        return;
    }
    answer_header(rq, "X-Test", "yes");
    answer_text(rq, 201, "whole");
    answer_text(rq, 500, "a second answer is dropped");
}

static void piece_end(struct request *rq)
{
    free(rq->local);
    ended++;
}

static void on_close(struct service *service)
{
    (void)service;
    closed++;
}

static const char *const echo_prefixes[] = {"/echo/", NULL};
static const char *const piece_prefixes[] = {"/echo/pieces/", NULL};
static struct service echo_service = {.name = "echo",
                                      .prefixes = echo_prefixes,
                                      .body_limit = 1000,
                                      .handle = echo,
                                      .close = on_close};
static struct service piece_service = {.name = "pieces",
                                       .prefixes = piece_prefixes,
                                       .begin = piece_begin,
                                       .data = piece_data,
                                       .handle = piece_handle,
                                       .end = piece_end,
                                       .close = on_close};

static struct server *server;
static int port;

static int start(void **state)
{
    struct service *services[] = {&echo_service, &piece_service};
    struct error err = {0};

    (void)state;
    port = 0;
    handled = ended = closed = 0;
    streamed = 0;
    int fd = server_listen(&port, &err);
    if (fd < 0)
        return -1;
    server = server_start(&fd, 1, services, 2, false, &err);
    return server ? 0 : -1;
}

static int stop(void **state)
{
    (void)state;
    server_stop(server, 2000);
    return closed == 2 ? 0 : -1;
}

static int dial(void)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    return fd;
}

/* Sends, closes its half, reads all. The answer is the caller's. */
static char *talk(const char *text)
{
    cleanup_close int fd = dial();
    struct buf in = BUF_INIT;
    struct error err = {0};
    ssize_t n;

    ok(fd_write_all(fd, text, strlen(text), &err), err);
    shutdown(fd, SHUT_WR);
    while ((n = read(fd, buf_reserve(&in, 4096), 4096)) > 0)
        in.len += (size_t)n;
    in.data[in.len] = '\0';
    return buf_steal(&in);
}

#define HOST "Host: localhost\r\nConnection: close\r\n"

static void routes_and_queries(void **state)
{
    (void)state;
    cleanup_free char *plain = talk("GET /echo/a%20b/c?q=x%2By+z&n=5&n=6 HTTP/1.1\r\n" HOST "\r\n");
    holds(plain, "200 OK");
    holds(plain, "\"path\":\"/echo/a b/c\"");
    holds(plain, "\"rest\":\"a b/c\"");
    holds(plain, "\"query\":\"x+y z\"");
    holds(plain, "\"n\":5");
    cleanup_free char *number = talk("GET /echo?n=101 HTTP/1.1\r\n" HOST "\r\n");
    holds(number, "\"rest\":\"\"");
    holds(number, "\"n\":-1");
    cleanup_free char *longest = talk("GET /echo/pieces/x HTTP/1.1\r\n" HOST "\r\n");
    holds(longest, "201 Created");
    holds(longest, "X-Test: yes");
    holds(longest, "whole");
    cleanup_free char *nobody = talk("GET /nobody HTTP/1.1\r\n" HOST "\r\n");
    holds(nobody, "404 Not Found");
    holds(nobody, "nothing is served at /nobody");
    cleanup_free char *nul = talk("GET /echo/a%00b HTTP/1.1\r\n" HOST "\r\n");
    holds(nul, "400 Bad Request");
    cleanup_free char *query_nul = talk("GET /echo/a?q=%00 HTTP/1.1\r\n" HOST "\r\n");
    holds(query_nul, "400 Bad Request");
    cleanup_free char *health = talk("GET /healthz HTTP/1.1\r\n" HOST "\r\n");
    holds(health, "\r\n\r\nOK");
    cleanup_free char *silent = talk("GET /echo/silent HTTP/1.1\r\n" HOST "\r\n");
    holds(silent, "500 Internal Server Error");
    holds(silent, "echo gave no answer");
}

static void other_hosts_and_origins(void **state)
{
    (void)state;
    static const char *const good[] = {"Host: 127.0.0.1:1\r\n", "Host: [::1]:80\r\n",
                                       "Host: LOCALHOST\r\nOrigin: http://localhost:3000\r\n",
                                       "Host: mlhost.local\r\n"};
    static const char *const bad[] = {"Host: evil.example\r\n", "Host: localhost.evil.example\r\n",
                                      "Host: localhost\r\nOrigin: http://evil.example\r\n",
                                      "Host: localhost\r\nOrigin: null\r\n", "Host: [::1\r\n"};
    char text[256];

    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        snprintf(text, sizeof text, "GET /echo/ HTTP/1.1\r\n%sConnection: close\r\n\r\n", good[i]);
        cleanup_free char *reply = talk(text);
        holds(reply, "200 OK");
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        snprintf(text, sizeof text, "GET /echo/ HTTP/1.1\r\n%sConnection: close\r\n\r\n", bad[i]);
        cleanup_free char *reply = talk(text);
        holds(reply, "403 Forbidden");
    }
}

static void bodies(void **state)
{
    (void)state;
    cleanup_free char *whole =
        talk("POST /echo/ HTTP/1.1\r\n" HOST "Content-Length: 5\r\n\r\nhello");
    holds(whole, "\"body\":5");
    cleanup_free char *chunked =
        talk("POST /echo/ HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n"
             "3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n");
    holds(chunked, "\"body\":7");

    struct buf large = BUF_INIT;
    buf_puts(&large, "POST /echo/ HTTP/1.1\r\n" HOST "Content-Length: 2000\r\n\r\n");
    for (int i = 0; i < 2000; i++)
        buf_putc(&large, 'x');
    int before = handled;
    cleanup_free char *refused = talk(large.data);
    holds(refused, "413");
    holds(refused, "larger than the 1000 bytes");
    assert_int_equal(handled, before);
    buf_clear(&large);
    buf_puts(&large, "POST /echo/ HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n7d0\r\n");
    for (int i = 0; i < 2000; i++)
        buf_putc(&large, 'x');
    buf_puts(&large, "\r\n0\r\n\r\n");
    cleanup_free char *chunked_refused = talk(large.data);
    holds(chunked_refused, "413");
    buf_free(&large);
}

static void pieces(void **state)
{
    (void)state;
    cleanup_free char *whole =
        talk("PUT /echo/pieces/x HTTP/1.1\r\n" HOST "Content-Length: 5\r\n\r\nhello");
    holds(whole, "201 Created");
    assert_int_equal(streamed, 5);
    cleanup_free char *refused =
        talk("PUT /echo/pieces/refuse HTTP/1.1\r\n" HOST "Content-Length: 5\r\n\r\nhello");
    holds(refused, "403 Forbidden");
    assert_int_equal(streamed, 5);
    cleanup_free char *enough =
        talk("PUT /echo/pieces/enough HTTP/1.1\r\n" HOST "Content-Length: 5\r\n\r\nhello");
    holds(enough, "413");
    cleanup_free char *expecting = talk("PUT /echo/pieces/refuse HTTP/1.1\r\n" HOST
                                        "Expect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    holds(expecting, "403 Forbidden");
    assert_null(strstr(expecting, "100 Continue"));
    cleanup_free char *counted = talk("GET /echo/pieces/count HTTP/1.1\r\n" HOST "\r\n");
    holds(counted, "Transfer-Encoding: chunked");
    /* A client that breaks off: end is called all the same. */
    int before = ended;
    cleanup_free char *broken =
        talk("PUT /echo/pieces/x HTTP/1.1\r\n" HOST "Content-Length: 50\r\n\r\nhello");
    assert_null(strstr(broken, "201"));
    for (int i = 0; i < 200 && ended == before; i++)
        usleep(10 * 1000);
    assert_int_equal(ended, before + 1);
}

static void one_connection_many_requests(void **state)
{
    (void)state;
    cleanup_free char *both = talk("GET /echo/1 HTTP/1.1\r\nHost: localhost\r\n\r\n"
                                   "HEAD /echo/2 HTTP/1.1\r\nHost: localhost\r\n\r\n"
                                   "GET /echo/3 HTTP/1.1\r\n" HOST "\r\n");
    holds(both, "\"rest\":\"1\"");
    assert_null(strstr(both, "\"rest\":\"2\""));
    holds(both, "\"rest\":\"3\"");
}

static void *slow_client(void *to)
{
    *(char **)to = talk("GET /echo/slow HTTP/1.1\r\n" HOST "\r\n");
    return NULL;
}

/* A request in hand is answered before the server is gone; an idle connection does not hold it up.
 */
static void drain(void **state)
{
    pthread_t client;
    cleanup_free char *reply = NULL;
    cleanup_close int idle = dial();

    (void)state;
    assert_true(idle >= 0);
    pthread_create(&client, NULL, slow_client, &reply);
    for (int i = 0; i < 200 && !handled; i++)
        usleep(5 * 1000);
    assert_int_equal(handled, 1);
    int64_t began = clock_now();
    server_stop(server, 5000);
    assert_in_range(clock_now() - began, 0, 3 * NS_PER_S);
    pthread_join(client, NULL);
    holds(reply, "200 OK");
    assert_int_equal(closed, 2);
}

static void plain_paths(void **state)
{
    (void)state;
    static const char *const good[] = {"a", "a/b.c", "a b/\xc3\xbc", ".hidden", "a/...", "..a"};
    static const char *const bad[] = {"",     "/a",  "a/",  "a//b", ".",    "..",
                                      "a/..", "./a", "a/.", "a\\b", "a\nb", "a/../b"};

    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_true(path_is_plain(good[i]));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(path_is_plain(bad[i]));
    char name[300];
    memset(name, 'a', sizeof name);
    name[256] = '\0';
    assert_false(path_is_plain(name));
    name[255] = '\0';
    assert_true(path_is_plain(name));
}

static void port_in_use(void **state)
{
    struct error err;

    (void)state;
    fails(server_listen(&port, &err) < 0 ? -1 : 0, err, ERR_IO, "cannot listen on 127.0.0.1");
    holds(err.hint, "--port 0");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(routes_and_queries, start, stop),
        cmocka_unit_test_setup_teardown(other_hosts_and_origins, start, stop),
        cmocka_unit_test_setup_teardown(bodies, start, stop),
        cmocka_unit_test_setup_teardown(pieces, start, stop),
        cmocka_unit_test_setup_teardown(one_connection_many_requests, start, stop),
        cmocka_unit_test_setup_teardown(port_in_use, start, stop),
        cmocka_unit_test_setup(drain, start),
        cmocka_unit_test(plain_paths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
