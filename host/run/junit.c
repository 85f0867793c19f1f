/* JUnit of the stages, and the merging of JUnit files of others, which are input from outside:
 * checked before they are copied, so that one bad file cannot spoil the whole. */
#include <fcntl.h>
#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "run/report.h"
#include "run/text.h"

#define JUNIT_FILE_MAX (16u << 20)
#define DEPTH_MAX      64
#define PREFIXES_MAX   16
#define ATTRIBUTES_MAX 32

struct scan {
    const char *text;
    size_t len, at;
    struct {
        const char *name;
        size_t len;
    } open[DEPTH_MAX];
    size_t depth;
    size_t suite_from, suite_depth; /* of the suite that is being copied; depth 0: none */
    struct {
        const char *name;
        size_t len, depth;
    } prefixes[PREFIXES_MAX]; /* of namespaces, declared in that suite */
    size_t prefix_count;
};

static int bad(const struct scan *scan, const char *what, struct error *err)
{
    int line = 1;

    for (size_t i = 0; i < scan->at && i < scan->len; i++)
        line += scan->text[i] == '\n';
    return error_set(err, ERR_INVALID, "line %d: %s", line, what);
}

static bool starts(const struct scan *scan, const char *with)
{
    size_t n = strlen(with);
    return scan->len - scan->at >= n && memcmp(scan->text + scan->at, with, n) == 0;
}

/* Past the next occurrence of `end`; false when there is none. */
static bool skip_past(struct scan *scan, const char *end)
{
    const char *found = memmem(scan->text + scan->at, scan->len - scan->at, end, strlen(end));

    if (!found)
        return false;
    scan->at = (size_t)(found - scan->text) + strlen(end);
    return true;
}

static bool name_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-' || c == '.' || c == ':';
}

static size_t name_len(const struct scan *scan)
{
    const char *text = scan->text + scan->at;
    size_t n = 0, colons = 0;

    /* A name, or prefix:name; each begins with a letter. */
    while (scan->at + n < scan->len && name_char(text[n])) {
        bool first = n == 0 || text[n - 1] == ':';
        if (first && (text[n] == '-' || text[n] == '.' || text[n] == ':' ||
                      (text[n] >= '0' && text[n] <= '9')))
            return 0;
        colons += text[n] == ':';
        n++;
    }
    return colons > 1 || (n && text[n - 1] == ':') ? 0 : n;
}

/* &amp; and its like, or a character reference: the entities that need no DOCTYPE. */
static bool entity(struct scan *scan)
{
    static const char *const known[] = {"&amp;", "&lt;", "&gt;", "&quot;", "&apos;"};

    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (starts(scan, known[i])) {
            scan->at += strlen(known[i]);
            return true;
        }
    }
    if (!starts(scan, "&#"))
        return false;
    bool hex = scan->at + 2 < scan->len && scan->text[scan->at + 2] == 'x';
    unsigned long code = 0;
    size_t i = scan->at + 2 + hex;
    for (; i < scan->len && scan->text[i] != ';' && code <= 0x10ffff; i++) {
        char c = scan->text[i];
        int digit = c >= '0' && c <= '9'          ? c - '0'
                    : hex && c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : hex && c >= 'A' && c <= 'F' ? c - 'A' + 10
                                                  : -1;
        if (digit < 0)
            return false;
        code = code * (hex ? 16 : 10) + (unsigned)digit;
    }
    if (i >= scan->len || scan->text[i] != ';' || code > 0x10ffff ||
        (code >= 0xd800 && code <= 0xdfff) ||
        (code < 0x20 && code != 9 && code != 10 && code != 13))
        return false;
    scan->at = i + 1;
    return true;
}

/* One character of text or of an attribute's value. */
static int character(struct scan *scan, struct error *err)
{
    size_t bytes = utf8_length(scan->text + scan->at, scan->len - scan->at);
    unsigned char c = (unsigned char)scan->text[scan->at];

    if (c == '&')
        return entity(scan) ? 0 : bad(scan, "unknown entity", err);
    bool non_character = bytes == 3 && c == 0xef &&
                         (unsigned char)scan->text[scan->at + 1] == 0xbf &&
                         (unsigned char)scan->text[scan->at + 2] >= 0xbe;
    if (bytes == 0 || non_character || (c < 0x20 && c != '\t' && c != '\n' && c != '\r'))
        return bad(scan, "a character that XML cannot hold", err);
    scan->at += bytes;
    return 0;
}

/* A comment, a CDATA section, the declaration: up to `end`, of characters that XML can hold. */
static int section(struct scan *scan, const char *end, struct error *err)
{
    struct scan inside = *scan;

    if (!skip_past(scan, end) || (*end == ']' && scan->depth == 0))
        return bad(&inside, "something that does not end", err);
    inside.at += *end == '-' ? 4 : 2; /* what opens it */
    while (inside.at < scan->at) {
        if (*end == '-' && inside.at + 3 < scan->at && starts(&inside, "--"))
            return bad(&inside, "'--' in a comment", err);
        if (inside.text[inside.at] == '&')
            inside.at++;
        else if (character(&inside, err) < 0)
            return -1;
    }
    return 0;
}

static void skip_space(struct scan *scan)
{
    while (scan->at < scan->len && strchr(" \t\r\n", scan->text[scan->at]) && scan->text[scan->at])
        scan->at++;
}

struct name {
    const char *text;
    size_t len, prefix; /* bytes before the colon; 0: there is none */
};

static struct name split_name(const char *text, size_t len)
{
    const char *colon = memchr(text, ':', len);
    return (struct name){text, len, colon ? (size_t)(colon - text) : 0};
}

static bool same(const char *a, size_t a_len, const char *b, size_t b_len)
{
    return a_len == b_len && memcmp(a, b, a_len) == 0;
}

/* xmlns:PREFIX='...': known in this element and below. */
static int declare(struct scan *scan, const struct name *name, bool empty, struct error *err)
{
    const char *prefix = name->text + name->prefix + 1;
    size_t len = name->len - name->prefix - 1;

    if (empty || same(prefix, len, "xml", 3) || same(prefix, len, "xmlns", 5))
        return bad(scan, "a namespace that cannot be declared", err);
    if (scan->prefix_count == PREFIXES_MAX)
        return bad(scan, "too many namespaces", err);
    scan->prefixes[scan->prefix_count].name = prefix;
    scan->prefixes[scan->prefix_count].len = len;
    scan->prefixes[scan->prefix_count++].depth = scan->depth + 1;
    return 0;
}

/* What a suite has from outside of it is lost where it is merged. */
static int check_prefix(const struct scan *scan, const struct name *name, struct error *err)
{
    bool known = name->prefix == 0 || same(name->text, name->prefix, "xml", 3) ||
                 same(name->text, name->prefix, "xmlns", 5);

    for (size_t i = 0; i < scan->prefix_count; i++)
        known =
            known || same(name->text, name->prefix, scan->prefixes[i].name, scan->prefixes[i].len);
    return known ? 0 : bad(scan, "a prefix that the suite does not declare", err);
}

static int value(struct scan *scan, bool *empty, struct error *err)
{
    char quote;

    skip_space(scan);
    if (!starts(scan, "="))
        return bad(scan, "an attribute without a value", err);
    scan->at++;
    skip_space(scan);
    quote = scan->at < scan->len ? scan->text[scan->at] : '\0';
    if (quote != '"' && quote != '\'')
        return bad(scan, "an attribute's value without quotes", err);
    size_t from = ++scan->at;
    while (scan->at < scan->len && scan->text[scan->at] != quote) {
        if (scan->text[scan->at] == '<')
            return bad(scan, "'<' in an attribute", err);
        if (character(scan, err) < 0)
            return -1;
    }
    if (scan->at >= scan->len)
        return bad(scan, "a value that does not end", err);
    *empty = scan->at == from;
    scan->at++;
    return 0;
}

static int attributes(struct scan *scan, const struct name *element, struct error *err)
{
    struct name seen[ATTRIBUTES_MAX];
    size_t count = 0;

    for (;; count++) {
        size_t before = scan->at;
        bool empty = false;
        skip_space(scan);
        size_t n = name_len(scan);
        if (n == 0)
            break;
        if (scan->at == before)
            return bad(scan, "attributes without a blank between", err);
        if (count == ATTRIBUTES_MAX)
            return bad(scan, "too many attributes", err);
        seen[count] = split_name(scan->text + scan->at, n);
        scan->at += n;
        if (value(scan, &empty, err) < 0)
            return -1;
        if (same(seen[count].text, seen[count].prefix, "xmlns", 5) &&
            declare(scan, &seen[count], empty, err) < 0)
            return -1;
    }
    for (size_t i = 0; i < count; i++) {
        size_t skip = seen[i].prefix ? seen[i].prefix + 1 : 0;
        if (check_prefix(scan, &seen[i], err) < 0)
            return -1;
        /* Two prefixes may be of one namespace. */
        for (size_t k = 0; k < i; k++) {
            size_t other = seen[k].prefix ? seen[k].prefix + 1 : 0;
            if ((skip != 0) == (other != 0) && same(seen[i].text + skip, seen[i].len - skip,
                                                    seen[k].text + other, seen[k].len - other))
                return bad(scan, "an attribute that is there twice", err);
        }
    }
    return check_prefix(scan, element, err);
}

static void suite_done(struct scan *scan, struct buf *out)
{
    buf_puts(out, "  ");
    buf_append(out, scan->text + scan->suite_from, scan->at - scan->suite_from);
    buf_putc(out, '\n');
    scan->suite_depth = 0;
}

static void leave(struct scan *scan)
{
    while (scan->prefix_count && scan->prefixes[scan->prefix_count - 1].depth >= scan->depth)
        scan->prefix_count--;
    scan->depth--;
}

static int open_tag(struct scan *scan, struct buf *out, struct error *err)
{
    size_t from = scan->at++;
    size_t n = name_len(scan);
    const char *name = scan->text + scan->at;

    if (n == 0)
        return bad(scan, "'<' without a name", err);
    bool suite = n == 9 && memcmp(name, "testsuite", 9) == 0;
    bool root = n == 10 && memcmp(name, "testsuites", 10) == 0;
    if (scan->depth == 0 && !suite && !root)
        return bad(scan, "the root must be testsuite or testsuites", err);
    if (scan->depth == DEPTH_MAX)
        return bad(scan, "too deep", err);
    if (suite && scan->suite_depth == 0)
        scan->prefix_count = 0;
    struct name element = split_name(name, n);
    scan->at += n;
    if (attributes(scan, &element, err) < 0)
        return -1;
    scan->open[scan->depth].name = name;
    scan->open[scan->depth].len = n;
    scan->depth++;
    if (suite && scan->suite_depth == 0) {
        scan->suite_from = from;
        scan->suite_depth = scan->depth;
    }
    bool empty = starts(scan, "/>");
    if (!empty && !starts(scan, ">"))
        return bad(scan, "a tag that does not end", err);
    scan->at += empty ? 2 : 1;
    if (empty) {
        if (scan->suite_depth == scan->depth)
            suite_done(scan, out);
        leave(scan);
    }
    return 0;
}

static int close_tag(struct scan *scan, struct buf *out, struct error *err)
{
    scan->at += 2;
    size_t n = name_len(scan);

    if (scan->depth == 0 || n != scan->open[scan->depth - 1].len ||
        memcmp(scan->text + scan->at, scan->open[scan->depth - 1].name, n) != 0)
        return bad(scan, "an end tag that matches no start tag", err);
    scan->at += n;
    skip_space(scan);
    if (!starts(scan, ">"))
        return bad(scan, "a tag that does not end", err);
    scan->at++;
    if (scan->suite_depth == scan->depth)
        suite_done(scan, out);
    leave(scan);
    return 0;
}

int junit_suites(const char *text, size_t len, struct buf *out, struct error *err)
{
    struct scan scan = {.text = text, .len = len};
    cleanup_buf struct buf suites = BUF_INIT;
    bool seen = false;

    if (starts(&scan, "\xef\xbb\xbf"))
        scan.at = 3;
    while (scan.at < len) {
        int rc = 0;
        if (starts(&scan, "<?") || starts(&scan, "<!--") || starts(&scan, "<![CDATA[")) {
            const char *end = starts(&scan, "<?") ? "?>" : starts(&scan, "<!--") ? "-->" : "]]>";
            size_t from = scan.at;
            if (section(&scan, end, err) < 0)
                return -1;
            if (from > 3 && text[from + 1] == '?')
                return bad(&scan, "a processing instruction", err);
        } else if (starts(&scan, "<!")) {
            return bad(&scan, "a DOCTYPE", err);
        } else if (starts(&scan, "</")) {
            rc = close_tag(&scan, &suites, err);
        } else if (text[scan.at] == '<') {
            if (seen && scan.depth == 0)
                return bad(&scan, "a second root", err);
            seen = true;
            rc = open_tag(&scan, &suites, err);
        } else {
            if (scan.depth == 0 && !strchr(" \t\r\n", text[scan.at]))
                return bad(&scan, "text outside the root", err);
            if (starts(&scan, "]]>"))
                return bad(&scan, "']]>' in text", err);
            rc = character(&scan, err);
        }
        if (rc < 0)
            return -1;
    }
    if (!seen || scan.depth)
        return bad(&scan, seen ? "the document ends early" : "no element at all", err);
    buf_append(out, suites.data ? suites.data : "", suites.len);
    return 0;
}

static void stage_case(const struct tally *tally, const struct tally_cell *cell, struct buf *out)
{
    const char *status = cell_status_name(cell->status);

    buf_puts(out, "    <testcase classname=\"");
    text_xml(tally->pipeline ? tally->pipeline : "", out);
    buf_puts(out, "\" name=\"");
    text_xml(cell->name, out);
    buf_printf(out, "\" time=\"%.3f\"", (double)cell->duration_ms / 1000.0);
    if (cell->status == CELL_OK) {
        buf_puts(out, "/>\n");
        return;
    }
    buf_puts(out, ">\n");
    if (cell->status == CELL_SKIPPED || cell->status == CELL_BLOCKED ||
        cell->status == CELL_WAITING) {
        buf_printf(out, "      <skipped message=\"%s", status);
        if (cell->reason) {
            buf_puts(out, ": ");
            text_xml(cell->reason, out);
        }
        buf_puts(out, "\"/>\n");
    } else {
        cleanup_buf struct buf text = BUF_INIT;
        buf_printf(out, "      <failure type=\"%s\" message=\"", status);
        text_xml(value_get_string(&cell->error, "message", status), out);
        buf_puts(out, "\">");
        error_place(&cell->error, &text);
        buf_printf(&text, "%s\n%s\n", value_get_string(&cell->error, "message", ""),
                   value_get_string(&cell->error, "hint", ""));
        buf_printf(&text, "%s\n", value_get_string(&cell->error, "traceback", ""));
        tally_tail(cell, &text);
        text_xml(text.data, out);
        buf_puts(out, "</failure>\n");
    }
    buf_puts(out, "    </testcase>\n");
}

void report_junit(const struct tally *tally, struct value *skipped, struct buf *out)
{
    size_t failures = 0, left_out = 0;

    for (size_t i = 0; i < tally->count; i++) {
        enum cell_status s = tally->cells[i].status;
        left_out += s == CELL_SKIPPED || s == CELL_BLOCKED || s == CELL_WAITING;
        failures += cell_status_over(s) && !cell_status_good(s) && s != CELL_BLOCKED;
    }
    buf_puts(out, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n  <testsuite name=\"");
    text_xml(tally->pipeline ? tally->pipeline : "pipeline", out);
    buf_printf(out,
               "\" tests=\"%zu\" failures=\"%zu\" errors=\"0\" skipped=\"%zu\" time=\"%.3f\">\n",
               tally->count, failures, left_out, (double)tally->duration_ms / 1000.0);
    if (tally->degraded) {
        buf_puts(out, "    <properties>\n      <property name=\"sandbox.degraded\" value=\"");
        text_xml(tally->degraded, out);
        buf_puts(out, "\"/>\n    </properties>\n");
    }
    for (size_t i = 0; i < tally->count; i++)
        stage_case(tally, &tally->cells[i], out);
    buf_puts(out, "  </testsuite>\n");
    for (size_t i = 0; i < value_count(&tally->junit); i++) {
        const struct value *report = value_at(&tally->junit, i);
        const char *path = value_get_string(report, "path", "");
        cleanup_buf struct buf text = BUF_INIT;
        struct error err = {0};
        if (file_read(AT_FDCWD, value_get_string(report, "copy", path), JUNIT_FILE_MAX, &text,
                      &err) < 0 ||
            junit_suites(text.data ? text.data : "", text.len, out, &err) < 0) {
            cleanup_free char *why = mem_printf("%s: %s", path, err.message);
            value_push_string(skipped, why);
        }
    }
    buf_puts(out, "</testsuites>\n");
}
