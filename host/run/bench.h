/*
 * A pipeline whose stages are tried one at a time, at the REPL: each as a run of its own, with the
 * outputs of what it needs from this session, else from the newest runs of the script.
 */
#ifndef MLHOST_RUN_BENCH_H
#define MLHOST_RUN_BENCH_H

#include "run/graph.h"
#include "run/plan.h"
#include "run/tally.h"

struct bench {
    const struct config *config;
    const char *script;        /* as the user gave it */
    const struct value *bound; /* the operator's, or NULL */
    const char *const *params; /* NAME=VALUE */
    size_t param_count;
    bool allow_degraded;
    bool loaded;
    struct plan plan;
    struct graph graph;
    struct value values; /* of the parameters */
    struct tally outputs;
    struct value origin; /* of each output: cell -> run id; "" for a run of this session */
};

/* (Again:) plans the script as it is now. Outputs are kept. On an error nothing is loaded. */
int bench_load(struct bench *bench, struct error *err);
/* The stages for people, with what is known of each. */
void bench_stages(const struct bench *bench, struct buf *out);
/* { stage = output }, of a matrix stage a map as in cx.needs. */
void bench_outputs(const struct bench *bench, struct value *out);
/* Runs a stage, or one cell of it, in a child process that has the terminal. *status as the
 * command's. ERR_USAGE for unknown names and for needs without an output. */
int bench_run(struct bench *bench, const char *name, bool debug, int *status, struct error *err);
void bench_free(struct bench *bench);

#endif
