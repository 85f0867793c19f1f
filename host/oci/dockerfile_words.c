/* Variables and quotes in a Dockerfile's words. */
#include "oci/dockerfile.h"

#include <ctype.h>
#include <string.h>

#include "base/mem.h"
#include "oci/dockerfile_pattern.h"

#define EXPAND_DEPTH 16
#define EXPAND_LIMIT (1u << 20)

struct expander {
    char escape;
    bool raw_quotes;
    dockerfile_lookup_fn *lookup;
    void *ctx;
    struct error *err;
    int depth;
};

/* raw: escapes stay, for the text is a pattern. */
static int expand_into(struct expander *expander, const char **at, char until, bool raw,
                       struct buf *out);

static size_t name_length(const char *at)
{
    size_t len = 0;

    if (isdigit((unsigned char)*at))
        return strspn(at, "0123456789");
    if (*at && strchr("@*#?-$!", *at)) /* what a shell has; nothing here */
        return 1;
    while (isalnum((unsigned char)at[len]) || at[len] == '_')
        len++;
    return len;
}

static int no_brace(struct expander *expander, const char *name)
{
    return error_set(expander->err, ERR_INVALID, "'${%.60s' has no closing brace", name);
}

/* Up to `until`, which is taken too. */
static int expand_until(struct expander *expander, const char **at, char until, bool raw,
                        const char *name, struct buf *out)
{
    if (expand_into(expander, at, until, raw, out) != 0)
        return -1;
    if (**at != until)
        return no_brace(expander, name);
    ++*at;
    if (!out->data)
        buf_puts(out, "");
    return 0;
}

/* ${x#p} and the like; *at is behind the operator, or the first of two. */
static int expand_trimmed(struct expander *expander, const char **at, char op, const char *name,
                          const char *found, struct buf *out)
{
    cleanup_buf struct buf pattern = BUF_INIT;
    bool longest = **at == op;

    *at += longest;
    if (expand_until(expander, at, '}', true, name, &pattern) != 0)
        return -1;
    return pattern_trim(found ? found : "", pattern.data, expander->escape, op == '%', longest, out,
                        expander->err);
}

static int expand_replaced(struct expander *expander, const char **at, const char *name,
                           const char *found, struct buf *out)
{
    cleanup_buf struct buf pattern = BUF_INIT;
    cleanup_buf struct buf with = BUF_INIT;
    bool all = **at == '/';

    *at += all;
    if (expand_into(expander, at, '/', true, &pattern) != 0)
        return -1;
    if (**at != '/') {
        error_set(expander->err, ERR_INVALID, "'${%.60s' lacks its second /", name);
        return error_hint(expander->err, "${name/pattern/replacement}");
    }
    ++*at;
    if (expand_until(expander, at, '}', true, name, &with) != 0)
        return -1;
    return pattern_replace(found ? found : "", pattern.data ? pattern.data : "", expander->escape,
                           all, with.data, out, expander->err);
}

/* ${x-y} ${x+y} ${x?y}, with and without a colon. */
static int expand_otherwise(struct expander *expander, const char **at, char op, bool colon,
                            const char *name, size_t len, const char *found, struct buf *out)
{
    cleanup_buf struct buf other = BUF_INIT;

    if (expand_until(expander, at, '}', false, name, &other) != 0)
        return -1;
    bool set = found && (!colon || *found);
    if (op == '?' && !set)
        return error_set(expander->err, ERR_INVALID, "%.*s: %s", (int)len, name,
                         other.len ? other.data
                         : found   ? "is empty"
                                   : "is not set");
    if (op == '+')
        buf_puts(out, set ? other.data : "");
    else
        buf_puts(out, set ? found : other.data);
    return 0;
}

static int expand_braced(struct expander *expander, const char **at, struct buf *out)
{
    const char *name = *at;
    size_t len = name_length(name);
    const char *op = name + len;

    if (!len) {
        error_set(expander->err, ERR_INVALID, "'${%.40s' names no variable", name);
        return error_hint(expander->err, "write \\$ where no variable is meant");
    }
    const char *found = expander->lookup(expander->ctx, name, len);
    bool colon = *op == ':';
    op += colon;
    *at = op + (*op != '\0');
    if (*op == '}' && !colon) {
        buf_puts(out, found ? found : "");
        return 0;
    }
    if (*op == '-' || *op == '+' || *op == '?')
        return expand_otherwise(expander, at, *op, colon, name, len, found, out);
    if (*op == '#' || *op == '%')
        return expand_trimmed(expander, at, *op, name, found, out);
    if (*op == '/' && !colon)
        return expand_replaced(expander, at, name, found, out);
    if (!*op)
        return no_brace(expander, name);
    error_set(expander->err, ERR_INVALID, "'${%.60s' has a form that is not known", name);
    return error_hint(expander->err,
                      "known are ${x} ${x:-y} ${x-y} ${x:+y} ${x+y} ${x:?y} ${x?y} ${x#p} ${x##p} "
                      "${x%%p} ${x%%%%p} ${x/p/y} ${x//p/y}");
}

static int expand_dollar(struct expander *expander, const char **at, struct buf *out)
{
    ++*at;
    if (**at == '{') {
        ++*at;
        return expand_braced(expander, at, out);
    }
    size_t len = name_length(*at);
    if (!len) {
        buf_putc(out, '$');
        return 0;
    }
    const char *found = expander->lookup(expander->ctx, *at, len);
    buf_puts(out, found ? found : "");
    *at += len;
    return 0;
}

static int unclosed(struct expander *expander, char quote)
{
    error_set(expander->err, ERR_INVALID, "a %c is not closed", quote);
    return error_hint(expander->err, "write %c%c where no quote is meant", expander->escape, quote);
}

static int expand_double(struct expander *expander, const char **at, bool raw, struct buf *out)
{
    for (++*at; **at != '"';) {
        if (!**at)
            return unclosed(expander, '"');
        if (**at == '$') {
            if (expand_dollar(expander, at, out) != 0)
                return -1;
            continue;
        }
        if (**at == expander->escape &&
            ((*at)[1] == '"' || (*at)[1] == '$' || (*at)[1] == expander->escape)) {
            if (raw)
                buf_putc(out, **at);
            ++*at;
        }
        buf_putc(out, *(*at)++);
    }
    ++*at;
    return 0;
}

static int expand_into(struct expander *expander, const char **at, char until, bool raw,
                       struct buf *out)
{
    if (++expander->depth > EXPAND_DEPTH)
        return error_set(expander->err, ERR_INVALID, "variables are nested too deeply");
    while (**at && **at != until) {
        if (out->len > EXPAND_LIMIT)
            return error_set(expander->err, ERR_TOO_LARGE, "the text becomes larger than %u bytes",
                             EXPAND_LIMIT);
        if (**at == '\'' && !expander->raw_quotes) {
            const char *close = strchr(*at + 1, '\'');
            if (!close)
                return unclosed(expander, '\'');
            buf_append(out, *at + 1, (size_t)(close - *at - 1));
            *at = close + 1;
        } else if (**at == '"' && !expander->raw_quotes) {
            if (expand_double(expander, at, raw, out) != 0)
                return -1;
        } else if (**at == '$') {
            if (expand_dollar(expander, at, out) != 0)
                return -1;
        } else if (**at == expander->escape) {
            if (raw)
                buf_putc(out, **at);
            ++*at;
            if (**at) /* one at the end of it all is nothing */
                buf_putc(out, *(*at)++);
        } else {
            buf_putc(out, *(*at)++);
        }
    }
    expander->depth--;
    return 0;
}

char *dockerfile_expand(const char *word, char escape, unsigned flags, dockerfile_lookup_fn *lookup,
                        void *ctx, struct error *err)
{
    struct expander expander = {.escape = escape,
                                .raw_quotes = (flags & DOCKERFILE_RAW_QUOTES) != 0,
                                .lookup = lookup,
                                .ctx = ctx,
                                .err = err};
    cleanup_buf struct buf out = BUF_INIT;

    if (expand_into(&expander, &word, '\0', false, &out) != 0)
        return NULL;
    return out.data ? buf_steal(&out) : mem_strdup("");
}

int dockerfile_split(const char *text, char escape, struct value *out, struct error *err)
{
    const char *at = text;

    for (;;) {
        at += strspn(at, " \t");
        if (!*at)
            return 0;
        const char *start = at;
        char quote = '\0';
        for (; *at && (quote || (*at != ' ' && *at != '\t')); at++) {
            if (*at == escape && quote != '\'' && at[1])
                at++;
            else if (quote)
                quote = *at == quote ? '\0' : quote;
            else if (*at == '"' || *at == '\'')
                quote = *at;
        }
        if (quote)
            return error_set(err, ERR_INVALID, "a %c is not closed", quote);
        value_set_bytes(value_push(out), start, (size_t)(at - start));
    }
}
