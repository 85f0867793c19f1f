/*
 * What a model server counts, in memory that its workers share: requests by route and status,
 * their latency, and the numbers that the script itself reports. Written by atomic operations, read
 * as Prometheus text (exposition format 0.0.4).
 */
#ifndef MLHOST_MODEL_METRICS_H
#define MLHOST_MODEL_METRICS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/value.h"

#define METRICS_BUCKETS 14 /* and +Inf */
#define METRICS_OWN     64 /* names that a script may have */

enum model_route {
    ROUTE_PREDICT,
    ROUTE_TRANSFORM_INPUT,
    ROUTE_TRANSFORM_OUTPUT,
    ROUTE_ROUTE,
    ROUTE_AGGREGATE,
    ROUTE_FEEDBACK,
    ROUTE_EXPLAIN,
    ROUTE_METADATA,
    ROUTE_OTHER,
    ROUTE_COUNT
};

struct model_metrics {
    struct {
        atomic_uint_fast64_t codes[6]; /* by the status's first digit */
        atomic_uint_fast64_t buckets[METRICS_BUCKETS + 1];
        atomic_uint_fast64_t sum_ns;
    } routes[ROUTE_COUNT];
    atomic_uint_fast64_t in_flight, restarts;
    atomic_bool unloaded; /* by the repository API: the model counts as not ready */
    struct {
        _Atomic int state; /* 0 free, 1 being named, 2 in use */
        char name[64];     /* as it is exposed */
        int kind;          /* 'g' 't', else a counter; that of the first report */
        _Atomic double value;
        atomic_uint_fast64_t count; /* of a timer */
    } own[METRICS_OWN];
};

void model_metrics_count(struct model_metrics *metrics, enum model_route route, int status,
                         int64_t took_ns);
/* A list of { key, type = COUNTER | GAUGE | TIMER (ms), value }, as SeldonMessage.meta.metrics.
 * Keys become names of Prometheus; those that are written alike are one metric, those that begin
 * with mlhost_model_ get a '_' in front. */
void model_metrics_own(struct model_metrics *metrics, const struct value *list);
void model_metrics_print(const struct model_metrics *metrics, const char *model, struct buf *out);

#endif
