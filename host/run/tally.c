#include "run/tally.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "run/text.h"

#define TAIL_LINE_MAX 2000

static const char *const status_names[] = {"waiting", "running", "ok",        "skipped", "failed",
                                           "timeout", "denied",  "cancelled", "blocked"};

const char *cell_status_name(enum cell_status status)
{
    return status_names[status];
}

enum cell_status cell_status_from_name(const char *name)
{
    for (size_t i = 0; i < sizeof status_names / sizeof status_names[0]; i++) {
        if (strcmp(status_names[i], name) == 0)
            return (enum cell_status)i;
    }
    return CELL_FAILED;
}

bool cell_status_over(enum cell_status status)
{
    return status >= CELL_OK;
}

bool cell_status_good(enum cell_status status)
{
    return status == CELL_OK || status == CELL_SKIPPED;
}

void tally_init(struct tally *tally)
{
    *tally = (struct tally){0};
    value_set_array(&tally->issues);
    value_set_array(&tally->links);
    value_set_array(&tally->junit);
    value_set_array(&tally->summaries);
}

void tally_free(struct tally *tally)
{
    for (size_t i = 0; i < tally->count; i++) {
        struct tally_cell *cell = &tally->cells[i];
        free(cell->name);
        free(cell->reason);
        value_free(&cell->output);
        value_free(&cell->error);
        value_free(&cell->result);
        value_free(&cell->effects);
        value_free(&cell->progress);
        for (size_t k = 0; k < TALLY_TAIL; k++)
            free(cell->tail[k]);
    }
    mem_pages(tally->cells, tally->room * sizeof *tally->cells, 0);
    mem_pages(tally->index, tally->room * 2 * sizeof *tally->index, 0);
    free(tally->run);
    free(tally->pipeline);
    free(tally->script);
    free(tally->profile);
    free(tally->degraded);
    free(tally->status);
    value_free(&tally->params);
    value_free(&tally->issues);
    value_free(&tally->links);
    value_free(&tally->junit);
    value_free(&tally->summaries);
    *tally = (struct tally){0};
}

void tally_unshare(const struct tally *tally)
{
    mem_unshare(tally->cells, tally->room * sizeof *tally->cells);
    mem_unshare(tally->index, tally->room * 2 * sizeof *tally->index);
}

/* Where the name stands in the index, or would. */
static uint32_t *slot_of(const struct tally *tally, const char *name)
{
    uint32_t hash = 2166136261u;
    size_t mask = tally->room * 2 - 1;

    for (const char *s = name; *s; s++)
        hash = (hash ^ (unsigned char)*s) * 16777619u;
    size_t at = hash & mask;
    while (tally->index[at] && strcmp(tally->cells[tally->index[at] - 1].name, name) != 0)
        at = (at + 1) & mask;
    return &tally->index[at];
}

struct tally_cell *tally_find(const struct tally *tally, const char *cell)
{
    uint32_t number = cell && tally->room ? *slot_of(tally, cell) : 0;
    return number ? &tally->cells[number - 1] : NULL;
}

static void grow(struct tally *tally)
{
    size_t room = tally->room ? tally->room * 2 : 16;

    tally->cells =
        mem_pages(tally->cells, tally->room * sizeof *tally->cells, room * sizeof *tally->cells);
    mem_pages(tally->index, tally->room * 2 * sizeof *tally->index, 0);
    tally->index = mem_pages(NULL, 0, room * 2 * sizeof *tally->index);
    tally->room = room;
    for (size_t i = 0; i < tally->count; i++)
        *slot_of(tally, tally->cells[i].name) = (uint32_t)i + 1;
}

static struct tally_cell *add(struct tally *tally, const char *name)
{
    if (tally->count == tally->room)
        grow(tally);
    struct tally_cell *cell = &tally->cells[tally->count++];

    *cell = (struct tally_cell){.name = mem_strdup(name)};
    value_set_map(&cell->effects);
    *slot_of(tally, name) = (uint32_t)tally->count;
    return cell;
}

static void set_status(struct tally *tally, struct tally_cell *cell, enum cell_status status)
{
    tally->over -= cell_status_over(cell->status);
    tally->over += cell_status_over(status);
    cell->status = status;
}

static void set_text(char **to, const char *text)
{
    free(*to);
    *to = mem_strdup(text);
}

static void set_value(struct value *to, const struct value *from)
{
    value_free(to);
    if (from)
        value_copy(to, from);
}

static void tail_add(struct tally_cell *cell, const char *text)
{
    cleanup_buf struct buf line = BUF_INIT;
    size_t len = strlen(text);

    text_harmless(text, len > TAIL_LINE_MAX ? TAIL_LINE_MAX : len, &line);
    free(cell->tail[cell->tail_next]);
    cell->tail[cell->tail_next] = buf_steal(&line);
    cell->tail_next = (cell->tail_next + 1) % TALLY_TAIL;
}

static void run_start(struct tally *tally, const struct value *event)
{
    const struct value *cells = value_get(event, "cells");
    set_text(&tally->run, value_get_string(event, "run", ""));
    const char *pipeline = value_get_string(event, "pipeline", "");
    cleanup_buf struct buf name = BUF_INIT;
    text_harmless(pipeline, strlen(pipeline), &name);
    set_text(&tally->pipeline, name.data ? name.data : "");
    set_text(&tally->script, value_get_string(event, "script", ""));
    set_text(&tally->profile, value_get_string(event, "profile", ""));
    set_text(&tally->status, "running");
    set_value(&tally->params, value_get(event, "params"));
    tally->resumed = value_get_bool(event, "resumed", false);
    if (value_get_string(event, "degraded", NULL))
        set_text(&tally->degraded, value_get_string(event, "degraded", ""));
    tally->started_ms = value_get_int(event, "time", 0);
    for (size_t i = 0; i < value_count(cells); i++) {
        const char *cell_name = value_text(value_at(cells, i), "");
        struct tally_cell *cell = tally_find(tally, cell_name);
        if (!cell)
            add(tally, cell_name);
        else if (!cell_status_good(cell->status))
            set_status(tally, cell,
                       CELL_WAITING); /* a resumed run tries again what did not end well */
    }
}

static void issue(struct tally *tally, struct tally_cell *cell, const struct value *event)
{
    bool is_error = strcmp(value_get_string(event, "level", "warning"), "error") == 0;

    if (cell)
        *(is_error ? &cell->errors : &cell->warnings) += 1;
    *(is_error ? &tally->errors : &tally->warnings) += 1;
    if (value_count(&tally->issues) < TALLY_ISSUES_MAX)
        value_copy(value_push(&tally->issues), event);
}

static void report(struct tally *tally, const struct value *event)
{
    const char *kind = value_get_string(event, "kind", "");
    struct value *list = strcmp(kind, "link") == 0      ? &tally->links
                         : strcmp(kind, "junit") == 0   ? &tally->junit
                         : strcmp(kind, "summary") == 0 ? &tally->summaries
                                                        : NULL;
    if (!list || value_count(list) >= TALLY_ISSUES_MAX)
        return;
    for (size_t i = 0; i < value_count(list); i++) {
        const struct value *other = value_at(list, i);
        const char *key = list == &tally->links ? "url" : "path";
        if (value_get(event, key) &&
            strcmp(value_get_string(other, key, ""), value_get_string(event, key, "")) == 0)
            return; /* said twice, by a retry or a resumed stage */
    }
    value_copy(value_push(list), event);
}

static void stage_end(struct tally *tally, struct tally_cell *cell, const struct value *event)
{
    set_status(tally, cell, cell_status_from_name(value_get_string(event, "status", "failed")));
    cell->died = strcmp(value_get_string(value_get(event, "error"), "code", ""), "crashed") == 0;
    cell->duration_ms = value_get_int(event, "duration_ms", 0);
    set_text(&cell->reason, value_get_string(event, "reason", NULL));
    set_value(&cell->output, value_get(event, "output"));
    set_value(&cell->error, value_get(event, "error"));
    value_free(&cell->result);
    value_free(&cell->progress);
}

void tally_event(struct tally *tally, const struct value *event)
{
    const char *t = value_get_string(event, "t", "");
    const char *name = value_get_string(event, "stage", NULL);

    if (strcmp(t, "run_start") == 0) {
        run_start(tally, event);
        return;
    }
    if (strcmp(t, "run_end") == 0) {
        set_text(&tally->status, value_get_string(event, "status", "failed"));
        tally->exit = (int)value_get_int(event, "exit", 1);
        tally->duration_ms = value_get_int(event, "duration_ms", 0);
        return;
    }
    struct tally_cell *cell = tally_find(tally, name);
    if (!cell && name)
        cell = add(tally, name);
    if (strcmp(t, "issue") == 0) {
        issue(tally, cell, event);
    } else if (strcmp(t, "report") == 0) {
        report(tally, event);
    } else if (!cell) {
        return;
    } else if (strcmp(t, "output") == 0 || strcmp(t, "log") == 0) {
        tail_add(cell, value_get_string(event, "text", ""));
    } else if (strcmp(t, "progress") == 0) {
        set_value(&cell->progress, event);
    } else if (strcmp(t, "stage_start") == 0) {
        set_status(tally, cell, CELL_RUNNING);
        cell->attempt = (int)value_get_int(event, "attempt", 1);
        cell->starts++;
        cell->died = true;
        cell->started_ms = value_get_int(event, "time", 0);
        cell->started_ns = clock_now();
    } else if (strcmp(t, "effect") == 0) {
        set_value(value_put(&cell->effects, value_get_string(event, "key", "")),
                  value_get(event, "value"));
    } else if (strcmp(t, "stage_result") == 0) {
        set_value(&cell->result, event);
        cell->died = false;
    } else if (strcmp(t, "stage_retry") == 0) {
        value_free(&cell->progress);
        cell->died = false;
    } else if (strcmp(t, "stage_end") == 0) {
        stage_end(tally, cell, event);
    }
}

void tally_tail(const struct tally_cell *cell, struct buf *out)
{
    for (size_t i = 0; i < TALLY_TAIL; i++) {
        const char *line = cell->tail[(cell->tail_next + i) % TALLY_TAIL];
        if (line)
            buf_printf(out, "%s\n", line);
    }
}

void error_place(const struct value *error, struct buf *out)
{
    const char *file = value_get_string(error, "file", NULL);
    int64_t line = value_get_int(error, "line", 0);

    if (file && line > 0)
        buf_printf(out, "%s:%lld: ", file, (long long)line);
    else if (file)
        buf_printf(out, "%s: ", file);
}

/* Each line behind two spaces and the label (blanks of its length on all but the first). */
static void indent(const char *label, const char *text, struct buf *out)
{
    cleanup_buf struct buf safe = BUF_INIT;
    int width = (int)strlen(label);
    bool first = true;

    text_harmless_lines(text, strlen(text), &safe);
    for (char *line = safe.data; line && *line;) {
        size_t len = strcspn(line, "\n");
        size_t blank = strspn(line, "\t");
        buf_printf(out, "  %*s%.*s\n", width, first ? label : "", (int)(len - blank), line + blank);
        first = false;
        line += len + (line[len] == '\n');
    }
}

static void one_failure(const struct tally_cell *cell, bool with_tail, struct buf *out)
{
    const char *message = value_get_string(&cell->error, "message", cell->reason);
    const char *hint = value_get_string(&cell->error, "hint", "");
    const char *traceback = value_get_string(&cell->error, "traceback", "");
    cleanup_buf struct buf text = BUF_INIT;

    buf_puts(out, "\nstage ");
    text_shown(cell->name, out);
    buf_printf(out, ": %s\n", cell_status_name(cell->status));
    error_place(&cell->error, &text);
    /* Lua puts the place into its own messages. */
    if (text.len && strncmp(message ? message : "", text.data, text.len) == 0)
        buf_clear(&text);
    buf_puts(&text, message ? message : "no message");
    indent("error: ", text.data, out);
    if (hint[0])
        indent("hint: ", hint, out);
    if (strncmp(traceback, "stack traceback:\n", 17) == 0)
        traceback += 17;
    if (traceback[0]) {
        buf_puts(out, "  traceback:\n");
        indent("  ", traceback + strspn(traceback, " \t"), out);
    }
    if (with_tail && cell->tail[(cell->tail_next + TALLY_TAIL - 1) % TALLY_TAIL]) {
        buf_clear(&text);
        tally_tail(cell, &text);
        buf_puts(out, "  last lines of its log:\n");
        indent("  ", text.data, out);
    }
}

/* ok 3, failed 1, blocked 2 */
static void counts(const struct tally *tally, struct buf *out)
{
    bool first = true;

    for (int s = CELL_WAITING; s <= CELL_BLOCKED; s++) {
        size_t n = 0;
        for (size_t i = 0; i < tally->count; i++)
            n += tally->cells[i].status == (enum cell_status)s;
        if (n) {
            buf_printf(out, "%s%zu %s", first ? "" : ", ", n,
                       cell_status_name((enum cell_status)s));
            first = false;
        }
    }
}

static void labelled(const char *label, const char *text, struct buf *out)
{
    buf_puts(out, label);
    text_shown(text, out);
    buf_putc(out, '\n');
}

void tally_summary(const struct tally *tally, const char *report_path, bool with_tail,
                   struct buf *out)
{
    bool done = strcmp(tally->status ? tally->status : "", "ok") == 0;

    for (size_t i = 0; i < tally->count; i++) {
        const struct tally_cell *cell = &tally->cells[i];
        if (cell_status_over(cell->status) && !cell_status_good(cell->status) &&
            cell->status != CELL_BLOCKED)
            one_failure(cell, with_tail, out);
    }
    buf_printf(out, "\n%s ", tally->pipeline ? tally->pipeline : "run");
    text_shown(tally->status ? tally->status : "", out);
    buf_puts(out, " in ");
    duration_print(ns_of_ms(tally->duration_ms), out);
    buf_puts(out, ": ");
    counts(tally, out);
    labelled("\nrun:    ", tally->run ? tally->run : "", out);
    if (tally->degraded)
        labelled("DEGRADED: it ran without this of its sandbox: ", tally->degraded, out);
    if (report_path)
        labelled("report: ", report_path, out);
    for (size_t i = 0; i < value_count(&tally->links); i++) {
        const struct value *link = value_at(&tally->links, i);
        cleanup_buf struct buf text = BUF_INIT;
        const char *url = value_get_string(link, "url", value_get_string(link, "text", ""));
        buf_printf(&text, "%s: %s", value_get_string(link, "title", "link"), url);
        labelled("link:   ", text.data, out);
    }
    if (!done && tally->run) {
        cleanup_free char *text =
            mem_printf("mlhost run %s --resume %s", tally->script, tally->run);
        labelled("resume: ", text, out);
    }
}
