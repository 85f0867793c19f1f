#include "run/bound.h"

#include <fcntl.h>
#include <string.h>

#define POLICY_FILE_MAX (256u << 10)

/* { read = [..] ... }, or a document with such a map under `permissions`. */
static int from_file(const char *path, struct value *out, struct error *err)
{
    cleanup_buf struct buf text = BUF_INIT;
    struct value doc = {0};

    if (file_read(AT_FDCWD, path, POLICY_FILE_MAX, &text, err) < 0)
        return -1;
    if (value_from_yaml(text.data ? text.data : "", text.len, path, NULL, false, &doc, err) < 0)
        return -1;
    struct value *inner = value_get(&doc, "permissions");
    value_move(out, inner ? inner : &doc);
    value_free(&doc);
    if (out->kind != VALUE_MAP) {
        value_free(out);
        error_set(err, ERR_USAGE, "%s: must be a map of read, write, net, exec, env", path);
        return -1;
    }
    for (size_t i = 0; i < out->as.map.count; i++) {
        const struct value_pair *pair = &out->as.map.pairs[i];
        const char *near = near_miss(pair->key, permission_names, PERM_COUNT);
        bool known = false;
        for (int kind = 0; kind < PERM_COUNT; kind++)
            known = known || strcmp(pair->key, permission_names[kind]) == 0;
        bool list = pair->value.kind == VALUE_ARRAY;
        for (size_t k = 0; list && k < value_count(&pair->value); k++)
            list = value_at(&pair->value, k)->kind == VALUE_STRING;
        if (known && list)
            continue;
        if (known)
            error_set(err, ERR_USAGE, "%s: '%s' must be a list of patterns", path, pair->key);
        else
            error_set(err, ERR_USAGE, "%s: unknown permission '%s'", path, pair->key);
        if (!known && near)
            error_hint(err, "did you mean '%s'?", near);
        else
            error_hint(err, "allowed: read, write, net, exec, env, each a list: exec: [flake8]");
        value_free(out);
        return -1;
    }
    return 0;
}

int bound_build(const struct config *config, const struct bound_options *options, struct value *out,
                bool *has, struct error *err)
{
    const struct value *configured = value_get(&config->root, "permissions");

    *has = true;
    if (options->policy_file) {
        if (from_file(options->policy_file, out, err) < 0)
            return -1;
    } else if (configured && configured->kind == VALUE_MAP) {
        value_copy(out, configured);
    } else {
        *has = false;
        value_set_map(out);
    }
    for (int kind = 0; kind < PERM_COUNT; kind++) {
        for (int i = 0; i < options->allow_count[kind]; i++) {
            struct value *list = value_get(out, permission_names[kind]);
            if (!list) {
                list = value_put(out, permission_names[kind]);
                value_set_array(list);
            }
            value_push_string(list, options->allow[kind][i]);
            *has = true;
        }
    }
    return 0;
}
