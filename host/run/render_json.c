/* One JSON object a line: every event as the journal has it, and output, log and progress too. */
#include "run/render.h"
#include "run/text.h"

static void json_event(struct renderer *renderer, const struct value *event)
{
    struct value copy = {0};

    event_redact(event, &copy);
    text_json(&copy, 0, &renderer->out);
    buf_putc(&renderer->out, '\n');
    value_free(&copy);
}

static void json_end(struct renderer *renderer)
{
    struct value line = {0};

    value_set_map(&line);
    value_put_string(&line, "t", "report_file");
    value_put_string(&line, "run", renderer->tally->run);
    value_put_string(&line, "path", renderer->report);
    text_json(&line, 0, &renderer->out);
    buf_putc(&renderer->out, '\n');
    value_free(&line);
}

const struct renderer_kind render_json = {.name = "json", .event = json_event, .end = json_end};
