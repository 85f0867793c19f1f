#include "local/seldon_metrics.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

#define SERIES_MAX 4096 /* more are not kept: labels come from deployments, which are few */

static const double bounds[] = {.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10};
#define BOUNDS (sizeof bounds / sizeof *bounds)

enum kind { SERVER, CLIENT, DROPPED, KINDS };

struct series {
    enum kind kind;
    char *deployment; /* "namespace/name" */
    char *labels;
    uint64_t buckets[BOUNDS], count;
    double sum;
};

static struct {
    pthread_mutex_t lock;
    struct series *items;
    size_t count;
} all = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void observe(enum kind kind, const struct seldon_deployment *deployment, const char *labels,
                    double seconds)
{
    cleanup_free char *key = mem_printf("%s/%s", deployment->namespace, deployment->name);
    struct series *found = NULL;

    pthread_mutex_lock(&all.lock);
    for (size_t i = 0; i < all.count && !found; i++) {
        struct series *one = &all.items[i];
        if (one->kind == kind && strcmp(one->labels, labels) == 0 &&
            strcmp(one->deployment, key) == 0)
            found = one;
    }
    if (!found && all.count < SERIES_MAX) {
        all.items = mem_array(all.items, all.count + 1, sizeof *all.items);
        found = &all.items[all.count++];
        *found = (struct series){
            .kind = kind, .deployment = mem_strdup(key), .labels = mem_strdup(labels)};
    }
    if (found) {
        found->count++;
        found->sum += seconds;
        for (size_t i = 0; i < BOUNDS; i++)
            found->buckets[i] += seconds <= bounds[i];
    }
    pthread_mutex_unlock(&all.lock);
}

/* name="text", with what Prometheus wants escaped. */
static void label(struct buf *out, const char *name, const char *text)
{
    buf_printf(out, "%s%s=\"", out->len ? "," : "", name);
    for (; *text; text++) {
        if (*text == '\n') {
            buf_puts(out, "\\n");
            continue;
        }
        if (*text == '"' || *text == '\\')
            buf_putc(out, '\\');
        buf_putc(out, *text);
    }
    buf_putc(out, '"');
}

static void common(struct buf *out, const struct seldon_deployment *deployment,
                   const struct seldon_predictor *predictor, const char *service, int code)
{
    cleanup_free char *number = mem_printf("%d", code);

    label(out, "code", number);
    label(out, "deployment_name", deployment->name);
    label(out, "namespace", deployment->namespace);
    label(out, "predictor_name", predictor->name);
    label(out, "service", service);
}

void seldon_metrics_server(const struct seldon_deployment *deployment,
                           const struct seldon_predictor *predictor, const char *service,
                           const char *method, int code, int64_t ns)
{
    cleanup_buf struct buf labels = BUF_INIT;

    common(&labels, deployment, predictor, service, code);
    label(&labels, "method", method);
    observe(SERVER, deployment, labels.data, (double)ns / 1e9);
}

void seldon_metrics_client(const struct seldon_call *call, const struct seldon_node *node,
                           const char *service, int code, int64_t ns)
{
    cleanup_buf struct buf labels = BUF_INIT;

    common(&labels, call->deployment, call->predictor, service, code);
    label(&labels, "method", "post");
    label(&labels, "model_name", node->name);
    label(&labels, "model_image", node->image);
    observe(CLIENT, call->deployment, labels.data, (double)ns / 1e9);
}

void seldon_metrics_dropped(const struct seldon_deployment *deployment,
                            const struct seldon_predictor *predictor)
{
    cleanup_buf struct buf labels = BUF_INIT;

    label(&labels, "deployment_name", deployment->name);
    label(&labels, "predictor_name", predictor->name);
    observe(DROPPED, deployment, labels.data, 0);
}

static void print_one(const struct series *one, const char *name, struct buf *out)
{
    if (one->kind == DROPPED) {
        buf_printf(out, "%s{%s} %llu\n", name, one->labels, (unsigned long long)one->count);
        return;
    }
    for (size_t i = 0; i < BOUNDS; i++)
        buf_printf(out, "%s_bucket{%s,le=\"%g\"} %llu\n", name, one->labels, bounds[i],
                   (unsigned long long)one->buckets[i]);
    buf_printf(out, "%s_bucket{%s,le=\"+Inf\"} %llu\n", name, one->labels,
               (unsigned long long)one->count);
    buf_printf(out, "%s_sum{%s} %.9g\n", name, one->labels, one->sum);
    buf_printf(out, "%s_count{%s} %llu\n", name, one->labels, (unsigned long long)one->count);
}

void seldon_metrics_print(const char *namespace, const char *name, struct buf *out)
{
    static const struct {
        const char *name, *type, *help;
    } kinds[KINDS] = {
        {"seldon_api_executor_server_requests_seconds", "histogram",
         "A histogram of latencies for executor server"},
        {"seldon_api_executor_client_requests_seconds", "histogram",
         "A histogram of latencies for client calls from executor"},
        {"mlhost_shadow_dropped_total", "counter",
         "Copies for a shadow that were not made, since it is too slow"},
    };
    cleanup_free char *key = mem_printf("%s/%s", namespace, name);

    pthread_mutex_lock(&all.lock);
    for (int kind = 0; kind < KINDS; kind++) {
        buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", kinds[kind].name, kinds[kind].help,
                   kinds[kind].name, kinds[kind].type);
        for (size_t i = 0; i < all.count; i++) {
            if ((int)all.items[i].kind == kind && strcmp(all.items[i].deployment, key) == 0)
                print_one(&all.items[i], kinds[kind].name, out);
        }
    }
    pthread_mutex_unlock(&all.lock);
}

void seldon_metrics_free(void)
{
    pthread_mutex_lock(&all.lock);
    for (size_t i = 0; i < all.count; i++) {
        free(all.items[i].deployment);
        free(all.items[i].labels);
    }
    free(all.items);
    all.items = NULL;
    all.count = 0;
    pthread_mutex_unlock(&all.lock);
}
