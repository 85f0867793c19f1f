/*
 * The Lua logic of the embedded Kubernetes API, in the very state that the program runs it in, over
 * a store of its own: each file of tests/unit/kubernetes returns a list of { name, function }; what
 * a function raises is its failure. And the selectors and paths, which are C.
 */
#include "check.h"

#include <lauxlib.h>
#include <lua.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/buf.h"
#include "local/k8s_selector.h"
#include "local/k8s_serve.h"
#include "local/lua_service.h"
#include "local/runner.h"

static int with_traceback(lua_State *L)
{
    luaL_traceback(L, L, luaL_tolstring(L, 1, NULL), 1);
    return 1;
}

static void run_file(const char *name)
{
    static const luaL_Reg libraries[] = {
        {"k8s", luaopen_mlh_k8s},
        {"yaml", luaopen_mlh_yaml},
        {NULL, NULL},
    };
    struct error err = {0};
    char path[512], folder[] = "/tmp/mlhost-k8s-api-XXXXXX";
    int failed = 0;

    assert_non_null(mkdtemp(folder));
    struct k8s_store *store = k8s_store_open(folder, &err);
    assert_non_null(store);
    k8s_store_set_here(store);
    lua_State *L = lua_service_state(libraries, &err);
    assert_non_null(L);
    snprintf(path, sizeof path, "%s/tests/unit/kubernetes/%s.lua", SOURCE_DIR, name);
    lua_pushcfunction(L, with_traceback);
    if (luaL_loadfile(L, path) != LUA_OK || lua_pcall(L, 0, 1, 1) != LUA_OK)
        fail_msg("%s", lua_tostring(L, -1));
    lua_Integer count = luaL_len(L, -1);
    assert_true(count > 0);
    for (lua_Integer i = 1; i <= count; i++) {
        lua_geti(L, -1, i);
        lua_geti(L, -1, 1);
        lua_geti(L, -2, 2);
        if (lua_pcall(L, 0, 0, 1) != LUA_OK) {
            failed++;
            fprintf(stderr, "%s: %s: %s\n", name, lua_tostring(L, -2), lua_tostring(L, -1));
            lua_pop(L, 1);
        }
        lua_pop(L, 2);
    }
    lua_close(L);
    k8s_store_close(store);
    ok(dir_remove(folder, &err), err);
    if (failed)
        fail_msg("%d of %d failed", failed, (int)count);
}

static void patches(void **state)
{
    (void)state;
    run_file("patch");
}

static void ownership(void **state)
{
    (void)state;
    run_file("managers");
}

static void calls(void **state)
{
    (void)state;
    run_file("api");
}

static const struct k8s_resource *resource(const char *plural)
{
    for (size_t i = 0; i < k8s_resource_count; i++) {
        if (strcmp(k8s_resources[i].plural, plural) == 0)
            return &k8s_resources[i];
    }
    fail_msg("no %s", plural);
    return NULL;
}

static bool matches(const char *labels, const char *fields)
{
    static const char text[] =
        "{\"metadata\":{\"name\":\"a,b\",\"labels\":{\"x\":\"1\",\"e/f\":\"\"}},"
        "\"status\":{\"phase\":\"Running\"}}";
    cleanup_value struct value object = {0};
    struct error err = {0};

    ok(value_from_json(text, strlen(text), "test", NULL, &object, &err), err);
    struct k8s_selector *selector = k8s_selector_parse(resource("pods"), labels, fields, &err);
    if (!selector)
        fail_msg("%s", err.message);
    bool fits = k8s_selector_matches(selector, &object);
    k8s_selector_free(selector);
    return fits;
}

static void refused(const char *labels, const char *fields, const char *why)
{
    struct error err = {0};

    assert_null(k8s_selector_parse(resource("pods"), labels, fields, &err));
    assert_int_equal(err.code, ERR_INVALID);
    holds(err.message, why);
}

static void selectors(void **state)
{
    (void)state;
    assert_true(matches(NULL, NULL));
    assert_true(matches("", ""));
    assert_true(matches("x=1,e/f=,!y", NULL));
    assert_true(matches(" x == 1 , e/f ", NULL));
    assert_true(matches("x in ( 2, 1 ),y notin (1)", NULL));
    assert_true(matches("in!=3", NULL));
    assert_false(matches("x!=1", NULL));
    assert_false(matches("x in (2)", NULL));
    assert_false(matches("y", NULL));
    assert_false(matches("!x", NULL));
    assert_true(matches(NULL, "metadata.name=a\\,b,status.phase!=Failed,metadata.namespace="));
    assert_false(matches(NULL, "status.phase==Pending"));
    refused("x in (1", NULL, "x in (1");
    refused("x in 1)", NULL, "key in (a,b)");
    refused("=1", NULL, "=1");
    refused("x=1,", NULL, "x=1,");
    refused("x=1 y", NULL, "y");
    refused("x>1", NULL, "x>1");
    refused(NULL, "spec.replicas=1", "spec.replicas");
    refused(NULL, "metadata.name", "name=value");
}

static void paths(void **state)
{
    struct k8s_path path;

    (void)state;
    assert_true(k8s_path_parse("/api/v1/namespaces/qa/pods/p/log", &path));
    assert_string_equal(path.resource->kind, "Pod");
    assert_string_equal(path.namespace, "qa");
    assert_string_equal(path.name, "p");
    assert_string_equal(path.subresource, "log");
    assert_true(k8s_path_parse("/api/v1/namespaces/qa/services/s:http/proxy/a/b", &path));
    assert_string_equal(path.name, "s:http");
    assert_string_equal(path.rest, "a/b");
    assert_true(k8s_path_parse("/apis/apps/v1/deployments", &path));
    assert_string_equal(path.resource->store, "deployments.apps");
    assert_string_equal(path.namespace, "");
    assert_true(k8s_path_parse("/api/v1/namespaces/qa", &path));
    assert_string_equal(path.resource->kind, "Namespace");
    assert_string_equal(path.name, "qa");
    assert_true(k8s_path_parse("/api/v1/namespaces/qa/status", &path));
    assert_string_equal(path.subresource, "status");
    assert_true(k8s_path_parse("/apis/apps/v1beta1/namespaces/qa/deployments/d", &path));
    assert_null(path.resource);
    assert_false(k8s_path_parse("/apis/apps", &path));
    assert_false(k8s_path_parse("/apis/apps/v1", &path));
    assert_false(k8s_path_parse("/version", &path));
    cleanup_buf struct buf text = BUF_INIT;
    buf_puts(&text, "/api/v1/namespaces/");
    for (int i = 0; i < 300; i++)
        buf_putc(&text, 'x');
    assert_false(k8s_path_parse(text.data, &path));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(patches),   cmocka_unit_test(ownership), cmocka_unit_test(calls),
        cmocka_unit_test(selectors), cmocka_unit_test(paths),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
