/* YAML for the embedded services' Lua: libyaml through the host's value tree. */
#include "local/lua_service.h"
#include "local/runner.h"

static int yaml_decode(lua_State *L)
{
    size_t len;
    const char *text = luaL_checklstring(L, 1, &len);
    const char *source = luaL_optstring(L, 2, "YAML");
    struct value documents = {0};
    struct error err = {0};

    if (value_from_yaml(text, len, source, NULL, true, &documents, &err) < 0) {
        lua_pushnil(L);
        lua_pushstring(L, err.message);
        return 2;
    }
    lua_push_value(L, &documents);
    value_free(&documents);
    return 1;
}

int luaopen_mlh_yaml(lua_State *L)
{
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, yaml_decode);
    lua_setfield(L, -2, "decode");
    return 1;
}

const luaL_Reg kubeflow_libraries[] = {
    {"runner", luaopen_mlh_runner},
    {"yaml", luaopen_mlh_yaml},
    {NULL, NULL},
};
