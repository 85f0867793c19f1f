#include "broker/mask_match.h"

#include <string.h>

#define CSI_MAX     32 /* bytes of a terminal sequence */
#define ENTITY_MAX  10
#define SLASHES_MAX 8 /* escaped three times over */

bool mask_special(unsigned char c)
{
    static const bool special[256] = {['%'] = true,  ['+'] = true,    ['\\'] = true, ['&'] = true,
                                      ['\''] = true, ['\x1b'] = true, ['\r'] = true, ['\n'] = true};
    return special[c];
}

unsigned char mask_fold(enum mask_kind kind, unsigned char c)
{
    if (kind == MASK_HEX && c >= 'A' && c <= 'F')
        return (unsigned char)(c | 0x20);
    if (kind == MASK_BASE64 && (c == '-' || c == '_'))
        return c == '-' ? '+' : '/';
    return c;
}

/* ---- readings ---- */

struct place {
    const char *text;
    size_t len;
    struct mask_reading *readings;
    size_t count;
    bool cut;
};

static void read_bytes(struct place *place, const unsigned char *bytes, size_t count, size_t width)
{
    if (place->count == MASK_READINGS)
        return;
    struct mask_reading *reading = &place->readings[place->count++];
    reading->count = (unsigned char)count;
    reading->width = (unsigned char)width;
    memcpy(reading->bytes, bytes, count);
}

static void read_byte(struct place *place, unsigned c, size_t width)
{
    unsigned char byte = (unsigned char)c;
    read_bytes(place, &byte, 1, width);
}

static void read_nothing(struct place *place, size_t width)
{
    read_bytes(place, (const unsigned char *)"", 0, width);
}

static void read_code(struct place *place, unsigned code, size_t width)
{
    unsigned char b[4];

    if (code < 0x80) {
        read_byte(place, code, width);
    } else if (code < 0x800) {
        b[0] = (unsigned char)(0xc0u | code >> 6);
        b[1] = (unsigned char)(0x80u | (code & 0x3fu));
        read_bytes(place, b, 2, width);
    } else if (code < 0x10000) {
        b[0] = (unsigned char)(0xe0u | code >> 12);
        b[1] = (unsigned char)(0x80u | (code >> 6 & 0x3fu));
        b[2] = (unsigned char)(0x80u | (code & 0x3fu));
        read_bytes(place, b, 3, width);
    } else if (code < 0x110000) {
        b[0] = (unsigned char)(0xf0u | code >> 18);
        b[1] = (unsigned char)(0x80u | (code >> 12 & 0x3fu));
        b[2] = (unsigned char)(0x80u | (code >> 6 & 0x3fu));
        b[3] = (unsigned char)(0x80u | (code & 0x3fu));
        read_bytes(place, b, 4, width);
    }
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Exactly `digits` hexadecimal digits at `at`, or -1; notes when the text ends before. */
static long hex_number(struct place *place, size_t at, size_t digits)
{
    long number = 0;

    for (size_t i = 0; i < digits; i++) {
        if (at + i >= place->len) {
            place->cut = true;
            return -1;
        }
        int digit = hex_digit(place->text[at + i]);
        if (digit < 0)
            return -1;
        number = number * 16 + digit;
    }
    return number;
}

static bool follows(struct place *place, const char *text)
{
    size_t len = strlen(text), have = len < place->len ? len : place->len;

    if (memcmp(place->text, text, have) != 0)
        return false;
    place->cut = place->cut || have < len;
    return have == len;
}

/* %2F, and %252F of what was escaped twice. Escapes of line breaks in base64 are nothing. */
static void percent(struct place *place, enum mask_kind kind)
{
    size_t at = 1;

    while (at + 1 < place->len && at < 7 && place->text[at] == '2' && place->text[at + 1] == '5' &&
           (at + 2 >= place->len || hex_digit(place->text[at + 2]) >= 0))
        at += 2;
    for (size_t from = 1; from <= at; from += 2) {
        long code = hex_number(place, from, 2);
        if (code < 0)
            continue;
        if (kind == MASK_BASE64 && (code == '\n' || code == '\r'))
            read_nothing(place, from + 2);
        else
            read_byte(place, mask_fold(kind, (unsigned char)code), from + 2);
    }
}

/* What stands behind the backslashes that end at `at`. */
static void escape(struct place *place, enum mask_kind kind, size_t at)
{
    static const char from[] = "nrtbfvae", to[] = "\n\r\t\b\f\v\a\x1b";
    char c = place->text[at];
    const char *known = c ? strchr(from, c) : NULL;
    long code;

    if (known) {
        char meant = to[known - from];
        if (kind != MASK_TEXT && (meant == '\n' || meant == '\r'))
            read_nothing(place, at + 1);
        else
            read_byte(place, (unsigned char)meant, at + 1);
    } else if (c == 'x') {
        code = hex_number(place, at + 1, 2);
        if (code >= 0)
            read_byte(place, (unsigned)code, at + 3);
    } else if (c == 'u' || c == 'U') {
        size_t digits = c == 'u' ? 4 : 8, end = at + 1 + digits;
        code = hex_number(place, at + 1, digits);
        if (code >= 0xd800 && code < 0xdc00) {
            /* the other half of a pair: as many backslashes again, u, four digits */
            long low = hex_number(place, end + at + 1, 4);
            if (low >= 0xdc00 && low < 0xe000 && place->text[end] == '\\')
                read_code(place,
                          0x10000u + ((unsigned)(code - 0xd800) << 10) + (unsigned)low - 0xdc00u,
                          end + at + 5);
        } else if (code >= 0) {
            read_code(place, code < 128 ? mask_fold(kind, (unsigned char)code) : (unsigned)code,
                      end);
        }
    } else if (c >= '0' && c <= '7') {
        unsigned octal = 0;
        size_t end = at;
        while (end < place->len && end < at + 3 && place->text[end] >= '0' &&
               place->text[end] <= '7')
            octal = octal * 8 + (unsigned)(place->text[end++] - '0');
        place->cut = place->cut || (end == place->len && end < at + 3);
        read_byte(place, octal & 255u, end);
    } else {
        read_byte(place, mask_fold(kind, (unsigned char)c), at + 1);
    }
}

static void backslash(struct place *place, enum mask_kind kind)
{
    size_t run = 1;

    while (run < place->len && run < SLASHES_MAX && place->text[run] == '\\')
        run++;
    for (size_t width = 2; width <= run; width *= 2)
        read_byte(place, '\\', width);
    if (run == place->len) {
        place->cut = true;
        return;
    }
    escape(place, kind, run);
}

static void entity(struct place *place)
{
    static const struct {
        const char *name;
        char c;
    } names[] = {{"&amp;", '&'},  {"&lt;", '<'},    {"&gt;", '>'},
                 {"&quot;", '"'}, {"&apos;", '\''}, {"&sol;", '/'}};
    size_t at = 2;
    unsigned code = 0;

    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (follows(place, names[i].name))
            read_byte(place, (unsigned char)names[i].c, strlen(names[i].name));
    }
    if (!follows(place, "&#"))
        return;
    bool hex = place->len > 2 && (place->text[2] | 0x20) == 'x';
    for (at += hex; at < place->len && at < ENTITY_MAX; at++) {
        int digit = hex_digit(place->text[at]);
        if (digit < 0 || (!hex && digit > 9))
            break;
        code = code * (hex ? 16u : 10u) + (unsigned)digit;
    }
    if (at == place->len)
        place->cut = true;
    else if (place->text[at] == ';')
        read_code(place, code, at + 1);
}

/* ESC [ ... letter: it colours what is seen and is not seen itself. */
static void terminal(struct place *place)
{
    size_t at = 2;

    if (!follows(place, "\x1b["))
        return;
    while (at < place->len && at < CSI_MAX && place->text[at] >= 0x20 && place->text[at] < 0x40)
        at++;
    if (at == place->len)
        place->cut = true;
    else if (place->text[at] >= 0x40 && place->text[at] < 0x7f)
        read_nothing(place, at + 1);
}

/* A line break between digits, with the next line's indentation. */
static void line_break(struct place *place, enum mask_kind kind)
{
    size_t at = 1;

    while (at < place->len && at < 64 && strchr("\r\n\t ", place->text[at]) && place->text[at])
        at++;
    read_nothing(place, at);
    if (kind == MASK_HEX) /* digits that blanks separate, as od prints them */
        read_bytes(place, (const unsigned char *)" ", 1, at);
}

size_t mask_readings(enum mask_kind kind, const char *text, size_t len,
                     struct mask_reading readings[MASK_READINGS], bool *cut)
{
    struct place place = {.text = text, .len = len, .readings = readings};
    unsigned char c = (unsigned char)text[0];

    read_byte(&place, mask_fold(kind, c), 1);
    switch (c) {
    case '%':
        percent(&place, kind);
        break;
    case '+':
        if (kind == MASK_TEXT)
            read_byte(&place, ' ', 1);
        break;
    case '\\':
        backslash(&place, kind);
        break;
    case '&':
        entity(&place);
        break;
    case '\'':
        if (follows(&place, "'\\''"))
            read_byte(&place, '\'', 4);
        if (follows(&place, "'\"'\"'"))
            read_byte(&place, '\'', 5);
        if (follows(&place, "''"))
            read_byte(&place, '\'', 2);
        break;
    case '\x1b':
        terminal(&place);
        break;
    case '\r':
    case '\n':
        if (kind != MASK_TEXT)
            line_break(&place, kind);
        else if (c == '\r' && follows(&place, "\r\n"))
            read_byte(&place, '\n', 2);
        break;
    default:
        break;
    }
    *cut = place.cut;
    return place.count;
}

/* ---- matching ---- */

/* Places of the text at which the rest of the pattern may go on. */
#define PLACES_MAX 64
struct places {
    size_t at[PLACES_MAX];
    size_t count;
};

static size_t places_add(struct places *places, size_t at)
{
    for (size_t i = 0; i < places->count; i++) {
        if (places->at[i] == at)
            return 0;
    }
    if (places->count == PLACES_MAX)
        return 0;
    places->at[places->count++] = at;
    return 1;
}

/* As far as the text has only one reading. */
static void run_along(enum mask_kind kind, const char *pattern, size_t pattern_len,
                      const char *text, size_t len, size_t *j, size_t *at)
{
    while (*j < pattern_len && *at < len && !mask_special((unsigned char)text[*at]) &&
           mask_fold(kind, (unsigned char)text[*at]) == (unsigned char)pattern[*j]) {
        ++*j;
        ++*at;
    }
}

/* One byte of the pattern, from each place. Returns the number of places found; *end is the
 * furthest. */
static size_t step(enum mask_kind kind, const char *pattern, size_t pattern_len, const char *text,
                   size_t len, size_t j, struct places ring[5], size_t *end,
                   struct mask_match *match)
{
    struct places *here = &ring[j % 5];
    size_t found = 0;

    for (size_t i = 0; i < here->count; i++) {
        struct mask_reading readings[MASK_READINGS];
        size_t at = here->at[i];
        bool cut = at == len;
        size_t count = at < len ? mask_readings(kind, text + at, len - at, readings, &cut) : 0;
        if (cut) {
            match->more = true;
            match->depth = j;
        }
        for (size_t k = 0; k < count; k++) {
            const struct mask_reading *reading = &readings[k];
            if (reading->count == 0) {
                places_add(here, at + reading->width);
            } else if (reading->count <= pattern_len - j &&
                       memcmp(pattern + j, reading->bytes, reading->count) == 0) {
                found += places_add(&ring[(j + reading->count) % 5], at + reading->width);
                if (at + reading->width > *end)
                    *end = at + reading->width;
            }
        }
    }
    here->count = 0;
    return found;
}

struct mask_match mask_try(enum mask_kind kind, const char *pattern, size_t pattern_len,
                           const char *text, size_t len)
{
    struct mask_match match = {0};
    struct places ring[5];
    size_t j = 0, at = 0;

    run_along(kind, pattern, pattern_len, text, len, &j, &at);
    if (j == pattern_len) {
        match.len = at;
        return match;
    }
    size_t end = at;
    if (at == len || mask_special((unsigned char)text[at])) {
        for (size_t i = 0; i < 5; i++)
            ring[i].count = 0;
        size_t live = places_add(&ring[j % 5], at);
        while (j < pattern_len && live) {
            struct places *here = &ring[j % 5];
            if (live == 1 && here->count == 1) {
                at = here->at[0];
                here->count = 0;
                run_along(kind, pattern, pattern_len, text, len, &j, &at);
                places_add(&ring[j % 5], at);
                end = at > end ? at : end;
                if (j == pattern_len)
                    break;
            }
            live -= ring[j % 5].count;
            live += step(kind, pattern, pattern_len, text, len, j, ring, &end, &match);
            j++;
        }
        const struct places *last = &ring[j % 5];
        for (size_t i = 0; j == pattern_len && i < last->count; i++) {
            if (last->at[i] > match.len)
                match.len = last->at[i];
        }
    }
    if (match.len == 0 && j >= MASK_LONG)
        match.len = end;
    return match;
}
