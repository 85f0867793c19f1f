#include "run/report.h"

#include <fcntl.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "run/text.h"

#define SUMMARY_FILE_MAX (256u << 10)
#define ISSUES_SHOWN     50

static const char *mark(enum cell_status status)
{
    return status == CELL_OK ? "✅" : status == CELL_SKIPPED || status == CELL_BLOCKED ? "➖" : "❌";
}

static void stages(const struct tally *tally, struct buf *out)
{
    buf_puts(out, "\n| stage | state | duration | attempts | note |\n|---|---|---:|---:|---|\n");
    for (size_t i = 0; i < tally->count; i++) {
        const struct tally_cell *cell = &tally->cells[i];
        const char *note = value_get_string(&cell->error, "message", cell->reason);
        buf_puts(out, "| ");
        text_markdown(cell->name, 0, out);
        buf_printf(out, " | %s %s | ", mark(cell->status), cell_status_name(cell->status));
        if (cell->started_ms)
            duration_print(ns_of_ms(cell->duration_ms), out);
        if (cell->attempt)
            buf_printf(out, " | %d | ", cell->attempt);
        else
            buf_puts(out, " | | ");
        text_markdown(note ? note : "", 200, out);
        buf_puts(out, " |\n");
    }
}

/* Indented by four: nothing in it can end the block, whatever it holds. */
static void code_block(const char *text, struct buf *out)
{
    cleanup_buf struct buf safe = BUF_INIT;

    text_harmless_lines(text, strlen(text), &safe);
    buf_putc(out, '\n');
    for (const char *line = safe.data; line && *line;) {
        size_t len = strcspn(line, "\n");
        buf_printf(out, "    %.*s\n", (int)len, line);
        line += len + (line[len] == '\n');
    }
    buf_putc(out, '\n');
}

static void failures(const struct tally *tally, struct buf *out)
{
    bool first = true;

    for (size_t i = 0; i < tally->count; i++) {
        const struct tally_cell *cell = &tally->cells[i];
        if (!cell_status_over(cell->status) || cell_status_good(cell->status) ||
            cell->status == CELL_BLOCKED)
            continue;
        cleanup_buf struct buf text = BUF_INIT;
        buf_puts(out, first ? "\n## What failed\n\n### " : "\n### ");
        first = false;
        text_markdown(cell->name, 0, out);
        buf_putc(out, '\n');
        error_place(&cell->error, &text);
        buf_printf(&text, "%s\n",
                   value_get_string(&cell->error, "message", cell->reason ? cell->reason : ""));
        const char *hint = value_get_string(&cell->error, "hint", "");
        if (hint[0])
            buf_printf(&text, "hint: %s\n", hint);
        buf_puts(&text, value_get_string(&cell->error, "traceback", ""));
        code_block(text.data, out);
        buf_clear(&text);
        tally_tail(cell, &text);
        if (text.len) {
            buf_puts(out, "Last lines of its log:\n");
            code_block(text.data, out);
        }
    }
}

static void links(const struct tally *tally, struct buf *out)
{
    for (size_t i = 0; i < value_count(&tally->links); i++) {
        const struct value *link = value_at(&tally->links, i);
        const char *url = value_get_string(link, "url", value_get_string(link, "text", ""));
        bool web = (strncmp(url, "https://", 8) == 0 || strncmp(url, "http://", 7) == 0) &&
                   !strpbrk(url, " ()<>\n\r\t");
        if (i == 0)
            buf_puts(out, "\n## Links\n\n");
        buf_puts(out, web ? "- [" : "- ");
        text_markdown(value_get_string(link, "title", "link"), 0, out);
        buf_puts(out, web ? "](" : ": ");
        if (web)
            text_shown(url, out);
        else
            text_markdown(url, 0, out);
        buf_puts(out, web ? ")\n" : "\n");
    }
}

static void issues(const struct tally *tally, struct buf *out)
{
    size_t count = value_count(&tally->issues);

    if (count == 0)
        return;
    buf_printf(out,
               "\n## Issues\n\n%d errors, %d warnings\n\n| level | where | message | rule "
               "|\n|---|---|---|---|\n",
               tally->errors, tally->warnings);
    for (size_t i = 0; i < count && i < ISSUES_SHOWN; i++) {
        const struct value *issue = value_at(&tally->issues, i);
        buf_printf(out, "| %s | ",
                   strcmp(value_get_string(issue, "level", ""), "error") == 0 ? "error"
                                                                              : "warning");
        text_markdown(value_get_string(issue, "file", ""), 0, out);
        if (value_get_int(issue, "line", 0) > 0)
            buf_printf(out, ":%lld", (long long)value_get_int(issue, "line", 0));
        buf_puts(out, " | ");
        text_markdown(value_get_string(issue, "message", ""), 300, out);
        buf_puts(out, " | ");
        text_markdown(value_get_string(issue, "rule", ""), 60, out);
        buf_puts(out, " |\n");
    }
    if (count > ISSUES_SHOWN)
        buf_printf(out, "\nand %zu more\n", count - ISSUES_SHOWN);
}

/* The fence that a line is: its length, or 0. */
static size_t fence(const char *line, size_t len, char *mark)
{
    size_t blank = 0, n = 0;

    while (blank < len && blank < 4 && line[blank] == ' ')
        blank++;
    if (blank == 4 || blank == len || (line[blank] != '`' && line[blank] != '~'))
        return 0;
    while (blank + n < len && line[blank + n] == line[blank])
        n++;
    *mark = line[blank];
    return n < 3 ? 0 : n;
}

/* Length of the code span that begins at s, or of its backticks when it does not end. */
static size_t code_span(const char *s, size_t len, bool *whole)
{
    size_t n = 0;

    while (n < len && s[n] == '`')
        n++;
    for (size_t at = n; at < len;) {
        size_t run = 0;
        while (at + run < len && s[at + run] == '`')
            run++;
        *whole = run == n;
        if (*whole)
            return at + run;
        at += run ? run : 1;
    }
    *whole = false;
    return n;
}

static bool web_link(const char *s, size_t len)
{
    return (len > 9 && strncmp(s, "<https://", 9) == 0) ||
           (len > 8 && strncmp(s, "<http://", 8) == 0);
}

static void foreign_line(const char *line, size_t len, struct buf *out)
{
    for (size_t i = 0; i < len;) {
        bool whole = false;
        size_t span = line[i] == '`' ? code_span(line + i, len - i, &whole) : 0;
        if (span) {
            buf_append(out, line + i, span);
            i += span;
        } else if (line[i] == '<' && !web_link(line + i, len - i)) {
            buf_puts(out, "&lt;");
            i++;
        } else {
            buf_putc(out, line[i++]);
        }
    }
}

/* Markdown of others stays Markdown, without HTML of its own; a fence that is open ends with it. */
static void foreign(const char *text, size_t len, struct buf *out)
{
    cleanup_buf struct buf safe = BUF_INIT;
    size_t open = 0;
    char mark = 0;

    text_harmless_lines(text, len, &safe);
    for (size_t at = 0; at < safe.len;) {
        const char *line = safe.data + at;
        size_t width = strcspn(line, "\n");
        char here = 0;
        size_t n = fence(line, width, &here);
        if (open) {
            buf_append(out, line, width);
            if (n >= open && here == mark && strspn(line, " `~") == width)
                open = 0;
        } else {
            foreign_line(line, width, out);
            /* Of backticks none may stand behind a fence's own. */
            if (n && (here == '~' || !memchr(strchr(line, here) + n, '`',
                                             width - (size_t)(strchr(line, here) + n - line)))) {
                open = n;
                mark = here;
            }
        }
        buf_putc(out, '\n');
        at += width + 1;
    }
    for (size_t i = 0; i < open; i++)
        buf_putc(out, mark);
    if (open)
        buf_putc(out, '\n');
}

static void summaries(const struct tally *tally, struct buf *out)
{
    for (size_t i = 0; i < value_count(&tally->summaries); i++) {
        const struct value *summary = value_at(&tally->summaries, i);
        const char *path =
            value_get_string(summary, "copy", value_get_string(summary, "path", NULL));
        const char *title = value_get_string(summary, "title", NULL);
        cleanup_buf struct buf text = BUF_INIT;
        struct error err = {0};
        if (path && file_read(AT_FDCWD, path, SUMMARY_FILE_MAX, &text, &err) < 0)
            buf_printf(&text, "(not readable: %s)", err.message);
        else if (!path)
            buf_puts(&text, value_get_string(summary, "text", ""));
        buf_puts(out, "\n## ");
        text_markdown(title ? title : value_get_string(summary, "stage", "summary"), 0, out);
        buf_puts(out, "\n\n");
        foreign(text.data ? text.data : "", text.len, out);
    }
}

static void outputs(const struct tally *tally, struct buf *out)
{
    bool first = true;

    for (size_t i = 0; i < tally->count; i++) {
        const struct tally_cell *cell = &tally->cells[i];
        if (cell->output.kind == VALUE_NIL ||
            (cell->output.kind == VALUE_MAP && value_count(&cell->output) == 0))
            continue;
        cleanup_buf struct buf text = BUF_INIT;
        value_to_json(&cell->output, 0, &text);
        if (first)
            buf_puts(out, "\n## Outputs\n\n| stage | output |\n|---|---|\n");
        first = false;
        buf_puts(out, "| ");
        text_markdown(cell->name, 0, out);
        buf_puts(out, " | ");
        text_markdown(text.data, 500, out);
        buf_puts(out, " |\n");
    }
}

void report_markdown(const struct tally *tally, struct buf *out)
{
    const char *status = tally->status ? tally->status : "";

    buf_puts(out, "# ");
    text_markdown(tally->pipeline ? tally->pipeline : "pipeline", 0, out);
    buf_printf(out, ": %s\n\nRun `%s` of `", status, tally->run ? tally->run : "");
    text_markdown(tally->script ? tally->script : "", 0, out);
    buf_puts(out, "`, profile `");
    text_markdown(tally->profile ? tally->profile : "", 0, out);
    buf_puts(out, "`, started ");
    time_print(tally->started_ms, out);
    buf_puts(out, ", took ");
    duration_print(ns_of_ms(tally->duration_ms), out);
    buf_puts(out, ".\n");
    if (tally->degraded) {
        buf_puts(out, "\n**Degraded**: it ran without this of its sandbox (`--allow-degraded`): ");
        text_markdown(tally->degraded, 0, out);
        buf_puts(out, ".\n");
    }
    stages(tally, out);
    failures(tally, out);
    links(tally, out);
    summaries(tally, out);
    outputs(tally, out);
    issues(tally, out);
    if (value_count(&tally->params)) {
        buf_puts(out, "\n## Parameters\n\n| parameter | value |\n|---|---|\n");
        for (size_t i = 0; tally->params.kind == VALUE_MAP && i < tally->params.as.map.count; i++) {
            cleanup_buf struct buf text = BUF_INIT;
            value_to_json(&tally->params.as.map.pairs[i].value, 0, &text);
            buf_puts(out, "| ");
            text_markdown(tally->params.as.map.pairs[i].key, 0, out);
            buf_puts(out, " | ");
            text_markdown(text.data, 300, out);
            buf_puts(out, " |\n");
        }
    }
}

static int put(const char *dir, const char *name, const char *other, const struct buf *text,
               struct error *err)
{
    cleanup_free char *path = path_join(dir, name);

    if (file_write(AT_FDCWD, path, text->data, text->len, false, err) < 0)
        return -1;
    return other ? file_write(AT_FDCWD, other, text->data, text->len, false, err) : 0;
}

int report_write(const struct tally *tally, const char *dir, const char *junit, const char *summary,
                 struct value *skipped, struct error *err)
{
    cleanup_buf struct buf markdown = BUF_INIT;
    cleanup_buf struct buf xml = BUF_INIT;

    report_markdown(tally, &markdown);
    report_junit(tally, skipped, &xml);
    if (put(dir, "report.md", summary, &markdown, err) < 0)
        return error_wrap(err, "report");
    if (put(dir, "junit.xml", junit, &xml, err) < 0)
        return error_wrap(err, "JUnit report");
    return 0;
}
