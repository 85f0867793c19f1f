/* /etc/subuid: whose ranges, and which of them. Mapping them is tried by
 * tests/integration/build_run.py. */
#include "check.h"

#include "sandbox/subids.h"

static void ranges(void **state)
{
    struct subid_range range;

    (void)state;
    assert_true(subids_parse("a:100:7\nme:1000:65536\n", "me", 5, &range));
    assert_int_equal(range.first, 1000);
    assert_int_equal(range.count, 65536);
    /* by number, without a name, without an end of the line; the largest counts */
    assert_true(subids_parse("5:10:20\n5:1000:300\n5:2000:40", NULL, 5, &range));
    assert_int_equal(range.first, 1000);
    assert_int_equal(range.count, 300);
    assert_true(subids_parse("5:1:2", NULL, 5, &range));
    /* somebody else's, or part of a name */
    assert_false(subids_parse("men:1000:65536\nm:1000:65536\n55:1:9\n", "me", 5, &range));
    assert_int_equal(range.count, 0);
}

static void nonsense_is_passed_over(void **state)
{
    static const char *const texts[] = {"",
                                        "\n\n",
                                        "me",
                                        "me:",
                                        "me:1",
                                        "me:1:",
                                        "me:x:1",
                                        "me:1:x",
                                        "me:-1:5",
                                        "me:1:0",
                                        "me:1: 5",
                                        "me:1:5 ",
                                        "me:1:5:6",
                                        "me\n:1:5",
                                        "me:+1:5",
                                        "me:1:\n5",
                                        "me:0x1:5",
                                        "#me:1:5",
                                        "me::5",
                                        "me:1:5\r",
                                        ":1:5",
                                        "me:\n1:5",
                                        "me:99999999999:1",
                                        "me:1:4294967295",
                                        "me:4294967290:10",
                                        "me:1:18446744073709551616"};
    struct subid_range range;

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        if (subids_parse(texts[i], "me", 5, &range))
            fail_msg("'%s' gave %u:%u", texts[i], range.first, range.count);
    }
    assert_true(subids_parse("me:x:1\nme:7:8\n", "me", 5, &range));
    assert_int_equal(range.first, 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(ranges),
                                       cmocka_unit_test(nonsense_is_passed_over)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
