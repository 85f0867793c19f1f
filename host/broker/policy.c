#include "broker/policy.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/config.h"
#include "base/mem.h"

struct policy {
    struct value asked, bound, denied, granted; /* maps kind -> list; bound is nil when there is
                                                   none */
    struct value origin, denied_origin;         /* kind -> list beside the patterns */
    struct value protected;                     /* array of paths */
    char *workspace, *state;
    char *who; /* "stage 'x'" */
};

/* ---- taking patterns in ---- */

/* Paths are kept absolute and without "." parts, so that a prefix is a prefix. */
static int normalize_path(const char *workspace, const char *pattern, struct buf *out,
                          struct error *err)
{
    cleanup_free char *joined = path_join(workspace, pattern);
    size_t from = out->len;

    for (const char *at = joined; *at;) {
        at += strspn(at, "/");
        size_t len = strcspn(at, "/");
        if (len == 2 && memcmp(at, "..", 2) == 0)
            return error_set(err, ERR_INVALID, "path '%s' has '..' in it", pattern);
        if (len && !(len == 1 && *at == '.')) {
            buf_putc(out, '/');
            buf_append(out, at, len);
        }
        at += len;
    }
    if (out->len == from)
        buf_putc(out, '/');
    return 0;
}

/* What is asked for is looked at without links, so /bin/sh has to be /usr/bin/sh where /bin is one.
 * Links in the workspace are whoever's who writes there, and grant nothing beyond it. */
static void follow_links(const char *workspace, struct buf *path)
{
    char real[PATH_MAX];

    if (pattern_matches(PERM_READ, workspace, path->data) || !realpath(path->data, real))
        return;
    buf_clear(path);
    buf_puts(path, real);
}

static int normalize(enum permission kind, const char *workspace, const char *pattern,
                     struct value *out, struct error *err)
{
    cleanup_buf struct buf text = BUF_INIT;
    size_t word = strcspn(pattern, " ");

    if (kind <= PERM_WRITE) {
        if (strcmp(pattern, "*") == 0)
            buf_putc(&text, '/');
        else if (normalize_path(workspace, pattern, &text, err) < 0)
            return -1;
        follow_links(workspace, &text);
    } else if (kind == PERM_EXEC && memchr(pattern, '/', word)) {
        cleanup_free char *command = mem_strndup(pattern, word);
        if (normalize_path(workspace, command, &text, err) < 0)
            return -1;
        follow_links(workspace, &text);
        buf_puts(&text, pattern + word);
    } else {
        buf_puts(&text, pattern);
    }
    value_set_bytes(out, text.data, text.len);
    return 0;
}

static int take_list(enum permission kind, const struct value *from, const char *workspace,
                     struct value *list, struct error *err)
{
    bool empty = from->kind == VALUE_NIL || (from->kind == VALUE_MAP && value_count(from) == 0);

    value_set_array(list);
    if (from->kind != VALUE_ARRAY && !empty)
        return error_set(err, ERR_INVALID, "%s must be a list of texts", permission_names[kind]);
    for (size_t i = 0; i < value_count(from); i++) {
        const char *text = value_text(value_at(from, i), NULL);
        if (!text || !text[0])
            return error_set(err, ERR_INVALID, "%s must be a list of texts",
                             permission_names[kind]);
        if (pattern_check(kind, text, err) < 0 ||
            normalize(kind, workspace, text, value_push(list), err) < 0)
            return error_wrap(err, "%s", permission_names[kind]);
    }
    return 0;
}

static int find_kind(const char *name)
{
    int kind = 0;

    while (kind < PERM_COUNT && strcmp(permission_names[kind], name) != 0)
        kind++;
    return kind;
}

/* Keys of a bound that are no kinds: policy_new looks at them itself. */
static bool is_bounds_own(const char *key)
{
    return strcmp(key, "deny") == 0 || strcmp(key, "origin") == 0 || strcmp(key, "open") == 0 ||
           strcmp(key, "protect") == 0;
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
        int kind = find_kind(pair->key);
        if (is_bounds_own(pair->key))
            continue;
        if (kind == PERM_COUNT) {
            const char *near = near_miss(pair->key, permission_names, PERM_COUNT);
            error_set(err, ERR_INVALID, "%s permissions: unknown kind '%s'%s%s%s", whose, pair->key,
                      near ? " (did you mean '" : "", near ? near : "", near ? "'?)" : "");
            return error_hint(err, "kinds: read, write, net, exec, env, ci");
        }
        if (take_list((enum permission)kind, &pair->value, workspace, value_put(out, pair->key),
                      err) < 0)
            return error_wrap(err, "%s permissions", whose);
    }
    return 0;
}

struct policy *policy_new(const struct value *asked, const struct value *bound,
                          const char *workspace, struct error *err)
{
    struct policy *policy = mem_alloc(sizeof *policy);
    const struct value *origin = value_get(bound, "origin");
    const struct value *denied_origin = value_path(bound, "deny.origin");

    policy->workspace = mem_strdup(workspace);
    policy->who = mem_strdup("pipeline or stage");
    value_set_map(&policy->granted);
    value_set_array(&policy->protected);
    if (take(asked, workspace, "the script's", &policy->asked, err) < 0 ||
        (bound && take(bound, workspace, "the operator's", &policy->bound, err) < 0) ||
        (bound && take(value_get(bound, "deny"), workspace, "the operator's denied",
                       &policy->denied, err) < 0)) {
        policy_free(policy);
        return NULL;
    }
    if (origin)
        value_copy(&policy->origin, origin);
    if (denied_origin)
        value_copy(&policy->denied_origin, denied_origin);
    if (bound && value_get_bool(bound, "open", false))
        value_free(&policy->bound);
    const struct value *protect = value_get(bound, "protect");
    for (size_t i = 0; i < value_count(protect); i++)
        policy_protect(policy, value_text(value_at(protect, i), ""));
    policy_grant(policy, PERM_READ, workspace);
    return policy;
}

void policy_free(struct policy *policy)
{
    if (!policy)
        return;
    value_free(&policy->asked);
    value_free(&policy->bound);
    value_free(&policy->denied);
    value_free(&policy->granted);
    value_free(&policy->origin);
    value_free(&policy->denied_origin);
    value_free(&policy->protected);
    free(policy->workspace);
    free(policy->state);
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

void policy_state(struct policy *policy, const char *folder)
{
    free(policy->state);
    policy->state = mem_strdup(folder);
}

void policy_protect(struct policy *policy, const char *path)
{
    value_push_string(&policy->protected, path);
}

const struct value *policy_protected(const struct policy *policy)
{
    return &policy->protected;
}

const struct value *policy_denied(const struct policy *policy, enum permission kind)
{
    return value_get(&policy->denied, permission_names[kind]);
}

/* ---- in words ---- */

static const char *const verbs[PERM_COUNT] = {"may not read",
                                              "may not write",
                                              "may not connect to",
                                              "may not run the command",
                                              "may not see the variable",
                                              "may not give the build agent"};

/* As a script would write it: paths below the workspace without it, the words of a command with
 * spaces. */
static const char *written(const struct policy *policy, enum permission kind, const char *what,
                           struct buf *out)
{
    size_t len = strlen(policy->workspace);
    bool inside = pattern_matches(PERM_READ, policy->workspace, what);

    buf_clear(out);
    if (kind <= PERM_WRITE && inside && what[len] == '/')
        buf_puts(out, what + len + 1);
    else if (kind <= PERM_WRITE && strcmp(policy->workspace, what) == 0)
        buf_putc(out, '.');
    else
        buf_puts(out, what);
    for (size_t i = 0; i < out->len; i++) {
        if (out->data[i] == PATTERN_WORD)
            out->data[i] = ' ';
    }
    return out->data;
}

/* ---- the host's own ---- */

/* <state>/runs/<run>/stages/<stage>/out and below: what stages give each other. */
static bool is_output(const char *state, const char *path)
{
    static const char *const parts[] = {"runs", NULL, "stages", NULL, "out"};
    const char *at = path + strlen(state);

    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (*at++ != '/')
            return false;
        size_t len = strcspn(at, "/");
        if (len == 0 || (parts[i] && (strlen(parts[i]) != len || strncmp(parts[i], at, len) != 0)))
            return false;
        at += len;
    }
    return true;
}

/* Granted as a folder within the state: the stage's own. */
static bool is_own(const struct policy *policy, const char *path)
{
    for (int kind = PERM_READ; kind <= PERM_WRITE; kind++) {
        const struct value *list = value_get(&policy->granted, permission_names[kind]);
        for (size_t i = 0; i < value_count(list); i++) {
            const char *grant = value_text(value_at(list, i), "");
            if (pattern_matches(PERM_READ, policy->state, grant) &&
                strcmp(policy->state, grant) != 0 && pattern_matches(PERM_READ, grant, path))
                return true;
        }
    }
    return false;
}

static int check_hosts_own(const struct policy *policy, enum permission kind, const char *path,
                           struct error *err)
{
    cleanup_buf struct buf text = BUF_INIT;

    if (policy->state && pattern_matches(PERM_READ, policy->state, path) && !is_own(policy, path) &&
        !(kind == PERM_READ && is_output(policy->state, path))) {
        error_set(err, ERR_DENIED, "%s may not %s '%s': it is mlhost's own", policy->who,
                  kind == PERM_READ ? "read" : "write", written(policy, kind, path, &text));
        return error_hint(err, "stages read the output folders of others (cx.out), and write their "
                               "own; no permission grants more of it");
    }
    if (kind != PERM_WRITE)
        return 0;
    for (size_t i = 0; i < value_count(&policy->protected); i++) {
        const char *own = value_text(value_at(&policy->protected, i), "");
        if (!pattern_matches(PERM_READ, path, own))
            continue;
        bool above = strcmp(path, own) != 0;
        error_set(err, ERR_DENIED, "%s may not write '%s'%s%s", policy->who,
                  written(policy, kind, path, &text), above ? ": it holds " : "", above ? own : "");
        return error_hint(err, "the operator's settings stand there; no script changes them");
    }
    return 0;
}

/* ---- the check ---- */

static bool in_list(const struct value *map, enum permission kind, const char *what)
{
    const struct value *list = value_get(map, permission_names[kind]);

    for (size_t i = 0; i < value_count(list); i++) {
        if (pattern_matches(kind, value_text(value_at(list, i), ""), what))
            return true;
    }
    return false;
}

/* What may be written may be read. */
static bool held(const struct value *map, enum permission kind, const char *what)
{
    return in_list(map, kind, what) || (kind == PERM_READ && in_list(map, PERM_WRITE, what));
}

/* Does a list bound the arguments of this command? Then they are part of what is refused. */
static bool bounds_arguments(const struct value *map, const char *command, size_t len)
{
    const struct value *list = value_get(map, permission_names[PERM_EXEC]);

    for (size_t i = 0; i < value_count(list); i++) {
        const char *pattern = value_text(value_at(list, i), "");
        if (strncmp(pattern, command, len) == 0 && pattern[len] == ' ')
            return true;
    }
    return false;
}

static int refuse(const struct policy *policy, enum permission kind, const char *what, bool asked,
                  bool allowed, struct error *err)
{
    cleanup_buf struct buf text = BUF_INIT;
    const char *name = permission_names[kind], *shown = written(policy, kind, what, &text);
    size_t word = kind == PERM_EXEC ? strcspn(what, (const char[]){PATTERN_WORD, '\0'}) : text.len;

    if (kind == PERM_EXEC && !bounds_arguments(&policy->asked, what, word) &&
        !bounds_arguments(&policy->bound, what, word))
        text.data[word] = '\0';
    error_set(err, ERR_DENIED, "%s %s '%s'", policy->who, verbs[kind], shown);
    if (kind == PERM_EXEC)
        text.data[word] = '\0'; /* a grant names the command; its bounds are added by hand */
    if (asked)
        return error_hint(
            err,
            "the script asks for it, the operator's bound does not allow it: add \"%s\" to "
            "permissions.%s in mlhost.yaml, or run with --allow-%s %s",
            shown, name, name, shown);
    if (allowed)
        return error_hint(err, "add  permissions = { %s = { \"%s\" } }  to %s", name, shown,
                          policy->who);
    return error_hint(err,
                      "add  permissions = { %s = { \"%s\" } }  to %s, and run with --allow-%s %s",
                      name, shown, policy->who, name, shown);
}

int policy_check(const struct policy *policy, enum permission kind, const char *what,
                 struct error *err)
{
    cleanup_buf struct buf text = BUF_INIT;

    if (in_list(&policy->denied, kind, what)) {
        error_set(err, ERR_DENIED, "%s %s '%s': the operator denies it", policy->who, verbs[kind],
                  written(policy, kind, what, &text));
        return error_hint(err, "permissions.deny.%s of the policy, or --deny-%s, names it",
                          permission_names[kind], permission_names[kind]);
    }
    if (kind <= PERM_WRITE && check_hosts_own(policy, kind, what, err) < 0)
        return -1;
    if (held(&policy->granted, kind, what))
        return 0;
    bool asked = held(&policy->asked, kind, what);
    bool allowed = policy->bound.kind != VALUE_MAP || held(&policy->bound, kind, what);
    return asked && allowed ? 0 : refuse(policy, kind, what, asked, allowed, err);
}

/* ---- where a name leads ---- */

/* Does a list grant this address, and not only names? */
static bool grants_address(const struct value *map, const char *host, const char *address, int port,
                           enum address_kind kind)
{
    const struct value *list = value_get(map, permission_names[PERM_NET]);
    bool local_name =
        strcasecmp(host, "localhost") == 0 ||
        (strlen(host) > 10 && strcasecmp(host + strlen(host) - 10, ".localhost") == 0);

    for (size_t i = 0; i < value_count(list); i++) {
        const char *pattern = value_text(value_at(list, i), "");
        cleanup_free char *what = mem_printf("%s:%d", host, port);
        if (pattern_holds_address(pattern, address, port))
            return true;
        /* localhost is this machine by its meaning; "*" was said of it, too. */
        if (kind == ADDRESS_OWN &&
            (pattern[0] == '*' ? pattern[1] == '\0' || pattern[1] == ':' || local_name
                               : local_name) &&
            pattern_matches(PERM_NET, pattern, what))
            return true;
    }
    return false;
}

int policy_check_address(const struct policy *policy, const char *host, const char *address,
                         int port, struct error *err)
{
    enum address_kind kind = address_kind(address);
    const struct value *denied = value_get(&policy->denied, permission_names[PERM_NET]);

    for (size_t i = 0; i < value_count(denied); i++) {
        if (pattern_holds_address(value_text(value_at(denied, i), ""), address, port))
            return error_set(err, ERR_DENIED,
                             "%s may not connect to '%s' (%s): the operator denies "
                             "that address",
                             policy->who, host, address);
    }
    if (kind == ADDRESS_PLAIN || grants_address(&policy->granted, host, address, port, kind))
        return 0;
    if (grants_address(&policy->asked, host, address, port, kind) &&
        (policy->bound.kind != VALUE_MAP ||
         grants_address(&policy->bound, host, address, port, kind)))
        return 0;
    error_set(err, ERR_DENIED, "%s may not connect to '%s': it leads to %s, an address of this %s",
              policy->who, host, address, kind == ADDRESS_OWN ? "machine" : "machine's link");
    return error_hint(err,
                      "a name is not enough for such an address: grant it as well, "
                      "permissions = { net = { \"%s\" } }",
                      address);
}

/* ---- what holds ---- */

/* Of two paths the one that is below the other; else the asked pattern when the bound covers it. */
static const char *narrower(enum permission kind, const char *asked, const char *bound)
{
    if (pattern_covers(kind, bound, asked))
        return asked;
    return kind <= PERM_WRITE && pattern_covers(kind, asked, bound) ? bound : NULL;
}

static void push_effective(const struct policy *policy, enum permission kind, const char *asked,
                           struct value *to)
{
    const struct value *bound = value_get(&policy->bound, permission_names[kind]);
    cleanup_buf struct buf text = BUF_INIT;

    if (policy->bound.kind != VALUE_MAP) {
        value_push_string(to, written(policy, kind, asked, &text));
        return;
    }
    for (size_t i = 0; i < value_count(bound); i++) {
        const char *both = narrower(kind, asked, value_text(value_at(bound, i), ""));
        if (both)
            value_push_string(to, written(policy, kind, both, &text));
        if (both == asked)
            return;
    }
}

void policy_to_value(const struct policy *policy, struct value *out)
{
    value_set_map(out);
    for (int kind = 0; kind < PERM_COUNT; kind++) {
        const struct value *granted = value_get(&policy->granted, permission_names[kind]);
        const struct value *asked = value_get(&policy->asked, permission_names[kind]);
        struct value *to = value_put(out, permission_names[kind]);
        cleanup_buf struct buf text = BUF_INIT;
        value_set_array(to);
        for (size_t i = 0; i < value_count(granted); i++)
            value_push_string(to, written(policy, (enum permission)kind,
                                          value_text(value_at(granted, i), ""), &text));
        for (size_t i = 0; i < value_count(asked); i++) {
            const char *pattern = value_text(value_at(asked, i), "");
            if (!in_list(&policy->denied, (enum permission)kind, pattern))
                push_effective(policy, (enum permission)kind, pattern, to);
        }
    }
}

static const char *origin_of(const struct value *origin, int kind, size_t index)
{
    return value_text(value_at(value_get(origin, permission_names[kind]), index),
                      "the operator's bound");
}

static void explain(const struct policy *policy, enum permission kind, const char *asked,
                    struct value *out)
{
    const struct value *bound = value_get(&policy->bound, permission_names[kind]);
    const struct value *denied = value_get(&policy->denied, permission_names[kind]);
    cleanup_buf struct buf text = BUF_INIT;
    const char *by = NULL, *part = NULL;
    bool granted = policy->bound.kind != VALUE_MAP;

    value_set_map(out);
    value_put_string(out, "kind", permission_names[kind]);
    value_put_string(out, "pattern", written(policy, kind, asked, &text));
    for (size_t i = 0; !granted && i < value_count(bound); i++) {
        const char *both = narrower(kind, asked, value_text(value_at(bound, i), ""));
        granted = both == asked;
        if (both) {
            by = origin_of(&policy->origin, kind, i);
            part = both == asked ? NULL : both;
        }
    }
    for (size_t i = 0; i < value_count(denied); i++) {
        const char *pattern = value_text(value_at(denied, i), "");
        if (pattern_covers(kind, pattern, asked)) {
            granted = false;
            part = NULL;
            by = origin_of(&policy->denied_origin, kind, i);
        } else if (pattern_covers(kind, asked, pattern)) {
            value_put_string(out, "except", written(policy, kind, pattern, &text));
        }
    }
    value_put_bool(out, "granted", granted || part);
    if (part)
        value_put_string(out, "part", written(policy, kind, part, &text));
    value_put_string(out, "by",
                     by                                ? by
                     : policy->bound.kind != VALUE_MAP ? "no bound: what is asked holds"
                                                       : "not in the operator's bound");
}

void policy_explain(const struct policy *policy, struct value *out)
{
    value_set_array(out);
    for (int kind = 0; kind < PERM_COUNT; kind++) {
        const struct value *asked = value_get(&policy->asked, permission_names[kind]);
        for (size_t i = 0; i < value_count(asked); i++)
            explain(policy, (enum permission)kind, value_text(value_at(asked, i), ""),
                    value_push(out));
    }
}
