/*
 * Permissions and masking. The input is lines; the first byte chooses.
 *
 * Policy: kind, the script's pattern, the operator's pattern, what is asked for. Whatever they are,
 * nothing is granted that one of the two does not grant alone, and nothing below a path that is not
 * below the pattern.
 * Masking: a secret, then text in two pieces around it: the secret is never in what comes out, and
 * a stream that is cut anywhere comes out as the whole text does.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "broker/mask.h"
#include "broker/policy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
    if (!holds)
        abort();
}

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
    if (by_script && kind == PERM_EXEC)
        check(strcmp(lines[1], "*") == 0 || strcmp(lines[1], what) == 0);
}

static void masking(char *lines[4], size_t cut)
{
    cleanup_buf struct buf text = BUF_INIT;
    cleanup_buf struct buf whole = BUF_INIT;
    cleanup_buf struct buf pieces = BUF_INIT;
    cleanup_buf struct buf tail = BUF_INIT;
    const char *secret = lines[0];

    /* A secret out of stars and fewer may come together again around a mask. */
    if (strlen(secret) < MASK_SHORTEST || strchr(secret, '*'))
        return;
    struct masker *masker = masker_new();
    masker_add(masker, secret, strlen(secret));
    buf_printf(&text, "%s%s%s%s", lines[1], secret, lines[2], lines[3]);
    cut %= text.len + 1;
    mask_text(masker, text.data, text.len, &whole);
    mask_stream(masker, &tail, text.data, cut, &pieces);
    mask_stream(masker, &tail, text.data + cut, text.len - cut, &pieces);
    mask_stream_end(masker, &tail, &pieces);
    check(whole.data && !strstr(whole.data, secret));
    check(whole.len == pieces.len && memcmp(whole.data, pieces.data, whole.len) == 0);
    masker_free(masker);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *lines[4];

    if (size < 2 || size > 1024)
        return 0;
    cleanup_free char *text = mem_strndup((const char *)data + 2, size - 2);
    char *at = text;
    for (int i = 0; i < 4; i++) {
        lines[i] = at;
        at += strcspn(at, "\n");
        if (*at)
            *at++ = '\0';
    }
    if (data[0] % 2)
        masking(lines, data[1]);
    else
        policy(lines);
    return 0;
}
