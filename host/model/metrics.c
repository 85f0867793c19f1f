#include "model/metrics.h"

#include <ctype.h>
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

/* The slot of a name, made when there is room; -1. */
static int slot(struct model_metrics *metrics, const char *key, int kind)
{
    for (int i = 0; i < METRICS_OWN; i++) {
        int free_ = 0;
        if (atomic_compare_exchange_strong(&metrics->own[i].state, &free_, 1)) {
            strncpy(metrics->own[i].key, key, sizeof metrics->own[i].key - 1);
            metrics->own[i].kind = kind;
            atomic_store(&metrics->own[i].state, 2);
            return i;
        }
        while (atomic_load(&metrics->own[i].state) == 1)
            continue; /* another worker writes the name: nanoseconds */
        if (strncmp(metrics->own[i].key, key, sizeof metrics->own[i].key - 1) == 0)
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
        if (kind == 'g')
            atomic_store(&metrics->own[at].value, amount);
        else
            add(&metrics->own[at].value, amount);
        atomic_fetch_add(&metrics->own[at].count, 1);
    }
}

static void print_route(const struct model_metrics *metrics, int route, const char *model,
                        struct buf *out)
{
    uint64_t total = 0;

    for (int code = 1; code < 6; code++) {
        uint64_t n = atomic_load(&metrics->routes[route].codes[code]);
        if (n)
            buf_printf(out,
                       "mlhost_model_requests_total{model=\"%s\",route=\"%s\",code=\"%dxx\"} "
                       "%llu\n",
                       model, names[route], code, (unsigned long long)n);
    }
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

static bool used(const struct model_metrics *metrics, int route)
{
    for (int i = 0; i <= METRICS_BUCKETS; i++) {
        if (atomic_load(&metrics->routes[route].buckets[i]))
            return true;
    }
    return false;
}

/* A metric's name takes letters, digits, '_' and ':'. */
static void print_name(const char *key, struct buf *out)
{
    if (isdigit((unsigned char)*key))
        buf_putc(out, '_');
    for (; *key; key++)
        buf_putc(out, isalnum((unsigned char)*key) || *key == ':' ? *key : '_');
}

void model_metrics_print(const struct model_metrics *metrics, const char *model, struct buf *out)
{
    buf_puts(out, "# HELP mlhost_model_requests_total Requests that were answered.\n"
                  "# TYPE mlhost_model_requests_total counter\n"
                  "# HELP mlhost_model_request_seconds Time from a request to its answer.\n"
                  "# TYPE mlhost_model_request_seconds histogram\n");
    for (int route = 0; route < ROUTE_COUNT; route++) {
        if (used(metrics, route))
            print_route(metrics, route, model, out);
    }
    buf_printf(out,
               "# TYPE mlhost_model_requests_in_flight gauge\n"
               "mlhost_model_requests_in_flight{model=\"%s\"} %llu\n"
               "# HELP mlhost_model_worker_restarts_total Workers that were replaced.\n"
               "# TYPE mlhost_model_worker_restarts_total counter\n"
               "mlhost_model_worker_restarts_total{model=\"%s\"} %llu\n",
               model, (unsigned long long)atomic_load(&metrics->in_flight), model,
               (unsigned long long)atomic_load(&metrics->restarts));
    for (int i = 0; i < METRICS_OWN && atomic_load(&metrics->own[i].state) == 2; i++) {
        cleanup_buf struct buf name = BUF_INIT;
        double value = atomic_load(&metrics->own[i].value);
        print_name(metrics->own[i].key, &name);
        if (metrics->own[i].kind == 't') /* milliseconds */
            buf_printf(out,
                       "# TYPE %s_seconds summary\n%s_seconds_sum{model=\"%s\"} %.9g\n"
                       "%s_seconds_count{model=\"%s\"} %llu\n",
                       name.data, name.data, model, value / 1000, name.data, model,
                       (unsigned long long)atomic_load(&metrics->own[i].count));
        else
            buf_printf(out, "# TYPE %s %s\n%s{model=\"%s\"} %.17g\n", name.data,
                       metrics->own[i].kind == 'g' ? "gauge" : "counter", name.data, model, value);
    }
}
