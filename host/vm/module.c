/*
 * require: the program's own modules first, then the workspace's, which the broker reads.
 *
 * A module of the program gets the internals ("vm") as its second argument, and no other chunk
 * does: what a script calls has been through a module that means it. The modules that start a VM
 * are out of a script's reach altogether.
 */
#include <stdio.h>
#include <string.h>

#include "vm/embedded.h"
#include "vm/state.h"

int luaopen_cjson(lua_State *L);
int luaopen_cjson_safe(lua_State *L);

static const char loading;                    /* its address marks a module whose chunk runs */
static const char internals_key, private_key; /* in the registry: "vm"; private modules by name */

static const struct embedded_file *embedded(const char *name, const char *suffix)
{
    char path[256];
    size_t len = strlen(name);

    if (len + strlen(suffix) + 1 > sizeof path)
        return NULL;
    snprintf(path, sizeof path, "%s%s", name, suffix);
    for (char *c = path; c < path + len; c++) {
        if (*c == '.')
            *c = '/';
    }
    for (size_t i = 0; i < embedded_file_count; i++) {
        if (strcmp(embedded_files[i].path, path) == 0)
            return &embedded_files[i];
    }
    return NULL;
}

/* Asks the broker; pushes the chunk, or nil when there is no such module. */
static void load_from_broker(lua_State *L, const char *name, bool builtin)
{
    struct value args = {0};

    value_set_map(&args);
    value_put_string(&args, "name", name);
    if (builtin)
        value_put_bool(&args, "builtin", true);
    vm_call_now(L, "host.module", &args);
    if (lua_isnil(L, -1))
        return;
    lua_getfield(L, -1, "file");
    lua_getfield(L, -2, "text");
    size_t len;
    const char *text = luaL_checklstring(L, -1, &len);
    vm_debug_keep(L, luaL_checkstring(L, -2), text, len);
    lua_pushfstring(L, "@%s", luaL_checkstring(L, -2));
    if (vm_load_text(L, text, len, lua_tostring(L, -1)) != LUA_OK)
        lua_error(L);
    lua_replace(L, -5);
    lua_pop(L, 3);
}

static void load_embedded(lua_State *L, const struct embedded_file *file)
{
    lua_pushfstring(L, "@" VM_OWN_FOLDER "%s", file->path);
    if (luaL_loadbufferx(L, file->code, file->len, lua_tostring(L, -1), "b") != LUA_OK)
        lua_error(L);
    lua_remove(L, -2);
}

/* lua-cjson under its own names, for scripts that know it. Our `json` keeps whole numbers and empty
 * lists as they are. */
static lua_CFunction native(const char *name)
{
    if (strcmp(name, "cjson") == 0)
        return luaopen_cjson;
    return strcmp(name, "cjson.safe") == 0 ? luaopen_cjson_safe : NULL;
}

/* The modules of the start, and those of the embedded services, which run in states of their own.
 */
static bool is_private(const char *name)
{
    static const char *const beginnings[] = {"prelude.", "local."};

    for (size_t i = 0; i < sizeof beginnings / sizeof *beginnings; i++) {
        if (strncmp(name, beginnings[i], strlen(beginnings[i])) == 0)
            return true;
    }
    return strcmp(name, "boot") == 0;
}

/* Pushes the chunk. True: it is the program's own. */
static bool push_chunk(lua_State *L, const char *name, bool theirs)
{
    if (native(name)) {
        lua_pushcfunction(L, native(name));
        return false;
    }
    if (!theirs && vm_of(L)->override) {
        load_from_broker(L, name, true);
        if (!lua_isnil(L, -1))
            return true;
        lua_pop(L, 1);
    }
    const struct embedded_file *file = theirs ? NULL : embedded(name, ".lua");
    if (!file && !theirs)
        file = embedded(name, "/init.lua");
    if (file)
        load_embedded(L, file);
    else
        load_from_broker(L, name, false);
    return file;
}

static int load_module(lua_State *L, bool own)
{
    size_t len;
    const char *name = luaL_checklstring(L, 1, &len);

    if (len != strlen(name) || len == 0 || len > 200)
        return luaL_argerror(L, 1, "not a module's name");
    bool hidden = is_private(name);
    lua_settop(L, 1);
    if (hidden && own)
        lua_rawgetp(L, LUA_REGISTRYINDEX, &private_key);
    else
        luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    lua_getfield(L, 2, name);
    if (lua_touserdata(L, 3) == &loading)
        return luaL_error(L, "module '%s' requires itself, perhaps through another one", name);
    if (!lua_isnil(L, 3))
        return 1;
    lua_settop(L, 2);
    bool trusted = push_chunk(L, name, hidden && !own);
    lua_pushlightuserdata(L, (void *)&loading);
    lua_setfield(L, 2, name);
    lua_pushvalue(L, 1);
    if (trusted)
        lua_rawgetp(L, LUA_REGISTRYINDEX, &internals_key);
    lua_pushcfunction(L, vm_debug_require_handler);
    lua_insert(L, 3);
    if (lua_pcall(L, trusted ? 2 : 1, 1, 3) != LUA_OK) {
        lua_pushnil(L);
        lua_setfield(L, 2, name);
        return lua_error(L);
    }
    if (lua_isnil(L, -1)) {
        lua_pop(L, 1);
        lua_pushboolean(L, true);
    }
    lua_pushvalue(L, -1);
    lua_setfield(L, 2, name);
    return 1;
}

/* require(name) -> what the module's chunk returned (true when nothing) */
static int script_require(lua_State *L)
{
    return load_module(L, false);
}

int vm_require_own(lua_State *L)
{
    return load_module(L, true);
}

void vm_open_modules(lua_State *L)
{
    lua_pushcfunction(L, vm_require_own);
    lua_setfield(L, -2, "require");
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &internals_key);
    lua_newtable(L);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &private_key);
    lua_pushcfunction(L, script_require);
    lua_setglobal(L, "require");
}
