#include "base/signature.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/config.h"
#include "base/mem.h"

struct argument {
    char name[48], type[32];
    bool optional;
};

/* Takes the next "name:type" or "name:type?" word; false at the end. */
static bool next_argument(const char **at, struct argument *out)
{
    const char *p = *at + strspn(*at, " ");
    size_t len = strcspn(p, " ");

    if (len == 0)
        return false;
    *at = p + len;
    size_t name_len = strcspn(p, ": ");
    const char *type = p + name_len + (p[name_len] == ':');
    size_t type_len = (size_t)(p + len - type);
    *out = (struct argument){.optional = type_len && type[type_len - 1] == '?'};
    if (out->optional)
        type_len--;
    if (name_len >= sizeof out->name || type_len >= sizeof out->type)
        return false;
    memcpy(out->name, p, name_len);
    memcpy(out->type, type, type_len);
    return true;
}

static bool fits(const char *type, const struct value *v)
{
    static const struct {
        const char *type;
        unsigned kinds;
    } plain[] = {
        {"string", 1u << VALUE_STRING},
        {"path", 1u << VALUE_STRING},
        {"int", 1u << VALUE_INT},
        {"number", 1u << VALUE_INT | 1u << VALUE_REAL},
        {"bool", 1u << VALUE_BOOL},
        {"map", 1u << VALUE_MAP},
        {"array", 1u << VALUE_ARRAY},
        {"duration", 1u << VALUE_STRING | 1u << VALUE_INT | 1u << VALUE_REAL},
    };

    if (strcmp(type, "any") == 0)
        return true;
    if (strcmp(type, "secret") == 0)
        return v->kind == VALUE_STRING ||
               (v->kind == VALUE_HANDLE && strcmp(v->as.handle.type, "secret") == 0);
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++) {
        if (strcmp(plain[i].type, type) == 0) {
            /* An empty Lua table has no kind of its own: it is an empty array, or an empty map, as
             * is wanted. */
            bool empty = (v->kind == VALUE_MAP || v->kind == VALUE_ARRAY) && value_count(v) == 0 &&
                         plain[i].kinds & (1u << VALUE_MAP | 1u << VALUE_ARRAY);
            return empty || plain[i].kinds & 1u << v->kind;
        }
    }
    return v->kind == VALUE_HANDLE && strcmp(v->as.handle.type, type) == 0;
}

static int unknown_argument(const struct signature *signature, const char *name, struct error *err)
{
    const char *known[32] = {NULL};
    size_t count = 0;
    const char *at = signature->args;
    struct argument argument;

    while (count < 32 && next_argument(&at, &argument))
        known[count++] = mem_strdup(argument.name);
    const char *near = near_miss(name, known, count);
    error_set(err, ERR_USAGE, "%s: unknown argument '%s'%s%s%s", signature->name, name,
              near ? " (did you mean '" : "", near ? near : "", near ? "'?)" : "");
    error_hint(err, "arguments: %s", signature->args[0] ? signature->args : "none");
    for (size_t i = 0; i < count; i++)
        free((void *)known[i]);
    return -1;
}

int signature_check(const struct signature *signature, const struct value *args, struct error *err)
{
    const char *at;
    struct argument argument;

    /* Unknown names first: a misspelt one is the reason why another seems to be missing. */
    for (size_t i = 0; args && args->kind == VALUE_MAP && i < args->as.map.count; i++) {
        bool known = false;
        at = signature->args;
        while (!known && next_argument(&at, &argument))
            known = strcmp(argument.name, args->as.map.pairs[i].key) == 0;
        if (!known)
            return unknown_argument(signature, args->as.map.pairs[i].key, err);
    }
    at = signature->args;
    while (next_argument(&at, &argument)) {
        const struct value *v = value_get(args, argument.name);
        if (!v || v->kind == VALUE_NIL) {
            if (argument.optional)
                continue;
            error_set(err, ERR_USAGE, "%s: argument '%s' (%s) is missing", signature->name,
                      argument.name, argument.type);
            return error_hint(err, "arguments: %s", signature->args);
        }
        if (!fits(argument.type, v)) {
            error_set(err, ERR_USAGE, "%s: argument '%s' must be %s, not %s", signature->name,
                      argument.name, argument.type, value_kind_name(v));
            return error_hint(err, "arguments: %s", signature->args);
        }
    }
    return 0;
}
