#include "run/render.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/config.h"
#include "base/mem.h"
#include "run/text.h"

static const struct renderer_kind *choose(const char *name, struct error *err)
{
    static const struct renderer_kind *const kinds[] = {&render_tty, &render_plain, &render_json,
                                                        &render_azdo};
    const char *tf = getenv("TF_BUILD");
    const char *term = getenv("TERM");

    for (size_t i = 0; name && i < sizeof kinds / sizeof kinds[0]; i++) {
        if (strcmp(kinds[i]->name, name) == 0)
            return kinds[i];
    }
    if (name) {
        error_set(err, ERR_USAGE, "unknown output '%s'", name);
        error_hint(err, "allowed: tty, plain, json, azdo");
        return NULL;
    }
    if (tf && tf[0])
        return &render_azdo;
    if (isatty(STDOUT_FILENO) && term && strcmp(term, "dumb") != 0)
        return &render_tty;
    return &render_plain;
}

static bool locale_is_utf8(void)
{
    static const char *const names[] = {"LC_ALL", "LC_CTYPE", "LANG"};

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const char *v = getenv(names[i]);
        if (v && v[0])
            return strcasestr(v, "utf-8") || strcasestr(v, "utf8");
    }
    return false;
}

struct renderer *renderer_new(const char *name, const struct tally *tally, bool quiet, bool verbose,
                              struct error *err)
{
    const struct renderer_kind *kind = choose(name, err);
    const char *no_color = getenv("NO_COLOR");

    if (!kind)
        return NULL;
    struct renderer *renderer = mem_alloc(sizeof *renderer);
    *renderer = (struct renderer){.kind = kind,
                                  .tally = tally,
                                  .fd = STDOUT_FILENO,
                                  .quiet = quiet,
                                  .verbose = verbose,
                                  .utf8 = locale_is_utf8()};
    renderer->colour = kind == &render_tty && !(no_color && no_color[0]);
    renderer->state = kind->state_size ? mem_alloc(kind->state_size) : NULL;
    return renderer;
}

void renderer_event(struct renderer *renderer, const struct value *event)
{
    renderer->kind->event(renderer, event);
    if (renderer->out.len > 64 * 1024)
        renderer_flush(renderer);
}

void renderer_hold(struct renderer *renderer, bool held)
{
    if (held && !renderer->held && renderer->kind->hide)
        renderer->kind->hide(renderer);
    if (held)
        renderer_flush(renderer);
    renderer->held = held;
}

#define HELD_MAX (4u << 20) /* nothing is lost, if need be in the middle of a prompt */

void renderer_flush(struct renderer *renderer)
{
    struct error ignored = {0};

    if (renderer->held && renderer->out.len < HELD_MAX)
        return;

    /* A reader that went away must not end the run: the journal and the report hold all of it. */
    if (renderer->out.len)
        (void)fd_write_all(renderer->fd, renderer->out.data, renderer->out.len, &ignored);
    buf_clear(&renderer->out);
}

void renderer_free(struct renderer *renderer)
{
    if (!renderer)
        return;
    renderer_flush(renderer);
    buf_free(&renderer->out);
    free(renderer->state);
    free(renderer);
}

void event_redact(const struct value *event, struct value *copy)
{
    value_copy(copy, event);
    if (strcmp(value_get_string(event, "t", ""), "variable") == 0 &&
        value_get_bool(event, "secret", false))
        value_put_string(copy, "value", "***");
}

size_t render_columns(const char *text, size_t len)
{
    size_t columns = 0;

    for (size_t i = 0; i < len; i++)
        columns += ((unsigned char)text[i] & 0xc0) != 0x80;
    return columns;
}

size_t render_fit(const char *text, size_t len, size_t columns)
{
    size_t i = 0;

    for (size_t seen = 0; i < len; i++) {
        if (((unsigned char)text[i] & 0xc0) != 0x80 && seen++ == columns)
            break;
    }
    return i;
}

void render_stage_end(const struct value *event, struct buf *out)
{
    const char *status = value_get_string(event, "status", "");
    const char *reason = value_get_string(event, "reason", NULL);
    const char *message = value_get_string(value_get(event, "error"), "message", reason);

    text_shown(status, out);
    if (value_get_int(event, "duration_ms", 0) > 0 || strcmp(status, "ok") == 0) {
        buf_puts(out, " in ");
        duration_print(ns_of_ms(value_get_int(event, "duration_ms", 0)), out);
    }
    if (message) {
        size_t line = strcspn(message, "\n");
        buf_puts(out, ": ");
        text_harmless(message, line, out);
    }
}

static bool log_line(const struct renderer *renderer, const struct value *event, struct buf *out)
{
    const char *level = value_get_string(event, "level", "info");
    bool problem = strcmp(level, "error") == 0 || strcmp(level, "warning") == 0;

    if (strcmp(level, "debug") == 0 ? !renderer->verbose : renderer->quiet && !problem)
        return false;
    cleanup_buf struct buf text = BUF_INIT;
    if (problem || strcmp(level, "debug") == 0)
        buf_printf(&text, "%s: ", level);
    buf_puts(&text, value_get_string(event, "text", ""));
    text_shown(text.data ? text.data : "", out);
    return true;
}

static void issue_line(const struct value *event, struct buf *out)
{
    cleanup_buf struct buf text = BUF_INIT;
    const char *rule = value_get_string(event, "rule", NULL);
    const char *file = value_get_string(event, "file", NULL);

    if (file)
        buf_printf(&text, "%s:%lld:%lld: ", file, (long long)value_get_int(event, "line", 1),
                   (long long)value_get_int(event, "column", 1));
    buf_printf(&text, "%s: %s", value_get_string(event, "level", "warning"),
               value_get_string(event, "message", ""));
    if (rule)
        buf_printf(&text, " [%s]", rule);
    text_shown(text.data, out);
}

bool render_line(const struct renderer *renderer, const struct value *event, struct buf *out)
{
    const char *t = value_get_string(event, "t", "");

    if (strcmp(t, "output") == 0) {
        if (renderer->quiet)
            return false;
        const struct value *text = value_get(event, "text");
        if (!text || text->kind != VALUE_STRING)
            return true;
        if (renderer->kind->agent && value_get_bool(event, "commands", false))
            text_commands(text->as.string.data, text->as.string.len, out);
        else
            text_harmless(text->as.string.data, text->as.string.len, out);
        return true;
    }
    if (strcmp(t, "log") == 0)
        return log_line(renderer, event, out);
    if (strcmp(t, "issue") == 0) {
        issue_line(event, out);
        return true;
    }
    if (strcmp(t, "stage_start") == 0) {
        int64_t attempt = value_get_int(event, "attempt", 1);
        buf_puts(out, "started");
        if (attempt > 1)
            buf_printf(out, ", attempt %lld", (long long)attempt);
        return true;
    }
    if (strcmp(t, "stage_end") == 0) {
        render_stage_end(event, out);
        return true;
    }
    if (strcmp(t, "stage_retry") == 0) {
        const char *message = value_get_string(value_get(event, "error"), "message", "failed");
        buf_printf(out, "attempt %lld failed: ", (long long)value_get_int(event, "attempt", 1));
        text_harmless(message, strcspn(message, "\n"), out);
        buf_puts(out, "; again in ");
        duration_print(ns_of_ms(value_get_int(event, "delay_ms", 0)), out);
        return true;
    }
    if (strcmp(t, "variable") == 0 && !renderer->quiet) {
        bool secret = value_get_bool(event, "secret", false);
        cleanup_buf struct buf text = BUF_INIT;
        buf_printf(&text, "variable %s = %s", value_get_string(event, "name", ""),
                   secret ? "***" : value_get_string(event, "value", ""));
        text_shown(text.data, out);
        return true;
    }
    return false;
}
