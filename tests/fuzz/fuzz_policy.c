/*
 * Permissions. The input is lines: kind, the script's pattern, the operator's pattern, what is
 * asked for. Whatever they are, nothing is granted that one of the two does not grant alone, and
 * nothing below a path that is not below the pattern.
 */
#include "fuzz.h"

#include "broker/policy.h"

static void one_pattern(const char *kind, const char *pattern, struct value *out)
{
    value_set_map(out);
    struct value *list = value_put(out, kind);
    value_set_array(list);
    value_push_string(list, pattern);
}

/* *refused: the patterns are no patterns. */
static bool allows(const struct value *asked, const struct value *bound, enum permission kind,
                   const char *what, bool *refused)
{
    struct error err = {0};
    struct policy *policy = policy_new(asked, bound, "/w/space", &err);

    *refused = !policy;
    check(policy || err.code == ERR_INVALID);
    bool allowed = policy && policy_check(policy, kind, what, &err) == 0;
    check(!policy || allowed || err.code == ERR_DENIED);
    policy_free(policy);
    return allowed;
}

static void policy(char *lines[4])
{
    enum permission kind = (unsigned char)lines[0][0] % PERM_COUNT;
    const char *what = lines[3];
    cleanup_value struct value asked = {0};
    cleanup_value struct value bound = {0};
    bool refused, ignored;

    one_pattern(permission_names[kind], lines[1], &asked);
    one_pattern(permission_names[kind], lines[2], &bound);
    bool both = allows(&asked, &bound, kind, what, &refused);
    bool workspace = kind == PERM_READ && strncmp(what, "/w/space", 8) == 0;
    if (refused || workspace)
        return;
    bool by_script = allows(&asked, NULL, kind, what, &ignored);
    bool by_operator = allows(&bound, &asked, kind, what, &ignored);
    check(both == by_operator && (!both || by_script));
    /* A path pattern without wildcard and parts to drop grants what begins with it. */
    if (by_script && kind <= PERM_WRITE && lines[1][0] == '/' && !strstr(lines[1], "/.") &&
        !strstr(lines[1], "//") && lines[1][strlen(lines[1]) - 1] != '/')
        check(strncmp(what, lines[1], strlen(lines[1])) == 0);
    /* A command's pattern begins with its name (paths are made clean first). */
    size_t name = strcspn(lines[1], " ");
    if (by_script && kind == PERM_EXEC && strcmp(lines[1], "*") != 0 &&
        !memchr(lines[1], '/', name))
        check(strcspn(what, "\x1f") == name && strncmp(lines[1], what, name) == 0);
    /* What the wide one allows holds all that the narrow one does. */
    if (kind > PERM_WRITE && pattern_covers(kind, lines[2], lines[1]) &&
        pattern_matches(kind, lines[1], what))
        check(pattern_matches(kind, lines[2], what));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *lines[4];

    if (size > 1024)
        return 0;
    cleanup_free char *text = mem_strndup((const char *)data, size);
    cut_lines(text, lines, 4);
    policy(lines);
    return 0;
}
