/* Variables and quotes in a Dockerfile's words. */
#include "oci/dockerfile.h"

#include <ctype.h>
#include <string.h>

#include "base/mem.h"

#define EXPAND_DEPTH 16
#define EXPAND_LIMIT (1u << 20)

struct expander {
    char escape;
    dockerfile_lookup_fn *lookup;
    void *ctx;
    struct error *err;
    int depth;
};

static int expand_into(struct expander *expander, const char **at, char until, struct buf *out);

static size_t name_length(const char *at)
{
    size_t len = 0;

    if (isdigit((unsigned char)*at))
        return 1;
    while (isalnum((unsigned char)at[len]) || at[len] == '_')
        len++;
    return len;
}

static int expand_braced(struct expander *expander, const char **at, struct buf *out)
{
    const char *name = *at;
    size_t len = name_length(name);
    const char *op = name + len;
    bool colon = *op == ':';

    if (!len)
        return error_set(expander->err, ERR_INVALID, "'${%.40s' names no variable", name);
    const char *found = expander->lookup(expander->ctx, name, len);
    if (*op == '}') {
        buf_puts(out, found ? found : "");
        *at = op + 1;
        return 0;
    }
    op += colon;
    if (*op != '-' && *op != '+' && *op != '?') {
        error_set(expander->err, ERR_INVALID, "'${%.60s' has a form that is not known", name);
        return error_hint(expander->err,
                          "known are ${x} ${x:-y} ${x-y} ${x:+y} ${x+y} ${x:?y} ${x?y}");
    }
    cleanup_buf struct buf other = BUF_INIT;
    *at = op + 1;
    if (expand_into(expander, at, '}', &other) != 0)
        return -1;
    if (**at != '}')
        return error_set(expander->err, ERR_INVALID, "'${%.60s' has no closing brace", name);
    ++*at;
    bool set = found && (!colon || *found);
    if (*op == '?' && !set)
        return error_set(expander->err, ERR_INVALID, "%.*s: %s", (int)len, name,
                         other.len ? other.data : "is not set");
    if (*op == '+')
        buf_append(out, set && other.len ? other.data : "", set ? other.len : 0);
    else if (set)
        buf_puts(out, found);
    else if (*op == '-')
        buf_append(out, other.len ? other.data : "", other.len);
    return 0;
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
    return error_set(expander->err, ERR_INVALID, "a %c is not closed", quote);
}

static int expand_double(struct expander *expander, const char **at, struct buf *out)
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
            ((*at)[1] == '"' || (*at)[1] == '$' || (*at)[1] == expander->escape))
            ++*at;
        buf_putc(out, *(*at)++);
    }
    ++*at;
    return 0;
}

static int expand_into(struct expander *expander, const char **at, char until, struct buf *out)
{
    if (++expander->depth > EXPAND_DEPTH)
        return error_set(expander->err, ERR_INVALID, "variables are nested too deeply");
    while (**at && **at != until) {
        if (out->len > EXPAND_LIMIT)
            return error_set(expander->err, ERR_TOO_LARGE, "the text becomes larger than %u bytes",
                             EXPAND_LIMIT);
        if (**at == '\'') {
            const char *close = strchr(*at + 1, '\'');
            if (!close)
                return unclosed(expander, '\'');
            buf_append(out, *at + 1, (size_t)(close - *at - 1));
            *at = close + 1;
        } else if (**at == '"') {
            if (expand_double(expander, at, out) != 0)
                return -1;
        } else if (**at == '$') {
            if (expand_dollar(expander, at, out) != 0)
                return -1;
        } else {
            if (**at == expander->escape && (*at)[1])
                ++*at;
            buf_putc(out, *(*at)++);
        }
    }
    expander->depth--;
    return 0;
}

char *dockerfile_expand(const char *word, char escape, dockerfile_lookup_fn *lookup, void *ctx,
                        struct error *err)
{
    struct expander expander = {.escape = escape, .lookup = lookup, .ctx = ctx, .err = err};
    cleanup_buf struct buf out = BUF_INIT;

    if (expand_into(&expander, &word, '\0', &out) != 0)
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
