#include "local/seldon_operator.h"

#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/mem.h"
#include "local/k8s_store.h"
#include "local/runner.h"
#include "local/seldon_routes.h"

/* Below the range that the kernel takes for outgoing connections: a port that was found free stays
 * so until the model listens on it. */
#define FIRST_PORT 20000
#define PORTS      10000
#define PAUSE_MS   1000 /* after a fault of its own */

struct entry {
    struct entry *next;
    int64_t id;
    struct seldon_process *process;
};

struct job {
    struct job *next;
    struct seldon_operator *op;
    int64_t id;
    struct value spec;
    pthread_t thread;
};

struct seldon_operator {
    struct k8s_store *store;
    struct seldon_queue *queue;
    struct http *http;
    lua_State *L;
    pthread_t thread, watcher;
    bool watching;
    atomic_bool over;
    char *state, *url;     /* "<state>", the folder above local/; of the server */
    struct entry *entries; /* this and what follows: the operator's thread only */
    struct job *jobs;
    int64_t last;
    unsigned next_port;
};

static struct seldon_operator *self(lua_State *L)
{
    return lua_touserdata(L, lua_upvalueindex(1));
}

static int failure(lua_State *L, const struct error *err)
{
    lua_pushnil(L);
    lua_pushstring(L, error_code_name(err->code));
    lua_pushfstring(L, err->hint[0] ? "%s; %s" : "%s", err->message, err->hint);
    return 3;
}

static void to_value(lua_State *L, int index, struct value *out)
{
    struct error err = {0};

    if (lua_to_value(L, index, out, &err) < 0)
        luaL_error(L, "%s", err.message);
}

/* ---- the store ---- */

static int store_list(lua_State *L)
{
    struct value list = {0};
    uint64_t version;

    k8s_store_list(self(L)->store, luaL_checkstring(L, 1), luaL_optstring(L, 2, NULL), &list,
                   &version);
    lua_push_value(L, &list);
    value_free(&list);
    lua_pushinteger(L, (lua_Integer)version);
    return 2;
}

static int store_get(lua_State *L)
{
    struct value object = {0};

    if (!k8s_store_get(self(L)->store, luaL_checkstring(L, 1), luaL_checkstring(L, 2),
                       luaL_checkstring(L, 3), &object))
        return 0;
    lua_push_value(L, &object);
    value_free(&object);
    return 1;
}

/* put(resource, object [, "new" | resourceVersion]) */
static int store_put(lua_State *L)
{
    const char *resource = luaL_checkstring(L, 1), *expected = luaL_optstring(L, 3, "0");
    struct value object = {0}, stored = {0};
    struct error err = {0};

    to_value(L, 2, &object);
    int status = k8s_store_put(
        self(L)->store, resource, &object,
        strcmp(expected, "new") == 0 ? K8S_ABSENT : strtoull(expected, NULL, 10), &stored, &err);
    value_free(&object);
    if (status < 0)
        return failure(L, &err);
    lua_push_value(L, &stored);
    value_free(&stored);
    return 1;
}

static int store_put_status(lua_State *L)
{
    const char *resource = luaL_checkstring(L, 1), *namespace = luaL_checkstring(L, 2),
               *name = luaL_checkstring(L, 3);
    struct value status = {0};
    struct error err = {0};

    to_value(L, 4, &status);
    int rc = k8s_store_put_status(self(L)->store, resource, namespace, name, &status, &err);
    value_free(&status);
    if (rc < 0)
        return failure(L, &err);
    lua_pushboolean(L, 1);
    return 1;
}

static int store_delete(lua_State *L)
{
    struct error err = {0};
    int rc = k8s_store_delete(self(L)->store, luaL_checkstring(L, 1), luaL_checkstring(L, 2),
                              luaL_checkstring(L, 3), &err);

    if (rc < 0)
        return failure(L, &err);
    lua_pushboolean(L, rc == 1);
    return 1;
}

/* ---- processes ---- */

static struct entry **find(struct seldon_operator *op, int64_t id)
{
    struct entry **at = &op->entries;

    while (*at && (*at)->id != id)
        at = &(*at)->next;
    return at;
}

/* start(spec) -> id | nil, code, message */
static int process_start(lua_State *L)
{
    struct seldon_operator *op = self(L);
    struct value spec = {0};
    struct error err = {0};

    to_value(L, 1, &spec);
    struct seldon_process *process =
        seldon_process_start(op->queue, op->http, ++op->last, &spec, &err);
    value_free(&spec);
    if (!process)
        return failure(L, &err);
    struct entry *entry = mem_alloc(sizeof *entry);
    *entry = (struct entry){.next = op->entries, .id = op->last, .process = process};
    op->entries = entry;
    lua_pushinteger(L, op->last);
    return 1;
}

static int process_stop(lua_State *L)
{
    struct entry *entry = *find(self(L), luaL_checkinteger(L, 1));

    if (entry)
        seldon_process_stop(entry->process);
    return 0;
}

/* After its event "exited". */
static int process_forget(lua_State *L)
{
    struct entry **at = find(self(L), luaL_checkinteger(L, 1)), *entry = *at;

    if (!entry)
        return 0;
    *at = entry->next;
    seldon_process_free(entry->process);
    free(entry);
    return 0;
}

/* ---- unpacking, on a thread: the event is { t = "unpacked", id, path | error } ---- */

static void *unpack(void *ctx)
{
    struct job *job = ctx;
    struct value event = {0};

    runner_job_unpack(&job->spec, &event);
    value_put_string(&event, "t", "unpacked");
    value_put_int(&event, "id", job->id);
    seldon_queue_post(job->op->queue, &event);
    return NULL;
}

/* unpack{ digest, store, folder } -> id | nil, code, message */
static int start_unpack(lua_State *L)
{
    struct seldon_operator *op = self(L);
    struct error err = {0};
    struct value spec = {0};

    to_value(L, 1, &spec);
    struct job *job = mem_alloc(sizeof *job);
    *job = (struct job){.next = op->jobs, .op = op, .id = ++op->last, .spec = spec};
    int status = pthread_create(&job->thread, NULL, unpack, job);
    if (status) {
        value_free(&job->spec);
        free(job);
        error_errno(&err, status, "cannot start a thread");
        return failure(L, &err);
    }
    op->jobs = job;
    lua_pushinteger(L, job->id);
    return 1;
}

static void jobs_end(struct seldon_operator *op, int64_t id)
{
    for (struct job **at = &op->jobs; *at;) {
        struct job *job = *at;
        if (id && job->id != id) {
            at = &job->next;
            continue;
        }
        *at = job->next;
        pthread_join(job->thread, NULL);
        value_free(&job->spec);
        free(job);
    }
}

/* ---- the rest ---- */

/* wait([ms]) -> event, or nil when the time is over */
static int wait_event(lua_State *L)
{
    struct seldon_operator *op = self(L);
    int64_t deadline = lua_isnoneornil(L, 1)
                           ? DEADLINE_NONE
                           : deadline_in((int64_t)luaL_checkinteger(L, 1) * NS_PER_MS);
    struct value event = {0};

    if (!seldon_queue_take(op->queue, deadline, &event))
        return 0;
    if (strcmp(value_get_string(&event, "t", ""), "unpacked") == 0)
        jobs_end(op, value_get_int(&event, "id", 0));
    lua_push_value(L, &event);
    value_free(&event);
    return 1;
}

static bool port_free(int port)
{
    cleanup_close int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0;
}

/* A loopback port that nobody has; another one each time. */
static int free_port(lua_State *L)
{
    struct seldon_operator *op = self(L);

    for (int tries = 0; tries < PORTS; tries++) {
        int port = FIRST_PORT + (int)(op->next_port++ % PORTS);
        if (port_free(port)) {
            lua_pushinteger(L, port);
            return 1;
        }
    }
    return luaL_error(L, "all ports from %d to %d are taken", FIRST_PORT, FIRST_PORT + PORTS - 1);
}

static int set_routes(lua_State *L)
{
    struct value spec = {0};
    struct error err = {0};

    to_value(L, 1, &spec);
    int status = seldon_routes_set(self(L)->queue, &spec, &err);
    value_free(&spec);
    if (status < 0)
        return failure(L, &err);
    lua_pushboolean(L, 1);
    return 1;
}

static int monotonic_ms(lua_State *L)
{
    lua_pushinteger(L, clock_now() / NS_PER_MS);
    return 1;
}

static int variable(lua_State *L)
{
    lua_pushstring(L, getenv(luaL_checkstring(L, 1)));
    return 1;
}

/* The table that operator.lua is called with. */
static void push_host(lua_State *L, struct seldon_operator *op)
{
    static const luaL_Reg functions[] = {
        {"list", store_list},
        {"get", store_get},
        {"put", store_put},
        {"put_status", store_put_status},
        {"delete", store_delete},
        {"start", process_start},
        {"stop", process_stop},
        {"forget", process_forget},
        {"unpack", start_unpack},
        {"wait", wait_event},
        {"port", free_port},
        {"routes", set_routes},
        {"clock", monotonic_ms},
        {"getenv", variable},
        {NULL, NULL},
    };

    lua_newtable(L);
    lua_pushlightuserdata(L, op);
    luaL_setfuncs(L, functions, 1);
    lua_pushstring(L, op->state);
    lua_pushcclosure(L, runner_image, 1);
    lua_setfield(L, -2, "image");
    lua_pushstring(L, op->state);
    lua_setfield(L, -2, "state");
    lua_pushstring(L, op->url);
    lua_setfield(L, -2, "url");
    runner_push_fs(L);
    lua_setfield(L, -2, "fs");
}

static int run_protected(lua_State *L)
{
    struct seldon_operator *op = lua_touserdata(L, 1);

    lua_getglobal(L, "require");
    lua_pushliteral(L, "local.seldon.operator");
    lua_call(L, 1, 1);
    push_host(L, op);
    lua_call(L, 1, 0);
    return 0;
}

static int with_traceback(lua_State *L)
{
    luaL_traceback(L, L, luaL_tolstring(L, 1, NULL), 1);
    return 1;
}

static void end_processes(struct seldon_operator *op)
{
    for (struct entry *entry = op->entries; entry; entry = entry->next)
        seldon_process_stop(entry->process);
    while (op->entries) {
        struct entry *entry = op->entries;
        op->entries = entry->next;
        seldon_process_free(entry->process);
        free(entry);
    }
}

/* Runs until the event "stop". What escapes is a fault of ours: it is printed, and the operator
 * begins anew from the store after a pause, with new processes. */
static void *work(void *ctx)
{
    struct seldon_operator *op = ctx;

    for (;;) {
        lua_settop(op->L, 0);
        lua_pushcfunction(op->L, with_traceback);
        lua_pushcfunction(op->L, run_protected);
        lua_pushlightuserdata(op->L, op);
        if (lua_pcall(op->L, 1, 0, 1) == LUA_OK)
            return NULL;
        fprintf(stderr, "mlhost: seldon: %s\n", lua_tostring(op->L, -1));
        jobs_end(op, 0);
        end_processes(op);
        int64_t pause = deadline_in(PAUSE_MS * NS_PER_MS);
        struct value event = {0};
        while (!atomic_load(&op->over) && seldon_queue_take(op->queue, pause, &event))
            value_free(&event);
        if (atomic_load(&op->over))
            return NULL;
    }
}

static void *watch(void *ctx)
{
    struct seldon_operator *op = ctx;
    uint64_t seen = k8s_store_version(op->store);

    while (!atomic_load(&op->over)) {
        uint64_t now = k8s_store_wait(op->store, seen, DEADLINE_NONE);
        if (now != seen)
            seldon_queue_tell(op->queue, "store", 0);
        seen = now;
    }
    return NULL;
}

static void operator_free(struct seldon_operator *op)
{
    if (op->L)
        lua_close(op->L);
    jobs_end(op, 0);
    end_processes(op);
    seldon_routes_clear();
    seldon_queue_free(op->queue);
    free(op->state);
    free(op->url);
    free(op);
}

struct seldon_operator *seldon_operator_start(const struct local_host *host, struct http *http,
                                              struct error *err)
{
    struct seldon_operator *op = mem_alloc(sizeof *op);

    op->store = k8s_store_here();
    op->queue = seldon_queue_new();
    op->http = http;
    op->state = mem_strdup(host->config->state);
    op->url = mem_strdup(host->url);
    if (getrandom(&op->next_port, sizeof op->next_port, 0) < 0)
        op->next_port = (unsigned)getpid();
    if (!op->store)
        error_set(err, ERR_INTERNAL, "the Seldon operator needs the Kubernetes API beside it");
    else
        op->L =
            lua_service_state((const luaL_Reg[]){{"yaml", luaopen_mlh_yaml}, {NULL, NULL}}, err);
    if (!op->L) {
        operator_free(op);
        return NULL;
    }
    int status = pthread_create(&op->watcher, NULL, watch, op);
    op->watching = status == 0;
    if (status == 0)
        status = pthread_create(&op->thread, NULL, work, op);
    if (status) {
        error_errno(err, status, "cannot start a thread");
        atomic_store(&op->over, true);
        if (op->watching) {
            k8s_store_wake(op->store);
            pthread_join(op->watcher, NULL);
        }
        operator_free(op);
        return NULL;
    }
    return op;
}

void seldon_operator_stop(struct seldon_operator *op)
{
    atomic_store(&op->over, true);
    seldon_queue_tell(op->queue, "stop", 0);
    pthread_join(op->thread, NULL);
    k8s_store_wake(op->store);
    pthread_join(op->watcher, NULL);
    operator_free(op);
}
