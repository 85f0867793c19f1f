#include "local/lua_service.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include <lualib.h>
#include <microhttpd.h>

#include "base/mem.h"
#include "vm/embedded.h"

int luaopen_cjson(lua_State *L);

#define READ_LIMIT_LUA (16u << 20)

struct lua_service {
    struct service service;
    pthread_mutex_t lock;
    lua_State *L;
    char *module;
    char **prefixes;
    int table; /* registry reference of what the module returned */
};

/* ---- a state ---- */

static void *allocate(void *state, void *block, size_t old, size_t size)
{
    (void)state;
    (void)old;
    if (size == 0) {
        free(block);
        return NULL;
    }
    return mem_resize(block, size);
}

static int traceback(lua_State *L)
{
    const char *message = luaL_tolstring(L, 1, NULL);

    luaL_traceback(L, L, message, 1);
    return 1;
}

static const struct embedded_file *embedded(const char *path)
{
    for (size_t i = 0; i < embedded_file_count; i++) {
        if (strcmp(embedded_files[i].path, path) == 0)
            return &embedded_files[i];
    }
    return NULL;
}

/* Pushes the chunk of lua/<path>, or returns false with nothing pushed. Syntax errors are raised.
 */
static bool load_file(lua_State *L, const char *path)
{
    const char *override = getenv("MLHOST_LUA_PATH");
    const char *chunk = lua_pushfstring(L, "@(mlhost)/%s", path);
    const struct embedded_file *file = NULL;
    int status;

    if (override && *override) {
        const char *full = lua_pushfstring(L, "%s/%s", override, path);
        struct buf text = BUF_INIT;
        struct error err = {0};
        if (file_read(AT_FDCWD, full, READ_LIMIT_LUA, &text, &err) == 0) {
            status = luaL_loadbufferx(L, text.data ? text.data : "", text.len, chunk, "t");
            buf_free(&text);
            if (status != LUA_OK)
                lua_error(L);
            lua_replace(L, -3);
            lua_pop(L, 1);
            return true;
        }
        buf_free(&text);
        lua_pop(L, 1);
    }
    file = embedded(path);
    if (!file) {
        lua_pop(L, 1);
        return false;
    }
    if (luaL_loadbufferx(L, file->code, file->len, chunk, "b") != LUA_OK)
        lua_error(L);
    lua_replace(L, -2);
    return true;
}

/* package.searchers: "a.b" is lua/a/b.lua or lua/a/b/init.lua. */
static int search(lua_State *L)
{
    const char *name = luaL_gsub(L, luaL_checkstring(L, 1), ".", "/");

    lua_pushfstring(L, "%s.lua", name);
    if (load_file(L, lua_tostring(L, -1)))
        return 1;
    lua_pushfstring(L, "%s/init.lua", name);
    if (load_file(L, lua_tostring(L, -1)))
        return 1;
    lua_pushfstring(L, "no lua/%s.lua in the program", name);
    return 1;
}

static void preload(lua_State *L, const luaL_Reg *libraries)
{
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
    for (; libraries && libraries->name; libraries++) {
        lua_pushcfunction(L, libraries->func);
        lua_setfield(L, -2, libraries->name);
    }
    lua_pop(L, 1);
}

static int prepare_state(lua_State *L)
{
    static const luaL_Reg own[] = {
        {"cjson", luaopen_cjson},
        {"json", luaopen_mlh_json},
        {"sqlite", luaopen_mlh_sqlite},
        {"sys", luaopen_mlh_sys},
        {NULL, NULL},
    };
    const luaL_Reg *libraries = lua_touserdata(L, 1);

    luaL_openlibs(L);
    preload(L, own);
    preload(L, libraries);
    lua_getglobal(L, "os");
    lua_pushnil(L);
    lua_setfield(L, -2, "exit");
    lua_pushnil(L);
    lua_setfield(L, -2, "execute");
    lua_getglobal(L, "package");
    lua_createtable(L, 2, 0);
    lua_getfield(L, -2, "searchers");
    lua_rawgeti(L, -1, 1); /* preload */
    lua_rawseti(L, -3, 1);
    lua_pop(L, 1);
    lua_pushcfunction(L, search);
    lua_rawseti(L, -2, 2);
    lua_setfield(L, -2, "searchers");
    return 0;
}

lua_State *lua_service_state(const luaL_Reg *libraries, struct error *err)
{
    lua_State *L = lua_newstate(allocate, NULL);

    lua_pushcfunction(L, prepare_state);
    lua_pushlightuserdata(L, (void *)libraries);
    if (lua_pcall(L, 1, 0, 0) != LUA_OK) {
        error_set(err, ERR_INTERNAL, "Lua does not start: %s", lua_tostring(L, -1));
        lua_close(L);
        return NULL;
    }
    return L;
}

/* ---- requests ---- */

static enum MHD_Result add_header(void *cls, enum MHD_ValueKind kind, const char *name,
                                  const char *value)
{
    lua_State *L = cls;
    char lower[128];
    size_t len = strlen(name);

    (void)kind;
    if (len >= sizeof lower)
        return MHD_YES;
    for (size_t i = 0; i <= len; i++)
        lower[i] = (char)(name[i] >= 'A' && name[i] <= 'Z' ? name[i] + 32 : name[i]);
    lua_pushstring(L, value ? value : "");
    lua_setfield(L, -2, lower);
    return MHD_YES;
}

static void set_string(lua_State *L, const char *key, const char *text)
{
    lua_pushstring(L, text);
    lua_setfield(L, -2, key);
}

static void push_request(lua_State *L, const struct request *rq)
{
    lua_createtable(L, 0, 12);
    set_string(L, "method", rq->method);
    set_string(L, "path", rq->path);
    set_string(L, "rest", rq->rest);
    set_string(L, "raw_path", rq->raw_path);
    set_string(L, "raw_query", rq->raw_query);
    set_string(L, "origin", rq->origin);
    lua_pushlstring(L, rq->body.data ? rq->body.data : "", rq->body.len);
    lua_setfield(L, -2, "body");
    lua_newtable(L);
    MHD_get_connection_values(rq->connection, MHD_HEADER_KIND, add_header, L);
    lua_setfield(L, -2, "headers");
    lua_newtable(L); /* query */
    lua_newtable(L); /* list */
    for (size_t i = 0; i < rq->field_count; i++) {
        const struct request_field *field = &rq->fields[i];
        if (lua_getfield(L, -1, field->name) == LUA_TNIL) {
            lua_pop(L, 1);
            lua_pushstring(L, field->value);
            lua_setfield(L, -3, field->name);
            lua_newtable(L);
            lua_pushvalue(L, -1);
            lua_setfield(L, -3, field->name);
        }
        lua_pushstring(L, field->value);
        lua_rawseti(L, -2, (lua_Integer)lua_rawlen(L, -2) + 1);
        lua_pop(L, 1);
    }
    lua_setfield(L, -3, "list"); /* stack: request, query */
    lua_setfield(L, -2, "query");
}

/* The response table at the top of the stack. */
static void give_answer(lua_State *L, struct request *rq)
{
    int status = 200;
    const char *type = "application/json";
    size_t len = 0;

    if (lua_getfield(L, -1, "status") == LUA_TNUMBER)
        status = (int)lua_tointeger(L, -1);
    lua_pop(L, 1);
    if (lua_getfield(L, -1, "headers") == LUA_TTABLE) {
        for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
            if (lua_type(L, -2) != LUA_TSTRING || !lua_isstring(L, -1))
                continue;
            if (strcasecmp(lua_tostring(L, -2), "Content-Type") == 0)
                type = NULL;
            lua_pushvalue(L, -1); /* tostring below must not change what lua_next sees */
            answer_header(rq, lua_tostring(L, -3), lua_tostring(L, -1));
            lua_pop(L, 1);
        }
    }
    lua_pop(L, 1);
    if (lua_getfield(L, -1, "file") == LUA_TSTRING) {
        struct stat st;
        int fd = open(lua_tostring(L, -1), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode)) {
            answer_file(rq, status, type ? "application/octet-stream" : NULL, fd, 0,
                        (uint64_t)st.st_size);
        } else {
            struct error err = {0};
            if (fd >= 0)
                close(fd);
            error_set(&err, ERR_NOT_FOUND, "no such file");
            answer_error(rq, 404, &err);
        }
    }
    lua_pop(L, 1);
    if (lua_getfield(L, -1, "body") == LUA_TSTRING) {
        const char *body = lua_tolstring(L, -1, &len);
        answer(rq, status, type, body, len);
    } else if (!request_answered(rq)) {
        answer(rq, status, NULL, "", 0);
    }
    lua_pop(L, 1);
}

/* Stack: request's light pointer, service table. Runs protected. */
static int handle_protected(lua_State *L)
{
    struct request *rq = lua_touserdata(L, 1);

    lua_getfield(L, 2, "handle");
    push_request(L, rq);
    lua_call(L, 1, 1);
    luaL_checktype(L, -1, LUA_TTABLE);
    give_answer(L, rq);
    return 0;
}

static int failed_protected(lua_State *L)
{
    struct request *rq = lua_touserdata(L, 1);

    if (lua_getfield(L, 2, "failed") != LUA_TFUNCTION)
        return 0;
    push_request(L, rq);
    lua_pushvalue(L, 3);
    lua_call(L, 2, 1);
    luaL_checktype(L, -1, LUA_TTABLE);
    give_answer(L, rq);
    return 0;
}

static void handle(struct request *rq)
{
    struct lua_service *service = (struct lua_service *)rq->service->state;
    lua_State *L = service->L;

    pthread_mutex_lock(&service->lock);
    lua_settop(L, 0);
    lua_pushcfunction(L, traceback);
    lua_pushcfunction(L, handle_protected);
    lua_pushlightuserdata(L, rq);
    lua_rawgeti(L, LUA_REGISTRYINDEX, service->table);
    if (lua_pcall(L, 2, 0, 1) != LUA_OK) {
        fprintf(stderr, "mlhost: %s: %s %s: %s\n", service->module, rq->method, rq->path,
                lua_tostring(L, -1));
        lua_pushcfunction(L, failed_protected);
        lua_pushlightuserdata(L, rq);
        lua_rawgeti(L, LUA_REGISTRYINDEX, service->table);
        lua_pushvalue(L, 2);
        if (lua_pcall(L, 3, 0, 1) != LUA_OK)
            fprintf(stderr, "mlhost: %s: %s\n", service->module, lua_tostring(L, -1));
    }
    lua_settop(L, 0);
    pthread_mutex_unlock(&service->lock);
    if (!request_answered(rq)) {
        struct error err = {0};
        error_set(&err, ERR_INTERNAL, "%s failed; its log has the traceback", service->module);
        answer_error(rq, 500, &err);
    }
}

/* ---- open and close ---- */

static int close_protected(lua_State *L)
{
    if (lua_getfield(L, 1, "close") == LUA_TFUNCTION)
        lua_call(L, 0, 0);
    return 0;
}

static void close_service(struct service *base)
{
    struct lua_service *service = base->state;

    if (service->table) {
        lua_settop(service->L, 0);
        lua_pushcfunction(service->L, traceback);
        lua_pushcfunction(service->L, close_protected);
        lua_rawgeti(service->L, LUA_REGISTRYINDEX, service->table);
        if (lua_pcall(service->L, 1, 0, 1) != LUA_OK)
            fprintf(stderr, "mlhost: %s: %s\n", service->module, lua_tostring(service->L, -1));
    }
    if (service->L)
        lua_close(service->L);
    for (char **prefix = service->prefixes; prefix && *prefix; prefix++)
        free(*prefix);
    free(service->prefixes);
    free(service->module);
    pthread_mutex_destroy(&service->lock);
    free(service);
}

/* Stack: local_host, lua_service. Returns the service's table. */
static int open_protected(lua_State *L)
{
    const struct local_host *host = lua_touserdata(L, 1);
    struct lua_service *service = lua_touserdata(L, 2);

    lua_getglobal(L, "require");
    lua_pushfstring(L, "local.%s", service->module);
    lua_call(L, 1, 1);
    luaL_checktype(L, -1, LUA_TFUNCTION);
    lua_createtable(L, 0, 4);
    lua_pushfstring(L, "%s/%s", host->state, service->module);
    lua_setfield(L, -2, "dir");
    set_string(L, "state", host->state);
    set_string(L, "url", host->url);
    set_string(L, "workspace", host->config->workspace);
    lua_call(L, 1, 1);
    luaL_checktype(L, -1, LUA_TTABLE);
    if (lua_getfield(L, -1, "prefixes") != LUA_TTABLE)
        return luaL_error(L, "lua/local/%s.lua: prefixes is not a list", service->module);
    size_t count = lua_rawlen(L, -1);
    service->prefixes = mem_alloc((count + 1) * sizeof *service->prefixes);
    for (size_t i = 0; i < count; i++) {
        lua_rawgeti(L, -1, (lua_Integer)i + 1);
        service->prefixes[i] = mem_strdup(luaL_checkstring(L, -1));
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    if (lua_getfield(L, -1, "handle") != LUA_TFUNCTION)
        return luaL_error(L, "lua/local/%s.lua: handle is not a function", service->module);
    lua_pop(L, 1);
    return 1;
}

struct service *lua_service_open(const struct local_host *host, const char *module,
                                 const luaL_Reg *libraries, struct error *err)
{
    cleanup_free char *dir = mem_printf("%s/%s", host->state, module);

    if (dir_make(dir, err) < 0)
        return NULL;
    struct lua_service *service = mem_alloc(sizeof *service);
    pthread_mutex_init(&service->lock, NULL);
    service->module = mem_strdup(module);
    service->service = (struct service){
        .name = service->module, .handle = handle, .close = close_service, .state = service};
    service->L = lua_service_state(libraries, err);
    if (!service->L) {
        close_service(&service->service);
        return NULL;
    }
    lua_State *L = service->L;
    lua_pushcfunction(L, traceback);
    lua_pushcfunction(L, open_protected);
    lua_pushlightuserdata(L, (void *)host);
    lua_pushlightuserdata(L, service);
    if (lua_pcall(L, 2, 1, 1) != LUA_OK) {
        error_set(err, ERR_INTERNAL, "the embedded service %s does not start: %s", module,
                  lua_tostring(L, -1));
        close_service(&service->service);
        return NULL;
    }
    service->table = luaL_ref(L, LUA_REGISTRYINDEX);
    lua_settop(L, 0);
    service->service.prefixes = (const char *const *)service->prefixes;
    return &service->service;
}
