/*
 * Azure DevOps: the agent's logging commands, in its own grammar and escaping.
 *
 * Groups cannot nest or interleave, so one running stage has the log: its lines appear as they
 * come, inside its group. The others' lines are kept (the last KEEP_MAX bytes; all are in log.txt)
 * until it ends.
 */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "run/render.h"
#include "run/text.h"

#define KEEP_MAX (512u * 1024)
#define OVER_MAX 32 /* stages that have ended and wait for the log */

struct held {
    char *stage;
    struct buf lines;
    bool cut, over;
};
struct azdo {
    char *open;        /* the stage whose group is open */
    struct held *held; /* stages that wait, in order of their start */
    size_t count;
    size_t over; /* of those, how many have ended */
};

static struct held *held_find(struct azdo *azdo, const char *stage)
{
    for (size_t i = 0; i < azdo->count; i++) {
        if (strcmp(azdo->held[i].stage, stage) == 0)
            return &azdo->held[i];
    }
    return NULL;
}

static void open_group(struct renderer *renderer, const char *stage)
{
    struct azdo *azdo = renderer->state;

    azdo->open = mem_strdup(stage);
    buf_puts(&renderer->out, "##[group]");
    text_shown(stage, &renderer->out);
    buf_putc(&renderer->out, '\n');
}

/* What a stage has said while another one had the log. */
static void put_held(struct renderer *renderer, const struct held *held)
{
    if (held->cut)
        buf_puts(&renderer->out, "(earlier lines are in this stage's log.txt)\n");
    if (held->lines.len)
        buf_append(&renderer->out, held->lines.data, held->lines.len);
}

/* The open stage takes long: what has ended beside it is not kept for ever. Its group is closed,
 * and goes on behind theirs. */
static void make_way(struct renderer *renderer)
{
    struct azdo *azdo = renderer->state;
    cleanup_free char *open = steal_ptr(&azdo->open);
    size_t kept = 0;

    buf_puts(&renderer->out, "##[endgroup]\n");
    for (size_t i = 0; i < azdo->count; i++) {
        struct held *held = &azdo->held[i];
        if (!held->over) {
            azdo->held[kept++] = *held;
            continue;
        }
        open_group(renderer, held->stage);
        put_held(renderer, held);
        buf_puts(&renderer->out, "##[endgroup]\n");
        mem_cleanup(&azdo->open);
        azdo->open = NULL;
        free(held->stage);
        buf_free(&held->lines);
    }
    azdo->count = kept;
    azdo->over = 0;
    cleanup_free char *again = mem_printf("%s (continued)", open);
    open_group(renderer, again);
    free(azdo->open);
    azdo->open = steal_ptr(&open);
}

static void drop_first(struct azdo *azdo)
{
    free(azdo->held[0].stage);
    buf_free(&azdo->held[0].lines);
    azdo->over -= azdo->held[0].over;
    azdo->count--;
    memmove(azdo->held, azdo->held + 1, azdo->count * sizeof *azdo->held);
}

/* The open stage is over: everything that is over too is printed, the first that still runs gets
 * the log. */
static void close_group(struct renderer *renderer)
{
    struct azdo *azdo = renderer->state;

    buf_puts(&renderer->out, "##[endgroup]\n");
    free(azdo->open);
    azdo->open = NULL;
    for (size_t i = 0; i < azdo->count && !azdo->open;) {
        struct held *next = &azdo->held[i];
        bool over = next->over;
        open_group(renderer, next->stage);
        put_held(renderer, next);
        drop_first(azdo);
        if (over) {
            buf_puts(&renderer->out, "##[endgroup]\n");
            free(azdo->open);
            azdo->open = NULL;
        }
    }
}

static void put_line(struct renderer *renderer, const char *stage, const char *line)
{
    struct azdo *azdo = renderer->state;
    struct held *held = stage ? held_find(azdo, stage) : NULL;

    if (!held) {
        buf_printf(&renderer->out, "%s\n", line);
        return;
    }
    buf_printf(&held->lines, "%s\n", line);
    if (held->lines.len > KEEP_MAX) {
        size_t cut = held->lines.len - KEEP_MAX / 2;
        const char *end = memchr(held->lines.data + cut, '\n', held->lines.len - cut);
        buf_consume(&held->lines, end ? (size_t)(end + 1 - held->lines.data) : cut);
        held->cut = true;
    }
}

static void property(const char *name, const char *v, struct buf *out)
{
    if (!v || !v[0])
        return;
    buf_printf(out, "%s=", name);
    text_azdo(v, true, out);
    buf_putc(out, ';');
}

static void number(const char *name, int64_t n, struct buf *out)
{
    if (n > 0)
        buf_printf(out, "%s=%lld;", name, (long long)n);
}

/* Line breaks are the agent's escapes; what else cannot be seen is shown as in any other line. */
static void visible(const char *text, bool property_value, struct buf *out)
{
    cleanup_buf struct buf shown = BUF_INIT;

    for (; *text; text++) {
        size_t len = strcspn(text, "\r\n");
        text_commands(text, len, &shown);
        text += len;
        if (!*text)
            break;
        buf_putc(&shown, *text);
    }
    text_azdo(shown.data ? shown.data : "", property_value, out);
}

static void shown(const char *name, const char *v, struct buf *out)
{
    if (!v || !v[0])
        return;
    buf_printf(out, "%s=", name);
    visible(v, true, out);
    buf_putc(out, ';');
}

static void issue(const char *level, const char *message, const char *file, int64_t line,
                  int64_t column, const char *code, struct buf *out)
{
    buf_puts(out, "##vso[task.logissue ");
    property("type", strcmp(level, "error") == 0 ? "error" : "warning", out);
    shown("sourcepath", file, out);
    number("linenumber", line, out);
    number("columnnumber", column, out);
    shown("code", code, out);
    buf_putc(out, ']');
    visible(message, false, out);
    buf_putc(out, '\n');
}

static void variable(const struct value *event, struct buf *out)
{
    cleanup_buf struct buf text = BUF_INIT;
    const struct value *v = value_get(event, "value");

    buf_puts(out, "##vso[task.setvariable ");
    property("variable", value_get_string(event, "name", ""), out);
    if (value_get_bool(event, "output", false))
        buf_puts(out, "isOutput=true;");
    if (value_get_bool(event, "secret", false))
        buf_puts(out, "issecret=true;");
    buf_putc(out, ']');
    if (v && v->kind == VALUE_STRING)
        buf_puts(&text, v->as.string.data);
    else if (v && v->kind != VALUE_NIL)
        value_to_json(v, 0, &text);
    text_azdo(text.data ? text.data : "", false, out);
    buf_putc(out, '\n');
}

static void stage_end(struct renderer *renderer, const struct value *event, const char *stage)
{
    struct azdo *azdo = renderer->state;
    const struct value *error = value_get(event, "error");
    const char *status = value_get_string(event, "status", "");
    cleanup_buf struct buf line = BUF_INIT;

    render_stage_end(event, &line);
    put_line(renderer, stage, line.data);
    if (azdo->open && strcmp(azdo->open, stage) == 0) {
        close_group(renderer);
    } else {
        struct held *held = held_find(azdo, stage);
        if (held) {
            held->over = true;
            if (++azdo->over >= OVER_MAX)
                make_way(renderer);
        }
    }
    enum cell_status s = cell_status_from_name(status);
    if (!cell_status_good(s) && s != CELL_BLOCKED) {
        cleanup_buf struct buf message = BUF_INIT;
        buf_printf(&message, "stage %s %s: %s", stage, status,
                   value_get_string(error, "message", ""));
        if (value_get_string(error, "hint", "")[0])
            buf_printf(&message, "\nhint: %s", value_get_string(error, "hint", ""));
        issue("error", message.data, value_get_string(error, "file", NULL),
              value_get_int(error, "line", 0), 0, value_get_string(error, "code", NULL),
              &renderer->out);
    }
    size_t count = renderer->tally->count;
    if (count)
        buf_printf(&renderer->out, "##vso[task.setprogress value=%zu;]%zu of %zu stages\n",
                   renderer->tally->over * 100 / count, renderer->tally->over, count);
}

static void azdo_event(struct renderer *renderer, const struct value *event)
{
    struct azdo *azdo = renderer->state;
    const char *t = value_get_string(event, "t", "");
    const char *stage = value_get_string(event, "stage", NULL);

    if (strcmp(t, "stage_start") == 0 && stage) {
        if (azdo->open && strcmp(azdo->open, stage) != 0 && !held_find(azdo, stage)) {
            azdo->held = mem_array(azdo->held, azdo->count + 1, sizeof *azdo->held);
            azdo->held[azdo->count++] = (struct held){.stage = mem_strdup(stage)};
        } else if (!azdo->open) {
            open_group(renderer, stage);
        }
    }
    if (strcmp(t, "stage_end") == 0 && stage) {
        stage_end(renderer, event, stage);
    } else if (strcmp(t, "issue") == 0) {
        issue(value_get_string(event, "level", "warning"), value_get_string(event, "message", ""),
              value_get_string(event, "file", NULL), value_get_int(event, "line", 0),
              value_get_int(event, "column", 0), value_get_string(event, "rule", NULL),
              &renderer->out);
    } else if (strcmp(t, "variable") == 0) {
        variable(event, &renderer->out);
    } else {
        cleanup_buf struct buf line = BUF_INIT;
        if (render_line(renderer, event, &line))
            put_line(renderer, stage, line.data ? line.data : "");
    }
}

/*
 * The test results of the run, to its page: they need no task of their own in the pipeline. The
 * agent fails the step for a file that is not there, and reads resultFiles as a list with commas.
 */
static void publish_results(const struct renderer *renderer, struct buf *out)
{
    const char *junit = renderer->junit;

    if (!junit)
        return;
    if (strchr(junit, ',')) {
        cleanup_free char *text = mem_printf(
            "the test results are not published, for the comma in their path: %s", junit);
        issue("warning", text, NULL, 0, 0, NULL, out);
        return;
    }
    buf_puts(out, "##vso[results.publish type=JUnit;");
    property("resultFiles", junit, out);
    buf_puts(out, "mergeResults=true;failTaskOnFailedTests=false;");
    property("runTitle", renderer->tally->pipeline, out);
    buf_puts(out, "]\n");
}

static void azdo_end(struct renderer *renderer)
{
    struct azdo *azdo = renderer->state;
    const struct tally *tally = renderer->tally;
    const char *status = tally->status ? tally->status : "failed";
    const char *result = strcmp(status, "cancelled") == 0  ? "Canceled"
                         : strcmp(status, "ok") != 0       ? "Failed"
                         : tally->warnings + tally->errors ? "SucceededWithIssues"
                                                           : "Succeeded";

    if (azdo->open)
        close_group(renderer);
    free(azdo->open);
    while (azdo->count)
        drop_first(azdo);
    free(azdo->held);
    tally_summary(tally, renderer->report, true, &renderer->out);
    publish_results(renderer, &renderer->out);
    if (renderer->report) {
        buf_puts(&renderer->out, "##vso[task.uploadsummary]");
        text_azdo(renderer->report, false, &renderer->out);
        buf_putc(&renderer->out, '\n');
    }
    buf_printf(&renderer->out, "##vso[task.complete result=%s;]", result);
    text_azdo(status, false, &renderer->out);
    buf_putc(&renderer->out, '\n');
}

const struct renderer_kind render_azdo = {.name = "azdo",
                                          .agent = true,
                                          .state_size = sizeof(struct azdo),
                                          .event = azdo_event,
                                          .end = azdo_end};
