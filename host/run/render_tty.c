/*
 * A terminal: finished lines scroll up, below them one line per running stage with its elapsed time
 * and progress.
 *
 * The live lines are erased and drawn again at most every TICK_MS. Each is cut to the terminal's
 * width; after a resize the rows that the old lines take now are counted from their columns, so
 * nothing is left behind.
 */
#include <string.h>
#include <sys/ioctl.h>

#include "base/clock.h"
#include "run/render.h"
#include "run/text.h"

#define TICK_MS  100
#define LIVE_MAX 16
#define BAR      16

struct tty {
    size_t columns[LIVE_MAX + 1]; /* of the live lines that are on the screen */
    size_t drawn;
    struct buf above;    /* lines that wait to be printed above the live ones */
    struct buf question; /* stands in the place of the live ones while it is open */
};

static size_t width(const struct renderer *renderer)
{
    struct winsize size = {0};

    if (ioctl(renderer->fd, TIOCGWINSZ, &size) < 0 || size.ws_col < 20)
        return 80;
    return size.ws_col;
}

static void paint(const struct renderer *renderer, const char *code, struct buf *out)
{
    if (renderer->colour)
        buf_printf(out, "\x1b[%sm", code);
}

static const char *status_colour(const char *status)
{
    enum cell_status s = cell_status_from_name(status);
    return s == CELL_OK ? "32" : s == CELL_SKIPPED || s == CELL_BLOCKED ? "2" : "31";
}

/* Puts the cursor where the first live line began and clears from there. */
static void erase(struct renderer *renderer, size_t columns)
{
    struct tty *tty = renderer->state;
    size_t rows = 0;

    for (size_t i = 0; i < tty->drawn; i++)
        rows += tty->columns[i] == 0 ? 1 : (tty->columns[i] + columns - 1) / columns;
    if (rows)
        buf_printf(&renderer->out, "\x1b[%zuA\r\x1b[J", rows);
    tty->drawn = 0;
}

static void bar(const struct renderer *renderer, const struct value *progress, struct buf *out)
{
    int64_t done = value_get_int(progress, "done", 0);
    int64_t total = value_get_int(progress, "total", -1);
    const char *label = value_get_string(progress, "label", "");

    if (total > 0) {
        double part = (double)done / (double)total;
        part = part < 0 ? 0 : part > 1 ? 1 : part;
        int full = (int)(part * BAR);
        buf_puts(out, " [");
        for (int i = 0; i < BAR; i++)
            buf_puts(out, i < full ? (renderer->utf8 ? "\xe2\x96\x88" : "#")
                                   : (renderer->utf8 ? "\xc2\xb7" : "."));
        buf_printf(out, "] %3d%% ", (int)(part * 100));
    } else {
        buf_printf(out, " %lld ", (long long)done);
        text_shown(value_get_string(progress, "unit", ""), out);
        buf_putc(out, ' ');
    }
    text_shown(label, out);
}

static void live_line(struct renderer *renderer, const struct tally_cell *cell, size_t columns)
{
    struct tty *tty = renderer->state;
    cleanup_buf struct buf line = BUF_INIT;

    buf_puts(&line, renderer->utf8 ? "\xe2\x96\xb8 " : "> ");
    text_shown(cell->name, &line);
    buf_puts(&line, "  ");
    duration_print((clock_now() - cell->started_ns) / (100 * NS_PER_MS) * (100 * NS_PER_MS), &line);
    if (cell->attempt > 1)
        buf_printf(&line, "  attempt %d", cell->attempt);
    if (cell->progress.kind == VALUE_MAP) {
        bar(renderer, &cell->progress, &line);
    } else {
        const char *last = cell->tail[(cell->tail_next + TALLY_TAIL - 1) % TALLY_TAIL];
        if (last)
            buf_printf(&line, "  %s", last);
    }
    for (size_t i = 0; i < line.len; i++) {
        if (line.data[i] == '\t')
            line.data[i] = ' ';
    }
    size_t fit = render_fit(line.data, line.len, columns - 1);
    tty->columns[tty->drawn++] = render_columns(line.data, fit);
    paint(renderer, "36", &renderer->out);
    buf_append(&renderer->out, line.data, fit);
    paint(renderer, "0", &renderer->out);
    buf_putc(&renderer->out, '\n');
}

static void put_question(struct renderer *renderer)
{
    const struct tty *tty = renderer->state;

    paint(renderer, "1", &renderer->out);
    buf_printf(&renderer->out, "%s%s", renderer->utf8 ? "\xe2\x96\xb8 " : "> ", tty->question.data);
    paint(renderer, "0", &renderer->out);
    buf_puts(&renderer->out, " [y/N] ");
}

/* Redrawn only when there is something to say: what was typed so far would be wiped. */
static void draw_question(struct renderer *renderer)
{
    struct tty *tty = renderer->state;

    if (!tty->above.len)
        return;
    buf_puts(&renderer->out, "\r\x1b[J");
    buf_append(&renderer->out, tty->above.data, tty->above.len);
    buf_clear(&tty->above);
    put_question(renderer);
}

static void draw(struct renderer *renderer)
{
    struct tty *tty = renderer->state;

    if (tty->question.len) {
        draw_question(renderer);
        return;
    }
    if (renderer->held) /* the next look draws it all */
        return;
    const struct tally *tally = renderer->tally;
    size_t columns = width(renderer);
    size_t running = 0;

    erase(renderer, columns);
    if (tty->above.len)
        buf_append(&renderer->out, tty->above.data, tty->above.len);
    buf_clear(&tty->above);
    for (size_t i = 0; i < tally->count; i++) {
        if (tally->cells[i].status == CELL_RUNNING && running++ < LIVE_MAX)
            live_line(renderer, &tally->cells[i], columns);
    }
    if (running > LIVE_MAX) {
        cleanup_buf struct buf more = BUF_INIT;
        buf_printf(&more, "  and %zu more", running - LIVE_MAX);
        tty->columns[tty->drawn++] = more.len;
        buf_printf(&renderer->out, "%s\n", more.data);
    }
}

static void tty_hide(struct renderer *renderer)
{
    struct tty *tty = renderer->state;

    erase(renderer, width(renderer));
    buf_append(&renderer->out, tty->above.data, tty->above.len);
    buf_clear(&tty->above);
}

static void tty_event(struct renderer *renderer, const struct value *event)
{
    struct tty *tty = renderer->state;
    cleanup_buf struct buf line = BUF_INIT;
    const char *t = value_get_string(event, "t", "");
    const char *stage = value_get_string(event, "stage", NULL);

    if (strcmp(t, "run_start") == 0) {
        paint(renderer, "1", &tty->above);
        text_shown(value_get_string(event, "pipeline", ""), &tty->above);
        paint(renderer, "0", &tty->above);
        buf_puts(&tty->above, "  ");
        text_shown(value_get_string(event, "run", ""), &tty->above);
        buf_puts(&tty->above, "  profile ");
        text_shown(value_get_string(event, "profile", ""), &tty->above);
        buf_puts(&tty->above, value_get_bool(event, "resumed", false) ? ", resumed\n" : "\n");
        return;
    }
    if (strcmp(t, "stage_start") == 0 || !render_line(renderer, event, &line))
        return;
    if (strcmp(t, "stage_end") == 0) {
        const char *status = value_get_string(event, "status", "");
        bool good = cell_status_good(cell_status_from_name(status));
        paint(renderer, status_colour(status), &tty->above);
        buf_puts(&tty->above, renderer->utf8 ? (good ? "\xe2\x9c\x93 " : "\xe2\x9c\x97 ")
                                             : (good ? "+ " : "x "));
        paint(renderer, "0", &tty->above);
        text_shown(stage ? stage : "", &tty->above);
        buf_printf(&tty->above, "  %s\n", line.data);
        return;
    }
    paint(renderer, "2", &tty->above);
    if (stage) {
        text_shown(stage, &tty->above);
        buf_puts(&tty->above, " | ");
    }
    paint(renderer, "0", &tty->above);
    buf_printf(&tty->above, "%s\n", line.data ? line.data : "");
    if (tty->above.len > 256 * 1024)
        draw(renderer);
}

static void tty_question(struct renderer *renderer, const char *text)
{
    struct tty *tty = renderer->state;

    if (!tty->question.len)
        tty_hide(renderer);
    buf_clear(&tty->question);
    buf_puts(&tty->question, text ? text : "");
    if (text)
        put_question(renderer);
}

static void tty_end(struct renderer *renderer)
{
    struct tty *tty = renderer->state;

    buf_free(&tty->question);
    draw(renderer);
    tally_summary(renderer->tally, renderer->report, true, &renderer->out);
    buf_free(&tty->above);
}

const struct renderer_kind render_tty = {.name = "tty",
                                         .tick_ms = TICK_MS,
                                         .state_size = sizeof(struct tty),
                                         .event = tty_event,
                                         .question = tty_question,
                                         .tick = draw,
                                         .hide = tty_hide,
                                         .end = tty_end};
