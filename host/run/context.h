/* What a stage gets as `cx`. */
#ifndef MLHOST_RUN_CONTEXT_H
#define MLHOST_RUN_CONTEXT_H

#include "run/supervisor.h"

/*
 * { params, matrix, needs, attempt, run_id, stage, cell, pipeline, workspace, profile, env,
 * resumed, effects }. needs: by stage the output; of a matrix stage a map by "axis=value" and, with
 * a single axis, by the value itself. A skipped stage has no entry. outputs: the tally that holds
 * the needs' outputs.
 */
void context_build(const struct run_options *options, const struct cell *cell,
                   const struct tally *outputs, const struct tally_cell *state, int attempt,
                   struct value *out);

/* Puts a stage's output into the map *out, as needs have it; nothing when there is none. */
void context_output(const struct graph *graph, const struct stage *stage,
                    const struct tally *outputs, struct value *out);

#endif
