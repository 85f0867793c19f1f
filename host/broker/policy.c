#include "broker/policy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/config.h"
#include "base/mem.h"

const char *const permission_names[PERM_COUNT] = {"read", "write", "net", "exec", "env"};

struct policy {
    struct value asked, bound, granted; /* maps kind -> list; bound is nil when there is none */
    char *workspace;
    char *who; /* "stage 'x'" */
};

/* Paths are kept absolute and without "." parts, so that a prefix is a prefix. */
static int normalize_path(const char *workspace, const char *pattern, struct value *out,
                          struct error *err)
{
    cleanup_buf struct buf path = BUF_INIT;

    if (strcmp(pattern, "*") == 0) {
        value_set_string(out, "/");
        return 0;
    }
    cleanup_free char *joined = path_join(workspace, pattern);
    for (const char *at = joined; *at;) {
        at += strspn(at, "/");
        size_t len = strcspn(at, "/");
        if (len == 2 && memcmp(at, "..", 2) == 0)
            return error_set(err, ERR_INVALID, "permissions: path '%s' has '..' in it", pattern);
        if (len && !(len == 1 && *at == '.')) {
            buf_putc(&path, '/');
            buf_append(&path, at, len);
        }
        at += len;
    }
    value_set_string(out, path.len ? path.data : "/");
    return 0;
}

static int take(const struct value *from, const char *workspace, const char *whose,
                struct value *out, struct error *err)
{
    value_set_map(out);
    if (!from || from->kind == VALUE_NIL || (from->kind == VALUE_ARRAY && value_count(from) == 0))
        return 0;
    if (from->kind != VALUE_MAP)
        return error_set(err, ERR_INVALID, "%s permissions must be a map, not %s", whose,
                         value_kind_name(from));
    for (size_t i = 0; i < from->as.map.count; i++) {
        const struct value_pair *pair = &from->as.map.pairs[i];
        int kind = 0;
        while (kind < PERM_COUNT && strcmp(permission_names[kind], pair->key) != 0)
            kind++;
        if (kind == PERM_COUNT) {
            const char *near = near_miss(pair->key, permission_names, PERM_COUNT);
            error_set(err, ERR_INVALID, "%s permissions: unknown kind '%s'%s%s%s", whose, pair->key,
                      near ? " (did you mean '" : "", near ? near : "", near ? "'?)" : "");
            return error_hint(err, "kinds: read, write, net, exec, env");
        }
        struct value *list = value_put(out, pair->key);
        value_set_array(list);
        bool empty = pair->value.kind == VALUE_NIL ||
                     (pair->value.kind == VALUE_MAP && value_count(&pair->value) == 0);
        if (pair->value.kind != VALUE_ARRAY && !empty)
            return error_set(err, ERR_INVALID, "%s permissions: %s must be a list of texts", whose,
                             pair->key);
        for (size_t k = 0; k < value_count(&pair->value); k++) {
            const char *text = value_text(value_at(&pair->value, k), NULL);
            if (!text || !text[0])
                return error_set(err, ERR_INVALID, "%s permissions: %s must be a list of texts",
                                 whose, pair->key);
            if (kind > PERM_WRITE)
                value_push_string(list, text);
            else if (normalize_path(workspace, text, value_push(list), err) < 0)
                return -1;
        }
    }
    return 0;
}

struct policy *policy_new(const struct value *asked, const struct value *bound,
                          const char *workspace, struct error *err)
{
    struct policy *policy = mem_alloc(sizeof *policy);

    policy->workspace = mem_strdup(workspace);
    policy->who = mem_strdup("pipeline or stage");
    value_set_map(&policy->granted);
    if (take(asked, workspace, "the script's", &policy->asked, err) < 0 ||
        (bound && take(bound, workspace, "the operator's", &policy->bound, err) < 0)) {
        policy_free(policy);
        return NULL;
    }
    policy_grant(policy, PERM_READ, workspace);
    return policy;
}

void policy_free(struct policy *policy)
{
    if (!policy)
        return;
    value_free(&policy->asked);
    value_free(&policy->bound);
    value_free(&policy->granted);
    free(policy->workspace);
    free(policy->who);
    free(policy);
}

void policy_name(struct policy *policy, const char *who)
{
    free(policy->who);
    policy->who = mem_strdup(who);
}

void policy_grant(struct policy *policy, enum permission kind, const char *pattern)
{
    struct value *list = value_get(&policy->granted, permission_names[kind]);

    if (!list) {
        list = value_put(&policy->granted, permission_names[kind]);
        value_set_array(list);
    }
    value_push_string(list, pattern);
}

/* ---- patterns ---- */

static bool below(const char *folder, const char *path)
{
    size_t len = strlen(folder);

    if (strcmp(folder, "/") == 0)
        return true;
    return strncmp(folder, path, len) == 0 && (path[len] == '\0' || path[len] == '/');
}

/* what: "host:port". IPv6 addresses are bracketed. */
static bool net_matches(const char *pattern, const char *what)
{
    const char *colon = strrchr(what, ':');
    size_t host_len = colon ? (size_t)(colon - what) : strlen(what);
    const char *port_at = strrchr(pattern, ':');
    size_t pattern_len = strlen(pattern);

    if (strcmp(pattern, "*") == 0)
        return true;
    if (port_at && !strchr(port_at, ']')) {
        if (!colon || (strcmp(port_at, ":*") != 0 && strcmp(port_at, colon) != 0))
            return false;
        pattern_len = (size_t)(port_at - pattern);
    }
    if (pattern_len > 2 && pattern[0] == '*' && pattern[1] == '.')
        return host_len > pattern_len - 1 &&
               strncasecmp(what + host_len - (pattern_len - 1), pattern + 1, pattern_len - 1) == 0;
    return host_len == pattern_len && strncasecmp(what, pattern, host_len) == 0;
}

static bool name_matches(const char *pattern, const char *name)
{
    size_t len = strlen(pattern);

    if (len && pattern[len - 1] == '*')
        return strncmp(pattern, name, len - 1) == 0;
    return strcmp(pattern, name) == 0;
}

static bool matches(enum permission kind, const char *pattern, const char *what)
{
    switch (kind) {
    case PERM_READ:
    case PERM_WRITE:
        return below(pattern, what);
    case PERM_NET:
        return net_matches(pattern, what);
    case PERM_EXEC:
        return strcmp(pattern, "*") == 0 || strcmp(pattern, what) == 0;
    default:
        return name_matches(pattern, what);
    }
}

static bool in_list(const struct value *map, enum permission kind, const char *what)
{
    const struct value *list = value_get(map, permission_names[kind]);

    for (size_t i = 0; i < value_count(list); i++) {
        if (matches(kind, value_text(value_at(list, i), ""), what))
            return true;
    }
    return false;
}

/* ---- the check ---- */

static const char *const verbs[PERM_COUNT] = {"may not read", "may not write", "may not connect to",
                                              "may not run the command",
                                              "may not see the variable"};

/* As a script would write it: paths below the workspace without it, ports left to the reader. */
static const char *written(const struct policy *policy, enum permission kind, const char *what)
{
    size_t len = strlen(policy->workspace);

    if (kind <= PERM_WRITE && below(policy->workspace, what) && what[len] == '/')
        return what + len + 1;
    if (kind <= PERM_WRITE && strcmp(policy->workspace, what) == 0)
        return ".";
    return what;
}

int policy_check(const struct policy *policy, enum permission kind, const char *what,
                 struct error *err)
{
    bool asked = in_list(&policy->asked, kind, what);
    bool bounded = policy->bound.kind == VALUE_MAP;

    /* What may be written may be read. */
    if (in_list(&policy->granted, kind, what) ||
        (kind == PERM_READ && in_list(&policy->granted, PERM_WRITE, what)))
        return 0;
    if (kind == PERM_READ && !asked)
        asked = in_list(&policy->asked, PERM_WRITE, what);
    if (asked && (!bounded || in_list(&policy->bound, kind, what) ||
                  (kind == PERM_READ && in_list(&policy->bound, PERM_WRITE, what))))
        return 0;
    const char *name = permission_names[kind], *shown = written(policy, kind, what);
    error_set(err, ERR_DENIED, "%s %s '%s'", policy->who, verbs[kind], shown);
    if (asked)
        return error_hint(
            err,
            "the script asks for it, the operator's bound does not allow it: add \"%s\" to "
            "permissions.%s in mlhost.yaml, or run with --allow-%s %s",
            shown, name, name, shown);
    bool allowed = !bounded || in_list(&policy->bound, kind, what);
    if (allowed)
        return error_hint(err, "add  permissions = { %s = { \"%s\" } }  to %s", name, shown,
                          policy->who);
    return error_hint(err,
                      "add  permissions = { %s = { \"%s\" } }  to %s, and run with --allow-%s %s",
                      name, shown, policy->who, name, shown);
}

void policy_to_value(const struct policy *policy, struct value *out)
{
    value_set_map(out);
    for (int kind = 0; kind < PERM_COUNT; kind++) {
        const struct value *lists[] = {value_get(&policy->granted, permission_names[kind]),
                                       value_get(&policy->asked, permission_names[kind])};
        struct value *to = value_put(out, permission_names[kind]);
        value_set_array(to);
        for (int from = 0; from < 2; from++) {
            for (size_t i = 0; i < value_count(lists[from]); i++) {
                const char *text = value_text(value_at(lists[from], i), "");
                bool held = from == 0 || policy->bound.kind != VALUE_MAP;
                const struct value *bound = value_get(&policy->bound, permission_names[kind]);
                for (size_t k = 0; !held && k < value_count(bound); k++)
                    held = matches((enum permission)kind, value_text(value_at(bound, k), ""), text);
                if (held)
                    value_push_string(to, written(policy, (enum permission)kind, text));
            }
        }
    }
}
