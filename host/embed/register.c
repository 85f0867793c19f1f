/* mlhost_register: an embedding program's primitive becomes a row like any other. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/config.h"
#include "base/mem.h"
#include "embed/call.h"

/* area.name, both of lower-case letters, digits and _, and a letter first. */
static bool name_valid(const char *name)
{
    size_t parts = 0;

    for (const char *at = name;;) {
        size_t len = strspn(at, "abcdefghijklmnopqrstuvwxyz0123456789_");
        if (len == 0 || !islower((unsigned char)at[0]))
            return false;
        parts++;
        at += len;
        if (*at == '\0')
            return parts >= 2;
        if (*at++ != '.')
            return false;
    }
}

static int args_check(const char *name, const char *args, struct error *err)
{
    static const char *const types[] = {"string", "int",  "number",   "bool",   "map",
                                        "array",  "path", "duration", "secret", "any"};
    size_t count = sizeof types / sizeof *types;

    for (const char *at = args + strspn(args, " "); *at; at += strspn(at, " ")) {
        size_t len = strcspn(at, " "), name_len = strcspn(at, ": ");
        cleanup_free char *type = mem_strndup(at + name_len, len - name_len);
        size_t type_len = strlen(type);
        if (type_len && type[type_len - 1] == '?')
            type[--type_len] = '\0';
        bool known = false;
        for (size_t i = 0; i < count && type_len; i++)
            known = known || strcmp(type + 1, types[i]) == 0;
        if (!known || name_len == 0 || name_len >= 48) {
            const char *near = type_len ? near_miss(type + 1, types, count) : NULL;
            error_set(err, ERR_USAGE, "primitive '%s': '%.*s' is no argument%s%s%s", name, (int)len,
                      at, near ? " (did you mean the type '" : "", near ? near : "",
                      near ? "'?)" : "");
            return error_hint(err, "arguments are words name:type or name:type?; types: string int "
                                   "number bool map array "
                                   "path duration secret any");
        }
        at += len;
    }
    return 0;
}

static int check(const struct mlhost_primitive *p, struct error *err)
{
    if (!p->name || !name_valid(p->name)) {
        error_set(err, ERR_USAGE, "'%s' is no name of a primitive", p->name ? p->name : "");
        return error_hint(
            err,
            "it has an area and a name of lower-case letters, digits and _: \"example.greet\"");
    }
    if (!p->fn)
        return error_set(err, ERR_USAGE, "primitive '%s' has no function", p->name);
    if (!p->doc || !p->doc[0] || strchr(p->doc, '\n'))
        return error_set(err, ERR_USAGE, "primitive '%s' needs one line of documentation", p->name);
    return args_check(p->name, p->args ? p->args : "", err);
}

int mlhost_register(const struct mlhost_primitive *primitive)
{
    struct error err = {0};

    if (check(primitive, &err) == 0) {
        /* Rows live as long as the program. */
        struct primitive *row = mem_alloc(sizeof *row);
        struct mlhost_primitive *own = mem_alloc(sizeof *own);
        *own = (struct mlhost_primitive){
            .name = mem_strdup(primitive->name),
            .args = mem_strdup(primitive->args ? primitive->args : ""),
            .returns = mem_strdup(primitive->returns ? primitive->returns : ""),
            .doc = mem_strdup(primitive->doc),
            .fn = primitive->fn,
            .data = primitive->data};
        *row = (struct primitive){.sign = {own->name, own->args, own->returns, own->doc},
                                  .fn = embed_perform,
                                  .data = own};
        if (primitive_add(row, &err) == 0)
            return 0;
        free((void *)own->name);
        free((void *)own->args);
        free((void *)own->returns);
        free((void *)own->doc);
        free(own);
        free(row);
    }
    fprintf(stderr, "mlhost: %s\n", err.message);
    if (err.hint[0])
        fprintf(stderr, "  hint: %s\n", err.hint);
    return -1;
}
