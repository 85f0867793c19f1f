/* Numbers as text against printf and strtod. */
#include "check.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/number.h"

static uint64_t next(uint64_t *random)
{
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    return *random;
}

/* Reads back as the same number; as short as printf's where 15 digits are enough, and in its form.
 */
static void same(double d)
{
    char text[NUMBER_ROOM], wanted[40];
    size_t len = real_print(d, text);
    double back = strtod(text, NULL);

    assert_int_equal(len, strlen(text));
    if (memcmp(&back, &d, sizeof d) != 0)
        fail_msg("%.17g becomes %s", d, text);
    snprintf(wanted, sizeof wanted, "%.15g", d);
    back = strtod(wanted, NULL);
    bool whole = d == 0 || d < -2.3e-308 || d > 2.3e-308; /* else fewer digits will do */
    if (whole && memcmp(&back, &d, sizeof d) == 0 && strcmp(wanted, text) != 0)
        fail_msg("%s becomes %s", wanted, text);
    size_t digits = 0;
    for (const char *p = text; *p && *p != 'e'; p++)
        digits += *p >= '0' && *p <= '9' && (digits || *p != '0');
    if (digits > 17)
        fail_msg("%.17g has too many digits: %s", d, text);
}

static void test_reals(void **state)
{
    static const double some[] = {0.0,
                                  -0.0,
                                  1,
                                  -1.5,
                                  0.1,
                                  0.3,
                                  1e15,
                                  1e16,
                                  1e17,
                                  123456789012345678.0,
                                  999999999999999.9,
                                  1e22,
                                  1e23,
                                  9007199254740993.0,
                                  0.0001,
                                  0.00001,
                                  5e-324,
                                  2.2250738585072014e-308,
                                  1.7976931348623157e308,
                                  3.141592653589793,
                                  1 / 3.0,
                                  100,
                                  1e-7};
    uint64_t random = 88172645463325252u;

    (void)state;
    for (size_t i = 0; i < sizeof some / sizeof *some; i++)
        same(some[i]);
    for (int i = 0; i < 300000; i++) { /* any bits */
        uint64_t bits = next(&random);
        double d;
        memcpy(&d, &bits, sizeof d);
        if (d - d == 0)
            same(d);
    }
    for (int i = 0; i < 300000; i++) /* what models say */
        same((double)(next(&random) >> 11) / 9007199254740992.0);
    for (int i = 0; i < 300000; i++) { /* short decimals */
        static const double units[] = {1, 10, 100, 1e3, 1e6, 1e9, 1e12};
        same((double)(int64_t)(next(&random) % 2000000) / units[next(&random) % 7]);
    }
    for (int e = -1074; e < 1024; e++) { /* powers of two: the interval is narrower below */
        double d = e < -1022 ? 5e-324 : 1;
        for (int i = e < -1022 ? -1074 : 0; i < e; i++)
            d *= 2;
        for (int i = 0; i > e && e >= -1022; i--)
            d /= 2;
        same(d);
    }
}

static void test_ints(void **state)
{
    static const int64_t some[] = {0, 7, -7, 10, -10, 99, 100, INT64_MAX, INT64_MIN, 1234567890123};
    char text[NUMBER_ROOM], wanted[40];

    (void)state;
    for (size_t i = 0; i < sizeof some / sizeof *some; i++) {
        snprintf(wanted, sizeof wanted, "%lld", (long long)some[i]);
        assert_int_equal(int_print(some[i], text), strlen(wanted));
        assert_string_equal(text, wanted);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_reals), cmocka_unit_test(test_ints)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
