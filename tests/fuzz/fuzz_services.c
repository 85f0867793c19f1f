/*
 * What clients send to the embedded MLflow, Kubeflow Pipelines (pipelines, their conditions and
 * uploads among it) and Kubernetes (patches, selectors): requests in a row to the very Lua that
 * answers them, over databases of its own. The first byte chooses the service; the form of requests
 * is services.lua's.
 *
 * No request is the server's fault, every answer of type JSON is JSON, no file outside is sent.
 */
#include "fuzz.h"

#include <lauxlib.h>
#include <lua.h>

#include "folder.h"
#include "local/k8s_serve.h"
#include "local/lua_service.h"
#include "local/runner.h"
#include "lua_coverage.h"

#define LONGEST_LIFE 1000 /* requests that one database lasts */

struct target {
    const char *module;
    lua_State *L;
    struct k8s_store *store;
    unsigned runs;
};

static int with_traceback(lua_State *L)
{
    luaL_traceback(L, L, luaL_tolstring(L, 1, NULL), 1);
    return 1;
}

static void call(lua_State *L, const char *function, const char *a, size_t len, const char *b)
{
    lua_settop(L, 0);
    lua_pushcfunction(L, with_traceback);
    lua_getglobal(L, function);
    lua_pushlstring(L, a, len);
    lua_pushstring(L, b);
    if (lua_pcall(L, 2, 0, 1) == LUA_OK)
        return;
    fprintf(stderr, "%s\n", lua_tostring(L, -1));
    abort();
}

static void open_target(struct target *target)
{
    static const luaL_Reg libraries[] = {
        {"k8s", luaopen_mlh_k8s}, {"yaml", luaopen_mlh_yaml}, {NULL, NULL}};
    cleanup_free char *path = path_join(fuzz_folder(), target->module);
    struct error err = {0};

    check(dir_make(path, &err) == 0);
    if (strcmp(target->module, "kubernetes") == 0) {
        target->store = k8s_store_open(path, &err);
        check(target->store);
        k8s_store_set_here(target->store);
    }
    target->L = lua_service_state(libraries, &err);
    check(target->L);
    if (luaL_dofile(target->L, SOURCE_DIR "/tests/fuzz/services.lua") != LUA_OK) {
        fprintf(stderr, "%s\n", lua_tostring(target->L, -1));
        abort();
    }
    call(target->L, "open", target->module, strlen(target->module), path);
    lua_coverage(target->L);
    target->runs = 0;
}

static void close_target(struct target *target)
{
    cleanup_free char *path = path_join(fuzz_folder(), target->module);

    call(target->L, "close", "", 0, "");
    lua_close(target->L);
    target->L = NULL;
    if (target->store)
        k8s_store_close(target->store);
    target->store = NULL;
    check(dir_remove(path, NULL) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct target targets[] = {
        {.module = "mlflow"}, {.module = "kubeflow"}, {.module = "kubernetes"}};

    if (size < 1)
        return 0;
    struct target *target = &targets[data[0] % 3];
    if (target->L && ++target->runs == LONGEST_LIFE)
        close_target(target);
    if (!target->L)
        open_target(target);
    call(target->L, "request", (const char *)data + 1, size - 1, "");
    return 0;
}
