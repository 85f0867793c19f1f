#include "model/metrics.h"

#include <ctype.h>
#include <math.h>
#include <string.h>

#include "base/clock.h"

static const double bounds[METRICS_BUCKETS] = {0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01,
                                               0.025,  0.05,    0.1,    0.25,  0.5,    1,     5};
static const char *const names[ROUTE_COUNT] = {"predict", "transform-input", "transform-output",
                                               "route",   "aggregate",       "feedback",
                                               "explain", "metadata",        "other"};

void model_metrics_count(struct model_metrics *metrics, enum model_route route, int status,
                         int64_t took_ns)
{
    double seconds = (double)took_ns / (double)NS_PER_S;
    int bucket = 0;

    while (bucket < METRICS_BUCKETS && seconds > bounds[bucket])
        bucket++;
    atomic_fetch_add(&metrics->routes[route].codes[status / 100 % 6], 1);
    atomic_fetch_add(&metrics->routes[route].buckets[bucket], 1);
    atomic_fetch_add(&metrics->routes[route].sum_ns, (uint_fast64_t)took_ns);
}

static void add(_Atomic double *to, double amount)
{
    double old = atomic_load(to);

    while (!atomic_compare_exchange_weak(to, &old, old + amount))
        continue;
}

#define RESERVED "mlhost_model_"

/* A script's name as it is exposed: of letters, digits, '_' and ':', timers in seconds. Names that
 * are written alike are one metric; those of the server are not a script's. */
static void exposed(const char *key, int kind, char *out, size_t size)
{
    static const char seconds[] = "_seconds";
    size_t len = 0, room = size - 1 - (kind == 't' ? sizeof seconds - 1 : 0);

    if (isdigit((unsigned char)*key))
        out[len++] = '_';
    for (; *key && len < room; key++)
        out[len++] = *key;
    for (size_t i = 0; i < len; i++) {
        if (!isalnum((unsigned char)out[i]) && out[i] != ':')
            out[i] = '_';
    }
    out[len] = '\0';
    if (strncmp(out, RESERVED, sizeof RESERVED - 1) == 0) {
        len = len < room ? len : room - 1;
        memmove(out + 1, out, len);
        out[0] = '_';
        out[++len] = '\0';
    }
    if (kind == 't')
        memcpy(out + len, seconds, sizeof seconds);
}

/* The slot of a name, made when there is room; -1. */
static int slot(struct model_metrics *metrics, const char *key, int kind)
{
    char name[sizeof metrics->own[0].name];

    exposed(key, kind, name, sizeof name);
    for (int i = 0; i < METRICS_OWN; i++) {
        int free_ = 0;
        if (atomic_compare_exchange_strong(&metrics->own[i].state, &free_, 1)) {
            memcpy(metrics->own[i].name, name, sizeof name);
            metrics->own[i].kind = kind;
            atomic_store(&metrics->own[i].state, 2);
            return i;
        }
        while (atomic_load(&metrics->own[i].state) == 1)
            continue; /* another worker writes the name: nanoseconds */
        if (strcmp(metrics->own[i].name, name) == 0)
            return i;
    }
    return -1;
}

void model_metrics_own(struct model_metrics *metrics, const struct value *list)
{
    for (size_t i = 0; i < value_count(list); i++) {
        const struct value *one = value_at(list, i), *v = value_get(one, "value");
        const char *key = value_get_string(one, "key", NULL);
        int kind = tolower((unsigned char)*value_get_string(one, "type", "COUNTER"));
        double amount = v && v->kind == VALUE_INT    ? (double)v->as.integer
                        : v && v->kind == VALUE_REAL ? v->as.real
                                                     : 0;
        int at = key && *key ? slot(metrics, key, kind) : -1;
        if (at < 0)
            continue;
        if (metrics->own[at].kind == 'g')
            atomic_store(&metrics->own[at].value, amount);
        else
            add(&metrics->own[at].value, amount);
        atomic_fetch_add(&metrics->own[at].count, 1);
    }
}

static void print_codes(const struct model_metrics *metrics, int route, const char *model,
                        struct buf *out)
{
    for (int code = 1; code < 6; code++) {
        uint64_t n = atomic_load(&metrics->routes[route].codes[code]);
        if (n)
            buf_printf(out,
                       "mlhost_model_requests_total{model=\"%s\",route=\"%s\",code=\"%dxx\"} "
                       "%llu\n",
                       model, names[route], code, (unsigned long long)n);
    }
}

static void print_times(const struct model_metrics *metrics, int route, const char *model,
                        struct buf *out)
{
    uint64_t total = 0;

    for (int i = 0; i <= METRICS_BUCKETS; i++)
        total += atomic_load(&metrics->routes[route].buckets[i]);
    if (!total)
        return;
    total = 0;
    for (int i = 0; i <= METRICS_BUCKETS; i++) {
        total += atomic_load(&metrics->routes[route].buckets[i]);
        buf_printf(out, "mlhost_model_request_seconds_bucket{model=\"%s\",route=\"%s\",le=\"",
                   model, names[route]);
        if (i < METRICS_BUCKETS)
            buf_printf(out, "%g", bounds[i]);
        else
            buf_puts(out, "+Inf");
        buf_printf(out, "\"} %llu\n", (unsigned long long)total);
    }
    buf_printf(out, "mlhost_model_request_seconds_sum{model=\"%s\",route=\"%s\"} %.9f\n", model,
               names[route],
               (double)atomic_load(&metrics->routes[route].sum_ns) / (double)NS_PER_S);
    buf_printf(out, "mlhost_model_request_seconds_count{model=\"%s\",route=\"%s\"} %llu\n", model,
               names[route], (unsigned long long)total);
}

static void print_own(const struct model_metrics *metrics, int at, const char *model,
                      struct buf *out)
{
    const char *name = metrics->own[at].name;
    int kind = metrics->own[at].kind;
    bool timer = kind == 't'; /* milliseconds */
    double value = atomic_load(&metrics->own[at].value);

    buf_printf(out, "# TYPE %s %s\n%s%s{model=\"%s\"} ", name,
               timer         ? "summary"
               : kind == 'g' ? "gauge"
                             : "counter",
               name, timer ? "_sum" : "", model);
    if (isnan(value))
        buf_puts(out, "NaN\n");
    else if (isinf(value))
        buf_puts(out, value > 0 ? "+Inf\n" : "-Inf\n");
    else if (timer)
        buf_printf(out, "%.9g\n", value / 1000);
    else
        buf_printf(out, "%.17g\n", value);
    if (timer)
        buf_printf(out, "%s_count{model=\"%s\"} %llu\n", name, model,
                   (unsigned long long)atomic_load(&metrics->own[at].count));
}

static void escape(const char *label, struct buf *out)
{
    buf_puts(out, "");
    for (; *label; label++) {
        if (*label == '\n')
            buf_puts(out, "\\n");
        else if (*label == '"' || *label == '\\')
            buf_printf(out, "\\%c", *label);
        else
            buf_putc(out, *label);
    }
}

/* Each family is one group. */
void model_metrics_print(const struct model_metrics *metrics, const char *name, struct buf *out)
{
    cleanup_buf struct buf escaped = BUF_INIT;

    escape(name, &escaped);
    const char *model = escaped.data;
    buf_puts(out, "# HELP mlhost_model_requests_total Requests that were answered.\n"
                  "# TYPE mlhost_model_requests_total counter\n");
    for (int route = 0; route < ROUTE_COUNT; route++)
        print_codes(metrics, route, model, out);
    buf_puts(out, "# HELP mlhost_model_request_seconds Time from a request to its answer.\n"
                  "# TYPE mlhost_model_request_seconds histogram\n");
    for (int route = 0; route < ROUTE_COUNT; route++)
        print_times(metrics, route, model, out);
    buf_printf(out,
               "# TYPE mlhost_model_requests_in_flight gauge\n"
               "mlhost_model_requests_in_flight{model=\"%s\"} %llu\n"
               "# HELP mlhost_model_worker_restarts_total Workers that were replaced.\n"
               "# TYPE mlhost_model_worker_restarts_total counter\n"
               "mlhost_model_worker_restarts_total{model=\"%s\"} %llu\n",
               model, (unsigned long long)atomic_load(&metrics->in_flight), model,
               (unsigned long long)atomic_load(&metrics->restarts));
    for (int i = 0; i < METRICS_OWN && atomic_load(&metrics->own[i].state) == 2; i++)
        print_own(metrics, i, model, out);
}
