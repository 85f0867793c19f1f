#include "run/text.h"

#include <string.h>
#include <strings.h>

#include "base/utf8.h"

/* Length of a colour sequence (ESC [ digits ; m) at s, or 0. */
static size_t colour(const char *s, size_t len)
{
    if (len < 3 || s[0] != '\x1b' || s[1] != '[')
        return 0;
    size_t i = 2;
    while (i < len && ((s[i] >= '0' && s[i] <= '9') || s[i] == ';' || s[i] == ':'))
        i++;
    return i < len && s[i] == 'm' ? i + 1 : 0;
}

/* Characters that change how a line looks without being seen: C1 controls and direction overrides.
 */
static unsigned deceiving(const char *s, size_t bytes)
{
    const unsigned char *u = (const unsigned char *)s;

    if (bytes == 2 && u[0] == 0xc2 && u[1] < 0xa0)
        return u[1];
    if (bytes == 3 && u[0] == 0xe2 && u[1] == 0x80 && (u[2] >= 0xa8 && u[2] <= 0xae))
        return 0x2000u | (u[2] & 0x3fu);
    if (bytes == 3 && u[0] == 0xe2 && u[1] == 0x81 && (u[2] >= 0xa6 && u[2] <= 0xa9))
        return 0x2040u | (u[2] & 0x3fu);
    return 0;
}

void text_harmless(const char *line, size_t len, struct buf *out)
{
    size_t i = 0;
    size_t from = out->len;

    while (i < len) {
        size_t skip = colour(line + i, len - i);
        if (skip) {
            i += skip;
            continue;
        }
        size_t bytes = utf8_length(line + i, len - i);
        unsigned char c = (unsigned char)line[i];
        unsigned code = bytes > 1 ? deceiving(line + i, bytes) : 0;
        if (bytes == 0 || (c < 0x20 && c != '\t') || c == 0x7f) {
            buf_printf(out, "\\x%02x", c);
            i++;
        } else if (code) {
            buf_printf(out, "\\u%04x", code);
            i += bytes;
        } else {
            buf_append(out, line + i, bytes);
            i += bytes;
        }
    }
    /* After the colours are gone, so that none of them can hide a command from this look. */
    if (out->len == from)
        return;
    char *s = out->data + from;
    size_t left = out->len - from;
    for (size_t k = 0; k + 2 < left; k++) {
        if (s[k] == '#' && s[k + 1] == '#' &&
            (s[k + 2] == '[' || (left - k >= 5 && strncasecmp(s + k + 2, "vso", 3) == 0)))
            s[k] = s[k + 1] = '*';
    }
    size_t blank = strspn(s, " \t");
    if (strncmp(s + blank, "::", 2) == 0)
        s[blank] = s[blank + 1] = '*';
}

void text_shown(const char *text, struct buf *out)
{
    text_harmless(text, strlen(text), out);
}

void text_harmless_lines(const char *text, size_t len, struct buf *out)
{
    size_t at = 0;

    while (at <= len) {
        const char *end = memchr(text + at, '\n', len - at);
        size_t stop = end ? (size_t)(end - text) : len;
        size_t width = stop - at;
        if (width && text[stop - 1] == '\r')
            width--;
        text_harmless(text + at, width, out);
        if (!end)
            break;
        buf_putc(out, '\n');
        at = stop + 1;
    }
}

void text_azdo(const char *text, bool property, struct buf *out)
{
    for (const char *s = text; *s; s++) {
        if (*s == '%')
            buf_puts(out, "%AZP25");
        else if (*s == '\r')
            buf_puts(out, "%0D");
        else if (*s == '\n')
            buf_puts(out, "%0A");
        else if (property && *s == ';')
            buf_puts(out, "%3B");
        else if (property && *s == ']')
            buf_puts(out, "%5D");
        else
            buf_putc(out, *s);
    }
}

void text_xml(const char *text, struct buf *out)
{
    size_t len = strlen(text);

    for (size_t i = 0; i < len;) {
        size_t bytes = utf8_length(text + i, len - i);
        unsigned char c = (unsigned char)text[i];
        bool non_character = bytes == 3 && c == 0xef && (unsigned char)text[i + 1] == 0xbf &&
                             (unsigned char)text[i + 2] >= 0xbe;
        if (bytes == 0 || non_character || (c < 0x20 && c != '\t' && c != '\n' && c != '\r')) {
            buf_puts(out, "\xef\xbf\xbd");
            i += bytes ? bytes : 1;
            continue;
        }
        switch (c) {
        case '&':
            buf_puts(out, "&amp;");
            break;
        case '<':
            buf_puts(out, "&lt;");
            break;
        case '>':
            buf_puts(out, "&gt;");
            break;
        case '"':
            buf_puts(out, "&quot;");
            break;
        case '\t':
        case '\n':
        case '\r':
            buf_printf(out, "&#%d;", c);
            break;
        default:
            buf_append(out, text + i, bytes);
        }
        i += bytes;
    }
}

void text_markdown(const char *text, size_t limit, struct buf *out)
{
    size_t len = strlen(text);
    size_t stop = limit && len > limit ? limit : len;

    while (stop < len && stop > 0 && ((unsigned char)text[stop] & 0xc0) == 0x80)
        stop--;
    for (size_t i = 0; i < stop; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c == '<') {
            buf_puts(out, "&lt;");
        } else if (c == '\n' || c == '\r' || c < 0x20 || c == 0x7f) {
            buf_putc(out, ' ');
        } else {
            if (strchr("\\|`*_[]", c))
                buf_putc(out, '\\');
            buf_putc(out, (char)c);
        }
    }
    if (stop < len)
        buf_puts(out, " ...");
}
