/*
 * The environment of a script, as data: whatever is not on this list is not there. docs/lua.md has
 * the same list (tests/unit/test_lua_env.c).
 */
#include <string.h>

#include "vm/state.h"

const struct vm_function vm_functions[] = {
    {"",
     "_G _VERSION assert error getmetatable ipairs next pairs pcall rawequal rawget rawlen rawset "
     "select tonumber tostring type xpcall",
     VM_SAME, "they see only what the script holds", NULL},
    {"", "setmetatable", VM_OTHER,
     "a metatable with `__gc` is refused: a finalizer runs where no deadline reaches it",
     "defer(fn), or a <close> variable"},
    {"", "load", VM_OTHER, "text only: byte code can break the interpreter", NULL},
    {"", "collectgarbage", VM_OTHER,
     "`\"collect\"`, `\"count\"`, `\"isrunning\"` and `\"step\"` only: the collector guards the "
     "memory budget",
     NULL},
    {"", "print", VM_OTHER, "writes a line of the stage's log; there is no standard output", NULL},
    {"", "require", VM_OTHER,
     "finds the program's modules, then files of the workspace; gives one result, and the chunk "
     "gets one argument",
     NULL},
    {"", "dofile loadfile", VM_ABSENT, "a script reads no files by itself",
     "require \"name\", or load(fs.read(path))"},
    {"", "warn", VM_ABSENT, "there is no standard error", "log.warning(format, ...)"},
    {"string",
     "byte char find format gmatch gsub len lower match pack packsize rep reverse sub unpack upper",
     VM_SAME, "the metatable of strings is out of reach (`getmetatable(\"\")` is `false`)", NULL},
    {"string", "dump", VM_ABSENT, "no byte code leaves or enters", "the text of the function"},
    {"table", "concat insert move pack remove sort unpack", VM_SAME, "", NULL},
    {"math",
     "abs acos asin atan ceil cos deg exp floor fmod huge log max maxinteger min mininteger modf "
     "pi rad sin sqrt tan tointeger type ult",
     VM_SAME, "", NULL},
    {"math", "random randomseed", VM_OTHER,
     "the seed comes from the run, also that of `randomseed()`, which gives no results: a stage "
     "that is played again draws the same",
     NULL},
    {"math", "atan2 cosh frexp ldexp log10 pow sinh tanh", VM_ABSENT,
     "left over from Lua 5.2, and only in some builds of Lua",
     "x ^ y, math.log(x, 10), math.atan(y, x), math.exp(x)"},
    {"utf8", "char charpattern codepoint codes len offset", VM_SAME, "", NULL},
    {"coroutine", "close create isyieldable resume running status wrap yield", VM_OTHER,
     "a branch of `parallel()`, or the stage's own function, is a main coroutine: it does not "
     "yield, and no other resumes or closes it",
     NULL},
    {"os", "clock date time", VM_OTHER, "what they saw is kept with the run, and played again",
     NULL},
    {"os", "difftime", VM_SAME, "", NULL},
    {"os", "execute", VM_ABSENT, "commands run under the permissions of the stage",
     "exec { \"command\", \"argument\" } of require \"exec\""},
    {"os", "exit", VM_ABSENT, "a stage ends with its function", "return, or error(message)"},
    {"os", "getenv", VM_ABSENT, "a script's process has no environment", "require \"env\".NAME"},
    {"os", "remove", VM_ABSENT, "a script's process reaches no files", "fs.remove(path)"},
    {"os", "rename", VM_ABSENT, "a script's process reaches no files",
     "fs.copy(from, to) and fs.remove(from)"},
    {"os", "setlocale", VM_ABSENT, "it would change how numbers are read and written", NULL},
    {"os", "tmpname", VM_ABSENT, "a script's process reaches no files", "cx.out(name)"},
    {"io", "close flush input lines open output read stderr stdin stdout tmpfile type write",
     VM_ABSENT, "a script's process reaches no files",
     "fs.read, fs.write of require \"fs\"; print and log for output"},
    {"io", "popen", VM_ABSENT, "commands run under the permissions of the stage",
     "exec { \"command\", \"argument\" } of require \"exec\""},
    {"package", "config cpath loaded loadlib path preload searchers searchpath", VM_ABSENT,
     "native code and the tables of modules are out of reach", "require \"name\""},
    {"debug",
     "debug gethook getinfo getlocal getmetatable getregistry getupvalue getuservalue "
     "setcstacklimit sethook setlocal setmetatable setupvalue setuservalue traceback upvalueid "
     "upvaluejoin",
     VM_ABSENT, "it reaches around every other rule",
     "mlhost run --debug, breakpoint(); error objects have a traceback"},
};
const size_t vm_function_count = sizeof vm_functions / sizeof *vm_functions;

static bool in_list(const char *names, const char *name, size_t len)
{
    for (const char *at = names; *at; at += strspn(at, " ")) {
        size_t word = strcspn(at, " ");
        if (word == len && memcmp(at, name, len) == 0)
            return true;
        at += word;
    }
    return false;
}

static bool listed(const char *library, const char *name)
{
    for (size_t i = 0; i < vm_function_count; i++) {
        const struct vm_function *f = &vm_functions[i];
        if (f->kind != VM_ABSENT && strcmp(f->library, library) == 0 &&
            in_list(f->names, name, strlen(name)))
            return true;
    }
    return false;
}

/* Is there such a library? */
static bool listed_library(const char *library)
{
    for (size_t i = 0; i < vm_function_count; i++) {
        if (vm_functions[i].kind != VM_ABSENT && strcmp(vm_functions[i].library, library) == 0)
            return true;
    }
    return false;
}

bool vm_absent_hint(const char *message, struct buf *out)
{
    static const char nil[] = "a nil value (";
    const char *at = strstr(message, nil);

    if (!at)
        return false;
    at += sizeof nil - 1;
    bool global = strncmp(at, "global '", 8) == 0, field = strncmp(at, "field '", 7) == 0;
    if (!global && !field)
        return false;
    const char *name = strchr(at, '\'') + 1;
    size_t len = strcspn(name, "'");
    for (size_t i = 0; i < vm_function_count; i++) {
        const struct vm_function *f = &vm_functions[i];
        bool library = global && f->library[0] && strlen(f->library) == len &&
                       memcmp(f->library, name, len) == 0;
        bool function = global == !f->library[0] && in_list(f->names, name, len);
        /* Of a library that is not there at all, no field is ever looked up. */
        if (f->kind != VM_ABSENT || (!library && !function) ||
            (field && !listed_library(f->library)))
            continue;
        if (library)
            buf_printf(out, "scripts have no `%s`: ", f->library);
        else if (field)
            buf_printf(out, "if it is `%s.%.*s`, scripts have none: ", f->library, (int)len, name);
        else
            buf_printf(out, "scripts have no `%.*s`: ", (int)len, name);
        buf_puts(out, f->why);
        if (library)
            buf_puts(out, "; docs/lua.md has what to use instead");
        else if (f->instead)
            buf_printf(out, "; use %s", f->instead);
        return true;
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

/* For require, and for the names of functions in errors and tracebacks. */
static void loaded(lua_State *L, const char *name)
{
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    lua_pushvalue(L, -2);
    lua_setfield(L, -2, name);
    lua_pop(L, 1);
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
    bool text = lua_isnil(L, 3) || strchr(luaL_checkstring(L, 3), 't');
    lua_pushstring(L, text ? "t" : ""); /* "": neither */
    lua_replace(L, 3);
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    /* Without a message handler, which would get what a reader function raises. */
    if (lua_pcall(L, lua_gettop(L) - 1, LUA_MULTRET, 0) != LUA_OK)
        return lua_error(L);
    return lua_gettop(L);
}

/* What a script may ask of the collector; how that works is not the script's. */
static int collect(lua_State *L)
{
    static const char *const options[] = {"collect",     "count",        "isrunning", "step",
                                          "stop",        "restart",      "setpause",  "setstepmul",
                                          "incremental", "generational", NULL};
    int size = (int)luaL_optinteger(L, 2, 0);

    switch (luaL_checkoption(L, 1, "collect", options)) {
    case 0:
        lua_pushinteger(L, lua_gc(L, LUA_GCCOLLECT));
        return 1;
    case 1:
        lua_pushnumber(L, (lua_Number)vm_of(L)->budget.used / 1024.0);
        return 1;
    case 2:
        lua_pushboolean(L, lua_gc(L, LUA_GCISRUNNING));
        return 1;
    case 3:
        lua_pushboolean(L, lua_gc(L, LUA_GCSTEP, size));
        return 1;
    default:
        return luaL_error(L,
                          "collectgarbage: \"%s\" is not allowed here: the collector guards "
                          "the memory budget",
                          lua_tostring(L, 1));
    }
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
    loaded(L, LUA_GNAME);
    lua_pop(L, 1);
    for (size_t i = 0; i < sizeof libraries / sizeof *libraries; i++) {
        lua_pushcfunction(L, libraries[i].open);
        lua_call(L, 0, 1);
        filter(L, libraries[i].name);
        loaded(L, libraries[i].name);
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
