/*
 * .dockerignore and the wildcards of COPY. Input: a line with a path, then patterns. Each pattern
 * matches what a slow matcher that takes every way says; a folder whose content may be let in again
 * is never said to be out of reach.
 */
#include "fuzz.h"

#include "oci/ignore.h"
#include "oci/tree.h"

#define LONGEST 40

/* One character of a pattern at *p against c: 1, 0, or -1 for a pattern that is none. */
static int one_char(const char **p, char c)
{
    if (**p == '?') {
        ++*p;
        return c != '/';
    }
    if (**p == '[') {
        bool negated = *++*p == '^', found = false;
        *p += negated;
        if (**p == ']')
            return -1;
        while (**p != ']') {
            unsigned char low, high;
            if (!**p || **p == '-' || (**p == '\\' && !*++*p))
                return -1;
            low = high = (unsigned char)*(*p)++;
            if (**p == '-') {
                if (!*++*p || **p == ']' || **p == '-' || (**p == '\\' && !*++*p))
                    return -1;
                high = (unsigned char)*(*p)++;
            }
            found = found || ((unsigned char)c >= low && (unsigned char)c <= high);
        }
        ++*p;
        return found != negated && c != '/';
    }
    if (**p == '\\' && !*++*p)
        return -1;
    return *(*p)++ == c;
}

static bool slow(const char *p, const char *s, signed char memo[LONGEST + 1][LONGEST + 1],
                 const char *p0, const char *s0)
{
    signed char *known = &memo[p - p0][s - s0];
    bool found = false;

    if (*known)
        return *known > 0;
    if (!*p) {
        found = !*s;
    } else if (p[0] == '*' && p[1] == '*') { /* any folders, or none; at the end: anything */
        const char *rest = p + 2 + (p[2] == '/');
        found = !*rest || slow(rest, s, memo, p0, s0);
        for (const char *at = s; !found && *at; at++)
            found = *at == '/' && slow(rest, at + 1, memo, p0, s0);
    } else if (*p == '*') {
        for (const char *at = s; !found; at++) {
            found = slow(p + 1, at, memo, p0, s0);
            if (!*at || *at == '/')
                break;
        }
    } else if (*s) {
        const char *next = p;
        found = one_char(&next, *s) == 1 && slow(next, s + 1, memo, p0, s0);
    }
    *known = found ? 1 : -1;
    return found;
}

static void compare(const char *pattern, const char *path)
{
    signed char memo[LONGEST + 1][LONGEST + 1] = {0};

    if (strlen(pattern) > LONGEST || strlen(path) > LONGEST)
        return;
    int quick = wildcard_match(pattern, path);
    const char *tail = pattern + 2;
    if (strncmp(pattern, "**", 2) == 0 && *tail && *tail != '/' && !wildcard_has(tail)) {
        const char *end = strstr(path, tail); /* "**.md" */
        while (end && end[strlen(tail)])
            end = strstr(end + 1, tail);
        check(quick == (end != NULL));
        return;
    }
    if (quick >= 0)
        check(quick == (int)slow(pattern, path, memo, pattern, path));
    if (!wildcard_has(pattern))
        check(quick == (strcmp(pattern, path) == 0));
}

/* What is let in again can be reached: every folder on the way is let in, or walked all the same.
 */
static void reachable(const struct ignore *ignore, const char *path)
{
    if (ignore_match(ignore, path))
        return;
    cleanup_free char *folder = mem_strdup(path);
    for (char *slash = strrchr(folder, '/'); slash; slash = strrchr(folder, '/')) {
        *slash = '\0';
        check(!ignore_match(ignore, folder) || ignore_may_reenter(ignore, folder));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error err = {0};
    char *lines[2];

    if (size > 512)
        return 0;
    cleanup_free char *text = mem_strndup((const char *)data, size);
    cut_lines(text, lines, 2);
    cleanup_free char *path = tree_clean(lines[0]);
    struct ignore *ignore = ignore_parse(lines[1], strlen(lines[1]), ".dockerignore", &err);
    check((ignore != NULL) == (err.code == ERR_NONE));
    if (ignore && *path)
        reachable(ignore, path);
    ignore_free(ignore);
    lines[1][strcspn(lines[1], "\n")] = '\0';
    compare(lines[1], path);
    compare(lines[1], lines[0]);
    return 0;
}
