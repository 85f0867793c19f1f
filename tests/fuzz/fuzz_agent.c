/*
 * What a child, a script or a service says, in front of a build agent or a terminal. Whatever the
 * bytes are, no line that leaves this program holds a command of the agent's that is not the
 * program's own, and none starts or moves what a terminal shows. The first byte chooses text or
 * events; events are frames, one after another.
 */
#include "fuzz.h"

#include <fcntl.h>
#include <strings.h>
#include <unistd.h>

#include "base/utf8.h"
#include "run/render.h"
#include "run/tally.h"
#include "run/text.h"

/* Does a command of Azure DevOps or of GitHub stand at s? */
static bool command_at(const char *s, size_t left)
{
    return (left >= 6 && strncasecmp(s, "##vso[", 6) == 0) ||
           (left >= 3 && memcmp(s, "##[", 3) == 0);
}

static void harmless_line(const char *s, size_t len)
{
    size_t blank = strspn(s, " \t");

    check(len < 2 || strncmp(s + blank, "::", 2) != 0);
    for (size_t i = 0; i < len;) {
        size_t bytes = utf8_length(s + i, len - i);
        unsigned char c = (unsigned char)s[i];
        check(bytes > 0 && c != 0x7f && (c >= 0x20 || c == '\t'));
        check(!(c == 0xc2 && (unsigned char)s[i + 1] < 0xa0));
        check(!command_at(s + i, len - i));
        i += bytes;
    }
}

static void text(const char *data, size_t size)
{
    cleanup_buf struct buf one = BUF_INIT;
    cleanup_buf struct buf twice = BUF_INIT;
    cleanup_buf struct buf lines = BUF_INIT;
    cleanup_buf struct buf escaped = BUF_INIT;

    text_harmless(data, size, &one);
    if (one.len) {
        harmless_line(one.data, one.len);
        check(!memchr(one.data, '\n', one.len) && one.len <= 6 * size);
        text_harmless(one.data, one.len, &twice); /* what is harmless stays as it is */
        check(twice.len == one.len && memcmp(twice.data, one.data, one.len) == 0);
    }
    text_harmless_lines(data, size, &lines);
    for (size_t at = 0; at < lines.len;) {
        size_t len = strcspn(lines.data + at, "\n");
        cleanup_free char *line = mem_strndup(lines.data + at, len);
        harmless_line(line, len);
        at += len + 1;
    }
    cleanup_free char *whole = mem_strndup(data, size);
    text_azdo(whole, true, &escaped);
    check(!escaped.data || !strpbrk(escaped.data, "\r\n;]"));
    buf_clear(&escaped);
    text_xml(whole, &escaped);
    check(!escaped.data || !strpbrk(escaped.data, "<>\"\x01\x1f\r\n"));
    buf_clear(&escaped);
    text_markdown(whole, size / 2, &escaped);
    check(!escaped.data || !strpbrk(escaped.data, "<\r\n\x1b"));
}

/* Each line of an agent's log: a command is one of ours, and stands at its start. */
static void agent_log(const struct buf *out)
{
    static const char *const ours[] = {"##[group]",
                                       "##[endgroup]",
                                       "##vso[task.logissue ",
                                       "##vso[task.setvariable ",
                                       "##vso[task.setprogress ",
                                       "##vso[task.complete ",
                                       "##vso[task.uploadsummary]",
                                       "##vso[results.publish "};

    for (size_t at = 0; at < out->len;) {
        const char *line = out->data + at;
        const char *end = memchr(line, '\n', out->len - at);
        size_t len = end ? (size_t)(end - line) : out->len - at;
        size_t from = 0;
        for (size_t i = 0; i < sizeof ours / sizeof *ours && !from; i++)
            if (len >= strlen(ours[i]) && memcmp(line, ours[i], strlen(ours[i])) == 0)
                from = strlen(ours[i]);
        check(!memchr(line, '\r', len) && !memchr(line, '\0', len) && !memchr(line, '\x1b', len));
        /* The agent takes the first command of a line; in it, and behind its "]", all is data. */
        if (!from || line[2] == '[')
            for (size_t i = from; i < len; i++)
                check(!command_at(line + i, len - i));
        else if (line[from - 1] != ']')
            check(memchr(line + from, ']', len - from));
        if (!from)
            check(strncmp(line + strspn(line, " \t"), "::", 2) != 0);
        at += len + 1;
    }
}

/* The value of a variable that is secret is only in the command that tells it to the agent. */
static void redacted(const struct value *event)
{
    cleanup_value struct value copy = {0};

    event_redact(event, &copy);
    if (strcmp(value_get_string(event, "t", ""), "variable") == 0 &&
        value_get_bool(event, "secret", false))
        check(strcmp(value_get_string(&copy, "value", ""), "***") == 0);
    else
        check(same_value(event, &copy));
}

/* Nothing moves what a terminal shows but the renderer itself: colours, up, clear to the end. */
static void terminal(const struct buf *out)
{
    for (size_t i = 0; i < out->len;) {
        unsigned char c = (unsigned char)out->data[i];
        size_t bytes = utf8_length(out->data + i, out->len - i);
        if (c == '\x1b') {
            check(out->data[i + 1] == '[');
            i += 2 + strspn(out->data + i + 2, "0123456789");
            check(out->data[i] == 'm' || out->data[i] == 'A' || out->data[i] == 'J');
            i++;
            continue;
        }
        check(bytes && c != 0x7f && (c >= 0x20 || c == '\t' || c == '\n' || c == '\r'));
        check(!(c == 0xc2 && (unsigned char)out->data[i + 1] < 0xa0));
        i += bytes;
    }
}

static void show(const char *kind, const struct value *events)
{
    struct error err = {0};
    struct tally tally;

    tally_init(&tally);
    struct renderer *renderer = renderer_new(kind, &tally, false, true, &err);
    check(renderer);
    renderer->fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    renderer->report = "/reports/report.md";
    renderer->junit = "/reports/junit.xml";
    for (size_t i = 0; i < value_count(events); i++) {
        tally_event(&tally, value_at(events, i));
        renderer_event(renderer, value_at(events, i));
        if (renderer->kind->tick)
            renderer->kind->tick(renderer);
    }
    renderer->kind->end(renderer);
    if (strcmp(kind, "azdo") == 0)
        agent_log(&renderer->out);
    if (strcmp(kind, "plain") == 0)
        terminal(&renderer->out);
    if (strcmp(kind, "tty") == 0)
        terminal(&renderer->out);
    int fd = renderer->fd;
    renderer_free(renderer);
    close(fd);
    tally_free(&tally);
}

static void events(const char *data, size_t size)
{
    cleanup_value struct value list = {0};
    struct error err = {0};

    if (value_from_json(data, size, "events", NULL, &list, &err) < 0 || list.kind != VALUE_ARRAY)
        return;
    for (size_t i = 0; i < value_count(&list); i++) {
        if (value_at(&list, i)->kind != VALUE_MAP || value_get(value_at(&list, i), "commands"))
            return; /* commands that were granted are none of others */
        redacted(value_at(&list, i));
    }
    show("azdo", &list);
    show("plain", &list);
    show("json", &list);
    show("tty", &list);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    if (data[0] & 1)
        events((const char *)data + 1, size - 1);
    else
        text((const char *)data + 1, size - 1);
    return 0;
}
