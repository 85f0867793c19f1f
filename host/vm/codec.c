/* Lua values <-> value trees, for frames, JSON and YAML. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "vm/state.h"

const char vm_array_key, vm_error_key;
static const char handle_key;

struct handle {
    uint64_t id;
    char type[16];
};

/* ---- Lua -> value: raw access only, so nothing here runs script code or longjmps ---- */

struct path {
    const struct path *up;
    const char *key;
    lua_Integer index;
};

static void print_path(const struct path *path, struct buf *out)
{
    if (!path)
        return;
    print_path(path->up, out);
    if (!path->key)
        buf_printf(out, "[%lld]", (long long)path->index);
    else
        buf_printf(out, "%s%s", out->len ? "." : "", path->key);
}

static int refuse(const struct path *path, struct error *err, const char *what, const char *hint)
{
    cleanup_buf struct buf where = BUF_INIT;

    print_path(path, &where);
    error_set(err, ERR_INVALID, "%s%s%s", where.len ? where.data : "", where.len ? ": " : "", what);
    return hint ? error_hint(err, "%s", hint) : -1;
}

static int convert(lua_State *L, int index, const struct path *path, int depth, struct value *out,
                   struct error *err);

static bool has_metatable(lua_State *L, int index, const void *key)
{
    if (!lua_getmetatable(L, index))
        return false;
    lua_rawgetp(L, LUA_REGISTRYINDEX, key);
    bool same = lua_rawequal(L, -1, -2);
    lua_pop(L, 2);
    return same;
}

static int by_key(const void *a, const void *b)
{
    const struct value_pair *x = *(const struct value_pair *const *)a,
                            *y = *(const struct value_pair *const *)b;
    size_t len = x->key_len < y->key_len ? x->key_len : y->key_len;
    int order = memcmp(x->key, y->key, len);

    return order ? order : x->key_len < y->key_len ? -1 : 1;
}

/* Lua visits keys in an order that changes from run to run; what leaves the VM must not. */
static void sort_map(struct value *map)
{
    size_t count = map->as.map.count;
    struct value sorted = {0};

    if (count < 2)
        return;
    struct value_pair **order = mem_array(NULL, count, sizeof *order);
    for (size_t i = 0; i < count; i++)
        order[i] = &map->as.map.pairs[i];
    qsort(order, count, sizeof *order, by_key);
    value_set_map(&sorted);
    for (size_t i = 0; i < count; i++)
        value_move(value_put_n(&sorted, order[i]->key, order[i]->key_len), &order[i]->value);
    free(order);
    value_move(map, &sorted);
}

static int refuse_holes(const struct path *path, struct error *err)
{
    return refuse(path, err, "a list with holes",
                  "number the items 1, 2, 3 ...; json.null stands for nothing");
}

static int convert_array(lua_State *L, int index, lua_Integer count, const struct path *path,
                         int depth, struct value *out, struct error *err)
{
    value_set_array(out);
    for (lua_Integer i = 1; i <= count; i++) {
        struct path here = {path, NULL, i};
        if (lua_rawgeti(L, index, i) == LUA_TNIL) /* as many keys as the length says, but others */
            return refuse_holes(path, err);
        int result = convert(L, lua_gettop(L), &here, depth + 1, value_push(out), err);
        lua_pop(L, 1);
        if (result < 0)
            return -1;
    }
    return 0;
}

static int convert_table(lua_State *L, int index, const struct path *path, int depth,
                         struct value *out, struct error *err)
{
    lua_Integer keys = 0;
    bool named = false, numbered = false;

    if (depth >= VALUE_MAX_DEPTH)
        return refuse(path && path->up ? path->up : path, err,
                      "nested too deep, or a table that contains itself", NULL);
    if (!lua_checkstack(L, 4))
        return refuse(path, err, "nested too deep", NULL);
    for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1), keys++) {
        if (lua_type(L, -2) == LUA_TSTRING)
            named = true;
        else if (lua_isinteger(L, -2))
            numbered = true;
        else {
            lua_pop(L, 2);
            return refuse(path, err, "a key that is neither text nor a whole number", NULL);
        }
    }
    if (numbered && named)
        return refuse(path, err, "has both numbered and named entries",
                      "use a list ({ a, b }) or a map ({ x = a }), not both in one table");
    if (numbered || (keys == 0 && has_metatable(L, index, &vm_array_key))) {
        if ((lua_Integer)lua_rawlen(L, index) != keys)
            return refuse_holes(path, err);
        return convert_array(L, index, keys, path, depth, out, err);
    }
    value_set_map(out);
    for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
        size_t len;
        const char *key = lua_tolstring(L, -2, &len);
        struct path here = {path, key, 0};
        if (convert(L, lua_gettop(L), &here, depth + 1, value_put_n(out, key, len), err) < 0) {
            lua_pop(L, 2);
            return -1;
        }
    }
    sort_map(out);
    return 0;
}

static int convert(lua_State *L, int index, const struct path *path, int depth, struct value *out,
                   struct error *err)
{
    size_t len;
    const char *text;
    const struct handle *handle;

    switch (lua_type(L, index)) {
    case LUA_TNONE:
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
        if (len > FRAME_MAX / 2)
            return refuse(path, err, "a text of more than 32 MiB",
                          "write it to a file, and pass the file's path");
        value_set_bytes(out, text, len);
        return 0;
    case LUA_TLIGHTUSERDATA:
        value_set_nil(out);
        return 0;
    case LUA_TTABLE:
        return convert_table(L, index, path, depth, out, err);
    case LUA_TUSERDATA:
        if (has_metatable(L, index, &handle_key)) {
            handle = lua_touserdata(L, index);
            value_set_handle(out, handle->type, handle->id);
            return 0;
        }
        return refuse(path, err, "an object that cannot leave the script", NULL);
    case LUA_TFUNCTION:
        return refuse(path, err, "a function cannot leave the script", NULL);
    default:
        return refuse(path, err, "a coroutine cannot leave the script", NULL);
    }
}

int vm_to_value(lua_State *L, int index, struct value *out, struct error *err)
{
    if (!lua_checkstack(L, 8))
        return error_set(err, ERR_MEMORY, "no stack left");
    value_free(out);
    int top = lua_gettop(L);
    if (convert(L, lua_absindex(L, index), NULL, 0, out, err) == 0)
        return 0;
    lua_settop(L, top);
    value_free(out);
    return -1;
}

/* ---- value -> Lua ---- */

static void push_table(lua_State *L, const struct value *v)
{
    luaL_checkstack(L, 6, "nested too deep");
    if (v->kind == VALUE_ARRAY) {
        lua_createtable(L, (int)v->as.array.count, 0);
        for (size_t i = 0; i < v->as.array.count; i++) {
            const struct value *item = &v->as.array.items[i];
            if (item->kind == VALUE_NIL)
                lua_pushlightuserdata(L, NULL);
            else
                vm_push_value(L, item);
            lua_rawseti(L, -2, (lua_Integer)i + 1);
        }
        if (v->as.array.count == 0) {
            lua_rawgetp(L, LUA_REGISTRYINDEX, &vm_array_key);
            lua_setmetatable(L, -2);
        }
        return;
    }
    lua_createtable(L, 0, (int)v->as.map.count);
    for (size_t i = 0; i < v->as.map.count; i++) {
        const struct value_pair *pair = &v->as.map.pairs[i];
        lua_pushlstring(L, pair->key, pair->key_len);
        if (pair->value.kind == VALUE_NIL)
            lua_pushlightuserdata(L, NULL);
        else
            vm_push_value(L, &pair->value);
        lua_rawset(L, -3);
    }
}

void vm_push_value(lua_State *L, const struct value *v)
{
    struct handle *handle;

    switch (v->kind) {
    case VALUE_NIL:
        lua_pushnil(L);
        break;
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
        lua_pushlstring(L, v->as.string.data ? v->as.string.data : "", v->as.string.len);
        break;
    case VALUE_ARRAY:
    case VALUE_MAP:
        push_table(L, v);
        break;
    case VALUE_HANDLE:
        handle = lua_newuserdatauv(L, sizeof *handle, 1);
        handle->id = v->as.handle.id;
        memcpy(handle->type, v->as.handle.type, sizeof handle->type);
        luaL_setmetatable(L, VM_HANDLE);
        break;
    }
}

/* ---- handles ---- */

static int handle_text(lua_State *L)
{
    const struct handle *handle = luaL_checkudata(L, 1, VM_HANDLE);

    if (lua_getiuservalue(L, 1, 1) == LUA_TSTRING)
        lua_pushfstring(L, "<%s %s>", handle->type, lua_tostring(L, -1));
    else
        lua_pushfstring(L, "<%s>", handle->type);
    return 1;
}

static int handle_same(lua_State *L)
{
    const struct handle *a = luaL_testudata(L, 1, VM_HANDLE), *b = luaL_testudata(L, 2, VM_HANDLE);

    lua_pushboolean(L, a && b && a->id == b->id && strcmp(a->type, b->type) == 0);
    return 1;
}

/* Whatever would need the object itself, which the script does not have. */
static int handle_refuse(lua_State *L, const char *what)
{
    const struct handle *handle = luaL_testudata(L, 1, VM_HANDLE);
    struct error err = {0};

    if (!handle)
        handle = luaL_checkudata(L, 2, VM_HANDLE);
    bool secret = strcmp(handle->type, "secret") == 0;
    error_set(&err, ERR_INVALID, "a %s cannot be %s: %s", handle->type, what,
              secret ? "its value never enters the script" : "it lives outside of the script");
    if (secret)
        error_hint(&err, "secret.format(\"Bearer %%s\", s) makes a new secret from texts and "
                         "secrets; pass it to exec as env or input, to http as bearer or headers");
    return vm_raise(L, &err);
}

static int handle_concat(lua_State *L)
{
    return handle_refuse(L, "joined with text");
}
static int handle_index(lua_State *L)
{
    return handle_refuse(L, "looked into");
}
static int handle_length(lua_State *L)
{
    return handle_refuse(L, "measured");
}
static int handle_order(lua_State *L)
{
    return handle_refuse(L, "compared by size");
}
static int handle_call(lua_State *L)
{
    return handle_refuse(L, "called");
}
static int handle_number(lua_State *L)
{
    return handle_refuse(L, "calculated with");
}

/* name(handle, text): how tostring shows it. */
static int handle_name(lua_State *L)
{
    luaL_checkudata(L, 1, VM_HANDLE);
    luaL_checkstring(L, 2);
    lua_settop(L, 2);
    lua_setiuservalue(L, 1, 1);
    return 1;
}

/* handle_type(x) -> "secret" ..., or nil when x is no handle */
static int handle_type(lua_State *L)
{
    const struct handle *handle = luaL_testudata(L, 1, VM_HANDLE);

    if (handle)
        lua_pushstring(L, handle->type);
    else
        lua_pushnil(L);
    return 1;
}

/* ---- JSON and YAML texts ---- */

static void checked(lua_State *L, int index, struct vm *vm)
{
    struct error err = {0};

    if (vm_to_value(L, index, &vm->frame, &err) < 0)
        vm_raise(L, &err);
}

static int encode(lua_State *L, bool yaml)
{
    struct vm *vm = vm_of(L);

    luaL_checkany(L, 1);
    bool pretty = lua_toboolean(L, 2);
    buf_clear(&vm->out);
    if (!yaml && !pretty && vm_json_write(L, 1, &vm->out)) {
        lua_pushlstring(L, vm->out.data, vm->out.len);
        return 1;
    }
    checked(L, 1, vm);
    if (yaml)
        value_to_yaml(&vm->frame, &vm->out);
    else
        value_to_json(&vm->frame, pretty ? TEXT_PRETTY : 0, &vm->out);
    value_free(&vm->frame);
    lua_pushlstring(L, vm->out.data ? vm->out.data : "", vm->out.len);
    return 1;
}

/* decode(text, source): source names the text in errors. The value may take as much again as the
 * text. */
static int decode(lua_State *L, bool yaml, bool all)
{
    struct vm *vm = vm_of(L);
    size_t len;
    const char *text = luaL_checklstring(L, 1, &len);
    const char *source = luaL_optstring(L, 2, yaml ? "YAML" : "JSON");
    struct error err = {0};
    struct text_limits limits = {.bytes = vm->budget.limit / 8 < (64u << 20) ? vm->budget.limit / 8
                                                                             : 64u << 20};

    if (!yaml && len <= limits.bytes && vm_json_read(L, text, len))
        return 1;
    value_free(&vm->frame);
    int result = yaml ? value_from_yaml(text, len, source, &limits, all, &vm->frame, &err)
                      : value_from_json(text, len, source, &limits, &vm->frame, &err);
    if (result < 0)
        return vm_raise(L, &err);
    if (vm->frame.kind == VALUE_NIL)
        lua_pushlightuserdata(L, NULL);
    else
        vm_push_value(L, &vm->frame);
    value_free(&vm->frame);
    return 1;
}

static int json_encode(lua_State *L)
{
    return encode(L, false);
}
static int json_decode(lua_State *L)
{
    return decode(L, false, false);
}
static int yaml_encode(lua_State *L)
{
    return encode(L, true);
}
static int yaml_decode(lua_State *L)
{
    return decode(L, true, false);
}
static int yaml_decode_all(lua_State *L)
{
    return decode(L, true, true);
}

/* array(table) -> table: an empty one becomes [] instead of {} */
static int mark_array(lua_State *L)
{
    if (lua_isnoneornil(L, 1)) {
        lua_settop(L, 0);
        lua_newtable(L);
    }
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    lua_rawgetp(L, LUA_REGISTRYINDEX, &vm_array_key);
    lua_setmetatable(L, 1);
    return 1;
}

static int is_array(lua_State *L)
{
    lua_pushboolean(L, lua_istable(L, 1) &&
                           (has_metatable(L, 1, &vm_array_key) || lua_rawlen(L, 1) > 0));
    return 1;
}

void vm_open_codec(lua_State *L)
{
    static const luaL_Reg handle_methods[] = {
        {"__tostring", handle_text}, {"__eq", handle_same},        {"__concat", handle_concat},
        {"__index", handle_index},   {"__newindex", handle_index}, {"__len", handle_length},
        {"__lt", handle_order},      {"__le", handle_order},       {"__call", handle_call},
        {"__add", handle_number},    {"__sub", handle_number},     {"__mul", handle_number},
        {"__div", handle_number},    {"__mod", handle_number},     {"__pow", handle_number},
        {"__unm", handle_number},    {"__idiv", handle_number},    {"__band", handle_number},
        {"__bor", handle_number},    {"__bxor", handle_number},    {"__bnot", handle_number},
        {"__shl", handle_number},    {"__shr", handle_number},     {NULL, NULL}};
    static const luaL_Reg functions[] = {{"json_encode", json_encode},
                                         {"json_decode", json_decode},
                                         {"yaml_encode", yaml_encode},
                                         {"yaml_decode", yaml_decode},
                                         {"yaml_decode_all", yaml_decode_all},
                                         {"array", mark_array},
                                         {"is_array", is_array},
                                         {"name", handle_name},
                                         {"handle_type", handle_type},
                                         {NULL, NULL}};

    luaL_newmetatable(L, VM_HANDLE);
    luaL_setfuncs(L, handle_methods, 0);
    lua_pushboolean(L, false);
    lua_setfield(L, -2, "__metatable");
    lua_rawsetp(L, LUA_REGISTRYINDEX, &handle_key);
    lua_newtable(L);
    lua_pushliteral(L, "array");
    lua_setfield(L, -2, "__metatable");
    lua_rawsetp(L, LUA_REGISTRYINDEX, &vm_array_key);
    luaL_setfuncs(L, functions, 0);
    lua_pushlightuserdata(L, NULL);
    lua_setfield(L, -2, "null");
}
