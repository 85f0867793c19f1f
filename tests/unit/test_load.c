/* seldon.load and seldon.request against a loopback server; the histogram against sorted values. */
#include "fault_server.h"

#include "fake_call.h"

#include <cmocka.h>
#include <pthread.h>

#include "service/load_histogram.h"
#include "service/rest.h"

static struct broker broker;
static struct value client;

static int by_size(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static void test_histogram(void **state)
{
    enum { COUNT = 20000 };
    static const double fractions[] = {0.01, 0.5, 0.9, 0.99, 0.999, 1};
    struct histogram *h = mem_alloc(sizeof(*h));
    int64_t *values = mem_alloc(COUNT * sizeof(*values));
    uint64_t random = 88172645463325252u;
    double sum = 0;

    (void)state;
    assert_int_equal(histogram_percentile(h, 0.5), 0);
    for (size_t i = 0; i < COUNT; i++) { /* from nanoseconds to minutes */
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        values[i] = (int64_t)(random >> (20 + i % 40) & ((UINT64_C(1) << 38) - 1));
        sum += (double)values[i];
        histogram_add(h, values[i]);
    }
    qsort(values, COUNT, sizeof(*values), by_size);
    assert_int_equal(h->count, COUNT);
    assert_int_equal(h->min, values[0]);
    assert_int_equal(h->max, values[COUNT - 1]);
    assert_true(histogram_mean(h) == sum / COUNT);
    for (size_t i = 0; i < sizeof(fractions) / sizeof(fractions[0]); i++) {
        double exact = (double)values[(size_t)(fractions[i] * COUNT) - 1];
        double told = (double)histogram_percentile(h, fractions[i]);
        if (told < exact * 0.995 - 1 || told > exact * 1.005 + 1)
            fail_msg("percentile %g is %g, not %g", fractions[i], told, exact);
    }
    histogram_add(h, INT64_MAX);
    assert_int_equal(histogram_percentile(h, 1), INT64_MAX);
    free(values);
    free(h);
}

static int ask(primitive_fn *fn, const char *name, struct cancel *cancel, int64_t deadline,
               const char *json, struct value *out, struct error *err)
{
    const struct primitive row = {.sign = {.name = name}};
    struct call call = {.broker = &broker, .row = &row, .deadline = deadline, .cancel = cancel};
    cleanup_value struct value args = {0};

    *err = (struct error){0};
    assert_int_equal(value_from_json(json, strlen(json), "args", NULL, &args, err), 0);
    value_copy(value_put(&args, "client"), value_get(&client, "client"));
    return fn(&call, &args, out, err);
}

static int load(const char *json, struct value *out, struct error *err)
{
    return ask(prim_seldon_load, "seldon.load", NULL, deadline_in(60 * NS_PER_S), json, out, err);
}

static void test_count(void **state)
{
    cleanup_value struct value out = {0};
    struct error err = {0};

    (void)state;
    if (load("{\"path\":\"/echo\",\"bodies\":[\"one\",\"two\",\"three\"],\"count\":30,"
             "\"concurrency\":3,\"headers\":{\"X-A\":\"b\"},\"group_by\":\"body\"}",
             &out, &err) != 0)
        fail_msg("%s", err.message);
    const struct value *latency = value_get(&out, "latency");
    assert_int_equal(value_get_int(&out, "count", -1), 30);
    assert_int_equal(value_get_int(&out, "errors", -1), 0);
    assert_int_equal(value_get_int(value_get(&out, "status"), "200", -1), 30);
    assert_int_equal(value_count(value_get(&out, "groups")), 3);
    assert_int_equal(value_get_int(value_path(&out, "groups.two"), "count", -1), 10);
    assert_true(value_get_real(value_path(&out, "groups.two.latency"), "p50", 0) > 0);
    assert_true(value_get_real(&out, "throughput", 0) > 0);
    assert_true(value_get_real(latency, "min", 9e9) > 0);
    assert_true(value_get_real(latency, "min", 9e9) <= value_get_real(latency, "p50", 0));
    assert_true(value_get_real(latency, "p50", 9e9) <= value_get_real(latency, "p99", 0));
    assert_true(value_get_real(latency, "p99", 9e9) <= value_get_real(latency, "max", 0));
}

static void test_failures(void **state)
{
    struct error err = {0};

    (void)state;
    {
        cleanup_value struct value out = {0};
        assert_int_equal(load("{\"path\":\"/status/503\",\"count\":8}", &out, &err), 0);
        assert_int_equal(value_get_int(&out, "errors", -1), 8);
        assert_int_equal(value_get_int(value_get(&out, "status"), "503", -1), 8);
        assert_int_equal(value_count(value_get(&out, "first_errors")), 5);
        assert_non_null(
            strstr(value_text(value_at(value_get(&out, "first_errors"), 0), ""), "503"));
        assert_int_equal(value_count(value_get(&out, "latency")), 0);
    }
    { /* half of the errors, then good replies again */
        cleanup_value struct value out = {0};
        assert_int_equal(load("{\"path\":\"/flaky/load/4/500\",\"count\":8}", &out, &err), 0);
        assert_int_equal(value_get_int(&out, "errors", -1), 4);
        assert_int_equal(value_get_int(value_get(&out, "status"), "200", -1), 4);
    }
    {
        cleanup_value struct value out = {0};
        assert_int_equal(
            load("{\"path\":\"/slow/20\",\"count\":2,\"request_timeout\":\"100ms\"}", &out, &err),
            0);
        assert_int_equal(value_get_int(value_get(&out, "status"), "timeout", -1), 2);
    }
    {
        cleanup_value struct value out = {0};
        assert_int_equal(load("{\"path\":\"/truncated/x\",\"count\":2}", &out, &err), 0);
        assert_int_equal(value_get_int(value_get(&out, "status"), "broken", -1), 2);
    }
    {
        cleanup_value struct value out = {0};
        assert_int_equal(
            load("{\"path\":\"/large/200000\",\"count\":2,\"max_reply\":1000}", &out, &err), 0);
        assert_int_equal(value_get_int(value_get(&out, "status"), "too_large", -1), 2);
    }
    {
        cleanup_value struct value out = {0};
        assert_int_equal(
            load("{\"path\":\"/status/500\",\"duration\":30,\"max_errors\":3}", &out, &err), 0);
        assert_in_range(value_get_int(&out, "errors", -1), 3, 7);
    }
}

static void test_rate_and_duration(void **state)
{
    cleanup_value struct value out = {0};
    struct error err = {0};

    (void)state;
    assert_int_equal(
        load("{\"path\":\"/ok\",\"duration\":\"600ms\",\"rate\":50,\"concurrency\":8}", &out, &err),
        0);
    /* 50 per second are 30; a slow machine sends fewer, none sends more */
    assert_in_range(value_get_int(&out, "count", -1), 1, 31);
    assert_int_equal(value_get_int(&out, "errors", -1), 0);
    assert_true(value_get_real(&out, "seconds", 0) >= 0.55);
}

static void test_bad_arguments(void **state)
{
    static const struct {
        const char *args, *message;
    } cases[] = {
        {"{\"path\":\"/ok\"}", "give a `duration` or a `count`"},
        {"{\"path\":\"ok\",\"count\":1}", "the path 'ok' must begin with '/'"},
        {"{\"path\":\"/ok\",\"count\":0}", "count is 0; it must be between 1"},
        {"{\"path\":\"/ok\",\"count\":1,\"concurrency\":5000}", "between 1 and 1024"},
        {"{\"path\":\"/ok\",\"count\":1,\"rate\":-1}", "rate is in requests per second"},
        {"{\"path\":\"/ok\",\"duration\":\"soon\"}", "duration"},
        {"{\"path\":\"/ok\",\"count\":1,\"bodies\":[\"a\",2]}", "bodies[2] must be a string"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        cleanup_value struct value out = {0};
        struct error err;
        assert_int_equal(load(cases[i].args, &out, &err), -1);
        if (!strstr(err.message, cases[i].message))
            fail_msg("'%s' does not say '%s'", err.message, cases[i].message);
    }
}

static void *raise_later(void *ctx)
{
    usleep(200000);
    cancel_raise(ctx);
    return NULL;
}

static void test_cancel_and_deadline(void **state)
{
    cleanup_value struct value out = {0};
    struct cancel cancel;
    struct error err;
    pthread_t thread;

    (void)state;
    assert_int_equal(cancel_init(&cancel), 0);
    assert_int_equal(pthread_create(&thread, NULL, raise_later, &cancel), 0);
    assert_int_equal(ask(prim_seldon_load, "seldon.load", &cancel, deadline_in(100 * NS_PER_S),
                         "{\"path\":\"/slow/50\",\"duration\":90,\"request_timeout\":60}", &out,
                         &err),
                     -1);
    assert_int_equal(err.code, ERR_CANCELLED);
    pthread_join(thread, NULL);
    cancel_end(&cancel);
    assert_int_equal(ask(prim_seldon_load, "seldon.load", NULL, deadline_in(NS_PER_S / 5),
                         "{\"path\":\"/slow/50\",\"duration\":90,\"request_timeout\":60}", &out,
                         &err),
                     -1);
    assert_int_equal(err.code, ERR_TIMEOUT);
}

static void test_permission(void **state)
{
    cleanup_value struct value out = {0};
    struct error err;

    (void)state;
    broker.deny_net = true;
    assert_int_equal(load("{\"path\":\"/ok\",\"count\":5}", &out, &err), -1);
    broker.deny_net = false;
    assert_int_equal(err.code, ERR_DENIED);
    assert_string_equal(err.service, "seldon");
}

static int request(const char *json, struct value *out, struct error *err)
{
    return ask(prim_seldon_request, "seldon.request", NULL, deadline_in(30 * NS_PER_S), json, out,
               err);
}

static void test_request(void **state)
{
    struct error err;

    (void)state;
    {
        cleanup_value struct value out = {0};
        cleanup_value struct value echo = {0};
        assert_int_equal(
            request("{\"method\":\"POST\",\"path\":\"/echo\",\"body\":{\"a\":[1]}}", &out, &err),
            0);
        const struct value *body = value_get(&out, "body");
        assert_int_equal(value_get_int(&out, "status", 0), 200);
        assert_int_equal(
            value_from_json(body->as.string.data, body->as.string.len, "echo", NULL, &echo, &err),
            0);
        assert_string_equal(value_get_string(&echo, "body", ""), "{\"a\":[1]}");
        assert_string_equal(value_get_string(value_get(&echo, "headers"), "content-type", ""),
                            "application/json");
    }
    { /* bytes, with NULs, arrive as they are; a header of the caller's wins */
        cleanup_value struct value out = {0};
        cleanup_value struct value echo = {0};
        assert_int_equal(request("{\"method\":\"POST\",\"path\":\"/echo\",\"body\":\"a\\u0000b\","
                                 "\"headers\":{\"Content-Type\":\"application/x-tensor\"}}",
                                 &out, &err),
                         0);
        const struct value *body = value_get(&out, "body");
        assert_int_equal(
            value_from_json(body->as.string.data, body->as.string.len, "echo", NULL, &echo, &err),
            0);
        assert_int_equal(value_get_int(&echo, "size", 0), 3);
        assert_string_equal(value_get_string(value_get(&echo, "headers"), "content-type", ""),
                            "application/x-tensor");
    }
    { /* a status is a reply, and nothing is sent twice */
        cleanup_value struct value out = {0};
        assert_int_equal(request("{\"method\":\"GET\",\"path\":\"/flaky/once/9/503\"}", &out, &err),
                         0);
        assert_int_equal(value_get_int(&out, "status", 0), 503);
        cleanup_value struct value seen = {0};
        assert_int_equal(request("{\"method\":\"GET\",\"path\":\"/seen/once\"}", &seen, &err), 0);
        assert_string_equal(value_get_string(&seen, "body", ""), "{\"count\": 1}");
    }
    {
        cleanup_value struct value out = {0};
        assert_int_equal(
            request("{\"method\":\"GET\",\"path\":\"/large/5000\",\"limit\":100}", &out, &err), -1);
        assert_int_equal(err.code, ERR_TOO_LARGE);
    }
}

static void test_nobody_there(void **state)
{
    const struct primitive row = {.sign = {.name = "seldon.connect"}, .data = "seldon"};
    struct call call = {.broker = &broker, .row = &row, .deadline = deadline_in(NS_PER_S)};
    cleanup_value struct value args = {0};
    cleanup_value struct value out = {0};
    struct value kept = client;
    struct error err = {0};

    (void)state;
    value_set_map(&args);
    value_put_string(&args, "endpoint", "http://127.0.0.1:1"); /* tcpmux: nobody has it */
    client = (struct value){0};
    assert_int_equal(prim_service_connect(&call, &args, &client, &err), 0);
    assert_int_equal(load("{\"path\":\"/ok\",\"count\":3}", &out, &err), 0);
    assert_int_equal(value_get_int(value_get(&out, "status"), "connect", -1), 3);
    value_free(&client);
    client = kept;
}

static int setup(void **state)
{
    const struct primitive row = {.sign = {.name = "seldon.connect"}, .data = "seldon"};
    struct call call = {.broker = &broker, .row = &row, .deadline = deadline_in(NS_PER_S)};
    cleanup_value struct value args = {0};
    char base[64];
    struct error err = {0};

    (void)state;
    unsetenv("http_proxy");
    unsetenv("all_proxy");
    unsetenv("SELDON_INGRESS");
    broker.profile = "local";
    broker.http = http_new(&err);
    if (!broker.http || fault_server_start() != 0)
        return -1;
    snprintf(base, sizeof(base), "http://127.0.0.1:%d", fault_port);
    value_set_map(&args);
    value_put_string(&args, "endpoint", base);
    return prim_service_connect(&call, &args, &client, &err);
}

static int teardown(void **state)
{
    (void)state;
    value_free(&client);
    broker_end(&broker);
    http_free(broker.http);
    fault_server_stop();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_histogram),     cmocka_unit_test(test_count),
        cmocka_unit_test(test_failures),      cmocka_unit_test(test_rate_and_duration),
        cmocka_unit_test(test_bad_arguments), cmocka_unit_test(test_cancel_and_deadline),
        cmocka_unit_test(test_permission),    cmocka_unit_test(test_request),
        cmocka_unit_test(test_nobody_there),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
