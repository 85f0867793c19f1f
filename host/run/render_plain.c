/* Plain text, one line per event: "12:00:00 [stage] text". */
#include <string.h>
#include <time.h>

#include "run/render.h"
#include "run/text.h"

static void put_time(const struct value *event, struct buf *out)
{
    time_t seconds = (time_t)(value_get_int(event, "time", 0) / 1000);
    struct tm tm;
    char text[16];

    localtime_r(&seconds, &tm);
    strftime(text, sizeof text, "%H:%M:%S", &tm);
    buf_printf(out, "%s ", text);
}

static void plain_event(struct renderer *renderer, const struct value *event)
{
    cleanup_buf struct buf line = BUF_INIT;
    const char *stage = value_get_string(event, "stage", NULL);

    if (strcmp(value_get_string(event, "t", ""), "run_start") == 0) {
        if (renderer->quiet)
            return;
        buf_printf(&line, "%s %s (profile %s)%s", value_get_string(event, "pipeline", ""),
                   value_get_string(event, "run", ""), value_get_string(event, "profile", ""),
                   value_get_bool(event, "resumed", false) ? ", resumed" : "");
        put_time(event, &renderer->out);
        text_shown(line.data, &renderer->out);
        buf_putc(&renderer->out, '\n');
        return;
    }
    if (!render_line(renderer, event, &line))
        return;
    if (line.len > 2 && strncmp(line.data, "::", 2) == 0) { /* granted, or it would not be there */
        buf_printf(&renderer->out, "%s\n", line.data);
        return;
    }
    put_time(event, &renderer->out);
    if (stage) {
        buf_putc(&renderer->out, '[');
        text_shown(stage, &renderer->out);
        buf_puts(&renderer->out, "] ");
    }
    buf_printf(&renderer->out, "%s\n", line.data ? line.data : "");
}

static void plain_question(struct renderer *renderer, const char *text)
{
    if (text)
        buf_printf(&renderer->out, "%s [y/N] ", text);
}

static void plain_end(struct renderer *renderer)
{
    tally_summary(renderer->tally, renderer->report, renderer->quiet, &renderer->out);
}

const struct renderer_kind render_plain = {.name = "plain",
                                           .agent = true,
                                           .event = plain_event,
                                           .question = plain_question,
                                           .end = plain_end};
