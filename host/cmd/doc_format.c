/* All rows as one document: Markdown for docs/api.md, LuaLS annotations for editors. */
#include <string.h>

#include "broker/primitive.h"
#include "cmd/doc.h"

struct word {
    const char *name, *type;
    int name_len, type_len;
    bool optional;
};

/* Takes the next "name:type" or "name:type?" word; false at the end. */
static bool next_word(const char **at, struct word *out)
{
    const char *p = *at + strspn(*at, " ");
    size_t len = strcspn(p, " "), name = strcspn(p, ": ");

    if (len == 0)
        return false;
    *at = p + len;
    bool optional = p[len - 1] == '?', typed = p[name] == ':';
    *out = (struct word){.name = p,
                         .name_len = (int)name,
                         .type = typed ? p + name + 1 : "any",
                         .optional = optional};
    out->type_len = typed ? (int)(len - name) - 1 - optional : 3;
    return true;
}

/* "fs" of "fs.read": what comes before the last dot. */
static size_t area_len(const char *name)
{
    const char *dot = strrchr(name, '.');

    return dot ? (size_t)(dot - name) : 0;
}

static bool area_begins(const struct primitive *const *rows, size_t i)
{
    size_t len = area_len(rows[i]->sign.name);

    return i == 0 || area_len(rows[i - 1]->sign.name) != len ||
           strncmp(rows[i - 1]->sign.name, rows[i]->sign.name, len) != 0;
}

/* A doc line in a table cell. */
static void cell(const char *text, struct buf *out)
{
    for (const char *c = text; *c; c++) {
        if (strchr("*|<\\", *c))
            buf_putc(out, '\\');
        buf_putc(out, *c);
    }
}

static void markdown(const struct primitive *const *rows, size_t count, struct buf *out)
{
    struct word word;

    for (size_t i = 0; i < count; i++) {
        const struct signature *s = &rows[i]->sign;
        if (area_begins(rows, i))
            buf_printf(out, "%s### host.%.*s\n\n| call | returns | what it does |\n|---|---|---|\n",
                       i ? "\n" : "", (int)area_len(s->name), s->name);
        buf_printf(out, "| `%s(", s->name);
        const char *at = s->args, *separator = "";
        while (next_word(&at, &word)) {
            buf_printf(out, "%s%.*s%s: %.*s", separator, word.name_len, word.name,
                       word.optional ? "?" : "", word.type_len, word.type);
            separator = ", ";
        }
        at = s->returns ? s->returns : "";
        if (next_word(&at, &word))
            buf_printf(out, ")` | %.*s: %.*s%s | ", word.name_len, word.name, word.type_len,
                       word.type, word.optional ? " or nil" : "");
        else
            buf_puts(out, ")` | | ");
        cell(s->doc, out);
        buf_puts(out, " |\n");
    }
}

static const char *lua_type(const struct word *word)
{
    static const struct {
        const char *type, *lua;
    } types[] = {
        {"string", "string"}, {"path", "string"},
        {"int", "integer"},   {"number", "number"},
        {"bool", "boolean"},  {"map", "table"},
        {"array", "any[]"},   {"duration", "string|number"},
        {"any", "any"},       {"secret", "string|mlhost.Handle"},
    };

    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (strlen(types[i].type) == (size_t)word->type_len &&
            memcmp(types[i].type, word->type, (size_t)word->type_len) == 0)
            return types[i].lua;
    }
    return "mlhost.Handle";
}

/* What a stub gives back is a handle where a row takes either. */
static const char *lua_return(const struct word *word)
{
    const char *type = lua_type(word);

    return strcmp(type, "string|mlhost.Handle") == 0 ? "mlhost.Handle" : type;
}

static void luals_one(const struct signature *s, struct buf *out)
{
    struct word word, result;
    const char *at = s->args, *separator = "", *returns = s->returns ? s->returns : "";
    bool gives = next_word(&returns, &result);

    buf_printf(out, "\n---%s\n", s->doc);
    while (next_word(&at, &word)) {
        const char *type = lua_type(&word);
        buf_printf(out, "---@param %.*s%s %s", word.name_len, word.name, word.optional ? "?" : "",
                   type);
        if (strlen(type) != (size_t)word.type_len ||
            memcmp(type, word.type, (size_t)word.type_len) != 0)
            buf_printf(out, " # %.*s", word.type_len, word.type);
        buf_putc(out, '\n');
    }
    if (gives)
        buf_printf(out, "---@return %s%s %.*s\n", lua_return(&result), result.optional ? "?" : "",
                   result.name_len, result.name);
    if (s->args[0]) {
        buf_puts(out, "---@overload fun(args: { ");
        for (at = s->args; next_word(&at, &word); separator = ", ")
            buf_printf(out, "%s%.*s%s: %s", separator, word.name_len, word.name,
                       word.optional ? "?" : "", lua_type(&word));
        buf_puts(out, " })");
        if (gives)
            buf_printf(out, ": %s%s", lua_return(&result), result.optional ? "?" : "");
        buf_puts(out, "\n");
    }
    buf_printf(out, "function host.%s(", s->name);
    separator = "";
    for (at = s->args; next_word(&at, &word); separator = ", ")
        buf_printf(out, "%s%.*s", separator, word.name_len, word.name);
    buf_puts(out, ") end\n");
}

static void luals(const struct primitive *const *rows, size_t count, struct buf *out)
{
    buf_puts(out, "---@meta host\n-- Written by `mlhost help --format luals`.\n\n"
                  "---An object that lives in the host: a secret, a client. It can be passed on, "
                  "not looked into.\n"
                  "---@class mlhost.Handle\n\n---@class host\nlocal host = {}\n");
    for (size_t i = 0; i < count; i++) {
        const char *name = rows[i]->sign.name;
        if (area_begins(rows, i))
            buf_printf(out, "\n---@class host.%.*s\nhost.%.*s = {}\n", (int)area_len(name), name,
                       (int)area_len(name), name);
        luals_one(&rows[i]->sign, out);
    }
    buf_puts(out, "\nreturn host\n");
}

bool doc_format(const char *format, struct buf *out)
{
    size_t count;
    const struct primitive *const *rows = primitive_table(&count);

    if (strcmp(format, "markdown") == 0)
        markdown(rows, count, out);
    else if (strcmp(format, "luals") == 0)
        luals(rows, count, out);
    else
        return false;
    return true;
}
