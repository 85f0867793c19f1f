/* The environment of a script, as data: whatever is not on this list is not there. */
#include <string.h>

#include "vm/state.h"

struct entry {
    const char *library; /* "" for globals */
    const char *names;   /* separated by spaces */
    const char *reason;
};

static const struct entry allowed[] = {
    {"",
     "_G _VERSION assert error ipairs next pairs pcall xpcall rawequal rawget rawlen rawset select "
     "tonumber tostring "
     "type getmetatable",
     "pure; they see only what the script holds"},
    {"", "setmetatable", "wrapped: __gc is refused, a finalizer runs where no deadline reaches it"},
    {"", "load", "wrapped: text only, byte code can break the interpreter"},
    {"", "collectgarbage", "wrapped: \"count\" only, the collector guards the memory budget"},
    {"", "print", "wrapped: a one-way frame to the broker"},
    {"string",
     "byte char find format gmatch gsub len lower match rep reverse sub upper pack packsize unpack",
     "pure; no dump: no byte code leaves or enters"},
    {"table", "concat insert move pack remove sort unpack", "pure"},
    {"math",
     "abs acos asin atan ceil cos deg exp floor fmod huge log max maxinteger min mininteger modf "
     "pi rad random "
     "randomseed sin sqrt tan tointeger type ult",
     "pure; random is seeded by the broker"},
    {"utf8", "char charpattern codepoint codes len offset", "pure"},
    {"coroutine", "create resume wrap yield status running close isyieldable",
     "our own, see coroutine.c"},
    {"os", "time clock date difftime", "the clock; nothing of the system"},
};

static bool listed(const char *library, const char *name)
{
    size_t len = strlen(name);

    for (size_t i = 0; i < sizeof allowed / sizeof *allowed; i++) {
        if (strcmp(allowed[i].library, library) != 0)
            continue;
        for (const char *at = allowed[i].names; *at; at += strspn(at, " ")) {
            size_t word = strcspn(at, " ");
            if (word == len && memcmp(at, name, len) == 0)
                return true;
            at += word;
        }
    }
    return false;
}

/* Removes from the table on top what is not on the list. */
static void filter(lua_State *L, const char *library)
{
    for (lua_pushnil(L); lua_next(L, -2);) {
        lua_pop(L, 1);
        if (lua_type(L, -1) != LUA_TSTRING || !listed(library, lua_tostring(L, -1))) {
            lua_pushvalue(L, -1);
            lua_pushnil(L);
            lua_rawset(L, -4); /* assigning nil to a field during a traversal is allowed */
        }
    }
}

static int set_metatable(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    luaL_argexpected(L, lua_istable(L, 2) || lua_isnil(L, 2), 2, "nil or table");
    if (luaL_getmetafield(L, 1, "__metatable") != LUA_TNIL)
        return luaL_error(L, "cannot change a protected metatable");
    if (lua_istable(L, 2)) {
        lua_pushliteral(L, "__gc");
        if (lua_rawget(L, 2) != LUA_TNIL)
            return luaL_error(L, "__gc is not allowed here; use defer(fn) or a <close> variable");
        lua_pop(L, 1);
    }
    lua_settop(L, 2);
    lua_setmetatable(L, 1);
    return 1;
}

/* load(chunk, name, mode, env) in text mode. Upvalue: Lua's own. */
static int load_text(lua_State *L)
{
    int count = lua_gettop(L);

    if (count < 3)
        lua_settop(L, 3);
    if (lua_type(L, 2) == LUA_TSTRING && lua_rawlen(L, 2) &&
        strncmp(lua_tostring(L, 2) + 1, VM_OWN_FOLDER, sizeof VM_OWN_FOLDER - 1) == 0) {
        lua_pushliteral(L, "=load");
        lua_replace(L, 2);
    }
    lua_pushliteral(L, "t");
    lua_replace(L, 3);
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
    return lua_gettop(L);
}

static int collect(lua_State *L)
{
    const char *option = luaL_optstring(L, 1, "collect");

    if (strcmp(option, "count") != 0)
        return luaL_error(L, "collectgarbage: only \"count\" is allowed here");
    lua_pushnumber(L, (lua_Number)vm_of(L)->budget.used / 1024.0);
    return 1;
}

static void wrap(lua_State *L, const char *name, lua_CFunction fn)
{
    lua_getglobal(L, name);
    lua_pushcclosure(L, fn, 1);
    lua_setglobal(L, name);
}

int vm_load_text(lua_State *L, const char *text, size_t len, const char *chunk)
{
    /* A first line "#!..." is the shell's. The newline stays, so that lines keep their numbers. */
    if (len && text[0] == '#') {
        size_t line = strcspn(text, "\n");
        text += line;
        len -= line;
    }
    return luaL_loadbufferx(L, text, len, chunk, "t");
}

void vm_open_environment(lua_State *L)
{
    static const struct {
        const char *name;
        lua_CFunction open;
    } libraries[] = {{LUA_STRLIBNAME, luaopen_string},   {LUA_TABLIBNAME, luaopen_table},
                     {LUA_MATHLIBNAME, luaopen_math},    {LUA_UTF8LIBNAME, luaopen_utf8},
                     {LUA_COLIBNAME, vm_open_coroutine}, {LUA_OSLIBNAME, luaopen_os}};

    lua_pushcfunction(L, luaopen_base);
    lua_call(L, 0, 1);
    filter(L, "");
    lua_pop(L, 1);
    for (size_t i = 0; i < sizeof libraries / sizeof *libraries; i++) {
        lua_pushcfunction(L, libraries[i].open);
        lua_call(L, 0, 1);
        filter(L, libraries[i].name);
        lua_setglobal(L, libraries[i].name);
    }
    wrap(L, "load", load_text);
    wrap(L, "setmetatable", set_metatable);
    wrap(L, "collectgarbage", collect);

    vm_open_clock(L);

    lua_pushliteral(L, "");
    lua_getmetatable(L, -1);
    lua_pushboolean(L, false);
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 2);
}
