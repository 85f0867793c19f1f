/* Lines of Lua as coverage: libFuzzer takes the counters of this section for its own, so that it
 * finds its way through lua/ as it does through C. */
#ifndef MLHOST_TESTS_FUZZ_LUA_COVERAGE_H
#define MLHOST_TESTS_FUZZ_LUA_COVERAGE_H

#include <lua.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define LUA_COUNTERS (1u << 15)

__attribute__((section("__libfuzzer_extra_counters"))) static uint8_t lua_counters[LUA_COUNTERS];

static inline void lua_line(lua_State *L, lua_Debug *at)
{
    static uint32_t last;
    uint32_t hash = 2166136261u;

    lua_getinfo(L, "S", at);
    for (const char *s = at->source; *s; s++)
        hash = (hash ^ (unsigned char)*s) * 16777619u;
    hash += (uint32_t)at->currentline * 2654435761u;
    uint8_t *counter = &lua_counters[((hash >> 16) ^ (last >> 1)) % LUA_COUNTERS];
    if (*counter < UINT8_MAX)
        ++*counter;
    last = hash >> 16;
}

int LLVMFuzzerInitialize(int *argc, char ***argv);

/* A Lua state keeps memory from one input to the next: leaks are looked for at the end, not after
 * each input. */
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    char **longer = calloc((size_t)*argc + 2, sizeof *longer);

    if (!longer)
        abort();
    memcpy(longer, *argv, (size_t)*argc * sizeof *longer);
    static char no_leaks[] = "-detect_leaks=0";
    longer[(*argc)++] = no_leaks;
    *argv = longer;
    return 0;
}

static inline void lua_coverage(lua_State *L)
{
    lua_sethook(L, lua_line, LUA_MASKLINE, 0);
}

#endif
