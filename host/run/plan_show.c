/* The plan as text, JSON and Mermaid. */
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "broker/policy.h"
#include "run/graph.h"
#include "run/plan.h"

static int effective(const struct plan *plan, const struct stage *stage,
                     const struct config *config, const struct value *bound, struct value *out,
                     struct error *err)
{
    struct value asked = {0};
    struct policy *policy;

    plan_permissions(plan, stage->spec, &asked);
    policy = policy_new(&asked, bound, config->workspace, err);
    value_free(&asked);
    if (!policy)
        return error_wrap(err, "%s:%d: stage '%s': permissions", stage->file, stage->line,
                          stage->name);
    policy_to_value(policy, out);
    policy_free(policy);
    return 0;
}

int plan_json(const struct plan *plan, const struct graph *graph, const struct config *config,
              const struct value *bound, struct value *out, struct error *err)
{
    value_set_map(out);
    value_put_string(out, "pipeline", plan->name);
    value_put_string(out, "script", plan->script);
    value_put_string(out, "profile", config->profile);
    value_put_string(out, "description",
                     value_get_string(value_get(&plan->doc, "pipeline"), "description", NULL));
    if (graph->timeout_ns)
        value_put_int(out, "timeout_ms", graph->timeout_ns / NS_PER_MS);
    const struct value *params = value_path(&plan->doc, "pipeline.params");
    if (params)
        value_copy(value_put(out, "params"), params);
    struct value *stages = value_put(out, "stages");
    value_set_array(stages);
    for (size_t i = 0; i < graph->stage_count; i++) {
        const struct stage *stage = &graph->stages[i];
        struct value *to = value_push(stages);
        value_set_map(to);
        value_put_string(to, "name", stage->name);
        value_put_string(to, "description", value_get_string(stage->spec, "description", NULL));
        value_put_string(to, "file", stage->file);
        value_put_int(to, "line", stage->line);
        struct value *needs = value_put(to, "needs");
        value_set_array(needs);
        for (size_t k = 0; k < stage->need_count; k++)
            value_push_string(needs, graph->stages[stage->needs[k]].name);
        struct value *cells = value_put(to, "cells");
        value_set_array(cells);
        for (size_t k = 0; k < stage->cell_count; k++)
            value_push_string(cells, graph->cells[stage->first_cell + k].name);
        if (stage->timeout_ns)
            value_put_int(to, "timeout_ms", stage->timeout_ns / NS_PER_MS);
        if (stage->retries)
            value_put_int(to, "retries", stage->retries);
        value_put_bool(to, "when", value_get_bool(stage->spec, "when", false));
        value_put_bool(to, "always", stage->always);
        if (effective(plan, stage, config, bound, value_put(to, "permissions"), err) < 0) {
            value_free(out);
            return -1;
        }
    }
    return 0;
}

static void permissions_line(const struct value *permissions, struct buf *out)
{
    for (int kind = 0; kind < PERM_COUNT; kind++) {
        const struct value *list = value_get(permissions, permission_names[kind]);
        if (value_count(list) == 0)
            continue;
        buf_printf(out, "      %-6s", permission_names[kind]);
        for (size_t i = 0; i < value_count(list); i++)
            buf_printf(out, " %s", value_text(value_at(list, i), "?"));
        buf_putc(out, '\n');
    }
}

static void param_lines(const struct value *params, struct buf *out)
{
    for (size_t i = 0; params && params->kind == VALUE_MAP && i < params->as.map.count; i++) {
        const struct value *spec = &params->as.map.pairs[i].value;
        buf_printf(out, "%s %-16s ", i ? "       " : "params:", params->as.map.pairs[i].key);
        value_to_json(spec, 0, out);
        buf_putc(out, '\n');
    }
}

static void stage_line(const struct graph *graph, const struct stage *stage, struct buf *out)
{
    buf_printf(out, "\n  %s", stage->name);
    for (size_t k = 0; k < stage->need_count; k++)
        buf_printf(out, "%s%s", k ? ", " : "  <- ", graph->stages[stage->needs[k]].name);
    buf_printf(out, "\n      %s:%d", stage->file, stage->line);
    if (stage->timeout_ns) {
        buf_puts(out, ", timeout ");
        duration_print(stage->timeout_ns, out);
    }
    if (stage->retries)
        buf_printf(out, ", up to %d retries", stage->retries);
    if (value_get_bool(stage->spec, "when", false))
        buf_puts(out, ", conditional");
    if (stage->always)
        buf_puts(out, ", always block");
    buf_putc(out, '\n');
    const char *description = value_get_string(stage->spec, "description", NULL);
    if (description)
        buf_printf(out, "      %s\n", description);
    if (stage->cell_count > 1 || graph->cells[stage->first_cell].matrix.kind == VALUE_MAP) {
        for (size_t k = 0; k < stage->cell_count; k++)
            buf_printf(out, "      - %s\n", graph->cells[stage->first_cell + k].name);
    }
}

int plan_text(const struct plan *plan, const struct graph *graph, const struct config *config,
              const struct value *bound, struct buf *out, struct error *err)
{
    const struct value *pipeline = value_get(&plan->doc, "pipeline");
    const char *description = value_get_string(pipeline, "description", NULL);

    buf_printf(out, "%s  (%s, profile %s", plan->name, plan->shown, config->profile);
    if (graph->timeout_ns) {
        buf_puts(out, ", timeout ");
        duration_print(graph->timeout_ns, out);
    }
    buf_puts(out, ")\n");
    if (description)
        buf_printf(out, "%s\n", description);
    param_lines(value_get(pipeline, "params"), out);
    for (size_t i = 0; i < graph->stage_count; i++) {
        struct value permissions = {0};
        stage_line(graph, &graph->stages[i], out);
        if (effective(plan, &graph->stages[i], config, bound, &permissions, err) < 0)
            return -1;
        permissions_line(&permissions, out);
        value_free(&permissions);
    }
    return 0;
}

void plan_mermaid(const struct graph *graph, struct buf *out)
{
    buf_puts(out, "flowchart LR\n");
    for (size_t i = 0; i < graph->stage_count; i++) {
        const struct stage *stage = &graph->stages[i];
        buf_printf(out, "    s%zu[\"", i);
        for (const char *s = stage->name; *s; s++) {
            if (*s == '"' || *s == '<' || *s == '&' || *s == '#')
                buf_printf(out, "#%d;", *s);
            else
                buf_putc(out, *s);
        }
        if (stage->cell_count > 1)
            buf_printf(out, " x %zu", stage->cell_count);
        buf_puts(out, "\"]\n");
    }
    for (size_t i = 0; i < graph->stage_count; i++) {
        for (size_t k = 0; k < graph->stages[i].need_count; k++)
            buf_printf(out, "    s%zu --> s%zu\n", graph->stages[i].needs[k], i);
    }
}

/* ---- permissions, one by one ---- */

static bool asks_itself(const struct stage *stage, const char *kind, const char *pattern)
{
    const struct value *list = value_get(value_get(stage->spec, "permissions"), kind);

    for (size_t i = 0; i < value_count(list); i++) {
        if (strcmp(value_text(value_at(list, i), ""), pattern) == 0)
            return true;
    }
    return false;
}

static int explain_stage(const struct plan *plan, const struct stage *stage,
                         const struct config *config, const struct value *bound, struct value *out,
                         struct error *err)
{
    cleanup_value struct value asked = {0}, list = {0};
    cleanup_free char *place = mem_printf("%s:%d", stage->file, stage->line);

    plan_permissions(plan, stage->spec, &asked);
    struct policy *policy = policy_new(&asked, bound, config->workspace, err);
    if (!policy)
        return error_wrap(err, "%s: stage '%s': permissions", place, stage->name);
    policy_explain(policy, &list);
    policy_free(policy);
    for (size_t i = 0; i < value_count(&list); i++) {
        struct value *entry = value_push(out);
        value_set_map(entry);
        value_put_string(entry, "stage", stage->name);
        const struct value *from = value_at(&list, i);
        for (size_t k = 0; k < from->as.map.count; k++)
            value_copy(value_put(entry, from->as.map.pairs[k].key), &from->as.map.pairs[k].value);
        bool own = asks_itself(stage, value_get_string(entry, "kind", ""),
                               value_get_string(entry, "pattern", ""));
        value_put_string(entry, "asked", own ? place : "pipeline");
    }
    return 0;
}

int plan_permissions_json(const struct plan *plan, const struct graph *graph,
                          const struct config *config, const struct value *bound, struct value *out,
                          struct error *err)
{
    value_set_array(out);
    for (size_t i = 0; i < graph->stage_count; i++) {
        if (explain_stage(plan, &graph->stages[i], config, bound, out, err) < 0)
            return -1;
    }
    return 0;
}

static int widest(const struct value *list, const char *key, int least)
{
    int width = least;

    for (size_t i = 0; i < value_count(list); i++) {
        int len = (int)strlen(value_get_string(value_at(list, i), key, ""));
        width = len > width ? len : width;
    }
    return width < 40 ? width : 40;
}

void plan_permissions_text(const struct value *list, struct buf *out)
{
    static const char *const columns[] = {"stage", "kind", "pattern", "asked"};
    int width[4];

    if (value_count(list) == 0) {
        buf_puts(out, "no stage asks for anything\n");
        return;
    }
    for (int c = 0; c < 4; c++) {
        width[c] = widest(list, columns[c], (int)strlen(columns[c]));
        buf_printf(out, "%-*s  ", width[c], columns[c]);
    }
    buf_puts(out, "granted  by\n");
    for (size_t i = 0; i < value_count(list); i++) {
        const struct value *entry = value_at(list, i);
        const char *part = value_get_string(entry, "part", NULL);
        const char *except = value_get_string(entry, "except", NULL);
        for (int c = 0; c < 4; c++)
            buf_printf(out, "%-*s  ", width[c], value_get_string(entry, columns[c], ""));
        buf_printf(out, "%-7s  %s",
                   !value_get_bool(entry, "granted", false) ? "denied"
                   : part                                   ? "part"
                                                            : "yes",
                   value_get_string(entry, "by", ""));
        if (part)
            buf_printf(out, ": only %s", part);
        if (except)
            buf_printf(out, ", except %s", except);
        buf_putc(out, '\n');
    }
}
