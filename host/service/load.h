/* What a load has measured: counts, latencies, groups. */
#ifndef MLHOST_SERVICE_LOAD_H
#define MLHOST_SERVICE_LOAD_H

#include "service/load_histogram.h"
#include "service/rest.h"

#define LOAD_GROUPS 32 /* further values count as "(others)" */
#define LOAD_ERRORS 5

struct load_tally {
    uint64_t count, errors;
    struct histogram latency; /* of good replies, ns */
};

struct load_group {
    char *value;
    struct load_tally tally;
};

struct load_result {
    const char *group_by; /* a path in JSON replies, or NULL; the caller's */
    double seconds;
    struct load_tally all;
    struct value status; /* counts by name */
    struct load_group *groups[LOAD_GROUPS];
    size_t group_count;
    char *first_errors[LOAD_ERRORS];
    size_t error_count;
};

struct load_reply {
    const char *status; /* "200", or why there was no reply */
    bool good;
    int64_t latency;
    const struct buf *body; /* NULL without a reply */
    const char *problem;
};

/* A zeroed result is an empty one. */
void load_add(struct load_result *result, const struct load_reply *reply);
void load_report(const struct load_result *result, struct value *out);
void load_result_free(struct load_result *result);

#endif
