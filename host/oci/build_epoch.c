/* SOURCE_DATE_EPOCH (reproducible-builds.org/specs/source-date-epoch). */
#include <stdlib.h>
#include <string.h>

#include "oci/build.h"

#define NAME       "SOURCE_DATE_EPOCH"
#define EPOCH_MAX  INT64_C(253402300799) /* the last second of the year 9999 */
#define DIGITS_MAX 12

static int parse(const char *text, const char *from, int64_t *out, struct error *err)
{
    size_t len = strlen(text);

    *out = 0;
    if (len <= DIGITS_MAX && strspn(text, "0123456789") == len) {
        *out = strtoll(text, NULL, 10);
        if (*out <= EPOCH_MAX)
            return 0;
    }
    error_set(err, ERR_INVALID, "%s is '%.40s', it must be a whole number of seconds since 1970",
              from, text);
    return error_hint(err, "0 to %lld, e.g. the time of a commit: git log -1 --format=%%ct",
                      (long long)EPOCH_MAX);
}

int build_epoch(struct value *args, int64_t *epoch, bool *given, struct error *err)
{
    const struct value *arg = value_get(args, NAME);
    const char *text = arg ? value_text(arg, "") : getenv(NAME);

    *epoch = 0;
    *given = text && *text;
    if (!*given)
        return 0;
    if (parse(text, arg ? "args." NAME : NAME " of the environment", epoch, err) != 0)
        return -1;
    if (args && !arg)
        value_put_string(args, NAME, text);
    return 0;
}
