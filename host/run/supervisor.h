/*
 * One run: one loop, no Lua. Starts the stages whose needs are met, hands outputs on, keeps the
 * deadlines, writes the journal before it acts, and ends everything it started.
 *
 * When a stage fails: what needs it is blocked; other stages that run go on; new ones start only
 * with keep_going. A skipped stage (its `when` said no) satisfies needs, without an output.
 */
#ifndef MLHOST_RUN_SUPERVISOR_H
#define MLHOST_RUN_SUPERVISOR_H

#include "run/graph.h"
#include "run/journal.h"
#include "run/plan.h"
#include "run/render.h"

struct run_options {
    const struct config *config;
    struct loop *loop;
    const struct plan *plan;
    const struct graph *graph;
    const struct value *params; /* resolved */
    const struct value *bound;  /* operator's bound, or NULL */
    const char *id, *dir;       /* of the run; the folder exists */
    int lock;                   /* of run_lock */
    struct tally *tally;        /* empty, or filled from the journal of a run that goes on */
    bool resumed;
    int64_t seq;              /* of the last event in the journal of a run that goes on */
    const struct tally *from; /* with only: whose outputs the needs get */
    const char *only;         /* a stage or cell, or NULL */
    uint64_t memory_limit;    /* of each Lua heap, bytes; 0: the default */
    int jobs;
    int64_t timeout_ns;         /* of the whole run; 0: the pipeline's own */
    const char *const *approve; /* names of approvals that are given, or "all" */
    int approve_count;
    bool keep_going, allow_degraded, no_tape;
    bool debug; /* stages stop in the debugger; debugger_possible has said yes */
    struct renderer *renderer;
    const char *junit, *summary; /* further copies of the reports, or NULL */
    const char *warning;         /* said first, or NULL */
};

/* The run's exit status in *status; -1 when the host itself failed (journal not writable ...). */
int run_supervise(const struct run_options *options, int *status, struct error *err);

#endif
