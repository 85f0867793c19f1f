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

static unsigned decode(const char *s, size_t bytes)
{
    const unsigned char *u = (const unsigned char *)s;
    unsigned code = bytes == 2 ? u[0] & 0x1fu : bytes == 3 ? u[0] & 0x0fu : u[0] & 0x07u;

    for (size_t i = 1; i < bytes; i++)
        code = code << 6 | (u[i] & 0x3fu);
    return bytes == 1 ? u[0] : code;
}

/* Characters that change how a line looks, or is read, without being seen. */
static bool deceiving(unsigned code)
{
    static const unsigned ranges[][2] = {
        {0x80, 0x9f},      /* C1 controls */
        {0x61c, 0x61c},    /* Arabic letter mark */
        {0x180e, 0x180e},  /* Mongolian vowel separator */
        {0x200b, 0x200b},  /* zero-width space */
        {0x200e, 0x200f},  /* marks of direction */
        {0x2028, 0x202e},  /* separators, embeddings, overrides */
        {0x2060, 0x206f},  /* word joiner, invisible operators, isolates */
        {0xfeff, 0xfeff},  /* byte-order mark */
        {0xfff9, 0xfffb},  /* annotations */
        {0xe0000, 0xe007f} /* tags */
    };

    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
        if (code >= ranges[i][0] && code <= ranges[i][1])
            return true;
    }
    return false;
}

void text_commands(const char *line, size_t len, struct buf *out)
{
    size_t i = 0;

    while (i < len) {
        size_t skip = colour(line + i, len - i);
        if (skip) {
            i += skip;
            continue;
        }
        size_t bytes = utf8_length(line + i, len - i);
        unsigned char c = (unsigned char)line[i];
        unsigned code = bytes > 1 ? decode(line + i, bytes) : 0;
        if (bytes == 0 || (c < 0x20 && c != '\t') || c == 0x7f) {
            buf_printf(out, "\\x%02x", c);
            i++;
        } else if (deceiving(code)) {
            buf_printf(out, "\\u%04x", code);
            i += bytes;
        } else {
            buf_append(out, line + i, bytes);
            i += bytes;
        }
    }
}

/* Blanks as an agent trims them: Unicode's, too. */
static size_t blanks(const char *s, size_t len)
{
    size_t i = 0;

    while (i < len) {
        size_t bytes = utf8_length(s + i, len - i);
        unsigned code = bytes ? decode(s + i, bytes) : 'x';
        bool blank = code == ' ' || code == '\t' || code == 0xa0 || code == 0x1680 ||
                     (code >= 0x2000 && code <= 0x200d) || code == 0x202f || code == 0x205f ||
                     code == 0x3000;
        if (!blank)
            break;
        i += bytes;
    }
    return i;
}

void text_harmless(const char *line, size_t len, struct buf *out)
{
    static const char *const words[] = {"[", "vso", "teamcity"};
    size_t from = out->len;

    /* First the escapes and colours, so that none of them can hide a command from this look. */
    text_commands(line, len, out);
    if (out->len == from)
        return;
    char *s = out->data + from;
    size_t left = out->len - from;
    for (size_t k = 0; k + 2 < left; k++) {
        for (size_t w = 0; s[k] == '#' && s[k + 1] == '#' && w < sizeof words / sizeof *words;
             w++) {
            size_t word = strlen(words[w]);
            if (left - k - 2 >= word && strncasecmp(s + k + 2, words[w], word) == 0)
                s[k] = s[k + 1] = '*';
        }
    }
    size_t blank = blanks(s, left);
    if (left - blank >= 2 && s[blank] == ':' && s[blank + 1] == ':')
        s[blank] = s[blank + 1] = '*';
}

void text_shown(const char *text, struct buf *out)
{
    text_harmless(text, strlen(text), out);
}

void text_print(FILE *to, const char *text)
{
    cleanup_buf struct buf safe = BUF_INIT;

    text_harmless_lines(text, strlen(text), &safe);
    if (safe.len)
        fwrite(safe.data, 1, safe.len, to);
}

void text_json(const struct value *v, int flags, struct buf *out)
{
    cleanup_buf struct buf text = BUF_INIT;
    size_t from = 0;

    /* Two of them, and what is beyond ASCII, stand inside of strings only. */
    value_to_json(v, flags, &text);
    for (size_t i = 0; i < text.len; i++) {
        const char *s = text.data + i;
        size_t bytes = (unsigned char)*s < 0x80 ? 1 : utf8_length(s, text.len - i);
        unsigned code = bytes > 1 ? decode(s, bytes) : 0;
        bool command = *s == '#' && s[1] == '#';
        if (!command && !deceiving(code))
            continue;
        buf_append(out, text.data + from, i - from);
        if (command)
            buf_puts(out, "\\u0023");
        else if (code < 0x10000)
            buf_printf(out, "\\u%04x", code);
        else
            buf_printf(out, "\\u%04x\\u%04x", 0xd800 + ((code - 0x10000) >> 10),
                       0xdc00 + (code & 0x3ff));
        i += command ? 0 : bytes - 1;
        from = i + 1;
    }
    buf_append(out, text.data ? text.data + from : "", text.len - from);
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
    cleanup_buf struct buf line = BUF_INIT, safe = BUF_INIT;

    buf_puts(&line, text);
    for (size_t i = 0; i < line.len; i++) {
        if (line.data[i] == '\n' || line.data[i] == '\r' || line.data[i] == '\t')
            line.data[i] = ' ';
    }
    text_harmless(line.data ? line.data : "", line.len, &safe);
    size_t stop = limit && safe.len > limit ? limit : safe.len;
    while (stop < safe.len && stop > 0 && ((unsigned char)safe.data[stop] & 0xc0) == 0x80)
        stop--;
    for (size_t i = 0; i < stop; i++) {
        char c = safe.data[i];
        if (c == '<') {
            buf_puts(out, "&lt;");
        } else {
            if (strchr("\\|`*_[]", c))
                buf_putc(out, '\\');
            buf_putc(out, c);
        }
    }
    if (stop < safe.len)
        buf_puts(out, " ...");
}
