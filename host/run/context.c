#include "run/context.h"

void context_output(const struct graph *graph, const struct stage *stage,
                    const struct tally *outputs, struct value *out)
{
    bool matrix = graph->cells[stage->first_cell].matrix.kind == VALUE_MAP;
    struct value *all = NULL;

    for (size_t k = 0; k < stage->cell_count; k++) {
        const struct cell *cell = &graph->cells[stage->first_cell + k];
        const struct tally_cell *state = tally_find(outputs, cell->name);
        cleanup_buf struct buf key = BUF_INIT;
        if (!state || state->status != CELL_OK)
            continue;
        if (!matrix) {
            value_copy(value_put(out, stage->name), &state->output);
            continue;
        }
        if (!all) {
            all = value_put(out, stage->name);
            value_set_map(all);
        }
        cell_key(cell, &key);
        value_copy(value_put(all, key.data), &state->output);
        if (cell->matrix.as.map.count == 1) {
            const struct value *axis = &cell->matrix.as.map.pairs[0].value;
            buf_clear(&key);
            if (axis->kind == VALUE_STRING)
                buf_puts(&key, axis->as.string.data);
            else
                value_to_json(axis, 0, &key);
            value_copy(value_put(all, key.data ? key.data : ""), &state->output);
        }
    }
}

static void needs_of(const struct run_options *options, const struct stage *stage,
                     const struct tally *outputs, struct value *out)
{
    const struct graph *graph = options->graph;

    value_set_map(out);
    for (size_t i = 0; i < stage->need_count; i++)
        context_output(graph, &graph->stages[stage->needs[i]], outputs, out);
}

void context_build(const struct run_options *options, const struct cell *cell,
                   const struct tally *outputs, const struct tally_cell *state, int attempt,
                   struct value *out)
{
    const struct stage *stage = &options->graph->stages[cell->stage];
    const struct value *env = value_path(&options->plan->doc, "pipeline.env");

    value_set_map(out);
    value_copy(value_put(out, "params"), options->params);
    if (cell->matrix.kind == VALUE_MAP)
        value_copy(value_put(out, "matrix"), &cell->matrix);
    needs_of(options, stage, outputs, value_put(out, "needs"));
    value_put_int(out, "attempt", attempt);
    value_put_string(out, "run_id", options->id);
    value_put_string(out, "stage", stage->name);
    value_put_string(out, "cell", cell->name);
    value_put_string(out, "pipeline", options->plan->name);
    value_put_string(out, "workspace", options->config->workspace);
    value_put_string(out, "profile", options->config->profile);
    if (env && env->kind == VALUE_MAP)
        value_copy(value_put(out, "env"), env);
    value_put_bool(out, "resumed", options->resumed);
    if (state->effects.kind == VALUE_MAP)
        value_copy(value_put(out, "effects"), &state->effects);
}
