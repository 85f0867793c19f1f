#include "run/graph.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/config.h"
#include "base/mem.h"
#include "run/text.h"

#define CYCLE_SHOWN 8 /* stages of a long circle that a message names */

struct check {
    struct value *findings;
    struct error *err;
    int errors;
    size_t *seen; /* by stage: the last one that has needed it, counted from 1 */
};

/* Notes one thing that is wrong; the first becomes the error that the caller returns. */
static void wrong(struct check *check, const char *file, int line, const char *rule,
                  const char *hint, const char *format, ...) __attribute__((format(printf, 6, 7)));

static void wrong(struct check *check, const char *file, int line, const char *rule,
                  const char *hint, const char *format, ...)
{
    cleanup_buf struct buf text = BUF_INIT;
    va_list args;

    va_start(args, format);
    buf_vprintf(&text, format, args);
    va_end(args);
    if (check->findings) {
        struct value *finding = value_push(check->findings);
        value_set_map(finding);
        value_put_string(finding, "level", "error");
        value_put_string(finding, "message", text.data);
        value_put_string(finding, "file", file);
        value_put_int(finding, "line", line);
        value_put_int(finding, "column", 1);
        value_put_string(finding, "rule", rule);
        if (hint && hint[0])
            value_put_string(finding, "hint", hint);
    }
    if (check->errors++ == 0) {
        error_set(check->err, ERR_INVALID, "%s:%d: %s", file, line, text.data);
        if (hint && hint[0])
            error_hint(check->err, "%s", hint);
    }
}

static void scalar_print(const struct value *v, struct buf *out)
{
    if (v->kind == VALUE_STRING)
        buf_append(out, v->as.string.data, v->as.string.len);
    else
        value_to_json(v, 0, out);
}

void cell_key(const struct cell *cell, struct buf *out)
{
    if (cell->matrix.kind != VALUE_MAP)
        return;
    for (size_t i = 0; i < cell->matrix.as.map.count; i++) {
        const struct value_pair *pair = &cell->matrix.as.map.pairs[i];
        if (i)
            buf_putc(out, ',');
        buf_puts(out, pair->key);
        buf_putc(out, '=');
        scalar_print(&pair->value, out);
    }
}

static int by_key(const void *a, const void *b)
{
    const struct value_pair *const *x = a, *const *y = b;
    return strcmp((*x)->key, (*y)->key);
}

/* False: another cell has the name. */
static bool add_cell(struct graph *graph, size_t stage, const struct value *matrix)
{
    size_t size = graph->cell_count * sizeof *graph->cells;
    graph->cells = mem_pages(graph->cells, size, size + sizeof *graph->cells);
    struct cell *cell = &graph->cells[graph->cell_count++];
    cleanup_buf struct buf name = BUF_INIT;
    cleanup_buf struct buf safe = BUF_INIT;

    *cell = (struct cell){.stage = stage};
    if (matrix)
        value_copy(&cell->matrix, matrix);
    buf_puts(&name, graph->stages[stage].name);
    if (matrix) {
        buf_putc(&name, '[');
        cell_key(cell, &name);
        buf_putc(&name, ']');
    }
    text_harmless(name.data, name.len,
                  &safe); /* a matrix value may be any text, a name ends up in logs */
    cell->name = buf_steal(&safe);
    graph->stages[stage].cell_count++;
    if (value_get(&graph->cell_index, cell->name))
        return false;
    value_put_int(&graph->cell_index, cell->name, (int64_t)(graph->cell_count - 1));
    return true;
}

/* Every combination, the last axis turning fastest. */
static void matrix_cells(struct graph *graph, size_t index, struct check *check)
{
    struct stage *stage = &graph->stages[index];
    const struct value *matrix = value_get(stage->spec, "matrix");

    stage->first_cell = graph->cell_count;
    if (!matrix || matrix->kind == VALUE_NIL || value_count(matrix) == 0) {
        (void)add_cell(graph, index,
                       NULL); /* a stage's name that is there twice was found before */
        return;
    }
    size_t axes = matrix->kind == VALUE_MAP ? matrix->as.map.count : 0;
    if (axes == 0 || axes > 16) {
        wrong(check, stage->file, stage->line, "matrix",
              "matrix = { component = { \"a\", \"b\" } }",
              "stage '%s': matrix must be a table of 1 to 16 lists", stage->name);
        return;
    }
    const struct value_pair *axis[16];
    size_t at[16] = {0};
    size_t total = 1;
    for (size_t i = 0; i < axes; i++)
        axis[i] = &matrix->as.map.pairs[i];
    qsort(axis, axes, sizeof axis[0], by_key);
    for (size_t i = 0; i < axes; i++) {
        const struct value *list = &axis[i]->value;
        size_t count = list->kind == VALUE_ARRAY ? list->as.array.count : 0;
        bool scalars = count > 0;
        for (size_t k = 0; k < count; k++) {
            enum value_kind kind = list->as.array.items[k].kind;
            scalars = scalars && kind != VALUE_ARRAY && kind != VALUE_MAP && kind != VALUE_NIL;
        }
        if (!scalars) {
            wrong(check, stage->file, stage->line, "matrix",
                  "matrix = { component = { \"a\", \"b\" } }",
                  "stage '%s': matrix axis '%s' must be a list of at least one string, number or "
                  "boolean",
                  stage->name, axis[i]->key);
            return;
        }
        total *= count;
        if (total > GRAPH_CELLS_MAX || graph->cell_count + total > GRAPH_CELLS_MAX) {
            wrong(check, stage->file, stage->line, "matrix", "",
                  "stage '%s': the pipeline would have more than %d cells", stage->name,
                  GRAPH_CELLS_MAX);
            return;
        }
    }
    for (size_t n = 0; n < total; n++) {
        struct value cell = {0};
        value_set_map(&cell);
        for (size_t i = 0; i < axes; i++)
            value_copy(value_put(&cell, axis[i]->key), value_at(&axis[i]->value, at[i]));
        bool fresh = add_cell(graph, index, &cell);
        value_free(&cell);
        if (!fresh) {
            wrong(check, stage->file, stage->line, "matrix", "write each value of an axis once",
                  "stage '%s': two cells of the matrix are called '%s'", stage->name,
                  graph->cells[graph->cell_count - 1].name);
            return;
        }
        for (size_t i = axes; i-- > 0;) {
            if (++at[i] < axis[i]->value.as.array.count)
                break;
            at[i] = 0;
        }
    }
}

/* A duration as a string or a number of seconds; 0 when absent. */
static int64_t duration(const struct value *v, const struct stage *stage, const char *field,
                        const char *script, struct check *check)
{
    struct error err = {0};
    int64_t ns = 0;
    cleanup_buf struct buf text = BUF_INIT;

    if (!v || v->kind == VALUE_NIL)
        return 0;
    scalar_print(v, &text);
    if ((v->kind != VALUE_STRING && v->kind != VALUE_INT && v->kind != VALUE_REAL) ||
        duration_parse(text.data ? text.data : "", &ns, &err) < 0) {
        if (err.code == ERR_NONE)
            error_set(&err, ERR_INVALID, "not a duration: %s", text.data);
        const char *hint =
            "write \"30s\", \"5m\", \"1h30m\", \"2d\", \"500ms\" or a number of seconds";
        if (stage)
            wrong(check, stage->file, stage->line, "duration", hint, "stage '%s': %s: %s",
                  stage->name, field, err.message);
        else
            wrong(check, script, 1, "duration", hint, "pipeline: %s: %s", field, err.message);
        return 0;
    }
    return ns;
}

static void retry(struct stage *stage, const char *script, struct check *check)
{
    const struct value *spec = value_get(stage->spec, "retry");
    const struct value *max = spec && spec->kind == VALUE_MAP ? value_get(spec, "max") : spec;

    if (!spec || spec->kind == VALUE_NIL)
        return;
    if (!max || max->kind != VALUE_INT || max->as.integer < 0 || max->as.integer > 100) {
        wrong(check, stage->file, stage->line, "retry", "retry = { max = 2, backoff = \"30s\" }",
              "stage '%s': retry.max must be a whole number from 0 to 100", stage->name);
        return;
    }
    stage->retries = (int)max->as.integer;
    if (spec->kind == VALUE_MAP)
        stage->backoff_ns =
            duration(value_get(spec, "backoff"), stage, "retry.backoff", script, check);
}

static void resolve_needs(struct graph *graph, struct stage *stage, struct check *check)
{
    const struct value *needs = value_get(stage->spec, "needs");
    size_t self = (size_t)(stage - graph->stages);

    if (value_count(needs))
        stage->needs = mem_array(NULL, value_count(needs), sizeof *stage->needs);
    for (size_t i = 0; i < value_count(needs); i++) {
        const char *name = value_text(value_at(needs, i), NULL);
        const struct value *at = name ? value_get(&graph->stage_index, name) : NULL;
        if (at) {
            size_t index = (size_t)at->as.integer;
            if (check->seen[index] != self + 1)
                stage->needs[stage->need_count++] = index;
            check->seen[index] = self + 1;
            continue;
        }
        const char *near = name ? graph_near(graph, name) : NULL;
        cleanup_free char *hint = near ? mem_printf("did you mean '%s'?", near)
                                       : mem_strdup("needs lists names of stages of this pipeline");
        wrong(check, stage->file, stage->line, "needs", hint,
              "stage '%s' needs '%s', which no stage is called", stage->name, name ? name : "?");
    }
}

/* Depth first, without recursion: a chain may be as long as the pipeline. A stage that is met while
 * it is on the path closes a cycle. */
enum { UNSEEN, ON_PATH, CLEAR };
struct walk {
    const struct graph *graph;
    char *mark;
    size_t *path, *next; /* the stages on the path, and which need of each comes next */
    size_t depth;
};

static void cycle_found(const struct walk *walk, size_t need, struct check *check)
{
    const struct stage *stages = walk->graph->stages;
    const struct stage *last = &stages[walk->path[walk->depth - 1]];
    cleanup_buf struct buf text = BUF_INIT;
    size_t from = 0;

    while (walk->path[from] != need)
        from++;
    for (size_t k = from; k < walk->depth; k++) {
        if (k - from == CYCLE_SHOWN && walk->depth - k > 1) {
            buf_puts(&text, "... -> ");
            k = walk->depth - 1;
        }
        buf_printf(&text, "%s -> ", stages[walk->path[k]].name);
    }
    buf_puts(&text, stages[need].name);
    wrong(check, last->file, last->line, "cycle", "take one of these needs away",
          "stages need each other in a circle: %s", text.data);
}

static void enter(struct walk *walk, size_t index)
{
    walk->mark[index] = ON_PATH;
    walk->next[walk->depth] = 0;
    walk->path[walk->depth++] = index;
}

static bool cycle_from(struct walk *walk, size_t index, struct check *check)
{
    enter(walk, index);
    while (walk->depth) {
        const struct stage *stage = &walk->graph->stages[walk->path[walk->depth - 1]];
        size_t at = walk->next[walk->depth - 1]++;
        if (at == stage->need_count) {
            walk->mark[walk->path[--walk->depth]] = CLEAR;
            continue;
        }
        size_t need = stage->needs[at];
        if (walk->mark[need] == ON_PATH) {
            cycle_found(walk, need, check);
            return true;
        }
        if (walk->mark[need] == UNSEEN)
            enter(walk, need);
    }
    return false;
}

static void find_cycle(const struct graph *graph, struct check *check)
{
    cleanup_free char *mark = mem_alloc(graph->stage_count + 1);
    cleanup_free size_t *path = mem_array(NULL, graph->stage_count + 1, sizeof *path);
    cleanup_free size_t *next = mem_array(NULL, graph->stage_count + 1, sizeof *next);
    struct walk walk = {.graph = graph, .mark = mark, .path = path, .next = next};

    for (size_t i = 0; i < graph->stage_count; i++) {
        if (mark[i] == UNSEEN && cycle_from(&walk, i, check))
            return;
    }
}

static void read_stage(struct graph *graph, size_t index, const char *script, struct check *check)
{
    struct stage *stage = &graph->stages[index];

    const struct value *at = value_get(&graph->stage_index, stage->name);
    const struct stage *first = &graph->stages[at->as.integer];
    if (first != stage)
        wrong(check, stage->file, stage->line, "duplicate", "give one of them another name",
              "stage '%s' is defined twice, first at %s:%d", stage->name, first->file, first->line);
    if (stage->name[0] == '\0' || strpbrk(stage->name, "/[]=,\n\r\t") || stage->name[0] == '.' ||
        strlen(stage->name) > 100)
        wrong(check, stage->file, stage->line, "name", "use letters, digits, '_' and '-'",
              "'%s' cannot be a stage's name", stage->name);
    stage->timeout_ns =
        duration(value_get(stage->spec, "timeout"), stage, "timeout", script, check);
    const struct value *always = value_get(stage->spec, "always");
    stage->always =
        always && (always->kind == VALUE_MAP || value_get_bool(stage->spec, "always", false));
    stage->allow_failure = value_get_bool(stage->spec, "allow_failure", false);
    retry(stage, script, check);
}

/* Stages of one file follow each other. */
static const char *keep_file(struct graph *graph, const char *file)
{
    size_t count = value_count(&graph->files);
    const char *last = count ? value_text(value_at(&graph->files, count - 1), "") : NULL;

    if (!last || strcmp(last, file) != 0)
        value_push_string(&graph->files, file);
    return value_text(value_at(&graph->files, value_count(&graph->files) - 1), "");
}

int graph_build(const struct value *plan, const char *script, struct graph *out,
                struct value *findings, struct error *err)
{
    struct error first = {0};
    struct check check = {.findings = findings, .err = &first};
    const struct value *stages = value_get(plan, "stages");
    size_t count = value_count(stages);

    *out = (struct graph){0};
    if (count == 0)
        wrong(&check, script, 1, "empty",
              "add one: stage \"hello\" { run = function(cx) print \"hello\" end }",
              "the script defines no stage");
    if (count > GRAPH_STAGES_MAX) {
        wrong(&check, script, 1, "size", "", "more than %d stages", GRAPH_STAGES_MAX);
        count = 0;
    }
    if (count)
        out->stages = mem_pages(NULL, 0, count * sizeof *out->stages);
    value_set_array(&out->files);
    out->stage_count = count;
    value_set_map(&out->stage_index);
    value_set_map(&out->cell_index);
    for (size_t i = 0; i < count; i++) {
        struct stage *stage = &out->stages[i];
        stage->spec = value_at(stages, i);
        stage->name = mem_strdup(value_get_string(stage->spec, "name", ""));
        stage->file = keep_file(out, value_get_string(stage->spec, "file", script));
        stage->line = (int)value_get_int(stage->spec, "line", 1);
        if (!value_get(&out->stage_index, stage->name))
            value_put_int(&out->stage_index, stage->name, (int64_t)i);
    }
    cleanup_free size_t *seen = mem_alloc((count + 1) * sizeof *seen);
    check.seen = seen;
    for (size_t i = 0; i < count; i++) {
        read_stage(out, i, script, &check);
        resolve_needs(out, &out->stages[i], &check);
        matrix_cells(out, i, &check);
    }
    out->timeout_ns =
        duration(value_path(plan, "pipeline.timeout"), NULL, "timeout", script, &check);
    find_cycle(out, &check);
    value_free(&out->stage_index);
    value_free(&out->cell_index);
    if (check.errors == 0)
        return 0;
    if (err) {
        *err = first;
        if (check.errors > 1 && !first.hint[0])
            error_hint(err, "%d more; mlhost check %s lists all", check.errors - 1, script);
    }
    graph_free(out);
    return -1;
}

void graph_free(struct graph *graph)
{
    for (size_t i = 0; i < graph->stage_count; i++) {
        free(graph->stages[i].name);
        free(graph->stages[i].needs);
    }
    for (size_t i = 0; i < graph->cell_count; i++) {
        free(graph->cells[i].name);
        value_free(&graph->cells[i].matrix);
    }
    mem_pages(graph->stages, graph->stage_count * sizeof *graph->stages, 0);
    mem_pages(graph->cells, graph->cell_count * sizeof *graph->cells, 0);
    value_free(&graph->files);
    value_free(&graph->stage_index);
    value_free(&graph->cell_index);
    *graph = (struct graph){0};
}

void graph_unshare(const struct graph *graph)
{
    mem_unshare(graph->stages, graph->stage_count * sizeof *graph->stages);
    mem_unshare(graph->cells, graph->cell_count * sizeof *graph->cells);
}

struct stage *graph_stage(const struct graph *graph, const char *name)
{
    for (size_t i = 0; i < graph->stage_count; i++) {
        if (strcmp(graph->stages[i].name, name) == 0)
            return &graph->stages[i];
    }
    return NULL;
}

struct cell *graph_cell(const struct graph *graph, const char *name)
{
    for (size_t i = 0; i < graph->cell_count; i++) {
        if (strcmp(graph->cells[i].name, name) == 0)
            return &graph->cells[i];
    }
    return NULL;
}

const char *graph_near(const struct graph *graph, const char *name)
{
    cleanup_free const char **names = mem_array(NULL, graph->stage_count + 1, sizeof *names);

    for (size_t i = 0; i < graph->stage_count; i++)
        names[i] = graph->stages[i].name;
    return near_miss(name, names, graph->stage_count);
}
