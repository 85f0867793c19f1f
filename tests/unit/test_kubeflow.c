/*
 * The Lua logic of the embedded Kubeflow service, in the very state that the program runs it in:
 * each file of tests/unit/kubeflow returns a list of { name, function }; what a function raises is
 * its failure.
 */
#include "check.h"

#include <lauxlib.h>
#include <lua.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "local/lua_service.h"
#include "local/runner.h"

static int with_traceback(lua_State *L)
{
    luaL_traceback(L, L, luaL_tolstring(L, 1, NULL), 1);
    return 1;
}

static void run_file(const char *name)
{
    struct error err = {0};
    char path[512], folder[] = "/tmp/mlhost-kubeflow-XXXXXX";
    lua_State *L = lua_service_state(kubeflow_libraries, &err);
    int failed = 0;

    assert_non_null(L);
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/tests/unit/kubeflow/%s.lua", SOURCE_DIR, name);
    lua_pushcfunction(L, with_traceback);
    lua_pushstring(L, folder);
    lua_setglobal(L, "FOLDER");
    lua_pushstring(L, SOURCE_DIR);
    lua_setglobal(L, "SOURCE_DIR");
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
    ok(dir_remove(folder, &err), err);
    if (failed)
        fail_msg("%d of %d failed", failed, (int)count);
}

static void test_cel(void **state)
{
    (void)state;
    run_file("cel");
}

static void test_placeholder(void **state)
{
    (void)state;
    run_file("placeholder");
}

static void test_ir(void **state)
{
    (void)state;
    run_file("ir");
}

static void test_dag(void **state)
{
    (void)state;
    run_file("dag");
}

static void test_container(void **state)
{
    (void)state;
    run_file("container");
}

static void test_api(void **state)
{
    (void)state;
    run_file("api");
}

static void test_log_masks_secrets_across_pieces(void **state)
{
    (void)state;
    cleanup_value struct value mask = {0};
    cleanup_buf struct buf text = BUF_INIT;
    struct runner_log log;
    struct error err = {0};
    char path[] = "/tmp/mlhost-log-XXXXXX";

    close(mkstemp(path));
    value_set_array(&mask);
    value_push_string(&mask, "hunter22");
    value_push_string(&mask, "hunter22-long");
    value_push_string(&mask, "ab"); /* too short to be masked */
    ok(runner_log_open(&log, path, 1000, &mask, &err), err);
    runner_log_output(&log, 1, "ab the password is hun", 22);
    runner_log_output(&log, 2, "[other]", 7);
    runner_log_output(&log, 1, "ter22-long, or hunter2", 22);
    runner_log_output(&log, 1, "2 or hunter21\n", 14);
    runner_log_close(&log);
    ok(file_read(-100, path, 10000, &text, &err), err);
    holds(text.data, "ab the password is ***");
    holds(text.data, ", or *** or hunter21\n");
    holds(text.data, "[other]");
    assert_null(strstr(text.data, "hunter22"));
    assert_null(strstr(log.tail, "hunter22"));
    unlink(path);
}

static void test_log_is_bounded(void **state)
{
    (void)state;
    cleanup_buf struct buf text = BUF_INIT;
    struct runner_log log;
    struct error err = {0};
    char path[] = "/tmp/mlhost-log-XXXXXX";

    close(mkstemp(path));
    ok(runner_log_open(&log, path, 100, NULL, &err), err);
    for (int i = 0; i < 50; i++)
        runner_log_output(&log, 1, "0123456789", 10);
    runner_log_output(&log, 1, "the end", 7);
    runner_log_close(&log);
    ok(file_read(-100, path, 10000, &text, &err), err);
    assert_true(text.len < 200);
    holds(text.data, "the log is full");
    holds(log.tail, "the end");
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cel),
        cmocka_unit_test(test_placeholder),
        cmocka_unit_test(test_ir),
        cmocka_unit_test(test_dag),
        cmocka_unit_test(test_container),
        cmocka_unit_test(test_api),
        cmocka_unit_test(test_log_masks_secrets_across_pieces),
        cmocka_unit_test(test_log_is_bounded),
    };
    return cmocka_run_group_tests_name("kubeflow", tests, NULL, NULL);
}
