/* JSON for the embedded services: exact numbers both ways, through the host's own value tree. */
#include "local/lua_service.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

#define ARRAY_MARK "mlhost.json.array"
#define MAX_DEPTH  200

static void mark_array(lua_State *L)
{
    luaL_newmetatable(L, ARRAY_MARK);
    lua_setmetatable(L, -2);
}

static bool is_marked(lua_State *L, int index)
{
    if (!lua_getmetatable(L, index))
        return false;
    luaL_getmetatable(L, ARRAY_MARK);
    bool same = lua_rawequal(L, -1, -2);
    lua_pop(L, 2);
    return same;
}

void lua_push_value(lua_State *L, const struct value *v)
{
    luaL_checkstack(L, 6, "the document is nested too deeply");
    switch (v->kind) {
    case VALUE_BOOL:
        lua_pushboolean(L, v->as.boolean);
        break;
    case VALUE_INT:
        lua_pushinteger(L, v->as.integer);
        break;
    case VALUE_REAL:
        lua_pushnumber(L, v->as.real);
        break;
    case VALUE_STRING:
        lua_pushlstring(L, v->as.string.data, v->as.string.len);
        break;
    case VALUE_ARRAY:
        lua_createtable(L, (int)v->as.array.count, 0);
        for (size_t i = 0; i < v->as.array.count; i++) {
            lua_push_value(L, &v->as.array.items[i]);
            lua_rawseti(L, -2, (lua_Integer)i + 1);
        }
        mark_array(L);
        break;
    case VALUE_MAP:
        lua_createtable(L, 0, (int)v->as.map.count);
        for (size_t i = 0; i < v->as.map.count; i++) {
            const struct value_pair *pair = &v->as.map.pairs[i];
            lua_pushlstring(L, pair->key, pair->key_len);
            lua_push_value(L, &pair->value);
            lua_rawset(L, -3);
        }
        break;
    default:
        lua_pushlightuserdata(L, NULL);
        break;
    }
}

static int table_to_value(lua_State *L, int index, struct value *out, int depth, struct error *err);

static int any_to_value(lua_State *L, int index, struct value *out, int depth, struct error *err)
{
    size_t len;
    const char *text;

    switch (lua_type(L, index)) {
    case LUA_TNIL:
        value_set_nil(out);
        return 0;
    case LUA_TBOOLEAN:
        value_set_bool(out, lua_toboolean(L, index));
        return 0;
    case LUA_TNUMBER:
        if (lua_isinteger(L, index))
            value_set_int(out, lua_tointeger(L, index));
        else
            value_set_real(out, lua_tonumber(L, index));
        return 0;
    case LUA_TSTRING:
        text = lua_tolstring(L, index, &len);
        value_set_bytes(out, text, len);
        return 0;
    case LUA_TLIGHTUSERDATA:
        if (!lua_touserdata(L, index)) {
            value_set_nil(out);
            return 0;
        }
        break;
    case LUA_TTABLE:
        return table_to_value(L, lua_absindex(L, index), out, depth, err);
    default:
        break;
    }
    return error_set(err, ERR_INVALID, "a %s has no JSON form", luaL_typename(L, index));
}

static int table_to_value(lua_State *L, int index, struct value *out, int depth, struct error *err)
{
    if (depth > MAX_DEPTH || !lua_checkstack(L, 6))
        return error_set(err, ERR_INVALID, "a table is nested more than %d deep, or holds itself",
                         MAX_DEPTH);
    size_t count = lua_rawlen(L, index);
    if (count || is_marked(L, index)) {
        value_set_array(out);
        for (size_t i = 1; i <= count; i++) {
            lua_rawgeti(L, index, (lua_Integer)i);
            int status = any_to_value(L, -1, value_push(out), depth + 1, err);
            lua_pop(L, 1);
            if (status < 0)
                return -1;
        }
        return 0;
    }
    value_set_map(out);
    for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
        size_t len;
        if (lua_type(L, -2) != LUA_TSTRING) {
            error_set(err, ERR_INVALID, "a map's key is a %s, it must be a string",
                      luaL_typename(L, -2));
            lua_pop(L, 2);
            return -1;
        }
        const char *key = lua_tolstring(L, -2, &len);
        if (any_to_value(L, -1, value_put_n(out, key, len), depth + 1, err) < 0) {
            lua_pop(L, 2);
            return -1;
        }
    }
    return 0;
}

int lua_to_value(lua_State *L, int index, struct value *out, struct error *err)
{
    if (any_to_value(L, index, out, 0, err) < 0) {
        value_free(out);
        return -1;
    }
    return 0;
}

/* No Lua call below raises while the C side holds memory: memory that is not there ends the process
 * (base/mem.h). */
static int json_encode(lua_State *L)
{
    luaL_checkany(L, 1);
    unsigned flags = TEXT_SORTED;
    if (lua_type(L, 2) == LUA_TSTRING)
        flags |= TEXT_PRETTY;
    struct value v = {0};
    struct error err = {0};
    if (lua_to_value(L, 1, &v, &err) < 0)
        return luaL_error(L, "%s", err.message);
    struct buf text = BUF_INIT;
    value_to_json(&v, flags, &text);
    value_free(&v);
    lua_pushlstring(L, text.data, text.len);
    buf_free(&text);
    return 1;
}

static int json_decode(lua_State *L)
{
    size_t len;
    const char *text = luaL_checklstring(L, 1, &len);
    const char *source = luaL_optstring(L, 2, "JSON");
    struct value v = {0};
    struct error err = {0};

    if (value_from_json(text, len, source, NULL, &v, &err) < 0) {
        lua_pushnil(L);
        lua_pushstring(L, err.message);
        return 2;
    }
    lua_push_value(L, &v);
    value_free(&v);
    return 1;
}

static int json_array(lua_State *L)
{
    if (lua_isnoneornil(L, 1))
        lua_newtable(L);
    else
        luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    mark_array(L);
    return 1;
}

static int json_is_array(lua_State *L)
{
    lua_pushboolean(L, lua_istable(L, 1) && (lua_rawlen(L, 1) > 0 || is_marked(L, 1)));
    return 1;
}

int luaopen_mlh_json(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"encode", json_encode},
        {"decode", json_decode},
        {"array", json_array},
        {"is_array", json_is_array},
        {NULL, NULL},
    };

    luaL_newlib(L, functions);
    lua_pushlightuserdata(L, NULL);
    lua_setfield(L, -2, "null");
    return 1;
}
