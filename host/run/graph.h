/*
 * The plan's stages as a graph: what needs what, and the cells of each matrix.
 *
 * A stage without a matrix has one cell of its own name. A stage with one has a cell for each
 * combination of its axes' values, named "build_images[component=training]", several axes in
 * alphabetical order: "test[os=linux,py=3.11]".
 */
#ifndef MLHOST_RUN_GRAPH_H
#define MLHOST_RUN_GRAPH_H

#include "base/value.h"

#define GRAPH_STAGES_MAX 20000
#define GRAPH_CELLS_MAX  20000

struct stage {
    char *name;
    const struct value *spec; /* the stage's entry in the plan */
    size_t *needs;            /* indices of stages */
    size_t need_count;
    size_t first_cell, cell_count;
    int64_t timeout_ns; /* 0: none */
    int64_t backoff_ns; /* before the first retry; doubles after each */
    int retries;
    bool always;
    bool allow_failure; /* its failure fails neither the run nor what needs it */
    const char *file;   /* lives with the graph */
    int line;
};

struct cell {
    char *name;
    size_t stage;
    struct value matrix; /* { axis = value }, nil without a matrix */
};

struct graph {
    struct stage *stages;
    size_t stage_count;
    struct cell *cells;
    size_t cell_count;
    struct value files;                   /* of the stages */
    struct value stage_index, cell_index; /* name -> place in the tables, while it is built */
    int64_t timeout_ns;                   /* of the whole pipeline; 0: none */
};

/*
 * Builds the graph of a plan document { pipeline, stages }, which must outlive it. Everything that
 * is wrong is appended to findings (an array of { level, message, file, line, rule }; NULL is
 * allowed), the first of it is the error: duplicate names, unknown needs with the near miss, cycles
 * with their path, bad durations, bad matrices. ERR_INVALID.
 */
int graph_build(const struct value *plan, const char *script, struct graph *out,
                struct value *findings, struct error *err);
void graph_free(struct graph *graph);
/* Children forked from now on have none of it, see mem_unshare. */
void graph_unshare(const struct graph *graph);
#define cleanup_graph __attribute__((cleanup(graph_free)))

struct stage *graph_stage(const struct graph *graph,
                          const char *name); /* NULL when there is none */
struct cell *graph_cell(const struct graph *graph, const char *name);
/* The stage whose name is a near miss, or NULL. */
const char *graph_near(const struct graph *graph, const char *name);
/* The text after the stage's name that tells a cell from its sisters: "component=training", or "".
 */
void cell_key(const struct cell *cell, struct buf *out);

#endif
