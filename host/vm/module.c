/* require: the program's own modules first, then the workspace's, which the broker reads. */
#include <stdio.h>
#include <string.h>

#include "vm/embedded.h"
#include "vm/state.h"

int luaopen_cjson(lua_State *L);
int luaopen_cjson_safe(lua_State *L);

static const char loading; /* its address marks a module whose chunk runs */

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
    lua_pushfstring(L, "@mlhost/%s", file->path);
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

static void push_chunk(lua_State *L, const char *name)
{
    if (native(name)) {
        lua_pushcfunction(L, native(name));
        return;
    }
    if (vm_of(L)->override) {
        load_from_broker(L, name, true);
        if (!lua_isnil(L, -1))
            return;
        lua_pop(L, 1);
    }
    const struct embedded_file *file = embedded(name, ".lua");
    if (!file)
        file = embedded(name, "/init.lua");
    if (file)
        load_embedded(L, file);
    else
        load_from_broker(L, name, false);
}

/* require(name) -> what the module's chunk returned (true when nothing) */
int vm_require(lua_State *L)
{
    size_t len;
    const char *name = luaL_checklstring(L, 1, &len);

    if (len != strlen(name) || len == 0 || len > 200)
        return luaL_argerror(L, 1, "not a module's name");
    lua_settop(L, 1);
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    lua_getfield(L, 2, name);
    if (lua_touserdata(L, 3) == &loading)
        return luaL_error(L, "module '%s' requires itself, perhaps through another one", name);
    if (!lua_isnil(L, 3))
        return 1;
    lua_settop(L, 2);
    push_chunk(L, name);
    lua_pushlightuserdata(L, (void *)&loading);
    lua_setfield(L, 2, name);
    lua_pushvalue(L, 1);
    lua_pushcfunction(L, vm_debug_require_handler);
    lua_insert(L, 3);
    if (lua_pcall(L, 1, 1, 3) != LUA_OK) {
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

void vm_open_modules(lua_State *L)
{
    lua_pushcfunction(L, vm_require);
    lua_setglobal(L, "require");
}
