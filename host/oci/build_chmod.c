/* --chmod of COPY and ADD: octal, or clauses as chmod(1) has them, no mask applied. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "oci/build_copy.h"

/* The bits of those in front of the operator; all when nobody is named. */
static mode_t who_mask(const char **at)
{
    mode_t mask = 0;

    for (; **at && strchr("ugoa", **at); ++*at) {
        if (**at == 'u' || **at == 'a')
            mask |= S_IRWXU | S_ISUID;
        if (**at == 'g' || **at == 'a')
            mask |= S_IRWXG | S_ISGID;
        if (**at == 'o' || **at == 'a')
            mask |= S_IRWXO | S_ISVTX;
    }
    return mask ? mask : 07777;
}

/* r w x X s t, or the permissions of u, g or o; before any mask. */
static mode_t permissions(const char **at, mode_t mode)
{
    mode_t bits = 0;

    if (**at && strchr("ugo", **at)) {
        mode_t one = **at == 'u' ? mode >> 6 : **at == 'g' ? mode >> 3 : mode;
        ++*at;
        return (one & 7) * 0111;
    }
    for (; **at && strchr("rwxXst", **at); ++*at) {
        switch (**at) {
        case 'r':
            bits |= 0444;
            break;
        case 'w':
            bits |= 0222;
            break;
        case 'x':
            bits |= 0111;
            break;
        case 'X':
            bits |= S_ISDIR(mode) || (mode & 0111) ? 0111 : 0;
            break;
        case 's':
            bits |= S_ISUID | S_ISGID;
            break;
        default:
            bits |= S_ISVTX;
        }
    }
    return bits;
}

/* false: the text is none. */
static bool apply(const char *at, mode_t *mode)
{
    mode_t result = *mode;

    for (;;) {
        mode_t mask = who_mask(&at);
        if (!*at || !strchr("+-=", *at))
            return false;
        while (*at && strchr("+-=", *at)) {
            char operation = *at++;
            mode_t bits = permissions(&at, result) & mask;
            /* What a folder hands on to what is in it stays, unless it is named. */
            mode_t cleared = S_ISDIR(result) ? mask & ~(mode_t)(S_ISUID | S_ISGID) : mask;
            if (operation == '=')
                result = (result & ~cleared) | bits;
            else if (operation == '+')
                result |= bits;
            else
                result &= ~bits;
        }
        if (!*at) {
            *mode = result;
            return true;
        }
        if (*at++ != ',')
            return false;
    }
}

int chmod_check(const char *text, struct error *err)
{
    mode_t mode = S_IFREG | 0644;
    char *end;

    if (isdigit((unsigned char)*text)) {
        unsigned long number = strtoul(text, &end, 8);
        if (!*end && number <= 07777)
            return 0;
    } else if (apply(text, &mode)) {
        return 0;
    }
    error_set(err, ERR_INVALID, "--chmod=%.60s is no mode", text);
    return error_hint(err, "--chmod=755 (0 to 7777, octal), or --chmod=u=rwX,go=rX");
}

mode_t chmod_apply(const char *text, mode_t mode)
{
    if (isdigit((unsigned char)*text))
        return (mode & S_IFMT) | (mode_t)strtoul(text, NULL, 8);
    apply(text, &mode);
    return mode;
}
