/*
 * Numbers and times as text. The first byte chooses.
 *
 * A real is read back as the same number, and written as printf would where 15 digits are enough; a
 * whole number as printf does. A duration is what the grammar says, worked out a second time here.
 */
#include "fuzz.h"

#include <ctype.h>
#include <float.h>
#include <inttypes.h>
#include <math.h>

#include "base/clock.h"
#include "base/number.h"

static void real(double d)
{
    char text[NUMBER_ROOM], other[64];

    if (!isfinite(d))
        return;
    size_t len = real_print(d, text);
    check(len == strlen(text) && len < NUMBER_ROOM);
    double back = strtod(text, NULL);
    check(memcmp(&back, &d, sizeof d) == 0);
    snprintf(other, sizeof other, "%.15g", d);
    if (strtod(other, NULL) == d && fabs(d) >= DBL_MIN)
        check(strcmp(text, other) == 0);
    check(len <= strlen("-1.2345678901234567e-308"));
}

static void whole(int64_t i)
{
    char text[NUMBER_ROOM], other[32];

    size_t len = int_print(i, text);
    snprintf(other, sizeof other, "%" PRId64, i);
    check(len == strlen(other) && strcmp(text, other) == 0);
}

/* The milliseconds of "1h30m", or -1: digits and units only, what a person writes. */
static double plain_duration(const char *text)
{
    static const struct {
        const char *name;
        double ms;
    } units[] = {{"ms", 1},    {"s", 1e3},   {"sec", 1e3}, {"m", 6e4},
                 {"min", 6e4}, {"h", 3.6e6}, {"d", 8.64e7}};
    double total = 0;

    if (!*text)
        return -1;
    while (*text) {
        size_t digits = strspn(text, "0123456789"), letters = 0;
        if (!digits || digits > 9)
            return -1;
        double n = (double)strtol(text, NULL, 10), scale = 0;
        text += digits;
        while (islower((unsigned char)text[letters]))
            letters++;
        for (size_t i = 0; i < sizeof units / sizeof *units; i++)
            if (letters == strlen(units[i].name) && strncmp(text, units[i].name, letters) == 0)
                scale = units[i].ms;
        if (scale == 0)
            return -1;
        total += n * scale;
        text += letters;
    }
    return total;
}

static void duration(const char *text)
{
    cleanup_buf struct buf shown = BUF_INIT;
    struct error err = {0};
    int64_t ns = -1;
    double expected = plain_duration(text);

    int status = duration_parse(text, &ns, &err);
    check_result(status, &err);
    if (expected >= 0 && expected < 9e12)
        check(status == 0 && fabs((double)ns / 1e6 - expected) <= expected * 1e-9);
    if (status < 0)
        return;
    /* Nothing but the grammar: no sign, no hexadecimal, no infinity. */
    check(ns >= 0 && text[strspn(text, "0123456789.eE+-abcdefghijklmnopqrstuvwxyz")] == '\0');
    check(!strpbrk(text, "xXpP"));
    duration_print(ns, &shown);
    check(shown.len && shown.len < 40);
    check(deadline_in(ns) >= clock_now() - NS_PER_S || ns == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    double d;
    int64_t i;

    if (size < 9 && (size < 1 || data[0] % 3 != 2))
        return 0;
    switch (data[0] % 3) {
    case 0:
        memcpy(&d, data + 1, sizeof d);
        real(d);
        break;
    case 1:
        memcpy(&i, data + 1, sizeof i);
        whole(i);
        real((double)i / (double)(1 + data[0]));
        break;
    default: {
        cleanup_free char *text = mem_strndup((const char *)data + 1, size - 1);
        duration(text);
    }
    }
    return 0;
}
