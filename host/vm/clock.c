/*
 * What a script finds different each time it runs: the clock, and the seeds of random numbers and
 * of the order of tables. All of them are told by the broker, or told to it, so that a stage can be
 * run again from its tape (broker/tape.h) and does the same.
 *
 * Not among them are addresses: the text of a table or function, and the order of a table whose
 * keys are such.
 */
#include <string.h>
#include <time.h>

#include "vm/state.h"

/*
 * Lua mixes the time and three addresses into the seed of its string hashes, which decides the
 * order of pairs(). It does so through luaS_hash, of which this is the only use across object
 * files; the linker's --wrap leads it here.
 */
unsigned __real_luaS_hash(const char *text, size_t len, unsigned seed);
unsigned __wrap_luaS_hash(const char *text, size_t len, unsigned seed);

static unsigned hash_seed;
static bool hash_seed_given;

unsigned __wrap_luaS_hash(const char *text, size_t len, unsigned seed)
{
    return hash_seed_given ? hash_seed : __real_luaS_hash(text, len, seed);
}

void vm_seed(uint64_t seed)
{
    hash_seed = (unsigned)(seed ^ seed >> 32);
    hash_seed_given = true;
}

/* Takes what a look at the clock saw, gives what the script is to see. */
static void see(lua_State *L, struct value *now)
{
    struct vm *vm = vm_of(L);
    struct value *args;

    if (vm->clock == CLOCK_OWN || vm_debug_stopped(vm)) {
        vm_push_value(L, now);
        return;
    }
    value_free(&vm->frame);
    value_set_map(&vm->frame);
    value_put_string(&vm->frame, "t", "clock");
    args = value_put(&vm->frame, "args");
    value_set_map(args);
    value_move(value_put(args, "now"), now);
    if (vm->clock == CLOCK_TOLD) {
        vm_push_value(L, value_path(&vm->frame, "args.now"));
        vm_send(vm, &vm->frame);
        value_free(&vm->frame);
    } else {
        vm_ask_clock(L);
    }
}

static void see_time(lua_State *L)
{
    struct value now = {0};

    value_set_int(&now, (int64_t)time(NULL));
    see(L, &now);
}

/* Upvalue of each: Lua's own. */
static int call_own(lua_State *L)
{
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
    return lua_gettop(L);
}

static int os_time(lua_State *L)
{
    if (!lua_isnoneornil(L, 1))
        return call_own(L);
    see_time(L);
    return 1;
}

static int os_date(lua_State *L)
{
    if (lua_isnoneornil(L, 2)) {
        if (lua_isnoneornil(L, 1)) {
            lua_settop(L, 0);
            lua_pushliteral(L, "%c");
        }
        lua_settop(L, 1);
        see_time(L);
    }
    return call_own(L);
}

static int os_clock(lua_State *L)
{
    struct value now = {0};

    value_set_real(&now, (double)clock() / (double)CLOCKS_PER_SEC);
    see(L, &now);
    return 1;
}

/* Without arguments Lua would take the time and an address for a seed. */
static int random_seed(lua_State *L)
{
    if (lua_isnone(L, 1)) {
        struct vm *vm = vm_of(L);
        vm->seed = vm->seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        lua_settop(L, 0);
        lua_pushinteger(L, (lua_Integer)vm->seed);
        lua_pushinteger(L, (lua_Integer)(vm->seed >> 32));
    }
    return call_own(L);
}

static void wrap(lua_State *L, const char *name, lua_CFunction fn)
{
    lua_getfield(L, -1, name);
    lua_pushcclosure(L, fn, 1);
    lua_setfield(L, -2, name);
}

void vm_open_clock(lua_State *L)
{
    lua_getglobal(L, LUA_OSLIBNAME);
    wrap(L, "time", os_time);
    wrap(L, "date", os_date);
    wrap(L, "clock", os_clock);
    lua_getglobal(L, LUA_MATHLIBNAME);
    lua_getfield(L, -1, "randomseed");
    lua_pushinteger(L, (lua_Integer)vm_of(L)->seed);
    lua_call(L, 1, 0);
    wrap(L, "randomseed", random_seed);
    lua_pop(L, 2);
}
