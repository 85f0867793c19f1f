/* The allocator of script memory: blocks keep their bytes, the budget holds, shrinking never fails.
 */
#include "check.h"

#include <stdlib.h>

#include "vm/state.h"

#define BLOCKS 500

static uint32_t next(uint32_t *random)
{
    *random = *random * 1664525u + 1013904223u;
    return *random >> 8;
}

static size_t some_size(uint32_t *random)
{
    uint32_t kind = next(random) % 10;

    return 1 + (kind < 7   ? next(random) % 300
                : kind < 9 ? next(random) % 5000
                           : next(random) % 200000);
}

static void check_bytes(const unsigned char *block, size_t from, size_t to, unsigned char wanted)
{
    for (size_t i = from; i < to; i++)
        assert_int_equal(block[i], wanted);
}

static void test_blocks_keep_their_bytes(void **state)
{
    static struct {
        unsigned char *at;
        size_t size;
    } blocks[BLOCKS];
    struct budget budget = {.limit = 64u << 20};
    uint32_t random = 7;
    size_t used = 0;

    (void)state;
    for (int round = 0; round < 200000; round++) {
        size_t i = next(&random) % BLOCKS, size = some_size(&random), old = blocks[i].size;
        unsigned char mark = (unsigned char)i;
        if (next(&random) % 3 == 0)
            size = 0;
        /* Without a block the old size is Lua's kind of object, and means nothing. */
        unsigned char *block = budget_alloc(&budget, blocks[i].at, blocks[i].at ? old : 5, size);
        assert_int_equal(block != NULL, size != 0);
        if (block) {
            assert_int_equal((uintptr_t)block % 16, 0);
            check_bytes(block, 0, old < size ? old : size, mark);
            memset(block, mark, size);
        }
        used = used - old + size;
        blocks[i].at = block;
        blocks[i].size = size;
        assert_int_equal(budget.used, used);
        assert_true(budget.held <= budget.limit && budget.held <= budget.peak);
    }
    for (size_t i = 0; i < BLOCKS; i++) {
        if (blocks[i].at)
            check_bytes(blocks[i].at, 0, blocks[i].size, (unsigned char)i);
        budget_alloc(&budget, blocks[i].at, blocks[i].at ? blocks[i].size : 0, 0);
    }
    assert_int_equal(budget.used, 0);
}

static void test_the_budget_holds(void **state)
{
    struct budget budget = {.limit = 1u << 20};
    size_t got = 0;
    void **list = NULL;

    (void)state;
    void *large = budget_alloc(&budget, NULL, 0, 600u << 10);
    assert_non_null(large);
    assert_null(budget_alloc(&budget, NULL, 0, 600u << 10));
    assert_null(budget_alloc(&budget, large, 600u << 10, 2u << 20));
    assert_null(budget_alloc(&budget, NULL, 0, SIZE_MAX / 2));
    for (void **block; (block = budget_alloc(&budget, NULL, 0, 100)) != NULL; got += 100) {
        *block = list;
        list = block;
    }
    assert_true(got > 200u << 10 && got < 424u << 10);
    assert_true(budget.held <= budget.limit);
    /* There is room for nothing now, and yet a block becomes smaller. */
    unsigned char *small = budget_alloc(&budget, large, 600u << 10, 90);
    assert_non_null(small);
    memset(small, 1, 90);
    assert_null(budget_alloc(&budget, small, 90, 700u << 10));
    small = budget_alloc(&budget, small, 90, 89);
    assert_non_null(small);
    assert_null(budget_alloc(&budget, small, 89, 0));
    small = budget_alloc(&budget, NULL, 0, 90); /* what was given back */
    assert_non_null(small);
    budget_alloc(&budget, small, 90, 0);
    budget.limit = SIZE_MAX;
    void *more = budget_alloc(&budget, NULL, 0, 2u << 20);
    assert_non_null(more);
    budget.limit = 1u << 20; /* below what is held */
    assert_null(budget_alloc(&budget, NULL, 0, 4096));
    more = budget_alloc(&budget, more, 2u << 20, 1u << 20);
    assert_non_null(more);
    budget_alloc(&budget, more, 1u << 20, 0);
    while (list) {
        void **block = list;
        list = *block;
        budget_alloc(&budget, block, 100, 0);
    }
    assert_int_equal(budget.used, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blocks_keep_their_bytes),
        cmocka_unit_test(test_the_budget_holds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
