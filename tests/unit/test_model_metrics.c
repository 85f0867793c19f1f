/* The numbers of a model server: what is counted, and that what is printed is the exposition
 * format, whatever a script calls its own numbers. */
#include "check.h"

#include <ctype.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/mem.h"
#include "model/metrics.h"

static struct model_metrics *metrics;
static struct buf text;

static int begin(void **state)
{
    (void)state;
    metrics = mem_alloc(sizeof *metrics);
    memset(metrics, 0, sizeof *metrics);
    return 0;
}

static int end(void **state)
{
    (void)state;
    free(metrics);
    buf_free(&text);
    return 0;
}

static const char *printed(const char *model)
{
    buf_clear(&text);
    model_metrics_print(metrics, model, &text);
    buf_putc(&text, '\0');
    return text.data;
}

static void own(const char *json)
{
    cleanup_value struct value list = {0};
    struct error err = {0};

    ok(value_from_json(json, strlen(json), "test", NULL, &list, &err), err);
    model_metrics_own(metrics, &list);
}

static int lines_with(const char *all, const char *part)
{
    int n = 0;

    for (const char *at = all; (at = strstr(at, part)); at += strlen(part))
        n++;
    return n;
}

/* ---- the exposition format (0.0.4), as a strict scraper reads it: each family is one group,
 * declared once, before its samples; no sample comes twice ---- */

enum { MOST = 512, WIDTH = 512 };

struct scrape {
    char families[MOST][128], kinds[MOST][16], samples[MOST][WIDTH];
    int families_len, samples_len;
    char current[128];
};

static bool of_family(const char *name, size_t len, const char *family, const char *kind)
{
    static const char *const suffixes[] = {"_bucket", "_sum", "_count"};
    size_t base = strlen(family);
    int from = strcmp(kind, "histogram") == 0 ? 0 : strcmp(kind, "summary") == 0 ? 1 : 3;

    if (len < base || strncmp(name, family, base) != 0)
        return false;
    for (int i = from; i < 3; i++) {
        if (len - base == strlen(suffixes[i]) && strncmp(name + base, suffixes[i], len - base) == 0)
            return true;
    }
    return len == base && strcmp(kind, "histogram") != 0;
}

static void read_declaration(struct scrape *s, const char *line)
{
    char name[128], kind[16];

    if (sscanf(line, "# HELP %127s", name) == 1) {
        for (int i = 0; i < s->families_len; i++)
            assert_string_not_equal(s->families[i], name);
        return;
    }
    assert_int_equal(sscanf(line, "# TYPE %127s %15s", name, kind), 2);
    for (int i = 0; i < s->families_len; i++) {
        if (strcmp(s->families[i], name) == 0)
            fail_msg("%s is declared twice", name);
    }
    assert_true(s->families_len < MOST);
    memcpy(s->families[s->families_len], name, sizeof name);
    memcpy(s->kinds[s->families_len++], kind, sizeof kind);
}

/* The labels up to the closing brace; quotes, backslashes and newlines in values are escaped. */
static const char *read_labels(const char *at, const char *line)
{
    for (at++; *at != '}';) {
        size_t name = strcspn(at, "=");
        if (at[name] != '=' || at[name + 1] != '"')
            fail_msg("labels of '%s'", line);
        for (at += name + 2; *at != '"'; at++) {
            if (*at == '\\' && !strchr("\\\"n", *++at))
                fail_msg("an escape of '%s'", line);
            if (!*at)
                fail_msg("a label's end in '%s'", line);
        }
        if (*++at == ',')
            at++;
        else if (*at != '}')
            fail_msg("labels of '%s'", line);
    }
    return at + 1;
}

static void read_sample(struct scrape *s, const char *line)
{
    size_t len = 0;
    char *rest;

    if (!isalpha((unsigned char)*line) && *line != '_' && *line != ':')
        fail_msg("no name of a metric: '%s'", line);
    while (isalnum((unsigned char)line[len]) || line[len] == '_' || line[len] == ':')
        len++;
    const char *at = line[len] == '{' ? read_labels(line + len, line) : line + len;
    if (*at != ' ')
        fail_msg("no value in '%s'", line);
    size_t key = (size_t)(at - line);
    if (strcmp(at + 1, "NaN") != 0 && strcmp(at + 1, "+Inf") != 0 && strcmp(at + 1, "-Inf") != 0) {
        if (!isdigit((unsigned char)at[1]) && at[1] != '-')
            fail_msg("no number in '%s'", line);
        (void)strtod(at + 1, &rest);
        if (*rest)
            fail_msg("no number in '%s'", line);
    }
    int last = s->families_len - 1;
    if (last < 0 || !of_family(line, len, s->families[last], s->kinds[last]))
        fail_msg("'%s' is not in the group of its family", line);
    assert_true(key < WIDTH && s->samples_len < MOST);
    for (int i = 0; i < s->samples_len; i++) {
        if (strlen(s->samples[i]) == key && strncmp(s->samples[i], line, key) == 0)
            fail_msg("'%s' comes twice", line);
    }
    memcpy(s->samples[s->samples_len], line, key);
    s->samples[s->samples_len++][key] = '\0';
}

static void scrape(const char *page)
{
    struct scrape *s = mem_alloc(sizeof *s);
    cleanup_free char *copy = mem_strdup(page);
    char *rest = copy;

    memset(s, 0, sizeof *s);
    assert_true(*page && page[strlen(page) - 1] == '\n');
    for (char *line; (line = strsep(&rest, "\n"));) {
        if (*line == '#')
            read_declaration(s, line);
        else if (*line)
            read_sample(s, line);
    }
    free(s);
}

/* ---- */

static void nothing_yet(void **state)
{
    (void)state;
    scrape(printed("digits"));
    holds(text.data, "mlhost_model_requests_in_flight{model=\"digits\"} 0\n");
    holds(text.data, "mlhost_model_worker_restarts_total{model=\"digits\"} 0\n");
    assert_null(strstr(text.data, "route="));
}

static void requests(void **state)
{
    (void)state;
    model_metrics_count(metrics, ROUTE_PREDICT, 200, 100 * 1000);     /* 0.1 ms: the first bound */
    model_metrics_count(metrics, ROUTE_PREDICT, 201, 100 * 1000 + 1); /* just above it */
    model_metrics_count(metrics, ROUTE_PREDICT, 400, 3 * NS_PER_MS);  /* in 5 ms */
    model_metrics_count(metrics, ROUTE_PREDICT, 503, 5 * NS_PER_S);   /* the last bound */
    model_metrics_count(metrics, ROUTE_PREDICT, 500, 5 * NS_PER_S + 1000); /* only in +Inf */
    model_metrics_count(metrics, ROUTE_OTHER, 404, 1);
    metrics->in_flight = 3;
    metrics->restarts = 2;
    scrape(printed("digits"));
#define PREDICT "{model=\"digits\",route=\"predict\","
    holds(text.data, "mlhost_model_requests_total" PREDICT "code=\"2xx\"} 2\n");
    holds(text.data, "mlhost_model_requests_total" PREDICT "code=\"4xx\"} 1\n");
    holds(text.data, "mlhost_model_requests_total" PREDICT "code=\"5xx\"} 2\n");
    assert_null(strstr(text.data, "code=\"3xx\""));
    holds(text.data, "mlhost_model_request_seconds_bucket" PREDICT "le=\"0.0001\"} 1\n");
    holds(text.data, "mlhost_model_request_seconds_bucket" PREDICT "le=\"0.00025\"} 2\n");
    holds(text.data, "mlhost_model_request_seconds_bucket" PREDICT "le=\"0.0025\"} 2\n");
    holds(text.data, "mlhost_model_request_seconds_bucket" PREDICT "le=\"0.005\"} 3\n");
    holds(text.data, "mlhost_model_request_seconds_bucket" PREDICT "le=\"1\"} 3\n");
    holds(text.data, "mlhost_model_request_seconds_bucket" PREDICT "le=\"5\"} 4\n");
    holds(text.data, "mlhost_model_request_seconds_bucket" PREDICT "le=\"+Inf\"} 5\n");
    holds(text.data, "mlhost_model_request_seconds_count{model=\"digits\",route=\"predict\"} 5\n");
    holds(text.data,
          "mlhost_model_request_seconds_sum{model=\"digits\",route=\"predict\"} 10.003201001\n");
    holds(text.data,
          "mlhost_model_requests_total{model=\"digits\",route=\"other\",code=\"4xx\"} 1\n");
    holds(text.data, "mlhost_model_requests_in_flight{model=\"digits\"} 3\n");
    holds(text.data, "mlhost_model_worker_restarts_total{model=\"digits\"} 2\n");
    assert_null(strstr(text.data, "route=\"feedback\""));
}

static void every_route(void **state)
{
    (void)state;
    for (int route = 0; route < ROUTE_COUNT; route++)
        model_metrics_count(metrics, (enum model_route)route, 200 + 100 * (route % 4), NS_PER_MS);
    scrape(printed("digits"));
    assert_int_equal(lines_with(text.data, "mlhost_model_request_seconds_count{"), ROUTE_COUNT);
    assert_int_equal(lines_with(text.data, "mlhost_model_requests_total{"), ROUTE_COUNT);
}

static void a_scripts_own(void **state)
{
    (void)state;
    own("[{\"key\":\"rows\",\"type\":\"COUNTER\",\"value\":3},{\"key\":\"rows\",\"type\":"
        "\"COUNTER\",\"value\":4},"
        "{\"key\":\"drift\",\"type\":\"GAUGE\",\"value\":0.5},{\"key\":\"drift\",\"type\":"
        "\"GAUGE\",\"value\":0.25},"
        "{\"key\":\"took\",\"type\":\"TIMER\",\"value\":250},{\"key\":\"took\",\"type\":\"TIMER\","
        "\"value\":500},"
        "{\"key\":\"plain\",\"value\":1}]");
    scrape(printed("digits"));
    holds(text.data, "# TYPE rows counter\nrows{model=\"digits\"} 7\n");
    holds(text.data, "# TYPE drift gauge\ndrift{model=\"digits\"} 0.25\n");
    holds(text.data, "# TYPE took_seconds summary\ntook_seconds_sum{model=\"digits\"} 0.75\n"
                     "took_seconds_count{model=\"digits\"} 2\n");
    holds(text.data, "# TYPE plain counter\nplain{model=\"digits\"} 1\n");
}

static void what_is_no_metric(void **state)
{
    (void)state;
    own("[7,null,\"x\",{},{\"key\":\"\",\"value\":1},{\"key\":7,\"value\":1},{\"value\":1},"
        "{\"key\":\"fine\",\"value\":1}]");
    own("{\"key\":\"no_list\",\"value\":1}");
    own("\"text\"");
    scrape(printed("digits"));
    holds(text.data, "fine{model=\"digits\"} 1\n");
    assert_int_equal(lines_with(text.data, "# TYPE"), 5);
}

static void odd_names(void **state)
{
    (void)state;
    own("[{\"key\":\"9 "
        "lives\",\"value\":1},{\"key\":\"a:b\",\"value\":2},{\"key\":\"k\\u00e4se\\n# TYPE "
        "x\",\"value\":3}]");
    scrape(printed("digits"));
    holds(text.data, "_9_lives{model=\"digits\"} 1\n");
    holds(text.data, "a:b{model=\"digits\"} 2\n");
    scrape(printed("a \"name\" with \\ and \n in it"));
    holds(text.data, "{model=\"a \\\"name\\\" with \\\\ and \\n in it\"}");
}

/* Different texts that are written alike are the same metric. */
static void alike_names(void **state)
{
    (void)state;
    own("[{\"key\":\"a.b\",\"value\":1},{\"key\":\"a-b\",\"value\":2},{\"key\":\"a_b\",\"value\":4}"
        "]");
    own("[{\"key\":\"took\",\"type\":\"TIMER\",\"value\":100},{\"key\":\"took_seconds\",\"value\":"
        "5}]");
    scrape(printed("digits"));
    holds(text.data, "a_b{model=\"digits\"} 7\n");
}

/* What a name was first, it stays. */
static void one_kind_per_name(void **state)
{
    (void)state;
    own("[{\"key\":\"n\",\"type\":\"COUNTER\",\"value\":3},{\"key\":\"n\",\"type\":\"GAUGE\","
        "\"value\":1}]");
    own("[{\"key\":\"odd\",\"type\":\"HISTOGRAM\",\"value\":3}]");
    scrape(printed("digits"));
    holds(text.data, "# TYPE n counter\nn{model=\"digits\"} 4\n");
    holds(text.data, "# TYPE odd counter\nodd{model=\"digits\"} 3\n");
}

static void the_servers_names_are_not_a_scripts(void **state)
{
    (void)state;
    own("[{\"key\":\"mlhost_model_requests_total\",\"value\":1000},"
        "{\"key\":\"mlhost.model.request\",\"type\":\"TIMER\",\"value\":1000}]");
    model_metrics_count(metrics, ROUTE_PREDICT, 200, 1);
    scrape(printed("digits"));
    holds(text.data,
          "\nmlhost_model_requests_total{model=\"digits\",route=\"predict\",code=\"2xx\"} 1\n");
    holds(text.data, "\n_mlhost_model_requests_total{model=\"digits\"} 1000\n");
    holds(text.data, "\n_mlhost_model_request_seconds_sum{model=\"digits\"} 1\n");
}

static void no_finite_numbers(void **state)
{
    static const struct {
        const char *key, *shown;
        double value;
    } odd[] = {{"none", "none{model=\"m\"} NaN\n", (double)NAN},
               {"most", "most{model=\"m\"} +Inf\n", (double)INFINITY},
               {"least", "least{model=\"m\"} -Inf\n", -(double)INFINITY}};

    (void)state;
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        cleanup_value struct value list = {0};
        value_set_array(&list);
        struct value *item = value_push(&list);
        value_set_map(item);
        value_put_string(item, "key", odd[i].key);
        value_put_string(item, "type", "GAUGE");
        value_set_real(value_put(item, "value"), odd[i].value);
        model_metrics_own(metrics, &list);
        scrape(printed("m"));
        holds(text.data, odd[i].shown);
    }
}

static void no_more_than_fit(void **state)
{
    char json[512], longest[100];

    (void)state;
    for (int i = 0; i < METRICS_OWN + 10; i++) {
        snprintf(json, sizeof json, "[{\"key\":\"m%d\",\"value\":1}]", i);
        own(json);
    }
    own("[{\"key\":\"m0\",\"value\":1}]"); /* those that are there go on */
    scrape(printed("digits"));
    holds(text.data, "\nm0{model=\"digits\"} 2\n");
    assert_int_equal(lines_with(text.data, "# TYPE m"), METRICS_OWN + 4);

    memset(metrics, 0, sizeof *metrics);
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    snprintf(json, sizeof json, "[{\"key\":\"%s\",\"value\":1},{\"key\":\"%s\",\"value\":1}]",
             longest, longest);
    own(json);
    scrape(printed("digits"));
    assert_int_equal(lines_with(text.data, "# TYPE x"), 1);
}

enum { THREADS = 4, ROUNDS = 2000 };

static void *count(void *arg)
{
    cleanup_value struct value list = {0};
    struct error err = {0};
    const char *json = "[{\"key\":\"rows\",\"value\":1},{\"key\":\"more\",\"value\":2}]";

    (void)arg;
    if (value_from_json(json, strlen(json), "test", NULL, &list, &err) < 0)
        return NULL;
    for (int i = 0; i < ROUNDS; i++) {
        model_metrics_count(metrics, ROUTE_PREDICT, 200, NS_PER_MS);
        model_metrics_own(metrics, &list);
    }
    return NULL;
}

static void workers_share_them(void **state)
{
    pthread_t threads[THREADS];

    (void)state;
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, count, NULL), 0);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    scrape(printed("digits"));
    holds(text.data, "\nrows{model=\"digits\"} 8000\n");
    holds(text.data, "\nmore{model=\"digits\"} 16000\n");
    holds(text.data,
          "mlhost_model_request_seconds_count{model=\"digits\",route=\"predict\"} 8000\n");
    holds(text.data,
          "mlhost_model_request_seconds_sum{model=\"digits\",route=\"predict\"} 8.000000000\n");
}

#define one(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        one(nothing_yet),       one(requests),          one(every_route),
        one(a_scripts_own),     one(what_is_no_metric), one(odd_names),
        one(alike_names),       one(one_kind_per_name), one(the_servers_names_are_not_a_scripts),
        one(no_finite_numbers), one(no_more_than_fit),  one(workers_share_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
