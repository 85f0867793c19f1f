#include "base/size.h"

#include <stdlib.h>
#include <string.h>

#define SIZE_MOST (UINT64_C(1) << 40)

static const char units[] = "kmgt";

/* The power of 1024, or -1. */
static int unit_of(const char *text)
{
    const char *unit = text[0] ? strchr(units, text[0] | 0x20) : NULL;

    if (!text[0])
        return 0;
    if (!unit || (text[1] && strcasecmp(text + 1, "i") != 0 && strcasecmp(text + 1, "ib") != 0))
        return -1;
    return (int)(unit - units) + 1;
}

int size_parse(const char *text, uint64_t *bytes, struct error *err)
{
    char *end = NULL;
    unsigned long long n = text[0] >= '0' && text[0] <= '9' ? strtoull(text, &end, 10) : 0;
    int power = end ? unit_of(end) : -1;

    if (n == 0 || power < 0 || n > SIZE_MOST >> (10 * power)) {
        error_set(err, ERR_USAGE, "'%s' is not a size", text);
        return error_hint(err, "a number of bytes, or with k, m or g (or KiB, MiB, GiB), at most "
                               "1 TiB: 512k, 16m, 1g");
    }
    *bytes = n << (10 * power);
    return 0;
}

void size_print(uint64_t bytes, struct buf *out)
{
    int power = 0;

    while (power < 4 && bytes >> (10 * (power + 1)))
        power++;
    if (power == 0)
        buf_printf(out, "%llu bytes", (unsigned long long)bytes);
    else if (bytes & ((UINT64_C(1) << (10 * power)) - 1))
        buf_printf(out, "%.1f %ciB", (double)bytes / (double)(UINT64_C(1) << (10 * power)),
                   units[power - 1] & ~0x20);
    else
        buf_printf(out, "%llu %ciB", (unsigned long long)(bytes >> (10 * power)),
                   units[power - 1] & ~0x20);
}
