#include "oci/dockerfile_pattern.h"

#include <stdint.h>
#include <string.h>

#include "base/mem.h"

#define STEPS_MAX    (32u << 20)
#define RESULT_LIMIT (1u << 20)

enum { ANY_TEXT = 256, ANY_CHARACTER };

/* A pattern as a row of bytes and wildcards; which of its places are reached, character by
 * character, says what it matches: no going back, so no pattern takes exponential time. */
struct pattern {
    int *tokens;
    size_t count;
    bool *now, *next;
    size_t steps;
    struct error *err;
};

static void pattern_free(struct pattern *pattern)
{
    mem_cleanup(&pattern->tokens);
    mem_cleanup(&pattern->now);
    mem_cleanup(&pattern->next);
}
#define cleanup_pattern __attribute__((cleanup(pattern_free)))

static int pattern_init(struct pattern *pattern, const char *text, char escape, struct error *err)
{
    *pattern = (struct pattern){.steps = STEPS_MAX, .err = err};
    pattern->tokens = mem_alloc((strlen(text) + 1) * sizeof *pattern->tokens);
    for (const char *at = text; *at; at++) {
        int token = (unsigned char)*at;
        if (*at == '*') {
            token = ANY_TEXT;
        } else if (*at == '?') {
            token = ANY_CHARACTER;
        } else if (*at == escape) {
            at++;
            token = (unsigned char)*at;
            if (!*at || (!strchr("*?}/", *at) && *at != escape)) {
                error_set(err, ERR_INVALID, "the pattern '%.60s' has a wrong %c", text, escape);
                return error_hint(err, "it may stand before * ? } / and itself");
            }
        }
        if (token != ANY_TEXT || !pattern->count || pattern->tokens[pattern->count - 1] != ANY_TEXT)
            pattern->tokens[pattern->count++] = token;
    }
    pattern->now = mem_alloc(pattern->count + 1);
    pattern->next = mem_alloc(pattern->count + 1);
    return 0;
}

/* What a star reaches without a character. */
static void reach(const struct pattern *pattern, bool *places)
{
    for (size_t i = 0; i < pattern->count; i++)
        if (places[i] && pattern->tokens[i] == ANY_TEXT)
            places[i + 1] = true;
}

/* Bytes of the character at text. */
static size_t character(const char *text, size_t len)
{
    size_t size = 1;

    while (size < len && ((unsigned char)text[size] & 0xc0) == 0x80)
        size++;
    return size;
}

/* *end: of the match that begins at text; SIZE_MAX when there is none. */
static int match_from(struct pattern *pattern, const char *text, size_t len, bool longest,
                      size_t *end)
{
    size_t at = 0;
    bool alive = true;

    *end = SIZE_MAX;
    memset(pattern->now, 0, pattern->count + 1);
    pattern->now[0] = true;
    reach(pattern, pattern->now);
    for (;;) {
        if (pattern->now[pattern->count]) {
            *end = at;
            if (!longest)
                return 0;
        }
        if (at == len || !alive)
            return 0;
        /* A whole character for "?", byte by byte for what is written out. */
        size_t size = character(text + at, len - at);
        if (pattern->steps < size * (pattern->count + 1))
            return error_set(pattern->err, ERR_TOO_LARGE, "a pattern of a variable takes too long");
        pattern->steps -= size * (pattern->count + 1);
        memset(pattern->next, 0, pattern->count + 1);
        alive = false;
        for (size_t i = 0; i < pattern->count; i++) {
            if (!pattern->now[i])
                continue;
            size_t k = 0;
            if (pattern->tokens[i] == ANY_TEXT) {
                pattern->next[i] = alive = true;
                continue;
            }
            while (k < size && i + k < pattern->count &&
                   pattern->tokens[i + k] == (unsigned char)text[at + k])
                k++;
            if (k == size)
                pattern->next[i + k] = alive = true;
            else if (pattern->tokens[i] == ANY_CHARACTER)
                pattern->next[i + 1] = alive = true;
        }
        reach(pattern, pattern->next);
        bool *swap = pattern->now;
        pattern->now = pattern->next;
        pattern->next = swap;
        at += size;
    }
}

int pattern_trim(const char *value, const char *text, char escape, bool suffix, bool longest,
                 struct buf *out, struct error *err)
{
    cleanup_pattern struct pattern pattern;
    size_t len = strlen(value), end;

    if (pattern_init(&pattern, text, escape, err) != 0)
        return -1;
    if (!suffix) {
        if (match_from(&pattern, value, len, longest, &end) != 0)
            return -1;
        buf_puts(out, value + (end == SIZE_MAX ? 0 : end));
        return 0;
    }
    /* The longest suffix begins first, the shortest last. */
    size_t best = len;
    for (size_t at = 0; at <= len; at += at < len ? character(value + at, len - at) : 1) {
        if (match_from(&pattern, value + at, len - at, true, &end) != 0)
            return -1;
        if (end != len - at)
            continue;
        best = at;
        if (longest)
            break;
    }
    buf_append(out, value, best);
    return 0;
}

int pattern_replace(const char *value, const char *text, char escape, bool all, const char *with,
                    struct buf *out, struct error *err)
{
    cleanup_pattern struct pattern pattern;
    size_t len = strlen(value), at = 0, end;
    bool done = false, after_match = false;

    if (pattern_init(&pattern, text, escape, err) != 0)
        return -1;
    while (at <= len) {
        end = SIZE_MAX;
        if (!done && match_from(&pattern, value + at, len - at, true, &end) != 0)
            return -1;
        bool found = end != SIZE_MAX && !(end == 0 && after_match);
        after_match = false;
        if (found) {
            buf_puts(out, with);
            at += end;
            done = !all;
            after_match = true;
        }
        if (!found || end == 0) {
            size_t size = at < len ? character(value + at, len - at) : 1;
            buf_append(out, value + at, at < len ? size : 0);
            at += size;
            after_match = false;
        }
        if (out->len > RESULT_LIMIT)
            return error_set(err, ERR_TOO_LARGE, "the text becomes larger than %u bytes",
                             RESULT_LIMIT);
    }
    return 0;
}
