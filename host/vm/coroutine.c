/*
 * The coroutine library, so that the VM always knows which thread runs: a deadline or a cancel must
 * reach that one (a hook belongs to a thread), and a host call waits differently inside a script's
 * own coroutine. Behaves as Lua's.
 */
#include "vm/state.h"

static lua_State *checked(lua_State *L)
{
    lua_State *co = lua_tothread(L, 1);

    luaL_argexpected(L, co, 1, "coroutine");
    return co;
}

static const char *status_of(lua_State *L, lua_State *co)
{
    lua_Debug ar;

    if (L == co)
        return "running";
    switch (lua_status(co)) {
    case LUA_YIELD:
        return "suspended";
    case LUA_OK:
        if (lua_getstack(co, 0, &ar))
            return "normal";
        return lua_gettop(co) == 0 ? "dead" : "suspended";
    default:
        return "dead";
    }
}

/* Count of results on top of L, or -1 with the error there. */
static int resume(lua_State *L, lua_State *co, int arguments, bool wrapped)
{
    struct vm *vm = vm_of(L);
    struct resumption here = {.below = vm->resumed, .from = L, .co = co, .wrapped = wrapped};
    int results;

    if (vm_is_task(co) && lua_status(co) == LUA_YIELD) { /* it waits for a reply */
        lua_pushliteral(L, "cannot resume a branch of parallel()");
        return -1;
    }
    if (!lua_checkstack(co, arguments)) {
        lua_pushliteral(L, "too many arguments to resume");
        return -1;
    }
    if (co == vm->main || (lua_status(co) == LUA_OK && lua_gettop(co) == 0)) {
        lua_pushliteral(L, "cannot resume dead coroutine");
        return -1;
    }
    lua_xmove(L, co, arguments);
    vm->current = co;
    vm->resumed = &here;
    vm_time_renew(co);
    int status = lua_resume(co, L, arguments, &results);
    vm->resumed = here.below;
    vm->current = L;
    vm_time_renew(L);
    if (status == LUA_OK || status == LUA_YIELD) {
        if (!lua_checkstack(L, results + 1)) {
            lua_pop(co, results);
            lua_pushliteral(L, "too many results to resume");
            return -1;
        }
        lua_xmove(co, L, results);
        return results;
    }
    lua_xmove(co, L, 1);
    return -1;
}

static int co_resume(lua_State *L)
{
    lua_State *co = checked(L);
    int results = resume(L, co, lua_gettop(L) - 1, false);

    if (results < 0) {
        lua_pushboolean(L, false);
        lua_insert(L, -2);
        return 2;
    }
    lua_pushboolean(L, true);
    lua_insert(L, -(results + 1));
    return results + 1;
}

static int co_wrapped(lua_State *L)
{
    lua_State *co = lua_tothread(L, lua_upvalueindex(1));
    int results = resume(L, co, lua_gettop(L), true);

    if (results >= 0)
        return results;
    int status = lua_status(co);
    if (status != LUA_OK && status != LUA_YIELD) {
        bool stopped = vm_debug_failed(L, co); /* then the error object is on top */
        if (lua_resetthread(co) != LUA_OK && !stopped)
            lua_xmove(co, L, 1); /* a <close> failed as well */
        if (status != LUA_ERRMEM && lua_type(L, -1) == LUA_TSTRING) {
            luaL_where(L, 1);
            lua_insert(L, -2);
            lua_concat(L, 2);
        }
    }
    return lua_error(L);
}

static int co_create(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TFUNCTION);
    lua_State *co = lua_newthread(L);
    lua_pushvalue(L, 1);
    lua_xmove(L, co, 1);
    return 1;
}

static int co_wrap(lua_State *L)
{
    co_create(L);
    lua_pushcclosure(L, co_wrapped, 1);
    return 1;
}

static int co_yield (lua_State *L)
{
    struct vm *vm = vm_of(L);

    if (vm->task && L == vm->task->L)
        return luaL_error(L, "attempt to yield from outside a coroutine");
    return lua_yield(L, lua_gettop(L));
}

static int co_status(lua_State *L)
{
    lua_pushstring(L, status_of(L, checked(L)));
    return 1;
}

static int co_yieldable(lua_State *L)
{
    struct vm *vm = vm_of(L);
    lua_State *co = lua_isthread(L, 1) ? lua_tothread(L, 1) : L;

    lua_pushboolean(L, lua_isyieldable(co) && !(vm->task && co == vm->task->L));
    return 1;
}

static int co_running(lua_State *L)
{
    struct vm *vm = vm_of(L);
    lua_pushthread(L);
    lua_pushboolean(L, vm->task && L == vm->task->L);
    return 2;
}

static int co_close(lua_State *L)
{
    lua_State *co = checked(L);
    const char *status = status_of(L, co);

    if (vm_is_task(co) && *status == 's')
        return luaL_error(L, "cannot close a branch of parallel()");
    if (*status != 'd' && *status != 's')
        return luaL_error(L, "cannot close a %s coroutine", status);
    if (lua_resetthread(co) == LUA_OK) {
        lua_pushboolean(L, true);
        return 1;
    }
    lua_pushboolean(L, false);
    lua_xmove(co, L, 1);
    return 2;
}

int vm_open_coroutine(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"create", co_create}, {"resume", co_resume},         {"wrap", co_wrap},
        {"yield", co_yield },  {"status", co_status},         {"running", co_running},
        {"close", co_close},   {"isyieldable", co_yieldable}, {NULL, NULL}};

    luaL_newlib(L, functions);
    return 1;
}
