#include "base/clock.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

int64_t ns_of_ms(int64_t ms)
{
    int64_t ns;

    if (__builtin_mul_overflow(ms, NS_PER_MS, &ns))
        return ms < 0 ? INT64_MIN : INT64_MAX;
    return ns;
}

int64_t clock_now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * NS_PER_S + ts.tv_nsec;
}

int64_t clock_wall_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_REALTIME, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / NS_PER_MS;
}

int64_t deadline_in(int64_t ns_from_now)
{
    int64_t at;

    if (ns_from_now == DEADLINE_NONE || __builtin_add_overflow(clock_now(), ns_from_now, &at))
        return DEADLINE_NONE;
    return at;
}

int64_t deadline_min(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

int64_t deadline_left_ms(int64_t deadline)
{
    if (deadline == DEADLINE_NONE)
        return INT64_MAX;
    int64_t left = deadline - clock_now();
    return left <= 0 ? 0 : (left - 1) / NS_PER_MS + 1;
}

int deadline_poll_ms(int64_t deadline)
{
    int64_t left = deadline_left_ms(deadline);

    if (left == INT64_MAX)
        return -1;
    return left > INT_MAX ? INT_MAX : (int)left;
}

bool deadline_passed(int64_t deadline)
{
    return deadline != DEADLINE_NONE && clock_now() >= deadline;
}

static double unit_ns(const char *unit, size_t len)
{
    static const struct {
        const char *name;
        double ns;
    } units[] = {
        {"ms", 1e6},   {"s", 1e9},    {"sec", 1e9},   {"m", 60e9},
        {"min", 60e9}, {"h", 3600e9}, {"d", 86400e9},
    };

    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        if (strlen(units[i].name) == len && memcmp(units[i].name, unit, len) == 0)
            return units[i].ns;
    }
    return 0;
}

static int bad_duration(const char *text, struct error *err)
{
    error_set(err, ERR_INVALID, "'%s' is not a duration", text);
    return error_hint(err,
                      "write \"500ms\", \"30s\", \"5m\", \"1h30m\", \"2d\" or a number of seconds");
}

int duration_parse(const char *text, int64_t *ns, struct error *err)
{
    double total = 0;
    const char *at = text;

    if (!*at)
        return bad_duration(text, err);
    while (*at) {
        if (!isdigit((unsigned char)*at) && *at != '.')
            return bad_duration(text, err);
        char *end;
        double number = strtod(at, &end);
        if (end == at || memchr(at, 'x', (size_t)(end - at)) || memchr(at, 'X', (size_t)(end - at)))
            return bad_duration(text, err);
        size_t len = strspn(end, "abcdefghijklmnopqrstuvwxyz");
        if (len == 0 && *end == '\0' && at == text) {
            total = number * 1e9;
            break;
        }
        double scale = unit_ns(end, len);
        if (scale == 0)
            return bad_duration(text, err);
        total += number * scale;
        at = end + len;
    }
    if (!isfinite(total) || total > 9e18)
        return bad_duration(text, err);
    *ns = (int64_t)total;
    return 0;
}

void duration_print(int64_t ns, struct buf *out)
{
    double seconds = (double)ns / 1e9;

    if (seconds < 1)
        buf_printf(out, "%.0f ms", seconds * 1000);
    else if (seconds < 60)
        buf_printf(out, "%.1f s", seconds);
    else if (seconds < 3600)
        buf_printf(out, "%d min %02d s", (int)(seconds / 60), (int)seconds % 60);
    else
        buf_printf(out, "%lld h %02d min", (long long)(seconds / 3600),
                   (int)fmod(seconds / 60, 60));
}

void time_print(int64_t unix_ms, struct buf *out)
{
    time_t seconds = (time_t)(unix_ms / 1000);
    struct tm tm;
    char text[32];

    gmtime_r(&seconds, &tm);
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &tm);
    buf_printf(out, "%s.%03dZ", text, (int)(unix_ms % 1000));
}
