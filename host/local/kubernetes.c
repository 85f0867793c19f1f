/*
 * The embedded Kubernetes API. What may wait is answered here, on the connection's own thread:
 * watches, pod logs, the service proxy. All else is Lua (lua/local/kubernetes.lua), in one state
 * behind a mutex, over the store through the module `k8s`:
 *
 *     get(resource, namespace, name) -> object | nil
 *     list(resource, { namespace, labels, fields, limit, after }) ->
 *         objects, version, remaining, key of the last | nil, message
 *     put(resource, object [, "absent" | resourceVersion]) -> object | nil, code, message
 *     delete(resource, namespace, name) -> was there | nil, code, message
 *     version() -> resourceVersion; remembers(version) -> can a watch start there?
 *     parse(path) -> { resource, group, version, plural, namespace, name, subresource, rest } | nil
 *     now() -> "2026-01-31T12:00:00Z"; resources: what is served
 *     table(resource, objects, metadata, includeObject) -> Table
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "local/k8s_selector.h"
#include "local/k8s_serve.h"
#include "local/k8s_table.h"
#include "local/runner.h"
#include "local/seldon_ingress.h"
#include "local/services.h"

struct kubernetes {
    struct service service;
    struct service *logic; /* the Lua one */
    struct k8s_store *store;
    struct k8s_collector *collector;
};

/* ---- Status ---- */

__attribute__((format(printf, 4, 0))) static void
status_setv(struct value *out, int code, const char *reason, const char *format, va_list args)
{
    struct buf message = BUF_INIT;

    buf_vprintf(&message, format, args);
    value_set_map(out);
    value_put_string(out, "kind", "Status");
    value_put_string(out, "apiVersion", "v1");
    value_set_map(value_put(out, "metadata"));
    value_put_string(out, "status", "Failure");
    value_take_string(value_put(out, "message"), buf_steal(&message));
    value_put_string(out, "reason", reason);
    value_put_int(out, "code", code);
}

void k8s_status(struct value *out, int code, const char *reason, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    status_setv(out, code, reason, format, args);
    va_end(args);
}

void k8s_answer_status(struct request *rq, int code, const char *reason, const char *format, ...)
{
    cleanup_value struct value status = {0};
    va_list args;

    va_start(args, format);
    status_setv(&status, code, reason, format, args);
    va_end(args);
    answer_json(rq, code, &status);
}

bool k8s_query_true(const struct request *rq, const char *name)
{
    const char *text = request_query(rq, name);

    return text && strcmp(text, "false") != 0 && strcmp(text, "0") != 0;
}

/* ---- the module k8s ---- */

static int lua_failed(lua_State *L, const struct error *err)
{
    lua_pushnil(L);
    lua_pushstring(L, error_code_name(err->code));
    lua_pushstring(L, err->message);
    return 3;
}

static int lib_get(lua_State *L)
{
    const char *resource = luaL_checkstring(L, 1), *namespace = luaL_optstring(L, 2, "");
    const char *name = luaL_checkstring(L, 3);
    struct value object = {0};

    if (!k8s_store_get(k8s_store_here(), resource, namespace, name, &object)) {
        lua_pushnil(L);
        return 1;
    }
    lua_push_value(L, &object);
    value_free(&object);
    return 1;
}

static const char *option(lua_State *L, const char *name)
{
    lua_getfield(L, 2, name); /* stays on the stack, and alive, until the call returns */
    return lua_tostring(L, -1);
}

/* "namespace/name", in the order of the store. */
static bool behind(const struct value *object, const char *after)
{
    const char *namespace = value_text(value_path(object, "metadata.namespace"), "");
    size_t len = strcspn(after, "/");
    cleanup_free char *of = mem_strndup(after, len);
    int order = strcmp(namespace, of);

    if (order == 0)
        order = strcmp(value_text(value_path(object, "metadata.name"), ""),
                       after[len] ? after + len + 1 : "");
    return order > 0;
}

static int lib_list(lua_State *L)
{
    const struct k8s_resource *resource = k8s_resource_named(luaL_checkstring(L, 1));
    struct error err = {0};
    struct value objects = {0};
    uint64_t version;

    luaL_checktype(L, 2, LUA_TTABLE);
    luaL_argcheck(L, resource, 1, "a resource that is served");
    const char *namespace = option(L, "namespace"), *after = option(L, "after");
    const char *labels = option(L, "labels"), *fields = option(L, "fields");
    lua_getfield(L, 2, "limit");
    lua_Integer limit = lua_tointeger(L, -1), taken = 0, remaining = 0;
    struct k8s_selector *selector = k8s_selector_parse(resource, labels, fields, &err);
    if (!selector) {
        lua_pushnil(L);
        lua_pushstring(L, err.message);
        return 2;
    }
    k8s_store_list(k8s_store_here(), resource->store, namespace, &objects, &version);
    luaopen_mlh_json(L);
    lua_getfield(L, -1, "array");
    lua_newtable(L);
    lua_call(L, 1, 1);
    int list = lua_gettop(L);
    const struct value *last = NULL;
    for (size_t i = 0; i < value_count(&objects); i++) {
        const struct value *object = value_at(&objects, i);
        if (!k8s_selector_matches(selector, object) || (after && !behind(object, after)))
            continue;
        if (limit > 0 && taken == limit) {
            remaining++;
            continue;
        }
        lua_push_value(L, object);
        lua_rawseti(L, list, ++taken);
        last = object;
    }
    lua_pushfstring(L, "%I", (lua_Integer)version);
    lua_pushinteger(L, remaining);
    lua_pushfstring(L, "%s/%s", value_text(value_path(last, "metadata.namespace"), ""),
                    value_text(value_path(last, "metadata.name"), ""));
    value_free(&objects);
    k8s_selector_free(selector);
    return 4;
}

static int lib_put(lua_State *L)
{
    const char *resource = luaL_checkstring(L, 1), *expected = luaL_optstring(L, 3, "0");
    struct value object = {0}, stored = {0};
    struct error err = {0};
    uint64_t wanted = strcmp(expected, "absent") == 0 ? K8S_ABSENT : strtoull(expected, NULL, 10);

    if (lua_to_value(L, 2, &object, &err) < 0)
        return lua_failed(L, &err);
    int status = k8s_store_put(k8s_store_here(), resource, &object, wanted, &stored, &err);
    value_free(&object);
    if (status < 0)
        return lua_failed(L, &err);
    lua_push_value(L, &stored);
    value_free(&stored);
    return 1;
}

static int lib_delete(lua_State *L)
{
    struct error err = {0};
    int status = k8s_store_delete(k8s_store_here(), luaL_checkstring(L, 1),
                                  luaL_optstring(L, 2, ""), luaL_checkstring(L, 3), &err);

    if (status < 0)
        return lua_failed(L, &err);
    lua_pushboolean(L, status);
    return 1;
}

static int lib_version(lua_State *L)
{
    lua_pushfstring(L, "%I", (lua_Integer)k8s_store_version(k8s_store_here()));
    return 1;
}

static int lib_remembers(lua_State *L)
{
    struct k8s_event event;
    uint64_t next, version = strtoull(luaL_checkstring(L, 1), NULL, 10);

    /* no resource has that name: the question is only whether the log goes back that far */
    lua_pushboolean(L,
                    k8s_store_events(k8s_store_here(), version, "", NULL, &event, 1, &next) >= 0);
    return 1;
}

static void set(lua_State *L, const char *key, const char *text)
{
    lua_pushstring(L, text);
    lua_setfield(L, -2, key);
}

static int lib_parse(lua_State *L)
{
    struct k8s_path path;

    if (!k8s_path_parse(luaL_checkstring(L, 1), &path)) {
        lua_pushnil(L);
        return 1;
    }
    lua_createtable(L, 0, 8);
    if (path.resource)
        set(L, "resource", path.resource->store);
    set(L, "group", path.group);
    set(L, "version", path.version);
    set(L, "plural", path.plural);
    set(L, "namespace", path.namespace);
    set(L, "name", path.name);
    set(L, "subresource", path.subresource);
    set(L, "rest", path.rest);
    return 1;
}

static int lib_now(lua_State *L)
{
    char text[32];

    k8s_time_now(text, sizeof text);
    lua_pushstring(L, text);
    return 1;
}

/* table(resource, object or list of objects, metadata of the list | nil, includeObject | nil) */
static int lib_table(lua_State *L)
{
    const struct k8s_resource *resource = k8s_resource_named(luaL_checkstring(L, 1));
    struct value objects = {0}, metadata = {0}, table = {0};
    struct error err = {0};

    luaL_argcheck(L, resource, 1, "a resource that is served");
    if (lua_to_value(L, 2, &objects, &err) < 0 || lua_to_value(L, 3, &metadata, &err) < 0) {
        value_free(&objects);
        return luaL_error(L, "%s", err.message);
    }
    k8s_table(resource, &objects, metadata.kind == VALUE_MAP ? &metadata : NULL,
              k8s_rows_of(lua_tostring(L, 4)), &table);
    value_free(&objects);
    value_free(&metadata);
    lua_push_value(L, &table);
    value_free(&table);
    return 1;
}

static void set_flag(lua_State *L, const char *key, bool flag)
{
    lua_pushboolean(L, flag);
    lua_setfield(L, -2, key);
}

int luaopen_mlh_k8s(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"get", lib_get},       {"list", lib_list},       {"put", lib_put},
        {"delete", lib_delete}, {"version", lib_version}, {"parse", lib_parse},
        {"now", lib_now},       {"table", lib_table},     {"remembers", lib_remembers},
        {NULL, NULL},
    };

    luaL_newlib(L, functions);
    lua_createtable(L, (int)k8s_resource_count, 0);
    for (size_t i = 0; i < k8s_resource_count; i++) {
        const struct k8s_resource *resource = &k8s_resources[i];
        char version[160];
        k8s_api_version(resource, version, sizeof version);
        lua_createtable(L, 0, 11);
        set(L, "store", resource->store);
        set(L, "group", resource->group);
        set(L, "version", resource->version);
        set(L, "api_version", version);
        set(L, "plural", resource->plural);
        set(L, "singular", resource->singular);
        set(L, "kind", resource->kind);
        if (resource->short_name)
            set(L, "short_name", resource->short_name);
        set_flag(L, "namespaced", resource->namespaced);
        set_flag(L, "status", resource->status);
        set_flag(L, "scale", resource->scale);
        set_flag(L, "custom", resource->custom);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    lua_setfield(L, -2, "resources");
    return 1;
}

/* ---- requests ---- */

/* /api/v1/namespaces/<ns>/services/[scheme:]<name>[:port]/proxy[/rest] */
static void proxy(struct request *rq, const struct k8s_path *path)
{
    const char *name = path->name;
    const char *rest = strstr(rq->raw_path, "/proxy");

    if (strncmp(name, "http:", 5) == 0 && strchr(name + 5, ':'))
        name += 5;
    cleanup_free char *service = mem_strndup(name, strcspn(name, ":"));
    rest = rest ? rest + strlen("/proxy") : "";
    if (seldon_forward(rq, path->namespace, service, rest) < 0)
        k8s_answer_status(rq, 503, "ServiceUnavailable",
                          "no endpoints available for service \"%s\"", service);
}

/* True when it was one of those that may wait. */
static bool handle_waiting(struct request *rq, struct k8s_store *store)
{
    struct k8s_path path;

    if (!k8s_path_parse(rq->path, &path) || !path.resource)
        return false;
    if (strcmp(path.resource->store, "services") == 0 && strcmp(path.subresource, "proxy") == 0) {
        proxy(rq, &path);
        return true;
    }
    if (strcmp(rq->method, "GET") != 0)
        return false;
    if (strcmp(path.resource->store, "pods") == 0 && strcmp(path.subresource, "log") == 0) {
        k8s_log(rq, store, &path);
        return true;
    }
    if (!*path.subresource && request_query(rq, "watch") && k8s_query_true(rq, "watch")) {
        k8s_watch(rq, store, &path);
        return true;
    }
    return false;
}

static void handle(struct request *rq)
{
    struct kubernetes *kubernetes = rq->service->state;
    const struct service *self = rq->service;

    if (handle_waiting(rq, kubernetes->store))
        return;
    rq->service = kubernetes->logic;
    kubernetes->logic->handle(rq);
    rq->service = self;
}

/* ---- open and close ---- */

static void stopping(struct service *service)
{
    struct kubernetes *kubernetes = service->state;

    k8s_store_wake(kubernetes->store);
}

static void close_service(struct service *service)
{
    struct kubernetes *kubernetes = service->state;

    if (kubernetes->collector) {
        k8s_store_wake(kubernetes->store);
        k8s_collector_stop(kubernetes->collector);
    }
    if (kubernetes->logic)
        kubernetes->logic->close(kubernetes->logic);
    if (kubernetes->store)
        k8s_store_close(kubernetes->store);
    free(kubernetes);
}

struct service *kubernetes_open(const struct local_host *host, struct error *err)
{
    static const luaL_Reg libraries[] = {
        {"k8s", luaopen_mlh_k8s},
        {"yaml", luaopen_mlh_yaml},
        {NULL, NULL},
    };
    struct kubernetes *kubernetes = mem_alloc(sizeof *kubernetes);
    cleanup_free char *folder = mem_printf("%s/kubernetes", host->state);

    kubernetes->service = (struct service){.name = "kubernetes",
                                           .handle = handle,
                                           .stopping = stopping,
                                           .close = close_service,
                                           .state = kubernetes};
    kubernetes->store = k8s_store_open(folder, err);
    if (!kubernetes->store)
        goto undo;
    k8s_store_set_here(kubernetes->store);
    kubernetes->logic = lua_service_open(host, "kubernetes", libraries, err);
    if (!kubernetes->logic)
        goto undo;
    kubernetes->service.prefixes = kubernetes->logic->prefixes;
    kubernetes->collector = k8s_collector_start(kubernetes->store, err);
    if (!kubernetes->collector)
        goto undo;
    return &kubernetes->service;
undo:
    close_service(&kubernetes->service);
    return NULL;
}
