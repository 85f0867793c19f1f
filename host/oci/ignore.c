#include "oci/ignore.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/mem.h"
#include "oci/tree.h"

struct rule {
    char *pattern; /* clean, without leading and trailing slash */
    bool take_back;
};

struct ignore {
    struct rule *rules;
    size_t count;
    bool any_take_back;
};

bool wildcard_has(const char *text)
{
    return strpbrk(text, "*?[\\") != NULL;
}

/* One [class]; *pattern is just past "[". 1, 0, or -1 malformed. */
static int match_class(const char **pattern, char c)
{
    const char *p = *pattern;
    bool negated = *p == '^', matched = false;

    if (negated)
        p++;
    for (bool first = true; *p != ']' || first; first = false) {
        char low, high;
        if (!*p || (*p == '-') || (*p == ']' && first))
            return -1;
        if (*p == '\\' && !*++p)
            return -1;
        low = high = *p++;
        if (*p == '-') {
            p++;
            if (!*p || *p == ']' || *p == '-')
                return -1;
            if (*p == '\\' && !*++p)
                return -1;
            high = *p++;
        }
        if ((unsigned char)c >= (unsigned char)low && (unsigned char)c <= (unsigned char)high)
            matched = true;
    }
    *pattern = p + 1;
    return matched != negated && c != '/';
}

/* steps bounds the work: patterns with many stars would else take exponential time. */
static int match(const char *p, const char *s, size_t *steps)
{
    for (;;) {
        if ((*steps)-- == 0)
            return -1;
        if (p[0] == '*' && p[1] == '*') { /* any folders, or none; at the end: anything */
            p += 2;
            p += *p == '/';
            if (!*p)
                return 1;
            for (;;) {
                int found = match(p, s, steps);
                if (found != 0)
                    return found;
                s = strchr(s, '/');
                if (!s)
                    return 0;
                s++;
            }
        }
        if (*p == '*') {
            p++;
            for (;; s++) {
                int found = match(p, s, steps);
                if (found != 0)
                    return found;
                if (!*s || *s == '/')
                    return 0;
            }
        }
        if (!*p)
            return *s == '\0';
        if (!*s)
            return *p == '[' || *p == '\\' ? (strchr(p, ']') || (*p == '\\' && p[1]) ? 0 : -1) : 0;
        if (*p == '?') {
            if (*s == '/')
                return 0;
        } else if (*p == '[') {
            p++;
            int found = match_class(&p, *s);
            if (found <= 0)
                return found;
            s++;
            continue;
        } else {
            if (*p == '\\' && !*++p)
                return -1;
            if (*p != *s)
                return 0;
        }
        p++;
        s++;
    }
}

int wildcard_match(const char *pattern, const char *path)
{
    size_t steps = 200000, len = strlen(path);
    const char *rest = pattern + 2;

    /* "**.md": the end of any path, when that is all. */
    if (strncmp(pattern, "**", 2) == 0 && *rest && *rest != '/' && !wildcard_has(rest))
        return len >= strlen(rest) && strcmp(path + len - strlen(rest), rest) == 0;
    return match(pattern, path, &steps);
}

int wildcard_plain(const char *pattern, const char *path)
{
    cleanup_free char *single = mem_strdup(pattern);
    char *to = single;

    for (const char *at = pattern; *at; at++) {
        if (*at == '*' && at[1] == '*')
            continue;
        *to++ = *at;
        if (*at == '\\' && at[1])
            *to++ = *++at;
    }
    *to = '\0';
    return wildcard_match(single, path);
}

/* "./a//b/../c/" -> "a/c", "/../a" -> "a", "../a" as it is (it matches nothing); "" for the root
 * itself. */
static char *clean(const char *text, size_t len)
{
    cleanup_free char *copy = mem_strndup(text, len);
    int depth = 0;

    for (const char *at = copy; *copy != '/' && *at; at += *at == '/') {
        size_t part = strcspn(at, "/");
        bool up = part == 2 && at[0] == '.' && at[1] == '.';
        depth += up ? -1 : part && !(part == 1 && *at == '.');
        if (depth < 0)
            return mem_strdup("..");
        at += part;
    }
    return tree_clean(copy);
}

void ignore_free(struct ignore *ignore)
{
    if (!ignore)
        return;
    for (size_t i = 0; i < ignore->count; i++)
        free(ignore->rules[i].pattern);
    free(ignore->rules);
    free(ignore);
}

/* One pattern, trimmed. false: it is malformed; *shown is it then, for the message. */
static bool add_rule(struct ignore *ignore, const char *at, size_t len, char **shown)
{
    const char *stop = at + len;
    bool take_back = len && *at == '!';

    if (take_back)
        for (at++; at < stop && isspace((unsigned char)*at);)
            at++;
    char *pattern = clean(at, (size_t)(stop - at));
    if ((take_back && at == stop) || wildcard_match(pattern, "x") < 0) {
        *shown = pattern;
        return false;
    }
    if ((ignore->count & (ignore->count - 1)) == 0)
        ignore->rules =
            mem_array(ignore->rules, ignore->count ? 2 * ignore->count : 1, sizeof *ignore->rules);
    ignore->rules[ignore->count++] = (struct rule){pattern, take_back};
    ignore->any_take_back |= take_back;
    return true;
}

struct ignore *ignore_parse(const char *text, size_t len, const char *source, struct error *err)
{
    struct ignore *ignore = mem_alloc(sizeof *ignore);
    const char *end = text + len;
    int line = 0;

    if (len >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0)
        text += 3;
    for (const char *at = text; at < end;) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        const char *next = stop ? stop + 1 : end;
        cleanup_free char *shown = NULL;
        if (!stop)
            stop = end;
        line++;
        bool comment = at < stop && *at == '#';
        while (at < stop && isspace((unsigned char)*at))
            at++;
        while (stop > at && isspace((unsigned char)stop[-1]))
            stop--;
        if (!comment && at < stop && !add_rule(ignore, at, (size_t)(stop - at), &shown)) {
            error_set(err, ERR_INVALID, "%s:%d: the pattern '%s' is malformed", source, line,
                      shown);
            error_hint(err, "a [class] needs its ], a ! and a \\ something after them");
            ignore_free(ignore);
            return NULL;
        }
        at = next;
    }
    return ignore;
}

struct ignore *ignore_patterns(const struct value *list, const char *what, struct error *err)
{
    struct ignore *ignore = mem_alloc(sizeof *ignore);

    for (size_t i = 0; i < value_count(list); i++) {
        const char *text = value_text(value_at(list, i), "");
        cleanup_free char *shown = NULL;
        if (*text && !add_rule(ignore, text, strlen(text), &shown)) {
            error_set(err, ERR_INVALID, "%s: the pattern '%s' is malformed", what, text);
            error_hint(err, "a [class] needs its ], a ! and a \\ something after them");
            ignore_free(ignore);
            return NULL;
        }
    }
    return ignore;
}

/* The path or any folder that leads to it. */
static bool rule_matches(const struct rule *rule, const char *path)
{
    if (!*rule->pattern)
        return false;
    if (wildcard_match(rule->pattern, path) == 1)
        return true;
    cleanup_free char *parent = mem_strdup(path);
    for (char *slash = strrchr(parent, '/'); slash; slash = strrchr(parent, '/')) {
        *slash = '\0';
        if (wildcard_match(rule->pattern, parent) == 1)
            return true;
    }
    return false;
}

bool ignore_match(const struct ignore *ignore, const char *path)
{
    bool ignored = false;

    for (size_t i = 0; ignore && i < ignore->count; i++)
        if (ignored == ignore->rules[i].take_back && rule_matches(&ignore->rules[i], path))
            ignored = !ignored;
    return ignored;
}

bool ignore_may_reenter(const struct ignore *ignore, const char *folder)
{
    size_t len = strlen(folder);

    if (!ignore || !ignore->any_take_back)
        return false;
    for (size_t i = 0; i < ignore->count; i++) {
        const char *pattern = ignore->rules[i].pattern;
        if (!ignore->rules[i].take_back)
            continue;
        if (wildcard_has(pattern) || (strncmp(pattern, folder, len) == 0 && pattern[len] == '/'))
            return true;
    }
    return false;
}
