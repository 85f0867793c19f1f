/* What a script can reach in its VM: the C functions, counted out, and nothing of the host's own.
 */
#include "check.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "broker/primitive.h"
#include "vm/embedded.h"
#include "vm/state.h"

/* Beside Lua's own (host/vm/env.c): the functions of C that modules hand on, by the first way to
 * each. */
static const char *const others[] = {
    "cjson.decode",
    "cjson.decode_invalid_numbers",
    "cjson.decode_max_depth",
    "cjson.encode",
    "cjson.encode_invalid_numbers",
    "cjson.encode_keep_buffer",
    "cjson.encode_max_depth",
    "cjson.encode_number_precision",
    "cjson.encode_sparse_array",
    "cjson.new",
    "cjson.safe.decode",
    "cjson.safe.decode_invalid_numbers",
    "cjson.safe.decode_max_depth",
    "cjson.safe.encode",
    "cjson.safe.encode_invalid_numbers",
    "cjson.safe.encode_keep_buffer",
    "cjson.safe.encode_max_depth",
    "cjson.safe.encode_number_precision",
    "cjson.safe.encode_sparse_array",
    "cjson.safe.new",
    "json.array",
    "json.is_array",
};

struct crawl {
    lua_State *L;
    int seen; /* index of a table: what was reached */
    char found[512][128];
    size_t count;
    const void *forbidden[16];
    size_t forbidden_count;
};

static void walk(struct crawl *crawl, const char *path)
{
    lua_State *L = crawl->L;
    int type = lua_type(L, -1);
    char inner[128];

    if (type != LUA_TTABLE && type != LUA_TFUNCTION && type != LUA_TUSERDATA &&
        type != LUA_TTHREAD && type != LUA_TSTRING && type != LUA_TLIGHTUSERDATA)
        return;
    assert_true(lua_checkstack(L, 10));
    if (type != LUA_TSTRING) {
        for (size_t i = 0; i < crawl->forbidden_count; i++) {
            if (lua_topointer(L, -1) == crawl->forbidden[i])
                fail_msg("%s is the host's own (%zu)", path, i);
        }
        lua_pushvalue(L, -1);
        if (lua_rawget(L, crawl->seen) != LUA_TNIL) {
            lua_pop(L, 1);
            return;
        }
        lua_pop(L, 1);
        lua_pushvalue(L, -1);
        lua_pushboolean(L, true);
        lua_rawset(L, crawl->seen);
    }
    if (type == LUA_TFUNCTION && lua_iscfunction(L, -1)) {
        assert_true(crawl->count < 512);
        snprintf(crawl->found[crawl->count++], sizeof crawl->found[0], "%s", path);
    }
    /* What getmetatable gives a script. */
    if (lua_getmetatable(L, -1)) {
        lua_pushliteral(L, "__metatable");
        if (lua_rawget(L, -2) == LUA_TNIL) {
            lua_pop(L, 1);
            snprintf(inner, sizeof inner, "%s<metatable>", path);
            walk(crawl, inner);
        } else {
            lua_remove(L, -2);
            snprintf(inner, sizeof inner, "%s<__metatable>", path);
            walk(crawl, inner);
        }
        lua_pop(L, 1);
    }
    if (type != LUA_TTABLE)
        return;
    for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
        if (lua_type(L, -2) == LUA_TSTRING)
            snprintf(inner, sizeof inner, "%s%s%s", path, path[0] ? "." : "", lua_tostring(L, -2));
        else
            snprintf(inner, sizeof inner, "%s[]", path);
        walk(crawl, inner);
        lua_pushvalue(L, -2);
        snprintf(inner, sizeof inner, "%s<key>", path);
        walk(crawl, inner);
        lua_pop(L, 1);
    }
}

static bool known(const char *path)
{
    const char *dot = strchr(path, '.');
    size_t library = dot ? (size_t)(dot - path) : 0;
    const char *name = dot ? dot + 1 : path;

    for (size_t i = 0; i < vm_function_count; i++) {
        const struct vm_function *f = &vm_functions[i];
        if (f->kind == VM_ABSENT || strlen(f->library) != library ||
            memcmp(f->library, path, library) != 0)
            continue;
        for (const char *at = f->names; *at; at += strspn(at, " ")) {
            size_t word = strcspn(at, " ");
            if (word == strlen(name) && memcmp(at, name, word) == 0)
                return true;
            at += word;
        }
    }
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        if (strcmp(others[i], path) == 0)
            return true;
    }
    return false;
}

static void forbid(struct crawl *crawl, int index)
{
    assert_true(crawl->forbidden_count < 16);
    assert_non_null(lua_topointer(crawl->L, index));
    crawl->forbidden[crawl->forbidden_count++] = lua_topointer(crawl->L, index);
}

/* The modules that a script can load, as it loads them. */
static void walk_modules(struct crawl *crawl)
{
    lua_State *L = crawl->L;
    size_t loaded = 0;

    for (size_t i = 0; i < embedded_file_count; i++) {
        char name[128];
        snprintf(name, sizeof name, "%s", embedded_files[i].path);
        char *end = strstr(name, "/init.lua");
        if (!end)
            end = strstr(name, ".lua");
        assert_non_null(end);
        *end = '\0';
        for (char *c = name; *c; c++)
            *c = *c == '/' ? '.' : *c;
        if (strcmp(name, "boot") == 0 || strncmp(name, "prelude.", 8) == 0 ||
            strncmp(name, "local.", 6) == 0 || strcmp(name, "local") == 0)
            continue;
        lua_getglobal(L, "require");
        lua_pushstring(L, name);
        if (lua_pcall(L, 1, 1, 0) != LUA_OK)
            fail_msg("%s: %s", name, luaL_tolstring(L, -1, NULL));
        walk(crawl, name);
        lua_pop(L, 1);
        loaded++;
    }
    assert_true(loaded > 30);
    static const char *const native[] = {"cjson", "cjson.safe"};
    for (size_t i = 0; i < 2; i++) {
        lua_getglobal(L, "require");
        lua_pushstring(L, native[i]);
        assert_int_equal(lua_pcall(L, 1, 1, 0), LUA_OK);
        walk(crawl, native[i]);
        lua_pop(L, 1);
    }
}

static void test_the_functions_of_c_are_on_the_list(void **state)
{
    static struct vm vm = {.fd = -1, .handler = LUA_NOREF, .budget = {.limit = 512u << 20}};
    static struct crawl crawl;
    static const struct signature *signatures[2048];
    const struct primitive *const *rows = primitive_table(&vm.signature_count);
    lua_State *L = lua_newstate(budget_alloc, &vm.budget);

    (void)state;
    assert_true(vm.signature_count < 2048);
    for (size_t i = 0; i < vm.signature_count; i++)
        signatures[i] = &rows[i]->sign;
    vm.signatures = signatures;
    *(struct vm **)lua_getextraspace(L) = &vm;
    vm.main = vm.current = L;
    crawl.L = L;
    assert_int_equal(vm_set_up(L), 3);
    forbid(&crawl, 1); /* the start, and the internals */
    forbid(&crawl, 2);
    lua_pushvalue(L, LUA_REGISTRYINDEX);
    forbid(&crawl, -1);
    lua_getfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    forbid(&crawl, -1);
    lua_rawgetp(L, LUA_REGISTRYINDEX, &vm_error_key);
    forbid(&crawl, -1);
    lua_rawgetp(L, LUA_REGISTRYINDEX, &vm_array_key);
    forbid(&crawl, -1);
    luaL_getmetatable(L, VM_HANDLE);
    forbid(&crawl, -1);
    lua_pushliteral(L, "");
    assert_true(lua_getmetatable(L, -1));
    forbid(&crawl, -1);
    lua_newtable(L);
    crawl.seen = lua_gettop(L);
    lua_pushglobaltable(L);
    walk(&crawl, "");
    lua_pop(L, 1);
    walk_modules(&crawl);
    lua_pushliteral(L, "text");
    walk(&crawl, "text");
    assert_true(crawl.count > 100);
    bool unknown = false;
    for (size_t i = 0; i < crawl.count; i++) {
        if (!known(crawl.found[i])) {
            unknown = true;
            printf("a script reaches '%s', which is not on the list\n", crawl.found[i]);
        }
    }
    assert_false(unknown);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        bool reached = false;
        for (size_t k = 0; k < crawl.count; k++)
            reached = reached || strcmp(crawl.found[k], others[i]) == 0;
        if (!reached)
            fail_msg("'%s' is on the list, and no script reaches it", others[i]);
    }
    lua_close(L);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_the_functions_of_c_are_on_the_list)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
