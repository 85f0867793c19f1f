#include "run/bound.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

#define POLICY_FILE_MAX (256u << 10)

/* ---- one map of lists ---- */

static int check_key(const struct value_pair *pair, bool may_deny, const char *path,
                     struct error *err)
{
    const char *names[PERM_COUNT + 1];
    size_t count = PERM_COUNT;
    bool known = may_deny && strcmp(pair->key, "deny") == 0;

    memcpy(names, permission_names, sizeof permission_names);
    if (may_deny)
        names[count++] = "deny";
    for (int kind = 0; kind < PERM_COUNT; kind++)
        known = known || strcmp(pair->key, permission_names[kind]) == 0;
    if (known)
        return 0;
    const char *near = near_miss(pair->key, names, count);
    error_set(err, ERR_USAGE, "%s: unknown permission '%s'", path, pair->key);
    return near ? error_hint(err, "did you mean '%s'?", near)
                : error_hint(err,
                             "allowed: read, write, net, exec, env, ci%s, each a list: "
                             "exec: [flake8]",
                             may_deny ? ", and deny with these" : "");
}

static int check_list(const struct value_pair *pair, const char *path, struct error *err)
{
    bool list = pair->value.kind == VALUE_ARRAY;

    for (size_t i = 0; list && i < value_count(&pair->value); i++)
        list = value_at(&pair->value, i)->kind == VALUE_STRING;
    if (list)
        return 0;
    error_set(err, ERR_USAGE, "%s: '%s' must be a list of patterns", path, pair->key);
    return error_hint(err, "write it as  %s: [flake8]", pair->key);
}

/* Patterns are looked at here, where their file can be named. */
static int check_patterns(const struct value *map, bool may_deny, const char *path,
                          struct error *err)
{
    if (map->kind != VALUE_MAP)
        return error_set(err, ERR_USAGE, "%s: must be a map of read, write, net, exec, env, ci",
                         path);
    for (size_t i = 0; i < map->as.map.count; i++) {
        const struct value_pair *pair = &map->as.map.pairs[i];
        int kind = 0;
        if (check_key(pair, may_deny, path, err) < 0)
            return -1;
        if (strcmp(pair->key, "deny") == 0) {
            cleanup_free char *inner = mem_printf("%s: deny", path);
            if (check_patterns(&pair->value, false, inner, err) < 0)
                return -1;
            continue;
        }
        if (check_list(pair, path, err) < 0)
            return -1;
        while (strcmp(permission_names[kind], pair->key) != 0)
            kind++;
        for (size_t k = 0; k < value_count(&pair->value); k++) {
            if (pattern_check((enum permission)kind, value_text(value_at(&pair->value, k), ""),
                              err) < 0) {
                err->code = ERR_USAGE;
                return error_wrap(err, "%s: %s", path, pair->key);
            }
        }
    }
    return 0;
}

/* The text beside each pattern that says where it comes from. */
static void add_origin(struct value *map, const char *text)
{
    struct value *origin = value_put(map, "origin");

    value_set_map(origin);
    for (int kind = 0; kind < PERM_COUNT; kind++) {
        struct value *list = value_put(origin, permission_names[kind]);
        value_set_array(list);
        for (size_t i = 0; i < value_count(value_get(map, permission_names[kind])); i++)
            value_push_string(list, text);
    }
}

static void add_flags(struct value *map, const char *flag, const char *const *const *patterns,
                      const int *counts)
{
    for (int kind = 0; kind < PERM_COUNT; kind++) {
        cleanup_free char *origin = mem_printf("--%s-%s", flag, permission_names[kind]);
        for (int i = 0; i < counts[kind]; i++) {
            struct value *list = value_get(map, permission_names[kind]);
            if (!list) {
                list = value_put(map, permission_names[kind]);
                value_set_array(list);
            }
            value_push_string(list, patterns[kind][i]);
            value_push_string(value_get(value_get(map, "origin"), permission_names[kind]), origin);
        }
    }
}

static int check_flags(const char *flag, const char *const *const *patterns, const int *counts,
                       struct error *err)
{
    for (int kind = 0; kind < PERM_COUNT; kind++) {
        for (int i = 0; i < counts[kind]; i++) {
            if (pattern_check((enum permission)kind, patterns[kind][i], err) < 0) {
                err->code = ERR_USAGE;
                return error_wrap(err, "--%s-%s", flag, permission_names[kind]);
            }
        }
    }
    return 0;
}

/* ---- the policy file ---- */

static int refuse_inside(const struct config *config, const char *path, struct error *err)
{
    char real[PATH_MAX];

    if (!realpath(path, real))
        return errno == ENOENT ? error_set(err, ERR_USAGE, "--policy: there is no file '%s'", path)
                               : error_errno(err, errno, "--policy %s", path);
    if (!pattern_matches(PERM_READ, config->workspace, real))
        return 0;
    error_set(err, ERR_USAGE, "--policy %s: it lies in the workspace %s", path, config->workspace);
    return error_hint(err, "keep it where the scripts' authors cannot change it; for a bound that "
                           "comes with the project use permissions in mlhost.yaml");
}

/* { read = [..] ... }, or a document with such a map under `permissions`. */
static int from_file(const struct config *config, const char *path, struct value *out,
                     struct error *err)
{
    cleanup_buf struct buf text = BUF_INIT;
    cleanup_value struct value doc = {0};

    if (refuse_inside(config, path, err) < 0 ||
        file_read(AT_FDCWD, path, POLICY_FILE_MAX, &text, err) < 0 ||
        value_from_yaml(text.data ? text.data : "", text.len, path, NULL, false, &doc, err) < 0)
        return -1;
    struct value *inner = value_get(&doc, "permissions");
    if (check_patterns(inner ? inner : &doc, true, path, err) < 0)
        return -1;
    value_move(out, inner ? inner : &doc);
    cleanup_free char *real = realpath(path, NULL);
    struct value *protect = value_put(out, "protect");
    value_set_array(protect);
    value_push_string(protect, real ? real : path);
    return 0;
}

int bound_build(const struct config *config, const struct bound_options *options, struct value *out,
                bool *has, struct error *err)
{
    const struct value *configured = value_get(&config->root, "permissions");
    const char *origin = options->policy_file ? options->policy_file : "mlhost.yaml";
    bool file = options->policy_file || (configured && configured->kind == VALUE_MAP);
    bool allows = false, denies = false;

    for (int kind = 0; kind < PERM_COUNT; kind++) {
        allows = allows || options->allow_count[kind];
        denies = denies || options->deny_count[kind];
    }
    if (check_flags("allow", options->allow, options->allow_count, err) < 0 ||
        check_flags("deny", options->deny, options->deny_count, err) < 0)
        return -1;
    value_set_map(out);
    if (options->policy_file) {
        if (from_file(config, options->policy_file, out, err) < 0)
            return -1;
    } else if (file) {
        if (check_patterns(configured, true, "mlhost.yaml: permissions", err) < 0)
            return -1;
        value_free(out);
        value_copy(out, configured);
    }
    if (!value_get(out, "deny"))
        value_set_map(value_put(out, "deny"));
    /* A file that only denies bounds nothing else, as --deny alone does. */
    bool only_denies = !allows;
    for (int kind = 0; kind < PERM_COUNT; kind++)
        only_denies = only_denies && !value_get(out, permission_names[kind]);
    value_put_bool(out, "open", only_denies);
    add_origin(out, origin);
    struct value *deny = value_get(out, "deny"); /* after the last key was put beside it */
    add_origin(deny, origin);
    add_flags(out, "allow", options->allow, options->allow_count);
    add_flags(deny, "deny", options->deny, options->deny_count);
    *has = file || allows || denies;
    return 0;
}
