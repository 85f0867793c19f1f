/* The HTTP client against a server that misbehaves: what is repeated, what is not, and what the
 * errors say. */
#include "fault_server.h"

#include <cmocka.h>
#include <fcntl.h>
#include <pthread.h>

#include "base/mem.h"
#include "base/value.h"
#include "loop/http_internal.h"
#include "oci/remote_header.h"

static struct http *http;

static const char *at(const char *path)
{
    static char url[4][512];
    static int turn;
    char *text = url[turn++ & 3];

    snprintf(text, sizeof(url[0]), "http://127.0.0.1:%d%s", fault_port, path);
    return text;
}

static struct http_request get(const char *path)
{
    struct http_request request = HTTP_REQUEST_INIT;

    request.url = at(path);
    return request;
}

static int64_t seen(const char *name)
{
    cleanup_response struct http_response response = {0};
    cleanup_value struct value v = {0};
    char path[128];
    struct error err = {0};

    snprintf(path, sizeof(path), "/seen/%s", name);
    struct http_request request = get(path);
    assert_int_equal(http_perform(http, &request, &response, &err), 0);
    assert_int_equal(value_from_json(response.body.data, response.body.len, "seen", NULL, &v, &err),
                     0);
    return value_get_int(&v, "count", -1);
}

static void test_plain(void **state)
{
    cleanup_response struct http_response response = {0};
    struct error err = {0};
    struct http_request request = get("/ok");

    (void)state;
    assert_int_equal(http_perform(http, &request, &response, &err), 0);
    assert_int_equal(response.status, 200);
    assert_string_equal(response.body.data, "{\"ok\": true}");
    assert_string_equal(http_header_get(&response.headers, "content-TYPE"), "application/json");
    assert_int_equal(response.attempts, 1);
}

static ssize_t count_down(void *ctx, char *data, size_t room)
{
    size_t *left = ctx;
    size_t n = room < *left ? room : *left;

    memset(data, 's', n);
    *left -= n;
    return (ssize_t)n;
}

static void test_bodies(void **state)
{
    struct error err = {0};
    (void)state;
    {
        cleanup_response struct http_response response = {0};
        struct http_request request = get("/echo");
        request.method = "PATCH";
        request.body = "hello";
        request.body_len = 5;
        assert_int_equal(http_perform(http, &request, &response, &err), 0);
        assert_non_null(strstr(response.body.data, "\"method\": \"PATCH\""));
        assert_non_null(strstr(response.body.data, "\"body\": \"hello\""));
    }
    {
        cleanup_response struct http_response response = {0};
        cleanup_close int fd = open("/tmp", O_TMPFILE | O_RDWR, 0600);
        struct http_request request = get("/echo");
        assert_int_equal(write(fd, "0123456789", 10), 10);
        request.method = "PUT";
        request.body_fd = fd;
        request.body_offset = 2;
        request.body_size = 5;
        assert_int_equal(http_perform(http, &request, &response, &err), 0);
        assert_non_null(strstr(response.body.data, "\"body\": \"23456\""));
    }
    {
        cleanup_response struct http_response response = {0};
        struct http_request request = get("/echo");
        size_t left = 1000000;
        request.method = "PUT";
        request.source = count_down;
        request.source_ctx = &left;
        assert_int_equal(http_perform(http, &request, &response, &err), 0);
        assert_non_null(strstr(response.body.data, "\"size\": 1000000"));
        assert_non_null(strstr(response.body.data, "chunked"));
    }
}

static int collect(void *ctx, const char *data, size_t len)
{
    size_t *total = ctx;

    (void)data;
    *total += len;
    return *total > 2000000 ? -1 : 0;
}

static void test_reply_targets(void **state)
{
    struct error err = {0};
    (void)state;
    {
        cleanup_response struct http_response response = {0};
        cleanup_close int fd = open("/tmp", O_TMPFILE | O_RDWR, 0600);
        struct http_request request = get("/large/3000000");
        request.reply_fd = fd;
        assert_int_equal(http_perform(http, &request, &response, &err), 0);
        assert_int_equal(lseek(fd, 0, SEEK_END), 3000000);
        assert_int_equal(response.body.len, 0);
    }
    {
        cleanup_response struct http_response response = {0};
        size_t total = 0;
        struct http_request request = get("/large/1000000");
        request.sink = collect;
        request.sink_ctx = &total;
        assert_int_equal(http_perform(http, &request, &response, &err), 0);
        assert_int_equal(total, 1000000);
    }
    {
        cleanup_response struct http_response response = {0};
        size_t total = 0;
        struct http_request request = get("/large/5000000");
        request.sink = collect;
        request.sink_ctx = &total;
        assert_int_equal(http_perform(http, &request, &response, &err), -1);
        assert_int_equal(err.code, ERR_IO);
    }
    {
        cleanup_response struct http_response response = {0};
        struct http_request request = get("/large/3000000");
        request.reply_limit = 1000;
        assert_int_equal(http_perform(http, &request, &response, &err), -1);
        assert_int_equal(err.code, ERR_TOO_LARGE);
        assert_non_null(strstr(err.message, "larger than 1000 bytes"));
    }
    {
        cleanup_response struct http_response response = {0};
        struct http_request request = get("/error-large");
        request.attempts = 1;
        assert_int_equal(http_perform(http, &request, &response, &err), 0);
        assert_int_equal(response.status, 500);
        assert_int_equal(response.body.len, 64 << 10);
    }
}

static void test_statuses(void **state)
{
    static const struct {
        const char *path;
        enum error_code code;
        const char *message;
        const char *hint;
    } cases[] = {
        {"/status/401?style=mlflow&token=hush", ERR_UNAUTHORIZED, "answered 401 not authenticated",
         "credentials"},
        {"/status/403", ERR_FORBIDDEN, "answered 403 forbidden", "role"},
        {"/status/404?style=mlflow", ERR_NOT_FOUND, "answered 404 not found: {\"error_code\"", ""},
        {"/status/418?style=html", ERR_FAILED, "answered 418: Gateway Sorry come back", ""},
        {"/status/429", ERR_RATE_LIMITED, "answered 429 too many requests", "slow down"},
        {"/status/500?style=html", ERR_UNAVAILABLE, "answered 500 internal server error",
         "tried 2 times"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        cleanup_response struct http_response response = {0};
        struct error err = {0};
        struct http_request request = get(cases[i].path);
        request.attempts = 2;
        assert_int_equal(http_perform(http, &request, &response, &err), 0);
        assert_int_equal(http_status_error(&request, &response, NULL, &err), -1);
        assert_int_equal(err.code, cases[i].code);
        assert_int_equal(err.status, response.status);
        assert_non_null(strstr(err.message, cases[i].message));
        assert_non_null(strstr(err.hint, cases[i].hint));
        assert_null(strstr(err.message, "hush"));
        assert_null(strstr(err.message, "<h1>"));
    }
}

static void test_repeats(void **state)
{
    struct error err = {0};
    (void)state;
    {
        cleanup_response struct http_response response = {0};
        struct http_request request = get("/flaky/get/2/503");
        assert_int_equal(http_perform(http, &request, &response, &err), 0);
        assert_int_equal(response.status, 200);
        assert_int_equal(response.attempts, 3);
    }
    { /* a POST that may have had an effect is not repeated */
        cleanup_response struct http_response response = {0};
        struct http_request request = get("/flaky/post/2/500");
        request.method = "POST";
        assert_int_equal(http_perform(http, &request, &response, &err), 0);
        assert_int_equal(response.status, 500);
        assert_int_equal(seen("post"), 1);
    }
    { /* one that is known to be idempotent is */
        cleanup_response struct http_response response = {0};
        struct http_request request = get("/flaky/idem/1/502");
        request.method = "POST";
        request.repeat = HTTP_REPEAT_ALWAYS;
        assert_int_equal(http_perform(http, &request, &response, &err), 0);
        assert_int_equal(response.status, 200);
    }
    { /* 429 with Retry-After is obeyed, to the second */
        cleanup_response struct http_response response = {0};
        struct http_request request = get("/flaky/limited/1/429?retry_after=1");
        int64_t start = clock_now();
        assert_int_equal(http_perform(http, &request, &response, &err), 0);
        assert_int_equal(response.status, 200);
        assert_true(clock_now() - start >= NS_PER_S);
    }
    { /* a Retry-After beyond the deadline is not waited for: the reply comes back at once */
        cleanup_response struct http_response response = {0};
        struct http_request request = get("/flaky/far/1/429?retry_after=600");
        int64_t start = clock_now();
        request.deadline = deadline_in(30 * NS_PER_S);
        assert_int_equal(http_perform(http, &request, &response, &err), 0);
        assert_int_equal(response.status, 429);
        assert_true(clock_now() - start < 5 * NS_PER_S);
        http_status_error(&request, &response, NULL, &err);
        assert_non_null(strstr(err.hint, "Retry-After: 600"));
    }
    { /* an HTTP date that has passed means now */
        cleanup_response struct http_response response = {0};
        struct http_request request =
            get("/flaky/date/1/503?retry_after=Thu,%2001%20Jan%202015%2000:00:00%20GMT");
        assert_int_equal(http_perform(http, &request, &response, &err), 0);
        assert_int_equal(response.status, 200);
    }
    { /* truncated replies are asked for again, and no half body stays in the file */
        cleanup_response struct http_response response = {0};
        cleanup_close int fd = open("/tmp", O_TMPFILE | O_RDWR, 0600);
        struct http_request request = get("/truncated/cut");
        request.reply_fd = fd;
        request.attempts = 2;
        assert_int_equal(http_perform(http, &request, &response, &err), -1);
        assert_int_equal(err.code, ERR_UNAVAILABLE);
        assert_non_null(strstr(err.message, "before the reply was complete"));
        assert_non_null(strstr(err.message, "after 2 attempts"));
        assert_int_equal(seen("cut"), 2);
        assert_int_equal(lseek(fd, 0, SEEK_END), 0);
    }
}

static void test_nothing_answers(void **state)
{
    cleanup_response struct http_response response = {0};
    struct error err = {0};
    struct http_request request = HTTP_REQUEST_INIT;

    (void)state;
    request.url = "http://user:pw@127.0.0.1:1/path?token=hush";
    request.method = "POST";
    request.attempts = 2;
    assert_int_equal(http_perform(http, &request, &response, &err), -1);
    assert_int_equal(err.code, ERR_UNAVAILABLE);
    assert_true(err.retryable);
    assert_non_null(strstr(err.message, "POST http://127.0.0.1:1/path?...: nothing answers"));
    assert_non_null(
        strstr(err.message, "after 2 attempts")); /* nothing was sent, so even a POST is repeated */
    assert_null(strstr(err.message, "hush"));
    assert_null(strstr(err.message, "pw"));
    assert_string_equal(err.hint, "is a server listening at 127.0.0.1:1?");

    request.url = "http://127.0.0.1:1/";
    request.unix_socket = "/nonexistent/mlhost.sock";
    request.attempts = 1;
    assert_int_equal(http_perform(http, &request, &response, &err), -1);
    assert_non_null(strstr(err.hint, "/nonexistent/mlhost.sock"));
}

static void test_time(void **state)
{
    struct error err = {0};
    (void)state;
    {
        cleanup_response struct http_response response = {0};
        struct http_request request = get("/slow/5");
        int64_t start = clock_now();
        request.deadline = deadline_in(300 * NS_PER_MS);
        assert_int_equal(http_perform(http, &request, &response, &err), -1);
        assert_int_equal(err.code, ERR_TIMEOUT);
        assert_non_null(strstr(err.message, "before the deadline"));
        assert_true(clock_now() - start < 2 * NS_PER_S);
    }
    {
        cleanup_response struct http_response response = {0};
        struct http_request request = get("/trickle/5");
        int64_t start = clock_now();
        request.stall_ms = 300;
        request.attempts = 1;
        assert_int_equal(http_perform(http, &request, &response, &err), -1);
        assert_int_equal(err.code, ERR_TIMEOUT);
        assert_non_null(strstr(err.message, "no byte moved"));
        assert_true(clock_now() - start < 2 * NS_PER_S);
    }
}

static void *raise_soon(void *ctx)
{
    usleep(200000);
    cancel_raise(ctx);
    return NULL;
}

static void test_cancel(void **state)
{
    static const char *const paths[] = {"/slow/5", "/flaky/never/1000/503?retry_after=60"};
    (void)state;
    for (size_t i = 0; i < 2; i++) { /* while a reply is awaited, and between two attempts */
        cleanup_response struct http_response response = {0};
        struct error err = {0};
        struct cancel cancel;
        pthread_t thread;
        int64_t start = clock_now();
        struct http_request request = get(paths[i]);
        assert_int_equal(cancel_init(&cancel), 0);
        request.cancel = &cancel;
        pthread_create(&thread, NULL, raise_soon, &cancel);
        assert_int_equal(http_perform(http, &request, &response, &err), -1);
        assert_int_equal(err.code, ERR_CANCELLED);
        assert_true(clock_now() - start < 2 * NS_PER_S);
        pthread_join(thread, NULL);
        cancel_end(&cancel);
    }
}

struct asked {
    int hosts, addresses;
    bool refuse_address;
    int last_port;
};

static int allow(void *ctx, const char *host, int port, const char *address, struct error *err)
{
    struct asked *asked = ctx;

    assert_string_equal(host, "127.0.0.1");
    asked->last_port = port;
    if (!address) {
        asked->hosts++;
        return 0;
    }
    asked->addresses++;
    return asked->refuse_address
               ? error_set(err, ERR_DENIED, "net %s:%d is not granted", host, port)
               : 0;
}

static void test_redirects(void **state)
{
    struct error err = {0};
    (void)state;
    struct http_headers headers = {0};
    http_header_add(&headers, "Authorization", "Bearer hush");
    http_header_add(&headers, "Cookie", "a=b");
    http_header_add(&headers, "X-Api-Key", "k");
    http_header_add(&headers, "Accept", "application/json");
    {
        cleanup_response struct http_response response = {0};
        struct http_request request = get("/same");
        request.headers = headers;
        request.follow = true;
        assert_int_equal(http_perform(http, &request, &response, &err), 0);
        assert_non_null(strstr(response.body.data, "Bearer hush"));
        assert_non_null(strstr(response.url, "/echo?from=same"));
    }
    {
        cleanup_response struct http_response response = {0};
        struct asked asked = {0};
        struct http_request request = get("/cross");
        request.headers = headers;
        request.follow = true;
        request.allow = allow;
        request.allow_ctx = &asked;
        request.method = "PUT";
        request.body = "kept";
        request.body_len = 4;
        assert_int_equal(http_perform(http, &request, &response, &err), 0);
        assert_int_equal(response.status, 200);
        assert_non_null(strstr(response.body.data, "kept"));
        assert_non_null(strstr(response.body.data, "application/json"));
        assert_null(strstr(response.body.data, "hush"));
        assert_null(strstr(response.body.data, "a=b"));
        assert_null(strstr(response.body.data, "x-api-key"));
        assert_int_equal(asked.hosts, 2);
        assert_int_equal(asked.last_port, fault_other_port);
    }
    {
        cleanup_response struct http_response response = {0};
        struct http_request request = get("/cross");
        assert_int_equal(http_perform(http, &request, &response, &err), 0);
        assert_int_equal(response.status, 307); /* not asked to follow */
    }
    {
        cleanup_response struct http_response response = {0};
        struct http_request request = get("/loop");
        request.follow = true;
        assert_int_equal(http_perform(http, &request, &response, &err), -1);
        assert_non_null(strstr(err.message, "more than 10 redirects"));
    }
    http_headers_free(&headers);
}

static void test_denied(void **state)
{
    cleanup_response struct http_response response = {0};
    struct error err = {0};
    struct asked asked = {.refuse_address = true};
    /* a client of its own, so that no connection is there yet and an address must be asked for */
    struct http *fresh = http_new(&err);
    struct http_request request = get("/ok");

    (void)state;
    request.allow = allow;
    request.allow_ctx = &asked;
    assert_int_equal(http_perform(fresh, &request, &response, &err), -1);
    assert_int_equal(err.code, ERR_DENIED);
    assert_non_null(strstr(err.message, "is not granted"));
    assert_int_equal(asked.addresses, 1);
    http_free(fresh);
}

static void test_misuse(void **state)
{
    static const struct {
        const char *url;
        const char *says;
    } cases[] = {
        {"file:///etc/passwd", "only http and https"},
        {"gopher://127.0.0.1/", "only http and https"},
        {"no url", "is not a URL"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        cleanup_response struct http_response response = {0};
        struct error err = {0};
        struct http_request request = HTTP_REQUEST_INIT;
        request.url = cases[i].url;
        assert_int_equal(http_perform(http, &request, &response, &err), -1);
        assert_int_equal(err.code, ERR_USAGE);
        assert_non_null(strstr(err.message, cases[i].says));
    }
    struct http_headers headers = {0};
    cleanup_response struct http_response response = {0};
    struct error err = {0};
    struct http_request request = get("/ok");
    http_header_add(&headers, "X-A", "b\r\nInjected: yes");
    request.headers = headers;
    assert_int_equal(http_perform(http, &request, &response, &err), -1);
    assert_non_null(strstr(err.message, "line break"));
    http_headers_free(&headers);
}

static void *many(void *ctx)
{
    int *failures = ctx;

    for (int i = 0; i < 20; i++) {
        cleanup_response struct http_response response = {0};
        struct error err = {0};
        struct http_request request = HTTP_REQUEST_INIT;
        char url[64];
        snprintf(url, sizeof(url), "http://127.0.0.1:%d/large/10000", fault_port);
        request.url = url;
        if (http_perform(http, &request, &response, &err) != 0 || response.body.len != 10000)
            (*failures)++;
    }
    return NULL;
}

static void test_threads(void **state)
{
    pthread_t threads[8];
    int failures[8] = {0};

    (void)state;
    for (int i = 0; i < 8; i++)
        pthread_create(&threads[i], NULL, many, &failures[i]);
    for (int i = 0; i < 8; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(failures[i], 0);
    }
}

static void test_headers(void **state)
{
    const int64_t now = INT64_C(1700000000000); /* Tue, 14 Nov 2023 22:13:20 GMT */
    struct http_headers headers = {0};
    cleanup_challenge struct challenge challenge = {0};

    (void)state;
    assert_int_equal(retry_after_ms(NULL, now), -1);
    assert_int_equal(retry_after_ms("soon", now), -1);
    assert_int_equal(retry_after_ms("2", now), 2000);
    assert_int_equal(retry_after_ms("-5", now), 0);
    assert_int_equal(retry_after_ms("Tue, 14 Nov 2023 22:13:50 GMT", now), 30000);
    assert_int_equal(retry_after_ms("Tue, 14 Nov 2023 22:13:00 GMT", now), 0);
    /* Ten minutes at most, however it is said. */
    assert_int_equal(retry_after_ms("599999", now), RETRY_AFTER_CAP_MS);
    assert_int_equal(retry_after_ms("99999999999999999999", now), RETRY_AFTER_CAP_MS);
    assert_int_equal(retry_after_ms("Tue, 14 Nov 2034 22:13:50 GMT", now), RETRY_AFTER_CAP_MS);

    http_header_add(&headers, "Link", "</a?next>; rel=\"prev\"");
    assert_null(link_next(&headers));
    http_header_add(&headers, "link", "</b>; title=\"a, <b>\"; rel=prev, </c>;rel=\"last Next\"");
    cleanup_free char *next = link_next(&headers);
    assert_string_equal(next, "/c");

    http_header_add(&headers, "WWW-Authenticate", "Basic realm=\"a\"");
    assert_false(challenge_find(&headers, "Bearer", &challenge));
    http_header_add(&headers, "WWW-Authenticate",
                    "Bearer realm=\"https://auth.example/t\\\"oken\", service=reg");
    assert_true(challenge_find(&headers, "Bearer", &challenge));
    assert_string_equal(challenge.realm, "https://auth.example/t\"oken");
    assert_string_equal(challenge.service, "reg");
    assert_null(challenge.scope);
    http_headers_free(&headers);
}

/* What is not a URL may hold a password all the same. */
static void test_safe_urls(void **state)
{
    static const char *const pairs[][2] = {
        {"https://robot:secret@host/a?sig=x#y", "https://host/a?..."},
        {"https://robot:secret@bad host/a", "https://..."},
        {"robot:secret@bad host", "..."},
        {"https://bad host/a?sig=secret", "https://bad host/a"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        cleanup_buf struct buf shown = BUF_INIT;
        url_print_safe(pairs[i][0], &shown);
        assert_string_equal(shown.data, pairs[i][1]);
    }
}

static int setup(void **state)
{
    struct error err = {0};

    (void)state;
    unsetenv("http_proxy");
    unsetenv("all_proxy");
    http = http_new(&err);
    return http ? fault_server_start() : -1;
}

static int teardown(void **state)
{
    (void)state;
    http_free(http);
    fault_server_stop();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),         cmocka_unit_test(test_bodies),
        cmocka_unit_test(test_reply_targets), cmocka_unit_test(test_statuses),
        cmocka_unit_test(test_repeats),       cmocka_unit_test(test_nothing_answers),
        cmocka_unit_test(test_time),          cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_redirects),     cmocka_unit_test(test_denied),
        cmocka_unit_test(test_misuse),        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_headers),       cmocka_unit_test(test_safe_urls),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
